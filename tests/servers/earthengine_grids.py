"""Grids, lattices and geometries of Earth Engine: where pixels are, and where they are asked for."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import shapely
from affine import Affine
from pyproj import Transformer

DEGREES = "EPSG:4326"


class EngineError(Exception):
    """An answer of Earth Engine that is an error."""

    def __init__(self, text: str, *, code: int = 400, status: str = "INVALID_ARGUMENT") -> None:
        super().__init__(text)
        self.code = code
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Projection:
    """A CRS and the pixel lattice in it."""

    crs: str = DEGREES
    """Code or WKT."""
    transform: Affine = field(default_factory=Affine.identity)
    """Pixel to CRS."""

    def described(self) -> dict[str, Any]:
        """Return it as Earth Engine shows it."""
        return {"type": "Projection", "crs": self.crs, "transform": list(self.transform)[:6]}


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A window of a lattice: where pixels are asked for."""

    crs: str
    transform: Affine
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.width * self.height

    def part(self, column: int, row: int, width: int, height: int) -> "Grid":
        """Return a window of this grid."""
        transform = self.transform @ Affine.translation(column, row)
        return Grid(crs=self.crs, transform=transform, width=width, height=height)

    def strips(self, most: int) -> "list[Grid]":
        """Return it cut into bands of rows with at most about `most` pixels each."""
        step = max(1, most // self.width)
        return [
            self.part(0, row, self.width, min(step, self.height - row))
            for row in range(0, self.height, step)
        ]

    def outline(self) -> "Place":
        """Return the rectangle it covers."""
        corners = [(0, 0), (self.width, 0), (self.width, self.height), (0, self.height)]
        return Place(shape=shapely.Polygon([self.transform @ c for c in corners]), crs=self.crs)


@lru_cache(64)
def transformer(source: str, target: str) -> Transformer:
    """Return the transformer between two CRS, x first."""
    return Transformer.from_crs(source, target, always_xy=True)


@lru_cache(64)
def centres(grid: Grid, crs: str) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y in `crs` of every pixel centre; arrays that broadcast to (height, width)."""
    columns, rows = np.arange(grid.width) + 0.5, np.arange(grid.height)[:, None] + 0.5
    t = grid.transform
    x, y = t.a * columns + t.b * rows + t.c, t.d * columns + t.e * rows + t.f
    if t.b == t.d == 0 and crs == grid.crs:
        return (t.a * columns + t.c)[None, :], t.e * rows + t.f
    if crs == grid.crs:
        return x, y
    return transformer(grid.crs, crs).transform(x, y)


def places_in(projection: Projection, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return the column and row, fractional, that each pixel centre of `grid` has in a lattice."""
    t = projection.transform
    if t.b or t.d:
        raise EngineError("Lattices that are turned are not known to this server.")
    x, y = centres(grid, projection.crs)
    return (x - t.c) / t.a, (y - t.f) / t.e


@lru_cache(64)
def pixel_size(grid: Grid, projection: Projection) -> float:
    """Return how many pixels of a lattice a pixel of `grid` is long, in its middle, the longer way."""
    column, row = grid.width / 2, grid.height / 2
    corners = [(column, row), (column + 1, row), (column, row + 1)]
    x, y = zip(*(grid.transform @ corner for corner in corners), strict=True)
    if grid.crs != projection.crs:
        x, y = transformer(grid.crs, projection.crs).transform(x, y)
    across, down = (~projection.transform) @ (np.asarray(x), np.asarray(y))
    return float(np.hypot(across[1:] - across[0], down[1:] - down[0]).max().round(6))


def refuse_pyramid(grid: Grid, projection: Projection) -> None:
    """Raise `EngineError` where Earth Engine would read a coarser level of its pyramid.

    It does from twice the pixel size on, and what that level holds is its own affair.
    """
    if (size := pixel_size(grid, projection)) >= 2:
        raise EngineError(
            f"Pixels are read {size:g} times as long as they are, which Earth Engine does from its "
            "pyramid; reproject or reduceResolution first."
        )


@dataclass(frozen=True, kw_only=True)
class Place:
    """A geometry and its CRS."""

    shape: shapely.Geometry
    crs: str = DEGREES

    def seen_in(self, crs: str) -> shapely.Geometry:
        """Return the shape in another CRS; long edges get corners in between."""
        if crs == self.crs:
            return self.shape
        left, bottom, right, top = self.shape.bounds
        step = max(right - left, top - bottom) / 20
        shape = shapely.segmentize(self.shape, step) if step else self.shape
        change = transformer(self.crs, crs).transform
        return shapely.transform(shape, lambda xy: np.column_stack(change(xy[:, 0], xy[:, 1])))

    @property
    def degrees(self) -> shapely.Geometry:
        """The shape in degrees."""
        return self.seen_in(DEGREES)

    def covers(self, grid: Grid) -> np.ndarray:
        """Return for each pixel of `grid` whether its centre lies inside."""
        x, y = np.broadcast_arrays(*centres(grid, grid.crs))
        return shapely.contains_xy(self.seen_in(grid.crs), x, y)
