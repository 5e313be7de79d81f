"""A tile of a cube in, the same tile of a map out: read, classified, written, recorded."""

import math
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import shapely
from dask.delayed import delayed
from jaxtyping import Bool, Float64, Int16, Int64

from cube.errors import WorkFailedError
from cube.lease import Mark
from cube.ledger import Ledger, digest
from cube.mapstore import QUALITY_NODATA, UNCLASSIFIED, MapClass, write_map_region
from cube.place import Place
from cube.spec import CubeSpec, Region, tile_region
from cube.stac.touching import tile_boxes
from cube.store import read_region
from model.engines import choose_engine
from pipelines.cluster import job_of, place_under_way
from pipelines.lazy_map import Classified, classify_tile, layer_names, load_once, stored_layers
from pipelines.map_inputs import MapInputs, MapTileInputs, clipped, polygon_of
from pipelines.tile_inputs import MADE_BY

STRIP_ROWS = 64
"""Rows of a tile that are classified at once where memory did not suffice for all."""

HOW_NOT_TO_MIX = (
    "Ask for engine exact, or hold all workers to one kind of arithmetic by the environment "
    "variable CANOPYCUBE_ENGINE_ISA, e.g. avx512"
)

BUILD_ANEW = "Its record is removed: running again builds it anew"


@dataclass(frozen=True, kw_only=True)
class MapJob:
    """Everything a map is made from; some kB, for it goes to every worker."""

    title: str
    """Title of the map."""
    cube: Place
    """The finished cube."""
    spec: CubeSpec
    """What the cube is."""
    classifier: Path
    """Folder of the classifier."""
    stamp: str
    """Hash of the classifier's files: a task refuses another classifier."""
    path: Place
    """Where the map is, or will be."""
    classes: tuple[MapClass, ...]
    """The legend."""
    inputs: str
    """Fingerprint of all that decides the map's pixels and legend."""
    made_from: MapInputs
    """The same, to be asked for each tile's share of it."""
    min_months: int
    """Pixels with fewer clear periods stay unclassified."""
    clip: Place | None
    """File (`pipelines.map_clip`) of a WKB polygon in the cube's CRS; pixels whose centre is outside
    stay unclassified."""
    engine: str
    """What computes probabilities, by name; a worker where it fails its test takes another."""
    engine_reason: str
    """Why it was chosen."""
    arithmetic: str = ""
    """Of engine `fast` what it computes with; a worker that has another refuses. Empty of others,
    whose results are as close as makes no difference."""
    mark: Mark | None = None
    """Of the lease under which its tasks write."""
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


def written_tiles(regions: Sequence[Region], *, parcel: str, in_strips: bool = False) -> list[Any]:
    """Return delayed tasks that map tiles with the job in a parcel; each gives its seconds.

    They are the blocks of one small array. What goes to a worker is a tile's place, in some 300
    bytes.
    """
    places = np.array([(region.row, region.column) for region in regions])  # (tile, 2)
    mapped = da.map_blocks(
        _map_shared,
        da.from_array(places, chunks=(1, 2), name=f"tiles-{uuid.uuid4().hex}"),
        parcel=parcel,
        in_strips=in_strips,
        drop_axis=1,
        dtype=np.float64,
        meta=np.empty(0),
        name=f"map-{uuid.uuid4().hex}",
    )
    return list(mapped.to_delayed(optimize_graph=True))


def _map_shared(
    place: Int64[np.ndarray, "1 2"], *, parcel: str, in_strips: bool
) -> Float64[np.ndarray, " 1"]:
    """Map one tile with what its worker was given; returns the seconds that it took."""
    started = time.perf_counter()
    row, column = (int(number) for number in place[0])
    map_tile(job=job_of(parcel), block_id=(row, column), in_strips=in_strips)
    return np.array([time.perf_counter() - started])


def map_tile(
    *, job: MapJob, block_id: tuple[int, int], in_strips: bool = False
) -> Bool[np.ndarray, "1 1"]:
    """Classify one tile, write its layers, record it; returns one True.

    `in_strips` it is classified a few rows after the others, which takes less memory, and time.
    """
    classified = partial(_classified, rows=STRIP_ROWS if in_strips else None)
    with place_under_way() as cores:
        started = time.perf_counter()
        region = tile_region(job.spec.shape[2:], job.spec.tile, *block_id)
        wanted = wanted_pixels(job, region)
        inputs = job.made_from.of(region, _pixels_of(job, region))
        if wanted is not None and not wanted.any():
            found = _nothing(job, region)
        elif cores is None:
            found = classified(read_region(job.cube, region), job, region, wanted)
        else:
            times, bands, _, _ = job.spec.shape
            shape = (times, bands, region.height, region.width)
            with cores.room(2 * math.prod(shape)) as memory:
                block = read_region(job.cube, region, out=memory.view(np.int16).reshape(shape))
                found = cores.compute(classified, block, job, region, wanted)
        _write(found, job, region, inputs, seconds=time.perf_counter() - started)
    return np.ones((1, 1), bool)


