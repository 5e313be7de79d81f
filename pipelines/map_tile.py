"""A tile of a cube in, the same tile of a map out: read, classified, written, recorded."""

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import shapely
from dask.delayed import delayed
from jaxtyping import Bool, Int16, UInt8

from cube.errors import WorkFailedError
from cube.ledger import Ledger, digest
from cube.mapstore import QUALITY_NODATA, UNCLASSIFIED, MapClass, write_map_region
from cube.spec import CubeSpec, Region, tile_region
from cube.store import read_region
from model.engines import choose_engine
from pipelines.cluster import place_under_way
from pipelines.lazy_map import classify_block, layer_names, load_once, stored_layers
from pipelines.map_clip import clip_bytes

BUILD_ANEW = "Its record is removed: running again builds it anew"


@dataclass(frozen=True, kw_only=True)
class MapJob:
    """Everything a map is made from; some kB, for it goes to every worker."""

    title: str
    """Title of the map."""
    cube: Path
    """The finished cube."""
    cube_inputs: str
    """Fingerprint its ledger was made with; a tile that is not what its record says is refused."""
    spec: CubeSpec
    """What the cube is."""
    classifier: Path
    """Folder of the classifier."""
    stamp: str
    """Hash of the classifier's files: a task refuses another classifier."""
    path: Path
    """Where the map is, or will be."""
    classes: tuple[MapClass, ...]
    """The legend."""
    inputs: str
    """Fingerprint of all that decides the map's pixels and legend."""
    min_months: int
    """Pixels with fewer clear periods stay unclassified."""
    clip: Path | None
    """File (`pipelines.map_clip`) of a WKB polygon in the cube's CRS; pixels whose centre is outside
    stay unclassified."""
    engine: str
    """What computes probabilities, by name; a worker where it fails its test takes another."""
    engine_reason: str
    """Why it was chosen."""
    layers: tuple[str, ...] = ()
    """What the map has of `cube.mapstore.EXTRA_LAYERS`."""


def lazily_written(job: MapJob) -> da.Array:
    """Return the lazy (tile row, tile column) array whose blocks, once computed, are in the map.

    A task reads its tile itself: one that is to be read has a place among those under way, and
    what is outside the clip is not read at all. The job, without the legend, which no task asks
    for, goes to each worker once; a task names it and its tile, in some 350 bytes.
    """
    _, _, height, width = job.spec.shape
    rows, columns = (-(-size // job.spec.tile) for size in (height, width))
    written: da.Array = da.map_blocks(
        map_tile,
        job=delayed(replace(job, classes=()), traverse=False),
        chunks=((1,) * rows, (1,) * columns),
        dtype=bool,
        meta=np.empty((0, 0), bool),
    )
    return written


def map_tile(*, job: MapJob, block_id: tuple[int, int]) -> Bool[np.ndarray, "1 1"]:
    """Classify one tile, write its layers, record it; returns one True."""
    with place_under_way() as cores:
        started = time.perf_counter()
        region = tile_region(job.spec.shape[2:], job.spec.tile, *block_id)
        wanted = wanted_pixels(job, region)
        if wanted is not None and not wanted.any():
            layers = _nothing(job, region)
        elif cores is None:
            layers = _classified(read_region(job.cube, region), job, region, wanted)
        else:
            times, bands, _, _ = job.spec.shape
            shape = (times, bands, region.height, region.width)
            with cores.room(2 * math.prod(shape)) as memory:
                block = read_region(job.cube, region, out=memory.view(np.int16).reshape(shape))
                layers = cores.compute(_classified, block, job, region, wanted)
        _write(layers, job, region, seconds=time.perf_counter() - started)
    return np.ones((1, 1), bool)


def _classified(
    block: Int16[np.ndarray, "time band y x"],
    job: MapJob,
    region: Region,
    wanted: Bool[np.ndarray, "y x"] | None,
) -> UInt8[np.ndarray, "layer y x"]:
    """Return the layers of one tile; raise `WorkFailedError` if its pixels are not what was built."""
    _refuse_other_pixels(block, job, region)
    return classify_block(
        block,
        folder=job.classifier,
        stamp=job.stamp,
        bands=job.spec.bands,
        min_months=job.min_months,
        engine=job.engine,
        layers=job.layers,
        wanted=wanted,
    )


def _write(
    layers: UInt8[np.ndarray, "layer y x"], job: MapJob, region: Region, *, seconds: float
) -> None:
    ledger = Ledger(store=job.path, inputs=job.inputs)
    ledger.forget_others(region)
    write_map_region(job.path, region, stored_layers(layers, job.layers))
    record: dict[str, Any] = {
        "digest": digest(layers),
        "classified": int((layers[0] != UNCLASSIFIED).sum()),
        "engine": choose_engine(load_once(job.classifier, job.stamp), job.engine).name,
        "seconds": round(seconds, 3),
    }
    ledger.record(region, record)


def _nothing(job: MapJob, region: Region) -> UInt8[np.ndarray, "layer y x"]:
    """Return the layers of a tile without a classified pixel."""
    size = (len(layer_names(job.layers)), region.height, region.width)
    layers = np.full(size, QUALITY_NODATA, np.uint8)
    layers[0] = UNCLASSIFIED
    return layers


def _refuse_other_pixels(block: np.ndarray, job: MapJob, region: Region) -> None:
    """Refuse a tile of the cube that is not what was built: a lost object reads as nodata."""
    ledger = Ledger(store=job.cube, inputs=job.cube_inputs)
    if ledger.record_of(region).get("reflectance_digest") != digest(block):
        ledger.forget(region)
        raise WorkFailedError(f"the cube is not what was built here. {BUILD_ANEW}")


def wanted_pixels(job: MapJob, region: Region) -> Bool[np.ndarray, "y x"] | None:
    """Return which pixels of a tile have their centre inside the clip; None if all have."""
    if job.clip is None:
        return None
    window = region.window(job.spec.geobox)
    # parsed anew: what preparing adds to a polygon is not for several threads
    polygon = shapely.from_wkb(clip_bytes(job.clip))
    shapely.prepare(polygon)
    tile = shapely.box(*window.boundingbox)
    if polygon.contains_properly(tile):
        return None
    if polygon.disjoint(tile):
        return np.zeros(window.shape, bool)
    # not by rasterio's mask, which warns of missing georeferencing when two threads make one
    x, y = (window.coordinates[name].values for name in ("x", "y"))
    inside: np.ndarray = shapely.contains_xy(polygon, x[None, :], y[:, None])  # (y, x)
    return inside
