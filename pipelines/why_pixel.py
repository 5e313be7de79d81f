"""A cube or a map and a place in, all that is known of how the pixel there came to be out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from odc.geo.crs import CRS
from pyproj import Transformer
from pyproj.exceptions import ProjError

from cube.bands import NODATA, SCALE
from cube.errors import InputError
from cube.grid import LON_LAT
from cube.ledger import Ledger
from cube.mapstore import QUALITY_NODATA, QUALITY_SCALE, UNCLASSIFIED, map_classes
from cube.place import Place, zarr_place
from cube.soundness import CheckedStore, layout_faults
from cube.spec import CubeSpec, Region, tile_region
from cube.store import LOOKS_LOST, NO_LOOK
from cube.zarrstore import stored_array
from pipelines.ledger_notes import read_note
from pipelines.verify_store import checked_store


@dataclass(frozen=True, kw_only=True)
class Pixel:
    """One pixel of a grid."""

    x: float
    """Easting of what was asked, in the grid's CRS."""
    y: float
    """Northing of it."""
    row: int
    """Row of the pixel, from the top."""
    column: int
    """Column, from the left."""
    region: Region
    """The tile that it lies in."""

    @property
    def inside(self) -> tuple[slice, slice]:
        """The pixel alone, for indexing (y, x)."""
        return slice(self.row, self.row + 1), slice(self.column, self.column + 1)


