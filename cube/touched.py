"""An area and a grid in, the tiles of the grid that the area touches out, and runs that keep them."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import shapely
from jaxtyping import Bool, Int64
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from shapely.geometry.base import BaseGeometry

_ROUNDING = 1e-6
"""Share of a pixel by which an area may reach into a tile without touching it: so much is rounding
of the projection, as `cube.grid.grid_of_area` takes it."""

_LONGEST_EDGE, _LONGEST_EDGE_DEGREES = 2000.0, 0.02
"""Metres, or degrees, after which an edge gets a point: a parallel bends by 0.1 m in between."""


def area_on_grid(area: Geometry, crs: CRS) -> Geometry:
    """Return the polygons of `area` in `crs`, its long edges bent as the projection bends them."""
    assert area.crs is not None  # `cube.grid` makes no area without one
    if area.crs == crs:
        return Geometry(_polygons(area.geom), crs)
    left, bottom, right, top = area.geom.bounds
    widest = max(right - left, top - bottom)
    step = _LONGEST_EDGE_DEGREES if area.crs.geographic else _LONGEST_EDGE
    dense = shapely.segmentize(area.geom, max(min(step, widest / 100), widest / 10_000))
    to_grid = area.crs.transformer_to_crs(crs)
    moved = shapely.transform(dense, lambda xy: np.column_stack(to_grid(xy[:, 0], xy[:, 1])))
    return Geometry(_polygons(moved), crs)


def _polygons(shape: BaseGeometry) -> BaseGeometry:
    """Return a shape as valid polygons, without lines; as it is where it has no coordinates.

    After a projection points that were apart may lie on each other's edges.
    """
    if not np.isfinite(shape.bounds).all():
        return shape
    whole = shape if shape.is_valid else shapely.make_valid(shape)
    if whole.geom_type in ("Polygon", "MultiPolygon"):
        return whole
    parts = shapely.get_parts(shapely.get_parts([whole]))
    return shapely.union_all([part for part in parts if part.geom_type == "Polygon"])


def touched_tiles(area: Geometry, geobox: GeoBox, tile: int) -> Bool[np.ndarray, "row column"]:
    """Return which tiles of `tile` pixels of a north-up grid share ground with `area`.

    Blocks of tiles are asked first: one that lies inside or outside as a whole is not looked into,
    so that the effort follows the length of the border, not the number of tiles. An area smaller
    than all rounding touches the tiles that it lies in.
    """
    assert geobox.crs is not None  # CubeSpec refuses a grid without one
    ground = area_on_grid(area, geobox.crs).geom
    shapely.prepare(ground)
    shape = tuple(-(-size // tile) for size in geobox.shape)
    for margin in (_ROUNDING, 0.0):
        touched = np.zeros(shape, np.bool_)
        edge = 1 << max(int(np.ceil(np.log2(max(shape)))), 0)
        blocks = np.zeros((1, 2), np.int64)  # (block, row and column of its first tile)
        while edge and len(blocks):
            boxes = _boxes(blocks, edge, geobox, tile, margin if edge == 1 else 0.0)
            is_met = shapely.intersects(ground, boxes)
            is_inside = is_met & shapely.contains_properly(ground, boxes)
            for row, column in blocks[is_inside if edge > 1 else is_met]:
                touched[row : row + edge, column : column + edge] = True
            edge //= 2
            blocks = _quarters(blocks[is_met & ~is_inside], edge, shape)
        if touched.any():
            break
    return touched


def _boxes(
    blocks: Int64[np.ndarray, "block 2"], edge: int, geobox: GeoBox, tile: int, margin: float
) -> np.ndarray:
    """Return blocks of `edge` x `edge` tiles as boxes in the grid's CRS, smaller by `margin` pixels."""
    height, width = geobox.shape
    rows = np.minimum(blocks[:, 0] * tile, height), np.minimum((blocks[:, 0] + edge) * tile, height)
    columns = (
        np.minimum(blocks[:, 1] * tile, width),
        np.minimum((blocks[:, 1] + edge) * tile, width),
    )
    transform = geobox.transform
    x = [transform.c + transform.a * column for column in columns]
    y = [transform.f + transform.e * row for row in rows]
    by = margin * transform.a
    boxes: np.ndarray = shapely.box(x[0] + by, y[1] + by, x[1] - by, y[0] - by)
    return boxes


def _quarters(
    blocks: Int64[np.ndarray, "block 2"], edge: int, shape: tuple[int, ...]
) -> Int64[np.ndarray, "quarter 2"]:
    """Return the quarters, of `edge` x `edge` tiles, of blocks; those that lie in the grid."""
    steps = edge * np.array([(0, 0), (0, 1), (1, 0), (1, 1)], np.int64)
    found = (blocks[:, None, :] + steps).reshape(-1, 2)  # (quarter, row and column)
    return np.asarray(found[(found < shape).all(axis=1)])


def runs_of(touched: Bool[np.ndarray, "row column"]) -> tuple[int, ...]:
    """Return how many tiles, row by row, are not touched, then touched, then not, and so on."""
    flat = touched.ravel()
    changes = np.flatnonzero(np.diff(flat, prepend=np.False_))
    return tuple(int(end - start) for start, end in pairwise([0, *changes, flat.size]))


def numbers_of(runs: Sequence[int]) -> Int64[np.ndarray, " tile"]:
    """Return the numbers, row by row from 0, of the tiles that `runs_of` kept as touched."""
    is_touched = np.repeat(np.arange(len(runs)) % 2 == 1, np.asarray(runs, np.int64))
    return np.flatnonzero(is_touched).astype(np.int64)
