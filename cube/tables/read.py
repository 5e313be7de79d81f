"""A table's file in (CSV, gzip or Parquet), its rows out, block by block in bounded memory."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from cube.errors import InputError
from cube.tables.columns import TableColumns, recognise_columns
from cube.tables.csvblock import parse_block, split_header
from cube.tables.indices import compare_indices
from cube.tables.lines import LineBlock, is_gzip, line_blocks
from cube.tables.rows import TableRows, rows_of

_Block = TypeVar("_Block")

PARQUET_SUFFIXES = (".parquet", ".pq")
TABLE_SUFFIXES = (".csv", ".csv.gz", *PARQUET_SUFFIXES)
"""Names of files that are taken for tables in a folder."""

_PARQUET_ROWS = 65_536
_MOST_THREADS = 4


def table_columns(path: Path) -> TableColumns:
    """Return which column of a file holds what; raises `InputError` if it is no table of pixels."""
    if _is_parquet(path):
        with _open_parquet(path) as file:
            return recognise_columns(file.schema_arrow.names, file=path.name)
    header = next(line_blocks(path))
    return recognise_columns(split_header(header.text, file=path.name), file=path.name)


def read_rows(
    path: Path, columns: TableColumns, *, scale: float | None = None
) -> Iterator[TableRows]:
    """Yield the rows of a file in order, as `cube.tables.rows.rows_of` gives them.

    At most a few blocks are in memory at a time, whatever the size of the file. Columns of indices
    are compared with the bands in the first block. Raises `InputError` with file and row.
    """
    if _is_parquet(path):
        yield from _parquet_rows(path, columns, scale)
        return
    name, is_whole = path.name, True
    a_band = next(iter(columns.bands.values()))

    def rows(at: int, block: LineBlock) -> TableRows:
        nonlocal is_whole
        extra = tuple(columns.checks.values()) if at == 0 else ()
        table, numbers = parse_block(block, columns, file=name, extra=extra, is_whole=is_whole)
        is_whole &= pa.types.is_integer(table[a_band].type)  # how the others will be, most likely
        found = rows_of(table, columns, file=name, numbers=numbers, scale=scale)
        return (
            replace(found, indices=compare_indices(table, columns, scale=scale))
            if at == 0
            else found
        )

    blocks = itertools.islice(line_blocks(path), 1, None)
    yield from _side_by_side(rows, blocks)


def _side_by_side(
    work: Callable[[int, _Block], TableRows], blocks: Iterable[_Block]
) -> Iterator[TableRows]:
    """Yield `work(number, block)` in order, a few at a time in threads: Arrow and NumPy use them."""
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    waiting: deque[Future[TableRows]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for at, block in enumerate(blocks):
                waiting.append(pool.submit(work, at, block))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _is_parquet(path: Path) -> bool:
    if path.suffix.lower() not in PARQUET_SUFFIXES:
        return False
    if is_gzip(path):
        raise InputError(f"{path.name!r} is gzip, not Parquet; give it its right name")
    return True


def _open_parquet(path: Path) -> pyarrow.parquet.ParquetFile:
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        size = path.stat().st_size
        raise InputError(
            f"{path.name!r} ({size} bytes) cannot be read as Parquet, or was cut off: "
            f"{str(error)[:200]}"
        ) from error


def _parquet_rows(path: Path, columns: TableColumns, scale: float | None) -> Iterator[TableRows]:
    first = 1
    with _open_parquet(path) as file:
        wanted = [*columns.needed, *columns.checks.values()]
        batches = file.iter_batches(_PARQUET_ROWS, columns=wanted)
        while (batch := _next_batch(batches, path)) is not None:
            numbers = np.arange(first, first + len(batch), dtype=np.int64)
            table = _typed(batch, columns, path.name, first)
            rows = rows_of(table, columns, file=path.name, numbers=numbers, scale=scale)
            yield (
                replace(rows, indices=compare_indices(table, columns, scale=scale))
                if first == 1
                else rows
            )
            first += len(batch)


def _next_batch(batches: Iterator[pa.RecordBatch], path: Path) -> pa.RecordBatch | None:
    try:
        return next(batches, None)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path.name!r} has damaged Parquet data: {str(error)[:200]}") from error


def _refuse_no_date(column: pa.Array, columns: TableColumns, file: str) -> None:
    """Refuse numbers as dates: they count days, seconds or milliseconds, and nothing says which."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (is_text or pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
        raise InputError(
            f"{file!r}: column {columns.date!r} holds {kind}, no dates; expected are dates, times "
            "or text YYYY-MM-DD"
        )


def _universal(column: pa.Array) -> pa.Array:
    """Return times of a zone as those of UTC, whose days the satellite's products have."""
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        # the numbers count from 1970 in UTC whatever the zone, which is only how they are shown
        return column.view(pa.timestamp(column.type.unit))
    return column


def _typed(batch: pa.RecordBatch, columns: TableColumns, file: str, first: int) -> pa.RecordBatch:
    """Return a part of a Parquet file with the types that a CSV gives."""
    types = dict.fromkeys((*columns.bands.values(), *columns.checks.values()), pa.float64())
    types |= dict.fromkeys(columns.point, pa.string() if columns.is_raw else pa.float64())
    types[columns.date] = pa.date32()
    if columns.label is not None:
        types[columns.label] = pa.string()
    _refuse_no_date(batch[columns.date], columns, file)
    made = {}
    for name, kind in types.items():
        column = _universal(batch[name]) if name == columns.date else batch[name]
        is_whole = pa.types.is_integer(column.type) and kind == pa.float64()
        try:
            made[name] = pc.cast(column, pa.int64() if is_whole else kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            if name in columns.checks.values():
                continue  # it is only looked at
            end = first + len(batch) - 1
            expected = "; expected YYYY-MM-DD" if name == columns.date else ""
            raise InputError(
                f"{file!r}, rows {first} to {end}: column {name!r} ({column.type}) cannot be read "
                f"as {kind}: {str(error)[:120]}{expected}"
            ) from error
    return pa.RecordBatch.from_pydict(made)
