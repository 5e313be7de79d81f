"""Lon/lat geometry in, "does it meet the window" out: footprints that may cross the antimeridian."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import shapely
from jaxtyping import Bool, Float64, Shaped
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from shapely.affinity import translate
from shapely.geometry import MultiPolygon, Polygon, mapping, shape
from shapely.geometry.base import BaseGeometry, BaseMultipartGeometry

from cube.errors import InputError

_EDGE_POINTS = 16
"""Points along each side of a window when its outline is taken to lon/lat: over 110 km a straight
UTM line bends by less than 100 m between them."""


FOOTPRINT_SLACK = 0.03
"""Degrees within which a footprint counts as meeting a window. Providers simplify footprints, so
that pixels lie outside of them; without slack such a pixel would be used or not as the window that
holds it does or does not reach the footprint. Wider than what simplifying cuts off (some hundred
metres), and little beside a granule's 100 km."""


def unwrapped(geometry: Mapping[str, Any]) -> Polygon | MultiPolygon:
    """Return a GeoJSON (Multi)Polygon as a valid shape in continuous longitude.

    A ring whose neighbouring points lie more than 180 degrees apart crosses the antimeridian: its
    western longitudes get 360 added. Raises `ValueError` for any other type, for no area, and for
    coordinates that are no lon/lat.
    """
    if not isinstance(geometry, Mapping) or geometry.get("type") not in ("Polygon", "MultiPolygon"):
        raise ValueError("geometry is not a GeoJSON Polygon or MultiPolygon")
    try:
        found = shape(dict(geometry))
    except (TypeError, IndexError, KeyError, AttributeError, shapely.errors.ShapelyError) as error:
        raise ValueError(f"geometry cannot be read: {error}") from error
    bounds = np.asarray(found.bounds)
    if found.is_empty or not np.isfinite(bounds).all():
        raise ValueError("geometry is empty")
    if np.abs(bounds[[0, 2]]).max() > 540 or np.abs(bounds[[1, 3]]).max() > 90:
        raise ValueError(f"geometry reaches {found.bounds}, which is not lon/lat")
    whole = shapely.union_all(
        [shapely.make_valid(_unwrapped_part(part)) for part in _polygons(found)]
    )
    polygons = _polygons(whole)
    if not polygons:
        raise ValueError("geometry has no area")
    return polygons[0] if len(polygons) == 1 else MultiPolygon(polygons)


def geojson(outline: Polygon | MultiPolygon) -> dict[str, Any]:
    """Return a shape as GeoJSON made of lists, as `json` reads it back."""
    found = mapping(outline)
    return {"type": found["type"], "coordinates": _lists(found["coordinates"])}


def bbox_outline(bbox: tuple[float, float, float, float]) -> Polygon:
    """Return (west, south, east, north) as a polygon; west > east crosses the antimeridian."""
    west, south, east, north = bbox
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90):
        raise InputError(f"bbox {bbox} is not (west, south, east, north) in degrees")
    if west == east:
        raise InputError(f"bbox {bbox} has no width")
    return shapely.box(west, south, east + 360 if east < west else east, north)


def window_outline(window: GeoBox) -> Polygon:
    """Return the outline of a window in continuous lon/lat.

    Raises `InputError` for a window without a CRS.
    """
    if window.crs is None:
        raise InputError("the window has no CRS, so no scene can be found for it")
    edges = window.extent.segmented(max(window.extent.length / (4 * _EDGE_POINTS), 1e-9))
    lonlat = edges.to_crs("EPSG:4326")
    (outline,) = _polygons(lonlat.geom)
    return _unwrapped_part(outline)


def meets_window(
    footprints: Shaped[np.ndarray, " footprint"], window: GeoBox
) -> Bool[np.ndarray, " footprint"]:
    """Say which footprints come as near as `FOOTPRINT_SLACK` to a window.

    `footprints` are continuous lon/lat shapes from `unwrapped`, as an array of objects. Raises
    `InputError` for a window without a CRS.
    """
    found = np.zeros(footprints.shape, np.bool_)
    near = window_outline(window).buffer(FOOTPRINT_SLACK)
    for turn in (0.0, -360.0, 360.0):
        ground = translate(near, xoff=turn)
        # not the footprints, which threads share: GEOS changes what is prepared when it is asked
        shapely.prepare(ground)
        found |= shapely.intersects(ground, footprints)
    return found


