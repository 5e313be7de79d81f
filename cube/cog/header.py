"""The first bytes of a cloud-optimised GeoTIFF in, `Cog` out: its grid, its levels, their blocks."""

import io
import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass
from enum import IntEnum
from typing import IO, Any, cast

import numpy as np
import tifffile
from affine import Affine
from jaxtyping import Int64
from odc.geo.geobox import GeoBox

from cube.cog.decode import CODECS
from cube.cog.errors import FileBrokenError, FileUnreachableError, NotDirectError
from cube.cog.fetch import Fetcher

FIRST_BYTES = 16 * 1024
"""Read at once: the directories of a 10,980-pixel band with 484 blocks and overviews need some
10 KB, GDAL writes them first, and reads as much itself."""

_MOST_BYTES = 8 * 1024 * 1024
"""A header longer than this is none of an image that we would read."""

_MOST_LEVELS = 24

_LARGEST_BLOCK = 8192
"""Rows or columns of a block; one that claims more would take gigabytes to unpack."""

KEPT_HEADER_BYTES = 64 * 1024 * 1024
"""Headers kept in memory: 8,000 bands of 10,980 pixels in blocks of 512, three years over one tile."""

_HEADER_BYTES = 2048
"""A header's own size in memory, beside its tables of blocks."""

# What tifffile finds odd about a broken file is told in our error; without a handler of its own
# logging would print it besides.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass(frozen=True, kw_only=True, eq=False)
class Level:
    """The image at full size or one of its overviews."""

    shape: tuple[int, int]
    """Rows and columns."""
    block: tuple[int, int]
    """Rows and columns of one stored block; those at the far edges are stored full."""
    starts: Int64[np.ndarray, "block_row block_column"]
    """Byte where each block starts; 0 for one that was never written (all nodata)."""
    sizes: Int64[np.ndarray, "block_row block_column"]
    """Bytes of each block; 0 for one that was never written."""
    compression: int
    """TIFF compression tag."""
    predictor: int
    """TIFF predictor tag: 1 none, 2 differences along rows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cog:
    """A tiled GeoTIFF of one band whose blocks can be fetched one by one."""

    epsg: int
    """CRS of the file."""
    transform: Affine
    """Pixel to CRS at full size."""
    dtype: np.dtype[Any]
    """Type of a pixel, in the file's byte order."""
    nodata: float | None
    """Declared nodata value."""
    levels: tuple[Level, ...]
    """Full size first, then overviews from fine to coarse."""
    length: int
    """Bytes of the file."""

    @property
    def size(self) -> int:
        """Bytes it takes in memory, about."""
        tables = sum(level.starts.nbytes + level.sizes.nbytes for level in self.levels)
        return _HEADER_BYTES + tables

    def grid(self, level: int = 0) -> GeoBox:
        """Return the grid of a level."""
        rows, columns = self.levels[0].shape
        height, width = self.levels[level].shape
        transform = self.transform * Affine.scale(columns / width, rows / height)
        return GeoBox((height, width), transform, f"EPSG:{self.epsg}")

    def level_for(self, pixel_size: float) -> int:
        """Return the coarsest level whose pixels are not larger than `pixel_size`, in CRS units."""
        best = 0
        for number, level in enumerate(self.levels):
            scale = self.levels[0].shape[1] / level.shape[1]
            if scale * abs(self.transform.a) <= pixel_size * (1 + 1e-6):
                best = number
        return best


class Headers:
    """Headers of this process, each read once while it is among the last used."""

    def __init__(self, most: int = KEPT_HEADER_BYTES) -> None:
        self._found: OrderedDict[str, Cog] = OrderedDict()
        self._other: set[str] = set()
        self._busy: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self._most, self._size = most, 0

    def get(self, href: str, fetcher: Fetcher, *, stamp: str = "") -> Cog:
        """Return the header of `href`; threads that ask for one at once wait for one answer.

        `stamp` tells a file from another that came into its place. Raises what `read_header` does.
        """
        key = f"{stamp} {href}"
        with self._lock:
            busy = self._busy.setdefault(key, threading.Lock())
        with busy:
            with self._lock:
                if key in self._other:
                    raise NotDirectError(href)
                if key in self._found:
                    self._found.move_to_end(key)
                    return self._found[key]
            try:
                header = read_header(href, fetcher)
            except NotDirectError:
                with self._lock:
                    self._other.add(key)
                raise
            finally:
                with self._lock:
                    self._busy.pop(key, None)
            with self._lock:
                self._found[key] = header
                self._size += header.size
                while self._size > self._most:
                    _, gone = self._found.popitem(last=False)
                    self._size -= gone.size
            return header

    def forget(self) -> None:
        """Empty it."""
        with self._lock:
            self._found.clear()
            self._other.clear()
            self._size = 0


def read_header(href: str, fetcher: Fetcher) -> Cog:
    """Read the header of a GeoTIFF, in one request where its directories come first.

    Raises `NotDirectError` for a raster that must be read in another way, `FileBrokenError` for
    a file that is damaged or missing, `FileUnreachableError`.
    """
    body, length = fetcher.head(href, FIRST_BYTES)
    if body[:4] not in _MAGIC:
        raise NotDirectError("the file is no TIFF")
    try:
        with tifffile.TiffFile(cast(IO[bytes], _Head(href, fetcher, body, length))) as file:
            pages = [page for page, _ in zip(file.pages, range(_MOST_LEVELS), strict=False)]
            return _cog(pages, length)
    except (FileBrokenError, FileUnreachableError, NotDirectError, MemoryError):
        raise
    except Exception as error:  # a parser stumbles over foreign bytes in any way
        raise FileBrokenError(f"the TIFF header is damaged: {str(error)[:120]}") from error


