"""A finished map store in, a table out: where each classified pixel lies, and its class."""

import csv
import gzip
import io
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import zarr
from jaxtyping import Float64, Int64, UInt8
from odc.geo.geobox import GeoBox

from cube.cells import cell_centres
from cube.durable import flush_files, flush_folders
from cube.errors import InputError, WorkFailedError
from cube.export import map_geobox
from cube.grid import LON_LAT
from cube.mapstore import UNCLASSIFIED, map_classes
from cube.place import Place, zarr_place
from cube.spec import Region, tile_regions
from cube.zarrstore import stored_array
from pipelines.progress import Reporter

TABLE_NAME = "map_table.csv"
"""What the table is called in the output folder."""

COLUMNS = ("latitude", "longitude", "predicted_class")
"""Columns of the table, those of the reference workflow's result."""

_HEADER = (",".join(COLUMNS) + "\n").encode()
_ENDINGS = (".csv", ".csv.gz", ".parquet")
_PIECE = 512
_PER_DEGREE = 10_000_000
_NUMBER = len("-179.1234567,")

_GZIP_LEVEL = 4
"""Measured on rows of a map: 3.9 million rows/s and 6.8 bytes a row; level 6 takes twice as long for
3 % less, level 1 is 1.6 times as fast for 16 % more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """The classified pixels of one piece of a map, row by row of it."""

    latitude: Int64[np.ndarray, "row"]
    """Of pixel centres, EPSG:4326, in 1e-7 degrees."""
    longitude: Int64[np.ndarray, "row"]
    """Of pixel centres, EPSG:4326, in 1e-7 degrees."""
    value: UInt8[np.ndarray, "row"]
    """Map value of the class."""


def check_table(path: Path) -> None:
    """Refuse a place where no table can be written, before the hours of a map.

    Raises `InputError` for another ending than .csv, .csv.gz or .parquet, for a folder that does
    not exist, and for a file that is no table of a map: it is not overwritten.
    """
    if not path.name.lower().endswith(_ENDINGS):
        raise InputError(
            f"--table {str(path)!r} has no known ending; expected one of {', '.join(_ENDINGS)}"
        )
    try:
        if not path.absolute().parent.is_dir():
            raise InputError(f"--table {str(path)!r} lies in a folder that does not exist; make it")
        if (path.exists() or path.is_symlink()) and not _is_table(path):
            raise InputError(
                f"--table {str(path)!r} exists and is no table of a map; it is not overwritten"
            )
    except OSError as error:
        raise InputError(f"--table {str(path)!r} cannot be used: {error.strerror}") from error


def _is_table(path: Path) -> bool:
    """Return whether a file is what `write_map_table` makes; a link or a folder is not."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        if path.suffix.lower() == ".parquet":
            return tuple(pq.read_schema(path).names) == COLUMNS
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            return bool(file.read(len(_HEADER)) == _HEADER)
    except (OSError, EOFError, pa.ArrowException):
        return False


def write_map_table(source: Place, target: Path, reporter: Reporter) -> dict[str, Any]:
    """Write `latitude,longitude,predicted_class` of every classified pixel of the map at `source`.

    Centres of pixels in EPSG:4326 to 7 decimals (about a centimetre), classes by name, in pieces of
    512 pixels from the upper left, row by row within each. `target` ends in .csv, .csv.gz or
    .parquet; CSV is UTF-8, names are quoted where they need to be. It appears whole or not at all;
    an older table is replaced. Memory does not depend on the size of the map.

    Returns what the report says of it. Raises as `check_table`; `WorkFailedError` if the map holds
    a value that its legend lacks, or writing fails.
    """
    started = time.perf_counter()
    check_table(target)
    names = {item.value: item.name for item in map_classes(source)}
    geobox = map_geobox(source)
    pieces = tuple(tile_regions((geobox.shape.y, geobox.shape.x), _PIECE))
    count = 0
    with (
        reporter.bar("table", len(pieces)) as advance,
        _appearing(target) as draft,
        _writer(draft, target.name.lower(), names) as write,
    ):
        for rows in _rows(source, geobox, pieces):
            _refuse_unnamed(source, rows.value, names)
            write(rows)
            count += rows.value.size
            advance()
    return {
        "path": str(target),
        "rows": count,
        "seconds": round(time.perf_counter() - started, 2),
    }


def _rows(source: Place, geobox: GeoBox, pieces: tuple[Region, ...]) -> Iterator[Rows]:
    """Yield the classified pixels of each piece."""
    species = stored_array(zarr.open_group(zarr_place(source), mode="r"), "species")
    assert geobox.crs is not None  # create_map refuses a grid without one
    to_degrees = pyproj.Transformer.from_crs(geobox.crs.proj, LON_LAT.proj, always_xy=True)
    for region in pieces:
        block = np.asarray(species[region.rows, region.columns])
        row, column = np.nonzero(block != UNCLASSIFIED)
        x, y = cell_centres(geobox, row + region.top, column + region.left)
        longitude, latitude = to_degrees.transform(x, y)
        yield Rows(
            latitude=_ten_millionths(latitude, region),
            longitude=_ten_millionths(longitude, region),
            value=block[row, column],
        )


