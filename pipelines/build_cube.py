"""A plan in, a finished cube out: one task per tile, whole shards written, each one recorded."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from dask.delayed import delayed
from distributed import Client

from cube.bands import NODATA
from cube.errors import InputError
from cube.ledger import Ledger, digest, fingerprint
from cube.months import Month
from cube.source import Composite, MonthSource
from cube.spec import CubeSpec, Region
from cube.store import count_files, create_cube, write_region
from pipelines.cluster import run_tasks
from pipelines.plan import CubePlan
from pipelines.progress import Reporter


def build_cube(
    plan: CubePlan, path: Path, client: Client, reporter: Reporter, *, title: str
) -> dict[str, Any]:
    """Build what is missing of the cube at `path`; return what the report says of it.

    A run that was stopped goes on where it was; a tile with a record for these inputs is not
    touched. Raises `InputError` for data that cannot be read, and leaves no cube behind in which
    nothing is done; `WorkFailedError` if tiles failed.
    """
    started = time.perf_counter()
    is_new = not path.exists()
    create_cube(path, plan.spec, title=title)
    ledger = Ledger(store=path, inputs=plan.inputs)
    ledger.prepare()
    regions = plan.spec.regions()
    pending = [
        region
        for region, record in ((region, ledger.record_of(region)) for region in regions)
        if not record or record["files"] != count_files(path, region)
    ]
    build = delayed(build_tile, pure=False)
    tasks = {
        region.id: build(path, plan.spec, plan.source, region, plan.inputs) for region in pending
    }
    try:
        with reporter.bar("cube", len(regions)) as advance:
            advance(len(regions) - len(pending))
            run_tasks(client, tasks, step="build", on_done=lambda tile, seconds: advance(note=tile))
    except InputError:
        if is_new and not ledger.records():
            shutil.rmtree(path)
        raise
    records = ledger.records()
    times, bands, height, width = plan.spec.shape
    return {
        "path": str(path),
        "shape": {"time": times, "band": bands, "y": height, "x": width},
        "tiles": f"{len(records)} of {len(regions)}",
        "built_now": len(pending),
        "empty_share_by_month": _empty_shares(plan.spec, records),
        "bytes": _size(path),
        "digest": cube_digest(records),
        "seconds": round(time.perf_counter() - started, 2),
    }


def _empty_shares(spec: CubeSpec, records: Mapping[str, dict[str, Any]]) -> dict[str, float]:
    """Return the share of the cube's pixels without a clear look, by month."""
    empty = np.sum([record["empty_pixels"] for record in records.values()], axis=0)
    total = spec.shape[2] * spec.shape[3]
    return {str(month): int(count) / total for month, count in zip(spec.months, empty, strict=True)}


def _size(store: Path) -> int:
    """Return the bytes of a store; what a killed writer left over does not count."""
    return sum(
        file.stat().st_size
        for file in store.rglob("*")
        if file.is_file() and ".partial" not in file.name
    )


def cube_digest(records: Mapping[str, dict[str, Any]]) -> str:
    """Return a hash over every tile's pixels, from the records of its ledger."""
    return fingerprint({tile: record["digest"] for tile, record in records.items()})


def build_tile(
    path: Path, spec: CubeSpec, source: MonthSource, region: Region, inputs: str
) -> float:
    """Make every month of one tile, write it, record it; return the seconds it took.

    Errors name the tile and the month.
    """
    started = time.perf_counter()
    times, bands = len(spec.months), len(spec.bands)
    reflectance = np.full((times, bands, region.height, region.width), NODATA, np.int16)
    clear_count = np.zeros((times, region.height, region.width), np.uint16)
    scenes: list[str] = []
    for index, month in enumerate(spec.months):
        composite = _composite(source, month, spec, region)
        reflectance[index], clear_count[index] = composite.reflectance, composite.clear_count
        scenes += composite.scenes
    ledger = Ledger(store=path, inputs=inputs)
    ledger.forget_others(region)
    write_region(path, region, reflectance, clear_count)
    seconds = round(time.perf_counter() - started, 3)
    ledger.record(
        region,
        {
            "digest": digest(reflectance),
            "files": count_files(path, region),
            "scenes": scenes,
            "empty_pixels": (clear_count == 0).sum(axis=(1, 2)).tolist(),
            "seconds": seconds,
        },
    )
    return seconds


def _composite(source: MonthSource, month: Month, spec: CubeSpec, region: Region) -> Composite:
    place = f"tile {region.id}, {month}"
    try:
        return source.composite(month, region.window(spec.geobox), spec.bands)
    except InputError as error:
        # without its cause: what GDAL raises does not survive the way back from a worker
        raise InputError(f"{place}: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - raised again with its place
        raise RuntimeError(f"{place}: {type(error).__name__}: {error}") from None
