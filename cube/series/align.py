"""Series of any years in, one calendar out, and the value of each series at each of its periods."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float32, Int64, UInt16

from cube.errors import InputError
from cube.periods import Period, period_numbers, periods_between
from cube.series.median import median_of_cells
from cube.series.observations import Observations
from cube.series.options import SeriesOptions
from cube.series.seasons import (
    YEAR,
    date_of,
    edges_of,
    month_numbers,
    most_frequent,
    nominal_days,
    periods_at,
    seasons,
)

_LONGEST_GAP = 366


@dataclass(frozen=True, kw_only=True, eq=False)
class AlignedSeries:
    """Series whose steps stand for the same periods."""

    observations: Observations
    """The series; `align` leaves out those that have no value in the calendar."""
    value: Float32[np.ndarray, "series time band"]
    """Physical values, NaN where nothing was observed."""
    count: UInt16[np.ndarray, "series time"]
    """Observations with a value that each step was made of."""
    periods: tuple[Period, ...]
    """Periods of a nominal year: the one that most series begin in."""
    year: Int64[np.ndarray, " series"]
    """Calendar year of each series' first observation."""
    dropped: dict[str, int]
    """What was left out: reason to count."""


def align(observations: Observations, options: SeriesOptions) -> AlignedSeries:
    """Put all series on one calendar.

    Without `options.step` the steps of all series are those of the first: they must be as many, and
    lie at the same place of the year within half a step. With it, each period of a calendar takes
    the median of a series' observations in it, and is NaN without any. Raises `InputError`.
    """
    _refuse_gaps(observations)
    _refuse_half_a_calendar(options)
    if options.step is None:
        return _by_number(observations)
    days = nominal_days(observations.day)
    periods = _calendar(observations, days, options)
    return _by_period(observations, days, periods)


def align_to(
    observations: Observations, positions: Sequence[str], *, is_placed: bool
) -> AlignedSeries:
    """Put series on the calendar of a classifier: `03` for months, `03-01/03-15` for days.

    `is_placed` puts each observation into the period that holds it; else series must have as many
    steps, each within half a step of its period. Series without a value stay. Raises `InputError`.
    """
    periods = periods_at(positions)
    days = nominal_days(observations.day)
    if is_placed:
        return _by_period(observations, days, periods, keeps_empty=True)
    lengths = observations.lengths
    if odd := np.flatnonzero(lengths != len(periods)).tolist():
        raise InputError(
            f"{observations.name(odd[0])} has {lengths[odd[0]]} dates, the classifier reads "
            f"{len(periods)} periods ({' '.join(positions)[:80]}); to put dates into these periods "
            "say --step calendar"
        )
    starts, ends = edges_of(periods)
    shift = _season_shift(observations, days, (starts[0] + ends[-1]) / 2)
    found = (days + shift[observations.series]).reshape(-1, len(periods))  # (series, time)
    slack = (ends - starts) / 2
    is_far = (found < starts - slack) | (found >= ends + slack)
    if is_far.any():
        series, step = (int(part) for part in np.argwhere(is_far)[0])
        raise InputError(
            f"{observations.name(series)} has its date {step + 1} at "
            f"{_told(observations, series, step)}, the classifier's period is {positions[step]}; to "
            "put dates into the classifier's periods say --step calendar"
        )
    value = observations.value.reshape(*found.shape, -1)
    return _made(observations, value, periods, keeps_empty=True)


