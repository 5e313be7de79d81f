"""Cells of a cube in, their values out: each stored chunk that has cells is read once, by one task."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from jaxtyping import Int64, Shaped

from cube.errors import WorkFailedError
from cube.place import Place, zarr_place
from cube.spec import CubeSpec

_READ_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True, eq=False)
class ChunkRead:
    """The cells that one task takes out of one chunk, through all periods."""

    path: Place
    """The cube."""
    variable: str
    """Name of a variable (time, …, y, x)."""
    rows: slice
    """Rows of the chunk in the grid."""
    columns: slice
    """Columns of the chunk in the grid."""
    cell: Int64[np.ndarray, " part"]
    """Which of the cells asked for lie in the chunk."""
    row: Int64[np.ndarray, " part"]
    """Their rows in the grid."""
    column: Int64[np.ndarray, " part"]
    """Their columns in the grid."""

    @property
    def id(self) -> str:
        """Name of the read in messages, e.g. `reflectance from row 256, column 512`."""
        return f"{self.variable} from row {self.rows.start}, column {self.columns.start}"


Keep = Callable[[int, np.ndarray], None]
"""Takes the number of a read and its values, in any order."""

Run = Callable[[Sequence[ChunkRead], Keep], None]
"""Does every read with `read_chunk` and gives each to `Keep`: one after the other, or as tasks."""


def read_in_turn(reads: Sequence[ChunkRead], keep: Keep) -> None:
    """Do one read after the other in this process; the store is opened once."""
    opened: dict[tuple[Place, str], zarr.Array[Any]] = {}
    for number, read in enumerate(reads):
        key = read.path, read.variable
        if key not in opened:
            opened[key] = _opened(*key)
        keep(number, _values(opened[key], read))


def read_chunk(read: ChunkRead) -> Shaped[np.ndarray, "..."]:
    """Return the stored values of the cells of one chunk, (time, …, cell).

    At most 64 MiB of the chunk's periods, or one period if that is more, are in memory at once.
    Raises `WorkFailedError` naming the place if the chunk cannot be read.
    """
    try:
        array = _opened(read.path, read.variable)
    except (OSError, ValueError, KeyError) as error:
        raise _cannot_be_read(read, error) from error
    return _values(array, read)


def _opened(path: Place, variable: str) -> zarr.Array[Any]:
    return zarr.open_array(zarr_place(path), path=variable, mode="r")


def _values(array: zarr.Array[Any], read: ChunkRead) -> Shaped[np.ndarray, "..."]:
    height = read.rows.stop - read.rows.start
    width = read.columns.stop - read.columns.start
    period_bytes = int(np.prod(array.shape[1:-2])) * height * width * array.dtype.itemsize
    batch = max(1, _READ_BYTES // period_bytes)
    row, column = read.row - read.rows.start, read.column - read.columns.start
    parts = []
    try:
        for first in range(0, array.shape[0], batch):
            block = np.asarray(array[first : first + batch, ..., read.rows, read.columns])
            parts.append(block[..., row, column])
    except (OSError, ValueError, RuntimeError) as error:
        raise _cannot_be_read(read, error) from error
    return np.concatenate(parts)


def _cannot_be_read(read: ChunkRead, error: Exception) -> WorkFailedError:
    return WorkFailedError(
        f"cube {str(read.path)!r}: {read.id} cannot be read: {str(error)[:200]}; "
        "`canopycube verify` finds damaged tiles"
    )


def read_cells(
    path: Place,
    spec: CubeSpec,
    variable: str,
    row: Int64[np.ndarray, " cell"],
    column: Int64[np.ndarray, " cell"],
    *,
    run: Run = read_in_turn,
) -> Shaped[np.ndarray, "cell ..."]:
    """Return the stored values of cells, (cell, time, …), in the order of the cells.

    Cells are sorted by chunk first. Values do not depend on `run`.
    """
    reads = _reads(path, spec, variable, row, column)
    array = _opened(path, variable)
    found = np.empty((row.size, *array.shape[:-2]), dtype=array.dtype)

    def keep(number: int, values: np.ndarray) -> None:
        found[reads[number].cell] = np.moveaxis(values, -1, 0)  # (cell, time, …)

    run(reads, keep)
    return found


def _reads(
    path: Place,
    spec: CubeSpec,
    variable: str,
    row: Int64[np.ndarray, " cell"],
    column: Int64[np.ndarray, " cell"],
) -> list[ChunkRead]:
    if not row.size:
        return []
    height, width = spec.geobox.shape
    edge = spec.chunk
    chunk = (row // edge) * (-(-width // edge)) + column // edge
    order = np.argsort(chunk, kind="stable")
    starts = np.flatnonzero(np.diff(chunk[order], prepend=-1))
    reads = []
    for cell in np.split(order, starts[1:]):
        top, left = int(row[cell[0]] // edge) * edge, int(column[cell[0]] // edge) * edge
        reads.append(
            ChunkRead(
                path=path,
                variable=variable,
                rows=slice(top, min(top + edge, height)),
                columns=slice(left, min(left + edge, width)),
                cell=cell,
                row=row[cell],
                column=column[cell],
            )
        )
    return reads
