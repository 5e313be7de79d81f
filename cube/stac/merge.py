"""Granules of one overpass in, one look out: counts to stored units, the first with data wins."""

from typing import no_type_check

import numba
import numpy as np

from cube.bands import NODATA, STORED_MAX


@numba.njit(nogil=True, cache=True)
@no_type_check  # a run-time check inside would keep numba from compiling it
def merge_granule(
    counts: np.ndarray,  # (band, y, x) counts of the granule
    scl: np.ndarray,  # (y, x) uint8 its scene classes
    gains: np.ndarray,  # (band) float64
    biases: np.ndarray,  # (band) float64
    nodata: int,
    reflectance: np.ndarray,  # (band, y, x) int16, written; may be the memory of `counts`
    is_seen: np.ndarray,  # (y, x) bool, read and written
    is_first: bool,
) -> int:
    """Put a granule's pixels where no earlier one has data, and return how many they are.

    A pixel has data where every band and the classification have: classes 0 (nodata) and 1
    (saturated or defective) have none. Stored is `count * gain + bias`, rounded, halves to even;
    negative values stay, what is brighter than `STORED_MAX` is clipped to it. If it `is_first`,
    all that has no data is set to `NODATA`.
    """
    bands, height, width = counts.shape
    found = 0
    takes = np.empty(width, np.bool_)
    # Whole numbers stay whole: with gains and biases of Sentinel-2 no rounding is needed.
    is_whole = bool((gains == np.rint(gains)).all() and (biases == np.rint(biases)).all())
    for y in range(height):
        for x in range(width):
            takes[x] = scl[y, x] > 1 and not is_seen[y, x]
        for band in range(bands):
            row = counts[band, y]
            for x in range(width):
                takes[x] &= row[x] != nodata
        for x in range(width):
            found += takes[x]
            is_seen[y, x] |= takes[x]
        for band in range(bands):
            row, out = counts[band, y], reflectance[band, y]
            if is_whole:
                _put_whole(row, out, takes, int(gains[band]), int(biases[band]), is_first)
            else:
                _put_rounded(row, out, takes, gains[band], biases[band], is_first)
    return found


@numba.njit(nogil=True, cache=True)
@no_type_check  # a run-time check inside would keep numba from compiling it
def _put_whole(
    row: np.ndarray, out: np.ndarray, takes: np.ndarray, gain: int, bias: int, is_first: bool
) -> None:
    for x in range(row.size):
        value = np.int32(row[x]) * np.int32(gain) + np.int32(bias)
        value = min(max(value, np.int32(NODATA + 1)), np.int32(STORED_MAX))
        before = np.int32(NODATA) if is_first else np.int32(out[x])
        out[x] = np.int16(value if takes[x] else before)


@numba.njit(nogil=True, cache=True)
@no_type_check  # a run-time check inside would keep numba from compiling it
def _put_rounded(
    row: np.ndarray, out: np.ndarray, takes: np.ndarray, gain: float, bias: float, is_first: bool
) -> None:
    for x in range(row.size):
        value = np.rint(row[x] * gain + bias)
        value = min(max(value, float(NODATA + 1)), float(STORED_MAX))
        if takes[x]:
            out[x] = np.int16(value)
        elif is_first:
            out[x] = np.int16(NODATA)
