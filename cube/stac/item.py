"""A STAC item of any provider in, a `Scene` out: one normaliser for all of them.

Known by test: Earth Search v0 and v1 (COG and JPEG 2000), Planetary Computer, CDSE (STAC 1.1,
`proj:code` on the asset, one asset per resolution).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pystac

from cube.bands import BANDS, canonical_band
from cube.errors import InputError
from cube.radiometry import OffsetDecision, decide_offset
from cube.stac.footprint import geojson, unwrapped
from cube.stac.href import resolved_href
from cube.stac.scene import SCL, Asset, Scene, affine_numbers, pixel_shape

_PRODUCT = re.compile(
    r"(?P<satellite>S2[A-D])_MSIL2A_(?P<start>\d{8}T\d{6})_(?:N(?P<baseline>\d{4})_)?R\d{3}"
    r"_T(?P<tile>\d{2}[A-Z]{3})_(?P<generated>\d{8}T\d{6})"
)
"""ESA's compact naming convention of products; Planetary Computer leaves the baseline out."""

_DATATAKE = re.compile(r"G(?P<satellite>S2[A-D])_(?P<start>\d{8}T\d{6})_\d{6}_N\d{2}\.\d{2}")
_EPSG_CODE = re.compile(r"EPSG:(\d+)")
_TILE = re.compile(r"(?:MGRS-)?T?(\d{1,2})([C-HJ-NP-X][A-HJ-NP-Z]{2})")
_ASSET_KEY = re.compile(r"(?P<band>.+?)(?:_(?P<metres>10|20|60)m)?")
_NATIVE_SCL = 20

_PRODUCT_KEYS = ("s2:product_uri", "sentinel2:product_title", "sentinel:product_id")
_BASELINE_KEYS = (
    "s2:processing_baseline",
    "sentinel2:processing_baseline",
    "processing:version",
)
_GENERATED_KEYS = ("s2:generation_time", "sentinel2:generation_time", "processing:datetime")
_DATATAKE_KEYS = ("s2:datatake_id", "eopf:datatake_id")
_CHANGED_KEYS = ("updated", "created")
_TYPE_KEYS = ("s2:product_type", "sentinel2:product_type", "product:type")
_TILE_KEYS = ("grid:code", "s2:mgrs_tile")


