"""Columns of a table in, rows of pixels out: place, day, label and values in stored units."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64, Int16, Int32, Int64, Num, Shaped

from cube.bands import BANDS, NODATA, SCALE, STORED_MAX
from cube.errors import InputError
from cube.tables.columns import TableColumns
from cube.tables.geojson import points_of, refuse_no_place
from cube.tables.indices import IndexCheck

MASKED = -999
"""What the exports write where a pixel is masked."""

_LARGEST_COUNT = 65535
_LARGEST_REFLECTANCE = 4.0
_LONGEST_CLASS = 100
"""Characters; text that is longer names no class, and every row would need room for it."""

_FIRST_DAY = "2015-06-23"
"""On which the first of the satellites went up."""

_LAST_DAY = "2099-12-31"

BRIGHT_BLUE = round(0.25 / SCALE)
"""Stored blue above which a forest's pixel is cloud or snow."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TableRows:
    """Consecutive rows of a table that have data in some band."""

    lon: Float64[np.ndarray, " row"]
    """Longitude in degrees."""
    lat: Float64[np.ndarray, " row"]
    """Latitude in degrees."""
    day: Int32[np.ndarray, " row"]
    """Days since 1970 of the acquisition."""
    label: Shaped[np.ndarray, " row"]
    """Class of the pixel, text; "" in a table of patches."""
    values: Int16[np.ndarray, "row band"]
    """Stored units of 1e-4, `NODATA` where masked."""
    number: Int64[np.ndarray, " row"]
    """Number of the row in its file: the header of a CSV is row 1; Parquet has none, so there the
    first row of data is."""
    read: int
    """Rows that were read for these."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Rows without data, by reason."""
    facts: Counter[str] = field(default_factory=Counter)
    """What else was counted: `bright`, `rounded`, `outside`, `clipped`, and rows without data by
    band."""
    indices: Mapping[str, IndexCheck] = field(default_factory=dict)
    """How far columns of indices are from those of the bands, where that was looked at."""

    def __len__(self) -> int:
        return int(self.lon.size)


def rows_of(
    table: pa.RecordBatch,
    columns: TableColumns,
    *,
    file: str,
    numbers: Int64[np.ndarray, " row"],
    scale: float | None,
) -> TableRows:
    """Return the rows of one part of a table.

    A value of -999, NaN or none at all is missing; so is one outside 0..65535, which is counted.
    Counts become stored units: reflectance by `scale` (its value of one count, 1e-4 by default),
    aerosol and water vapour as products have them. Rows without any data are dropped and counted.
    Raises `InputError`, with file and row, for coordinates that are no place, a blank date or
    class, a day on which there was no Sentinel-2, a class of more than 100 characters, and for
    values that look like reflectance where counts are expected.
    """
    lon, lat = _places(table, columns, file, numbers)
    day = _days(table, columns, file, numbers)
    label = _labels(table, columns, file, numbers)
    facts: Counter[str] = Counter()
    values = np.empty((len(table), len(columns.bands)), np.int16)
    for at, (band, name) in enumerate(columns.bands.items()):
        counts = _counts(table[name])
        _refuse_reflectance(counts, band, scale, file, numbers)
        values[:, at] = _stored(counts, band, scale, facts)
    is_seen = values != NODATA
    has_some = is_seen.any(axis=1)
    is_zero = (values == 0).all(axis=1)
    has_some &= ~is_zero  # a product's own nodata is 0
    for at, band in enumerate(columns.bands):
        facts[f"missing {band}"] += int((has_some & ~is_seen[:, at]).sum())
    if "B02" in columns.bands:
        blue = values[:, list(columns.bands).index("B02")]
        facts["bright"] += int((has_some & (blue > BRIGHT_BLUE)).sum())
    dropped = Counter(
        {
            "masked in every band": int((~has_some & ~is_zero).sum()),
            "zero in every band": int(is_zero.sum()),
        }
    )
    kept = slice(None) if has_some.all() else has_some  # a slice copies nothing
    return TableRows(
        lon=lon[kept],
        lat=lat[kept],
        day=day[kept],
        label=label[kept],
        values=values[kept],
        number=numbers[kept],
        read=len(table),
        dropped=dropped,
        facts=facts,
    )


def _places(
    table: pa.RecordBatch, columns: TableColumns, file: str, numbers: Int64[np.ndarray, " row"]
) -> tuple[Float64[np.ndarray, " row"], Float64[np.ndarray, " row"]]:
    if columns.is_raw:
        lon, lat = points_of(table[columns.point[0]])
    else:
        lon, lat = (
            np.array(table[name].fill_null(np.nan).to_numpy(zero_copy_only=False), np.float64)
            for name in columns.point
        )
    texts = [table[name] for name in columns.point]
    refuse_no_place(lon, lat, texts, file=file, numbers=numbers)
    return lon, lat


