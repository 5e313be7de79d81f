"""Clear looks or a finished series in, the values that only an unseen cloud explains out."""

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Int16, Int32, UInt16

from cube.bands import NODATA
from cube.errors import InputError

VISIBLE = ("B02", "B03", "B04")
"""Bands in which a cloud stands out most from ground, the best first; snow does too."""


@dataclass(frozen=True, kw_only=True)
class OutlierScreen:
    """How much brighter in blue than its own pixel at other times a value must be to be rejected.

    The limit is `reference + absolute + relative * max(reference, 0)`. Clouds are bright in blue
    and vegetation is dark; ground that turns bright for good (harvest, snow) has bright neighbours
    in time and stays. Two hazy looks and no clear one, and haze at either end of a series, are not
    found. Cloud shadow is not looked for. Raises `InputError` for numbers that are not finite or
    negative, and where both shares of the limit are 0.
    """

    absolute: float = 0.04
    """Reflectance (0..1) above the reference that is always allowed."""
    relative: float = 0.5
    """Share of the reference that is allowed on top."""
    longest_gap: int = 100
    """Days: in a series, neighbours farther away than this say nothing about a value."""

    def __post_init__(self) -> None:
        for name in ("absolute", "relative"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise InputError(f"outlier screen {name} is {value!r}; expected 0 or more")
        if self.absolute + self.relative == 0:
            raise InputError("outlier screen allows no difference at all; give absolute, e.g. 0.04")
        if self.longest_gap < 1:
            raise InputError(
                f"outlier screen longest_gap is {self.longest_gap!r}; expected 1 day or more"
            )


def visible_band(bands: tuple[str, ...]) -> int:
    """Return the place of the best of `VISIBLE` in `bands`; raise `InputError` without any."""
    for name in VISIBLE:
        if name in bands:
            return bands.index(name)
    raise InputError(
        f"the outlier screen needs one of {', '.join(VISIBLE)} among the bands, found "
        f"{list(bands)}; add one or switch the screen off"
    )


@numba.njit(nogil=True, cache=True)
@no_type_check  # a run-time check inside would keep numba from compiling it
def _screen_looks(
    blue: np.ndarray,  # (look, pixel) int16
    is_clear: np.ndarray,  # (look, pixel) bool, changed
    absolute: float,  # stored units
    relative: float,
) -> None:
    looks, pixels = blue.shape
    ranked = np.empty(looks, np.int16)
    for pixel in range(pixels):
        count = 0
        for look in range(looks):
            if is_clear[look, pixel]:
                value = blue[look, pixel]
                place = count
                while place > 0 and ranked[place - 1] > value:
                    ranked[place] = ranked[place - 1]
                    place -= 1
                ranked[place] = value
                count += 1
        if count < 2:
            continue
        reference = np.float64(ranked[(count - 1) // 2])
        limit = reference + absolute + relative * max(reference, 0.0)
        for look in range(looks):
            if np.float64(blue[look, pixel]) > limit:
                is_clear[look, pixel] = False


def clear_after_screen(
    reflectance: Int16[np.ndarray, "look band y x"],
    is_clear: Bool[np.ndarray, "look y x"],
    screen: OutlierScreen,
    *,
    bands: tuple[str, ...],
) -> Bool[np.ndarray, "look y x"]:
    """Return which clear looks of one period stay: those not much brighter than the pixel's others.

    The reference is the lower median in blue (B02, else B03, else B04) of the pixel's clear looks,
    which are two or more, so at least one always stays; with two it is the darker one. Stored
    units in. Raises `InputError` if `bands` has none of the three.
    """
    looks, _, height, width = reflectance.shape
    blue = np.ascontiguousarray(reflectance[:, visible_band(bands)])  # (look, y, x)
    kept = is_clear.copy()
    _screen_looks(
        blue.reshape(looks, height * width),
        kept.reshape(looks, height * width),
        screen.absolute * 1e4,
        screen.relative,
    )
    return kept


@numba.njit(nogil=True, cache=True)
@no_type_check
def _screen_series(
    blue: np.ndarray,  # (time, pixel) int16
    days: np.ndarray,  # (time) int32
    absolute: float,  # stored units
    relative: float,
    longest_gap: int,
    is_outlier: np.ndarray,  # (time, pixel) bool, written
) -> None:
    times, pixels = blue.shape
    for pixel in range(pixels):
        before, here = -1, -1
        for time in range(times):
            if blue[time, pixel] == NODATA:
                continue
            if before >= 0:
                near = (
                    days[here] - days[before] <= longest_gap
                    and days[time] - days[here] <= longest_gap
                )
                brighter = max(blue[before, pixel], blue[time, pixel])
                reference = np.float64(brighter)
                limit = reference + absolute + relative * max(reference, 0.0)
                is_outlier[here, pixel] = near and np.float64(blue[here, pixel]) > limit
            before, here = here, time


def series_outliers(
    reflectance: Int16[np.ndarray, "time band y x"],
    screen: OutlierScreen,
    *,
    days: Int32[np.ndarray, " time"],
    bands: tuple[str, ...],
) -> Bool[np.ndarray, "time y x"]:
    """Return which values of a series are much brighter than both their neighbours in time.

    The neighbours are the nearest values with data before and after, as they came in, each within
    `longest_gap` days; the reference is the brighter of the two in blue (B02, else B03, else
    B04). The first and the last value of a pixel always stay. `days` ascend. Raises `InputError`
    if `bands` has none of the three, and if `days` do not ascend.
    """
    times, _, height, width = reflectance.shape
    if (np.diff(days) <= 0).any():
        raise InputError(f"outlier screen needs days that ascend, found {days.tolist()}")
    blue = np.ascontiguousarray(reflectance[:, visible_band(bands)])  # (time, y, x)
    is_outlier = np.zeros((times, height, width), np.bool_)
    _screen_series(
        blue.reshape(times, height * width),
        days,
        screen.absolute * 1e4,
        screen.relative,
        screen.longest_gap,
        is_outlier.reshape(times, height * width),
    )
    return is_outlier


def screen_series(
    reflectance: Int16[np.ndarray, "time band y x"],
    clear_count: UInt16[np.ndarray, "time y x"],
    screen: OutlierScreen,
    *,
    days: Int32[np.ndarray, " time"],
    bands: tuple[str, ...],
) -> tuple[Int16[np.ndarray, "time band y x"], UInt16[np.ndarray, "time y x"]]:
    """Return the series with its outliers (`series_outliers`) as `NODATA` and clear count 0."""
    is_outlier = series_outliers(reflectance, screen, days=days, bands=bands)
    return (
        np.where(is_outlier[:, None], np.int16(NODATA), reflectance),
        np.where(is_outlier, np.uint16(0), clear_count),
    )
