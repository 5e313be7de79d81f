"""Tables of labelled pixels and dates in, their rows as they are out: nothing repaired or left out."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Float64, Int32

from cube.errors import InputError
from cube.series import SeriesOptions
from cube.tables.geojson import points_of
from cube.tables.read import PARQUET_SUFFIXES
from pipelines.audit_columns import RowColumns, has_usual_columns, row_columns, table_header
from pipelines.audit_series import is_series, series_rows
from pipelines.plain_rows import PlainRows, count_scales, joined_rows

_MOST_ROWS = 20_000_000
_LONGEST = 300
"""Characters of a class or an id: every row takes as much memory as the longest."""
_NO_VALUE = ("", "NaN", "nan", "NA", "null", "None")


def read_plain_rows(
    files: Sequence[Path], options: SeriesOptions | None = None
) -> tuple[PlainRows, tuple[str, ...]]:
    """Return the rows of all tables that have labels, and the names of those that have none.

    A table is an Earth Engine export (bands, `image_date`, `.geo` or coordinates, `Class`) or
    labelled series as `import-table` reads them, with what `options` say of them. Raises
    `InputError` for others, for tables of different columns, and where a value is no number or no
    date.
    """
    parts: list[PlainRows] = []
    unlabelled, first = [], None
    for file in files:
        rows = _labelled(file, options)
        if rows is None:
            unlabelled.append(file.name)
            continue
        first = first or (file.name, rows)
        if (rows.is_export, set(rows.bands)) != (first[1].is_export, set(first[1].bands)):
            raise InputError(
                f"{file.name!r} has other bands than {first[0]!r}: {', '.join(rows.bands)} "
                f"against {', '.join(first[1].bands)}; audit them one by one"
            )
        if len(files) > 1:
            rows = _named_after(file, rows)
        parts.append(rows)
    if not parts:
        raise InputError(
            f"{files[0].name!r} has no column Class or label; an audit needs labelled rows. If "
            "another column is the class, name it with --label"
            if len(files) == 1
            else f"none of {len(files)} tables has a column Class or label"
        )
    whole = joined_rows(parts)
    if not len(whole):
        raise InputError(f"{files[0].name!r} has a header but no row; an audit needs labelled rows")
    return whole, tuple(unlabelled)


def _labelled(file: Path, options: SeriesOptions | None) -> PlainRows | None:
    """Return the rows of a table; None if they have no labels."""
    header = table_header(file)
    if options is not None and options != SeriesOptions():
        if not is_series(header, options, file):
            raise InputError(
                f"{file.name!r} is an export of pixels, which is audited as it is; options of "
                "tables of series say nothing of it, leave them out"
            )
        return series_rows(file, options)
    if not has_usual_columns(header) and is_series(header, SeriesOptions(), file):
        return series_rows(file, SeriesOptions())
    columns = row_columns(header, file)
    return None if columns is None else _rows(_read(file, header, columns), columns, file)


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

    written = np.array(text(columns.label).to_pylist(), dtype=str)
    label = np.char.strip(written)
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
    scale = count_scales(bands, tuple(columns.bands), is_export=columns.is_export)
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
        written=written,
        number=np.array([str(_row_number(file, at)) for at in range(len(table))], dtype=str),
    )


def _row_number(file: Path, at: int) -> int:
    """Return the number of the row of data `at`: the header of a CSV is row 1, Parquet has none."""
    return at + (1 if file.suffix.lower() in PARQUET_SUFFIXES else 2)


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
