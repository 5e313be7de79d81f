"""Maps on several grids in, one map on a grid of its own out, tile by tile, classes by nearest pixel."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
import zarr
from jaxtyping import Int64, UInt8
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from cube.errors import InputError
from cube.grid import LON_LAT, grid_of_area, utm_epsg
from cube.ledger import Ledger, fingerprint
from cube.mapstore import (
    EXTRA_LAYERS,
    LAYERS,
    QUALITY_NODATA,
    UNCLASSIFIED,
    MapClass,
    map_classes,
    quality_layers,
)
from cube.place import Place, zarr_place
from cube.spec import CubeSpec, Region
from cube.stac.footprint import window_outline
from cube.touched import runs_of, touched_tiles
from cube.warp import place
from cube.zarrstore import read_attributes, stored_array

ALGORITHM = 1
"""Counted up when the same maps give other pixels, so that older tiles are made again."""


@dataclass(frozen=True, kw_only=True)
class MosaicPart:
    """A map that is laid into a mosaic."""

    path: Place
    """Its store."""
    spec: CubeSpec
    """The cube that it was made from: grid, tiles, which of them the area touches."""
    digest: str
    """Hash of the pixels of all its tiles."""


@dataclass(frozen=True, kw_only=True)
class Mosaic:
    """Maps and the grid on which they become one."""

    parts: tuple[MosaicPart, ...]
    """The maps; where none is of the zone that a pixel lies in, earlier ones count more."""
    spec: CubeSpec
    """Grid and tiles of the mosaic; periods and bands are those of the first map."""
    classes: tuple[MapClass, ...]
    """The legend, the same in all maps."""
    layers: tuple[str, ...]
    """Extra layers that all maps have."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the mosaic's layers, in their order."""
        return ("species", *LAYERS, *self.layers)

    @property
    def inputs(self) -> str:
        """Fingerprint of all that decides its pixels."""
        return fingerprint(
            {
                "algorithm": ALGORITHM,
                "spec": self.spec.to_json(),
                "maps": [[part.digest, part.spec.to_json()] for part in self.parts],
                "layers": self.names,
            }
        )


def plan_mosaic(
    maps: Sequence[Place], *, crs: str = "equal-area", resolution: float | None = None
) -> Mosaic:
    """Settle the grid over all of `maps`; of the finest one's pixel size, or of `resolution` metres.

    Tiles of the mosaic are those that share ground with a tile of a map. Raises `InputError` for
    no map, one that is not finished, maps with other classes, and a grid that cannot be.
    """
    if not maps:
        raise InputError("no map is given to be laid together")
    parts = tuple(_part(path) for path in maps)
    classes = map_classes(maps[0])
    for path in maps[1:]:
        if map_classes(path) != classes:
            raise InputError(
                f"the maps {str(maps[0])!r} and {str(path)!r} have other classes; make both with one "
                "classifier"
            )
    common = set.intersection(*(set(quality_layers(path)) for path in maps))
    first = parts[0].spec
    finest = min(abs(part.spec.geobox.resolution.x) for part in parts)
    step = finest if resolution is None else resolution
    ground = _ground(parts)
    geobox = grid_of_area(ground, crs=crs, resolution=step)
    touched = touched_tiles(ground, geobox, first.tile)
    return Mosaic(
        parts=parts,
        spec=replace(first, geobox=geobox, touched=None if touched.all() else runs_of(touched)),
        classes=classes,
        layers=tuple(name for name in EXTRA_LAYERS if name in common),
    )


def _part(path: Place) -> MosaicPart:
    stored = read_attributes(path, kind="map").get("spec")
    if not isinstance(stored, dict):
        raise InputError(f"the map at {str(path)!r} is of an older version; map it again")
    spec, ledger = CubeSpec.from_json(stored), Ledger(store=path, inputs=None)
    found = {tile: record.get("digest") for tile, record in ledger.each()}
    digests = {one.id: found[one.id] for one in spec.regions() if one.id in found}
    if len(digests) < spec.tile_count:
        raise InputError(
            f"the map at {str(path)!r} has {len(digests)} of {spec.tile_count} tiles; finish it first"
        )
    return MosaicPart(path=path, spec=spec, digest=fingerprint(digests))


def _ground(parts: Sequence[MosaicPart]) -> Geometry:
    """Return the tiles of all maps in lon/lat, in one turn of the globe."""
    found: list[BaseGeometry] = []
    for part in parts:
        for rows, columns in _rows_of_tiles(part.spec):
            outline = window_outline(part.spec.geobox[rows, columns])
            left = found[0].bounds[0] if found else outline.bounds[0]
            turn = round((left - outline.bounds[0]) / 360) * 360
            found.append(translate(outline, xoff=turn))
    return Geometry(shapely.union_all(found), LON_LAT)


def _rows_of_tiles(spec: CubeSpec) -> list[tuple[slice, slice]]:
    """Return the tiles of a cube, those beside each other as one: all of it where it has all."""
    height, width = spec.shape[2:]
    if spec.touched is None:
        return [(slice(0, height), slice(0, width))]
    found: list[tuple[slice, slice]] = []
    for region in spec.regions():
        last = found[-1] if found else None
        if last and last[0] == region.rows and last[1].stop == region.columns.start:
            found[-1] = (last[0], slice(last[1].start, region.columns.stop))
        else:
            found.append((region.rows, region.columns))
    return found


def mosaic_block(mosaic: Mosaic, region: Region) -> UInt8[np.ndarray, "layer y x"]:
    """Return one tile of a mosaic: `species`, then its quality layers.

    A pixel is that of the map of the UTM zone in which its centre lies, the one that holds its
    centre; where that map has none there or none is classified, of the first map that has one.
    """
    window = region.window(mosaic.spec.geobox)
    layers = np.full((len(mosaic.names), region.height, region.width), QUALITY_NODATA, np.uint8)
    layers[0] = UNCLASSIFIED
    brought = [
        (part, found)
        for part in mosaic.parts
        if (found := _brought(part, window, mosaic.names)) is not None
    ]
    if not brought:
        return layers
    zone = _zones(window) if len(brought) > 1 else None  # one map has no edge to another
    for is_own in (True, False) if zone is not None else (False,):
        for part, found in brought:
            is_taken = (layers[0] == UNCLASSIFIED) & (found[0] != UNCLASSIFIED)
            if is_own:
                is_taken &= zone == (part.spec.crs.epsg or 0)
            layers[:, is_taken] = found[:, is_taken]
    return layers


def _brought(
    part: MosaicPart, window: GeoBox, names: Sequence[str]
) -> UInt8[np.ndarray, "layer y x"] | None:
    """Return the layers of a map on a window of another grid, None where they do not meet."""
    placement = place(part.spec.geobox, window)
    if placement is None:
        return None
    group = zarr.open_group(zarr_place(part.path), mode="r")
    found = []
    for name in names:
        stored = np.asarray(stored_array(group, name)[placement.rows, placement.columns])
        nodata = UNCLASSIFIED if name == "species" else QUALITY_NODATA
        found.append(placement.bring(stored[None], nodata=nodata, is_smooth=False)[0])
    return np.stack(found)


def _zones(window: GeoBox) -> Int64[np.ndarray, "y x"]:
    """Return the EPSG code of the UTM zone in which the centre of each pixel lies."""
    assert window.crs is not None  # CubeSpec refuses a grid without one
    x, y = (window.coordinates[name].values for name in ("x", "y"))
    longitude, latitude = window.crs.transformer_to_crs(LON_LAT)(*np.meshgrid(x, y))
    return utm_epsg(np.asarray(longitude), np.asarray(latitude))  # (y, x)
