"""Looks in, one value a pixel out: the median over clear looks, exact in integers."""

import functools
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Int16, UInt16

from cube.bands import NODATA, STORED_MAX


@functools.lru_cache(maxsize=512)
def sorting_network(count: int) -> np.ndarray:
    """Return the (pair, 2) row indices whose exchanges sort `count` rows.

    Batcher's odd-even merge sort ("Sorting networks and their applications", AFIPS 1968) for the
    next power of two; pairs beyond `count` are dropped, as if padded with the largest value.
    """
    pairs = []
    size = 1 << max(count - 1, 0).bit_length()
    merged = 1
    while merged < size:
        step = merged
        while step >= 1:
            for start in range(step % merged, size - step, 2 * step):
                for low in range(start, min(start + step, size - step)):
                    high = low + step
                    if low // (2 * merged) == high // (2 * merged) and high < count:
                        pairs.append((low, high))
            step //= 2
        merged *= 2
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


_BLOCK = 1024
"""Pixels sorted together: every exchange runs along them as vector minima and maxima, whatever the
width of the window, and 20 looks of them stay in the second-level cache. Measured with 6 to 20
looks: 512 are a fifth slower, 2048 no faster."""


@numba.njit(nogil=True, cache=True)
@no_type_check  # a run-time check inside would keep numba from compiling it
def _median_blocks(
    reflectance: np.ndarray,  # (look, band, pixel) int16, at least one look
    is_clear: np.ndarray,  # (look, pixel) bool
    network: np.ndarray,  # (pair, 2) int64
    median: np.ndarray,  # (band, pixel) int16, written
    clear_count: np.ndarray,  # (pixel) uint16, written
) -> None:
    looks, bands, pixels = reflectance.shape
    rows = np.empty((looks, _BLOCK), np.int16)
    keep = np.empty((looks, _BLOCK), np.int16)
    fill = np.empty((looks, _BLOCK), np.int16)
    # Of an even number of ranks these are the two in the middle; of an odd number the middle one
    # and the one below it.
    below, above = max(looks // 2 - 1, 0), looks // 2
    for start in range(0, pixels, _BLOCK):
        size = min(_BLOCK, pixels - start)
        count = clear_count[start : start + size]
        # Looks that are not clear become the largest and the smallest value in turns, so that the
        # middle of all looks is the middle of the clear ones, whatever their number.
        count[:] = 0
        for look in range(looks):
            clear = is_clear[look, start : start + size]
            for x in range(size):
                hidden = look - np.int32(count[x])
                extreme = np.int16(STORED_MAX) if hidden % 2 == 0 else np.int16(NODATA)
                keep[look, x] = np.int16(-1) if clear[x] else np.int16(0)
                fill[look, x] = np.int16(0) if clear[x] else extreme
                count[x] += np.uint16(clear[x])
        for band in range(bands):
            for look in range(looks):
                values = reflectance[look, band, start : start + size]
                for x in range(size):
                    rows[look, x] = (values[x] & keep[look, x]) | fill[look, x]
            for pair in range(network.shape[0]):
                low_row = rows[network[pair, 0]]
                high_row = rows[network[pair, 1]]
                for x in range(size):
                    low = low_row[x]
                    high = high_row[x]
                    low_row[x] = min(low, high)
                    high_row[x] = max(low, high)
            # An odd count has one middle. If the number of looks is odd too, as many extremes lie
            # above it as below; if not, one more lies above, and the middle is one rank lower.
            single = rows[above] if looks % 2 else rows[below]
            other = rows[below] if looks % 2 else rows[above]
            result = median[band, start : start + size]
            for x in range(size):
                first = np.int32(single[x])
                total = first + (first if count[x] % 2 else np.int32(other[x]))
                half = total >> 1
                # halves go to the even neighbour, as IEEE rounding and np.rint do
                rounded = np.int16(half + (total & half & 1))
                result[x] = rounded if count[x] else np.int16(NODATA)


def median_composite(
    reflectance: Int16[np.ndarray, "look band y x"], is_clear: Bool[np.ndarray, "look y x"]
) -> tuple[Int16[np.ndarray, "band y x"], UInt16[np.ndarray, "y x"]]:
    """Return the median over clear looks and how many there were.

    Stored units in and out. An even number of looks gives the mean of the two middle values,
    halves rounded to even; no clear look gives `NODATA`. Values of looks that are not clear are
    never read into the result.
    """
    looks, bands, height, width = reflectance.shape
    median = np.full((bands, height * width), NODATA, np.int16)
    clear_count = np.zeros(height * width, np.uint16)
    if looks:
        _median_blocks(
            reflectance.reshape(looks, bands, height * width),
            is_clear.reshape(looks, height * width),
            sorting_network(looks),
            median,
            clear_count,
        )
    return median.reshape(bands, height, width), clear_count.reshape(height, width)
