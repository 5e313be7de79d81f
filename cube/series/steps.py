"""Counted steps of a wide table in, the day of each out."""

from datetime import date, timedelta

import numpy as np
from jaxtyping import Int64

from cube.errors import InputError
from cube.series.columns import SeriesColumns
from cube.series.dates import days_of, parse_day
from cube.series.options import SeriesOptions
from cube.series.table import Table


def step_days(
    table: Table, columns: SeriesColumns, options: SeriesOptions
) -> Int64[np.ndarray, "row step"]:
    """Return the day of each step of each row of a wide table.

    Raises `InputError` if neither the table nor the options say when steps are.
    """
    assert columns.wide is not None
    count, steps = table.data.num_rows, columns.wide.steps
    if columns.wide.days is not None:
        return np.tile(np.array(columns.wide.days, np.int64), (count, 1))
    if columns.start is not None:
        starts = days_of(table, columns.start)
    else:
        day = parse_day(options.start) if options.start else None
        if day is None:
            raise InputError(
                f"{table.name!r} counts its {steps} steps and does not say when the first one is; "
                "say it with --start, a day such as 2018-09-01 or a column, and --step month"
            )
        starts = np.full(count, (day - date(1970, 1, 1)).days)
    ends = days_of(table, columns.end) if columns.end is not None else None
    pairs = np.unique(np.column_stack([starts, starts if ends is None else ends]), axis=0)
    found = {
        tuple(pair): _spread(table, pair[0], pair[1], steps, options) for pair in pairs.tolist()
    }
    lasts = starts if ends is None else ends
    return np.stack([found[pair] for pair in zip(starts.tolist(), lasts.tolist(), strict=True)])


def _spread(
    table: Table, start: int, end: int, steps: int, options: SeriesOptions
) -> Int64[np.ndarray, " step"]:
    """Return the days of steps from `start`: those of `--step`, or such that the last is at `end`."""
    ways = {"month": (1,), "half-month": (1, 16), "ten days": (1, 11, 21)}
    asked = options.step
    if isinstance(asked, int):
        return start + asked * np.arange(steps)
    first = date(1970, 1, 1) + timedelta(days=start)
    last = date(1970, 1, 1) + timedelta(days=end)
    for name, begins in ways.items():
        if asked is not None and name != asked:
            continue
        days = [
            date(first.year + month // 12, month % 12 + 1, day)
            for month in range(first.month - 1, first.month + steps)
            for day in begins
        ]
        at = sum(day <= first for day in days) - 1  # the step that holds the first day
        chosen = days[max(at, 0) : max(at, 0) + steps]
        following = days[max(at, 0) + steps]
        if name == asked or chosen[-1] <= last < following:
            return np.array([(day - date(1970, 1, 1)).days for day in chosen], np.int64)
    if end > start and steps > 1:
        return np.rint(np.linspace(start, end, steps)).astype(np.int64)
    raise InputError(
        f"{table.name!r} counts its {steps} steps from {first} and does not say how far apart they "
        "are; say it with --step month, half-month or a number of days"
    )