def pixel_at(spec: CubeSpec, first: float, second: float, *, is_lon_lat: bool) -> Pixel:
    """Return the pixel at longitude and latitude, or at x and y in the grid's CRS.

    Raises `InputError` for a place outside of the grid or of the area.
    """
    said = f"lon {first:g}, lat {second:g}" if is_lon_lat else f"x {first:g}, y {second:g}"
    if is_lon_lat and abs(second) > 90:
        asked = "; are --lon and --lat swapped?" if abs(first) <= 90 else "; expected -90 … 90"
        raise InputError(f"latitude {second:g} is beyond 90{asked}")
    x, y = _on_grid(spec.crs, first, second) if is_lon_lat else (first, second)
    if not (math.isfinite(x) and math.isfinite(y)):
        raise InputError(f"{said} has no coordinates in the store's CRS")
    column, row = ~spec.geobox.transform * (x, y)
    _, _, height, width = spec.shape
    if not (0 <= row < height and 0 <= column < width):
        left, bottom, right, top = spec.geobox.boundingbox
        raise InputError(
            f"{said} lies at x {x:.0f}, y {y:.0f}, outside of the grid: x {left:.0f} … {right:.0f}, "
            f"y {bottom:.0f} … {top:.0f}" + _if_swapped(spec, first, second, is_lon_lat=is_lon_lat)
        )
    place = int(row), int(column)
    tile = tile_region((height, width), spec.tile, place[0] // spec.tile, place[1] // spec.tile)
    if spec.touched is not None and tile not in spec.regions():
        raise InputError(f"{said} lies in tile {tile.id}, which the area does not touch")
    return Pixel(x=x, y=y, row=place[0], column=place[1], region=tile)


def _if_swapped(spec: CubeSpec, first: float, second: float, *, is_lon_lat: bool) -> str:
    """Return a question for those whose place lies on the grid the other way round."""
    if is_lon_lat and abs(first) > 90:
        return ""
    x, y = _on_grid(spec.crs, second, first) if is_lon_lat else (second, first)
    if not (math.isfinite(x) and math.isfinite(y)):
        return ""
    column, row = ~spec.geobox.transform * (x, y)
    _, _, height, width = spec.shape
    if not (0 <= row < height and 0 <= column < width):
        return ""
    options = "--lon and --lat" if is_lon_lat else "--x and --y"
    return f"; swapped, it lies inside: are {options} swapped?"


def _on_grid(crs: CRS, longitude: float, latitude: float) -> tuple[float, float]:
    try:
        x, y = Transformer.from_crs(LON_LAT.proj, crs.proj, always_xy=True).transform(
            longitude, latitude, errcheck=True
        )
    except ProjError:
        return math.nan, math.nan
    return float(x), float(y)


def explain(place: Place, first: float, second: float, *, is_lon_lat: bool) -> dict[str, Any]:
    """Return the lineage of a pixel of the cube or map at `place`, as plain JSON values.

    Of a map also that of its cube, where it lies beside it. Raises `InputError` for what is no store
    of ours, or not laid out as one, and for a place outside of it.
    """
    store = checked_store(place)
    _refuse_foreign_layout(store)
    pixel = pixel_at(store.spec, first, second, is_lon_lat=is_lon_lat)
    longitude, latitude = Transformer.from_crs(
        store.spec.crs.proj, LON_LAT.proj, always_xy=True
    ).transform(pixel.x, pixel.y)
    found: dict[str, Any] = {
        "lon": round(longitude, 7),
        "lat": round(latitude, 7),
        "x": round(pixel.x, 3),
        "y": round(pixel.y, 3),
    }
    if store.kind == "cube":
        return found | {"cube": cube_lineage(store, pixel)}
    found["map"] = map_lineage(store, pixel)
    cube = place.with_name("cube.zarr")
    if cube.exists():
        beside = checked_store(cube)
        _refuse_foreign_layout(beside)
        if beside.kind == "cube":
            there = pixel_at(beside.spec, pixel.x, pixel.y, is_lon_lat=False)
            found["cube"] = cube_lineage(beside, there)
            found["map"]["made_again_because"] = _map_changes(found, place)
    return found


def _refuse_foreign_layout(store: CheckedStore) -> None:
    """Refuse to decode what is not laid out as we write it; its codecs could do anything."""
    if faults := layout_faults(store):
        raise InputError(
            f"{str(store.place)!r} is not laid out as it says: {faults[0].name}: {faults[0].what}; "
            "`canopycube verify` tells more"
        )


def cube_lineage(store: CheckedStore, pixel: Pixel) -> dict[str, Any]:
    """Return what a cube's ledger and layers say of a pixel."""
    record = Ledger(store=store.place, inputs=None).record_of(pixel.region)
    parts = _dict(record.get("made_from"))
    return {
        "store": str(store.place),
        "tile": pixel.region.id,
        "row": pixel.row,
        "column": pixel.column,
        "is_recorded": bool(record),
        **_origin(record),
        "settings": read_note(store.place, "settings", parts.get("settings")),
        "lost_scenes": [one for one in _list(record.get("lost")) if isinstance(one, dict)],
        "periods": _periods(store, pixel, record),
    }


def _origin(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "made_at": record.get("made_at"),
        "made_by": record.get("made_by"),
        "code": _dict(record.get("made_from")).get("code"),
        "digest": record.get("digest"),
    }


def _periods(store: CheckedStore, pixel: Pixel, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what each period's value at a pixel was made of."""
    spec = store.spec
    scenes = _dict(record.get("scenes"))
    known = read_note(store.place, "scenes", record.get("scene_list"))
    layers = {name: _read(store, name, pixel) for name in store.layers}
    found = []
    for number, period in enumerate(spec.periods):
        share = int(layers["clear_share"][number])
        values = layers["reflectance"][number]
        found.append(
            {
                "period": str(period),
                "values": {
                    band: None if value == NODATA else round(float(value) * SCALE, 4)
                    for band, value in zip(spec.bands, values, strict=True)
                },
                "clear_count": int(layers["clear_count"][number]),
                "clear_share": None if share in (NO_LOOK, LOOKS_LOST) else share,
                "state": _state(layers, number),
                "mean_day": int(layers["mean_day"][number]) or None,
                "scenes": [_scene(one, known) for one in _list(scenes.get(str(period)))],
            }
        )
    return found


def _state(layers: Mapping[str, np.ndarray], number: int) -> str:
    """Return how a period's value came to be, in a word or two."""
    if layers["is_filled"][number]:
        return "filled"
    if layers["clear_count"][number]:
        return "seen"
    share = int(layers["clear_share"][number])
    return {NO_LOOK: "no look", LOOKS_LOST: "looks lost"}.get(share, "never clear")


def _scene(look: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return a look by the ids of its scenes, with its time where the ledger has it."""
    ids = str(look).split("+")
    times = [_dict(known.get(one)).get("time") for one in ids]
    return {"scenes": ids, "time": next((one for one in times if isinstance(one, str)), None)}


def map_lineage(store: CheckedStore, pixel: Pixel) -> dict[str, Any]:
    """Return what a map's ledger and layers say of a pixel."""
    record = Ledger(store=store.place, inputs=None).record_of(pixel.region)
    parts = _dict(record.get("made_from"))
    names = {one.value: one.name for one in map_classes(store.place)}
    layers = {name: int(_read(store, name, pixel)) for name in store.layers}
    value = layers.pop("species")
    marked = str(parts.get("classifier", ""))[:16]
    return {
        "store": str(store.place),
        "tile": pixel.region.id,
        "row": pixel.row,
        "column": pixel.column,
        "is_recorded": bool(record),
        **_origin(record),
        "class": None if value == UNCLASSIFIED else names.get(value, f"value {value}"),
        **{name: _quality(name, value) for name, value in layers.items()},
        "engine": record.get("engine"),
        "classifier": {
            "fingerprint": parts.get("classifier"),
            **read_note(store.place, "classifier", marked),
        },
        "pixels": parts.get("pixels"),
    }


def _quality(name: str, value: int) -> float | int | None:
    if value == QUALITY_NODATA:
        return None
    return round(value * QUALITY_SCALE, 2) if name in ("confidence", "margin") else value


def _map_changes(found: Mapping[str, Any], place: Place) -> list[str]:
    """Return why the map's tile would be made again from what lies beside the map now."""
    reasons = []
    record = Ledger(store=place.with_name("cube.zarr"), inputs=None)
    made, cube = found["map"], found["cube"]
    if not made["is_recorded"]:
        return ["it has no record"]
    if made["pixels"] and cube["tile"] == made["tile"]:
        now = _digest_of(record, cube["tile"], place)
        if now != made["pixels"]:
            reasons.append("the cube has other pixels there by now")
    classifier = place.with_name("classifier")
    if isinstance(classifier, Path) and classifier.exists():
        from model.classifier import SpeciesClassifier

        if SpeciesClassifier.load(classifier).fingerprint != made["classifier"]["fingerprint"]:
            reasons.append("the classifier is another one by now")
    return reasons


def _digest_of(ledger: Ledger, tile: str, place: Place) -> str | None:
    region = checked_store(place).spec.region(tile)
    digest: str | None = ledger.record_of(region).get("reflectance_digest")
    return digest


def _read(store: CheckedStore, name: str, pixel: Pixel) -> np.ndarray:
    """Return all of one pixel of a layer; `InputError` where it cannot be decoded."""
    array = stored_array(zarr.open_group(zarr_place(store.place), mode="r"), name)
    try:
        return np.asarray(array[(..., *pixel.inside)])[..., 0, 0]
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"tile {pixel.region.id} of {str(store.place)!r} is damaged ({str(error)[:80]}); "
            "`canopycube verify` tells what to do"
        ) from error


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
