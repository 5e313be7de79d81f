"""A table's file in (CSV, gzip or Parquet, any usual encoding), an Arrow table with row numbers out."""

import csv
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Float64, Shaped

from cube.errors import InputError

PARQUET_SUFFIXES = (".parquet", ".pq")

_GZIP = b"\x1f\x8b"
_MOST_BYTES = 2**31 - 1
"""Bytes of text that are read: Arrow reads them as one block, whose size is such a number."""

_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_DECIMAL_COMMA = re.compile(r"(?:^|[;\t])-?\d+,\d+(?=[;\t\r\n]|$)", re.MULTILINE)
_SHOWN = 60


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """A table as it lies in its file."""

    name: str
    """What the file is called in messages."""
    data: pa.Table
    """Its columns; those asked for as text are text."""
    first: int
    """Number of the first row: a CSV's header is line 1, rows of Parquet count from 1."""
    notes: tuple[str, ...] = ()
    """What is odd about the file."""

    @property
    def row_word(self) -> str:
        """What a row's number counts."""
        return "line" if self.first == 2 else "row"

    def at(self, row: int) -> str:
        """Return how a message names a row, counted from 0."""
        return f"{self.row_word} {row + self.first:,}"

    def text(self, column: str, *, is_trimmed: bool = True) -> Shaped[np.ndarray, " row"]:
        """Return a column as text, without blanks around it; what is not there is empty."""
        values = self.data[column]
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        if pa.types.is_floating(values.type):
            return np.array(
                ["" if v is None or v != v else _whole(v) for v in values.to_pylist()], dtype=object
            )
        if pa.types.is_binary(values.type) or pa.types.is_nested(values.type):
            raise InputError(f"{self.name!r}: column {column!r} holds {values.type}, not text")
        as_text = pc.fill_null(values.cast(pa.string()), "")
        as_text = pc.utf8_trim_whitespace(as_text) if is_trimmed else as_text
        return np.asarray(as_text.to_numpy(zero_copy_only=False), dtype=object)

    def numbers(self, column: str) -> Float64[np.ndarray, " row"]:
        """Return a column as numbers, NaN where it is empty; raises `InputError` for text in it."""
        values = self.data[column]
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        if pa.types.is_null(values.type):
            return np.full(len(values), np.nan)
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            self._refuse_words(column, values)
            trimmed = pc.utf8_trim_whitespace(values)
            values = pc.if_else(pc.equal(trimmed, ""), None, trimmed)
        try:
            as_float = values.cast(pa.float64(), safe=False)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(
                f"{self.name!r}: column {column!r} holds {values.type}, no numbers"
            ) from error
        return np.array(as_float.to_numpy(zero_copy_only=False), np.float64)

    def is_numeric(self, column: str) -> bool:
        """Say whether a column holds numbers, or nothing."""
        kind = self.data[column].type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        return bool(
            pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_decimal(kind)
            or pa.types.is_null(kind)
        )

    def _refuse_words(self, column: str, values: pa.ChunkedArray) -> None:
        for row, text in enumerate(values.to_pylist()):
            try:
                float((text or "").strip() or "nan")
            except ValueError:
                raise InputError(
                    f"{self.name!r}, {self.at(row)}: column {column!r} holds {text[:_SHOWN]!r}, no "
                    "number; mend it, or leave the cell empty"
                ) from None


def _whole(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def table_header(path: Path) -> tuple[str, ...]:
    """Return the names of a table's columns; raises `InputError` if the file is no table."""
    if _is_parquet(path):
        return _named(_open_parquet(path).schema_arrow.names, path.name)
    return _header(_decoded(_start(path), path, is_whole=False)[0], path)[0]


def read_table(path: Path, as_text: Callable[[tuple[str, ...]], Sequence[str]]) -> Table:
    """Read a whole table; `as_text` gives, of the header, the columns that are no numbers.

    Text is UTF-8 (with or without a mark), UTF-16 with a mark, or else Windows' western code page;
    columns are parted by comma, semicolon or tabulator. Raises `InputError` with file and line.
    """
    if _is_parquet(path):
        try:
            file = _open_parquet(path)
            data = file.read()
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path.name!r} has damaged Parquet data: {_short(error)}") from error
        _refuse_empty(data.num_rows, path)
        return Table(name=path.name, data=data, first=1)
    text, notes = _decoded(_content(path), path)
    header, delimiter = _header(text, path)
    # the mark of a decimal comma, which goes with semicolons, in what is certainly enough rows
    has_comma = delimiter != "," and _DECIMAL_COMMA.search(text[: 2**16]) is not None
    body = text.rstrip().encode()
    _refuse_empty(body.count(b"\n") + body.count(b"\r"), path)
    options = pyarrow.csv.ConvertOptions(
        column_types={name: pa.string() for name in as_text(header)},
        decimal_point="," if has_comma else ".",
    )
    try:
        data = pyarrow.csv.read_csv(
            pa.BufferReader(body),
            read_options=pyarrow.csv.ReadOptions(
                column_names=header, skip_rows=1, block_size=max(len(body), 1), use_threads=False
            ),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, ignore_empty_lines=False),
            convert_options=options,
        )
    except pa.ArrowException as error:
        raise InputError(f"{path.name!r} cannot be read as a table: {_short(error)}") from error
    return Table(name=path.name, data=data, first=2, notes=notes)


