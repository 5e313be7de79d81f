"""Days and periods in, places in years of 365 days out: so leap years shift nothing.

29 February is 28 February. Days are counted from the year 0 of such years.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from cube.periods import Period

YEAR = 365
"""Days of every year."""

_LEAP_DAY = 59
"""Days of a year before 29 February."""

_MONTH_STARTS = np.cumsum([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30])


def seasons(
    first: Int64[np.ndarray, " series"],
) -> tuple[int, Int64[np.ndarray, " series"]]:
    """Return the day of the year at which seasons begin, and the year in which each series' does.

    The year is cut where the longest time passes without a series that begins.
    """
    begins = np.unique(first % YEAR)
    gaps = np.diff(np.append(begins, begins[0] + YEAR))
    anchor = int(begins[(int(gaps.argmax()) + 1) % len(begins)])
    return anchor, (first - anchor) // YEAR


def periods_at(positions: Sequence[str]) -> tuple[Period, ...]:
    """Return periods that have the places in the calendar, each the first after the one before."""
    periods: list[Period] = []
    after = np.datetime64("2001-01-01", "D")
    for position in positions:
        if "/" not in position:
            start = _next(f"{position}-01", after)
            end = (start.astype("M8[M]") + 1).astype("M8[D]")
        else:
            first, last = position.split("/")
            start = _next(first, after)
            end = _next(last, start) + np.timedelta64(1, "D")
        periods.append(Period.of_days(start, end))
        after = end
    return tuple(periods)


def _next(month_day: str, after: np.datetime64) -> np.datetime64:
    """Return the first day with that month and day that is not before `after`."""
    year = int(after.astype("M8[Y]").astype(np.int64)) + 1970
    month_day = "02-28" if month_day == "02-29" else month_day
    found = np.datetime64(f"{year:04d}-{month_day}", "D")
    return found if found >= after else np.datetime64(f"{year + 1:04d}-{month_day}", "D")


def edges_of(periods: tuple[Period, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return first days of periods and first days after them, in years of 365 days."""
    starts, ends = (
        np.array([edge.astype("M8[D]").astype(np.int64) for edge in edges], np.int64)
        for edges in ([p.start for p in periods], [p.end for p in periods])
    )
    return nominal_days(starts), nominal_days(ends)


def nominal_days(days: Int64[np.ndarray, " day"]) -> Int64[np.ndarray, " day"]:
    """Return days since 1970 as days of years that all have 365."""
    dates = days.astype("M8[D]")
    years = dates.astype("M8[Y]")
    of_year = (dates - years.astype("M8[D]")).astype(np.int64)
    is_leap = ((years + 1).astype("M8[D]") - years.astype("M8[D]")).astype(np.int64) > YEAR
    of_year -= is_leap & (of_year >= _LEAP_DAY)
    return np.asarray((years.astype(np.int64) + 1970) * YEAR + of_year)


def date_of(nominal: int) -> np.datetime64:
    """Return the date of a day in years of 365."""
    year, of_year = divmod(nominal, YEAR)
    start = np.datetime64(f"{year:04d}-01-01", "D")
    is_leap = np.datetime64(f"{year + 1:04d}-01-01", "D") - start > np.timedelta64(YEAR, "D")
    return start + np.timedelta64(of_year + (is_leap and of_year >= _LEAP_DAY), "D")


def month_numbers(
    days: Int64[np.ndarray, "series time"], season: Int64[np.ndarray, " series"]
) -> Int64[np.ndarray, "series time"]:
    """Return months since January of each series' season year."""
    year, of_year = np.divmod(days, YEAR)
    month = np.searchsorted(_MONTH_STARTS, of_year, "right") - 1
    return np.asarray((year - season[:, None]) * 12 + month)


def most_frequent(season: Int64[np.ndarray, " series"]) -> int:
    """Return the year that most series begin in, the first of several."""
    years, counts = np.unique(season, return_counts=True)
    return int(years[counts.argmax()])