def _by_number(observations: Observations) -> AlignedSeries:
    """Take the n-th observation of every series for one step."""
    lengths = observations.lengths
    usual = int(np.bincount(lengths).argmax())
    if odd := np.flatnonzero(lengths != usual).tolist():
        raise InputError(
            f"series have different lengths: {int((lengths == usual).sum()):,} have {usual} dates, "
            f"{len(odd):,} others, e.g. {observations.name(odd[0])} {lengths[odd[0]]}; put them on "
            "a common calendar with --step month (or half-month, or days)"
        )
    days = nominal_days(observations.day).reshape(-1, usual)  # (series, time)
    anchor, season = seasons(days[:, 0])
    offset = days - (season * YEAR + anchor)[:, None]
    starts = np.floor(np.median(offset, axis=0)).astype(np.int64)
    lasts = np.diff(starts) if usual > 1 else np.array([28])
    _refuse_other_dates(observations, offset, starts, max(float(np.median(lasts)) / 2, 1.0))
    nominal = most_frequent(season)
    months = month_numbers(days, season)
    if (months == months[0]).all() and (np.diff(months[0]) == 1).all():
        first = np.datetime64(f"{nominal:04d}-01", "M") + int(months[0, 0])
        periods = tuple(
            Period.of_days(*(edge.astype("M8[D]") for edge in (first + n, first + n + 1)))
            for n in range(usual)
        )
    else:
        edges = np.append(starts, starts[-1] + max(1, int(np.median(lasts))))
        dates = [date_of(int(edge) + nominal * YEAR + anchor) for edge in edges]
        periods = tuple(Period.of_days(*pair) for pair in pairwise(dates))
    return _made(observations, observations.value.reshape(*offset.shape, -1), periods)


def _refuse_other_dates(
    observations: Observations, offset: np.ndarray, starts: np.ndarray, slack: float
) -> None:
    if (np.diff(starts) < 1).any() or (np.abs(offset - starts) > slack).any():
        away = np.abs(offset - starts)
        series, step = (int(part) for part in np.unravel_index(away.argmax(), away.shape))
        near = int(away[:, step].argmin())
        raise InputError(
            f"steps of series are of other times of the year: date {step + 1} is "
            f"{_told(observations, near, step)} in {observations.name(near)}, but "
            f"{_told(observations, series, step)} in {observations.name(series)}; put them on a "
            "common calendar with --step month (or half-month, or days)"
        )


def _by_period(
    observations: Observations,
    days: Int64[np.ndarray, " row"],
    periods: tuple[Period, ...],
    *,
    keeps_empty: bool = False,
) -> AlignedSeries:
    """Take the median of the observations in each period."""
    starts, ends = edges_of(periods)
    shift = _season_shift(observations, days, (starts[0] + ends[-1]) / 2)
    if ends[-1] - starts[0] > YEAR:
        shift = _fullest_shift(observations, days, shift, (int(starts[0]), int(ends[-1])))
    placed = days + shift[observations.series]
    different, which = np.unique(placed, return_inverse=True)
    instants = np.array([date_of(day) for day in different.tolist()], "M8[ns]")
    at = period_numbers(periods, instants)[which]
    cell = np.where(at >= 0, observations.series * len(periods) + at, -1)
    value = median_of_cells(observations.value, cell, len(observations) * len(periods))
    count = np.bincount(
        cell[(cell >= 0) & np.isfinite(observations.value).any(axis=1)],
        minlength=len(observations) * len(periods),
    )
    shape = (len(observations), len(periods))
    return _made(
        observations,
        value.reshape(*shape, -1),
        periods,
        count=count.reshape(shape),
        outside=int((at < 0).sum()),
        keeps_empty=keeps_empty,
    )


def _made(
    observations: Observations,
    value: np.ndarray,
    periods: tuple[Period, ...],
    *,
    count: np.ndarray | None = None,
    outside: int = 0,
    keeps_empty: bool = False,
) -> AlignedSeries:
    """Leave out the series that have no value at all, unless `keeps_empty`."""
    if count is None:
        count = np.isfinite(value).any(axis=2)
    kept = np.flatnonzero(np.isfinite(value).any(axis=(1, 2)) | keeps_empty)
    dropped = {
        "series without any value": len(value) - len(kept),
        "observations outside the calendar": outside,
    }
    if not len(kept):
        raise InputError(f"none of {len(value):,} series has a value in the calendar; is it right?")
    return AlignedSeries(
        observations=observations.take(kept.astype(np.int64)),
        value=value[kept].astype(np.float32),
        count=np.minimum(count[kept], 65535).astype(np.uint16),
        periods=periods,
        year=_years(observations.first_day[kept]),
        dropped={reason: number for reason, number in dropped.items() if number},
    )


