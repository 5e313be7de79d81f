"""A file of the network that only GDAL can decode in, an open raster out: GDAL never asks itself.

GDAL takes a body that was cut short for the file's end, and its JPEG 2000 driver then gives wrong
pixels without an error (seen with GDAL 3.10: 20 of 28 reads). Here every byte comes through
`cube.cog.Fetcher`, which checks and asks again, and what it could not get is raised.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import rasterio

from cube.cog import Fetcher
from cube.stac.files import READ_ERRORS, opened, raster_environment

_BLOCK = 16 * 1024
"""Bytes asked for at least. A JPEG 2000 file without an index is a chain of a hundred tiles, each of
which tells where the next begins."""

_KEPT_BLOCKS = 1024
"""Blocks kept between openings of files (16 MB): the heads and the links of such chains."""


class _Blocks:
    """Blocks of files by (address, number), and lengths by (address, -1); the last used ones."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[str, int], bytes | int] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, int]) -> bytes | int | None:
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
            return self._found.get(key)

    def put(self, key: tuple[str, int], value: bytes | int) -> None:
        with self._lock:
            self._found[key] = value
            while len(self._found) > _KEPT_BLOCKS:
                self._found.popitem(last=False)

    def forget(self) -> None:
        with self._lock:
            self._found.clear()


BLOCKS = _Blocks()
"""What this process keeps."""


@contextmanager
def fetched_raster(href: str, fetcher: Fetcher) -> Iterator[rasterio.DatasetReader]:
    """Open a remote file, if it is of a format we accept.

    Raises what `fetcher` raises for bytes it could not get, even if GDAL can do without them, and
    otherwise what rasterio raises.
    """
    source = _Source(href, fetcher)
    try:
        with (
            raster_environment([href], {"GDAL_NUM_THREADS": "1"}),
            opened("raster", opener=source.open) as file,
        ):
            yield file
    except READ_ERRORS:
        if source.failure is not None:
            raise source.failure from None
        raise
    if source.failure is not None:
        raise source.failure


class _Source:
    """Bytes of one file for one opening of it."""

    def __init__(self, href: str, fetcher: Fetcher) -> None:
        self.failure: Exception | None = None
        self._href = href
        self._fetcher = fetcher

    def open(self, path: str, mode: str = "rb") -> "_Cursor":
        return _Cursor(self)

    def length(self) -> int:
        found = BLOCKS.get((self._href, -1))
        if isinstance(found, int):
            return found
        body, length = self._fetcher.head(self._href, _BLOCK)
        BLOCKS.put((self._href, 0), body)
        BLOCKS.put((self._href, -1), length)
        return length

    def bytes(self, start: int, size: int) -> bytes:
        """Return `size` bytes from `start`, less at the file's end."""
        length = self.length()
        stop = min(start + size, length) if size >= 0 else length
        if start >= stop:
            return b""
        first, last = start // _BLOCK, (stop - 1) // _BLOCK
        parts = []
        while first <= last:
            kept = BLOCKS.get((self._href, first))
            if not isinstance(kept, bytes):
                break
            parts.append(kept)
            first += 1
        if first <= last:
            body = self._fetcher.fetch(self._href, first * _BLOCK, min((last + 1) * _BLOCK, length))
            BLOCKS.put((self._href, last), body[(last - first) * _BLOCK :])
            parts.append(body)
        skipped = start - start // _BLOCK * _BLOCK
        return b"".join(parts)[skipped : skipped + stop - start]


class _Cursor:
    """A place in a file, with what GDAL calls; nothing can be raised through it."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        try:
            if self._source.failure is None:
                found = self._source.bytes(self._at, size)
                self._at += len(found)
                return found
        except Exception as error:  # noqa: BLE001, raised by fetched_raster
            self._source.failure = error
        return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            base = (0, self._at, self._source.length() if whence == 2 else 0)[whence]
            self._at = base + offset
        except Exception as error:  # noqa: BLE001, raised by fetched_raster
            self._source.failure = error
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> "_Cursor":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""
