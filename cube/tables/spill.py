"""Rows of tables in, the same kept on the disk between passes, and read back in parts."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped

from cube.tables.columns import TableColumns
from cube.tables.dark import DarkRows
from cube.tables.indices import IndexCheck
from cube.tables.rows import TableRows
from cube.tables.scratch import told_if_full

_ROWS = 65_536
"""Rows that are read back at once: 4 MB with fourteen bands."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Spill:
    """One table, read once: its rows with data in a binary file, and what was counted."""

    name: str
    """Name of the table's file."""
    columns: TableColumns
    """What the table had."""
    file: Path
    """Records of `dtype`, in the order of the table."""
    classes: tuple[str, ...]
    """Names that `label` counts in; none in a table of patches."""
    read: int
    """Rows of the table."""
    kept: int
    """Records."""
    days: Mapping[int, int]
    """Days since 1970 of the records, and the number of the first row of each."""
    bounds: "Bounds"
    """Where they lie."""
    dropped: Counter[str]
    """Rows without data, by reason."""
    facts: Counter[str]
    """What `TableRows.facts` counted."""
    indices: dict[str, IndexCheck]
    """How columns of indices compare with the bands."""
    has_offset: bool
    """Whether dark pixels say that 1000 is still in the counts of 2022 and later."""

    @property
    def dtype(self) -> np.dtype[np.void]:
        """Layout of a record."""
        return _record(len(self.columns.bands))

    def parts(self) -> Iterator[np.ndarray]:
        """Yield the records, some at a time."""
        with self.file.open("rb") as file:
            while len(part := np.fromfile(file, self.dtype, _ROWS)):
                yield part


@dataclass(kw_only=True)
class Bounds:
    """Extreme coordinates seen so far, and the rows that have them."""

    least: np.ndarray = field(default_factory=lambda: np.full(2, np.inf))
    """Smallest longitude and latitude."""
    most: np.ndarray = field(default_factory=lambda: np.full(2, -np.inf))
    """Largest longitude and latitude."""
    rows: np.ndarray = field(default_factory=lambda: np.zeros((2, 2), np.int64))
    """Numbers of the rows: [least or most, longitude or latitude]."""

    def add(self, rows: TableRows) -> None:
        """Take more rows in."""
        for axis, values in enumerate((rows.lon, rows.lat)):
            low, high = int(values.argmin()), int(values.argmax())
            if values[low] < self.least[axis]:
                self.least[axis], self.rows[0, axis] = values[low], rows.number[low]
            if values[high] > self.most[axis]:
                self.most[axis], self.rows[1, axis] = values[high], rows.number[high]


def _record(bands: int) -> np.dtype[np.void]:
    return np.dtype(
        [
            ("lon", "f8"),
            ("lat", "f8"),
            ("number", "i8"),
            ("day", "i4"),
            ("label", "i4"),
            ("values", "i2", (bands,)),
        ]
    )


def spill_rows(
    blocks: Iterable[TableRows], file: Path, *, name: str, columns: TableColumns
) -> Spill:
    """Write the rows of a table to `file`, a block at a time; return what they are.

    Raises `WorkFailedError` if the disk is full.
    """
    dropped: Counter[str] = Counter()
    facts: Counter[str] = Counter()
    indices: dict[str, IndexCheck] = {}
    codes: dict[str, int] = {}
    days: dict[int, int] = {}
    bounds, dark, read, kept = Bounds(), DarkRows(list(columns.bands)), 0, 0
    with file.open("wb") as out:
        for rows in blocks:
            read += rows.read
            dropped.update(rows.dropped)
            facts.update(rows.facts)
            indices.update(rows.indices)
            if not len(rows):
                continue
            kept += len(rows)
            bounds.add(rows)
            dark.add(rows.day, rows.values)
            for day, at in zip(*np.unique(rows.day, return_index=True), strict=True):
                days.setdefault(int(day), int(rows.number[at]))
            record = np.empty(len(rows), _record(len(columns.bands)))
            for key in ("lon", "lat", "number", "day", "values"):
                record[key] = getattr(rows, key)
            record["label"] = _coded(rows.label, codes) if columns.is_truth else 0
            with told_if_full(file.parent, record.nbytes, is_all=False):
                out.write(record.view(np.uint8).data)
                out.flush()
    return Spill(
        name=name,
        columns=columns,
        file=file,
        classes=tuple(codes),
        read=read,
        kept=kept,
        days=days,
        bounds=bounds,
        dropped=dropped,
        facts=facts,
        indices=indices,
        has_offset=dark.has_offset(),
    )


def _coded(label: Shaped[np.ndarray, " row"], codes: dict[str, int]) -> Int64[np.ndarray, " row"]:
    """Return labels as numbers, which `codes` keeps and new labels are added to."""
    names, which = np.unique(label, return_inverse=True)
    for name in names.tolist():
        codes.setdefault(name, len(codes))
    return np.array([codes[name] for name in names.tolist()], np.int64)[which]
