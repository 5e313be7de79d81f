"""Placed tables of patches in, a dated stack out: a Zarr store (time, y, x) for each band."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import zarr
from jaxtyping import Bool, Int16, Int32, Int64
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from cube.bands import BANDS, NODATA, SCALE
from cube.errors import InputError
from cube.periods import stored_times
from cube.tables.calendar import Calendar
from cube.tables.lattice import Extent, PlacedTable, joined
from cube.tables.repeats import count_filled_down, count_into, is_spelled_otherwise
from cube.tables.scratch import Scratch
from cube.zarrstore import SCHEMA, StoredVariable, create_store, stored_array

_CHUNK = 512
"""Edge of a stored chunk: a tile of the usual size reads one of each date and band."""

_WRITTEN_AT_ONCE = 64 * 2**20

_SCALES = dict.fromkeys(BANDS, SCALE) | {"WVP": 1e-3}
"""Physical value of one stored unit, in the units that stacks are read with: water vapour in cm."""

_UNITS = {"WVP": "cm"}

_Records: TypeAlias = tuple[
    Int64[np.ndarray, " _"], Int32[np.ndarray, " _"], Int16[np.ndarray, "_ band"]
]
"""Pixels, days and values."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StackFacts:
    """What was found while a stack was made."""

    geobox: GeoBox
    """Its grid."""
    days: tuple[int, ...]
    """Days since 1970 of its dates, ascending."""
    pixels: int
    """Pixels with data at any date."""
    missed: int
    """Pixels without data between two of a row or column that have some: no sample fell there."""
    pixels_by_months: Counter[int]
    """How many pixels have data in so many months."""
    looks_by_month: Counter[int]
    """How many times a pixel has so many dates in a month."""
    months_with_data: tuple[bool, ...]
    """Of each month, whether any pixel has data."""
    repeated_next_date: int
    """Values equal in every band to those of the pixel's date before."""
    by_file: dict[str, Counter[str]]
    """Counts of each table: records written, and dropped by reason."""


def write_stack(
    path: Path,
    tables: Sequence[PlacedTable],
    *,
    crs: CRS,
    bands: tuple[str, ...],
    calendar: Calendar,
    scratch: Path,
) -> StackFacts:
    """Put the records of all tables on one grid; write the stack to `path`.

    Of several records of a pixel and date the first in order of the tables counts; the others are
    duplicates if they have its values and contradictions if not, both counted. Records without
    data in one of `bands`, or outside the calendar, have no place in it. Nothing is shifted,
    filled or averaged. Raises `InputError` if no record has a place, or `path` cannot be written,
    and `WorkFailedError` if the disk is full.
    """
    extent = joined([table.extent for table in tables])
    every = sorted(set().union(*(table.spill.days for table in tables)))
    days = tuple(day for day in every if calendar.first <= day < calendar.end)
    if not days:
        raise InputError(
            f"no table of patches has a date in {calendar.periods[0]} to {calendar.periods[-1]}"
        )
    height, width = extent.shape
    filled = Scratch(scratch, (len(days), height, width, len(bands)))
    by_file = {
        table.spill.name: _fill(filled, table, extent, np.array(days, np.int64), bands, calendar)
        for table in tables
    }
    if not any(counts["kept"] for counts in by_file.values()):
        raise InputError("no row of the patches has data in all bands, so there is no stack")
    return _write(path, filled, extent.geobox(crs), days, bands, calendar, by_file)


