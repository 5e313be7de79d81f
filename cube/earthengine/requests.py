"""A window and its bands in, windows out whose requests Earth Engine takes; and their grid."""

from collections.abc import Sequence
from typing import Any

from odc.geo.geobox import GeoBox
from pyproj.exceptions import CRSError

from cube.errors import InputError

REQUEST_BYTES = 50_331_648
"""Bytes of pixels that one answer may have, all bands together (48 MiB).

https://developers.google.com/earth-engine/guides/usage"""

LONGEST_SIDE = 32_768
"""Pixels along one side that one request may have."""

MOST_BANDS = 1_024
"""Bands that one request may have."""

SMALLEST_SIDE = 16
"""Pixels along a side that is cut no further, however little Earth Engine bears."""

PIXEL_BYTES = 2
"""Of one band: everything is asked for as int16."""

_HEADER_BYTES = 4096
_NAME_BYTES = 128
"""Spare for the header of an answer, which names each band."""

Part = tuple[slice, slice]
"""Rows and columns of a window."""


def request_windows(window: GeoBox, bands: Sequence[str]) -> list[GeoBox]:
    """Return the windows in which `window` is asked for, row by row, left to right.

    `bands` are all bands of a request, counts of looks included. Each window's pixels, with the
    answer's header, stay below `REQUEST_BYTES` and its sides within `LONGEST_SIDE`; together they
    cover `window` exactly, without overlap. Raises `InputError` for bands that fit no request.
    """
    return [window[part] for part in parts_of(window, bands)]


def parts_of(window: GeoBox, bands: Sequence[str]) -> list[Part]:
    """Return the same windows as rows and columns of `window`."""
    height, width = window.shape
    return _parts((slice(0, height), slice(0, width)), most_pixels(len(bands)))


def pixels_of(part: Part) -> int:
    """Return how many pixels a part has."""
    rows, columns = part
    return int((rows.stop - rows.start) * (columns.stop - columns.start))


def request_bytes(pixels: int, bands: int) -> int:
    """Return the bytes that the answer for so many pixels and bands has at most."""
    return pixels * bands * PIXEL_BYTES + _HEADER_BYTES + bands * _NAME_BYTES


def most_pixels(bands: int) -> int:
    """Return how many pixels a request with so many bands may have; raises `InputError`."""
    if not 1 <= bands <= MOST_BANDS:
        raise InputError(
            f"{bands} bands cannot be asked of Earth Engine at once; expected 1 to {MOST_BANDS}"
        )
    return (REQUEST_BYTES - 1 - _HEADER_BYTES - bands * _NAME_BYTES) // (bands * PIXEL_BYTES)


def quarters(part: Part) -> list[Part]:
    """Return the four pieces of a part that Earth Engine finds too large; none for a smallest one.

    A side of `SMALLEST_SIDE` pixels or fewer stays whole.
    """
    pieces = [(y, x) for y in _halves(part[0]) for x in _halves(part[1])]
    return pieces if len(pieces) > 1 else []


def _parts(part: Part, most: int) -> list[Part]:
    """Halve the longer side until a piece fits: as near to square as the whole allows."""
    (top, bottom), (left, right) = ((side.start, side.stop) for side in part)
    height, width = bottom - top, right - left
    if height * width <= most and max(height, width) <= LONGEST_SIDE:
        return [part]
    if height >= width:
        middle = top + (height + 1) // 2
        pieces = [(slice(top, middle), part[1]), (slice(middle, bottom), part[1])]
    else:
        middle = left + (width + 1) // 2
        pieces = [(part[0], slice(left, middle)), (part[0], slice(middle, right))]
    return [found for piece in pieces for found in _parts(piece, most)]


def _halves(side: slice) -> list[slice]:
    length = side.stop - side.start
    if length <= SMALLEST_SIDE:
        return [side]
    middle = side.start + (length + 1) // 2
    return [slice(side.start, middle), slice(middle, side.stop)]


def grid_of(window: GeoBox) -> dict[str, Any]:
    """Return `window` as the grid of a request: CRS, transform and shape, nothing left open.

    https://developers.google.com/earth-engine/reference/rest/v1/PixelGrid. Raises `InputError` for
    a grid without CRS, turned or upside down.
    """
    transform = window.transform
    if transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
        raise InputError(
            f"the grid with transform {tuple(transform)[:6]} is not north-up; Earth Engine is asked "
            "for grids whose rows go south and columns east"
        )
    height, width = window.shape
    return {
        "dimensions": {"width": width, "height": height},
        "affineTransform": {
            "scaleX": transform.a,
            "shearX": 0,
            "translateX": transform.c,
            "shearY": 0,
            "scaleY": transform.e,
            "translateY": transform.f,
        },
        **_reference(window),
    }


def _reference(window: GeoBox) -> dict[str, str]:
    crs = window.crs
    if crs is None:
        raise InputError("the grid has no CRS; Earth Engine cannot be asked for it")
    if str(crs).upper().startswith("EPSG:"):
        return {"crsCode": str(crs).upper()}
    try:
        return {"crsWkt": crs.proj.to_wkt("WKT1_GDAL")}
    except CRSError as error:
        raise InputError(
            f"CRS {str(crs)[:80]!r} cannot be written as WKT 1, which Earth Engine needs; choose "
            "one with an EPSG code"
        ) from error
