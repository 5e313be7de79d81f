"""A settled plan in, what `plan` says of it as plain JSON out: sizes, requests, memory."""

from collections.abc import Sequence
from typing import Any

from cube.earthengine.exported import ExportedSource
from cube.earthengine.source import EarthEngineSource
from cube.spec import CubeSpec
from pipelines.cores import tiles_ahead
from pipelines.map_memory import NetworkSizes, map_memory
from pipelines.plan import CubePlan
from pipelines.plan_earthengine import asking_cost
from pipelines.plan_stac import reading_cost
from pipelines.plan_stores import cube_size, map_size


def describe(plan: CubePlan, *, workers: int, processes: int = 1) -> dict[str, Any]:
    """Return what `plan` prints of the cube, as plain JSON values.

    `workers` tiles are built at once, in so many `processes`.
    """
    spec = plan.spec
    times, bands, height, width = spec.shape
    size = cube_size(spec)
    return {
        "crs": f"EPSG:{spec.crs.epsg}" if spec.crs.epsg else str(spec.crs)[:60],
        "resolution": abs(spec.geobox.resolution.x),
        "shape": {"time": times, "band": bands, "y": height, "x": width},
        "periods": f"{spec.periods[0]} … {spec.periods[-1]}",
        "bands": list(spec.bands),
        "tiles": spec.tile_count,
        "grid_tiles": spec.grid_tiles,
        "cube_bytes_uncompressed": size.size,
        "cube_chunks": size.chunks,
        "cube_objects": size.objects,
        "peak_bytes_per_worker": plan.peak_bytes,
        "peak_bytes": plan.memory.total(tiles=workers, processes=processes),
        "looks_by_period": {str(period): plan.looks.get(period, 0) for period in spec.periods},
        "periods_without_scenes": [
            str(period) for period in spec.periods if period not in plan.looks
        ],
        **plan.facts,
        **_cost(plan, workers, processes),
    }


def describe_map(
    spec: CubeSpec,
    *,
    workers: int | None,
    processes: int,
    network: NetworkSizes,
    engine: str = "exact",
    layers: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what `plan` prints of the map: the memory of `workers` that compute in `processes`.

    Without a number of `workers`, as of a scheduler that is not asked, it is that of a worker
    process with one thread: `map_tiles_at_once` is None then, `map_peak_bytes` per such a worker.
    """
    computing = 1 if workers is None else workers // processes
    at_once = (computing + tiles_ahead(computing)) * processes
    memory = map_memory(spec, computing=computing, network=network, engine=engine, layers=layers)
    size = map_size(spec, layers=layers)
    return {
        "map_tiles_at_once": None if workers is None else at_once,
        "map_peak_bytes": memory.total(tiles=at_once, processes=processes),
        "map_bytes_uncompressed": size.size,
        "map_chunks": size.chunks,
        "map_objects": size.objects,
    }


def _cost(plan: CubePlan, workers: int, processes: int) -> dict[str, Any]:
    """Return what a build asks of servers; None where nobody knows beforehand."""
    if plan.scenes is None:
        return {}
    if isinstance(plan.source, EarthEngineSource | ExportedSource):
        return asking_cost(
            plan.source,
            plan.spec,
            workers=workers,
            processes=processes,
            seconds_per_request=plan.facts.get("seconds_per_request"),
        )
    cost = None
    if plan.reads_directly:
        cost = reading_cost(plan.scenes, plan.spec, workers=workers, processes=processes)
    return {
        "requests": None if cost is None else cost.requests,
        "requests_for_headers": None if cost is None else cost.headers,
        "bytes_to_read": None if cost is None else cost.received,
    }