def scene_from_item(item: pystac.Item | Mapping[str, Any], *, base: str | None = None) -> Scene:
    """Return the scene that a STAC item describes.

    `base` is the address the item was read from: relative hrefs are resolved against it, and only
    a local one lets the item name local files. A `pystac.Item` knows its own. Raises `InputError`
    with the item's id for whatever cannot be decided: no Sentinel-2 L2A, no footprint, no
    baseline, an offset that contradicts itself, a hostile href.
    """
    if isinstance(item, pystac.Item):
        base = base or item.get_self_href()
        item = item.to_dict(include_self_link=False, transform_hrefs=False)
    name = item.get("id") if isinstance(item, Mapping) else None
    if not isinstance(name, str) or not name:
        raise InputError(f"a STAC item without an id was found at {base!r}")
    try:
        return _Reader(id=name, item=item, base=base).scene()
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"item {name!r} cannot be read: {error!r}") from error


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """One item under way to a scene."""

    id: str
    """Its id."""
    item: Mapping[str, Any]
    """All of it."""
    base: str | None
    """Where it was read from."""

    def scene(self) -> Scene:
        self._refuse_other_sensors()
        assets, declared = self._assets()
        baseline = self._baseline()
        decision = self._offset(baseline, declared)
        return Scene(
            id=self.id,
            collection=str(self.item.get("collection") or ""),
            time=self._time("datetime", "start_datetime"),
            overpass=self._overpass(),
            tile=self._tile(),
            baseline=baseline,
            version=(self._generated(), self._sequence()),
            epsg=self._epsg(),
            footprint=self._footprint(),
            cloud_cover=self._cloud_cover(),
            assets=assets,
            offset=decision.offset,
            offset_reason=decision.reason,
            updated=self._first(_CHANGED_KEYS) or "",
        )

    @property
    def properties(self) -> Mapping[str, Any]:
        found = self.item["properties"]
        if not isinstance(found, Mapping):
            raise InputError(f"item {self.id!r}: properties are {type(found).__name__}, no object")
        return found

    @property
    def product(self) -> re.Match[str] | None:
        names = [self._first(_PRODUCT_KEYS), self.id]
        return next((found for name in names if name and (found := _PRODUCT.match(name))), None)

    def _first(self, keys: tuple[str, ...]) -> str | None:
        return next((str(v) for key in keys if (v := self.properties.get(key)) is not None), None)

    def _refuse_other_sensors(self) -> None:
        platform = str(self.properties.get("platform") or self.properties.get("constellation"))
        if not platform.lower().startswith("sentinel-2"):
            raise InputError(f"item {self.id!r} is of platform {platform!r}; expected Sentinel-2")
        kind = self._first(_TYPE_KEYS)
        if kind is not None and not kind.startswith("S2MSI2A"):
            raise InputError(f"item {self.id!r} is a product {kind!r}; expected level 2A, S2MSI2A")

    def _baseline(self) -> str:
        told = self._first(_BASELINE_KEYS)
        product = self.product
        number = product["baseline"] if product else None
        named = f"{number[:2]}.{number[2:]}" if number else None
        if told and named and (told >= "04.00") != (named >= "04.00"):
            raise InputError(
                f"item {self.id!r} states baseline {told} but its product name says {named}"
            )
        if not (told or named):
            raise InputError(f"item {self.id!r} states no processing baseline")
        return str(told or named)

    def _offset(self, baseline: str, declared: frozenset[float]) -> OffsetDecision:
        # Earth Search v0 rewrote the pixels of some of these; only its flag tells which
        is_repackaged = self.item.get("collection") == "sentinel-s2-l2a-cogs"
        has_flag = "sentinel:boa_offset_applied" in self.properties
        if is_repackaged and baseline >= "04.00" and not has_flag:
            raise InputError(
                f"item {self.id!r}: baseline {baseline} of sentinel-s2-l2a-cogs without "
                "sentinel:boa_offset_applied; use Earth Search v1"
            )
        return decide_offset(
            scene_id=self.id, baseline=baseline, properties=self.properties, declared=declared
        )

    def _time(self, *keys: str) -> datetime:
        told = self._first(keys)
        if told is None:
            raise InputError(f"item {self.id!r} has no datetime")
        time = datetime.fromisoformat(told)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)

    def _overpass(self) -> str:
        datatake = self._first(_DATATAKE_KEYS)
        found = (_DATATAKE.fullmatch(datatake) if datatake else None) or self.product
        if found is None:
            raise InputError(
                f"item {self.id!r} has no datatake id and no product name, so it cannot be told "
                "which scenes are of the same overpass"
            )
        return f"{found['satellite']}_{found['start']}"

    def _tile(self) -> str:
        told = self._first(_TILE_KEYS)
        found = _TILE.fullmatch(told) if told else None
        if found:
            return f"{int(found[1]):02d}{found[2]}"
        if product := self.product:
            return str(product["tile"])
        raise InputError(f"item {self.id!r} names no MGRS tile")

    def _generated(self) -> str:
        if self._first(_GENERATED_KEYS):
            return self._time(*_GENERATED_KEYS).isoformat(timespec="seconds")
        if product := self.product:
            stamp = datetime.strptime(product["generated"], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
            return stamp.isoformat(timespec="seconds")
        return ""

    def _sequence(self) -> str:
        return self._first(("s2:sequence", "sentinel:sequence")) or ""

    def _epsg(self) -> int:
        """The item's CRS, else its assets' common one, else that of the MGRS tile's zone."""
        found = {
            code
            for holder in (self.properties, *(self.item["assets"][key] for key in self._keys()))
            if (code := _epsg_of(holder)) is not None
        }
        if len(found) > 1:
            raise InputError(f"item {self.id!r} has assets of several CRS: {sorted(found)}")
        if found:
            return found.pop()
        tile = self._tile()
        return (32600 if tile[2] >= "N" else 32700) + int(tile[:2])

    def _footprint(self) -> dict[str, Any]:
        if self.item.get("geometry") is None:
            raise InputError(f"item {self.id!r} has no geometry, so where it lies is unknown")
        try:
            return geojson(unwrapped(self.item["geometry"]))
        except ValueError as error:
            raise InputError(f"item {self.id!r}: {error}") from error

    def _cloud_cover(self) -> float | None:
        told = self.properties.get("eo:cloud_cover")
        return None if told is None else float(told)

    def _keys(self) -> list[str]:
        return list(self._chosen().values())

    def _chosen(self) -> dict[str, str]:
        """Asset key by band name: the native resolution if there is a choice, else the finest."""
        best: dict[str, tuple[bool, int, str]] = {}
        for key in self.item["assets"]:
            found = _band_and_resolution(key)
            if found is None:
                continue
            band, metres, native = found
            rank = (metres != native, metres, key)
            best[band] = min(best.get(band, rank), rank)
        return {band: key for band, (_, _, key) in best.items()}

    def _assets(self) -> tuple[dict[str, Asset], frozenset[float]]:
        chosen = self._chosen()
        if SCL not in chosen or len(chosen) < 2:
            found = ", ".join(sorted(self.item["assets"])) or "none"
            raise InputError(
                f"item {self.id!r} needs SCL and bands among its assets: {found[:200]}"
            )
        ordered = [name for name in (*BANDS, SCL) if name in chosen]
        assets = {name: self._asset(chosen[name]) for name in ordered}
        offsets = [
            _stated_offset(self.item["assets"][key])
            for name, key in chosen.items()
            if name != SCL and BANDS[name].has_offset
        ]
        return assets, frozenset(value for value in offsets if value is not None)

    def _asset(self, key: str) -> Asset:
        record = self.item["assets"][key]
        transform = record.get("proj:transform") or self.properties.get("proj:transform")
        shape = record.get("proj:shape") or self.properties.get("proj:shape")
        owner = f"item {self.id!r}, asset {key!r}"
        return Asset(
            href=resolved_href(str(record["href"]), base=self.base, owner=owner),
            transform=None if transform is None else affine_numbers(transform),
            shape=None if shape is None else pixel_shape(shape),
        )


def _band_and_resolution(key: str) -> tuple[str, int, int] | None:
    """(band, metres, native metres) of an asset key, or None for what is no layer of a cube."""
    found = _ASSET_KEY.fullmatch(key)
    if found is None:
        return None
    if found["band"].upper() == SCL:
        band, native = SCL, _NATIVE_SCL
    else:
        try:
            band = canonical_band(found["band"])
        except InputError:  # previews, metadata, JPEG 2000 twins
            return None
        native = BANDS[band].resolution
    return band, int(found["metres"] or native), native


def _epsg_of(holder: Mapping[str, Any]) -> int | None:
    code = holder.get("proj:epsg")
    if isinstance(code, int):
        return code
    found = _EPSG_CODE.fullmatch(str(holder.get("proj:code") or ""))
    return int(found[1]) if found else None


def _stated_offset(asset: Mapping[str, Any]) -> float | None:
    """Reflectance offset that an asset states: raster extension 1 (per band) or 2 (flat)."""
    bands = asset.get("raster:bands") or [{}]
    told = asset.get("raster:offset", bands[0].get("offset"))
    return None if told is None else round(float(told), 6)
