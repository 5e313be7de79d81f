"""GeoJSON points as text in, longitudes and latitudes out."""

import json
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float64, Int64

from cube.errors import InputError

_COORDINATES = re.compile(r'^(.*"coordinates"\s*:\s*\[)[^\[\]]*(\].*)$', re.DOTALL)
_LONGEST = 1000
"""Characters of one point; a point has under a hundred."""


def points_of(
    text: pa.StringArray,
) -> tuple[Float64[np.ndarray, " row"], Float64[np.ndarray, " row"]]:
    """Return longitude and latitude of each GeoJSON point, NaN where the text is no such point.

    Rows that differ from the first in nothing but their two numbers, which is how Earth Engine
    writes them, are read together; others one by one. Keys may come in any order.
    """
    found = np.full((len(text), 2), np.nan)
    is_alike = np.zeros(len(text), bool)
    if frame := _frame(text):
        head, tail = frame
        alike = pc.and_(pc.starts_with(text, head), pc.ends_with(text, tail))
        is_alike = pc.fill_null(alike, False).to_numpy(zero_copy_only=False)
        is_alike &= pc.fill_null(pc.binary_length(text), 0).to_numpy() >= len(head) + len(tail)
        numbers = _numbers(text.filter(pa.array(is_alike)), head, tail)
        if numbers is None:
            is_alike[:] = False
        else:
            found[is_alike] = numbers
    for row in np.flatnonzero(~is_alike).tolist():
        found[row] = _point(text[row].as_py())
    return found[:, 0], found[:, 1]


def _frame(text: pa.StringArray) -> tuple[str, str] | None:
    """Return what stands before and after the numbers of the first point; None if it is none."""
    first = text[0].as_py() if len(text) else None
    if first is None or not first.isascii() or not np.isfinite(_point(first)).all():
        return None
    parts = _COORDINATES.match(first)
    return (parts[1], parts[2]) if parts else None


def _numbers(text: pa.StringArray, head: str, tail: str) -> Float64[np.ndarray, "row 2"] | None:
    """Return the two numbers of points alike; None if one has others."""
    try:
        inner = pc.utf8_slice_codeunits(text, len(head), -len(tail))
        pairs = pc.split_pattern(inner, ",", max_splits=1)
        if not pc.all(pc.equal(pc.list_value_length(pairs), 2)).as_py():
            return None
        return np.asarray(pc.cast(pc.utf8_trim_whitespace(pairs.flatten()), pa.float64())).reshape(
            -1, 2
        )
    except pa.ArrowInvalid:
        return None


def _point(text: str | None) -> tuple[float, float]:
    """Return the numbers of one GeoJSON point, NaN if it is anything else."""
    nothing = (np.nan, np.nan)
    if text is None or len(text) > _LONGEST:
        return nothing
    try:
        point = json.loads(text)
    except (ValueError, RecursionError):
        return nothing
    if not isinstance(point, dict) or point.get("type") != "Point":
        return nothing
    numbers = point.get("coordinates")
    if not isinstance(numbers, list) or not 2 <= len(numbers) <= 3:
        return nothing
    if any(isinstance(one, bool) or not isinstance(one, int | float) for one in numbers):
        return nothing
    try:
        return float(numbers[0]), float(numbers[1])
    except OverflowError:
        return nothing


def refuse_no_place(
    lon: Float64[np.ndarray, " row"],
    lat: Float64[np.ndarray, " row"],
    texts: Sequence[pa.Array],
    *,
    file: str,
    numbers: Int64[np.ndarray, " row"],
) -> None:
    """Raise `InputError` for the first row whose coordinates are no place on Earth.

    `texts` are the columns that they were read from, `numbers` those of the rows in their file.
    """
    with np.errstate(invalid="ignore"):
        is_place = (np.abs(lon) <= 180) & (np.abs(lat) <= 90)  # False for NaN too
    if is_place.all():
        return
    at = int(np.argmin(is_place))
    found = ", ".join(str(column[at].as_py()) for column in texts)[:120]
    what = (
        "is no GeoJSON point"
        if len(texts) == 1 and not np.isfinite(lon[at])
        else "is no place on Earth"
    )
    raise InputError(
        f"{file!r}, row {numbers[at]}: {found!r} {what}; expected longitude -180..180 and latitude "
        "-90..90"
        + (' as {"type": "Point", "coordinates": [longitude, latitude]}' if len(texts) == 1 else "")
    )
