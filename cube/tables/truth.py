"""Placed tables of ground truth in, labelled sequences (sample, time, band) out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float64, Int16, Int32, Int64, Shaped, UInt16
from odc.geo.crs import CRS

from cube.bands import NODATA
from cube.composite.median import median_composite
from cube.errors import InputError
from cube.ledger import digest, fingerprint
from cube.sample import SampleOptions, samples_dataset
from cube.spec import CubeSpec
from cube.store import decode
from cube.tables.calendar import Calendar
from cube.tables.groups import count_mixed, groups_of
from cube.tables.lattice import Extent, PlacedTable
from cube.tables.repeats import count_filled_down, count_into, is_spelled_otherwise
from cube.zarrstore import SCHEMA

_MOST_ROWS = 20_000_000
"""Rows of ground truth, which are held in memory: some 200 bytes each while they are sorted."""

_PIXELS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class TruthFacts:
    """What was found while samples were made."""

    samples: xr.Dataset
    """The samples, as `cube.samplestore` keeps them."""
    mixed_groups: int
    """Groups with pixels of several classes: points of different classes side by side."""
    disputed: int
    """Pixels that are left out because rows name different classes."""
    pixels_by_months: Counter[int]
    """How many pixels have data in so many months."""
    looks_by_month: Counter[int]
    """How many times a pixel has so many dates in a month."""
    months_with_data: tuple[bool, ...]
    """Of each month, whether any pixel has data."""
    repeated_next_date: int
    """Rows equal in every band to those of the pixel's date before."""
    by_file: dict[str, Counter[str]]
    """Counts of each table: rows kept, and dropped by reason."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rows:
    """Rows of all tables, one after the other."""

    file: Int32[np.ndarray, " row"]
    """Place of the table among the tables."""
    cell: Int64[np.ndarray, " row"]
    """Row of the grid * width + column."""
    day: Int32[np.ndarray, " row"]
    """Days since 1970."""
    label: Int32[np.ndarray, " row"]
    """Place of the class among all classes."""
    place: Float64[np.ndarray, "row 2"]
    """Longitude and latitude."""
    values: Int16[np.ndarray, "row band"]
    """Stored units, none without data."""

    def __len__(self) -> int:
        return int(self.cell.size)

    def take(self, at: Shaped[np.ndarray, " chosen"]) -> "_Rows":
        """Return the rows at `at` (places, or whether to take each)."""
        return _Rows(**{name: values[at] for name, values in vars(self).items()})


def make_samples(
    tables: Sequence[PlacedTable],
    *,
    crs: CRS,
    extent: Extent,
    bands: tuple[str, ...],
    calendar: Calendar,
    options: SampleOptions,
) -> TruthFacts:
    """Return the monthly sequences of all labelled pixels, on the grid of `extent`.

    A month's value is the exact median of the pixel's dates in it; NaN where there is none. Of
    several rows of a pixel and date the first in order of the tables counts (duplicates and
    contradictions are counted); a pixel that rows give different classes is left out. A group is
    what hangs together over edges or corners of pixels: the patch round one point, or of points
    side by side. Raises `InputError` for more rows than fit into memory, and if none is left.
    """
    classes = tuple(sorted({name for table in tables for name in table.spill.classes}))
    by_file = {table.spill.name: Counter[str]() for table in tables}
    counts = list(by_file.values())
    rows = _load(tables, extent, bands, calendar, classes, counts)
    if not len(rows):
        raise InputError(f"no row of {list(by_file)} has data in all bands and lies in the months")
    rows = rows.take(np.lexsort((rows.day, rows.cell)))  # stable: files stay in their order
    rows, disputed = _undisputed(rows, counts)
    rows = _single(rows, counts)
    if not len(rows):
        raise InputError("every labelled pixel is given several classes, so no sample is left")
    starts = np.flatnonzero(np.diff(rows.cell, prepend=-1) != 0)
    cell, label = rows.cell[starts], rows.label[starts]
    row, column = np.divmod(cell, extent.shape[1])
    member = groups_of(row, column)
    reflectance, clear_count = _monthly(rows, starts, calendar)
    has_data = clear_count > 0
    looks: Counter[int] = Counter()
    count_into(looks, clear_count[has_data])
    by_months: Counter[int] = Counter()
    count_into(by_months, has_data.sum(axis=1))
    spec = CubeSpec(geobox=extent.geobox(crs), periods=calendar.periods, bands=bands)
    names = np.array(classes)[label]
    dropped = sum((_dropped(one) for one in counts), Counter[str]())
    return TruthFacts(
        samples=samples_dataset(
            spec,
            reflectance=decode(reflectance),
            clear_count=clear_count,
            row=row,
            column=column,
            label=names,
            group=np.array([f"r{row[n]}c{column[n]}" for n in member.tolist()], dtype=str),
            options=options,
            attributes=_attributes(spec, reflectance, clear_count, names, dropped, options),
        ),
        mixed_groups=count_mixed(member, label),
        disputed=disputed,
        pixels_by_months=by_months,
        looks_by_month=looks,
        months_with_data=tuple(bool(month.any()) for month in has_data.T),
        repeated_next_date=_repeated_next_date(rows),
        by_file=by_file,
    )


def _load(
    tables: Sequence[PlacedTable],
    extent: Extent,
    bands: tuple[str, ...],
    calendar: Calendar,
    classes: tuple[str, ...],
    counts: list[Counter[str]],
) -> _Rows:
    """Return the rows of all tables that can be used; count the others."""
    if sum(table.spill.kept for table in tables) > _MOST_ROWS:
        raise InputError(
            f"the tables have more than {_MOST_ROWS:,} rows of ground truth; import them in parts"
        )
    code_of = {name: code for code, name in enumerate(classes)}
    parts: list[_Rows] = [_no_rows(len(bands))]
    for index, table in enumerate(tables):
        at = [list(table.spill.columns.bands).index(band) for band in bands]
        to_all = np.array([code_of[name] for name in table.spill.classes], np.int32)
        found: list[_Rows] = [_no_rows(len(bands))]
        for part, column, row in table.parts():
            is_used, dropped = calendar.usable(part, at)
            counts[index].update(dropped)
            cell = (extent.top - row).astype(np.int64) * extent.shape[1] + (column - extent.left)
            rows = _Rows(
                file=np.full(len(part), index, np.int32),
                cell=cell,
                day=part["day"],
                label=to_all[part["label"]],
                place=np.stack([part["lon"], part["lat"]], axis=1),
                values=part["values"][:, at],
            )
            found.append(rows.take(is_used))
        own = _joined(found)
        counts[index]["pixels"] = int(np.unique(own.cell).size)
        counts[index]["filled down"] = count_filled_down(own.cell, own.day, own.values)
        parts.append(own)
    return _joined(parts)


def _no_rows(bands: int) -> _Rows:
    return _Rows(
        file=np.empty(0, np.int32),
        cell=np.empty(0, np.int64),
        day=np.empty(0, np.int32),
        label=np.empty(0, np.int32),
        place=np.empty((0, 2)),
        values=np.empty((0, bands), np.int16),
    )


def _joined(parts: Sequence[_Rows]) -> _Rows:
    return _Rows(
        **{name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])}
    )


def _undisputed(rows: _Rows, counts: list[Counter[str]]) -> tuple[_Rows, int]:
    """Return the rows of pixels with one class, and how many pixels have several."""
    starts = np.flatnonzero(np.diff(rows.cell, prepend=-1) != 0)
    least, most = (extreme.reduceat(rows.label, starts) for extreme in (np.minimum, np.maximum))
    is_agreed = np.repeat(least == most, np.diff(starts, append=len(rows)))
    _count_files(counts, rows.file[~is_agreed], "of pixels with several classes")
    return rows.take(is_agreed), int((least != most).sum())


def _single(rows: _Rows, counts: list[Counter[str]]) -> _Rows:
    """Return the first row of each pixel and date; count the others."""
    is_new = (np.diff(rows.cell, prepend=-1) != 0) | (np.diff(rows.day, prepend=-1) != 0)
    first = np.flatnonzero(is_new)[np.cumsum(is_new) - 1]  # of each row's pixel and date
    is_same = (rows.values == rows.values[first]).all(axis=1)
    pixel = np.flatnonzero(np.diff(rows.cell, prepend=-1) != 0)
    opening = np.repeat(rows.place[pixel], np.diff(pixel, append=len(rows)), axis=0)
    for reason, is_so in (
        ("kept", is_new),
        ("duplicates", is_same & ~is_new),
        ("contradictions", ~is_same),
        ("spelled otherwise", is_spelled_otherwise(rows.place, opening)),
    ):
        _count_files(counts, rows.file[is_so], reason)
    return rows.take(is_new)


def _count_files(counts: list[Counter[str]], file: Int32[np.ndarray, " row"], reason: str) -> None:
    for one, number in zip(counts, np.bincount(file, minlength=len(counts)).tolist(), strict=True):
        one[reason] += number


def _monthly(
    rows: _Rows, starts: Int64[np.ndarray, " pixel"], calendar: Calendar
) -> tuple[Int16[np.ndarray, "pixel month band"], UInt16[np.ndarray, "pixel month"]]:
    """Return each pixel's median of every month, and the number of dates behind it."""
    months, bands = len(calendar.periods), rows.values.shape[1]
    ends = np.append(starts[1:], len(rows))
    reflectance = np.full((starts.size, months, bands), NODATA, np.int16)
    clear_count = np.zeros((starts.size, months), np.uint16)
    for first in range(0, starts.size, _PIXELS_AT_ONCE):
        chosen = slice(first, min(first + _PIXELS_AT_ONCE, starts.size))
        part = slice(int(starts[chosen][0]), int(ends[chosen][-1]))
        size = chosen.stop - chosen.start
        pixel = np.repeat(np.arange(size), (ends - starts)[chosen])
        month = calendar.month_of(rows.day[part].astype(np.int64))
        # rows come by pixel and day, so those of one pixel and month stand together
        slot = pixel * months + month
        begin = np.flatnonzero(np.diff(slot, prepend=-1) != 0)
        look = np.arange(slot.size) - np.repeat(begin, np.diff(begin, append=slot.size))
        looks = np.full((int(look.max()) + 1, bands, size, months), NODATA, np.int16)
        is_clear: Bool[np.ndarray, "look pixel month"] = np.zeros((len(looks), size, months), bool)
        looks[look, :, pixel, month] = rows.values[part]
        is_clear[look, pixel, month] = True
        median, count = median_composite(looks, is_clear)
        reflectance[chosen] = median.transpose(1, 2, 0)  # (pixel, month, band)
        clear_count[chosen] = count
    return reflectance, clear_count