def _ten_millionths(
    degrees: Float64[np.ndarray, "row"], region: Region
) -> Int64[np.ndarray, "row"]:
    if not np.isfinite(degrees).all():
        raise WorkFailedError(
            f"pixels at rows {region.top}, columns {region.left} of the map have no longitude and "
            "latitude in its CRS"
        )
    whole: np.ndarray = np.rint(degrees * _PER_DEGREE).astype(np.int64)
    return whole


def _refuse_unnamed(
    source: Place, values: UInt8[np.ndarray, "row"], names: Mapping[int, str]
) -> None:
    if unnamed := sorted(set(np.unique(values).tolist()) - set(names)):
        raise WorkFailedError(
            f"map {str(source)!r} holds value {unnamed[0]}, which its legend does not name; map "
            "again with the classifier of the legend"
        )


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """Yield a name beside `target`; what is written there takes its place at the end, for good."""
    draft = target.with_name(f".{target.name}.{secrets.token_hex(6)}.draft")
    try:
        yield draft
        flush_files([draft])
        draft.replace(target)
        flush_folders([target.absolute().parent])
    except (OSError, pa.ArrowException) as error:
        raise WorkFailedError(f"{str(target)!r} could not be written: {error}") from error
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _writer(draft: Path, name: str, names: Mapping[int, str]) -> Iterator[Callable[[Rows], None]]:
    """Yield what writes rows into `draft`, in the format that `name` ends in."""
    if name.endswith(".parquet"):
        with pq.ParquetWriter(draft, _SCHEMA, compression="zstd") as table:
            yield lambda rows: table.write_batch(_record_batch(rows, names))
        return
    with draft.open("wb") as file:
        if name.endswith(".gz"):
            # without name and time, so that one map gives one file
            with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as packed:
                yield _csv_writer(packed, names)
        else:
            yield _csv_writer(file, names)


def _csv_writer(
    file: IO[bytes] | gzip.GzipFile, names: Mapping[int, str]
) -> Callable[[Rows], None]:
    texts = [b""] * 256
    for value, name in names.items():
        text = io.StringIO(newline="")
        # its own line's end, or Python 3.11 would leave a carriage return in a name unquoted
        csv.writer(text, lineterminator="\r\n").writerow([name])
        field = text.getvalue().removesuffix("\r\n") + "\n"
        texts[value] = field.encode("utf-8", errors="replace")
    ends = np.cumsum([0, *map(len, texts)])
    joined = np.frombuffer(b"".join(texts), np.uint8)
    file.write(_HEADER)

    def write(rows: Rows) -> None:
        size = 2 * _NUMBER * rows.value.size + int(np.diff(ends)[rows.value].sum())
        text = np.empty(size, np.uint8)
        used = _format_rows(rows.latitude, rows.longitude, rows.value, joined, ends, text)
        file.write(text[:used].data)

    return write


@numba.njit(nogil=True, cache=True)
def _format_rows(
    latitude: np.ndarray,  # (row) int64, 1e-7 degrees
    longitude: np.ndarray,  # (row) int64, 1e-7 degrees
    value: np.ndarray,  # (row) uint8
    names: np.ndarray,  # (byte) uint8: each class's field with its line's end, one after another
    ends: np.ndarray,  # (257) int64: where they begin and end
    text: np.ndarray,  # (byte) uint8, written
) -> int:
    """Write rows as text and return its length: eight times as fast as formatting by Python."""
    place = 0
    for row in range(value.size):
        for number in (latitude[row], longitude[row]):
            if number < 0:
                text[place] = 45  # minus
                place += 1
            rest = abs(number)
            whole = rest // 10_000_000
            width = 10 if whole >= 100 else 9 if whole >= 10 else 8
            # from the last digit on; the point stands before the last seven
            for back in range(width):
                shift = 1 if back < 7 else 0
                text[place + width - 1 - back + shift] = 48 + rest % 10
                rest //= 10
            text[place + width - 7] = 46  # point
            text[place + width + 1] = 44  # comma
            place += width + 2
        first, last = ends[value[row]], ends[value[row] + 1]
        for letter in range(first, last):
            text[place] = names[letter]
            place += 1
    return place


_SCHEMA = pa.schema(
    [("latitude", pa.float64()), ("longitude", pa.float64()), ("predicted_class", pa.string())]
)


def _record_batch(rows: Rows, names: Mapping[int, str]) -> Any:
    known = pa.array([names.get(value) for value in range(256)], pa.string())
    columns = [rows.latitude / _PER_DEGREE, rows.longitude / _PER_DEGREE]
    return pa.record_batch([*map(pa.array, columns), known.take(pa.array(rows.value))], _SCHEMA)