def _fill(
    filled: Scratch,
    table: PlacedTable,
    extent: Extent,
    days: Int64[np.ndarray, " day"],
    bands: tuple[str, ...],
    calendar: Calendar,
) -> Counter[str]:
    """Write one table's records; count what became of them."""
    found: Counter[str] = Counter()
    at = [list(table.spill.columns.bands).index(band) for band in bands]
    before: _Records | None = None
    seen = np.zeros(table.extent.shape, bool)
    for part, column, row in table.parts():
        is_used, dropped = calendar.usable(part, at)
        found.update(dropped)
        if not is_used.any():
            continue
        if not is_used.all():
            part, column, row = part[is_used], column[is_used], row[is_used]
        seen[table.extent.top - row, column - table.extent.left] = True
        pixel = (extent.top - row).astype(np.int64) * extent.shape[1] + (column - extent.left)
        slot = np.searchsorted(days, part["day"]) * extent.shape[0] * extent.shape[1] + pixel
        values = part["values"][:, at]
        filled.reserve(slot, pixel)
        found.update(_put(filled, slot, values))
        found["spelled otherwise"] += _spelled_otherwise(filled, pixel, part)
        here = pixel, part["day"], values
        joined_rows = here if before is None else _after(before, here)
        found["filled down"] += count_filled_down(*joined_rows)
        before = pixel[-1:], part["day"][-1:], values[-1:]
    found["pixels"] = int(seen.sum())
    return found


def _after(before: _Records, here: _Records) -> _Records:
    """Return records with the last one of the part before in front of them."""
    pixel, day, values = (np.concatenate(pair) for pair in zip(before, here, strict=True))
    return pixel, day, values


def _put(
    filled: Scratch, slot: Int64[np.ndarray, " row"], values: Int16[np.ndarray, "row band"]
) -> Counter[str]:
    """Write values into slots that are empty; count new ones, duplicates and contradictions."""
    stored = filled.values()
    order = np.argsort(slot, kind="stable")
    firsts = order[np.diff(slot[order], prepend=-1) != 0]
    is_new = stored[slot[firsts], 0] == 0
    new = firsts[is_new]
    coded = values ^ np.int16(NODATA)
    stored[slot[new]] = coded[new]
    is_later = np.ones(slot.size, bool)
    is_later[new] = False
    later = np.flatnonzero(is_later)
    same = int((stored[slot[later]] == coded[later]).all(axis=1).sum())
    return Counter({"kept": new.size, "duplicates": same, "contradictions": later.size - same})


def _spelled_otherwise(filled: Scratch, pixel: Int64[np.ndarray, " row"], part: np.ndarray) -> int:
    """Count records whose coordinates differ by rounding only from their pixel's first ones."""
    places = filled.places()
    here = np.stack([part["lon"], part["lat"]], axis=1)
    is_first = (places[pixel] == 0).all(axis=1)
    # backwards, so that of several the first stays
    places[pixel[is_first][::-1]] = here[is_first][::-1]
    return int(is_spelled_otherwise(here, places[pixel]).sum())


def _write(
    path: Path,
    filled: Scratch,
    geobox: GeoBox,
    days: tuple[int, ...],
    bands: tuple[str, ...],
    calendar: Calendar,
    by_file: dict[str, Counter[str]],
) -> StackFacts:
    """Write the filled stack band by band, and look at each pixel's dates on the way."""
    group = _allocate(path, geobox, days, bands)
    height, width = geobox.shape
    months = calendar.month_of(np.array(days, np.int64)).tolist()
    seen = _Series(len(calendar.periods), (height, width))
    for rows, columns in _windows(height, width):
        seen.begin((rows.stop - rows.start, columns.stop - columns.start, len(bands)))
        for dates in _batches(len(days), seen.window_bytes):
            layers = filled.layers(dates, rows, columns)
            for layer, month in zip(layers, months[dates], strict=True):
                seen.add(layer, month)
            for index, band in enumerate(bands):
                stored_array(group, band)[dates, rows, columns] = layers[..., index]
        seen.end(rows, columns)
    return StackFacts(
        geobox=geobox,
        days=days,
        pixels=int(seen.is_covered.sum()),
        missed=_missed(seen.is_covered),
        pixels_by_months=seen.pixels_by_months,
        looks_by_month=seen.looks_by_month,
        months_with_data=tuple(bool(one) for one in seen.has_data),
        repeated_next_date=seen.repeated,
        by_file=by_file,
    )