_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
"""TIFF and BigTIFF in both byte orders."""


class _Head(io.RawIOBase):
    """The head of a remote file as tifffile wants it; what lies beyond is fetched when asked for."""

    def __init__(self, href: str, fetcher: Fetcher, body: bytes, length: int) -> None:
        self._href, self._fetcher, self._body, self._length = href, fetcher, body, length
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._length}[whence]
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def read(self, size: int = -1) -> bytes:
        # before memory is taken for it: a damaged tag may ask for a gigabyte
        stop = self._length if size < 0 else min(self._place + size, self._length)
        found = self._bytes(self._place, stop) if stop > self._place else b""
        self._place += len(found)
        return found

    def readinto(self, buffer: Any) -> int:
        stop = min(self._place + len(buffer), self._length)
        found = self._bytes(self._place, stop) if stop > self._place else b""
        buffer[: len(found)] = found
        self._place += len(found)
        return len(found)

    def _bytes(self, start: int, stop: int) -> bytes:
        if stop <= len(self._body):
            return self._body[start:stop]
        if stop - start > _MOST_BYTES:
            raise FileBrokenError(f"the TIFF header wants {stop - start} bytes at {start}")
        if stop <= _MOST_BYTES:  # the header goes on: take as much again
            more = min(max(stop, 2 * len(self._body)), self._length)
            self._body += self._fetcher.fetch(self._href, len(self._body), more)
            return self._body[start:stop]
        return self._fetcher.fetch(self._href, start, stop)  # directories at the file's end


def _cog(pages: list[Any], length: int) -> Cog:
    images = [page for page in pages if not page.is_mask]
    first = images[0]
    levels = [first, *(page for page in images[1:] if page.is_reduced)]
    for page in levels:
        _refuse_other_kinds(page, first)
    shape, dtype = first.shape, first.dtype
    return (
        Cog(
            epsg=_epsg(first.geotiff_tags),
            transform=_transform(first.geotiff_tags),
            dtype=np.dtype(dtype).newbyteorder(first.parent.byteorder),
            nodata=_nodata(first),
            length=length,
            levels=tuple(
                sorted(
                    (_level(page, length) for page in levels),
                    key=lambda level: -level.shape[0] * level.shape[1],
                )
            ),
        )
        if len(shape) == 2
        else _refuse("it has several bands")
    )


def _refuse(why: str) -> Any:
    raise NotDirectError(why)


def _refuse_other_kinds(page: Any, first: Any) -> None:
    if not page.is_tiled:
        raise NotDirectError("its pixels are in strips")
    if page.samplesperpixel != 1 or page.dtype is None or np.dtype(page.dtype).kind not in "ui":
        raise NotDirectError(f"it holds {page.samplesperpixel} bands of {page.dtype}")
    if not all(1 <= edge <= _LARGEST_BLOCK for edge in (page.tilelength, page.tilewidth)):
        raise NotDirectError(f"its blocks have {page.tilelength} x {page.tilewidth} pixels")
    if page.dtype != first.dtype:
        raise NotDirectError("its overviews are of another type")
    if int(page.compression) not in CODECS or int(page.predictor) not in (1, 2):
        raise NotDirectError(f"it is compressed by {page.compression!r}")


def _level(page: Any, length: int) -> Level:
    block = (int(page.tilelength), int(page.tilewidth))
    shape = (int(page.imagelength), int(page.imagewidth))
    grid = tuple(-(-size // edge) for size, edge in zip(shape, block, strict=True))
    starts = np.asarray(page.dataoffsets, np.int64)
    sizes = np.asarray(page.databytecounts, np.int64)
    if starts.size != grid[0] * grid[1] or starts.size != sizes.size:
        raise FileBrokenError(
            f"the TIFF header lists {starts.size} blocks where {grid[0] * grid[1]} belong"
        )
    if sizes.size and (min(starts.min(), sizes.min()) < 0 or (starts + sizes).max() > length):
        raise FileBrokenError(
            f"blocks reach byte {(starts + sizes).max()} but the file ends at {length}"
        )
    return Level(
        shape=shape,
        block=block,
        starts=starts.reshape(grid),
        sizes=np.where(starts > 0, sizes, 0).reshape(grid),
        compression=int(page.compression),
        predictor=int(page.predictor),
    )


def _epsg(tags: dict[str, Any]) -> int:
    code = tags.get("ProjectedCSTypeGeoKey", tags.get("GeographicTypeGeoKey"))
    number = int(code) if isinstance(code, int | IntEnum) else 0
    if not 1024 <= number < 32767:
        raise NotDirectError("its CRS has no EPSG code in the header")
    return number


def _transform(tags: dict[str, Any]) -> Affine:
    if int(tags.get("GTRasterTypeGeoKey", 1)) != 1:
        raise NotDirectError("its coordinates are those of pixel centres")
    matrix, scale, tie = (
        tags.get(n) for n in ("ModelTransformation", "ModelPixelScale", "ModelTiepoint")
    )
    if matrix is not None:
        rows = np.asarray(matrix, float).reshape(4, 4)
        return Affine(rows[0, 0], rows[0, 1], rows[0, 3], rows[1, 0], rows[1, 1], rows[1, 3])
    if scale is None or tie is None or len(tie) != 6:
        raise NotDirectError("its place is told in another way than by a scale and one point")
    column, row, _, x, y, _ = tie
    return Affine(scale[0], 0, x - column * scale[0], 0, -scale[1], y + row * scale[1])


def _nodata(page: Any) -> float | None:
    tag = page.tags.get("GDAL_NODATA")
    return None if tag is None else float(str(tag.value).strip("\x00 "))
