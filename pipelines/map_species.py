"""A cube and a classifier in, a map store out: one Dask task reads, classifies and writes a tile."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from distributed import Client
from odc.geo.geom import Geometry

from cube.errors import InputError
from cube.ledger import Ledger, digest, fingerprint
from cube.mapstore import (
    LAYERS,
    create_map,
    map_classes,
    map_engine,
    note_engine,
    quality_layers,
    read_map_region,
)
from cube.place import Place
from cube.soundness import is_damage
from cube.spec import Region
from cube.store import read_region, read_spec
from cube.storedfiles import sweep_leftovers
from cube.touched import area_on_grid
from pipelines.build_cube import cube_digest
from pipelines.carry_map import carry_tiles, map_spec
from pipelines.cluster import (
    Parcel,
    TilesFailedError,
    TileWork,
    along_curve,
    asked_of,
    run_tasks,
)
from pipelines.earlier import drop_earlier, set_aside
from pipelines.engine_choice import Machine, settled_engine
from pipelines.lazy_map import (
    classifier_files,
    classifier_stamp,
    legend_of,
    load_once,
    refuse_missing,
)
from pipelines.ledger_notes import keep_note
from pipelines.map_clip import keep_clip
from pipelines.map_engine import engine_details, tiles_by_engine
from pipelines.map_inputs import MapInputs, changed_map_parts
from pipelines.map_tile import BUILD_ANEW, MapJob, written_tiles
from pipelines.progress import Reporter
from pipelines.sole_user import mark_of

ALGORITHM = 2
"""Counted up when the same inputs give other pixels, so that older tiles are made again."""


def plan_map(
    cube: Place,
    classifier: Path,
    path: Place,
    *,
    title: str,
    min_months: int = 1,
    clip: Geometry | None = None,
    colours: Mapping[str, str] | None = None,
    engine: str = "auto",
    machines: Sequence[Machine] = (),
    layers: Sequence[str] = (),
) -> MapJob:
    """Settle what a map is made from, before anything but its clip's file is written.

    `min_months` is the fewest clear periods of a classified pixel; `clip`, in any CRS, what is
    classified; `colours` overrides the classifier's by class name; `layers` are those of
    `cube.mapstore.EXTRA_LAYERS` that the map gets; `machines` are those that will compute, where
    they are not this one. Of `engine` the one that it stands for there is part of the map's
    fingerprint: a map made by another one is made again, for `exact` and `torch` may differ in a
    rounded per cent and in ties. So is what `fast` computes with, which is up to a per cent apart
    on different processors; that of `exact`, apart by 1e-6, is only noted.

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
    polygon = None if clip is None else shapely.to_wkb(area_on_grid(clip, spec.crs).geom)
    chosen = settled_engine(loaded, engine, machines)
    settings: dict[str, Any] = {
        "min_months": min_months, "engine": chosen.name, "layers": sorted(layers)
    }  # fmt: skip
    if chosen.arithmetic:
        settings["arithmetic"] = chosen.arithmetic
    inputs = fingerprint(
        {
            "algorithm": ALGORITHM,
            "cube": cube_digest(Ledger(store=cube, inputs=None).records("digest")),
            "spec": spec.to_json(),
            "classifier": loaded.fingerprint,
            "classes": [vars(item) for item in classes],
            "clip": None if polygon is None else polygon.hex(),
            **settings,
        }
    )
    clip_file = None if polygon is None else keep_clip(polygon, path)
    return MapJob(
        title=title,
        cube=cube,
        spec=spec,
        classifier=classifier,
        stamp=stamp,
        path=path,
        classes=classes,
        inputs=inputs,
        made_from=MapInputs(
            code=ALGORITHM,
            spec=spec,
            classifier=loaded.fingerprint,
            settings=fingerprint(
                {**settings, "values": [[one.value, one.name] for one in classes]}
            ),
            clip=clip_file,
        ),
        min_months=min_months,
        clip=clip_file,
        engine=chosen.name,
        engine_reason=chosen.reason,
        arithmetic=chosen.arithmetic,
        mark=mark_of(path),
        layers=tuple(layers),
    )


