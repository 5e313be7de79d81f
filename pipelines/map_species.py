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
from model.classifier import SpeciesClassifier
from model.engines import choose_engine
from pipelines.build_cube import cube_digest
from pipelines.cluster import run_tasks
from pipelines.lazy_map import classifier_stamp, legend_of, load_once
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
    """Settle what a map is made from, before anything is written.

    `cube_inputs` is what the cube's ledger was made with; `colours` overrides the classifier's by
    class name. Of `engine` the one that it stands for here is part of the map's fingerprint: a map
    made by another one is made again, for `exact` and `torch` may differ in a rounded per cent and
    in ties.
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
    _refuse_missing(loaded, layers)
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
        clip=polygon,
        engine=chosen.name,
        engine_reason=chosen.reason,
        layers=tuple(layers),
    )


def _refuse_missing(classifier: SpeciesClassifier, layers: Sequence[str]) -> None:
    """Refuse layers that the classifier was saved without."""
    has = {
        "likely_classes": classifier.conformal is not None,
        "applicable": classifier.applicability is not None,
    }
    if missing := [name for name in layers if not has[name]]:
        raise InputError(
            f"map.layers asks for {missing[0]!r}, which the classifier was saved without; train it "
            "again, or leave that out"
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
    if not map_engine(job.path):
        note_engine(job.path, engine_details(job))
    return {
        "path": str(job.path),
        "tiles": f"{len(records)} of {len(regions)}, {len(regions) - len(records)} failed",
        "mapped_now": len(pending),
        "engine": {
            **map_engine(job.path),
            "tiles": dict(Counter(record["engine"] for record in records.values())),
        },
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
