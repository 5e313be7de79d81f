"""Maps of several zones in, one map store on a common grid out: a task per tile, each recorded."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from dask.delayed import delayed
from distributed import Client

from cube.errors import InputError
from cube.lease import Mark
from cube.ledger import Ledger, digest, fingerprint
from cube.mapstore import UNCLASSIFIED, create_map, write_map_region
from cube.mosaic import Mosaic, mosaic_block
from cube.place import Place, remove_store
from cube.spec import Region
from cube.storedfiles import sweep_leftovers
from cube.zarrstore import read_attributes
from pipelines.cluster import Parcel, TileWork, along_curve, job_of, run_tasks
from pipelines.progress import Reporter
from pipelines.sole_user import mark_of
from pipelines.tile_inputs import MADE_BY


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What the tasks of a mosaic share."""

    mosaic: Mosaic
    path: Place
    mark: Mark | None


def mosaic_maps(
    mosaic: Mosaic, path: Place, client: Client, reporter: Reporter, *, title: str
) -> dict[str, Any]:
    """Make what is missing of a mosaic at `path`; return what the report says of it.

    One that was made from other maps, or on another grid, is replaced. Raises `InputError` if
    `path` holds something that is no mosaic or is one of the maps, `WorkFailedError` unless every
    tile is done.
    """
    started = time.perf_counter()
    if any(part.path.resolve() == path.resolve() for part in mosaic.parts):
        raise InputError(f"the mosaic would replace one of its maps, {str(path)!r}; choose another")
    _allocate(mosaic, path, title)
    ledger = Ledger(store=path, inputs=mosaic.inputs)
    ledger.prepare()
    sweep_leftovers(path)
    regions = mosaic.spec.regions()
    pending = along_curve(ledger.pending(regions))
    with reporter.stage("mosaic", len(regions), already=len(regions) - len(pending)) as stage:

        def note(tile: str, seconds: float) -> None:
            stage.done(tile, seconds=seconds)

        run_tasks(client, pending, _work(mosaic, path), on_done=note, stage=stage)
    records = ledger.records("classified", "digest")
    return {
        "path": str(path),
        "tiles": f"{len(records)} of {len(regions)}, {len(regions) - len(records)} failed",
        "mapped_now": len(pending),
        "maps": [str(part.path) for part in mosaic.parts],
        "crs": mosaic.spec.crs.to_wkt(),
        "resolution": abs(mosaic.spec.geobox.resolution.x),
        "classified_share": sum(record["classified"] for record in records.values())
        / mosaic.spec.pixel_count,
        "digest": fingerprint({tile: record["digest"] for tile, record in records.items()}),
        "seconds": round(time.perf_counter() - started, 2),
    }


def _allocate(mosaic: Mosaic, path: Place, title: str) -> None:
    """Have an empty map at `path`, or one of the same inputs that is begun."""
    if path.exists():
        made_of = read_attributes(path, kind="map").get("mosaic")
        if made_of is None:
            raise InputError(
                f"{str(path)!r} is a map of its own, which a mosaic would replace; choose another "
                "folder, or remove it"
            )
        if made_of == mosaic.inputs:
            return
        remove_store(path)
    create_map(
        path,
        geobox=mosaic.spec.geobox,
        classes=mosaic.classes,
        tile=mosaic.spec.tile,
        chunk=mosaic.spec.chunk,
        zarr_format=mosaic.spec.zarr_format,
        title=title,
        layers=mosaic.layers,
        notes={"spec": mosaic.spec.to_json(), "mosaic": mosaic.inputs},
    )


def _work(mosaic: Mosaic, path: Place) -> TileWork[Region]:
    parcel = Parcel(job=_Job(mosaic=mosaic, path=path, mark=mark_of(path)))
    make = delayed(partial(_mosaic_tile, parcel.key), pure=False)

    def tasks(regions: Sequence[Region]) -> list[Any]:
        return [make(region) for region in regions]

    return TileWork(step="mosaic", delay=tasks, parcel=parcel)


def _mosaic_tile(key: str, region: Region) -> float:
    """Make one tile, write it, record it; returns its seconds."""
    job: _Job = job_of(key)
    started = time.perf_counter()
    layers = mosaic_block(job.mosaic, region)
    ledger = Ledger(store=job.path, inputs=job.mosaic.inputs, mark=job.mark)
    ledger.forget_others(region)
    write_map_region(job.path, region, dict(zip(job.mosaic.names, layers, strict=True)))
    seconds = time.perf_counter() - started
    ledger.record(
        region,
        {
            "digest": digest(layers),
            "classified": int((layers[0] != UNCLASSIFIED).sum()),
            "made_by": MADE_BY,
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
        },
    )
    return seconds