def _missed(is_covered: Bool[np.ndarray, "y x"]) -> int:
    """Count pixels that are not covered, but both neighbours in their row or column are."""
    count = 0
    for row in range(len(is_covered)):
        here = is_covered[row]
        is_between = np.zeros(here.size, bool)
        is_between[1:-1] = here[:-2] & here[2:]
        if 0 < row < len(is_covered) - 1:
            is_between |= is_covered[row - 1] & is_covered[row + 1]
        count += int((is_between & ~here).sum())
    return count


def _windows(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Yield rows and columns of whole chunks, a row of four at a time: 60 MB with fourteen bands."""
    wide = 4 * _CHUNK
    for top in range(0, height, _CHUNK):
        for left in range(0, width, wide):
            yield slice(top, min(top + _CHUNK, height)), slice(left, min(left + wide, width))


def _batches(dates: int, layer_bytes: int) -> Iterator[slice]:
    """Yield dates that are written together: a call of Zarr costs more than a small chunk."""
    step = max(1, _WRITTEN_AT_ONCE // layer_bytes)
    for first in range(0, dates, step):
        yield slice(first, min(first + step, dates))


def _allocate(
    path: Path, geobox: GeoBox, days: tuple[int, ...], bands: tuple[str, ...]
) -> zarr.Group:
    times, attributes = stored_times([np.datetime64(day, "D") for day in days])
    variables = {
        band: StoredVariable(
            dims=("time", "y", "x"),
            shape=(len(days), *geobox.shape),
            dtype="int16",
            fill_value=NODATA,
            chunks=(1, _CHUNK, _CHUNK),
            attributes={
                "scale_factor": _SCALES[band],
                "add_offset": 0.0,
                "units": _UNITS.get(band, "1"),
            },
        )
        for band in bands
    }
    create_store(
        path,
        geobox=geobox,
        variables=variables,
        coordinates={"time": ("time", times, {"standard_name": "time", **attributes})},
        attributes={"canopycube": {"schema": SCHEMA, "kind": "scenes", "bands": list(bands)}},
        zarr_format=3,
    )
    return zarr.open_group(path, mode="r+")


class _Series:
    """What is counted of each pixel's dates while they pass by, window by window."""

    def __init__(self, months: int, shape: tuple[int, int]) -> None:
        self.has_data = np.zeros(months, bool)
        self.is_covered = np.zeros(shape, bool)
        self.repeated = 0
        self.pixels_by_months: Counter[int] = Counter()
        self.looks_by_month: Counter[int] = Counter()

    def begin(self, shape: tuple[int, int, int]) -> None:
        """Begin a window of (y, x, band)."""
        self._last = np.full(shape, NODATA, np.int16)
        self._looks = np.zeros((len(self.has_data), *shape[:2]), np.uint8)

    @property
    def window_bytes(self) -> int:
        """Size of one date of the window."""
        return self._last.nbytes

    def add(self, block: Int16[np.ndarray, "y x band"], month: int) -> None:
        """Take the next date of the window in."""
        is_seen = block[..., 0] != NODATA
        # one band tells nearly all apart, and is compared ten times as fast as all are
        likely = is_seen & (block[..., 0] == self._last[..., 0])
        self.repeated += int((block[likely] == self._last[likely]).all(axis=1).sum())
        self._last[is_seen] = block[is_seen]
        self._looks[month] += is_seen

    def end(self, rows: slice, columns: slice) -> None:
        """Count the window, which covers these parts of the grid."""
        months = (self._looks > 0).sum(axis=0)
        self.has_data |= self._looks.any(axis=(1, 2))
        self.is_covered[rows, columns] = months > 0
        count_into(self.pixels_by_months, months[months > 0])
        count_into(self.looks_by_month, self._looks[self._looks > 0])
