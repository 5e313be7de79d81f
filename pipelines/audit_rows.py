"""Tables of labelled pixels and dates in, their rows as they are out: nothing repaired or left out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Float32, Float64, Int32, Int64, Shaped

from cube.bands import BANDS, SCALE
from cube.errors import InputError
from cube.tables.geojson import points_of
from cube.tables.read import PARQUET_SUFFIXES
from pipelines.audit_columns import RowColumns, row_columns, table_header

_MOST_ROWS = 20_000_000
_LONGEST = 300
"""Characters of a class or an id: every row takes as much memory as the longest."""
_COUNTS_FROM = 2.0
"""Median above which reflectance must be counts."""

_NO_VALUE = ("", "NaN", "nan", "NA", "null", "None")


@dataclass(frozen=True, kw_only=True, eq=False)
class PlainRows:
    """The labelled rows of one or more tables, in their order."""

    is_export: bool
    """Whether they have the form of Earth Engine's exports, which the reference workflow trains on."""
    values: Float32[np.ndarray, "row band"]
    """Counts times their scale, so physical units where they are no fill value; NaN where blank."""
    bands: tuple[str, ...]
    """Canonical names of Sentinel-2's bands, others as they are."""
    columns: Mapping[str, Float32[np.ndarray, " row"]]
    """Columns of indices and colours, as they are."""
    key: Shaped[np.ndarray, " row"]
    """What tells sequences apart: the text of the coordinates, or the id."""
    place: Float64[np.ndarray, "row 2"] | None
    """Longitude and latitude; None where a table has none."""
    day: Int32[np.ndarray, " row"]
    """Days since 1970."""
    label: Shaped[np.ndarray, " row"]
    """Class, text."""
    number: Shaped[np.ndarray, " row"]
    """Number of the row as text, with its file where there are several; a CSV's header is row 1."""

    def __len__(self) -> int:
        return len(self.day)


def read_plain_rows(files: Sequence[Path]) -> tuple[PlainRows, tuple[str, ...]]:
    """Return the rows of all tables that have labels, and the names of those that have none.

    A table is an Earth Engine export (bands, `image_date`, `.geo` or coordinates, `Class`) or
    labelled series (`id`, `date`, `label`, one column a band). Raises `InputError` for others, for
    tables of different columns, and where a value is no number or no date.
    """
    parts, unlabelled, first = [], [], None
    for file in files:
        header = table_header(file)
        columns = row_columns(header, file)
        if columns is None:
            unlabelled.append(file.name)
            continue
        first = first or (file.name, columns)
        if (columns.is_export, set(columns.bands)) != (first[1].is_export, set(first[1].bands)):
            raise InputError(
                f"{file.name!r} has other bands than {first[0]!r}: {', '.join(columns.bands)} "
                f"against {', '.join(first[1].bands)}; audit them one by one"
            )
        rows = _rows(_read(file, header, columns), columns, file)
        if len(files) > 1:
            rows = _named_after(file, rows)
        parts.append(rows)
    if not parts:
        raise InputError(
            f"{files[0].name!r} has no column Class or label; an audit needs labelled rows"
            if len(files) == 1
            else f"none of {len(files)} tables has a column Class or label"
        )
    whole = _joined(parts)
    if not len(whole):
        raise InputError(f"{files[0].name!r} has a header but no row; an audit needs labelled rows")
    return whole, tuple(unlabelled)


def _named_after(file: Path, rows: PlainRows) -> PlainRows:
    """Say in numbers and ids of which of several files they are: ids may come again in another."""
    named = replace(rows, number=np.char.add(rows.number, f" of {file.name}"))
    return (
        named if rows.is_export else replace(named, key=np.char.add(rows.key, f" of {file.name}"))
    )


def _read(file: Path, header: tuple[str, ...], columns: RowColumns) -> pa.Table:
    try:
        if file.suffix.lower() in PARQUET_SUFFIXES:
            _refuse_too_many(pyarrow.parquet.read_metadata(file).num_rows, file)
            table = pyarrow.parquet.read_table(file, columns=[*columns.texts, *columns.numbers])
        else:
            types = dict.fromkeys(columns.texts, pa.string())
            types |= dict.fromkeys(columns.numbers, pa.float64())
            reader = pyarrow.csv.open_csv(
                file,
                read_options=pyarrow.csv.ReadOptions(column_names=list(header), skip_rows=1),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=types,
                    include_columns=[*columns.texts, *columns.numbers],
                    null_values=list(_NO_VALUE),
                ),
            )
            table = pa.Table.from_batches(_counted(reader, file), reader.schema)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file.name!r} cannot be read: {str(error)[:160]}") from error
    return table


