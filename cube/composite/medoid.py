"""Looks in, one look a pixel out: the medoid, the clear look nearest to all others."""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Int16, UInt16

from cube.bands import NODATA

_BLOCK = 256
"""Pixels compared together; ten bands of 20 looks of them stay in the second-level cache."""

_LARGEST_STEP = 65535
"""The largest distance of two stored values in one band."""


@numba.njit(nogil=True, cache=True)
@no_type_check  # a run-time check inside would keep numba from compiling it
def _medoid_blocks(
    reflectance: np.ndarray,  # (look, band, pixel) int16
    is_clear: np.ndarray,  # (look, pixel) bool
    cost: np.ndarray,  # (look, block) int32 or int64, scratch
    medoid: np.ndarray,  # (band, pixel) int16, written
    clear_count: np.ndarray,  # (pixel) uint16, written
) -> None:
    looks, bands, pixels = reflectance.shape
    distance = np.empty(_BLOCK, np.int32)
    chosen = np.empty(_BLOCK, np.int32)
    least = np.empty(_BLOCK, np.int64)
    for start in range(0, pixels, _BLOCK):
        size = min(_BLOCK, pixels - start)
        stop = start + size
        cost[:] = 0
        for first in range(looks):
            for second in range(first + 1, looks):
                distance[:] = 0
                for band in range(bands):
                    ours = reflectance[first, band, start:stop]
                    theirs = reflectance[second, band, start:stop]
                    for x in range(size):
                        distance[x] += abs(np.int32(ours[x]) - np.int32(theirs[x]))
                our_clear = is_clear[first, start:stop]
                their_clear = is_clear[second, start:stop]
                our_cost = cost[first]
                their_cost = cost[second]
                for x in range(size):
                    our_cost[x] += distance[x] if their_clear[x] else 0
                    their_cost[x] += distance[x] if our_clear[x] else 0
        count = clear_count[start:stop]
        count[:] = 0
        chosen[:] = -1
        least[:] = np.iinfo(np.int64).max
        for look in range(looks):
            clear = is_clear[look, start:stop]
            for x in range(size):
                count[x] += np.uint16(clear[x])
                # the first of equals stays
                is_less = clear[x] and np.int64(cost[look, x]) < least[x]
                least[x] = np.int64(cost[look, x]) if is_less else least[x]
                chosen[x] = np.int32(look) if is_less else chosen[x]
        for band in range(bands):
            result = medoid[band, start:stop]
            for x in range(size):
                result[x] = reflectance[chosen[x], band, start + x] if count[x] else NODATA


def medoid_composite(
    reflectance: Int16[np.ndarray, "look band y x"], is_clear: Bool[np.ndarray, "look y x"]
) -> tuple[Int16[np.ndarray, "band y x"], UInt16[np.ndarray, "y x"]]:
    """Return the clear look that is nearest to all other clear looks, and how many there were.

    All bands of a pixel come from one look, so that their ratios were seen together (Flood 2013,
    "Seasonal composite Landsat TM/ETM+ images using the medoid", Remote Sensing 5, 6481-6500).
    The distance is the sum over bands of absolute differences, in integers: exact, and less moved
    by one far look than squares are. Of equals the earliest look wins; two clear looks are always
    equals. Stored units in and out; no clear look gives `NODATA`.
    """
    looks, bands, height, width = reflectance.shape
    medoid = np.full((bands, height * width), NODATA, np.int16)
    clear_count = np.zeros(height * width, np.uint16)
    is_small = looks * bands * _LARGEST_STEP < 2**31
    _medoid_blocks(
        reflectance.reshape(looks, bands, height * width),
        is_clear.reshape(looks, height * width),
        np.empty((looks, _BLOCK), np.int32 if is_small else np.int64),
        medoid,
        clear_count,
    )
    return medoid.reshape(bands, height, width), clear_count.reshape(height, width)
