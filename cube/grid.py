"""An area and a resolution in, the cube's grid (`GeoBox`) out."""

import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pyproj
import shapely
import shapely.geometry
from affine import Affine
from jaxtyping import Float64, Int64
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry

from cube.errors import InputError
from cube.spec import METRES
from cube.touched import area_on_grid

LON_LAT = CRS("EPSG:4326")


def area_from_bbox(bbox: tuple[float, float, float, float], crs: str = "EPSG:4326") -> Geometry:
    """Return the area of (left, bottom, right, top) in `crs` units.

    In degrees a box with left > right crosses the antimeridian, as in GeoJSON: its longitudes go
    on beyond 180. Raises `InputError` if the box is empty, turned round, or outside the globe.
    """
    left, bottom, right, top = bbox
    reference = parse_crs(crs)
    is_wrapped = reference.geographic and left > right
    if not all(map(math.isfinite, bbox)) or (left >= right and not is_wrapped) or bottom >= top:
        raise InputError(f"bbox {list(bbox)} is empty; expected [left, bottom, right, top]")
    if reference.geographic and not (
        max(abs(left), abs(right)) <= 180 and bottom >= -90 and top <= 90
    ):
        raise InputError(f"bbox {list(bbox)} lies outside lon -180..180, lat -90..90")
    if is_wrapped:
        right += 360
        if right - left > _WIDEST:
            raise InputError(
                f"bbox {list(bbox)} has left > right and would span {right - left:g} degrees; "
                "expected [left, bottom, right, top]"
            )
    return Geometry(shapely.box(left, bottom, right, top), reference)


def area_from_file(path: Path) -> Geometry:
    """Return the union of all polygons in a vector file (GeoJSON, GeoPackage, Shapefile, …).

    Raises `InputError` if the file is missing, unreadable, without polygons or without a CRS.
    """
    if not _exists(path):
        raise InputError(f"area file {str(path)!r} does not exist")
    try:
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
        meta, _, wkb, _ = pyogrio.raw.read(path, columns=[], layer=layers[0] if layers else None)
        shapes = [] if wkb is None else [shape for shape in shapely.from_wkb(wkb) if shape]
    except (*_UNREADABLE, shapely.errors.GEOSException) as error:
        raise InputError(
            f"area file {str(path)!r} cannot be read as a vector file: {error}"
        ) from error
    if len(layers) > 1:
        raise InputError(
            f"area file {str(path)!r} has the layers {', '.join(layers)}; save the one you mean alone"
        )
    parts = shapely.get_parts(shapely.get_parts(shapes))  # collections may hold multi-polygons
    polygons = [part for part in parts if part.geom_type == "Polygon" and not part.is_empty]
    if not polygons:
        found = ", ".join(sorted({shape.geom_type for shape in shapes})) or "nothing"
        raise InputError(f"area file {str(path)!r} has no polygon (found {found})")
    if not meta["crs"]:
        raise InputError(f"area file {str(path)!r} has no CRS; save it with one")
    reference = parse_crs(meta["crs"])
    # a line that crosses itself would stop the union
    area = shapely.union_all(shapely.make_valid(shapely.force_2d(polygons)))
    return Geometry(_unwrapped(area) if reference.geographic else area, reference)


_UNREADABLE = (
    pyogrio.errors.DataSourceError,
    pyogrio.errors.DataLayerError,
    pyogrio.errors.FeatureError,
    pyogrio.errors.GeometryError,
    ValueError,
)

_WIDEST = 180
"""Degrees of longitude from which an area is taken to cross the antimeridian."""


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name longer than the file system allows
        return False


def _unwrapped(area: Any) -> Any:
    """Return an area in lon/lat that lies on both sides of 180 degrees as one piece."""
    if area.bounds[2] - area.bounds[0] <= _WIDEST:
        return area
    east = shapely.box(0, -90, 360, 90)
    moved = shapely.transform(area.difference(east), lambda lon_lat: lon_lat + np.array([360.0, 0]))
    joined = shapely.union_all([area.intersection(east), moved])
    return joined if joined.bounds[2] - joined.bounds[0] <= _WIDEST else area


@functools.lru_cache(maxsize=256)
def parse_crs(text: str) -> CRS:
    """Return the CRS named by an EPSG code, WKT or PROJ text; `InputError` if there is none.

    A text that means the same as an EPSG code gives the CRS of that code, so that a file's long
    definition and the recipe's short name are one CRS.
    """
    try:
        crs = CRS(text)
        epsg = _epsg(crs.proj)
        return CRS(f"EPSG:{epsg}") if epsg else crs
    except (CRSError, ValueError) as error:
        raise InputError(f"crs {text[:80]!r} is not known; expected e.g. 'EPSG:32633'") from error


def _epsg(crs: pyproj.CRS) -> int | None:
    """Return the EPSG code that means the same as `crs`, or None."""
    epsg: int | None = crs.to_epsg(min_confidence=70)
    if epsg:
        return epsg
    if crs.is_bound:
        # a stated shift to WGS 84 (TOWGS84) counts, unless it shifts nothing
        shift = list(crs.coordinate_operation.towgs84) if crs.coordinate_operation else []
        if crs.source_crs is None or not shift or any(shift):
            return None
        crs = crs.source_crs
    epsg = crs.to_epsg(min_confidence=20)
    return epsg if epsg and _same_place(crs, pyproj.CRS.from_epsg(epsg)) else None


