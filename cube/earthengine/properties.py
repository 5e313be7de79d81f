"""The properties of one of Earth Engine's Sentinel-2 images in, a `Scene` out."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cube.errors import InputError
from cube.stac.footprint import geojson, unwrapped
from cube.stac.identity import Identity, Label, identity_of
from cube.stac.scene import Scene

OFFSET_REASON = "Earth Engine's harmonised collection has the offset removed"

NAMES = (
    "system:index",
    "system:time_start",
    "system:footprint",
    "DATATAKE_IDENTIFIER",
    "MGRS_TILE",
    "PROCESSING_BASELINE",
    "GENERATION_TIME",
    "CLOUDY_PIXEL_PERCENTAGE",
    "PRODUCT_ID",
)
"""Properties of https://developers.google.com/earth-engine/datasets/catalog/COPERNICUS_S2_SR_HARMONIZED
in the order in which they are asked for."""

_INDEX = re.compile(r"\w{1,100}", re.ASCII)
_PATTERNS = {
    "DATATAKE_IDENTIFIER": re.compile(r"GS2[A-D]_\d{8}T\d{6}_\d{6}_N\d{2}\.\d{2}"),
    "MGRS_TILE": re.compile(r"(0?[1-9]|[1-5]\d|60)[C-HJ-NP-X][A-HJ-NP-Z]{2}"),
    "PROCESSING_BASELINE": re.compile(r"\d{2}\.\d{2}"),
}

_FIRST_YEAR, _LAST_YEAR = 2015, 2100


def scene_of(row: Sequence[Any], collection: str) -> Scene:
    """Return the scene that an image of `collection` is; `row` are its properties `NAMES`.

    Raises `InputError`, in one line that names the image, for properties that are missing or make
    no sense.
    """
    told = dict(zip(NAMES, row, strict=True))
    name = told["system:index"]
    if not isinstance(name, str) or not _INDEX.fullmatch(name):
        raise InputError(f"{collection!r} has an image whose system:index is {str(name)[:80]!r}")
    identity = _identity(name, told)
    scene = Scene(
        id=name,
        collection=collection,
        time=_time(name, "system:time_start", told["system:time_start"]),
        overpass=identity.overpass,
        tile=identity.tile,
        baseline=identity.baseline,
        version=identity.version,
        epsg=_utm_zone(identity.tile),
        footprint=_footprint(name, told["system:footprint"]),
        cloud_cover=_percentage(name, told["CLOUDY_PIXEL_PERCENTAGE"]),
        assets={},
        offset=0,
        offset_reason=OFFSET_REASON,
        is_locked=True,
    )
    try:
        _ = scene.overpass_start
    except ValueError:
        raise InputError(
            f"image {name!r} has DATATAKE_IDENTIFIER {told['DATATAKE_IDENTIFIER']!r}, whose time "
            "does not exist"
        ) from None
    return scene


def _identity(name: str, told: Mapping[str, Any]) -> Identity:
    """Return what the granule is, by the rules for every provider."""
    for key, pattern in _PATTERNS.items():
        if not isinstance(told[key], str) or not pattern.fullmatch(told[key]):
            raise InputError(
                f"image {name!r} has {key} {str(told[key])[:80]!r}; expected {pattern.pattern}"
            )
    made = _time(name, "GENERATION_TIME", told["GENERATION_TIME"])
    properties = {
        "platform": "sentinel-2",
        "s2:datatake_id": told["DATATAKE_IDENTIFIER"],
        "s2:mgrs_tile": told["MGRS_TILE"],
        "s2:processing_baseline": told["PROCESSING_BASELINE"],
        "s2:generation_time": made.isoformat(),
        "s2:product_uri": str(told["PRODUCT_ID"] or ""),
    }
    return identity_of(Label(id=name, properties=properties), longitude=0.0)


def _utm_zone(tile: str) -> int:
    """Return the EPSG code of a tile's zone; bands from N on are north of the equator."""
    return (32600 if tile[2] >= "N" else 32700) + int(tile[:2])


def _time(name: str, key: str, value: Any) -> datetime:
    if _is_number(value):
        time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=float(value))
        if _FIRST_YEAR <= time.year < _LAST_YEAR:
            return time
    raise InputError(f"image {name!r} has {key} {str(value)[:80]!r}, no time in milliseconds")


def _percentage(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if _is_number(value) and 0 <= value <= 100:
        return float(value)
    raise InputError(
        f"image {name!r} has CLOUDY_PIXEL_PERCENTAGE {str(value)[:80]!r}; expected 0..100"
    )


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < 1e14  # which NaN is not, and no whole number overflows


def _footprint(name: str, value: Any) -> dict[str, Any]:
    """Return the footprint as a polygon: Earth Engine keeps Sentinel-2's as a ring."""
    try:
        if not isinstance(value, Mapping):
            raise ValueError(f"{str(value)[:80]!r}")
        if value.get("type") == "LinearRing":
            value = {"type": "Polygon", "coordinates": [value.get("coordinates")]}
        return geojson(unwrapped(value))
    except ValueError as error:
        raise InputError(f"image {name!r} has a system:footprint that is none: {error}") from error
