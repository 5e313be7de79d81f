"""Text and calendar in, `Period` out: the months, seasons or instants that are a cube's time axis."""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Int64, Shaped

from cube.errors import InputError

Step: TypeAlias = Literal["month", "half-month", "season"] | int
"""Length of the periods of a calendar; a number is one of days."""

_YEARS = range(1678, 2262)
"""Years of which every day fits into nanoseconds since 1970, the unit of the time axis."""

_TICK = np.timedelta64(1, "ns")
_DAY = np.timedelta64(1, "D")
_LONGEST = 366

_MONTH = re.compile(r"(\d{4})-(\d{2})", re.ASCII)
_SPAN = re.compile(r"(\d{4}-\d{2}-\d{2})/(\d{4}-\d{2}-\d{2})", re.ASCII)
_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?", re.ASCII)


@dataclass(frozen=True, order=True)
class Period:
    """One entry of the time axis, in UTC: whole days, or the instant of one acquisition.

    Its text says all of it: `2022-03` for a calendar month, `2022-03-01/2022-03-15` (both days
    included) for other days, `2022-03-04T10:30:21` for an acquisition.
    """

    start: np.datetime64
    """First instant, in nanoseconds; this is the cube's time coordinate."""
    end: np.datetime64
    """First instant after it, in nanoseconds."""

    def __post_init__(self) -> None:
        if any(edge.dtype != np.dtype("M8[ns]") for edge in (self.start, self.end)):
            raise TypeError(
                f"a period's edges are in nanoseconds, not {self.start!r}, {self.end!r}"
            )
        if not self.start < self.end:  # nor for no time (NaT)
            raise InputError(f"period from {self.start} ends at {self.end}, not after its start")
        if not self.is_acquisition and not (_is_midnight(self.start) and _is_midnight(self.end)):
            raise InputError(f"period from {self.start} to {self.end} is not made of whole days")

    def __str__(self) -> str:
        if self.is_acquisition:
            return next(text for unit, text in _written(self.start) if _is_whole(self.start, unit))
        if self.is_month:
            return str(self.start.astype("M8[M]"))
        return f"{self.start.astype('M8[D]')}/{self.end.astype('M8[D]') - _DAY}"

    @classmethod
    def parse(cls, text: str) -> "Period":
        """Read what `str(period)` gives; raise `InputError` for anything else."""
        if _MONTH.fullmatch(text):
            return parse_month(text)
        try:
            if found := _SPAN.fullmatch(text):
                return cls.of_days(_day(found[1]), _day(found[2]) + _DAY)
            if _INSTANT.fullmatch(text):
                _day(text[:10])
                return cls.of_acquisition(np.datetime64(text, "ns"))
        except InputError:
            raise
        except ValueError:
            pass  # it looks like one, but there is no such day or hour
        raise InputError(
            f"period {text!r} does not exist; expected a month '2022-03', days "
            "'2022-03-01/2022-03-15' or an instant '2022-03-04T10:30:21'"
        )

    @classmethod
    def of_month(cls, year: int, month: int) -> "Period":
        """Return a calendar month; `InputError` unless 1 <= month <= 12 in the years 1678..2261."""
        return parse_month(f"{year:04d}-{month:02d}")

    @classmethod
    def of_days(cls, first: np.datetime64, end: np.datetime64) -> "Period":
        """Return the whole days from `first` to the one before `end`."""
        return cls(first.astype("M8[ns]"), end.astype("M8[ns]"))

    @classmethod
    def of_acquisition(cls, began: np.datetime64 | datetime) -> "Period":
        """Return the period that holds the look that began at `began`, and no other.

        Raises `InputError` for no time (NaT) and beyond the years 1678..2261, `ValueError` for a
        `datetime` without a zone.
        """
        start = _instant(began)
        return cls(start, start + _TICK)

    @property
    def is_acquisition(self) -> bool:
        """Whether it is an instant."""
        return bool(self.end - self.start == _TICK)

    @property
    def is_month(self) -> bool:
        """Whether it is one whole calendar month."""
        month = self.start.astype("M8[M]")
        return bool(self.start == month and self.end == month + 1)

    @property
    def days(self) -> int:
        """Number of whole days; 0 for an acquisition."""
        return int((self.end - self.start) // _DAY)

    @property
    def middle(self) -> np.datetime64:
        """The instant half-way."""
        return np.datetime64(self.start + (self.end - self.start) // 2)

    def holds(self, instant: np.datetime64 | datetime) -> bool:
        """Say whether `instant` lies in it; a `datetime` must know its zone (`ValueError`)."""
        return bool(self.start <= _instant(instant) < self.end)


def _instant(time: np.datetime64 | datetime) -> np.datetime64:
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise ValueError(f"time {time} has no zone")
        universal = time.astimezone(UTC).replace(tzinfo=None)
        if universal.year not in _YEARS:
            raise _beyond(str(universal))
        return np.datetime64(universal, "ns")
    if np.isnat(time) or int(time.astype("M8[Y]").astype(np.int64)) + 1970 not in _YEARS:
        raise _beyond(str(time))
    exact: np.datetime64 = time.astype("M8[ns]")
    return exact


def _is_midnight(time: np.datetime64) -> bool:
    return _is_whole(time, "D")


def _is_whole(time: np.datetime64, unit: str) -> bool:
    return bool(time == time.astype(f"M8[{unit}]"))


def _written(time: np.datetime64) -> Iterator[tuple[str, str]]:
    for unit in ("s", "ms", "us", "ns"):
        yield unit, str(time.astype(f"M8[{unit}]"))


def _day(text: str) -> np.datetime64:
    if int(text[:4]) not in _YEARS:
        raise _beyond(text)
    return np.datetime64(text, "D")


def _beyond(text: str) -> InputError:
    return InputError(
        f"{text} is beyond the time axis, which holds the years {_YEARS.start}..{_YEARS.stop - 1}"
    )


def parse_month(text: str) -> Period:
    """Read a calendar month `YYYY-MM`; raise `InputError` for anything else."""
    found = _MONTH.fullmatch(text)
    if not found or not 1 <= int(found[2]) <= 12:
        raise InputError(
            f"month {text!r} does not exist; expected YYYY-MM, e.g. '2022-03'"
            if not found
            else f"month {text} does not exist; expected YYYY-MM with MM in 01..12"
        )
    if int(found[1]) not in _YEARS:
        raise _beyond(text)
    month = np.datetime64(text, "M")
    return Period.of_days(month, month + 1)


def periods_between(first: Period, last: Period, step: Step = "month") -> tuple[Period, ...]:
    """Return the periods of `step` from the calendar month `first` to `last`, both included.

    Half-months are the days 1 to 15 and the rest. Seasons are the meteorological ones (DJF, MAM,
    JJA, SON). A number of days is counted from the first day of each calendar year, as MODIS
    composites are, so the last one of a year may be shorter; so are those at the edges where
    `first` begins, or `last` ends, inside of one.

    Raises `InputError` for what is no month, if `last` is before `first`, for seasons that months do not begin and end,
    and for a number of days that is not 1..366.
    """
    if odd := [one for one in (first, last) if not one.is_month]:
        raise InputError(f"the time axis begins and ends with a calendar month, not with {odd[0]}")
    if last < first:
        raise InputError(f"months end at {last}, before they start at {first}")
    months = np.arange(first.start.astype("M8[M]"), last.end.astype("M8[M]"))
    if step == "month":
        edges: Any = months.astype("M8[D]")
    elif step == "half-month":
        starts = months.astype("M8[D]")
        edges = np.stack([starts, starts + 15 * _DAY], axis=1).ravel()
    elif step == "season":
        _refuse_cut_seasons(first, last)
        edges = months[::3].astype("M8[D]")
    else:
        edges = _counted_days(first, last, step)
    ends = [*edges[1:], last.end]
    return tuple(Period.of_days(start, end) for start, end in zip(edges, ends, strict=True))


def _refuse_cut_seasons(first: Period, last: Period) -> None:
    # months since January of the year 1970: seasons begin with the numbers 2, 5, 8 and 11 of a year
    start, end = (int(time.astype("M8[M]").astype(np.int64)) for time in (first.start, last.end))
    for what, month, number, shift in (("begin", first, start, 0), ("end", last, end, 1)):
        if behind := (number - 2) % 3:
            near = (np.datetime64(number - behind - shift + step, "M") for step in (0, 3))
            raise InputError(
                f"months {what} at {month}, within a season (they are Dec-Feb, Mar-May, Jun-Aug, "
                f"Sep-Nov); {what} at {' or '.join(map(str, near))}"
            )


def _counted_days(first: Period, last: Period, step: int) -> list[np.datetime64]:
    if not 1 <= step <= _LONGEST:
        raise InputError(f"periods of {step!r} days; expected a whole number 1..{_LONGEST}")
    begin, end = first.start.astype("M8[D]"), last.end.astype("M8[D]")
    edges = [begin]
    for year in np.arange(begin.astype("M8[Y]"), end.astype("M8[Y]") + 1):
        edges += np.arange(year.astype("M8[D]"), (year + 1).astype("M8[D]"), step * _DAY).tolist()
    inside = {np.datetime64(edge, "D") for edge in edges}
    return sorted(edge for edge in inside if begin <= edge < end)


def acquisition_periods(
    began: Iterable[np.datetime64 | datetime], first: Period, last: Period
) -> tuple[Period, ...]:
    """Return one period per different instant from the month `first` to `last`, ascending."""
    every = {Period.of_acquisition(instant) for instant in began}
    return tuple(sorted(one for one in every if first.start <= one.start < last.end))


def check_periods(periods: Sequence[Period]) -> None:
    """Raise `InputError` unless periods ascend without overlap, all acquisitions or none."""
    if not periods:
        raise InputError("the cube's periods are missing; at least one must be given")
    for before, after in pairwise(periods):
        if after.start < before.end:
            raise InputError(
                "the cube's periods must be given ascending, without overlap or repeats; "
                f"{after} does not lie after {before}"
            )
    if len({period.is_acquisition for period in periods}) > 1:
        raise InputError("the cube's periods mix single acquisitions with days; give one or other")


def looks_by_period(
    periods: Sequence[Period], instants: Iterable[np.datetime64 | datetime]
) -> dict[Period, int]:
    """Return how many of `instants` lie in each of the ascending `periods` that holds any."""
    starts = [period.start for period in periods]
    found: Counter[Period] = Counter()
    for instant in instants:
        at = bisect_right(starts, _instant(instant)) - 1
        if at >= 0 and periods[at].holds(instant):
            found[periods[at]] += 1
    return {period: found[period] for period in periods if period in found}


def period_numbers(
    periods: Sequence[Period], instants: Shaped[np.ndarray, " instant"]
) -> Int64[np.ndarray, " instant"]:
    """Return the number of that of the ascending `periods` in which each instant lies, or -1.

    `instants` are datetime64 in nanoseconds, UTC.
    """
    starts = np.array([period.start for period in periods], "M8[ns]")
    ends = np.array([period.end for period in periods], "M8[ns]")
    found = np.searchsorted(starts, instants, side="right") - 1
    is_inside = (found >= 0) & (instants < ends[found])  # [-1] is compared in vain
    return np.where(is_inside, found, -1).astype(np.int64)


def stored_times(
    times: Sequence[np.datetime64],
) -> tuple[Int64[np.ndarray, " time"], dict[str, str]]:
    """Return times as whole numbers and the CF attributes that say of what: days where they can be.

    The unit is the coarsest of days, seconds, milliseconds, microseconds and nanoseconds in which
    every time is a whole number.
    """
    exact = np.array(times, "M8[ns]")
    units = {"D": "days", "s": "seconds", "ms": "milliseconds", "us": "microseconds"}
    code = next((unit for unit in units if (exact == exact.astype(f"M8[{unit}]")).all()), "ns")
    return exact.astype(f"M8[{code}]").astype(np.int64), {
        "units": f"{units.get(code, 'nanoseconds')} since 1970-01-01",
        "calendar": "proleptic_gregorian",
    }