def _same_place(crs: pyproj.CRS, other: pyproj.CRS) -> bool:
    """Say whether two projected CRS differ in nothing but names and the order of axes."""
    base, other_base = crs.geodetic_crs, other.geodetic_crs
    if base is None or other_base is None:
        return False
    return _projection(crs) == _projection(other) and bool(
        base.equals(other_base, ignore_axis_order=True)
    )


def _projection(crs: pyproj.CRS) -> tuple[Any, ...]:
    """Return method, parameters in base units, and unit by direction of each axis."""
    operation = crs.coordinate_operation
    return (
        operation.method_name if operation else None,
        {item.name: (item.value, item.unit_conversion_factor) for item in operation.params}
        if operation
        else None,
        {axis.direction: axis.unit_conversion_factor for axis in crs.axis_info},
    )


def lon_lat_area(area: Geometry) -> BaseGeometry:
    """Return an area in lon/lat as one piece, which may go on beyond 180 degrees."""
    moved = area_on_grid(area, LON_LAT).geom
    return moved if area.crs == LON_LAT else _unwrapped(moved)


def utm_crs(area: Geometry) -> CRS:
    """Return the UTM zone (WGS 84) in which the centre of `area` lies.

    Svalbard's and Norway's widened zones follow the grid definition; poles are refused.
    """
    longitude, latitude = area.to_crs(LON_LAT).centroid.coords[0]
    longitude = (longitude + 180) % 360 - 180
    if not -80 <= latitude <= 84:
        raise InputError(
            f"the area's centre is at latitude {latitude:.2f}, where UTM is undefined; set "
            "grid.crs = 'equal-area', or a polar CRS such as 'EPSG:3413' or 'EPSG:3031'"
        )
    return CRS(f"EPSG:{int(utm_epsg(np.array(longitude), np.array(latitude)))}")


def utm_epsg(
    longitude: Float64[np.ndarray, "..."], latitude: Float64[np.ndarray, "..."]
) -> Int64[np.ndarray, "..."]:
    """Return the EPSG code of the UTM zone (WGS 84) of places in degrees, wherever they are.

    Zones of Norway and Svalbard are widened as the grid's definition has it.
    """
    longitude = (longitude + 180) % 360 - 180
    zone = np.minimum((longitude + 180) // 6 + 1, 60)
    zone = np.where(
        (latitude >= 56) & (latitude < 64) & (longitude >= 3) & (longitude < 12), 32, zone
    )
    svalbard = 31 + 2 * ((longitude + 3) // 12)
    zone = np.where((latitude >= 72) & (longitude >= 0) & (longitude < 42), svalbard, zone)
    return np.asarray(np.where(latitude >= 0, 32600, 32700) + zone).astype(np.int64)


def equal_area_crs(area: Geometry) -> CRS:
    """Return the Lambert azimuthal equal-area CRS (WGS 84, metres) about the centre of `area`.

    Its own centre is rounded to whole degrees, so that areas that differ a little share it. Pixels
    are equal in area everywhere; shapes are true at the centre, and 1 % off some 1,300 km from it.
    """
    longitude, latitude = area.to_crs(LON_LAT).centroid.coords[0]
    longitude = (round(longitude) + 180) % 360 - 180
    return parse_crs(
        f"+proj=laea +lat_0={round(latitude)} +lon_0={longitude} +x_0=0 +y_0=0 +datum=WGS84 "
        "+units=m +no_defs"
    )


def grid_of_area(
    area: Geometry,
    *,
    crs: str = "utm",
    resolution: float = 10,
    anchor: tuple[float, float] = (0, 0),
) -> GeoBox:
    """Return the smallest grid over `area` whose edges are multiples of `resolution`.

    Multiples of the pixel size are how Sentinel-2 tiles are laid, so native pixels are kept as
    they are; `anchor` is a pixel corner elsewhere. `crs` is "utm" for the zone of the area's
    centre, "equal-area" for `equal_area_crs`, or any projected CRS.

    Raises `InputError` if the CRS is not in metres, the resolution or the anchor is no number, or
    the area lies where the CRS has no coordinates.
    """
    reference = _BY_AREA[crs](area) if crs in _BY_AREA else parse_crs(crs)
    if not reference.projected or reference.units[0] not in METRES:
        raise InputError(
            f"grid crs {crs!r} is not in metres; use 'utm', 'equal-area' or a projected CRS"
        )
    if not (math.isfinite(resolution) and resolution > 0):
        raise InputError(f"grid resolution {resolution!r} is not a positive number of metres")
    if not all(map(math.isfinite, anchor)):
        raise InputError(f"grid anchor {list(anchor)} is no point; expected [x, y] in metres")
    box = area_on_grid(area, reference).boundingbox
    if not all(map(math.isfinite, box)):
        raise InputError(f"part of the area has no coordinates in grid crs {crs!r}; choose another")
    x, y = anchor
    # a millionth of a pixel is a rounding error of the projection, not ground to be covered
    left = math.floor((box.left - x) / resolution + 1e-6)
    right = math.ceil((box.right - x) / resolution - 1e-6)
    bottom = math.floor((box.bottom - y) / resolution + 1e-6)
    top = math.ceil((box.top - y) / resolution - 1e-6)
    transform = Affine(resolution, 0, x + left * resolution, 0, -resolution, y + top * resolution)
    return GeoBox((max(top - bottom, 1), max(right - left, 1)), transform, reference)


_BY_AREA = {"utm": utm_crs, "equal-area": equal_area_crs}
"""CRS that follow from an area, by the name under which a recipe asks for them."""


def geojson_of_area(area: Geometry) -> str:
    """Return `area` as GeoJSON text in lon/lat."""
    return json.dumps(shapely.geometry.mapping(area.to_crs(LON_LAT).geom))
