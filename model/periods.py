"""Period names in, places in the calendar out: what the steps of a sequence stand for in any year."""

import re
from collections.abc import Sequence
from datetime import date, timedelta
from itertools import pairwise

_MONTH = re.compile(r"(\d{4})-(\d{2})", re.ASCII)
_SPAN = re.compile(r"(\d{4}-\d{2}-\d{2})/(\d{4}-\d{2}-\d{2})", re.ASCII)
_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}T.+", re.ASCII)

_POSITION = re.compile(r"\d{2}(-\d{2}/\d{2}-\d{2})?", re.ASCII)
_LEAP_YEAR = 2000
_COMMON_YEAR = 2001


def calendar_positions(periods: Sequence[str]) -> tuple[str, ...]:
    """Return the place of each period in the calendar: its name without the years.

    `03` for a calendar month (`2022-03`), `03-01/03-15` for days (`2022-03-01/2022-03-15`); the
    last day of February is `02-28` in every year.

    Raises `ValueError` for any other text, for single acquisitions (whose dates do not come again)
    and unless periods rise without overlap, each beginning within a year of the one before: then
    the positions say everything about the steps but the year.
    """
    spans = [_first_and_last_day(text) for text in periods]
    named = list(zip(periods, spans, strict=True))
    for (before, (earlier, end)), (text, (start, _)) in pairwise(named):
        if start <= end:
            raise ValueError(f"period {text!r} does not lie after {before!r}; periods must rise")
        if _is_over_a_year(earlier, start):
            raise ValueError(
                f"period {text!r} begins more than a year after {before!r}, so that the calendar "
                "cannot tell which year it is of"
            )
    return tuple(_position(text, *span) for text, span in named)


def is_position(text: str) -> bool:
    """Say whether `text` is one that `calendar_positions` gives."""
    if not _POSITION.fullmatch(text):
        return False
    days = [f"{text}-01"] if len(text) == 2 else text.split("/")
    try:
        for day in days:
            date.fromisoformat(f"{_LEAP_YEAR}-{day}")
    except ValueError:
        return False
    return True


def middle_of_year(position: str) -> float:
    """Return the time of year of the middle of a place in the calendar, 0..1 (1 excluded).

    In a year of 365 days, so that it is the same in all: 0 is the first moment of January. Raises
    `ValueError` for what `calendar_positions` does not give.
    """
    if not is_position(position):
        raise ValueError(f"{position!r} is no place in the calendar like '03' or '03-01/03-15'")
    if len(position) == 2:
        first, last = _first_and_last_day(f"{_COMMON_YEAR}-{position}")
    else:
        days = [date.fromisoformat(f"{_LEAP_YEAR}-{day}") for day in position.split("/")]
        first, last = (date(_COMMON_YEAR, day.month, min(day.day, 28 if day.month == 2 else 31))
                       for day in days)  # fmt: skip
    start = first.timetuple().tm_yday - 1
    length = (last.timetuple().tm_yday - 1 - start) % 365 + 1
    return (start + length / 2) % 365 / 365


def _first_and_last_day(text: str) -> tuple[date, date]:
    if _INSTANT.fullmatch(text):
        raise ValueError(
            f"period {text!r} is a single acquisition, whose date does not come again in another "
            "year\nbuild the cube with periods of the calendar: months, half-months, seasons or a "
            "number of days"
        )
    try:
        if found := _SPAN.fullmatch(text):
            first, last = date.fromisoformat(found[1]), date.fromisoformat(found[2])
            if first <= last and not _is_over_a_year(first, last + timedelta(days=1)):
                return first, last
        if found := _MONTH.fullmatch(text):
            first = date(int(found[1]), int(found[2]), 1)
            following = date(first.year + first.month // 12, first.month % 12 + 1, 1)
            return first, following - timedelta(days=1)
    except ValueError:
        pass  # it looks like one, but there is no such month or day
    raise ValueError(
        f"period {text!r} does not exist; expected a month '2022-03' or days of a year or less "
        "'2022-03-01/2022-03-15'"
    )


def _is_over_a_year(start: date, end: date) -> bool:
    return (end.year - 1, end.month, end.day) > (start.year, start.month, start.day)


def _position(text: str, first: date, last: date) -> str:
    if _MONTH.fullmatch(text):
        return text[5:]
    # a half-month or season that ends with February does so in leap years too
    end = "02-28" if (last.month, last.day) == (2, 29) else f"{last:%m-%d}"
    return f"{first:%m-%d}/{end}"
