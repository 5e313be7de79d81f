"""A series with gaps in, the gaps filled from the same pixel's other times out, and where."""

from dataclasses import dataclass
from typing import Literal, get_args, no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Int16, Int32

from cube.bands import NODATA
from cube.errors import InputError

Filling = Literal["linear", "harmonic", "whittaker"]
"""How a gap gets its value."""

YEAR = 365.2425
"""Days of a mean Gregorian year, the period of the first harmonic."""

MONTH = YEAR / 12
"""Days in the unit of time of the Whittaker smoother, see `GapFill.smoothness`."""

ENOUGH = (5, 8)
"""Observations from which the harmonic has its annual and its semi-annual terms."""

SLACK = 0.25
"""Share of the range of the observations by which a harmonic may leave it on either side: a season
nobody saw may be their lowest, but waves through few dates swing wildly."""


@dataclass(frozen=True, kw_only=True)
class GapFill:
    """How gaps in time are filled; what was seen is never changed.

    Raises `InputError` for an unknown method, a gap of less than a day, and a smoothness that is
    not positive and finite.
    """

    method: str = "linear"
    """`linear`: the straight line between the observations around. `harmonic`: a year's wave with
    annual and semi-annual terms, least squares over all observations, kept near their range.
    `whittaker`: the smoothest series near the observations."""
    longest_gap: int = 100
    """Days between the observations round a gap up to which it is filled."""
    smoothness: float = 0.1
    """Weight of the squared second derivative (per month squared) against squared distance from
    the observations; whittaker only. Small: a smooth curve through the observations."""

    def __post_init__(self) -> None:
        if self.method not in get_args(Filling):
            raise InputError(
                f"gap filling {self.method!r} is unknown; expected one of "
                f"{', '.join(get_args(Filling))}"
            )
        if self.longest_gap < 1:
            raise InputError(
                f"gap filling longest_gap is {self.longest_gap!r}; expected 1 day or more"
            )
        if not (np.isfinite(self.smoothness) and self.smoothness > 0):
            raise InputError(f"gap filling smoothness is {self.smoothness!r}; expected above 0")


@numba.njit(nogil=True, cache=True)
@no_type_check  # a run-time check inside would keep numba from compiling it
def _seen_times(
    values: np.ndarray,  # (time) int16
    days: np.ndarray,  # (time) int32
    longest_gap: int,
    seen: np.ndarray,  # (time) int64, written: places of the observations
    gaps: np.ndarray,  # (time) int64, written: places to fill
) -> tuple[int, int]:
    """Return how many observations there are and how many places to fill."""
    observed, filled = 0, 0
    for time in range(values.size):
        if values[time] == NODATA:
            continue
        if observed:
            before = seen[observed - 1]
            if days[time] - days[before] <= longest_gap:
                for gap in range(before + 1, time):
                    gaps[filled] = gap
                    filled += 1
        seen[observed] = time
        observed += 1
    return observed, filled


@numba.njit(nogil=True, cache=True)
@no_type_check
def _stored(value: float) -> int:
    """Return `value` as a stored one, halves to even, never `NODATA`."""
    return np.int16(min(max(np.rint(value), -32767.0), 32767.0))


@numba.njit(nogil=True, cache=True)
@no_type_check
def _fill_linear(
    values: np.ndarray,  # (time) int16, changed
    days: np.ndarray,  # (time) int32
    seen: np.ndarray,  # (observation) int64
    gaps: np.ndarray,  # (gap) int64
) -> None:
    after = 0
    for gap in gaps:
        while seen[after] < gap:
            after += 1
        left, right = seen[after - 1], seen[after]
        rise = np.float64(np.int64(values[right]) - np.int64(values[left]))
        # the product is an integer, so the only rounding is the quotient's, never onto a half
        share = rise * (days[gap] - days[left]) / (days[right] - days[left])
        values[gap] = _stored(values[left] + share)


@numba.njit(nogil=True, cache=True)
@no_type_check
def _set_waves(days: np.ndarray, waves: np.ndarray) -> None:
    """Write the terms of the harmonic at each of the days, (time, term)."""
    for time in range(days.size):
        angle = 2 * np.pi * days[time] / YEAR
        waves[time, 0] = 1.0
        waves[time, 1], waves[time, 2] = np.cos(angle), np.sin(angle)
        waves[time, 3], waves[time, 4] = np.cos(2 * angle), np.sin(2 * angle)


