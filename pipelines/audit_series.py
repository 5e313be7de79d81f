"""A table of labelled series in, long or wide, its rows as an audit reads them out: nothing repaired."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from cube.bands import BANDS
from cube.errors import InputError
from cube.series import SeriesOptions
from cube.series.classes import refuse_blank
from cube.series.columns import (
    SeriesColumns,
    looks_like_series,
    recognise_series,
    value_columns,
)
from cube.series.dates import days_of
from cube.series.names import RADAR, known_band
from cube.series.places import places_of
from cube.series.steps import step_days
from cube.series.table import Table, read_table, table_header
from cube.series.values import FILL_VALUES
from pipelines.plain_rows import PlainRows, count_scales


def is_series(header: tuple[str, ...], options: SeriesOptions, file: Path) -> bool:
    """Say whether a table is one of series, with what is said of it; `InputError` if it lacks a part."""
    if not looks_like_series(header, options):
        return False
    recognise_series(header, replace(options, needs_labels=False), file=file.name)
    return True


def series_rows(file: Path, options: SeriesOptions) -> PlainRows | None:
    """Return the rows of a table of series, or the steps of a wide one; None without labels.

    Values that `options.nodata` names are NaN, with `finds_nodata` the usual ones too; others stay, for the audit to tell. Raises
    `InputError` for a damaged table, and where a value is no number, no date or no place.
    """
    columns = recognise_series(
        table_header(file), replace(options, needs_labels=False), file=file.name
    )
    if columns.label is None:
        return None
    table = read_table(file, lambda _: columns.as_text)
    values, bands, row, day = (_long if columns.wide is None else _wide)(table, columns, options)
    written = table.text(columns.label, is_trimmed=False).astype(str)
    refuse_blank(written, columns.label, lambda at: f"{table.name!r}, {table.at(at)}")
    place = None
    if columns.place:
        every = np.arange(table.data.num_rows)
        place = np.column_stack(places_of(table, columns.place, every, options.crs))[row]
    lost = (*options.nodata, *(FILL_VALUES if options.finds_nodata else ()))
    values = np.where(np.isin(values, lost), np.nan, values)
    return PlainRows(
        is_export=False,
        values=(values * _scales(values, bands, options.scale)).astype(np.float32),
        bands=bands,
        columns={},
        key=_keys(table, columns)[row],
        place=place,
        day=day.astype(np.int32),
        label=np.char.strip(written)[row],
        written=written[row],
        number=(row + table.first).astype(str),
    )


_Read = tuple[
    Float64[np.ndarray, "row band"], tuple[str, ...], Int64[np.ndarray, " row"], np.ndarray
]
"""Values, their bands, the row of the table that each is of, and its day."""


def _long(table: Table, columns: SeriesColumns, options: SeriesOptions) -> _Read:
    assert columns.date is not None  # else the table is wide
    numeric = [name for name in columns.values if table.is_numeric(name) or known_band(name)]
    certain, possible = value_columns(columns.header, options, numeric, file=table.name)
    by_band = certain or {name: name for name in possible}
    if not by_band:
        raise InputError(
            f"{table.name!r} has no column of numbers that may be values; name them with --bands"
        )
    values = np.column_stack([table.numbers(name) for name in by_band.values()])
    return values, tuple(by_band), np.arange(len(values)), days_of(table, columns.date)


def _wide(table: Table, columns: SeriesColumns, options: SeriesOptions) -> _Read:
    wide = columns.wide
    assert wide is not None  # the caller has looked
    bands = [
        np.column_stack([table.numbers(name) for name in names]) for names in wide.columns.values()
    ]
    values = np.stack(bands, axis=2).reshape(-1, len(bands))  # (row and step, band)
    row = np.repeat(np.arange(table.data.num_rows), wide.steps)
    return values, tuple(wide.columns), row, step_days(table, columns, options).ravel()


def _keys(table: Table, columns: SeriesColumns) -> np.ndarray:
    """Return what tells series apart: the id, with the year where ids begin again."""
    if columns.id is None:
        return (np.arange(table.data.num_rows) + table.first).astype(str)
    ids = table.text(columns.id).astype(str)
    if (blank := np.flatnonzero(ids == "")).size:
        raise InputError(
            f"{table.name!r}, {table.at(int(blank[0]))} has no {columns.id}; rows without one would "
            "become one sequence"
        )
    if columns.year is not None:
        ids = np.char.add(np.char.add(ids, " "), table.text(columns.year).astype(str))
    return ids


def _scales(
    values: Float64[np.ndarray, "row band"], bands: Sequence[str], scale: float | None
) -> Float64[np.ndarray, " band"]:
    """Return what each band is multiplied by: `scale`, or what counts of Sentinel-2 stand for."""
    if scale is None:
        return count_scales(values, tuple(bands), is_export=False)
    factors = [
        1.0 if band in RADAR else scale * (BANDS[band].stored_per_count if band in BANDS else 1)
        for band in bands
    ]
    return np.array(factors)
