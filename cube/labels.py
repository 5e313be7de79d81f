"""A label file in, labelled shapes out: CSV tables of points, vector files of points and polygons."""

import csv
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from jaxtyping import Float32, Shaped
from odc.geo.crs import CRS

from cube.errors import InputError
from cube.grid import LON_LAT, parse_crs
from cube.labeloptions import ReferenceOptions

__all__ = [
    "TABLE_SUFFIXES",
    "LabelledShapes",
    "ReferenceOptions",
    "file_crs",
    "label_text",
    "read_shapes",
]

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
"""Files read as a table of points."""

_COORDINATE_COLUMNS = (("lon", "lat"), ("longitude", "latitude"), ("x", "y"))
_DELIMITERS = ",;\t|"


@dataclass(frozen=True, kw_only=True)
class LabelledShapes:
    """The shapes of a label file, as the file has them: nothing is dropped yet."""

    shapes: Shaped[np.ndarray, " shape"]
    """Shapely geometries in `crs`; None where there is none."""
    crs: CRS
    """CRS of the shapes, x before y."""
    labels: tuple[str, ...]
    """Label of each shape, trimmed and in Unicode form NFC; "" where blank."""
    groups: tuple[str, ...]
    """Label unit of each shape; `#n` for the n-th shape of the file where none is given."""
    regions: tuple[str, ...] | None = None
    """Region of each shape, "" where blank; None where no column was asked for."""
    shares: Float32[np.ndarray, "shape class"] | None = None
    """Share of each of `ReferenceOptions.share_classes`, rows sum to 1, or to 0 where all are
    blank; None where labels are whole."""


def read_shapes(options: ReferenceOptions) -> LabelledShapes:
    """Read a CSV or vector file of labelled points or polygons, in its own CRS.

    CSV: UTF-8, a header row, comma, semicolon, tab or bar between fields. A coordinate that is
    blank or not finite makes a shape None. Raises `InputError` if the file cannot be read, has no
    row, lacks a column or a CRS, or if a row is ragged or a coordinate is no number.
    """
    is_table = options.file.suffix.lower() in TABLE_SUFFIXES
    return _read_table(options) if is_table else _read_vector(options)


def label_text(value: Any) -> str:
    """Return a cell of a label column as text: trimmed, NFC, 3.0 as "3", missing as ""."""
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    # one spelling of "Lärche": a letter with an accent is one character or two, by the editor
    return unicodedata.normalize("NFC", str(value)).strip()


def _group_texts(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(label_text(value) or f"#{n}" for n, value in enumerate(values, start=1))


def _require_column(options: ReferenceOptions, wanted: str, columns: Sequence[str]) -> None:
    if wanted not in columns:
        found = ", ".join(map(repr, columns)) or "none"
        raise InputError(
            f"reference file {str(options.file)!r} has no column {wanted!r}; it has {found}"
        )
    if columns.count(wanted) > 1:
        raise InputError(
            f"reference file {str(options.file)!r} has column {wanted!r} twice; rename one"
        )


def _read_table(options: ReferenceOptions) -> LabelledShapes:
    numbers, rows, header = _table_rows(options.file)
    coordinates = _coordinate_columns(options, header)
    wanted = [*options.label_columns, *coordinates, *options.unit_columns]
    for name in wanted:
        _require_column(options, name, header)
    values = {name: [row[header.index(name)] for row in rows] for name in wanted}
    x, y = (
        np.array(
            [
                _number(options.file, n, name, text)
                for n, text in zip(numbers, values[name], strict=True)
            ]
        )
        for name in coordinates
    )
    crs = parse_crs(options.crs) if options.crs else LON_LAT
    is_finite = np.isfinite(x) & np.isfinite(y)
    if crs.geographic:
        _refuse_metres(options, x[is_finite], y[is_finite])
    shapes = np.full(len(rows), None, dtype=object)
    shapes[is_finite] = shapely.points(x[is_finite], y[is_finite])
    return _labelled(options, shapes, crs, values, [f"line {number}" for number in numbers])


def _labelled(
    options: ReferenceOptions,
    shapes: Shaped[np.ndarray, " shape"],
    crs: CRS,
    values: Mapping[str, Sequence[Any]],
    places: Sequence[str],
) -> LabelledShapes:
    """Return shapes with what the columns `values` say of them; `places` name rows in errors."""
    shares = _shares(options, values, places) if options.share_columns else None
    if shares is None:
        labels = tuple(map(label_text, values[options.class_column]))
    else:
        largest = shares.argmax(axis=1).tolist()
        labels = tuple(
            options.share_classes[index] if total else ""
            for index, total in zip(largest, shares.sum(axis=1).tolist(), strict=True)
        )
    group, region = options.group_column, options.region_column
    return LabelledShapes(
        shapes=shapes,
        crs=crs,
        labels=labels,
        groups=_group_texts(values[group] if group is not None else [None] * len(shapes)),
        regions=None if region is None else tuple(map(label_text, values[region])),
        shares=shares,
    )


def _shares(
    options: ReferenceOptions, values: Mapping[str, Sequence[Any]], places: Sequence[str]
) -> Float32[np.ndarray, "shape class"]:
    """Return shares normalised to 1; columns of one class are added up."""
    shares = np.zeros((len(places), len(options.share_classes)))
    for column, name in options.share_columns.items():
        for row, (value, at) in enumerate(zip(values[column], places, strict=True)):
            text = label_text(value)
            try:
                share = float(text) if text else 0.0
            except ValueError:
                share = math.nan
            if not (math.isfinite(share) and share >= 0):
                raise InputError(
                    f"reference file {str(options.file)!r}, {at}: {column} {text[:40]!r} is no "
                    "share; expected 0 or more, or blank"
                )
            shares[row, options.share_classes.index(name)] += share
    total = shares.sum(axis=1, keepdims=True)
    return (shares / np.where(total > 0, total, 1)).astype(np.float32)


def _table_rows(path: Path) -> tuple[list[int], list[list[str]], list[str]]:
    """Return line numbers, rows and header of a CSV; every row is as long as the header."""
    numbers, rows = [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(_DELIMITERS, key=first.count))
            header = [name.strip() for name in next(reader, [])]
            for row in reader:
                if not any(map(str.strip, row)):
                    continue
                if len(row) != len(header):
                    raise InputError(
                        f"reference file {str(path)!r}, line {reader.line_num}: {len(row)} fields "
                        f"where the header has {len(header)}; mend or quote that line"
                    )
                numbers.append(reader.line_num)
                rows.append(row)
    except UnicodeDecodeError as error:
        found = f"byte 0x{error.object[error.start]:02x}"
        raise InputError(
            f"reference file {str(path)!r} is not UTF-8 text ({found}); save it as UTF-8"
        ) from error
    except csv.Error as error:
        raise InputError(f"reference file {str(path)!r} is no CSV table: {error}") from error
    if not rows:
        raise InputError(f"reference file {str(path)!r} is empty; expected a header and rows")
    return numbers, rows, header


def _coordinate_columns(options: ReferenceOptions, header: list[str]) -> tuple[str, str]:
    if options.x_column is not None and options.y_column is not None:
        return options.x_column, options.y_column
    by_name = {name.lower(): name for name in header}
    for x, y in _COORDINATE_COLUMNS:
        if x in by_name and y in by_name:
            return by_name[x], by_name[y]
    raise InputError(
        f"reference file {str(options.file)!r} has no columns lon and lat (nor longitude and latitude, "
        f"x and y); it has {', '.join(map(repr, header))}; name them with x_column and y_column"
    )


def _number(path: Path, line: int, column: str, text: str) -> float:
    if not text.strip():
        return math.nan
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"reference file {str(path)!r}, line {line}: {column} {text[:40]!r} is no number"
        ) from None