@numba.njit(nogil=True, cache=True)
@no_type_check
def _factor_harmonic(
    waves: np.ndarray,  # (time, term) float64
    seen: np.ndarray,  # (observation) int64
    terms: int,
    factor: np.ndarray,  # (term, term) float64, written: Cholesky factor of the normal equations
) -> bool:
    """Say whether the dates determine every term."""
    for i in range(terms):
        for j in range(i + 1):
            factor[i, j] = 0.0
            for time in seen:
                factor[i, j] += waves[time, i] * waves[time, j]
    for j in range(terms):
        for k in range(j):
            factor[j, j] -= factor[j, k] * factor[j, k]
        if factor[j, j] < 1e-3 * seen.size:  # dates too close together for this wave
            return False
        factor[j, j] = np.sqrt(factor[j, j])
        for i in range(j + 1, terms):
            for k in range(j):
                factor[i, j] -= factor[i, k] * factor[j, k]
            factor[i, j] /= factor[j, j]
    return True


@numba.njit(nogil=True, cache=True)
@no_type_check
def _harmonic_terms(waves: np.ndarray, seen: np.ndarray, factor: np.ndarray) -> int:
    """Return how many terms the observations determine, 0 for none, with their `factor`."""
    if seen.size >= ENOUGH[1] and _factor_harmonic(waves, seen, 5, factor):
        return 5
    if seen.size >= ENOUGH[0] and _factor_harmonic(waves, seen, 3, factor):
        return 3
    return 0


@numba.njit(nogil=True, cache=True)
@no_type_check
def _fill_harmonic(
    values: np.ndarray,  # (time) int16, changed
    waves: np.ndarray,  # (time, term) float64
    seen: np.ndarray,  # (observation) int64
    gaps: np.ndarray,  # (gap) int64
    terms: int,
    factor: np.ndarray,  # (term, term) float64
) -> None:
    weights = np.zeros(5)
    least, most = 32767.0, -32767.0
    for time in seen:
        value = np.float64(values[time])
        least, most = min(least, value), max(most, value)
        for i in range(terms):
            weights[i] += waves[time, i] * value
    for i in range(terms):
        for k in range(i):
            weights[i] -= factor[i, k] * weights[k]
        weights[i] /= factor[i, i]
    for i in range(terms - 1, -1, -1):
        for k in range(i + 1, terms):
            weights[i] -= factor[k, i] * weights[k]
        weights[i] /= factor[i, i]
    slack = SLACK * (most - least)
    for gap in gaps:
        total = 0.0
        for term in range(terms):
            total += weights[term] * waves[gap, term]
        values[gap] = _stored(min(max(total, least - slack), most + slack))


@numba.njit(nogil=True, cache=True)
@no_type_check
def _factor_whittaker(
    days: np.ndarray,  # (time) int32
    seen: np.ndarray,  # (observation) int64
    smoothness: float,
    factor: np.ndarray,  # (time, 3) float64, written
) -> None:
    """Write the Cholesky factor of the smoother from the first observation to the last.

    Row `time`, column `offset` of the band matrix is its entry (time, time - offset).
    """
    first = seen[0]
    size = seen[-1] - first + 1
    factor[:size] = 0.0
    for time in seen:
        factor[time - first, 0] = 1.0
    for time in range(2, size):
        # twice the second divided difference, which is the second derivative
        t0 = days[first + time - 2] / MONTH
        t1 = days[first + time - 1] / MONTH
        t2 = days[first + time] / MONTH
        c0 = 2 / ((t1 - t0) * (t2 - t0))
        c2 = 2 / ((t2 - t1) * (t2 - t0))
        c1 = -c0 - c2
        factor[time - 2, 0] += smoothness * c0 * c0
        factor[time - 1, 0] += smoothness * c1 * c1
        factor[time, 0] += smoothness * c2 * c2
        factor[time - 1, 1] += smoothness * c1 * c0
        factor[time, 1] += smoothness * c2 * c1
        factor[time, 2] += smoothness * c2 * c0
    for time in range(size):
        for offset in range(min(time, 2), 0, -1):
            other = time - offset
            if offset == 1 and other >= 1:
                factor[time, 1] -= factor[time, 2] * factor[other, 1]
            factor[time, offset] /= factor[other, 0]
            factor[time, 0] -= factor[time, offset] * factor[time, offset]
        factor[time, 0] = np.sqrt(factor[time, 0])


