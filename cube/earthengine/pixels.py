"""An image and a window in, the request for its pixels out; and the answer, checked, as an array."""

import io
from typing import Any

import numpy as np
from jaxtyping import Int16
from odc.geo.geobox import GeoBox

from cube.earthengine.errors import PassingError
from cube.earthengine.requests import grid_of

WORKLOAD = "canopycube"
"""Tag by which the project's owner finds in the Cloud console what requests cost of the quota."""

_LONGEST_HEADER = 500_000
"""Bytes; one with 1,024 long names has 150,000."""


def pixel_request(image: Any, window: GeoBox, bands: tuple[str, ...]) -> dict[str, Any]:
    """Return what `ee.data.computePixels` is called with: nothing is left to its defaults.

    xee is no better way to it: it sends one request for each band and chunk where this is one for
    all bands of a window. Raises `InputError` for a grid that cannot be asked for.
    """
    return {
        "expression": image,
        "fileFormat": "NPY",
        "bandIds": list(bands),
        "grid": grid_of(window),
        "workloadTag": WORKLOAD,
    }


def read_pixels(
    body: bytes, shape: tuple[int, int], bands: tuple[str, ...]
) -> Int16[np.ndarray, "y x band"]:
    """Return the pixels of an answer, a view of `body`, in stored units with nodata -32768.

    Raises `PassingError` for what is not exactly int16 in these bands and this (height, width):
    Earth Engine was asked for that and nothing else.
    """
    found, dtype, start = _header(body)
    expected = np.dtype([(name, "<i2") for name in bands])
    if found != shape:
        raise PassingError(f"the answer has shape {found} instead of {shape}")
    if dtype.names != expected.names:
        raise PassingError(f"the answer has bands {dtype.names} instead of {bands}")
    if dtype != expected:
        kinds = sorted({str(dtype[name]) for name in bands})
        raise PassingError(f"the answer has numbers of {', '.join(kinds)} instead of int16")
    if len(body) - start != expected.itemsize * shape[0] * shape[1]:
        raise PassingError(f"the answer has {len(body) - start} bytes of pixels: cut short")
    flat = np.frombuffer(body, "<i2", offset=start)
    return flat.reshape(*shape, len(bands))  # (y, x, band)


def _header(body: bytes) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return shape, dtype and where the numbers start; reads no object and allocates nothing."""
    file = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            found = np.lib.format.read_array_header_1_0(file, max_header_size=_LONGEST_HEADER)
        else:
            found = np.lib.format.read_array_header_2_0(file, max_header_size=_LONGEST_HEADER)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        begin = body[:40].decode("ascii", "replace")
        raise PassingError(f"the answer is no array: {begin!r}") from None
    shape, is_fortran, dtype = found
    if is_fortran or dtype.names is None:
        raise PassingError("the answer is no array of named bands, row by row")
    return shape, dtype, file.tell()