def _refuse_metres(options: ReferenceOptions, x: np.ndarray, y: np.ndarray) -> None:
    is_off = (np.abs(x) > 180) | (np.abs(y) > 90)
    if is_off.sum() * 2 > x.size:
        first = np.flatnonzero(is_off)[0]
        raise InputError(
            f"reference file {str(options.file)!r}: x, y = {x[first]:g}, {y[first]:g} is no longitude, "
            "latitude; set crs to the CRS of the coordinates, or swap x_column and y_column"
        )


def _read_vector(options: ReferenceOptions) -> LabelledShapes:
    path = options.file
    wanted = list(dict.fromkeys((*options.label_columns, *options.unit_columns)))
    try:
        layer = _layer(options)
        columns = pyogrio.read_info(path, layer=layer)["fields"].tolist()
        for name in wanted:
            _require_column(options, name, columns)
        meta, _, wkb, data = pyogrio.raw.read(path, layer=layer, columns=wanted)
    except (
        pyogrio.errors.DataSourceError,
        pyogrio.errors.DataLayerError,
        pyogrio.errors.FieldError,
        UnicodeDecodeError,
    ) as error:
        text = " ".join(str(error).split())[:200]
        raise InputError(
            f"reference file {str(path)!r} cannot be read as a table or vector file: {text}"
        ) from error
    if not len(wkb):
        raise InputError(f"reference file {str(path)!r} is empty; expected points or polygons")
    values = {
        name: list(column) for name, column in zip(meta["fields"].tolist(), data, strict=True)
    }
    return _labelled(
        options,
        np.asarray(shapely.from_wkb(wkb, on_invalid="ignore"), dtype=object),
        file_crs(options, meta["crs"]),
        values,
        [f"feature {number}" for number in range(1, len(wkb) + 1)],
    )


def _layer(options: ReferenceOptions) -> str:
    """Return the layer to read: the one asked for, or the only one that has shapes."""
    layers = pyogrio.list_layers(options.file)
    # a GeoPackage saved by QGIS also has layer_styles, a table without geometry
    names = [str(name) for name, geometry in layers if geometry is not None]
    if options.layer is not None:
        if options.layer not in names:
            raise InputError(
                f"reference file {str(options.file)!r} has no layer {options.layer!r} with shapes; "
                f"it has {', '.join(map(repr, names)) or 'none'}"
            )
        return options.layer
    if len(names) != 1:
        raise InputError(
            f"reference file {str(options.file)!r} has {len(names)} layers with shapes"
            + (f" ({', '.join(map(repr, names))}); choose one with layer" if names else "")
        )
    return names[0]


def file_crs(options: ReferenceOptions, found: str | None) -> CRS:
    """Return the CRS of a label file: what it says itself, else `options.crs`.

    Raises `InputError` if neither is there or the two differ.
    """
    if not found and not options.crs:
        raise InputError(
            f"reference file {str(options.file)!r} has no CRS; save it with one or set crs"
        )
    if not found:
        assert options.crs is not None
        return parse_crs(options.crs)
    own = parse_crs(found)
    if options.crs and parse_crs(options.crs) != own:
        raise InputError(
            f"reference file {str(options.file)!r} says its CRS is {str(own)[:60]!r}, "
            f"asked was {options.crs!r}; leave crs out"
        )
    return own
