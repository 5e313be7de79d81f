"""Looks in, one value a pixel out: the mean over clear looks, exact in integers."""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Int16, UInt16

from cube.bands import NODATA

_BLOCK = 1024
"""Pixels summed together: every look runs along them as one vector addition."""


@numba.njit(nogil=True, cache=True)
@no_type_check  # a run-time check inside would keep numba from compiling it
def _mean_blocks(
    reflectance: np.ndarray,  # (look, band, pixel) int16
    is_clear: np.ndarray,  # (look, pixel) bool
    mean: np.ndarray,  # (band, pixel) int16, written
    clear_count: np.ndarray,  # (pixel) uint16, written
) -> None:
    looks, bands, pixels = reflectance.shape
    keep = np.empty((looks, _BLOCK), np.int16)
    # 65,535 looks, the most that are counted, of 32,768 each stay below 2**31
    total = np.empty(_BLOCK, np.int32)
    for start in range(0, pixels, _BLOCK):
        size = min(_BLOCK, pixels - start)
        count = clear_count[start : start + size]
        count[:] = 0
        for look in range(looks):
            clear = is_clear[look, start : start + size]
            for x in range(size):
                keep[look, x] = np.int16(-1) if clear[x] else np.int16(0)
                count[x] += np.uint16(clear[x])
        for band in range(bands):
            total[:] = 0
            for look in range(looks):
                values = reflectance[look, band, start : start + size]
                kept = keep[look]
                for x in range(size):
                    total[x] += np.int32(values[x] & kept[x])
            result = mean[band, start : start + size]
            for x in range(size):
                # Exact: a quotient of integers this small never rounds onto a half in float64.
                value = np.rint(np.float64(total[x]) / np.float64(max(count[x], np.uint16(1))))
                result[x] = np.int16(value) if count[x] else np.int16(NODATA)


def mean_composite(
    reflectance: Int16[np.ndarray, "look band y x"], is_clear: Bool[np.ndarray, "look y x"]
) -> tuple[Int16[np.ndarray, "band y x"], UInt16[np.ndarray, "y x"]]:
    """Return the mean over clear looks and how many there were.

    Stored units in and out, halves rounded to even; no clear look gives `NODATA`. Values of looks
    that are not clear are never read into the result.
    """
    looks, bands, height, width = reflectance.shape
    mean = np.full((bands, height * width), NODATA, np.int16)
    clear_count = np.zeros(height * width, np.uint16)
    _mean_blocks(
        reflectance.reshape(looks, bands, height * width),
        is_clear.reshape(looks, height * width),
        mean,
        clear_count,
    )
    return mean.reshape(bands, height, width), clear_count.reshape(height, width)
