"""Scenes and many tiles in, which of the scenes can have a part in which tile out, all at once."""

from collections.abc import Sequence

import numpy as np
import pyproj
import shapely
from jaxtyping import Float64, Int64
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from cube.spec import Region
from cube.stac.footprint import FOOTPRINT_SLACK, unwrapped
from cube.stac.scene import Scene

_SIDE_POINTS = 17
"""Points along each side of a tile that are taken to lon/lat."""

_BULGE = 0.006
"""Degrees by which a side may bend out between two of its points, with room to spare."""

_AT_ONCE = 4096
"""Tiles that are looked up together, so that a country's do not fill the memory."""

Boxes = Float64[np.ndarray, "tile 4"]


class TouchingScenes:
    """The scenes of a list, to be asked which of them can have a part in a tile."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self._footprints = shapely.STRtree([unwrapped(scene.footprint) for scene in scenes])

    def of_tiles(
        self, regions: Sequence[Region], geobox: GeoBox, *, margin: int
    ) -> list[Int64[np.ndarray, " scene"]]:
        """Return for each tile the ascending numbers of its scenes.

        Those that `meets_window` names for the tile and `margin` pixels around it are among them,
        and few others. What is found for a tile depends on its own place alone, not on the grid that
        it is part of, so that a larger area leaves it as it is.
        """
        found: list[Int64[np.ndarray, " scene"]] = []
        for start in range(0, len(regions), _AT_ONCE):
            boxes = _lon_lat(tile_boxes(regions[start : start + _AT_ONCE], geobox, margin), geobox)
            found.extend(self._in(boxes))
        return found

    def _in(self, boxes: Boxes) -> list[Int64[np.ndarray, " scene"]]:
        pairs = []
        for turn in (0.0, -360.0, 360.0):
            ground = shapely.box(boxes[:, 0] + turn, boxes[:, 1], boxes[:, 2] + turn, boxes[:, 3])
            pairs.append(self._footprints.query(ground, predicate="intersects"))
        tiles, scenes = np.unique(np.concatenate(pairs, axis=1), axis=1)  # by tile, then scene
        edges = np.searchsorted(tiles, np.arange(1, len(boxes)))
        return [part.astype(np.int64) for part in np.split(scenes, edges)]


def tile_boxes(regions: Sequence[Region], geobox: GeoBox, margin: int = 0) -> Boxes:
    """Return (left, bottom, right, top) of tiles of a north-up grid, wider by `margin` pixels."""
    edges = np.array(
        [(one.left, one.top + one.height, one.left + one.width, one.top) for one in regions],
        np.float64,
    ).reshape(-1, 4) + np.array([-margin, margin, margin, -margin])
    step = np.array([geobox.transform.a, geobox.transform.e] * 2)
    return np.asarray(edges * step + np.array([geobox.transform.c, geobox.transform.f] * 2))


def _lon_lat(boxes: Boxes, geobox: GeoBox) -> Boxes:
    """Return boxes in lon/lat around those in the grid's CRS, `FOOTPRINT_SLACK` wider.

    Continuous across the antimeridian; around a pole, or where the CRS has no coordinates, the globe.
    """
    assert geobox.crs is not None  # CubeSpec refuses a grid without one
    share = np.linspace(0, 1, _SIDE_POINTS)
    left, bottom, right, top = (boxes[:, [index]] for index in range(4))
    along_x, along_y = left + (right - left) * share, bottom + (top - bottom) * share
    flat = np.zeros_like(share)
    x = np.concatenate([along_x, along_x, left + flat, right + flat], axis=1)  # (tile, point)
    y = np.concatenate([bottom + flat, top + flat, along_y, along_y], axis=1)
    to_globe = pyproj.Transformer.from_crs(geobox.crs.proj, CRS("EPSG:4326").proj, always_xy=True)
    longitude, latitude = to_globe.transform(x, y)
    with np.errstate(invalid="ignore"):  # infinite where there are no coordinates
        longitude = longitude[:, :1] + (longitude - longitude[:, :1] + 180) % 360 - 180
    around = FOOTPRINT_SLACK + _BULGE
    found = np.stack(
        [
            longitude.min(axis=1) - around,
            latitude.min(axis=1) - around,
            longitude.max(axis=1) + around,
            latitude.max(axis=1) + around,
        ],
        axis=1,
    )
    is_odd = ~np.isfinite(found).all(axis=1) | (found[:, 2] - found[:, 0] > 180)
    found[is_odd] = (-540, -90, 540, 90)
    return np.asarray(found)
