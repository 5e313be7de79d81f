"""Looks and a score in, one look a pixel out: the greenest look, or the best available one."""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float64, Int16, Int32, UInt16
from scipy.ndimage import distance_transform_edt

from cube.bands import NODATA
from cube.errors import InputError
from cube.periods import Period

CLOUD_REACH = 500.0
"""Metres beyond which a cloud no longer counts against a look. White et al. take 1,500 m; every
tile reads this far beyond its edge, so that it agrees with its neighbour."""

_CLOUD_SLOPE = 50.0
"""Metres in which the sigmoid of distance rises by a factor e: a tenth of the reach, as theirs."""

_BLOCK = 1024
"""Pixels compared together."""


@numba.njit(nogil=True, cache=True)
@no_type_check  # a run-time check inside would keep numba from compiling it
def _greatest_score(
    reflectance: np.ndarray,  # (look, band, pixel) int16
    is_clear: np.ndarray,  # (look, pixel) bool
    score: np.ndarray,  # (look, pixel) float64
    picked: np.ndarray,  # (band, pixel) int16, written
    clear_count: np.ndarray,  # (pixel) uint16, written
) -> None:
    looks, bands, pixels = reflectance.shape
    chosen = np.empty(_BLOCK, np.int32)
    greatest = np.empty(_BLOCK)
    for start in range(0, pixels, _BLOCK):
        size = min(_BLOCK, pixels - start)
        count = clear_count[start : start + size]
        count[:] = 0
        chosen[:] = -1
        for look in range(looks):
            clear = is_clear[look, start : start + size]
            value = score[look, start : start + size]
            for x in range(size):
                count[x] += np.uint16(clear[x])
                # the first clear look, then only greater ones: the earliest of equals stays
                is_greater = clear[x] and (chosen[x] < 0 or value[x] > greatest[x])
                greatest[x] = value[x] if is_greater else greatest[x]
                chosen[x] = np.int32(look) if is_greater else chosen[x]
        for band in range(bands):
            result = picked[band, start : start + size]
            for x in range(size):
                result[x] = reflectance[chosen[x], band, start + x] if count[x] else NODATA


def _pick(
    reflectance: Int16[np.ndarray, "look band y x"],
    is_clear: Bool[np.ndarray, "look y x"],
    score: Float64[np.ndarray, "look y x"],
) -> tuple[Int16[np.ndarray, "band y x"], UInt16[np.ndarray, "y x"]]:
    looks, bands, height, width = reflectance.shape
    picked = np.full((bands, height * width), NODATA, np.int16)
    clear_count = np.zeros(height * width, np.uint16)
    _greatest_score(
        reflectance.reshape(looks, bands, height * width),
        is_clear.reshape(looks, height * width),
        score.reshape(looks, height * width),
        picked,
        clear_count,
    )
    return picked.reshape(bands, height, width), clear_count.reshape(height, width)


def ndvi_bands(bands: tuple[str, ...]) -> tuple[int, int]:
    """Return the places of red (B04) and near infrared (B08, or B8A without it) in `bands`.

    Raises `InputError` where one is missing.
    """
    infrared = next((name for name in ("B08", "B8A") if name in bands), None)
    if "B04" not in bands or infrared is None:
        raise InputError(
            f"composite 'max-ndvi' needs B04 and B08 or B8A among the bands, found {list(bands)}; "
            "add them or take another method"
        )
    return bands.index("B04"), bands.index(infrared)


def max_ndvi_composite(
    reflectance: Int16[np.ndarray, "look band y x"],
    is_clear: Bool[np.ndarray, "look y x"],
    *,
    bands: tuple[str, ...],
) -> tuple[Int16[np.ndarray, "band y x"], UInt16[np.ndarray, "y x"]]:
    """Return the clear look with the greatest NDVI, and how many clear ones there were.

    NDVI is (infrared - red) / (infrared + red) with B04 and B08, or B8A where B08 is missing
    (Holben 1986, International Journal of Remote Sensing 7, 1417-1434); a look whose sum is not
    positive has none and comes after all that have. Of equals the earliest look wins. Stored
    units in and out; no clear look gives `NODATA`. Raises `InputError` without those bands.
    """
    red_place, infrared_place = ndvi_bands(bands)
    ndvi = np.full(is_clear.shape, -np.inf)
    for look, values in enumerate(reflectance):
        red = values[red_place].astype(np.float64)  # (y, x)
        infrared = values[infrared_place].astype(np.float64)
        np.divide(infrared - red, infrared + red, out=ndvi[look], where=infrared + red > 0)
    return _pick(reflectance, is_clear, ndvi)


def best_score(
    is_clear: Bool[np.ndarray, "look y x"],
    *,
    days: Int32[np.ndarray, " look"],
    period: Period,
    pixel_size: tuple[float, float],
) -> Float64[np.ndarray, "look y x"]:
    """Return how good each look is at each pixel, 0..2: its date's score plus its distance's.

    After White et al. 2014 ("Pixel-based image compositing for large-area dense time series
    applications and science", Canadian Journal of Remote Sensing 40, 192-212), with the two of
    their scores that every source can give, each 0..1:

    - date: exp(-((day - target) / scale)^2 / 2); `day` is noon of the look's day, `target` the
      middle of the period, `scale` a quarter of its length, at least one day;
    - distance d in metres to the nearest pixel of the same look that is not clear, at most
      `CLOUD_REACH`: 1 / (1 + exp(-(d - CLOUD_REACH / 2) / 50)).

    `days` count from 1970-01-01; `pixel_size` is in metres (y, x). Ground outside the array is
    unknown and taken for clear: give a margin and cut it off afterwards.
    """
    target = (period.middle - np.datetime64("1970-01-01", "ns")) / np.timedelta64(1, "D")
    scale = max(period.days / 4, 1.0)
    date = np.exp(-(((days + 0.5 - target) / scale) ** 2) / 2)  # (look)
    score = np.empty(is_clear.shape)
    for look, clear in enumerate(is_clear):
        metres = np.full(clear.shape, CLOUD_REACH)
        if not clear.all():
            metres = np.minimum(distance_transform_edt(clear, sampling=pixel_size), CLOUD_REACH)
        score[look] = date[look] + 1 / (1 + np.exp(-(metres - CLOUD_REACH / 2) / _CLOUD_SLOPE))
    return score


def best_composite(
    reflectance: Int16[np.ndarray, "look band y x"],
    is_clear: Bool[np.ndarray, "look y x"],
    *,
    days: Int32[np.ndarray, " look"],
    period: Period,
    pixel_size: tuple[float, float],
) -> tuple[Int16[np.ndarray, "band y x"], UInt16[np.ndarray, "y x"]]:
    """Return the clear look with the greatest `best_score`, and how many clear ones there were.

    Of equals the earliest look wins. Stored units in and out; no clear look gives `NODATA`.
    """
    score = best_score(is_clear, days=days, period=period, pixel_size=pixel_size)
    return _pick(reflectance, is_clear, score)