def _classified(
    block: Int16[np.ndarray, "time band y x"],
    job: MapJob,
    region: Region,
    wanted: Bool[np.ndarray, "y x"] | None,
    *,
    rows: int | None,
) -> Classified:
    """Return one tile classified; at most so many `rows` at once, by default all.

    Raises `WorkFailedError` if its pixels are not what was built, or if this process computes
    `fast` otherwise than the map is.
    """
    _refuse_other_pixels(block, job, region)
    _refuse_other_arithmetic(job)
    classify = partial(
        classify_tile,
        folder=job.classifier,
        stamp=job.stamp,
        bands=job.spec.bands,
        min_months=job.min_months,
        engine=job.engine,
        layers=job.layers,
    )
    if rows is None:
        return classify(block, wanted=wanted)
    strips = [slice(top, top + rows) for top in range(0, region.height, rows)]
    while True:
        parts = [
            classify(
                np.ascontiguousarray(block[:, :, strip]),
                wanted=None if wanted is None else wanted[strip],
            )
            for strip in strips
        ]
        if len({(part.engine, part.arithmetic) for part in parts}) == 1:
            return replace(parts[0], layers=np.concatenate([p.layers for p in parts], axis=1))
        # a device was lost on the way, once and for all: a tile is by one engine


def _write(
    found: Classified,
    job: MapJob,
    region: Region,
    inputs: MapTileInputs,
    *,
    seconds: float,
) -> None:
    ledger = Ledger(store=job.path, inputs=inputs.fingerprint, mark=job.mark)
    ledger.forget_others(region)
    layers = found.layers
    write_map_region(job.path, region, stored_layers(layers, job.layers))
    record: dict[str, Any] = {
        "digest": digest(layers),
        "made_from": inputs.to_json(),
        "made_by": MADE_BY,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "classified": int((layers[0] != UNCLASSIFIED).sum()),
        "engine": found.engine,
        "arithmetic": found.arithmetic,
        "seconds": round(seconds, 3),
    }
    ledger.record(region, record)


def _pixels_of(job: MapJob, region: Region) -> str:
    """Return the digest of a tile's reflectance as the cube's record has it; empty without one."""
    record = Ledger(store=job.cube, inputs=None).record_of(region)
    return str(record.get("reflectance_digest", ""))


def _nothing(job: MapJob, region: Region) -> Classified:
    """Return a tile without a pixel that is to be classified."""
    size = (len(layer_names(job.layers)), region.height, region.width)
    layers = np.full(size, QUALITY_NODATA, np.uint8)
    layers[0] = UNCLASSIFIED
    return Classified(layers=layers, engine="none", arithmetic="none")


def _refuse_other_arithmetic(job: MapJob) -> None:
    """Refuse to mix, within a map, pixels that two kinds of processors compute up to 1 % apart."""
    if not job.arithmetic:
        return
    here = choose_engine(load_once(job.classifier, job.stamp), job.engine)
    if here.name == job.engine and here.arithmetic != job.arithmetic:
        raise WorkFailedError(
            f"engine {here.name} computes with {here.arithmetic} on this worker, the map's other "
            f"tiles with {job.arithmetic}. {HOW_NOT_TO_MIX}"
        )


def _refuse_other_pixels(block: np.ndarray, job: MapJob, region: Region) -> None:
    """Refuse a tile of the cube that is not what was built: a lost object reads as nodata."""
    if _pixels_of(job, region) != digest(block):
        Ledger(store=job.cube, inputs=None, mark=job.mark).forget(region)
        raise WorkFailedError(f"the cube is not what was built here. {BUILD_ANEW}")


def wanted_pixels(job: MapJob, region: Region) -> Bool[np.ndarray, "y x"] | None:
    """Return which pixels of a tile have their centre inside the clip; None if all have."""
    if job.clip is None:
        return None
    window = region.window(job.spec.geobox)
    polygon = polygon_of(job.clip)
    place = clipped(polygon, *tile_boxes([region], job.spec.geobox)[0].tolist())
    if place == "inside":
        return None
    if place == "outside":
        return np.zeros(window.shape, bool)
    # not by rasterio's mask, which warns of missing georeferencing when two threads make one
    x, y = (window.coordinates[name].values for name in ("x", "y"))
    inside: np.ndarray = shapely.contains_xy(polygon, x[None, :], y[:, None])  # (y, x)
    return inside
