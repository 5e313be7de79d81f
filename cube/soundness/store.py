"""A store of ours in, what it is to hold out: which arrays, on which grid, in which tiles."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import zarr
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj.exceptions import CRSError

from cube.errors import InputError
from cube.mapstore import EXTRA_LAYERS, create_map, map_classes, quality_layers
from cube.place import Place, zarr_place
from cube.spec import CubeSpec
from cube.store import CubeBlocks, create_cube, read_spec
from cube.zarrstore import read_attributes

LONGEST_EDGE = 20_000_000
"""Pixels along an edge above which a description is refused: at 1 m half round the globe. Its
coordinates are made for a comparison, and would fill the memory."""

MOST_TILES = 20_000_000
"""Tiles of a grid above which a description is refused: each is looked at."""

LARGEST_TILE = 8 * 2**30
"""Bytes of a tile above which a description is refused, for it is read whole."""


@dataclass(frozen=True, kw_only=True)
class CheckedStore:
    """A cube or a map, as its own description has it."""

    place: Place
    """Where it is."""
    kind: str
    """`cube` or `map`."""
    spec: CubeSpec
    """Its grid and tiles; of a map those of the cube that it was made of."""
    layers: tuple[str, ...]
    """Its arrays of pixels, in the order in which digests are taken over them."""
    allocate: Callable[[Place], None]
    """Makes the same store, empty, at another place."""


def checked_cube(place: Place) -> CheckedStore:
    """Return what a cube is to hold; `InputError` if it is none, or none that can be."""
    spec = _named_as_stored(place, read_spec(place))
    _refuse_sizes(place, spec)
    title = _title(place)
    return CheckedStore(
        place=place,
        kind="cube",
        spec=spec,
        layers=tuple(CubeBlocks.__dataclass_fields__),
        allocate=lambda other: create_cube(other, spec, title=title),
    )


def checked_map(place: Place) -> CheckedStore:
    """Return what a map is to hold; `InputError` if it is none, or does not say of what cube."""
    attributes = read_attributes(place, kind="map")
    described = attributes.get("spec")
    if not isinstance(described, dict):
        raise InputError(
            f"the map at {str(place)!r} does not say of what cube it was made, so an earlier version "
            "wrote it; `canopycube map` makes it anew"
        )
    spec, classes = _named_as_stored(place, CubeSpec.from_json(described)), map_classes(place)
    _refuse_sizes(place, spec)
    quality = quality_layers(place)
    title = _title(place)
    return CheckedStore(
        place=place,
        kind="map",
        spec=spec,
        layers=("species", *quality),
        allocate=lambda other: create_map(
            other,
            geobox=spec.geobox,
            classes=classes,
            tile=spec.tile,
            chunk=spec.chunk,
            zarr_format=spec.zarr_format,
            title=title,
            layers=tuple(name for name in quality if name in EXTRA_LAYERS),
            notes={key: attributes[key] for key in ("spec", "mosaic") if key in attributes},
        ),
    )


def _named_as_stored(place: Place, spec: CubeSpec) -> CubeSpec:
    """Return a spec whose CRS has the name that the store's coordinates give it, or its EPSG code.

    The description has it as WKT, and what is mended is to be as it was.
    """
    names = [f"EPSG:{spec.crs.epsg}"] if spec.crs.epsg else []
    group = zarr.open_group(zarr_place(place), mode="r")
    for axis in ("y", "x"):
        try:
            names.insert(0, str(group[axis].attrs["crs"]))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue  # it is at fault itself
    for name in names:
        try:
            crs = CRS(name)
        except CRSError:
            continue
        if crs == spec.crs:
            box = GeoBox(spec.geobox.shape, spec.geobox.affine, crs)
            return replace(spec, geobox=box)
    return spec


def _title(place: Place) -> str:
    title: Any = zarr.open_group(zarr_place(place), mode="r").attrs.get("title", "")
    return str(title)


def _refuse_sizes(place: Place, spec: CubeSpec) -> None:
    """Refuse what would fill the memory before anything could be told of it."""
    times, bands, height, width = spec.shape
    tile = 2 * times * bands * min(spec.tile, height) * min(spec.tile, width)
    if max(height, width) > LONGEST_EDGE or tile > LARGEST_TILE or spec.grid_tiles > MOST_TILES:
        raise InputError(
            f"{str(place)!r} says that it has {height} x {width} pixels and {spec.grid_tiles} tiles "
            f"of {tile} bytes; expected at most {LONGEST_EDGE} along an edge, {MOST_TILES} tiles and "
            f"{LARGEST_TILE} bytes"
        )