def outline_points(
    boxes: Float64[np.ndarray, "box 4"],
) -> tuple[Float64[np.ndarray, "box point"], Float64[np.ndarray, "box point"]]:
    """(x, y) of points round boxes (left, bottom, right, top): corners, and `_EDGE_POINTS` a side."""
    along = np.arange(_EDGE_POINTS) / _EDGE_POINTS
    zero, one = np.zeros(_EDGE_POINTS), np.ones(_EDGE_POINTS)
    across = np.concatenate([along, one, 1 - along, zero])
    up = np.concatenate([zero, along, one, 1 - along])
    left, bottom, right, top = (boxes[:, [side]] for side in range(4))
    return left + (right - left) * across, bottom + (top - bottom) * up


def meets_boxes(
    footprint: Polygon | MultiPolygon, boxes: Float64[np.ndarray, "box 4"], crs: CRS
) -> Bool[np.ndarray, " box"]:
    """Say, as `meets_window` does, which of many boxes of a CRS a footprint comes near."""
    found = np.zeros(len(boxes), np.bool_)
    if not len(boxes):
        return found
    longitude, latitude = crs.transformer_to_crs(CRS("EPSG:4326"))(*outline_points(boxes))
    is_known = (np.isfinite(longitude) & np.isfinite(latitude)).all(axis=1)
    longitude, latitude = longitude[is_known], latitude[is_known]
    is_wrapped = longitude.max(axis=1) - longitude.min(axis=1) > 180
    longitude = np.where(is_wrapped[:, None] & (longitude < 0), longitude + 360, longitude)
    for turn in (0.0, -360.0, 360.0):
        windows = shapely.polygons(np.stack([longitude + turn, latitude], axis=-1))
        ground = translate(footprint)  # a copy: threads share footprints, and preparing changes one
        shapely.prepare(ground)
        found[is_known] |= shapely.dwithin(ground, windows, FOOTPRINT_SLACK)
    return found


def search_area(geobox: GeoBox) -> dict[str, Any]:
    """Return the ground of a grid as GeoJSON in lon/lat, for `SceneQuery.geometry` and STAC APIs.

    Polygon, or MultiPolygon cut in two at the antimeridian as RFC 7946, section 3.1.9, wants it:
    every longitude lies in -180..180. Raises `InputError` for a grid without a CRS, and for one
    that is not on the globe.
    """
    parts = on_globe(window_outline(geobox))
    if parts is None:
        raise InputError(f"the grid lies at {window_outline(geobox).bounds}, which is not lon/lat")
    return geojson(parts)


def on_globe(outline: Polygon | MultiPolygon) -> Polygon | MultiPolygon | None:
    """Return a continuous shape with every longitude in -180..180, cut where it crosses 180.

    None for one without area there.
    """
    parts = [
        translate(part, xoff=-turn)
        for turn in (-360.0, 0.0, 360.0)
        for part in _polygons(
            shapely.intersection(outline, shapely.box(turn - 180, -90, turn + 180, 90))
        )
    ]
    parts = [part for part in parts if part.area > 0]  # none, or a line, where it only touches
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)


def meets(first: Polygon | MultiPolygon, second: Polygon | MultiPolygon) -> bool:
    """Say whether two continuous lon/lat shapes share ground, whichever way round the globe."""
    return any(shapely.intersects(first, translate(second, xoff=by)) for by in (0.0, -360.0, 360.0))


def covered_share(covered: Polygon | MultiPolygon, by: Polygon | MultiPolygon) -> float:
    """Return the share (0..1) of `covered` that lies under `by`, both from `unwrapped`."""
    return float(shapely.area(shapely.intersection(covered, by)) / shapely.area(covered))


def _polygons(whole: BaseGeometry) -> list[Polygon]:
    """Return the polygons a shape is made of, however nested; its lines and points are left out."""
    if isinstance(whole, Polygon):
        return [whole]
    if isinstance(whole, BaseMultipartGeometry):
        return [polygon for part in whole.geoms for polygon in _polygons(part)]
    return []


def _unwrapped_part(part: Polygon) -> Polygon:
    rings = [np.asarray(ring.coords)[:, :2] for ring in (part.exterior, *part.interiors)]
    if not any((np.abs(np.diff(ring[:, 0])) > 180).any() for ring in rings):
        return part
    for ring in rings:
        ring[ring[:, 0] < 0, 0] += 360
    return Polygon(rings[0], rings[1:])


def _lists(coordinates: Any) -> Any:
    if isinstance(coordinates, tuple | list):
        return [_lists(part) for part in coordinates]
    return float(coordinates)
