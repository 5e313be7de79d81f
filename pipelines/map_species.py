"""A cube and a classifier in, a map store out: one Dask task reads, classifies and writes a tile."""

import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import shapely
from distributed import Client
from jaxtyping import UInt8
from odc.geo.geom import Geometry

from cube.errors import InputError, WorkFailedError
from cube.ledger import Ledger, digest, fingerprint
from cube.mapstore import (
    QUALITY_NODATA,
    UNCLASSIFIED,
    MapClass,
    create_map,
    map_classes,
    read_map_region,
    write_map_region,
)
from cube.spec import CubeSpec, Region, tile_region
from cube.store import open_stored_cube, read_region, read_spec
from pipelines.build_cube import cube_digest
from pipelines.cluster import run_tasks
from pipelines.lazy_map import (
    classifier_stamp,
    classify_block,
    legend_of,
    load_once,
    stored_layers,
)
from pipelines.progress import Reporter

BUILD_ANEW = "Its record is removed: running again builds it anew"

ALGORITHM = 1
"""Counted up when the same inputs give other pixels, so that older tiles are made again."""


@dataclass(frozen=True, kw_only=True)
class MapJob:
    """Everything a map is made from; small, for it travels with every task."""

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
    clip: bytes | None
    """WKB polygon in the cube's CRS; pixels whose centre is outside stay unclassified."""


def plan_map(
    cube: Path,
    classifier: Path,
    path: Path,
    *,
    title: str,
    cube_inputs: str,
    min_months: int = 1,
    clip: Geometry | None = None,
    colours: Mapping[str, str] | None = None,
) -> MapJob:
    """Settle what a map is made from, before anything is written.

    `cube_inputs` is what the cube's ledger was made with; `colours` overrides the classifier's by class name.
    Raises `InputError` if there is no cube or classifier, `ClassifierError` if they do not fit.
    """
    if not classifier.exists():
        raise InputError(
            f"there is no classifier at {str(classifier)!r}; run `canopycube train` first"
        )
    spec = read_spec(cube)
    stamp = classifier_stamp(classifier)
    loaded = load_once(classifier, stamp)
    loaded.check_cube(spec.bands, [str(period) for period in spec.periods])
    classes = legend_of(loaded, colours)
    polygon = None if clip is None else shapely.to_wkb(clip.to_crs(spec.crs).geom)
    inputs = fingerprint(
        {
            "algorithm": ALGORITHM,
            "cube": cube_digest(Ledger(store=cube, inputs=cube_inputs).records()),
            "spec": spec.to_json(),
            "classifier": loaded.fingerprint,
            "classes": [vars(item) for item in classes],
            "min_months": min_months,
            "clip": None if polygon is None else polygon.hex(),
        }
    )
    return MapJob(
        title=title,
        cube=cube,
        cube_inputs=cube_inputs,
        spec=spec,
        classifier=classifier,
        stamp=stamp,
        path=path,
        classes=classes,
        inputs=inputs,
        min_months=min_months,
        clip=polygon,
    )


def map_species(job: MapJob, client: Client, reporter: Reporter) -> dict[str, Any]:
    """Make what is missing of the map; return what the report says of it.

    A map made from other inputs is replaced. Raises `InputError` if `job.path` holds something
    that is no map, `WorkFailedError` unless every tile is done.
    """
    started = time.perf_counter()
    ledger = Ledger(store=job.path, inputs=job.inputs)
    if job.path.exists():
        map_classes(job.path)  # refuses to touch what is no map
        if not ledger.records():
            _remove(job.path)
    if not job.path.exists():
        create_map(
            job.path,
            geobox=job.spec.geobox,
            classes=job.classes,
            tile=job.spec.tile,
            chunk=job.spec.chunk,
            zarr_format=job.spec.zarr_format,
            title=job.title,
        )
    ledger.prepare()
    regions = {(region.row, region.column): region for region in job.spec.regions()}
    pending = {region.id for region in ledger.pending(regions.values())}
    blocks = lazily_written(job).to_delayed(optimize_graph=True)
    tasks = {region.id: blocks[place] for place, region in regions.items() if region.id in pending}
    with reporter.bar("map", len(regions)) as advance:
        advance(len(regions) - len(pending))
        try:
            run_tasks(client, tasks, step="map", on_done=lambda tile, _: advance(note=tile))
        except WorkFailedError as error:
            if damaged := _forget_unreadable(job, ledger.pending(regions.values())):
                raise WorkFailedError(
                    f"tiles {', '.join(damaged)} of {str(job.cube)!r} cannot be read. {BUILD_ANEW}"
                ) from error
            raise
    records = ledger.records()
    return {
        "path": str(job.path),
        "tiles": f"{len(records)} of {len(regions)}, {len(regions) - len(records)} failed",
        "mapped_now": len(pending),
        "classified_share": sum(record["classified"] for record in records.values())
        / (job.spec.shape[2] * job.spec.shape[3]),
        "digest": fingerprint({tile: record["digest"] for tile, record in records.items()}),
        "seconds": round(time.perf_counter() - started, 2),
    }