def _refuse_empty(rows: int, path: Path) -> None:
    if not rows:
        raise InputError(f"{path.name!r} has no row below its header; export it again")


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in PARQUET_SUFFIXES


def _open_parquet(path: Path) -> pyarrow.parquet.ParquetFile:
    try:
        return pyarrow.parquet.ParquetFile(path)
    except FileNotFoundError as error:
        raise InputError(f"{path.name!r} does not exist") from error
    except (pa.ArrowException, OSError) as error:
        size = path.stat().st_size
        raise InputError(
            f"{path.name!r} ({size} bytes) cannot be read as Parquet, or was cut off: "
            f"{_short(error)}"
        ) from error


def _start(path: Path) -> bytes:
    """Return enough bytes to hold the header."""
    return _content(path, 2**20)


def _content(path: Path, most: int = _MOST_BYTES) -> bytes:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP
        with gzip.open(path) if packed else path.open("rb") as file:
            content = file.read(most)
            is_more = most == _MOST_BYTES and bool(file.read(1))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path.name!r} is damaged gzip, or was cut off: {error}") from error
    except OSError as error:
        raise InputError(f"{path.name!r} cannot be read: {error.strerror or error}") from error
    if is_more:
        raise InputError(
            f"{path.name!r} has more than 2 GB of text; write it as Parquet, or as several files"
        )
    if not content.strip():
        raise InputError(f"{path.name!r} is empty ({len(content)} bytes)")
    return content


def _decoded(content: bytes, path: Path, *, is_whole: bool = True) -> tuple[str, tuple[str, ...]]:
    """Return the text of a file, and what is said of its encoding."""
    for mark, name in _MARKS.items():
        if content.startswith(mark):
            try:
                return content.decode(name, errors="strict" if is_whole else "ignore"), ()
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path.name!r} begins as {name.removesuffix('-sig').upper()}, but byte "
                    f"{error.start:,} is none of it; export it again"
                ) from error
    if b"\0" in content:
        raise InputError(
            f"{path.name!r} holds zero bytes, so it is no text; expected CSV or Parquet"
        )
    try:
        # a start may end within a letter
        return content.decode() if is_whole else content.rsplit(b"\n", 1)[0].decode(), ()
    except UnicodeDecodeError as error:
        try:
            text = content.decode("cp1252")
        except UnicodeDecodeError:
            raise InputError(
                f"{path.name!r} is neither UTF-8 nor Windows' western text (byte {error.start:,}); "
                "save it as UTF-8"
            ) from error
        return text, ("the file is not UTF-8; it was read as Windows-1252, the western code page",)


def _header(text: str, path: Path) -> tuple[tuple[str, ...], str]:
    """Return the columns' names and what parts them."""
    lines = text.splitlines()
    line = lines[0] if lines else ""
    delimiter = max((",", ";", "\t"), key=line.count)
    names = next(csv.reader([line], delimiter=delimiter), [])
    return _named(names, path.name), delimiter


def _named(names: Sequence[str], file: str) -> tuple[str, ...]:
    found = tuple(
        str(name).strip() or f"unnamed {number}" for number, name in enumerate(names, start=1)
    )
    if twice := [name for name, count in Counter(found).items() if count > 1]:
        raise InputError(
            f"{file!r} has the column {twice[0][:_SHOWN]!r} {found.count(twice[0])} times"
        )
    return found


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