def map_species(job: MapJob, client: Client, reporter: Reporter) -> dict[str, Any]:
    """Make what is missing of the map; return what the report says of it.

    A map made from other inputs is replaced. Raises `InputError` if `job.path` holds something
    that is no map, `WorkFailedError` unless every tile is done.
    """
    started = time.perf_counter()
    wanted = tile_inputs(job)
    ledger = Ledger(store=job.path, inputs=wanted)
    if job.path.exists() and not _fits(job):
        set_aside(job.path)
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
            notes={"spec": job.spec.to_json()},
        )
    ledger.prepare()
    sweep_leftovers(job.path)
    keep_note(job.path, "classifier", job.made_from.classifier[:16], _in_brief(job))
    regions = {(region.row, region.column): region for region in job.spec.regions()}
    carry_tiles(job, wanted, ledger.pending(regions.values()))
    drop_earlier(job.path)
    pending = along_curve(ledger.pending(regions.values()))
    for reason, tiles in _reasons_again(job, pending).items():
        reporter.say(f"{tiles} tiles of the map are made again: {reason}")
    with reporter.stage("map", len(regions), already=len(regions) - len(pending)) as stage:

        def note(tile: str, seconds: np.ndarray) -> None:
            stage.done(tile, seconds=float(seconds[0]))

        try:
            work = _work(job, is_elsewhere=asked_of(client).is_elsewhere)
            run_tasks(client, pending, work, on_done=note, stage=stage)
        except TilesFailedError as error:
            failed = {one.tile for one in error.failed}
            if damaged := _forget_unreadable(job, [one for one in pending if one.id in failed]):
                raise TilesFailedError(
                    f"tiles {', '.join(damaged)} of {str(job.cube)!r} cannot be read. {BUILD_ANEW}",
                    error.failed,
                ) from error
            raise
    records = ledger.records("classified", "digest", "engine", "arithmetic")
    engine = _engine_noted(job, records.values())
    return {
        "path": str(job.path),
        "tiles": f"{len(records)} of {len(regions)}, {len(regions) - len(records)} failed",
        "mapped_now": len(pending),
        "layers": list(job.layers),
        "engine": engine,
        "classified_share": sum(record["classified"] for record in records.values())
        / job.spec.pixel_count,
        "digest": fingerprint({tile: record["digest"] for tile, record in records.items()}),
        "seconds": round(time.perf_counter() - started, 2),
    }


def _reasons_again(job: MapJob, pending: Iterable[Region]) -> Counter[str]:
    """Return why tiles that were mapped are mapped again, with the number of tiles."""
    found: Counter[str] = Counter()
    mapped, cube = Ledger(store=job.path, inputs=None), Ledger(store=job.cube, inputs=None)
    for region in pending:
        if record := mapped.record_of(region):
            parts = record.get("made_from")
            pixels = str(cube.record_of(region).get("reflectance_digest", ""))
            now = job.made_from.of(region, pixels)
            found.update(changed_map_parts(parts if isinstance(parts, dict) else {}, now))
    return found


def _in_brief(job: MapJob) -> dict[str, Any]:
    """Return what is told of the classifier to those who ask how a pixel came to be."""
    loaded = load_once(job.classifier, job.stamp)
    scores = loaded.scores or {}
    return {
        "model": scores.get("model"),
        "classes": list(loaded.classes),
        "samples": loaded.sample_fingerprint,
        "trained_by": f"canopycube {loaded.code_version}",
        "first_used": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _fits(job: MapJob) -> bool:
    """Say whether the map that is there has the grid, legend and layers of the job's.

    Raises `InputError` for what is no map.
    """
    same_legend = map_classes(job.path) == job.classes
    same_layers = set(quality_layers(job.path)) == {*LAYERS, *job.layers}
    return same_legend and same_layers and map_spec(job.path) == job.spec


def _work(job: MapJob, *, is_elsewhere: bool) -> TileWork[Region]:
    """Return how tiles become tasks; to workers elsewhere the classifier's files go with them."""
    parcel = Parcel(
        job=replace(job, classes=()),  # no task asks for the legend
        files=classifier_files(job.classifier, job.stamp) if is_elsewhere else {},
    )
    return TileWork(
        step="map",
        delay=partial(written_tiles, parcel=parcel.key),
        in_strips=lambda region: written_tiles([region], parcel=parcel.key, in_strips=True)[0],
        parcel=parcel,
        resource="GPU" if job.engine.startswith("cuda") else None,
    )


def _engine_noted(job: MapJob, records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Store with the map what computed it and how many tiles each engine did; return that.

    Its difference from `exact` is measured once for the same inputs, the tiles are counted after
    every run.
    """
    before = map_engine(job.path)
    is_known = before.get("inputs") == job.inputs
    details = before if is_known else {**engine_details(job), "inputs": job.inputs}
    noted = {**details, **tiles_by_engine(records)}
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
            Ledger(store=job.cube, inputs=None).forget(region)
            damaged.append(region.id)
    return damaged


def tile_inputs(job: MapJob) -> dict[str, str]:
    """Return what the record of each tile of a map is known by, by tile id."""
    made = Ledger(store=job.cube, inputs=None).records("reflectance_digest")
    return job.made_from.fingerprints(job.spec.regions(), made)


def forget_damaged(path: Place, regions: Iterable[Region]) -> list[str]:
    """Remove the records of a map's tiles that are not what was mapped; return their ids.

    What keeps a tile from being read without its being damaged (no memory, no disk) is raised.
    """
    ledger, damaged = Ledger(store=path, inputs=None), []
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
    """Return whether stored bytes are wrong; a file that may not be opened is whole for all we know."""
    return is_damage(error) and not isinstance(error, OSError)
