"""A STAC item of any provider in, a `Scene` out: one normaliser for all of them.

Known by test: Sentinel-2 L2A of Earth Search v0 and v1 (COG and JPEG 2000), Planetary Computer and
CDSE (STAC 1.1, `proj:code` on the asset, one asset per resolution); Landsat Collection 2 Level-2 of
USGS; HLS 2.0 by its specification.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import pystac
import shapely
from shapely.geometry import shape

from cube.bands import BANDS
from cube.errors import InputError
from cube.radiometry import OffsetDecision, decide_offset
from cube.stac.footprint import geojson, unwrapped
from cube.stac.href import resolved_href
from cube.stac.identity import Identity, Label, identity_of
from cube.stac.scene import SCL, Asset, Scene, affine_numbers, pixel_shape
from cube.stac.sensors import SENSORS, Sensor

_EPSG_CODE = re.compile(r"EPSG:(\d+)")
_ASSET_KEY = re.compile(r"(?P<band>.+?)(?:_(?P<metres>10|20|60)m)?")
_NATIVE_SCL = 20

_MOST_POINTS = 10_000
"""Of a footprint; products have dozens, some 2,500."""

_MOST_TANGLED = 200
"""Points of an outline that crosses itself: with thousands it takes hours to make polygons of."""

_CHANGED_KEYS = ("updated", "created")
_METADATA_KEYS = ("product_metadata", "product-metadata")
_METADATA_NAME = "mtd_msil2a.xml"


def scene_from_item(item: pystac.Item | Mapping[str, Any], *, base: str | None = None) -> Scene:
    """Return the scene that a STAC item describes.

    `base` is the address the item was read from: relative hrefs are resolved against it, and only
    a local one lets the item name local files. A `pystac.Item` knows its own. Raises `InputError`
    with the item's id for whatever cannot be decided: no product of `SENSORS`, no STAC item, no
    footprint, no baseline, an offset that contradicts itself, a hostile href.
    """
    if isinstance(item, pystac.Item):
        base = base or item.get_self_href()
        item = item.to_dict(include_self_link=False, transform_hrefs=False)
    name = _id_of(item, base)
    try:
        return _Reader(id=name, item=item, base=base).scene()
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"item {name!r} cannot be read: {error!r}") from error


def _id_of(item: Any, base: str | None) -> str:
    """Return the item's id, or say what was given instead of an item."""
    if not isinstance(item, Mapping):
        raise InputError(f"{base!r} gave a {type(item).__name__}, not a STAC item")
    name = item.get("id") or item.get("Id")
    if "@odata.context" in item or "@odata.mediaContentType" in item:
        raise InputError(
            f"{base!r} gave an OData answer ({name or 'a list'}), not a STAC item; use the "
            "provider's STAC address"
        )
    kind = item.get("type")
    if kind in ("FeatureCollection", "Collection", "Catalog"):
        raise InputError(f"{base!r} gave a {kind} ({name or 'without id'}), not a STAC item of it")
    if not isinstance(name, str) or not name:
        raise InputError(f"a STAC item without an id was found at {base!r}")
    if "stac_version" not in item and "assets" not in item:
        raise InputError(
            f"item {name!r} is no STAC item (neither stac_version nor assets: an OpenSearch "
            "answer?); use the provider's STAC address"
        )
    return name


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
        assets = self._assets()
        decision = self._offset()
        return Scene(
            id=self.id,
            collection=str(self.item.get("collection") or ""),
            time=self.label.sensing_time,
            overpass=self.identity.overpass,
            tile=self.identity.tile,
            baseline=self.identity.baseline,
            version=self.identity.version,
            epsg=self._epsg(),
            footprint=self.footprint,
            cloud_cover=self._cloud_cover(),
            assets=assets,
            offset=decision.offset,
            offset_reason=decision.reason,
            updated=self.label.first(_CHANGED_KEYS) or "",
            sensor=self.sensor.name,
            metadata_href=self._metadata_href(),
        )

    @property
    def properties(self) -> Mapping[str, Any]:
        found = self.item["properties"]
        if not isinstance(found, Mapping):
            raise InputError(f"item {self.id!r}: properties are {type(found).__name__}, no object")
        return found

    @property
    def label(self) -> Label:
        return Label(id=self.id, properties=self.properties)

    @cached_property
    def identity(self) -> Identity:
        middle = unwrapped(self.footprint).centroid.x
        return identity_of(self.label, longitude=(middle + 180) % 360 - 180)

    @property
    def sensor(self) -> Sensor:
        return SENSORS[self.identity.sensor]

    @cached_property
    def footprint(self) -> dict[str, Any]:
        if self.item.get("geometry") is None:
            raise InputError(f"item {self.id!r} has no geometry, so where it lies is unknown")
        if not isinstance(self.item["geometry"], Mapping):
            raise InputError(f"item {self.id!r}: geometry is not a GeoJSON Polygon or MultiPolygon")
        try:
            points = _count_numbers(self.item["geometry"]) // 2
            if points > _MOST_POINTS:
                raise ValueError(f"geometry has {points} points; most are {_MOST_POINTS}")
            if points > _MOST_TANGLED and not shape(dict(self.item["geometry"])).is_valid:
                raise ValueError(f"geometry is a line of {points} points that crosses itself")
            return geojson(unwrapped(self.item["geometry"]))
        except (ValueError, TypeError, RecursionError, shapely.errors.ShapelyError) as error:
            raise InputError(f"item {self.id!r}: {error}") from error

    def _offset(self) -> OffsetDecision:
        if not self.sensor.has_offset:
            self._refuse_other_scales()
            return OffsetDecision(offset=0, reason=f"{self.sensor.name} has no such offset")
        baseline = self.identity.baseline
        # Earth Search v0 rewrote the pixels of some of these; only its flag tells which
        is_repackaged = self.item.get("collection") == "sentinel-s2-l2a-cogs"
        has_flag = "sentinel:boa_offset_applied" in self.properties
        if is_repackaged and baseline >= "04.00" and not has_flag:
            raise InputError(
                f"item {self.id!r}: baseline {baseline} of sentinel-s2-l2a-cogs without "
                "sentinel:boa_offset_applied; use Earth Search v1"
            )
        stated = (_stated(asset, "offset") for asset in self._reflectance())
        return decide_offset(
            scene_id=self.id,
            baseline=baseline,
            properties=self.properties,
            declared=frozenset(round(value, 6) for value in stated if value is not None),
        )

    def _refuse_other_scales(self) -> None:
        """Stop at an item whose bands are scaled otherwise than its product's specification says."""
        expected = (self.sensor.gain * 1e-4, self.sensor.bias * 1e-4)
        for asset in self._reflectance():
            told = (_stated(asset, "scale"), _stated(asset, "offset"))
            for value, right in zip(told, expected, strict=True):
                if value is not None and abs(value - right) > 1e-9:
                    raise InputError(
                        f"item {self.id!r} states scale and offset {told}; a product of "
                        f"{self.sensor.name} has {expected}"
                    )

    def _reflectance(self) -> list[Mapping[str, Any]]:
        """Assets of the reflectance bands."""
        return [
            self.item["assets"][key]
            for name, key in self._chosen.items()
            if name != SCL and BANDS[name].has_offset
        ]

    def _epsg(self) -> int:
        """The item's CRS, else its assets' common one, else that of the MGRS tile's zone."""
        assets = (self.item["assets"][key] for key in self._chosen.values())
        found = {
            code for holder in (self.properties, *assets) if (code := _epsg_of(holder)) is not None
        }
        if len(found) > 1:
            raise InputError(f"item {self.id!r} has assets of several CRS: {sorted(found)}")
        if found:
            return found.pop()
        tile = self.identity.tile
        if tile.isdecimal():
            raise InputError(f"item {self.id!r} names no CRS (proj:epsg or proj:code)")
        return (32600 if tile[2] >= "N" else 32700) + int(tile[:2])

    def _cloud_cover(self) -> float | None:
        told = self.properties.get("eo:cloud_cover")
        return None if told is None else float(told)

    @cached_property
    def _chosen(self) -> dict[str, str]:
        """Asset key by band name: the native resolution if there is a choice, else the finest."""
        best: dict[str, tuple[bool, int, str]] = {}
        for key in self.item["assets"]:
            found = _band_and_rank(key, self.sensor)
            if found is not None:
                band, rank = found
                best[band] = min(best.get(band, rank), rank)
        return {name: best[name][2] for name in (*BANDS, SCL) if name in best}

    def _assets(self) -> dict[str, Asset]:
        chosen = self._chosen
        if SCL not in chosen or len(chosen) < 2:
            found = ", ".join(sorted(self.item["assets"])) or "none"
            raise InputError(
                f"item {self.id!r} needs {self.sensor.mask_keys[0].upper()} and bands among its "
                f"assets: {found[:200]}"
            )
        return {name: self._asset(key) for name, key in chosen.items()}

    def _asset(self, key: str) -> Asset:
        record = self.item["assets"][key]
        transform = record.get("proj:transform") or self.properties.get("proj:transform")
        shape = record.get("proj:shape") or self.properties.get("proj:shape")
        return Asset(
            href=self._resolved(key),
            transform=None if transform is None else affine_numbers(transform),
            shape=None if shape is None else pixel_shape(shape),
        )

    def _resolved(self, key: str) -> str:
        href = str(self.item["assets"][key]["href"])
        return resolved_href(href, base=self.base, owner=f"item {self.id!r}, asset {key!r}")

    def _metadata_href(self) -> str:
        """Address of MTD_MSIL2A.xml; what else calls itself metadata is of the tile or the strip."""
        if not self.sensor.has_offset:
            return ""
        for key, record in self.item["assets"].items():
            path = urlsplit(str(record.get("href") or "")).path.lower()
            is_named = path.rpartition("/")[2] == _METADATA_NAME
            if is_named or (key.lower() in _METADATA_KEYS and path.endswith(".xml")):
                return self._resolved(key)
        return ""


