"""A header and a window in, pixels out; or what fetching them would cost, before it is done."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Integer

from cube.cog.cache import Pieces
from cube.cog.decode import decode_block
from cube.cog.fetch import Fetcher, is_fetched
from cube.cog.header import Cog, Level

_GAP = 16 * 1024
"""Bytes between two blocks that are fetched along rather than asked around: at 50 ms a request and
10 MB/s a connection, 500 KB would pay; but servers count bytes too, and GDAL leaves 8 bytes."""

_MOST = 16 * 1024 * 1024
"""Bytes of one request, so that a connection that breaks loses no more."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Blocks that lie together in the file and are fetched by one request."""

    start: int
    """First byte."""
    stop: int
    """Byte after the last."""
    blocks: tuple[tuple[int, int], ...]
    """(block row, block column) of each, in the order of the file."""


def pieces(level: Level, rows: slice, columns: slice) -> list[Piece]:
    """Return the requests that fetch the blocks of a level which a window of it touches.

    `rows` and `columns` lie inside the level. Blocks that were never written cost nothing.
    """
    height, width = level.block
    found: list[Piece] = []
    for start, size, place in sorted(
        (int(level.starts[row, column]), int(level.sizes[row, column]), (row, column))
        for row in range(rows.start // height, -(-rows.stop // height))
        for column in range(columns.start // width, -(-columns.stop // width))
        if level.sizes[row, column]
    ):
        last = found[-1] if found else None
        if last and start - last.stop <= _GAP and start + size - last.start <= _MOST:
            stop = max(last.stop, start + size)
            found[-1] = Piece(start=last.start, stop=stop, blocks=(*last.blocks, place))
        else:
            found.append(Piece(start=start, stop=start + size, blocks=(place,)))
    return found


def read_window(
    cog: Cog, href: str, rows: slice, columns: slice, *, level: int = 0, fetcher: Fetcher
) -> Integer[np.ndarray, "row column"]:
    """Return the pixels of a window that lies inside a level; unwritten blocks are nodata (or 0).

    Raises `FileBrokenError` or `FileUnreachableError`.
    """
    image = cog.levels[level]
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    out = np.full(shape, 0 if cog.nodata is None else int(cog.nodata), cog.dtype.newbyteorder("="))
    for piece in pieces(image, rows, columns):
        body = _fetched(href, piece, fetcher, cog.length)
        for place, block in _decoded(image, piece, body, cog.dtype):
            _put(out, block, place, image.block, (rows.start, columns.start))
    return out


PIECES = Pieces()
"""What this process has fetched over the network last."""


def _fetched(href: str, piece: Piece, fetcher: Fetcher, length: int) -> bytes:
    def fetch() -> bytes:
        return fetcher.fetch(href, piece.start, piece.stop, length=length)

    if not is_fetched(href):
        return fetch()
    return PIECES.get((href, length, piece.start, piece.stop), fetch)


def _decoded(
    level: Level, piece: Piece, body: bytes, dtype: np.dtype[Any]
) -> Iterator[tuple[tuple[int, int], Integer[np.ndarray, "row column"]]]:
    view = memoryview(body)
    for place in piece.blocks:
        start = int(level.starts[place]) - piece.start
        yield (
            place,
            decode_block(
                view[start : start + int(level.sizes[place])],
                shape=level.block,
                dtype=dtype,
                compression=level.compression,
                predictor=level.predictor,
            ),
        )


def _put(
    out: Integer[np.ndarray, "row column"],
    block: Integer[np.ndarray, "block_row block_column"],
    place: tuple[int, int],
    edge: tuple[int, int],
    origin: tuple[int, int],
) -> None:
    """Copy the part of a block that lies in the window which begins at `origin`."""
    inside, source = [], []
    for size, number, length, first in zip(out.shape, place, edge, origin, strict=True):
        start = number * length - first
        inside.append(slice(max(start, 0), min(start + length, size)))
        source.append(slice(max(-start, 0), min(length, size - start)))
    out[tuple(inside)] = block[tuple(source)]
