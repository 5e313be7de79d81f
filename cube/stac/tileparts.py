"""Tiles of a cube and a file's grid in, the part of the file that each tile needs out; many at once."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from odc.geo.geobox import GeoBox

from cube.spec import CubeSpec
from cube.stac.footprint import outline_points

_NOWHERE = -1e30
"""Coordinate of a box that has none in a file's CRS."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a north-up grid lies: plain numbers, for a hundred thousand questions."""

    left: float
    top: float
    width: float
    """Of a pixel, as its height."""
    height: float
    shape: tuple[int, int]

    def part(self, box: tuple[float, float, float, float]) -> tuple[slice, slice] | None:
        """(rows, columns) that a box in the grid's CRS touches, or None."""
        left, bottom, right, top = box
        found = []
        for first, last, size in (
            ((self.top - top) / self.height, (self.top - bottom) / self.height, self.shape[0]),
            ((left - self.left) / self.width, (right - self.left) / self.width, self.shape[1]),
        ):
            low, high = max(math.floor(first + 1e-6), 0), min(math.ceil(last - 1e-6), size)
            if low >= high:
                return None
            found.append(slice(low, high))
        return found[0], found[1]


def _place_of(grid: GeoBox) -> _Place:
    transform = grid.transform
    return _Place(
        left=float(transform.c),
        top=float(transform.f),
        width=float(transform.a),
        height=-float(transform.e),
        shape=(grid.shape.y, grid.shape.x),
    )


def part_of(grid: GeoBox, box: tuple[float, float, float, float]) -> tuple[slice, slice] | None:
    """(rows, columns) of a north-up grid that a box in its CRS touches, or None."""
    return _place_of(grid).part(box)


def parts_of(
    grid: GeoBox, spec: CubeSpec, boxes: Float64[np.ndarray, "tile 4"]
) -> list[tuple[slice, slice] | None]:
    """Return the part of a file's grid that each box, in the cube's CRS, needs; None outside."""
    assert grid.crs is not None  # of a file's header
    if grid.crs != spec.crs and len(boxes):
        x, y = outline_points(boxes)  # (tile, point)
        x, y = spec.crs.transformer_to_crs(grid.crs)(x, y)
        boxes = np.column_stack([x.min(axis=1), y.min(axis=1), x.max(axis=1), y.max(axis=1)])
        boxes = np.where(np.isfinite(boxes).all(axis=1, keepdims=True), boxes, _NOWHERE)
    place = _place_of(grid)
    return [place.part((left, bottom, right, top)) for left, bottom, right, top in boxes.tolist()]
