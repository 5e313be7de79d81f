"""Looks of a month in, one value a pixel out: the median over clear looks, exact in integers."""

import functools
from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Bool, Int16, UInt16
from odc.geo.geobox import GeoBox

from cube.bands import NODATA, STORED_MAX
from cube.months import Month
from cube.source import Composite, Looks, SceneCatalogue


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


@numba.njit(nogil=True, cache=True)
def _median_rows(
    reflectance: np.ndarray,  # (look, band, y, x) int16
    is_clear: np.ndarray,  # (look, y, x) bool
    network: np.ndarray,  # (pair, 2) int64
    median: np.ndarray,  # (band, y, x) int16, written
    clear_count: np.ndarray,  # (y, x) uint16, written
) -> None:
    looks, bands, height, width = reflectance.shape
    # One row of pixels of every look stays in the first-level cache while it is sorted, and every
    # exchange runs along the pixels, which the compiler turns into vector minima and maxima.
    rows = np.empty((looks, width), np.int16)
    for y in range(height):
        for x in range(width):
            clear_count[y, x] = 0
        for look in range(looks):
            for x in range(width):
                clear_count[y, x] += np.uint16(is_clear[look, y, x])
        for band in range(bands):
            for look in range(looks):
                for x in range(width):
                    rows[look, x] = (
                        reflectance[look, band, y, x]
                        if is_clear[look, y, x]
                        else np.int16(STORED_MAX)
                    )
            for pair in range(network.shape[0]):
                low_row = rows[network[pair, 0]]
                high_row = rows[network[pair, 1]]
                for x in range(width):
                    low = low_row[x]
                    high = high_row[x]
                    low_row[x] = min(low, high)
                    high_row[x] = max(low, high)
            for x in range(width):
                count = np.int64(clear_count[y, x])
                if count == 0:
                    median[band, y, x] = NODATA
                    continue
                total = np.int32(rows[(count - 1) // 2, x]) + np.int32(rows[count // 2, x])
                half = total >> 1
                # halves go to the even neighbour, as IEEE rounding and np.rint do
                median[band, y, x] = half + (total & 1) * (half & 1)


def median_composite(
    reflectance: Int16[np.ndarray, "look band y x"], is_clear: Bool[np.ndarray, "look y x"]
) -> tuple[Int16[np.ndarray, "band y x"], UInt16[np.ndarray, "y x"]]:
    """Return the median over clear looks and how many there were.

    Stored units in and out. An even number of looks gives the mean of the two middle values,
    halves rounded to even; no clear look gives `NODATA`. Values of looks that are not clear are
    never read into the result.
    """
    looks, bands, height, width = reflectance.shape
    median = np.empty((bands, height, width), np.int16)
    clear_count = np.empty((height, width), np.uint16)
    _median_rows(reflectance, is_clear, sorting_network(looks), median, clear_count)
    return median, clear_count


@dataclass(frozen=True, kw_only=True)
class SceneComposites:
    """A `MonthSource` over any catalogue of scenes: read a month's looks, take their median."""

    catalogue: SceneCatalogue
    """Where the looks come from."""

    def composite(self, month: Month, window: GeoBox, bands: tuple[str, ...]) -> Composite:
        """Return the median of `month` over `window`; a month without a look is all `NODATA`."""
        looks: Looks = self.catalogue.looks(month, window, bands)
        reflectance, clear_count = median_composite(looks.reflectance, looks.is_clear)
        return Composite(reflectance=reflectance, clear_count=clear_count, scenes=looks.ids)
