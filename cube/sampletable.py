"""Samples in, a table out for other programs: GeoParquet, one row a sample, one column a band and period."""

import json
import secrets
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
import xarray as xr

from cube.durable import flush_files, flush_folders
from cube.errors import InputError

_UNITS = ("label", "group", "block", "region", "year", "row", "column", "x", "y", "lon", "lat")
"""Columns that come first, in this order, where samples have them."""


def write_parquet(path: str | Path, samples: xr.Dataset) -> None:
    """Write the dataset of `draw_samples` or of an import as a Parquet table.

    Columns, each where the samples have it: `label`, `group`, `block`, `region` (text), `year`,
    `row`, `column`, `x`, `y` (metres, CRS in the metadata), `lon`, `lat` (degrees), other variables
    of samples under their own names (`fold_grouped`, …), `share_<class>`, `clear_count_<period>`,
    and reflectance as `<band>_<period>`, e.g. `B02_2022-03` (float32, physical, null where
    missing). With `lon` and `lat` there is a point `geometry` too, and the file is GeoParquet 1.1.
    The metadata key `canopycube` holds the attributes of the samples as JSON.

    The file appears whole or not at all. Raises `InputError` if it cannot be written or if two
    columns would have one name.
    """
    path = Path(path)
    columns = _columns(samples)
    metadata = {"canopycube": json.dumps(samples.attrs, ensure_ascii=False)}
    if {"lon", "lat"} <= set(columns):
        places = np.column_stack([samples[name].values for name in ("lon", "lat")])
        is_there = np.isfinite(places).all(axis=1)
        points = shapely.to_wkb(shapely.points(places[is_there]))
        geometry = np.full(len(places), None, dtype=object)
        geometry[is_there] = points
        columns["geometry"] = pa.array(geometry.tolist(), pa.binary())
        metadata["geo"] = json.dumps(_geo(places[is_there]))
    table = pa.table(columns).replace_schema_metadata(metadata)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, table)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be written: {error}") from error


def _replace(path: Path, table: pa.Table) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}.draft")
    try:
        pq.write_table(table, draft, compression="zstd")
        flush_files([draft])
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    flush_folders([path.parent])


def _columns(samples: xr.Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def add(name: str, values: np.ndarray) -> None:
        if name in found:
            raise InputError(f"samples would have column {name!r} twice; rename a band or a class")
        if values.dtype.kind in "UOT":
            found[name] = pa.array(values.tolist(), pa.string())
        else:
            # NaN is "missing" to pandas; other readers know only null
            found[name] = pa.array(values, from_pandas=values.dtype.kind == "f")

    plain = [
        str(name) for name, variable in samples.variables.items() if variable.dims == ("sample",)
    ]
    for name in (*(unit for unit in _UNITS if unit in plain), *sorted(set(plain) - set(_UNITS))):
        add(name, samples[name].values)
    if "share" in samples:
        shares = samples["share"].transpose("sample", "class").values
        for index, name in enumerate(samples["class"].values.tolist()):
            add(f"share_{name}", shares[:, index])
    periods = [str(period) for period in samples["period"].values]
    if "clear_count" in samples:
        counts = samples["clear_count"].transpose("sample", "time").values
        for time, period in enumerate(periods):
            add(f"clear_count_{period}", counts[:, time])
    values = samples["reflectance"].transpose("sample", "time", "band").values
    for index, band in enumerate(samples["band"].values.tolist()):
        for time, period in enumerate(periods):
            add(f"{band}_{period}", np.ascontiguousarray(values[:, time, index]))
    return found


def _geo(places: np.ndarray) -> dict[str, Any]:
    """Return what GeoParquet 1.1 says of a column of points; without `crs` it is lon/lat, WGS 84."""
    column: dict[str, Any] = {"encoding": "WKB", "geometry_types": ["Point"]}
    if len(places):
        column["bbox"] = [*places.min(axis=0).tolist(), *places.max(axis=0).tolist()]
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
