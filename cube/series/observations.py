"""What a table of series says, once it has been read: one entry a series, one row an observation."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped

from cube.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class Observations:
    """Series and their observations; those of a series stand together, days rising."""

    bands: tuple[str, ...]
    """Names of the last axis of `value`."""
    id: Shaped[np.ndarray, " series"]
    """Names, as the table has them (with the year where that belongs to them)."""
    where: Shaped[np.ndarray, " series"]
    """Where each series begins, for messages: `'a.csv', line 2`."""
    label: Shaped[np.ndarray, " series"] | None
    """Class, text; None in tables without."""
    group: Shaped[np.ndarray, " series"] | None
    """Label unit, text; None in tables without."""
    region: Shaped[np.ndarray, " series"] | None
    """Region, text; None in tables without."""
    lon: Float64[np.ndarray, " series"] | None
    """Degrees east; None in tables without places."""
    lat: Float64[np.ndarray, " series"] | None
    """Degrees north; None in tables without places."""
    series: Int64[np.ndarray, " row"]
    """Number of the series of each observation, rising."""
    day: Int64[np.ndarray, " row"]
    """Day of each observation since 1970."""
    value: Float32[np.ndarray, "row band"]
    """Physical values, NaN where nothing was observed."""
    notes: tuple[str, ...] = ()
    """What is odd, or was decided, one sentence each."""
    not_imported: tuple[str, ...] = ()
    """Columns that were left out."""

    def __len__(self) -> int:
        return len(self.id)

    @property
    def lengths(self) -> Int64[np.ndarray, " series"]:
        """Number of observations of each series."""
        return np.bincount(self.series, minlength=len(self)).astype(np.int64)

    @property
    def starts(self) -> Int64[np.ndarray, " series"]:
        """Row of each series' first observation."""
        return np.asarray(np.cumsum(self.lengths) - self.lengths)

    @property
    def first_day(self) -> Int64[np.ndarray, " series"]:
        """Day of each series' first observation, since 1970."""
        return np.asarray(self.day[self.starts])

    def name(self, series: int) -> str:
        """Return how a message names a series."""
        return f"series {str(self.id[series])[:40]!r} ({self.where[series]})"

    def take(self, index: Int64[np.ndarray, " chosen"]) -> "Observations":
        """Return the series at `index`, which rises."""
        is_kept = np.zeros(len(self), bool)
        is_kept[index] = True
        rows = is_kept[self.series]
        number = np.cumsum(is_kept) - 1
        chosen: dict[str, Any] = {
            name: None if getattr(self, name) is None else getattr(self, name)[index]
            for name in _OF_SERIES
        }
        return replace(
            self,
            **chosen,
            series=number[self.series[rows]].astype(np.int64),
            day=self.day[rows],
            value=self.value[rows],
        )


_OF_SERIES = ("id", "where", "label", "group", "region", "lon", "lat")


def joined(tables: list[Observations]) -> Observations:
    """Return the series of several tables as one; ids count within their table.

    Raises `InputError` if they have other bands, or something only one of them has.
    """
    first = tables[0]
    if len(tables) == 1:
        return first
    for other in tables[1:]:
        if set(other.bands) != set(first.bands):
            odd = sorted(set(first.bands) ^ set(other.bands))
            raise InputError(
                f"tables have other bands: {odd[0]!r} is in one of {_file(first)} and "
                f"{_file(other)} only; choose bands of both with --bands"
            )
        for name in _OF_SERIES:
            if (getattr(first, name) is None) != (getattr(other, name) is None):
                raise InputError(
                    f"tables differ: {name} is in one of {_file(first)} and {_file(other)} only"
                )
    order = [[table.bands.index(band) for band in first.bands] for table in tables]
    offsets = np.cumsum([0, *map(len, tables)])
    fields: dict[str, Any] = {
        name: None
        if getattr(first, name) is None
        else np.concatenate([getattr(table, name) for table in tables])
        for name in _OF_SERIES
    }
    return replace(
        first,
        **fields,
        series=np.concatenate([t.series + n for t, n in zip(tables, offsets[:-1], strict=True)]),
        day=np.concatenate([table.day for table in tables]),
        value=np.concatenate([t.value[:, o] for t, o in zip(tables, order, strict=True)]),
        notes=tuple(dict.fromkeys(note for table in tables for note in table.notes)),
        not_imported=tuple(dict.fromkeys(name for table in tables for name in table.not_imported)),
    )


def _file(table: Observations) -> str:
    return str(table.where[0]).split(", ")[0]
