"""Values on a file's own grid in, values on the cube's grid out, the same for any tiling.

GDAL approximates the transformation between two CRS along the rows of whatever window it is asked
for, so that a pixel warped in a tile of 77 differs from the same pixel warped in a tile of 400 (by
up to 242 counts, in 70 % of the pixels, between UTM 33 and 32 at 120 m). Here each pixel is
computed from its own four corners alone.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from affine import Affine
from jaxtyping import Float64, Shaped
from odc.geo.geobox import GeoBox

from cube.resample import WIDEST_BILINEAR, along_axes, at_centres, resample

_STEP = 1024.0
"""Positions are rounded to this fraction of a source pixel. It makes the weights exact in binary,
so that no tie depends on how a window's origin was computed; it costs at most 1/2048 pixel."""

_OUTSIDE = -1e6
"""Position of a point that has no coordinates in the source's CRS."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Placement:
    """How a window lies on a file's grid: the part of the file to read, and what to make of it."""

    rows: slice
    """Rows of the file that the window needs."""
    columns: slice
    """Columns of the file that the window needs."""
    shape: tuple[int, int]
    """(y, x) of the window."""
    corner: tuple[int, int] | None
    """(y, x) in the window of the part's first pixel, where pixels coincide; None elsewhere."""
    corner_rows: Float64[np.ndarray, "..."]
    """Rows of the window's pixel corners, in pixels of the part: (y + 1,) where they depend on y
    alone and columns on x alone, else (y + 1, x + 1); empty where pixels coincide."""
    corner_columns: Float64[np.ndarray, "..."]
    """Columns of the window's pixel corners, likewise: (x + 1,) or (y + 1, x + 1)."""

    def bring(
        self, values: Shaped[np.ndarray, "layer row column"], *, nodata: int, is_smooth: bool
    ) -> Shaped[np.ndarray, "layer y x"]:
        """Return the layers of the part on the grid of the window, `nodata` outside the file.

        Integers in, the same dtype out. Where pixels coincide they are copied. Elsewhere a pixel
        takes the source pixel that holds its centre, or, if `is_smooth`, the bilinear mean of the
        four round its centre, or the mean of all it covers if it is more than 1.5 times their
        size; means are rounded, halves up. Neighbours without data do not take part, and a pixel
        whose centre lies where the source has none has none either.
        """
        if self.corner is None:
            return self._resampled(values, nodata=nodata, is_smooth=is_smooth)
        out = np.full((len(values), *self.shape), nodata, values.dtype)
        top, left = self.corner
        _, height, width = values.shape
        out[:, top : top + height, left : left + width] = values
        return out

    def _resampled(
        self, values: Shaped[np.ndarray, "layer row column"], *, nodata: int, is_smooth: bool
    ) -> Shaped[np.ndarray, "layer y x"]:
        if is_smooth and self._widest > WIDEST_BILINEAR:
            columns, rows = self._corners
            return np.asarray(resample(values, columns, rows, is_smooth, nodata))
        out = np.empty((len(values), *self.shape), values.dtype)
        kernel = along_axes if self._is_straight else at_centres
        for layer, brought in zip(values, out, strict=True):
            kernel(layer, *self._centres, is_smooth, nodata, brought)
        return out

    @property
    def _is_straight(self) -> bool:
        """Whether rows depend on y alone and columns on x alone."""
        return self.corner_rows.ndim == 1

    @property
    def _corners(self) -> tuple[Float64[np.ndarray, "y1 x1"], Float64[np.ndarray, "y1 x1"]]:
        """(columns, rows) of each pixel corner, not kept: a tile of 512 has 4 MB of them."""
        if not self._is_straight:
            return self.corner_columns, self.corner_rows
        size = (self.corner_rows.size, self.corner_columns.size)
        # contiguous, for numba would compile its kernel once more for arrays that repeat themselves
        return (
            np.ascontiguousarray(np.broadcast_to(self.corner_columns, size)),
            np.ascontiguousarray(np.broadcast_to(self.corner_rows[:, None], size)),
        )

    @cached_property
    def _centres(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows, columns) of pixel centres, in pixels of the part: per axis if straight, else each."""
        mean = _means_of_two if self._is_straight else _means_of_four
        return mean(self.corner_rows), mean(self.corner_columns)

    @cached_property
    def _widest(self) -> float:
        """Extent of the largest pixel of the window, in pixels of the part."""
        return max(
            float(np.abs(np.diff(corners, axis=axis)).max())
            for corners in (self.corner_rows, self.corner_columns)
            for axis in range(corners.ndim)
        )


def _means_of_two(corners: Float64[np.ndarray, " edge"]) -> Float64[np.ndarray, " pixel"]:
    return np.asarray((corners[1:] + corners[:-1]) / 2)


def _means_of_four(corners: Float64[np.ndarray, "y1 x1"]) -> Float64[np.ndarray, "y x"]:
    pairs = corners[1:] + corners[:-1]
    return np.asarray((pairs[:, 1:] + pairs[:, :-1]) / 4)


@lru_cache(maxsize=16)
def place(grid: GeoBox, window: GeoBox) -> Placement | None:
    """Return how `window` lies on a file's `grid`, or None where they do not meet."""
    shift = _whole_shift(grid, window)
    if shift is not None:
        return _coinciding(grid, window, shift)
    columns, rows = _along_axes(grid, window) or _straightened(*_positions(grid, window))
    parts = _covering(grid, columns, rows)
    if parts is None:
        return None
    return Placement(
        rows=parts[0],
        columns=parts[1],
        shape=(window.shape[0], window.shape[1]),
        corner=None,
        corner_rows=rows - parts[0].start,
        corner_columns=columns - parts[1].start,
    )


