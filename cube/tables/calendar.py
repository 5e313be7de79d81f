"""The days of tables in, the calendar months that are imported out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from cube.bands import NODATA
from cube.errors import InputError
from cube.periods import Period, periods_between

_MOST_YEARS = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Calendar:
    """The months that are imported."""

    periods: tuple[Period, ...]
    """Calendar months, ascending without gaps."""

    @property
    def first(self) -> int:
        """Days since 1970 at which they begin."""
        return int(self.periods[0].start.astype("M8[D]").astype(np.int64))

    @property
    def end(self) -> int:
        """Days since 1970 of the first day after them."""
        return int(self.periods[-1].end.astype("M8[D]").astype(np.int64))

    def month_of(self, days: Int64[np.ndarray, " day"]) -> Int64[np.ndarray, " day"]:
        """Return the place among `periods` of days that lie in them."""
        months = days.astype("M8[D]").astype("M8[M]").astype(np.int64)
        return months - int(self.periods[0].start.astype("M8[M]").astype(np.int64))

    def usable(
        self, part: np.ndarray, columns: Sequence[int]
    ) -> tuple[Bool[np.ndarray, " row"], Counter[str]]:
        """Return which records have data in all of their `columns` and lie in the calendar."""
        is_whole = (part["values"][:, columns] != NODATA).all(axis=1)
        is_inside = (part["day"] >= self.first) & (part["day"] < self.end)
        counts = Counter(
            {
                "without data in some bands": int((~is_whole).sum()),
                "outside the calendar": int((is_whole & ~is_inside).sum()),
            }
        )
        return is_whole & is_inside, counts


def calendar_of(
    days: Mapping[int, str], *, first: Period | None = None, last: Period | None = None
) -> Calendar:
    """Return the whole calendar years that hold all `days` (since 1970), or `first` to `last`.

    Each day comes with where it was found, such as "'a.csv', row 2". Raises `InputError` if no day lies in the months that were asked for, and for tables that go
    over more than ten years, which a single wrong date would make them do.
    """
    every = np.array(sorted(days), np.int64).astype("M8[D]")
    years = every.astype("M8[Y]")
    if (first is None or last is None) and (years[-1] - years[0]).astype(int) >= _MOST_YEARS:
        middle = np.median(every.astype(np.int64))
        odd = max(days, key=lambda day: abs(day - middle))
        raise InputError(
            f"the tables go from {every[0]} to {every[-1]}; is {np.datetime64(odd, 'D')} wrong, "
            f"first in {days[odd]}? If not, say which months to import with --first and --last"
        )
    first = first or Period.of_month(int(str(years[0])), 1)
    last = last or Period.of_month(int(str(years[-1])), 12)
    calendar = Calendar(periods=periods_between(first, last))
    is_inside = (every.astype(np.int64) >= calendar.first) & (every.astype(np.int64) < calendar.end)
    if not is_inside.any():
        raise InputError(
            f"no row lies in the months {first} to {last}; the tables have {every[0]} to {every[-1]}"
        )
    return calendar
