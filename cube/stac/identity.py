"""Id and properties of a STAC item in, what the granule is out: sensor, tile, overpass, version."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cube.errors import InputError

_PRODUCT = re.compile(
    r"(?P<satellite>S2[A-D])_MSIL2A_(?P<start>\d{8}T\d{6})_(?:N(?P<baseline>\d{4})_)?R\d{3}"
    r"_T(?P<tile>\d{2}[A-Z]{3})_(?P<generated>\d{8}T\d{6})"
)
"""ESA's compact naming convention of products; Planetary Computer leaves the baseline out."""

_DATATAKE = re.compile(r"G(?P<satellite>S2[A-D])_(?P<start>\d{8}T\d{6})_\d{6}_N\d{2}\.\d{2}")
_TILE = re.compile(r"(?:MGRS-)?T?(\d{1,2})([C-HJ-NP-X][A-HJ-NP-Z]{2})")

_LANDSAT = re.compile(
    r"L[CEOT](?P<satellite>0[45789])_(?P<level>L\d[A-Z]{2})_(?P<path>\d{3})(?P<row>\d{3})"
    r"_(?P<sensed>\d{8})(?:_(?P<made>\d{8}))?_(?P<collection>\d{2})_(?:T1|T2|RT)(?:_SR)?"
)
"""USGS's product identifier (LSDS-1619, section on file names); Planetary Computer leaves the day
of processing out."""

_HLS = re.compile(
    r"HLS\.(?P<kind>[SL]30)\.T(?P<tile>\d{2}[C-HJ-NP-X][A-HJ-NP-Z]{2})\.\d{7}T\d{6}"
    r"\.v(?P<version>\d+\.\d+)"
)
"""Names of granules by the HLS Product User Guide 2.0."""

_PRODUCT_KEYS = ("s2:product_uri", "sentinel2:product_title", "sentinel:product_id")
_BASELINE_KEYS = (
    "s2:processing_baseline",
    "sentinel2:processing_baseline",
    "processing:version",
)
_GENERATED_KEYS = ("s2:generation_time", "sentinel2:generation_time", "processing:datetime")
_DATATAKE_KEYS = ("s2:datatake_id", "eopf:datatake_id")
_TYPE_KEYS = ("s2:product_type", "sentinel2:product_type", "product:type")
_TILE_KEYS = ("grid:code", "s2:mgrs_tile")

_PATHS = 233
_PATH_1_LONGITUDE = -64.6
"""Where path 1 of WRS-2 crosses the equator by day; the next ones follow westwards (Landsat 7
Science Data Users Handbook, Worldwide Reference System)."""

