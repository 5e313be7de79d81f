"""Files of labelled sequences in, `Observations` out, or the line where something is wrong."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped

from cube.bands import BANDS
from cube.errors import InputError
from cube.series.classes import one_each, refuse_blank, refuse_few_or_many, refuse_unlike
from cube.series.columns import (
    SeriesColumns,
    looks_like_series,
    recognise_series,
    value_columns,
)
from cube.series.counting import counts_rows
from cube.series.dates import days_of
from cube.series.names import known_band, listed
from cube.series.observations import Observations, joined
from cube.series.options import SeriesOptions
from cube.series.order import in_order
from cube.series.places import places_of, same_place
from cube.series.steps import step_days
from cube.series.table import Table, read_table, table_header
from cube.series.values import physical


def is_series_table(path: Path, options: SeriesOptions) -> bool:
    """Say whether a file holds labelled sequences, and no pixels of an Earth Engine export."""
    return looks_like_series(table_header(path), options)


def read_series(paths: Sequence[Path], options: SeriesOptions) -> Observations:
    """Read tables of series, long or wide; ids count within their file.

    Raises `InputError`, naming file and line, for tables that are damaged, lack a column, hold
    dates, values, labels or places that cannot be, or have fewer than two classes.
    """
    tables = joined([_read(path, options) for path in paths])
    if tables.label is not None and options.needs_labels:
        if len(paths) > 1:
            files = listed([path.name for path in paths], 80)
            different = sorted(set(tables.label.tolist()))
            refuse_unlike(different, options.label or "label", file=files)
        refuse_few_or_many(tables.label, file=paths[0].name)
    return _with_data(tables, paths[0].name)


def _with_data(tables: Observations, file: str) -> Observations:
    """Return the bands that have a value anywhere, Sentinel-2's first, in order of wavelength."""
    has_data = dict(zip(tables.bands, np.isfinite(tables.value).any(axis=0).tolist(), strict=True))
    kept = [band for band in (*BANDS, *tables.bands) if has_data.pop(band, False)]
    if not kept:
        raise InputError(f"{file!r} has no value in any of {', '.join(tables.bands)}")
    lost = [band for band in tables.bands if band not in kept]
    notes = (f"{', '.join(lost)} was left out: it has no value in any row",) if lost else ()
    return replace(
        tables,
        bands=tuple(kept),
        value=tables.value[:, [tables.bands.index(band) for band in kept]],
        notes=(*tables.notes, *notes),
    )


def _read(path: Path, options: SeriesOptions) -> Observations:
    columns = recognise_series(table_header(path), options, file=path.name)
    table = read_table(path, lambda header: columns.as_text)
    return (_wide if columns.wide is not None else _long)(table, columns, options)


def _long(table: Table, columns: SeriesColumns, options: SeriesOptions) -> Observations:
    assert columns.date is not None
    key, name = _keys(table, columns)
    day = days_of(table, columns.date)
    # a band with a word in it is no other column: whoever reads its numbers tells the word
    numeric = [n for n in columns.values if table.is_numeric(n) or known_band(n)]
    certain, possible = value_columns(columns.header, options, numeric, file=table.name)
    order = in_order(table, key, name, day, sorts=options.sorts, keeps=options.duplicates)
    row, series = order.row, order.series
    varying = [n for n in possible if _varies(table.numbers(n)[row], series)]
    counting = [n for n in varying if counts_rows(table.numbers(n))]
    varying = [n for n in varying if n not in counting]
    by_band = certain | {n: n for n in varying}
    if not by_band:
        raise InputError(
            f"{table.name!r} has no column of numbers that vary within a series; name those of "
            f"values with --bands. Found {listed(columns.header)!r}"
        )
    raw = np.column_stack([table.numbers(column) for column in by_band.values()])
    value, notes = physical(
        raw[row], tuple(by_band), options, lambda at: f"{table.name!r}, {table.at(int(row[at]))}"
    )
    if options.duplicates == "mean":
        value, series, row, day = order.averaged(value, day)
    else:
        day = day[row]
    if counting:
        named = ", ".join(repr(name[:40]) for name in counting)
        notes = (*notes, f"{named} numbers the rows, and was left out (--bands takes it)")
    used = {*columns.as_text, *columns.place, *by_band.values()}
    return _observations(
        table,
        columns,
        options,
        rows=row,
        series=series,
        day=day,
        value=value,
        bands=tuple(by_band),
        names=order.names,
        notes=(*order.notes, *notes),
        not_imported=tuple(n for n in columns.header if n not in used),
    )