@numba.njit(nogil=True, cache=True)
@no_type_check
def _fill_whittaker(
    values: np.ndarray,  # (time) int16, changed
    seen: np.ndarray,  # (observation) int64
    gaps: np.ndarray,  # (gap) int64
    factor: np.ndarray,  # (time, 3) float64
    curve: np.ndarray,  # (time) float64, scratch
) -> None:
    first = seen[0]
    size = seen[-1] - first + 1
    curve[:size] = 0.0
    for time in seen:
        curve[time - first] = values[time]
    for time in range(size):
        for offset in range(1, min(time, 2) + 1):
            curve[time] -= factor[time, offset] * curve[time - offset]
        curve[time] /= factor[time, 0]
    for time in range(size - 1, -1, -1):
        for offset in range(1, min(size - 1 - time, 2) + 1):
            curve[time] -= factor[time + offset, offset] * curve[time + offset]
        curve[time] /= factor[time, 0]
    for gap in gaps:
        values[gap] = _stored(curve[gap - first])


@numba.njit(nogil=True, cache=True)
@no_type_check
def _fill(
    reflectance: np.ndarray,  # (time, band, pixel) int16, changed
    days: np.ndarray,  # (time, pixel) int32
    is_filled: np.ndarray,  # (time, pixel) bool, written
    method: int,
    longest_gap: int,
    smoothness: float,
) -> None:
    times, bands, pixels = reflectance.shape
    values, dates = np.empty(times, np.int16), np.empty(times, np.int32)
    seen, gaps = np.empty(times, np.int64), np.empty(times, np.int64)
    waves, factor = np.empty((times, 5)), np.empty((max(times, 5), 5))
    curve, is_seen = np.empty(times), np.empty(times, np.bool_)
    observed, missing, terms = 0, 0, 0
    for pixel in range(pixels):
        is_new = pixel == 0
        for time in range(times):
            is_new |= dates[time] != days[time, pixel]
            dates[time] = days[time, pixel]
        if is_new and method == 1:
            _set_waves(dates, waves)
        for band in range(bands):
            # bands mostly have the same gaps, often pixels too: what follows from them is kept
            for time in range(times):
                values[time] = reflectance[time, band, pixel]
                is_new |= is_seen[time] != (values[time] != NODATA)
                is_seen[time] = values[time] != NODATA
            if is_new:
                observed, missing = _seen_times(values, dates, longest_gap, seen, gaps)
                if missing and method == 1:
                    terms = _harmonic_terms(waves, seen[:observed], factor)
                elif missing and method == 2:
                    _factor_whittaker(dates, seen[:observed], smoothness, factor)
                is_new = False
            if missing == 0:
                continue
            if method == 2:
                _fill_whittaker(values, seen[:observed], gaps[:missing], factor, curve)
            elif terms:
                _fill_harmonic(values, waves, seen[:observed], gaps[:missing], terms, factor)
            else:
                _fill_linear(values, dates, seen[:observed], gaps[:missing])
            for gap in gaps[:missing]:
                reflectance[gap, band, pixel] = values[gap]
                is_filled[gap, pixel] = True


def fill_gaps(
    reflectance: Int16[np.ndarray, "time band y x"],
    settings: GapFill,
    *,
    days: Int32[np.ndarray, " time"] | Int32[np.ndarray, "time y x"],
) -> tuple[Int16[np.ndarray, "time band y x"], Bool[np.ndarray, "time y x"]]:
    """Return the series with its gaps filled, and where any band was.

    Stored units in and out, halves rounded to even. Each pixel and band is filled from its own
    observations alone; before the first, after the last, and in gaps longer than `longest_gap`
    days between the observations around it stays `NODATA`. `days` since 1970-01-01 are those of
    each step, of all pixels or of each, and ascend (`InputError`).

    The harmonic needs 5 observations for its annual terms and 8 for the semi-annual ones; with
    fewer, or dates too close together to tell the waves apart, it does with fewer terms, and at
    last with the straight line. The Whittaker smoother is that of Eilers 2003 ("A perfect
    smoother", Analytical Chemistry 75, 3631-3636) with second divided differences, so that steps
    may be uneven.
    """
    times, bands, height, width = reflectance.shape
    if (np.diff(days, axis=0) <= 0).any():
        raise InputError("gap filling needs days that ascend from step to step; found some not")
    filled = reflectance.copy().reshape(times, bands, height * width)
    each = days[:, None] if days.ndim == 1 else days.reshape(times, height * width)
    is_filled = np.zeros((times, height * width), np.bool_)
    method = get_args(Filling).index(settings.method)
    each = np.broadcast_to(each, (times, height * width))  # (time, pixel)
    _fill(filled, each, is_filled, method, settings.longest_gap, settings.smoothness)
    return filled.reshape(reflectance.shape), is_filled.reshape(times, height, width)
