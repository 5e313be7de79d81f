"""Dates as tables write them in, days since 1970 out."""

import re
from datetime import date, datetime, timedelta

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from cube.errors import InputError
from cube.series.table import Table

_YEAR_FIRST = re.compile(
    r"(\d{4})([-/])(\d{1,2})\2(\d{1,2})"
    r"(?:[T ](\d{1,2})(?::?(\d{2})(?::?(\d{2})(?:[.,]\d+)?)?)?"
    r" ?(?:Z|UTC|GMT|([+-])(\d{2}):?(\d{2})?)?)?",
    re.ASCII,
)
_COMPACT = re.compile(r"(\d{4})(\d{2})(\d{2})", re.ASCII)
_DAY_FIRST = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})", re.ASCII)
_MONTH = re.compile(r"(\d{4})-?(\d{2})", re.ASCII)

_FIRST_YEAR, _LAST_YEAR = 1900, 2200


def parse_day(text: str) -> date | None:
    """Return the day that a text stands for; None if it is none, or could be two.

    `2018-09-14` (a time may follow), `2018/9/14`, `20180914`, `14.09.2018`, and `2018-09` or
    `201809` for the first of a month. A time with an offset gives the day in UTC. With slashes, day and month first are told apart by nobody.
    """
    text = text.strip()
    try:
        if found := _YEAR_FIRST.fullmatch(text):
            day = _day_of_time(found)
        elif found := _COMPACT.fullmatch(text):
            day = date(int(found[1]), int(found[2]), int(found[3]))
        elif found := _DAY_FIRST.fullmatch(text):
            day = date(int(found[3]), int(found[2]), int(found[1]))
        elif found := _MONTH.fullmatch(text):
            day = date(int(found[1]), int(found[2]), 1)
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return day if _FIRST_YEAR <= day.year < _LAST_YEAR else None


def _day_of_time(found: re.Match[str]) -> date:
    """Return the day in UTC; raises `ValueError` for days and times that do not exist."""
    year, month, day, hour, minute, second = (int(found[n] or 0) for n in (1, 3, 4, 5, 6, 7))
    time = datetime(year, month, day, hour, minute, second)
    offset = timedelta(hours=int(found[9] or 0), minutes=int(found[10] or 0))
    return (time + offset if found[8] == "-" else time - offset).date()


def days_of(table: Table, column: str) -> Int64[np.ndarray, " row"]:
    """Return the days of a column, since 1970; times are those of UTC.

    Raises `InputError` with the row of the first that is no date.
    """
    values = table.data[column]
    if pa.types.is_date(values.type) or pa.types.is_timestamp(values.type):
        days = values.to_numpy(zero_copy_only=False).astype("M8[D]")
        if (lost := np.flatnonzero(np.isnat(days))).size:
            raise _no_date(table, column, int(lost[0]), "")
        return np.asarray(days.astype(np.int64))
    texts, which = np.unique(table.text(column).astype(str), return_inverse=True)
    days = np.empty(len(texts), np.int64)
    for number, text in enumerate(texts.tolist()):
        day = parse_day(text)
        if day is None:
            raise _no_date(table, column, int(np.flatnonzero(which == number)[0]), text)
        days[number] = (day - date(1970, 1, 1)).days
    return np.asarray(days[which])


def _no_date(table: Table, column: str, row: int, text: str) -> InputError:
    return InputError(
        f"{table.name!r}, {table.at(row)}: column {column!r} holds {text[:40]!r}, no date that can "
        "be read one way only; expected YYYY-MM-DD"
    )
