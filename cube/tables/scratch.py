"""Records in any order in, a stack's layers out: the file that it is filled in."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Int16, Int64

from cube.bands import NODATA
from cube.errors import WorkFailedError

_PAGE = 4096
"""Bytes that a disk gives at once."""


class Scratch:
    """The stack while it is filled: (time, y, x, band) in a sparse file, with no data as 0.

    A record's bands lie together, so that one row of a table is one write. The file is mapped anew
    for each part: pages that stayed mapped would count as memory of the process. What is written
    through a map must be reserved before, or a full disk would end the process without a word.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int, int]) -> None:
        self.shape = shape
        self._values, self._places = folder / "values", folder / "places"
        sizes = 2 * int(np.prod(shape, dtype=np.int64)), 16 * shape[1] * shape[2]
        with told_if_full(folder, sum(sizes)):
            for file, size in zip((self._values, self._places), sizes, strict=True):
                with file.open("wb") as out:
                    out.truncate(size)
        self._most = sum(sizes)

    def reserve(self, slot: Int64[np.ndarray, " row"], pixel: Int64[np.ndarray, " row"]) -> None:
        """Have the disk hold the places of these values and pixels; raises `WorkFailedError`."""
        with told_if_full(self._values.parent, self._most):
            _reserve(self._values, slot, 2 * self.shape[3])
            _reserve(self._places, pixel, 16)

    def values(self) -> np.ndarray:
        """Map the values, (slot, band)."""
        return np.memmap(self._values, np.int16, "r+").reshape(-1, self.shape[3])

    def places(self) -> np.ndarray:
        """Map longitude and latitude of each pixel's first record, (pixel, 2); both 0 for none."""
        return np.memmap(self._places, np.float64, "r+").reshape(-1, 2)

    def layers(
        self, dates: slice, rows: slice, columns: slice
    ) -> Int16[np.ndarray, "time y x band"]:
        """Return some dates of a window, as stored units."""
        _, height, width, bands = self.shape
        shape = (dates.stop - dates.start, rows.stop - rows.start, columns.stop - columns.start)
        found = np.empty((*shape, bands), np.int16)
        with self._values.open("rb") as file:
            # read, not mapped: where files lie in memory, a look at a hole would fill it
            for date, layer in enumerate(found, start=dates.start):
                for row, line in enumerate(layer, start=rows.start):
                    first = (date * height + row) * width + columns.start
                    os.preadv(file.fileno(), [line.data], 2 * bands * first)
        found ^= np.int16(NODATA)
        return found


def _reserve(file: Path, place: Int64[np.ndarray, " row"], size: int) -> None:
    """Have the disk hold records of `size` bytes at these places of a file; raises `OSError`."""
    pages = np.unique(np.concatenate([place * size, (place + 1) * size - 1]) // _PAGE)
    begins = np.flatnonzero(np.diff(pages, prepend=-2) != 1)
    ends = np.append(begins[1:], pages.size) - 1
    whole = file.stat().st_size
    allocate = getattr(os, "posix_fallocate", None)  # which macOS lacks
    if allocate is None:
        return
    with file.open("rb+") as out:
        for first, last in zip(pages[begins].tolist(), pages[ends].tolist(), strict=True):
            start = first * _PAGE
            allocate(out.fileno(), start, min((last + 1) * _PAGE, whole) - start)


@contextmanager
def told_if_full(folder: Path, needed: int, *, is_all: bool = True) -> Iterator[None]:
    """Raise `WorkFailedError` where the disk of `folder` does not hold what is written there.

    `needed` bytes are the most that it can be, or unless `is_all` the next part of it.
    """
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(folder).free
        raise WorkFailedError(
            f"{str(folder)!r} cannot be written ({error.strerror or error}): "
            f"{'up to' if is_all else 'more than'} {needed / 1e9:.3g} GB are needed there and "
            f"{free / 1e9:.3g} GB are free; make room, or choose a folder on a larger disk with --to"
        ) from error
