"""A label file in, labelled shapes out: CSV tables of points, vector files of points and polygons."""

import csv
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from jaxtyping import Shaped
from odc.geo.crs import CRS

from cube.errors import InputError
from cube.grid import LON_LAT, parse_crs

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
"""Files read as a table of points."""

_COORDINATE_COLUMNS = (("lon", "lat"), ("longitude", "latitude"), ("x", "y"))
_DELIMITERS = ",;\t|"


@dataclass(frozen=True, kw_only=True)
class ReferenceOptions:
    """Where the ground truth lies and how it is read."""

    file: Path
    """Points (CSV, GeoPackage, GeoJSON, Shapefile, …), polygons, or a label raster."""
    class_column: str = "class"
    """Column that holds the class (tables and vector files)."""
    group_column: str | None = None
    """Column that holds the label unit (stand, plot, …); without it each shape is a group."""
    x_column: str | None = None
    """CSV column of the easting or longitude; without it lon, longitude or x."""
    y_column: str | None = None
    """CSV column of the northing or latitude; without it lat, latitude or y."""
    crs: str | None = None
    """CRS of a CSV (default EPSG:4326) or of a file that carries none."""
    layer: str | None = None
    """Layer of a vector file that has several."""
    classes: Mapping[str, str] = field(default_factory=dict)
    """Label to class, to keep, rename and merge; if given, labels not in it are dropped."""
    drop: frozenset[str] = frozenset()
    """Labels to leave out (as the file spells them)."""
    patch: int = 1
    """Cells along the edge of the square taken round a point; 2 takes the four nearest cells."""
    erode: int | float = 0
    """Metres (units of the cube's CRS) taken off a polygon's edge, where pixels are mixed."""
    band: int = 1
    """Band of a label raster, from 1."""
    variable: str | None = None
    """Variable of a NetCDF label raster that has several."""
    class_names: Mapping[int, str] = field(default_factory=dict)
    """Raster value to label; a value not in it is labelled by its number."""
    nodata: int | float | None = None
    """Raster value that means "no label", beside the one the file declares."""
    every: int = 1
    """Take every n-th row and column of the cells in polygons or a label raster: a systematic
    sample."""

    def __post_init__(self) -> None:
        for name in ("patch", "band", "every"):
            if getattr(self, name) < 1:
                raise InputError(f"reference {name} = {getattr(self, name)!r}; expected 1 or more")
        if not (math.isfinite(self.erode) and self.erode >= 0):
            raise InputError(f"reference erode = {self.erode!r}; expected 0 or more metres")
        if blank := [label for label, name in self.classes.items() if not name.strip()]:
            raise InputError(f"reference classes gives {blank[0]!r} a blank name; use drop for it")
        if (self.x_column is None) != (self.y_column is None):
            raise InputError("reference x_column and y_column go together; give both or neither")


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
    columns = [options.class_column, *_coordinate_columns(options, header)]
    if options.group_column is not None:
        columns.append(options.group_column)
    for name in columns:
        _require_column(options, name, header)
    place = [header.index(name) for name in columns]
    x, y = (
        np.array(
            [
                _number(options.file, n, header[at], row[at])
                for n, row in zip(numbers, rows, strict=True)
            ]
        )
        for at in place[1:3]
    )
    crs = parse_crs(options.crs) if options.crs else LON_LAT
    is_finite = np.isfinite(x) & np.isfinite(y)
    if crs.geographic:
        _refuse_metres(options, x[is_finite], y[is_finite])
    shapes = np.full(len(rows), None, dtype=object)
    shapes[is_finite] = shapely.points(x[is_finite], y[is_finite])
    return LabelledShapes(
        shapes=shapes,
        crs=crs,
        labels=tuple(label_text(row[place[0]]) for row in rows),
        groups=_group_texts(row[place[3]] if len(place) > 3 else None for row in rows),
    )


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
    wanted = [options.class_column]
    if options.group_column is not None:
        wanted.append(options.group_column)
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
    values = dict(zip(meta["fields"].tolist(), data, strict=True))
    groups = values[options.group_column] if options.group_column is not None else [None] * len(wkb)
    return LabelledShapes(
        shapes=np.asarray(shapely.from_wkb(wkb, on_invalid="ignore"), dtype=object),
        crs=file_crs(options, meta["crs"]),
        labels=tuple(map(label_text, values[options.class_column])),
        groups=_group_texts(groups),
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
