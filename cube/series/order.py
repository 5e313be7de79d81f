"""Rows of series in, their order by series and day out, or where they are not in order."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int64, Shaped

from cube.errors import InputError
from cube.series.table import Table


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """Rows of a table, those of a series together, days rising; series as the table begins them."""

    row: Int64[np.ndarray, " row"]
    """Rows of the table, from 0."""
    series: Int64[np.ndarray, " row"]
    """Number of the series of each."""
    names: Shaped[np.ndarray, " series"]
    """What the series are called."""
    notes: tuple[str, ...]
    """What was left out or moved."""

    def averaged(
        self, value: Float32[np.ndarray, "row band"], day: Int64[np.ndarray, " tablerow"]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return value, series, row and day with one entry for each day, the mean of its values."""
        days = day[self.row]
        is_new = (np.diff(self.series, prepend=-1) != 0) | (np.diff(days, prepend=-1) != 0)
        start = np.flatnonzero(is_new)
        known = np.isfinite(value)
        count = np.add.reduceat(known, start, axis=0, dtype=np.int64)
        total = np.add.reduceat(np.where(known, value, 0), start, axis=0, dtype=np.float64)
        mean = np.full(total.shape, np.nan)
        np.divide(total, count, out=mean, where=count > 0)
        return mean.astype(np.float32), self.series[start], self.row[start], days[start]


def in_order(
    table: Table,
    key: Int64[np.ndarray, " row"],
    names: Shaped[np.ndarray, " key"],
    day: Int64[np.ndarray, " row"],
    *,
    sorts: bool,
    keeps: Literal["refuse", "first", "mean"],
    is_wide: bool = False,
) -> Order:
    """Order the rows of a table; `key` numbers the series, `names` are those of the keys.

    Rows of a wide table (`is_wide`) are series, which no `keeps` puts together. Raises `InputError`
    for a series whose dates do not rise, unless `sorts`, and for a date that a series has twice, if
    `keeps` is `refuse`.
    """
    first = np.full(len(names), len(key))
    np.minimum.at(first, key, np.arange(len(key)))
    by_first = np.argsort(first)  # (series,): keys in the order in which the table begins them
    number = np.empty(len(names), np.int64)
    number[by_first] = np.arange(len(names))
    series = number[key]
    order = np.lexsort((np.arange(len(key)), series))
    notes = []
    falls = (np.diff(day[order]) < 0) & (np.diff(series[order]) == 0)
    if falls.any():
        if not sorts:
            at = int(np.flatnonzero(falls)[0])
            before, after = (int(order[at + step]) for step in (0, 1))
            raise InputError(
                f"{table.name!r}, {table.at(after)}: series {_name(names, key, after)} has date "
                f"{_told(day, after)} after {_told(day, before)} ({table.at(before)}); sort its "
                "rows, or say --sort"
            )
        notes.append("rows were not in the order of their dates, and were sorted")
        order = np.lexsort((np.arange(len(key)), day, series))
    again = (np.diff(day[order], prepend=-1) == 0) & (np.diff(series[order], prepend=-1) == 0)
    if again.any():
        at = int(np.flatnonzero(again)[0])
        before, after = int(order[at - 1]), int(order[at])
        if keeps == "refuse":
            what = "is there twice" if is_wide else f"has date {_told(day, after)} twice"
            do = "" if is_wide else " say --duplicates first or mean,"
            raise InputError(
                f"{table.name!r}, {table.at(after)}: series {_name(names, key, after)} {what} (first "
                f"{table.at(before)}), {int(again.sum()):,} such rows; take them out,{do} "
                "or name the column of the year with --year"
            )
        notes.append(f"{int(again.sum()):,} rows repeat a date of their series: {keeps} taken")
        if keeps == "first":
            order = order[~again]
    return Order(row=order, series=series[order], names=names[by_first], notes=tuple(notes))


def _name(names: np.ndarray, key: np.ndarray, row: int) -> str:
    return repr(str(names[key[row]])[:40])


def _told(day: np.ndarray, row: int) -> str:
    return str(np.datetime64(int(day[row]), "D"))
