"""A cube and a classifier in, a map store out: one Dask task reads, classifies and writes a tile."""

import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import shapely
from distributed import Client
from odc.geo.geom import Geometry

from cube.errors import InputError, WorkFailedError
from cube.ledger import Ledger, digest, fingerprint
from cube.mapstore import create_map, map_classes, map_engine, note_engine, read_map_region
from cube.spec import Region
from cube.store import read_region, read_spec
from model.engines import choose_engine
from pipelines.build_cube import cube_digest
from pipelines.cluster import run_tasks
from pipelines.lazy_map import classifier_stamp, legend_of, load_once, refuse_missing
from pipelines.map_clip import keep_clip
from pipelines.map_engine import engine_details
from pipelines.map_tile import BUILD_ANEW, MapJob, lazily_written
from pipelines.progress import Reporter

ALGORITHM = 2
"""Counted up when the same inputs give other pixels, so that older tiles are made again."""


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
    engine: str = "auto",
    layers: Sequence[str] = (),
) -> MapJob:
    """Settle what a map is made from, before anything but its clip's file is written.

    `cube_inputs` is what the cube's ledger was made with; `min_months` the fewest clear periods of
    a classified pixel; `clip`, in any CRS, what is classified; `colours` overrides the classifier's
    by class name; `layers` are those of `cube.mapstore.EXTRA_LAYERS` that the map gets. Of `engine`
    the one that it stands for here is part of the map's fingerprint: a map made by another one is
    made again, for `exact` and `torch` may differ in a rounded per cent and in ties.

    Raises `InputError` if there is no cube or classifier, or if one of the `layers` is asked for
    that the classifier does not give, `ClassifierError` if they do not fit.
    """
    if not classifier.exists():
        raise InputError(
            f"there is no classifier at {str(classifier)!r}; run `canopycube train` first"
        )
    spec = read_spec(cube)
    stamp = classifier_stamp(classifier)
    loaded = load_once(classifier, stamp)
    loaded.check_cube(spec.bands, [str(period) for period in spec.periods])
    refuse_missing(loaded, layers, asked_by="map.layers")
    classes = legend_of(loaded, colours)
    polygon = None if clip is None else shapely.to_wkb(clip.to_crs(spec.crs).geom)
    chosen = choose_engine(loaded, engine)
    inputs = fingerprint(
        {
            "algorithm": ALGORITHM,
            "cube": cube_digest(Ledger(store=cube, inputs=cube_inputs).records()),
            "spec": spec.to_json(),
            "classifier": loaded.fingerprint,
            "classes": [vars(item) for item in classes],
            "min_months": min_months,
            "clip": None if polygon is None else polygon.hex(),
            "engine": chosen.name,
            "layers": sorted(layers),
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
        clip=None if polygon is None else keep_clip(polygon, path),
        engine=chosen.name,
        engine_reason=chosen.reason,
        layers=tuple(layers),
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
            layers=job.layers,
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
    engine = _engine_noted(job, Counter(record["engine"] for record in records.values()))
    return {
        "path": str(job.path),
        "tiles": f"{len(records)} of {len(regions)}, {len(regions) - len(records)} failed",
        "mapped_now": len(pending),
        "engine": engine,
        "classified_share": sum(record["classified"] for record in records.values())
        / (job.spec.shape[2] * job.spec.shape[3]),
        "digest": fingerprint({tile: record["digest"] for tile, record in records.items()}),
        "seconds": round(time.perf_counter() - started, 2),
    }


def _engine_noted(job: MapJob, tiles: Mapping[str, int]) -> dict[str, Any]:
    """Store with the map what computed it and how many `tiles` each engine did; return that.

    Its difference from `exact` is measured once, the tiles are counted after every run.
    """
    before = map_engine(job.path)
    noted = {**(before or engine_details(job)), "tiles": dict(sorted(tiles.items()))}
    if noted != before:
        note_engine(job.path, noted)
    return noted


def _forget_unreadable(job: MapJob, regions: list[Region]) -> list[str]:
    """Remove the cube's records of tiles whose files are damaged; return their ids.

    Not of those that cannot be read for want of memory, open files or a disk: they are whole.
    """
    damaged = []
    for region in regions:
        try:
            read_region(job.cube, region)
        except Exception as error:  # noqa: BLE001 - the failure of the run is what is raised
            if not _is_damage(error):
                continue
            Ledger(store=job.cube, inputs=job.cube_inputs).forget(region)
            damaged.append(region.id)
    return damaged


def forget_damaged(path: Path, inputs: str, regions: Iterable[Region]) -> list[str]:
    """Remove the records of a map's tiles that are not what was mapped; return their ids.

    What keeps a tile from being read without its being damaged (no memory, no disk) is raised.
    """
    ledger, damaged = Ledger(store=path, inputs=inputs), []
    for region in regions:
        try:
            found = digest(read_map_region(path, region))
        except KeyError:  # a layer is gone
            found = "unreadable"
        except (ValueError, RuntimeError) as error:
            if not _is_damage(error):
                raise
            found = "unreadable"
        if ledger.record_of(region).get("digest") != found:
            ledger.forget(region)
            damaged.append(region.id)
    return damaged


def _is_damage(error: Exception) -> bool:
    """Return whether an error says that stored bytes are wrong: a checksum's, or a codec's."""
    if isinstance(error, RuntimeError):  # as Blosc's; other ones are of threads and the like
        return "decompress" in str(error)
    return isinstance(error, ValueError) and not isinstance(error, InputError)


def _remove(store: Path) -> None:
    """Remove an old map; aside first, so that a stop half-way leaves no half of it in place."""
    aside = store.with_name(f".{store.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    store.rename(aside)
    shutil.rmtree(aside)