def _days(
    table: pa.RecordBatch, columns: TableColumns, file: str, numbers: Int64[np.ndarray, " row"]
) -> Int32[np.ndarray, " row"]:
    dates = table[columns.date]
    if dates.null_count:
        row = int(numbers[np.flatnonzero(np.asarray(dates.is_null()))[0]])
        raise InputError(f"{file!r}, row {row} has no {columns.date}; expected YYYY-MM-DD")
    days = np.asarray(dates.cast(pa.int32()))
    first, last = (np.datetime64(day, "D").astype(np.int32) for day in (_FIRST_DAY, _LAST_DAY))
    if (is_wrong := (days < first) | (days > last)).any():
        at = int(np.argmax(is_wrong))
        raise InputError(
            f"{file!r}, row {numbers[at]}: {columns.date} = {np.datetime64(int(days[at]), 'D')}; "
            f"Sentinel-2 has looked since {_FIRST_DAY}, so the day is wrong"
        )
    return days


def _labels(
    table: pa.RecordBatch, columns: TableColumns, file: str, numbers: Int64[np.ndarray, " row"]
) -> Shaped[np.ndarray, " row"]:
    if columns.label is None:
        return np.full(len(table), "")
    coded = table[columns.label].dictionary_encode()
    texts = [(name or "").strip() for name in coded.dictionary.to_pylist()] + [""]
    if long := [at for at, name in enumerate(texts) if len(name) > _LONGEST_CLASS]:
        row = int(numbers[np.argmax(np.isin(np.asarray(coded.indices.fill_null(-1)), long))])
        raise InputError(
            f"{file!r}, row {row}: {columns.label} = {texts[long[0]][:40]!r}… has "
            f"{len(texts[long[0]]):,} characters; a class has at most {_LONGEST_CLASS}"
        )
    names = np.array(texts)
    label: np.ndarray = names[np.asarray(coded.indices.fill_null(len(names) - 1))]
    if (is_blank := label == "").any():
        row = int(numbers[np.argmax(is_blank)])
        raise InputError(
            f"{file!r}, row {row} has no {columns.label}; a table of ground truth "
            "needs one in every row"
        )
    return label


def _counts(column: pa.Array) -> Num[np.ndarray, " row"]:
    """Return a column as numbers, `MASKED` where it has none; infinite ones are outside."""
    counts = np.asarray(column.fill_null(MASKED))
    if counts.dtype.kind == "f":
        counts = np.where(np.isnan(counts), MASKED, counts)
    return counts


def _stored(
    counts: Num[np.ndarray, " row"], band: str, scale: float | None, facts: Counter[str]
) -> Int16[np.ndarray, " row"]:
    """Return counts as stored units, counting what had to be changed."""
    is_masked = counts == MASKED
    properties = BANDS[band]
    factor: float = properties.stored_per_count
    most: float = _LARGEST_COUNT
    if scale is not None and properties.has_offset:
        factor, most = scale / SCALE, _LARGEST_COUNT * SCALE / scale
    is_outside = ~is_masked & ((counts < 0) | (counts > most))
    units = np.where(is_masked | is_outside, 0, counts) * factor
    if units.dtype.kind == "f":
        whole = np.rint(units)
        if scale is None:
            facts["rounded"] += int((whole != units).sum())
        units = whole
    facts["outside"] += int(is_outside.sum())
    facts["clipped"] += int((units > STORED_MAX).sum())
    stored = np.minimum(units, STORED_MAX).astype(np.int16)
    stored[is_masked | is_outside] = NODATA
    return stored


def _refuse_reflectance(
    counts: Num[np.ndarray, " row"],
    band: str,
    scale: float | None,
    file: str,
    numbers: Int64[np.ndarray, " row"],
) -> None:
    """Refuse what is no count: broken numbers that are all small are physical values."""
    if counts.dtype.kind != "f" or (scale is not None and BANDS[band].has_offset):
        return
    is_number = np.isfinite(counts) & (counts != MASKED)
    is_broken: Bool[np.ndarray, " row"] = is_number & (counts != np.rint(counts))
    is_data = is_number & (counts != 0)
    most = counts.max(initial=0, where=is_number)
    if is_broken.sum() * 2 <= is_data.sum() or most > _LARGEST_REFLECTANCE:
        return
    row = int(np.argmax(is_broken))
    raise InputError(
        f"{file!r}, row {numbers[row]}: {band} = {counts[row]:g} looks like "
        + (
            "reflectance 0..1, where counts 0..10000 are expected; give --scale 1"
            if BANDS[band].has_offset
            else "a physical value; expected are counts of 0.001, as products have them"
        )
    )