def _counted(reader: pyarrow.csv.CSVStreamingReader, file: Path) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a table, and end where they become too many."""
    count = 0
    for batch in reader:
        count += len(batch)
        _refuse_too_many(count, file)
        yield batch


def _refuse_too_many(count: int, file: Path) -> None:
    if count > _MOST_ROWS:
        raise InputError(f"{file.name!r} has more than {_MOST_ROWS:,} rows; audit it in parts")


def _rows(table: pa.Table, columns: RowColumns, file: Path) -> PlainRows:
    def numbers(name: str) -> np.ndarray:
        try:
            values = table[name].cast(pa.float64()).fill_null(np.nan)
        except pa.ArrowException as error:
            raise InputError(
                f"{file.name!r}: column {name!r} holds {table[name].type}, no numbers"
            ) from error
        return np.asarray(values.to_numpy())

    def text(name: str) -> pa.Array:
        words = table[name].cast(pa.string()).combine_chunks().fill_null("")
        length = pc.utf8_length(words)
        if len(words) and (longest := pc.max(length).as_py()) > _LONGEST:
            row = _row_number(file, int(pc.index(length, longest).as_py()))
            raise InputError(
                f"{file.name!r}, row {row}: {name} has {longest:,} characters; {_LONGEST} are the most"
            )
        return words

    label = np.array([word.strip() for word in text(columns.label).to_pylist()], dtype=str)
    if (is_blank := label == "").any():
        row = _row_number(file, int(is_blank.argmax()))
        raise InputError(f"{file.name!r}, row {row} has no {columns.label}; give every row a class")
    key = np.array(
        [" ".join(parts) for parts in zip(*(text(name).to_pylist() for name in columns.key), strict=True)],
        dtype=str,
    )  # fmt: skip
    if (is_blank := np.char.strip(key) == "").any():
        row = _row_number(file, int(is_blank.argmax()))
        raise InputError(
            f"{file.name!r}, row {row} has no {columns.key[0]}; rows without one would "
            "become one sequence"
        )
    bands = np.stack([numbers(name) for name in columns.bands.values()], axis=1)
    scale = _scales(bands, tuple(columns.bands), is_export=columns.is_export)
    return PlainRows(
        is_export=columns.is_export,
        values=(bands * scale).astype(np.float32),
        bands=tuple(columns.bands),
        columns={
            name: numbers(column).astype(np.float32) for name, column in columns.others.items()
        },
        key=key,
        place=_places(table, columns, file),
        day=_days(text(columns.date), columns.date, file),
        label=label,
        number=np.array([str(_row_number(file, at)) for at in range(len(table))], dtype=str),
    )


def _row_number(file: Path, at: int) -> int:
    """Return the number of the row of data `at`: the header of a CSV is row 1, Parquet has none."""
    return at + (1 if file.suffix.lower() in PARQUET_SUFFIXES else 2)


def _scales(
    values: Float64[np.ndarray, "row band"], bands: tuple[str, ...], *, is_export: bool
) -> Float64[np.ndarray, " band"]:
    """Return the physical value of one count of each band; 1 where values are physical already."""
    is_known = np.array([band in BANDS for band in bands])
    reflectance = values[:, [band in BANDS and BANDS[band].has_offset for band in bands]]
    real = reflectance[np.isfinite(reflectance) & (reflectance > 0) & (reflectance != 65535)]
    is_counts = bool(real.size and np.median(real) > _COUNTS_FROM) or (is_export and not real.size)
    factors = [BANDS[band].stored_per_count * SCALE if band in BANDS else 1.0 for band in bands]
    return np.where(is_known & is_counts, factors, 1.0)


def _places(
    table: pa.Table, columns: RowColumns, file: Path
) -> Float64[np.ndarray, "row 2"] | None:
    if not columns.place:
        return None
    if len(columns.place) == 1:
        lon, lat = points_of(table[columns.place[0]].cast(pa.string()).combine_chunks())
    else:
        try:
            lon, lat = (
                np.asarray(table[name].cast(pa.float64()).fill_null(np.nan).to_numpy())
                for name in columns.place
            )
        except pa.ArrowException as error:
            raise InputError(
                f"{file.name!r}: coordinates are no numbers: {str(error)[:120]}"
            ) from error
    is_wrong = ~((np.abs(lon) <= 180) & (np.abs(lat) <= 90))
    if is_wrong.any():
        row = _row_number(file, int(is_wrong.argmax()))
        raise InputError(f"{file.name!r}, row {row}: coordinates are no longitude and latitude")
    return np.stack([lon, lat], axis=1)


def _days(text: pa.Array, name: str, file: Path) -> Int32[np.ndarray, " row"]:
    days = pc.utf8_slice_codeunits(text, 0, 10)
    try:
        return np.asarray(days.cast(pa.date32()).cast(pa.int32()).to_numpy())
    except pa.ArrowException as error:
        raise InputError(
            f"{file.name!r}: column {name!r} holds what is no date: {str(error)[:100]}; expected "
            "YYYY-MM-DD"
        ) from error


def _joined(parts: list[PlainRows]) -> PlainRows:
    """Return all rows, one table after the other; bands in the order of the first."""
    first = parts[0]
    if len(parts) == 1:
        return first
    orders = [[part.bands.index(band) for band in first.bands] for part in parts]
    whole: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("key", "day", "label", "number")
    }
    shared = [name for name in first.columns if all(name in part.columns for part in parts)]
    places = [part.place for part in parts if part.place is not None]
    return PlainRows(
        is_export=first.is_export,
        bands=first.bands,
        values=np.concatenate(
            [part.values[:, order] for part, order in zip(parts, orders, strict=True)]
        ),
        columns={name: np.concatenate([part.columns[name] for part in parts]) for name in shared},
        place=np.concatenate(places) if len(places) == len(parts) else None,
        **whole,
    )


def order_by_date(
    rows: PlainRows,
) -> tuple[Int64[np.ndarray, " row"], Int64[np.ndarray, " row"]]:
    """Return the order of the rows by sequence and date, and of each row in it its sequence.

    A sequence is the rows of one key and one class. Equal dates stay in the order of the table.
    """
    names = np.char.add(np.char.add(rows.key, "\x1f"), rows.label)
    number = np.unique(names, return_inverse=True)[1].astype(np.int64)
    order = np.lexsort((rows.day, number))
    return order.astype(np.int64), number[order]