def _forget_unreadable(job: MapJob, regions: list[Region]) -> list[str]:
    """Remove the cube's records of tiles that cannot be read; return their ids."""
    damaged = []
    for region in regions:
        try:
            read_region(job.cube, region)
        except Exception:  # noqa: BLE001 - whatever a codec makes of damaged bytes
            Ledger(store=job.cube, inputs=job.cube_inputs).forget(region)
            damaged.append(region.id)
    return damaged


def forget_damaged(path: Path, inputs: str, regions: Iterable[Region]) -> list[str]:
    """Remove the records of a map's tiles that are not what was mapped; return their ids."""
    ledger, damaged = Ledger(store=path, inputs=inputs), []
    for region in regions:
        try:
            found = digest(read_map_region(path, region))
        except Exception:  # noqa: BLE001 - whatever a codec makes of damaged bytes
            found = "unreadable"
        if ledger.record_of(region).get("digest") != found:
            ledger.forget(region)
            damaged.append(region.id)
    return damaged


def _remove(store: Path) -> None:
    """Remove an old map; aside first, so that a stop half-way leaves no half of it in place."""
    aside = store.with_name(f".{store.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    store.rename(aside)
    shutil.rmtree(aside)


def lazily_written(job: MapJob) -> da.Array:
    """Return the lazy (tile row, tile column) array whose blocks, once computed, are in the map."""
    pixels = open_stored_cube(job.cube)["reflectance"].data
    rows, columns = (len(sizes) for sizes in pixels.chunks[2:])
    written: da.Array = da.map_blocks(
        _map_tile,
        pixels,
        job=job,
        drop_axis=(0, 1),
        chunks=((1,) * rows, (1,) * columns),
        dtype=bool,
        meta=np.empty((0, 0), bool),
    )
    return written


def _map_tile(
    block: np.ndarray,  # (time, band, y, x) int16
    *,
    job: MapJob,
    block_id: tuple[int, int],
) -> np.ndarray:
    """Classify one tile, write its layers, record it; returns one True, (1, 1)."""
    started = time.perf_counter()
    region = tile_region(job.spec.shape[2:], job.spec.tile, *block_id)
    _refuse_other_pixels(block, job, region)
    layers = classify_block(
        block,
        folder=job.classifier,
        stamp=job.stamp,
        bands=job.spec.bands,
        min_months=job.min_months,
    )
    if job.clip is not None:
        _leave_outside_out(layers, job, region)
    ledger = Ledger(store=job.path, inputs=job.inputs)
    ledger.forget_others(region)
    write_map_region(job.path, region, stored_layers(layers))
    ledger.record(
        region,
        {
            "digest": digest(layers),
            "classified": int((layers[0] != UNCLASSIFIED).sum()),
            "seconds": round(time.perf_counter() - started, 3),
        },
    )
    return np.ones((1, 1), bool)


def _refuse_other_pixels(block: np.ndarray, job: MapJob, region: Region) -> None:
    """Refuse a tile of the cube that is not what was built: a lost object reads as nodata."""
    ledger = Ledger(store=job.cube, inputs=job.cube_inputs)
    if ledger.record_of(region).get("reflectance_digest") != digest(block):
        ledger.forget(region)
        raise WorkFailedError(f"the cube is not what was built here. {BUILD_ANEW}")


def _leave_outside_out(layers: UInt8[np.ndarray, "layer y x"], job: MapJob, region: Region) -> None:
    # not by rasterio's mask, which warns of missing georeferencing when two threads make one
    window = region.window(job.spec.geobox)
    polygon = shapely.from_wkb(job.clip)
    shapely.prepare(polygon)
    x, y = (window.coordinates[name].values for name in ("x", "y"))
    is_outside = ~shapely.contains_xy(polygon, x[None, :], y[:, None])  # (y, x)
    layers[0][is_outside] = UNCLASSIFIED
    layers[1:, is_outside] = QUALITY_NODATA
