"""Text in, `Month` out: the calendar months that are the time axis of a cube."""

import calendar
import re
from dataclasses import dataclass

import numpy as np

from cube.errors import InputError

_MONTH = re.compile(r"(\d{4})-(\d{2})", re.ASCII)

_YEARS = range(1678, 2262)
"""Years of which every month fits into nanoseconds since 1970, the unit of the time axis."""


@dataclass(frozen=True, order=True)
class Month:
    """One calendar month, in UTC."""

    year: int
    """Four-digit year, 1678..2261."""
    month: int
    """1 for January .. 12 for December."""

    def __post_init__(self) -> None:
        if not 1 <= self.month <= 12:
            raise InputError(f"month {self!s} does not exist; expected YYYY-MM with MM in 01..12")
        if self.year not in _YEARS:
            raise InputError(
                f"month {self!s} is beyond the time axis, which holds the years "
                f"{_YEARS.start}..{_YEARS.stop - 1}"
            )

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.month:02d}"

    @classmethod
    def parse(cls, text: str) -> "Month":
        """Read `YYYY-MM`; raise `InputError` for anything else."""
        found = _MONTH.fullmatch(text)
        if not found:
            raise InputError(f"month {text!r} does not exist; expected YYYY-MM, e.g. '2022-03'")
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def of(cls, time: np.datetime64) -> "Month":
        """Return the month in which `time` lies; raises `InputError` for no time (NaT)."""
        return cls.parse(str(time.astype("datetime64[M]")))

    @property
    def start(self) -> np.datetime64:
        """First instant of the month (this is the cube's time coordinate)."""
        return np.datetime64(str(self), "ns")

    @property
    def days(self) -> int:
        """Number of days in the month."""
        return calendar.monthrange(self.year, self.month)[1]

    @property
    def end(self) -> np.datetime64:
        """First instant of the next month: the half-open end of this one."""
        return self.start + np.timedelta64(self.days, "D")

    def next(self) -> "Month":
        """Return the month after this one."""
        return Month(self.year + self.month // 12, self.month % 12 + 1)


def month_range(first: Month, last: Month) -> tuple[Month, ...]:
    """Return every month from `first` to `last`, both included.

    Raises `InputError` if `last` is before `first`.
    """
    if last < first:
        raise InputError(f"months end at {last}, before they start at {first}")
    months = [first]
    while months[-1] < last:
        months.append(months[-1].next())
    return tuple(months)
