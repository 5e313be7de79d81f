"""Lines of a CSV file in, typed columns out; what is wrong with one is said with its row."""

import csv
import datetime
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv
from jaxtyping import Int64

from cube.errors import InputError
from cube.tables.columns import TableColumns
from cube.tables.geojson import points_of
from cube.tables.lines import LineBlock

_NO_VALUE = ("", "NaN", "nan", "NA", "null", "None")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def split_header(text: bytes, *, file: str) -> tuple[str, ...]:
    """Return the names in a header line; raises `InputError` if it is no CSV header."""
    try:
        return tuple(next(csv.reader([text.decode("utf-8").strip("\r\n")], strict=True), ()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file!r}, row 1 is no header of a CSV in UTF-8: {error}") from error


def parse_block(
    block: LineBlock,
    columns: TableColumns,
    *,
    file: str,
    extra: Sequence[str] = (),
    is_whole: bool = True,
) -> tuple[pa.RecordBatch, Int64[np.ndarray, " row"]]:
    """Return the needed columns of a block of lines (and `extra` ones), and the rows' numbers.

    Bands are int32 where every value is written as a whole number, else float64 (at once unless
    `is_whole`, for trying costs half of the reading); dates are days; points and classes text.
    Extra columns are numbers, and left out where they hold anything else. Blank lines are no rows.
    Raises `InputError` with the row of the first value that cannot be read, and for a last row that
    may be cut off.
    """
    if block.is_open:
        _refuse_cut_off(block, columns, file)
    table = None
    ways = ((pa.int32(), extra), (pa.float64(), extra), (pa.float64(), ()))
    for number, more in ways if is_whole else ways[1:]:
        try:
            table = _parse(block, columns, number, more)
            break
        except pa.ArrowInvalid as error:
            reason = str(error)
    if table is None:
        raise _first_fault(block, columns, file, reason)
    numbers = np.arange(block.first, block.first + block.count, dtype=np.int64)
    if len(table) != numbers.size:
        is_row = np.array([bool(line.strip()) for line in block.lines])
        if is_row.sum() != len(table):
            raise _first_fault(block, columns, file, "a quoted value goes over several lines")
        numbers = numbers[is_row]
    return table, numbers


def _parse(
    block: LineBlock, columns: TableColumns, number: pa.DataType, extra: Sequence[str]
) -> pa.RecordBatch:
    types = dict.fromkeys(columns.bands.values(), number)
    types[columns.date] = pa.date32()
    types |= dict.fromkeys(columns.point, pa.string() if columns.is_raw else pa.float64())
    if columns.label is not None:
        types[columns.label] = pa.string()
    types |= dict.fromkeys(extra, pa.float64())
    table = pyarrow.csv.read_csv(
        pa.BufferReader(block.text),
        read_options=pyarrow.csv.ReadOptions(
            column_names=list(columns.header),
            # blocks are read side by side; one is never cut, so that its rows keep their numbers
            use_threads=False,
            block_size=len(block.text) + 1,
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=[*columns.needed, *extra],
            column_types=types,
            null_values=list(_NO_VALUE),
        ),
    )
    if not len(table):
        return pa.RecordBatch.from_pylist([], schema=table.schema)
    return table.combine_chunks().to_batches()[0]


def _refuse_cut_off(block: LineBlock, columns: TableColumns, file: str) -> None:
    """Refuse a last line without an end, unless its last value proves to be whole."""
    row, line = block.first + block.count - 1, block.lines[-1]
    try:
        fields = next(csv.reader([line.decode("utf-8")], strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        fields = []
    is_whole = len(fields) == len(columns.header)
    if is_whole and columns.is_raw and columns.header[-1] == columns.point[0]:
        lon, _ = points_of(pa.array([fields[-1]]))
        if np.isfinite(lon).all():
            return
    raise InputError(
        f"{file!r}, row {row} (the last) is cut off or lacks its line end: it has {len(fields)} of "
        f"{len(columns.header)} values; "
        + ("if they are whole, adding a line end is enough; else " if is_whole else "")
        + "export the table again"
    )


def _first_fault(block: LineBlock, columns: TableColumns, file: str, reason: str) -> InputError:
    """Look for the first wrong row of a block that could not be read as a whole."""
    for row, line in enumerate(block.lines, start=block.first):
        if line.strip() and (fault := _fault(line, columns)):
            return InputError(f"{file!r}, row {row}: {fault}")
    return InputError(
        f"{file!r}, rows {block.first} to {block.first + block.count - 1} cannot be read: "
        f"{reason[:200]}"
    )


def _fault(line: bytes, columns: TableColumns) -> str | None:
    """Say what is wrong with one row; None if nothing is."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes that are no UTF-8; save the table as UTF-8"
    try:
        fields = next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        return f"no CSV ({error}): a quote is not closed?"
    if len(fields) != len(columns.header):
        return (
            f"{len(fields)} values, the header names {len(columns.header)}; it begins with "
            f"{text[:40]!r}"
        )
    values = dict(zip(columns.header, fields, strict=True))
    numeric = (*columns.bands.values(), *(() if columns.is_raw else columns.point))
    for name in numeric:
        if values[name].strip() not in _NO_VALUE and not _is_number(values[name]):
            return f"{name} = {values[name][:40]!r} is no number"
    if not _is_day(values[columns.date]):
        return f"{columns.date} = {values[columns.date][:40]!r}; expected YYYY-MM-DD"
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # which Python alone allows


def _is_day(text: str) -> bool:
    if not _DAY.fullmatch(text):
        return False
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True
