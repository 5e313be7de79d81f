"""A grid and the classes in, an empty map store out; tiles of the map are written into it."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
import zarr
from jaxtyping import UInt8
from odc.geo.geobox import GeoBox

from cube.errors import InputError
from cube.place import Place, as_place, zarr_place
from cube.spec import Region
from cube.storedfiles import write_whole
from cube.zarrstore import (
    SCHEMA,
    StoredVariable,
    change_attributes,
    create_store,
    open_physical,
    read_attributes,
    stored_array,
)

UNCLASSIFIED = 0
"""Map value of pixels that could not be classified."""

QUALITY_NODATA = 255
"""Stored value of the quality layers where nothing was classified."""

QUALITY_SCALE = 0.01
"""Physical value of one stored unit of `confidence` and `margin`: whole percent."""

LAYERS: dict[str, dict[str, Any]] = {
    "confidence": {"long_name": "probability of the class that was chosen"},
    "margin": {"long_name": "probability of the class that was chosen less the runner-up's"},
    "months_observed": {"long_name": "months with at least one clear look"},
}
"""The quality layers beside `species`, with their CF attributes."""

EXTRA_LAYERS: dict[str, dict[str, Any]] = {
    "likely_classes": {"long_name": "number of classes that cannot be ruled out"},
    "applicable": {
        "long_name": "whether the pixel is like the training samples",
        "flag_values": [0, 1],
        "flag_meanings": "unlike_training like_training",
    },
}
"""Quality layers that a map has if it was asked for them, with their CF attributes."""


@dataclass(frozen=True, kw_only=True)
class MapClass:
    """One entry of a map's legend."""

    value: int
    """Map value, 1..254."""
    name: str
    """Class name as the reference data spells it."""
    colour: str
    """Colour as `#rrggbb`."""

    def __post_init__(self) -> None:
        if not 1 <= self.value <= 254:
            raise InputError(f"class {self.name!r} has map value {self.value}; expected 1..254")
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", self.colour):
            raise InputError(f"class {self.name!r} has colour {self.colour!r}; expected '#rrggbb'")


def check_legend(classes: Sequence[MapClass]) -> None:
    """Raise `InputError` if there is no class, or two share a map value or a name."""
    if not classes:
        raise InputError("the legend of the map is empty; give its classes")
    for what, entries in (
        ("map value", [item.value for item in classes]),
        ("name", [item.name for item in classes]),
    ):
        if twice := [entry for entry, count in Counter(entries).items() if count > 1]:
            raise InputError(
                f"two classes of the legend have the {what} {twice[0]!r}; make them differ"
            )


def flag_attributes(classes: Sequence[MapClass]) -> dict[str, Any]:
    """Return the CF attributes that say what the values of a class layer mean.

    `flag_values` and `flag_meanings` as in CF 1.11, section 3.5: names are parted by blanks, so
    those inside a name become underscores. `flag_colours` has one `#rrggbb` a value.
    """
    return {
        "flag_values": [item.value for item in classes],
        "flag_meanings": " ".join(re.sub(r"\s+", "_", item.name) for item in classes),
        "flag_colours": " ".join(item.colour for item in classes),
    }


