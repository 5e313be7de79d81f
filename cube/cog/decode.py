"""The stored bytes of one block in, its pixels out."""

from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
from jaxtyping import Integer

from cube.cog.errors import FileBrokenError

_ERRORS = (
    imagecodecs.DeflateError,
    imagecodecs.LzwError,
    imagecodecs.ZstdError,
    imagecodecs.DelayedImportError,
    ValueError,
    RuntimeError,
)

CODECS: dict[int, Callable[[Any, int], Any]] = {
    1: lambda stored, size: stored,
    5: lambda stored, size: imagecodecs.lzw_decode(stored, out=size),
    8: lambda stored, size: imagecodecs.deflate_decode(stored, out=size),
    32946: lambda stored, size: imagecodecs.deflate_decode(stored, out=size),
    50000: lambda stored, size: imagecodecs.zstd_decode(stored, out=size),
}
"""How to unpack a block, by the TIFF compression tag, given the bytes that must come out: none,
LZW, Deflate by its two numbers (libdeflate: a third of zlib's time), Zstandard."""


def decode_block(
    stored: bytes | memoryview,
    *,
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    compression: int,
    predictor: int,
) -> Integer[np.ndarray, "row column"]:
    """Return the pixels of one block in native byte order.

    Raises `FileBrokenError` for bytes that do not unpack to exactly `shape`.
    """
    size = shape[0] * shape[1] * dtype.itemsize
    try:
        unpacked = CODECS[compression](stored, size)
    except _ERRORS as error:
        raise FileBrokenError(f"a block cannot be unpacked: {str(error)[:100]}") from error
    if len(unpacked) != size:
        raise FileBrokenError(f"a block unpacks to {len(unpacked)} bytes where {size} belong")
    pixels = np.frombuffer(unpacked, dtype).reshape(shape)
    if not dtype.isnative:
        pixels = pixels.astype(dtype.newbyteorder("="))
    if predictor == 2:
        return np.asarray(imagecodecs.delta_decode(pixels, axis=-1))
    return pixels
