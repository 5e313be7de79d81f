"""A tile of a store in, its pixels out: a shard is decoded where it is wanted.

Zarr decodes a shard through an event loop and threads of its own, into memory of its own, and
copies from there: measured for 12 x 10 x 512 x 512 values, 74 ms of a processor and 2.8 times the
memory of the tile, against 28 ms and once. What this does not know (another codec) is left to Zarr.
"""

import math
import struct
import sys
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numcodecs.blosc import decompress
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec
from zarr.core.metadata import ArrayV3Metadata

from cube.place import Place
from cube.spec import Region

_ABSENT = 2**64 - 1
"""Place and length in a shard's index of a chunk that was never written: all is fill value."""

_ENTRY = 8
"""Bytes of a number in the index, which has two for a chunk."""

_CHECKSUM = 4
"""Bytes behind the index: its CRC32C."""

_HEADER = struct.Struct("<4xI4xI")
"""Of a Blosc buffer: bytes when decoded, bytes as stored."""


def decode_shard(
    array: zarr.Array[Any], file: Place, region: Region, *, out: np.ndarray | None = None
) -> np.ndarray | None:
    """Return the pixels (…, y, x) of a tile that is one shard in `file`; None if Zarr must read it.

    They are written into `out` where that is given, which has their shape and type. Raises
    `ValueError` if the index is not what its checksum says, or a chunk not what index and header
    say or nothing that can be decoded; `OSError` if the file cannot be read. Bits of a chunk that
    decode into other pixels are not seen: digests of tiles tell those. A file that is not there is
    all fill value.
    """
    layout = _known_layout(array)
    if layout is None or _cuts(array, region):
        return None
    shape = (*array.shape[:-2], region.height, region.width)
    pixels = np.empty(shape, array.dtype) if out is None else out
    try:
        with _opened(file) as opened:
            _decode(opened, str(file), array, layout, pixels)
    except FileNotFoundError:
        pixels[...] = array.fill_value
    return pixels


def _opened(file: Place) -> FileIO | BytesIO:
    """Open a file; an object is fetched whole, in one request."""
    return file.open("rb", buffering=0) if isinstance(file, Path) else BytesIO(file.read_bytes())


def _known_layout(array: zarr.Array[Any]) -> ShardingCodec | None:
    """Return how the shards of `array` are laid out, if they are as `create_store` makes them."""
    metadata = array.metadata
    if not isinstance(metadata, ArrayV3Metadata) or len(metadata.codecs) != 1:
        return None
    codec = metadata.codecs[0]
    if not isinstance(codec, ShardingCodec) or codec.index_location.value != "end":
        return None
    first, *others = codec.codecs
    has_known_chunks = (
        _is_little(first, array.dtype.itemsize)
        and array.dtype.isnative
        and sys.byteorder == "little"
        and [type(inner) for inner in others] == [BloscCodec]
    )
    first, *others = codec.index_codecs
    has_known_index = _is_little(first, _ENTRY) and [type(inner) for inner in others] == [
        Crc32cCodec
    ]
    is_known = has_known_chunks and has_known_index and array.shards is not None
    return codec if is_known else None


def _is_little(codec: object, size: int) -> bool:
    """Say whether a codec stores numbers of so many bytes with the lowest byte first."""
    if not isinstance(codec, BytesCodec):
        return False
    return size == 1 or (codec.endian is not None and codec.endian.value == "little")


def _cuts(array: zarr.Array[Any], region: Region) -> bool:
    """Say whether a region is anything but one shard, of which the array's edge may cut the rest."""
    assert array.shards is not None  # a known layout has them
    before = zip(array.shards[:-2], array.shape[:-2], strict=True)
    places = zip(
        (region.top, region.left),
        (region.height, region.width),
        array.shards[-2:],
        array.shape[-2:],
        strict=True,
    )
    return any(shard < size for shard, size in before) or any(
        start % shard or length != min(shard, size - start) for start, length, shard, size in places
    )


def _decode(
    file: FileIO | BytesIO,
    name: str,
    array: zarr.Array[Any],
    layout: ShardingCodec,
    pixels: np.ndarray,
) -> None:
    assert array.shards is not None  # a known layout has them
    chunk = layout.chunk_shape
    counts = tuple(shard // size for shard, size in zip(array.shards, chunk, strict=True))
    index, end = _index(file, name, counts)
    decoded = np.empty(chunk, array.dtype)
    for place in np.ndindex(counts):
        starts = [number * size for number, size in zip(place, chunk, strict=True)]
        target = pixels[tuple(slice(at, at + size) for at, size in zip(starts, chunk, strict=True))]
        if not target.size:  # behind the array's edge
            continue
        start, length = (int(value) for value in index[place])
        if start == length == _ABSENT:
            target[...] = array.fill_value
            continue
        stored = b""
        if start + length <= end:
            file.seek(start)
            stored = file.read(length)
        if not _holds(stored, decoded.nbytes):
            raise ValueError(f"chunk {place} of shard {name!r} is damaged")
        try:
            decompress(stored, decoded)
        except RuntimeError as error:
            raise ValueError(f"chunk {place} of shard {name!r} is damaged") from error
        target[...] = decoded[tuple(slice(0, size) for size in target.shape)]


def _holds(stored: bytes, size: int) -> bool:
    """Say whether a Blosc buffer is whole and makes so many bytes, by its own header."""
    if len(stored) < _HEADER.size:
        return False
    return bool(_HEADER.unpack_from(stored) == (size, len(stored)))


def _index(file: FileIO | BytesIO, name: str, counts: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """(where each chunk starts in the file and how long it is (…, 2), where chunks end)."""
    size = 2 * _ENTRY * math.prod(counts)
    end = file.seek(0, 2) - size - _CHECKSUM
    if end < 0:
        raise ValueError(f"shard {name!r} is cut short")
    file.seek(end)
    stored = file.read(size)
    if google_crc32c.value(stored) != int.from_bytes(file.read(_CHECKSUM), "little"):
        raise ValueError(f"the index of shard {name!r} is damaged")
    return np.frombuffer(stored, "<u8").reshape(*counts, 2), end