def create_map(
    path: Place,
    *,
    geobox: GeoBox,
    classes: tuple[MapClass, ...],
    tile: int,
    chunk: int,
    zarr_format: Literal[2, 3] = 3,
    title: str = "canopycube map",
    layers: Sequence[str] = (),
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Allocate an empty map at `path`: `species` and the quality layers, all nodata, (y, x).

    `layers` names those of `EXTRA_LAYERS` that it gets; they follow the others in the order of
    `EXTRA_LAYERS`. `notes` is what else is kept with it, as plain JSON. Raises `InputError` for no
    class at all, for two with the same value or name, and if `path` cannot be written or something
    lies there.
    """
    check_legend(classes)
    height, width = geobox.shape
    shards = (tile, tile) if zarr_format == 3 else None

    def layer(fill_value: int, attributes: Mapping[str, Any]) -> StoredVariable:
        return StoredVariable(
            dims=("y", "x"),
            shape=(height, width),
            dtype="uint8",
            fill_value=fill_value,
            chunks=(chunk, chunk),
            shards=shards,
            attributes=attributes,
        )

    flags = flag_attributes(classes)
    scaled = {"scale_factor": QUALITY_SCALE, "add_offset": 0.0, "units": "1"}
    create_store(
        path,
        geobox=geobox,
        variables={
            "species": layer(UNCLASSIFIED, {"long_name": "species or land-cover class", **flags}),
            "confidence": layer(QUALITY_NODATA, {**LAYERS["confidence"], **scaled}),
            "margin": layer(QUALITY_NODATA, {**LAYERS["margin"], **scaled}),
            "months_observed": layer(QUALITY_NODATA, {**LAYERS["months_observed"], "units": "1"}),
            **{
                name: layer(QUALITY_NODATA, {**EXTRA_LAYERS[name], "units": "1"}) for name in layers
            },
        },
        coordinates={},
        attributes={
            "Conventions": "CF-1.11",
            "title": title,
            "canopycube": {
                "schema": SCHEMA,
                "kind": "map",
                "classes": [
                    {"value": item.value, "name": item.name, "colour": item.colour}
                    for item in classes
                ],
                "tile": tile,
                "layers": list(layers),
                **(notes or {}),
            },
        },
        zarr_format=zarr_format,
    )


def map_engine(path: Place) -> dict[str, Any]:
    """Return what computed the map at `path`, as `note_engine` stored it; empty before that."""
    stored = read_attributes(path, kind="map").get("engine")
    return dict(stored) if isinstance(stored, dict) else {}


def note_engine(path: Place, details: Mapping[str, Any]) -> None:
    """Store with a map what computed it, as plain JSON values."""
    change_attributes(path, {"engine": dict(details)})


def map_classes(path: Place) -> tuple[MapClass, ...]:
    """Return the legend of the map at `path`; `InputError` if there is no map."""
    stored = read_attributes(path, kind="map").get("classes")
    try:
        if not isinstance(stored, list) or not stored:
            raise TypeError("no list of classes")
        return tuple(MapClass(**item) for item in stored)
    except TypeError as error:
        raise InputError(
            f"the map at {str(path)!r} is damaged: its legend is {str(stored)[:80]!r}"
        ) from error


def quality_layers(path: Place) -> tuple[str, ...]:
    """Return the names of the quality layers of the map at `path`, extra ones last."""
    extra = read_attributes(path, kind="map").get("layers", [])
    return (*LAYERS, *(name for name in EXTRA_LAYERS if isinstance(extra, list) and name in extra))


def write_map_region(
    path: Place, region: Region, layers: Mapping[str, UInt8[np.ndarray, "y x"]]
) -> None:
    """Write one tile of every layer of a map; writing it twice changes nothing.

    Raises `ValueError` for a region that cuts a stored object, or a block of another shape.
    """
    group = zarr.open_group(zarr_place(path), mode="r+")
    for name, block in layers.items():
        write_whole(stored_array(group, name), region, block)


def read_map_region(path: Place, region: Region) -> UInt8[np.ndarray, "layer y x"]:
    """Read one tile of every layer as it is stored: `species`, then the `quality_layers`."""
    group = zarr.open_group(zarr_place(path), mode="r")
    layers = [stored_array(group, name) for name in ("species", *quality_layers(path))]
    return np.stack([np.asarray(layer[region.rows, region.columns]) for layer in layers])


def open_map(path: str | Place) -> xr.Dataset:
    """Open a map lazily, dims (y, x), CRS ready for `.rio` and `.odc`.

    `species` is uint8, 0 where unclassified, else the value of a class of `map_classes(path)`;
    `confidence` and `margin` are float32 0..1, `months_observed` and what is there of
    `EXTRA_LAYERS` float32, NaN where unclassified. Raises `InputError` if there is no map at `path`.
    """
    path = as_place(path)
    tile = read_attributes(path, kind="map").get("tile")
    if not isinstance(tile, int) or tile < 1:
        raise InputError(f"the map at {str(path)!r} is damaged: its tile is {tile!r}")
    return open_physical(path, chunks={"y": tile, "x": tile}, keep_stored=("species",))