_CROSSING = timedelta(hours=10)
"""Mean local time of that crossing; it was 9:30 to 10:15 over the years of Landsat 4 to 9."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a granule is, whoever provides it."""

    sensor: str
    """Key of `cube.stac.sensors.SENSORS`."""
    tile: str
    """As `Scene.tile`."""
    overpass: str
    """As `Scene.overpass`."""
    baseline: str
    """As `Scene.baseline`."""
    version: tuple[str, str]
    """As `Scene.version`."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """The fields of an item that say what it is."""

    id: str
    """Its id."""
    properties: Mapping[str, Any] = field(repr=False)
    """Its properties."""

    def first(self, keys: tuple[str, ...]) -> str | None:
        """Return the first of the properties `keys` that is there."""
        return next((str(v) for key in keys if (v := self.properties.get(key)) is not None), None)

    def time(self, *keys: str) -> datetime:
        """Return the first of the properties `keys` in UTC; raise `InputError` for none."""
        told = self.first(keys)
        if told is None:
            raise InputError(f"item {self.id!r} has no datetime")
        time = datetime.fromisoformat(told)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)

    @property
    def sensing_time(self) -> datetime:
        """When it was sensed, as the provider states it, in UTC."""
        return self.time("datetime", "start_datetime")


def identity_of(label: Label, *, longitude: float) -> Identity:
    """Say what a granule is; `longitude` is that of its middle in degrees.

    Raises `InputError` with the item's id for another sensor or level, and for what its fields do
    not tell or contradict.
    """
    if hls := _HLS.match(label.id):
        return _hls(label, hls, longitude)
    platform = str(label.properties.get("platform") or label.properties.get("constellation"))
    if platform.lower().startswith("landsat"):
        return _landsat(label)
    if platform.lower().startswith("sentinel-2"):
        return _sentinel(label)
    raise InputError(
        f"item {label.id!r} is of platform {platform!r}; read are Sentinel-2 L2A, Landsat "
        "Collection 2 Level-2 and HLS"
    )


def _sentinel(label: Label) -> Identity:
    kind = label.first(_TYPE_KEYS)
    if kind is not None and not kind.startswith("S2MSI2A"):
        raise InputError(f"item {label.id!r} is a product {kind!r}; expected level 2A, S2MSI2A")
    names = [label.first(_PRODUCT_KEYS), label.id]
    product = next((found for name in names if name and (found := _PRODUCT.match(name))), None)
    return Identity(
        sensor="sentinel-2-l2a",
        tile=_sentinel_tile(label, product),
        overpass=_datatake(label, product),
        baseline=_baseline(label, product),
        version=(
            _generated(label, product),
            label.first(("s2:sequence", "sentinel:sequence")) or "",
        ),
    )


def _baseline(label: Label, product: re.Match[str] | None) -> str:
    told = label.first(_BASELINE_KEYS)
    number = product["baseline"] if product else None
    named = f"{number[:2]}.{number[2:]}" if number else None
    if told and named and (told >= "04.00") != (named >= "04.00"):
        raise InputError(
            f"item {label.id!r} states baseline {told} but its product name says {named}"
        )
    if not (told or named):
        raise InputError(f"item {label.id!r} states no processing baseline")
    return str(told or named)


def _datatake(label: Label, product: re.Match[str] | None) -> str:
    told = label.first(_DATATAKE_KEYS)
    found = (_DATATAKE.fullmatch(told) if told else None) or product
    if found is None:
        raise InputError(
            f"item {label.id!r} has no datatake id and no product name, so it cannot be told "
            "which scenes are of the same overpass"
        )
    return f"{found['satellite']}_{found['start']}"


def _sentinel_tile(label: Label, product: re.Match[str] | None) -> str:
    told = label.first(_TILE_KEYS)
    if found := _TILE.fullmatch(told) if told else None:
        return f"{int(found[1]):02d}{found[2]}"
    if product:
        return str(product["tile"])
    raise InputError(f"item {label.id!r} names no MGRS tile")


def _generated(label: Label, product: re.Match[str] | None) -> str:
    if label.first(_GENERATED_KEYS):
        return label.time(*_GENERATED_KEYS).isoformat(timespec="seconds")
    return _stamp(product["generated"], "%Y%m%dT%H%M%S") if product else ""


def _stamp(text: str | None, layout: str) -> str:
    if not text:
        return ""
    return datetime.strptime(text, layout).replace(tzinfo=UTC).isoformat(timespec="seconds")


def _landsat(label: Label) -> Identity:
    found = _LANDSAT.fullmatch(label.id)
    if found is None:
        what = label.properties.get("odc:product") or label.properties.get("landsat:correction")
        raise InputError(
            f"item {label.id!r} is Landsat of product {what!r}; read is only USGS Collection 2 "
            "Level-2, with ids such as 'LC08_L2SP_028030_20200114_20200824_02_T1_SR'"
        )
    if found["level"] not in ("L2SP", "L2SR") or found["collection"] != "02":
        raise InputError(
            f"item {label.id!r} is of level {found['level']}, collection {found['collection']}; "
            "expected L2SP or L2SR, collection 02"
        )
    path, row = _path_and_row(label, found)
    return Identity(
        sensor="landsat-c2-l2",
        tile=f"{path:03d}{row:03d}",
        overpass=_path_crossing(found["satellite"], path, label.sensing_time),
        baseline=found["collection"],
        version=(_stamp(found["made"], "%Y%m%d"), ""),
    )


def _path_and_row(label: Label, found: re.Match[str]) -> tuple[int, int]:
    told = [label.properties.get(f"landsat:wrs_{name}") for name in ("type", "path", "row")]
    named = [2, int(found["path"]), int(found["row"])]
    for stated, value in zip(told, named, strict=True):
        if stated is not None and int(stated) != value:
            raise InputError(
                f"item {label.id!r} states WRS type, path and row {told}, but its id {named}"
            )
    if not 1 <= named[1] <= _PATHS:
        raise InputError(f"item {label.id!r} is of path {named[1]}; WRS-2 has 1..{_PATHS}")
    return named[1], named[2]


def _path_crossing(satellite: str, path: int, time: datetime) -> str:
    """Return satellite, path and the instant its path crosses the equator, nearest to `time`.

    Every row of a pass is sensed within an hour or so of it, so that rows before and after midnight
    UTC, or on both sides of the antimeridian, get one name.
    """
    longitude = _PATH_1_LONGITUDE - (path - 1) * 360 / _PATHS
    crossing = datetime(time.year, time.month, time.day, tzinfo=UTC) + _CROSSING
    crossing -= timedelta(hours=longitude / 15)
    crossing += timedelta(days=round((time - crossing) / timedelta(days=1)))
    return f"L{satellite}-{path:03d}_{crossing:%Y%m%dT%H%M%S}"


def _hls(label: Label, found: re.Match[str], longitude: float) -> Identity:
    """HLS names no orbit: granules of one satellite and one local solar date are one overpass.

    Two passes a day, which see one tile only beyond 50 degrees of latitude, count as one. Where the
    item names no satellite, all of its kind do.
    """
    satellite = str(label.properties.get("platform") or found["kind"]).upper()
    satellite = re.sub(r"SENTINEL-?", "S", re.sub(r"LANDSAT[-_]?", "L", satellite))
    solar = label.sensing_time + timedelta(hours=longitude / 15)
    made = label.first(("created",))
    return Identity(
        sensor=f"hls-{found['kind'].lower()}",
        tile=found["tile"],
        overpass=f"HLS-{re.sub(r'[^A-Z0-9]', '', satellite)}_{solar:%Y%m%d}T120000",
        baseline=found["version"],
        version=("" if made is None else label.time("created").isoformat(timespec="seconds"), ""),
    )
