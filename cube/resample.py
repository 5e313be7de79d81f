"""Positions on a file's grid in, the pixels there out: nearest, bilinear, or means of areas.

One rule, three kernels: `resample` follows it for any pixels, `at_centres` for pixels that are not
much larger than the file's, `along_axes` where besides rows and columns of both grids run alike.
All of them give the same bits. Positions are multiples of 1/1024 pixel and values have 16 bits, so
every weighted sum is exact in a float64, in whatever order it is taken.
"""

from typing import no_type_check

import numba
import numpy as np

WIDEST_BILINEAR = 1.5
"""Source pixels across a window's pixel beyond which it is the mean of all it covers."""


@numba.njit(nogil=True, cache=True)
@no_type_check  # a run-time check inside would keep numba from compiling it
def along_axes(
    values: np.ndarray,  # (row, column) integers
    rows: np.ndarray,  # (y) float64, of pixel centres
    columns: np.ndarray,  # (x) float64
    is_smooth: bool,
    nodata: int,
    out: np.ndarray,  # (y, x), written
) -> None:
    """`resample` for pixels in straight rows and columns that are not wider than 1.5 of the file."""
    height, width = values.shape
    own_columns = np.floor(columns).astype(np.int64)
    lefts = np.floor(columns - 0.5).astype(np.int64)
    for y in range(out.shape[0]):
        own_row, top = int(np.floor(rows[y])), int(np.floor(rows[y] - 0.5))
        if not 0 <= own_row < height:
            out[y] = nodata
            continue
        own_values = values[own_row]
        has_rows = top >= 0 and top + 1 < height
        upper_values = values[top if has_rows else 0]
        lower_values = values[top + 1 if has_rows else 0]
        down = rows[y] - 0.5 - top
        for x in range(out.shape[1]):
            own_column, left = own_columns[x], lefts[x]
            if not 0 <= own_column < width:
                out[y, x] = nodata
                continue
            own = own_values[own_column]
            if own == nodata or not is_smooth:
                out[y, x] = own
                continue
            if has_rows and left >= 0 and left + 1 < width:
                a, b = upper_values[left], upper_values[left + 1]
                c, d = lower_values[left], lower_values[left + 1]
                if a != nodata and b != nodata and c != nodata and d != nodata:
                    right = columns[x] - 0.5 - left
                    upper = a * (1 - right) + b * right
                    lower = c * (1 - right) + d * right
                    out[y, x] = int(np.floor(upper * (1 - down) + lower * down + 0.5))
                    continue
            out[y, x] = _mean_of_four(values, rows[y] - 0.5, columns[x] - 0.5, nodata)


@numba.njit(nogil=True, cache=True)
@no_type_check  # a run-time check inside would keep numba from compiling it
def at_centres(
    values: np.ndarray,  # (row, column) integers
    rows: np.ndarray,  # (y, x) float64, of pixel centres
    columns: np.ndarray,  # (y, x) float64
    is_smooth: bool,
    nodata: int,
    out: np.ndarray,  # (y, x), written
) -> None:
    """`resample` for pixels that are not wider than 1.5 of the file."""
    height, width = values.shape
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            row, column = rows[y, x], columns[y, x]
            own_row, own_column = int(np.floor(row)), int(np.floor(column))
            if not (0 <= own_row < height and 0 <= own_column < width):
                out[y, x] = nodata
                continue
            own = values[own_row, own_column]
            if own == nodata or not is_smooth:
                out[y, x] = own
                continue
            top, left = int(np.floor(row - 0.5)), int(np.floor(column - 0.5))
            if top >= 0 and top + 1 < height and left >= 0 and left + 1 < width:
                a, b = values[top, left], values[top, left + 1]
                c, d = values[top + 1, left], values[top + 1, left + 1]
                if a != nodata and b != nodata and c != nodata and d != nodata:
                    down, right = row - 0.5 - top, column - 0.5 - left
                    upper = a * (1 - right) + b * right
                    lower = c * (1 - right) + d * right
                    out[y, x] = int(np.floor(upper * (1 - down) + lower * down + 0.5))
                    continue
            out[y, x] = _mean_of_four(values, row - 0.5, column - 0.5, nodata)


