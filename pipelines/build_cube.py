"""A plan in, a finished cube out: one task per tile, whole shards written, each one recorded."""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from dask.delayed import delayed
from distributed import Client

from cube.bands import NODATA
from cube.errors import InputError
from cube.ledger import Ledger, digest
from cube.source import MonthSource
from cube.spec import CubeSpec, Region
from cube.store import create_cube, write_region
from pipelines.cluster import run_tasks
from pipelines.plan import CubePlan
from pipelines.progress import Reporter


def build_cube(
    plan: CubePlan, path: Path, client: Client, reporter: Reporter, *, title: str
) -> dict[str, Any]:
    """Build what is missing of the cube at `path`; return what the report says of it.

    A run that was stopped goes on where it was; a tile with a record for these inputs is not
    touched. Raises `InputError` for data that cannot be read, and leaves no empty store behind;
    `WorkFailedError` if tiles failed.
    """
    started = time.perf_counter()
    is_new = not path.exists()
    create_cube(path, plan.spec, title=title)
    ledger = Ledger(store=path, inputs=plan.inputs)
    ledger.prepare()
    regions = plan.spec.regions()
    pending = ledger.pending(regions)
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
    empty = np.mean([record["empty_share"] for record in records.values()], axis=0)
    times, bands, height, width = plan.spec.shape
    return {
        "path": str(path),
        "shape": {"time": times, "band": bands, "y": height, "x": width},
        "tiles": f"{len(records)} of {len(regions)}",
        "built_now": len(pending),
        "empty_share_by_month": {
            str(month): round(float(share), 4)
            for month, share in zip(plan.spec.months, empty, strict=True)
        },
        "bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        "digest": cube_digest(path, plan.inputs),
        "seconds": round(time.perf_counter() - started, 2),
    }


def cube_digest(path: Path, inputs: str) -> str:
    """Return a hash over every tile's pixels, from the ledger."""
    records = Ledger(store=path, inputs=inputs).records()
    parts = [f"{tile}:{record['digest']}" for tile, record in sorted(records.items())]
    return digest(np.frombuffer("\n".join(parts).encode(), np.uint8))[:16]


def build_tile(
    path: Path, spec: CubeSpec, source: MonthSource, region: Region, inputs: str
) -> float:
    """Make every month of one tile, write it, record it; return the seconds it took."""
    started = time.perf_counter()
    window = region.window(spec.geobox)
    times, bands = len(spec.months), len(spec.bands)
    reflectance = np.full((times, bands, region.height, region.width), NODATA, np.int16)
    clear_count = np.zeros((times, region.height, region.width), np.uint16)
    scenes: list[str] = []
    for index, month in enumerate(spec.months):
        try:
            composite = source.composite(month, window, spec.bands)
        except (InputError, MemoryError):
            raise
        except Exception as error:
            raise RuntimeError(f"month {month}: {type(error).__name__}: {error}") from error
        reflectance[index], clear_count[index] = composite.reflectance, composite.clear_count
        scenes += composite.scenes
    write_region(path, region, reflectance, clear_count)
    seconds = round(time.perf_counter() - started, 3)
    Ledger(store=path, inputs=inputs).record(
        region,
        {
            "digest": digest(reflectance, clear_count),
            "scenes": scenes,
            "empty_share": (clear_count == 0).mean(axis=(1, 2)).round(6).tolist(),
            "seconds": seconds,
        },
    )
    return seconds