def _band_and_rank(key: str, sensor: Sensor) -> tuple[str, tuple[bool, int, str]] | None:
    """(band, order of preference) of an asset key, or None for what is no layer of a cube.

    Only Sentinel-2 comes in several resolutions, with the metres at the end of the key.
    """
    found = _ASSET_KEY.fullmatch(key) if sensor.has_offset else None
    stem = found["band"] if found else key
    band = SCL if stem.lower() in sensor.mask_keys else sensor.band_of(stem)
    if band is None:  # previews, metadata, JPEG 2000 twins
        return None
    native = _NATIVE_SCL if band == SCL else BANDS[band].resolution
    metres = int(found["metres"] or native) if found else native
    return band, (metres != native, metres, key)


def _count_numbers(value: Any) -> int:
    if isinstance(value, Mapping):
        return _count_numbers(value.get("coordinates"))
    if isinstance(value, list | tuple):
        return sum(map(_count_numbers, value))
    return 1


def _epsg_of(holder: Mapping[str, Any]) -> int | None:
    code = holder.get("proj:epsg")
    if isinstance(code, int):
        return code
    found = _EPSG_CODE.fullmatch(str(holder.get("proj:code") or ""))
    return int(found[1]) if found else None


def _stated(asset: Mapping[str, Any], what: str) -> float | None:
    """`scale` or `offset` that an asset states: raster extension 1 (per band) or 2 (flat)."""
    bands = asset.get("raster:bands") or [{}]
    told = asset.get(f"raster:{what}", bands[0].get(what))
    return None if told is None else float(told)