@numba.njit(nogil=True, cache=True)
@no_type_check  # a run-time check inside would keep numba from compiling it
def resample(
    values: np.ndarray,  # (layer, row, column) integers
    columns: np.ndarray,  # (y + 1, x + 1) float64
    rows: np.ndarray,  # (y + 1, x + 1) float64
    is_smooth: bool,
    nodata: int,
) -> np.ndarray:
    """Return (layer, y, x) by the rule of `Placement.bring`, for pixels with these corners."""
    layers, height, width = values.shape
    out = np.full((layers, rows.shape[0] - 1, rows.shape[1] - 1), nodata, values.dtype)
    for y in range(out.shape[1]):
        for x in range(out.shape[2]):
            corner_rows, corner_columns = rows[y : y + 2, x : x + 2], columns[y : y + 2, x : x + 2]
            row, column = corner_rows.sum() / 4, corner_columns.sum() / 4
            own_row, own_column = int(np.floor(row)), int(np.floor(column))
            if not (0 <= own_row < height and 0 <= own_column < width):
                continue
            across = max(_span(corner_rows), _span(corner_columns))
            for layer in range(layers):
                own = values[layer, own_row, own_column]
                if own == nodata or not is_smooth:
                    out[layer, y, x] = own
                elif across <= WIDEST_BILINEAR:
                    out[layer, y, x] = _mean_of_four(values[layer], row - 0.5, column - 0.5, nodata)
                else:
                    points = 2 * int(np.ceil(across))
                    out[layer, y, x] = _mean_inside(
                        values[layer], corner_rows, corner_columns, points, own, nodata
                    )
    return out


@numba.njit(nogil=True, cache=True)
@no_type_check  # a run-time check inside would keep numba from compiling it
def _span(corners: np.ndarray) -> float:
    """Extent of a pixel along one source axis, from its four corners."""
    return float(max(abs(corners[0, 1] - corners[0, 0]), abs(corners[1, 0] - corners[0, 0])))


@numba.njit(nogil=True, cache=True)
@no_type_check  # a run-time check inside would keep numba from compiling it
def _mean_of_four(values: np.ndarray, row: float, column: float, nodata: int) -> int:
    """Bilinear mean of the pixel centres round a point; at least one of them has data."""
    height, width = values.shape
    top, left = int(np.floor(row)), int(np.floor(column))
    total = weights = 0.0
    for i in range(2):
        for j in range(2):
            if not (0 <= top + i < height and 0 <= left + j < width):
                continue
            value = values[top + i, left + j]
            if value != nodata:
                weight = abs(1 - i - (row - top)) * abs(1 - j - (column - left))
                total += weight * value
                weights += weight
    return int(np.floor(total / weights + 0.5))


@numba.njit(nogil=True, cache=True)
@no_type_check  # a run-time check inside would keep numba from compiling it
def _mean_inside(
    values: np.ndarray, rows: np.ndarray, columns: np.ndarray, points: int, own: int, nodata: int
) -> int:
    """Mean of the source pixels with data under points * points places in a pixel.

    Two places to a source pixel and axis: with one, pixels between zones are off by 20 to 32 counts
    in B08 of a forest at 20 to 40 m, with two by 8 to 14, with three by 4 to 8.
    """
    height, width = values.shape
    total, number = 0, 0
    for i in range(points):
        for j in range(points):
            row = int(np.floor(_inside(rows, (i + 0.5) / points, (j + 0.5) / points)))
            column = int(np.floor(_inside(columns, (i + 0.5) / points, (j + 0.5) / points)))
            if 0 <= row < height and 0 <= column < width and values[row, column] != nodata:
                total += values[row, column]
                number += 1
    return int(np.floor(total / number + 0.5)) if number else own


@numba.njit(nogil=True, cache=True)
@no_type_check  # a run-time check inside would keep numba from compiling it
def _inside(corners: np.ndarray, down: float, right: float) -> float:
    """Position of a point inside a pixel, given those of its corners."""
    upper = corners[0, 0] + right * (corners[0, 1] - corners[0, 0])
    lower = corners[1, 0] + right * (corners[1, 1] - corners[1, 0])
    return float(upper + down * (lower - upper))