def _repeated_next_date(rows: _Rows) -> int:
    is_repeated = (rows.values[1:] == rows.values[:-1]).all(axis=1)
    return int((is_repeated & (np.diff(rows.cell) == 0)).sum())


def _dropped(counts: Counter[str]) -> Counter[str]:
    facts = ("kept", "pixels", "filled down", "spelled otherwise")
    return Counter(
        {f"rows that are {reason}": n for reason, n in counts.items() if reason not in facts}
    )


def _attributes(
    spec: CubeSpec,
    reflectance: Int16[np.ndarray, "pixel month band"],
    clear_count: UInt16[np.ndarray, "pixel month"],
    names: Shaped[np.ndarray, " pixel"],
    dropped: Counter[str],
    options: SampleOptions,
) -> dict[str, Any]:
    """Return what samples say of themselves; their values stand for a cube they have not."""
    values = digest(reflectance, clear_count)
    return {
        "schema": SCHEMA,
        "kind": "samples",
        "cube": fingerprint({"spec": spec.to_json(), "tables": values, "labels": names.tolist()}),
        "bands": list(spec.bands),
        "periods": [str(period) for period in spec.periods],
        "dropped": {reason: count for reason, count in dropped.items() if count},
        "options": asdict(options),
        "grid": {"transform": list(spec.geobox.transform)[:6], "shape": list(spec.geobox.shape)},
    }