def _calendar(
    observations: Observations, days: Int64[np.ndarray, " row"], options: SeriesOptions
) -> tuple[Period, ...]:
    """Return the periods of a nominal year that hold all series, or those asked for."""
    assert options.step is not None
    if options.first is not None and options.last is not None:
        return periods_between(options.first, options.last, options.step)
    anchor, season = seasons(days[observations.starts])
    offset = days - (season * YEAR + anchor)[observations.series]
    nominal = most_frequent(season) * YEAR + anchor
    edges = [date_of(nominal + int(day)).astype("M8[M]") for day in (0, offset.max())]
    if options.step == "season":
        edges[0] -= (int(edges[0].astype(np.int64)) - 11) % 3
        edges[1] += (1 - int(edges[1].astype(np.int64))) % 3
    first, last = (Period.of_days(e.astype("M8[D]"), (e + 1).astype("M8[D]")) for e in edges)
    return periods_between(first, last, options.step)


def _refuse_half_a_calendar(options: SeriesOptions) -> None:
    if (options.first is None) != (options.last is None):
        raise InputError("--first and --last go together: they are the months of the calendar")
    if options.first is not None and options.step is None:
        raise InputError(
            "--first and --last are the months of a common calendar; say its --step, e.g. month"
        )


def _refuse_gaps(observations: Observations) -> None:
    gap = np.diff(observations.day)
    is_long = (np.diff(observations.series) == 0) & (gap > _LONGEST_GAP)
    if is_long.any():
        row = int(np.flatnonzero(is_long)[0])
        before, after = (np.datetime64(int(d), "D") for d in observations.day[row : row + 2])
        raise InputError(
            f"{observations.name(int(observations.series[row]))} has no date between {before} and "
            f"{after}; a series is one season. If ids come again in other years, name the column of "
            "the year with --year"
        )


def _season_shift(
    observations: Observations, days: Int64[np.ndarray, " row"], middle: float
) -> Int64[np.ndarray, " series"]:
    """Return the days (whole years) that bring the middle of each series nearest to `middle`."""
    starts = observations.starts
    ends = starts + observations.lengths - 1
    own = (days[starts] + days[ends]) / 2
    return np.asarray(np.rint((middle - own) / YEAR) * YEAR, np.int64)


def _fullest_shift(
    observations: Observations,
    days: Int64[np.ndarray, " row"],
    near: Int64[np.ndarray, " series"],
    edges: tuple[int, int],
) -> Int64[np.ndarray, " series"]:
    """Return the first shift, of those about `near`, that puts most of a series between `edges`.

    In a calendar of more than a year, the middle of a series that ends early is of no year.
    """
    reach = -(-(edges[1] - edges[0]) // YEAR)
    best, most = near, np.full(len(observations), -1)
    for years in range(-reach, reach + 1):
        shift = near + years * YEAR
        placed = days + shift[observations.series]
        is_inside = (placed >= edges[0]) & (placed < edges[1])
        count = np.bincount(observations.series[is_inside], minlength=len(observations))
        best, most = np.where(count > most, shift, best), np.maximum(count, most)
    return np.asarray(best, np.int64)


def _years(days: Int64[np.ndarray, " series"]) -> Int64[np.ndarray, " series"]:
    return np.asarray(days.astype("M8[D]").astype("M8[Y]").astype(np.int64) + 1970)


def _told(observations: Observations, series: int, step: int) -> str:
    return str(np.datetime64(int(observations.day[observations.starts[series] + step]), "D"))