def _wide(table: Table, columns: SeriesColumns, options: SeriesOptions) -> Observations:
    wide = columns.wide
    assert wide is not None
    rows = np.arange(table.data.num_rows)
    steps = wide.steps
    key, name = _keys(table, columns)
    order = in_order(table, key, name, rows * 0, sorts=False, keeps="refuse", is_wide=True)
    days = step_days(table, columns, options)[order.row]  # (series, step)
    raw = np.stack(
        [
            np.column_stack([table.numbers(column) for column in wide.columns[band]])
            for band in wide.columns
        ],
        axis=2,
    )  # (row, step, band)
    value, notes = physical(
        raw[order.row].reshape(len(rows) * steps, -1),
        tuple(wide.columns),
        options,
        lambda at: f"{table.name!r}, {table.at(int(order.row[at // steps]))}",
    )
    value_names = {name for names in wide.columns.values() for name in names}
    used = {*columns.as_text, *columns.place, *value_names}
    return _observations(
        table,
        columns,
        options,
        rows=np.repeat(order.row, steps),
        series=np.repeat(np.arange(len(rows)), steps),
        day=days.ravel(),
        value=value,
        bands=tuple(wide.columns),
        names=order.names,
        notes=notes,
        not_imported=tuple(n for n in columns.header if n not in used),
    )


def _observations(
    table: Table,
    columns: SeriesColumns,
    options: SeriesOptions,
    *,
    rows: Int64[np.ndarray, " row"],
    series: Int64[np.ndarray, " row"],
    day: Int64[np.ndarray, " row"],
    value: np.ndarray,
    bands: tuple[str, ...],
    names: Shaped[np.ndarray, " series"],
    notes: tuple[str, ...],
    not_imported: tuple[str, ...],
) -> Observations:
    """Attach what each series has once: class, place, group and region."""
    first = np.flatnonzero(np.diff(series, prepend=-1))
    begins = rows[first]

    def tell(one: int, other: int) -> str:
        lines = f"{table.row_word}s {begins_at(one)} and {begins_at(other)}"
        return f"{table.name!r}, {lines}: series {str(names[series[one]])[:40]!r}"

    def begins_at(at: int) -> str:
        return f"{int(rows[at]) + table.first:,}"

    def single(column: str | None, what: str) -> np.ndarray | None:
        if column is None:
            return None
        return one_each(table.text(column)[rows], series, first, what, tell)

    if columns.label is not None and options.needs_labels:
        where = lambda at: f"{table.name!r}, {table.at(at)}"  # noqa: E731
        raw = table.text(columns.label, is_trimmed=False)
        refuse_blank(raw, columns.label, where)
        refuse_unlike(sorted(set(raw.tolist())), columns.label, file=table.name)
        if columns.other_labels:
            others = ", ".join(columns.other_labels)
            notes = (*notes, f"{columns.label!r} is the class; {others} may be one too (--label)")
    lon = lat = None
    if columns.place:
        lon, lat = places_of(table, columns.place, begins, options.crs)
        if len(columns.place) == 2:
            slack = same_place(options.crs)
            for name in columns.place:
                numbers = table.numbers(name)[rows]
                near = np.abs(numbers - numbers[first][series]) <= slack
                one_each(
                    np.where(near, numbers[first][series], numbers), series, first, "places", tell
                )
    return Observations(
        bands=bands,
        id=names.astype(object),
        where=np.array([f"{table.name!r}, {table.at(int(row))}" for row in begins], dtype=object),
        label=single(columns.label, "labels"),
        group=single(columns.group, "groups"),
        region=single(columns.region, "regions"),
        lon=lon,
        lat=lat,
        series=series.astype(np.int64),
        day=day.astype(np.int64),
        value=value,
        notes=(*table.notes, *notes),
        not_imported=not_imported,
    )


def _keys(
    table: Table, columns: SeriesColumns
) -> tuple[Int64[np.ndarray, " row"], Shaped[np.ndarray, " key"]]:
    """Return the number of the series each row is of, and the names of those numbers."""
    if columns.id is None:
        count = table.data.num_rows
        return np.arange(count), np.array([str(n + table.first) for n in range(count)])
    ids = table.text(columns.id)
    if (blank := np.flatnonzero(ids == "")).size:
        raise InputError(
            f"{table.name!r}, {table.at(int(blank[0]))}: column {columns.id!r} is empty in "
            f"{blank.size:,} rows; every row needs the id of its series"
        )
    text = ids.astype(str)
    if columns.year is not None:
        text = np.char.add(np.char.add(text, " "), table.text(columns.year).astype(str))
    names, key = np.unique(text, return_inverse=True)
    return key.astype(np.int64), names


def _varies(value: np.ndarray, series: Int64[np.ndarray, " row"]) -> bool:
    """Say whether a column has two values within any series."""
    same = np.diff(series) == 0
    with np.errstate(invalid="ignore"):
        return bool((np.abs(np.diff(value))[same] > 0).any())