def _whole_shift(grid: GeoBox, window: GeoBox) -> tuple[int, int] | None:
    """(row, column) of the window's first pixel in `grid` if their pixels coincide, else None."""
    if grid.crs != window.crs:
        return None
    a, b, column, d, e, row = (~grid.transform * window.transform)[:6]
    if not np.allclose((a, b, d, e), (1, 0, 0, 1), rtol=0, atol=1e-9):
        return None
    if max(abs(column - round(column)), abs(row - round(row))) > 0.5 / _STEP:
        return None
    return round(row), round(column)


def _coinciding(grid: GeoBox, window: GeoBox, shift: tuple[int, int]) -> Placement | None:
    first = [max(0, start) for start in shift]
    last = [
        min(size, start + length)
        for size, start, length in zip(grid.shape, shift, window.shape, strict=True)
    ]
    if first[0] >= last[0] or first[1] >= last[1]:
        return None
    empty = np.empty(0)
    return Placement(
        rows=slice(first[0], last[0]),
        columns=slice(first[1], last[1]),
        shape=(window.shape[0], window.shape[1]),
        corner=(first[0] - shift[0], first[1] - shift[1]),
        corner_rows=empty,
        corner_columns=empty,
    )


def _along_axes(
    grid: GeoBox, window: GeoBox
) -> tuple[Float64[np.ndarray, " x1"], Float64[np.ndarray, " y1"]] | None:
    """`_positions` by axis, without making all of them, where both are north up in one CRS."""
    if grid.crs != window.crs:
        return None
    along = []
    for axis, size in ((0, window.shape[1]), (1, window.shape[0])):
        position = np.arange(size + 1.0)
        for transform in (window.transform, ~grid.transform):
            scale, turn, shift = (float(number) for number in transform[3 * axis : 3 * axis + 3])
            if axis == 1:
                scale, turn = turn, scale
            if turn != 0:
                return None
            position = scale * position + shift
        along.append(_rounded(position))
    return along[0], along[1]


def _straightened(
    columns: Float64[np.ndarray, "y1 x1"], rows: Float64[np.ndarray, "y1 x1"]
) -> tuple[Float64[np.ndarray, "..."], Float64[np.ndarray, "..."]]:
    """Return positions by axis where columns depend on x and rows on y alone, else as they are."""
    if (rows == rows[:, :1]).all() and (columns == columns[:1]).all():
        return columns[0].copy(), rows[:, 0].copy()
    return columns, rows


def _positions(
    grid: GeoBox, window: GeoBox
) -> tuple[Float64[np.ndarray, "y1 x1"], Float64[np.ndarray, "y1 x1"]]:
    """(columns, rows) of the window's pixel corners, counted in pixels of `grid`."""
    x, y = _corners(window, grid)
    columns, rows = _applied(~grid.transform, x, y)
    return _rounded(columns), _rounded(rows)


def _rounded(position: Float64[np.ndarray, "*edge"]) -> Float64[np.ndarray, "*edge"]:
    finite = np.where(np.isfinite(position), position, _OUTSIDE)
    return np.floor(finite * _STEP + 0.5) / _STEP


def _corners(
    window: GeoBox, grid: GeoBox
) -> tuple[Float64[np.ndarray, "y1 x1"], Float64[np.ndarray, "y1 x1"]]:
    """(x, y) of the window's pixel corners in the CRS of `grid`."""
    height, width = window.shape
    column, row = np.meshgrid(np.arange(width + 1.0), np.arange(height + 1.0))
    x, y = _applied(window.transform, column, row)
    assert window.crs is not None  # CubeSpec refuses a grid without one
    assert grid.crs is not None  # … and the readers of files do
    if window.crs == grid.crs:
        return x, y
    x, y = window.crs.transformer_to_crs(grid.crs)(x, y)
    return np.asarray(x), np.asarray(y)


def _applied(
    transform: Affine, x: Float64[np.ndarray, "y1 x1"], y: Float64[np.ndarray, "y1 x1"]
) -> tuple[Float64[np.ndarray, "y1 x1"], Float64[np.ndarray, "y1 x1"]]:
    a, b, c, d, e, f = (float(number) for number in transform[:6])
    return a * x + b * y + c, d * x + e * y + f


def _covering(
    grid: GeoBox, columns: Float64[np.ndarray, "..."], rows: Float64[np.ndarray, "..."]
) -> tuple[slice, slice] | None:
    """(rows, columns) of the source that the positions and their neighbours need, or None."""
    parts = []
    for position, size in ((rows, grid.shape[0]), (columns, grid.shape[1])):
        known = position[position > _OUTSIDE]
        if known.size == 0:
            return None
        low, high = max(int(known.min()) - 2, 0), min(int(np.ceil(known.max())) + 2, size)
        if low >= high:
            return None
        parts.append(slice(low, high))
    return parts[0], parts[1]
