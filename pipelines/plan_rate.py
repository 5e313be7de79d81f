"""Records of tiles that were made in, what a run will take out: core hours, time, bytes on the disk."""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cube.composite import SceneComposites
from cube.ledger import Ledger
from cube.mapstore import map_classes
from cube.place import Place, files_below
from cube.spec import CubeSpec, Region
from cube.store import read_spec
from cube.touched import runs_of
from pipelines.build_cube import build_cube
from pipelines.cluster import connect
from pipelines.plan import CubePlan
from pipelines.plan_stores import cube_size
from pipelines.progress import Reporter
from pipelines.recipe_cluster import ClusterSection
from pipelines.tile_inputs import looks_of

_MOST_TILES = 256
"""Tiles, evenly over the cube, whose scenes are counted for all of them."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What tiles that were made tell of those that are to be made."""

    seconds: float
    """Of one worker, for a unit of work: a pixel, or a pixel of one scene."""
    tiles: int
    """Tiles that were measured."""
    packed: float | None = None
    """Share of its bytes that a cube takes when compressed, where that was measured."""


Work = Callable[[Region, Mapping[str, Any]], float]
"""How much work a region was, by its record."""


def _pixels(region: Region, record: Mapping[str, Any]) -> float:
    del record
    return float(region.height * region.width)


def _scenes(region: Region, record: Mapping[str, Any]) -> float:
    scenes = sum(len(look.split("+")) for look in looks_of(record))
    return float(region.height * region.width * max(scenes, 1))


def recorded_rate(store: Place, regions: Iterable[Region], *, work: Work = _pixels) -> Rate | None:
    """Return what the records of a store say, whatever their inputs; None if there is none.

    Tiles that were taken over from an earlier store, in part or whole, say nothing of making one.
    """
    by_id = {region.id: region for region in regions}
    done, seconds, tiles = 0.0, 0.0, 0
    for tile, record in Ledger(store=store, inputs=None).each():
        took = record.get("seconds")
        if tile in by_id and isinstance(took, int | float) and not record.get("taken_over"):
            done += work(by_id[tile], record)
            seconds += took
            tiles += 1
    return Rate(seconds=seconds / done, tiles=tiles) if done else None


def cube_rate(plan: CubePlan, store: Place) -> Rate | None:
    """Return what tiles of the cube at `store` took, and how far they are packed.

    None if there is no cube there, or one of other bands, periods or tiles.
    """
    if not store.exists():
        return None
    spec = read_spec(store)
    alike = ("bands", "periods", "tile", "chunk", "sharded")
    if any(getattr(spec, name) != getattr(plan.spec, name) for name in alike):
        return None
    found = recorded_rate(store, spec.regions(), work=_work_of(plan))
    if found is None:
        return None
    stored = sum(size for _, size in files_below(store))
    recorded = len(Ledger(store=store, inputs=None).records("seconds"))
    whole = cube_size(spec).size * recorded / spec.tile_count
    return replace(found, packed=min(stored / whole, 1.0))


def map_rate(spec: CubeSpec, store: Place) -> Rate | None:
    """Return what tiles of the map at `store` took; None if there is none of such tiles."""
    if not store.exists():
        return None
    map_classes(store)  # refuses what is no map
    return recorded_rate(store, spec.regions())


def calibrated(
    plan: CubePlan, reporter: Reporter, *, map_tile: Callable[[Path, Path, Any], None] | None = None
) -> tuple[Rate, Rate | None]:
    """Build one tile in the middle of the cube really; return what building and mapping it took.

    In a temporary folder, with one thread of this process. `map_tile` maps the cube (its path, where
    the map goes, the client); it is called twice, for the first time makes engines ready. Raises
    what building raises.
    """
    regions = plan.spec.regions()
    middle = regions[len(regions) // 2]
    touched = np.zeros(tuple(-(-size // plan.spec.tile) for size in plan.spec.shape[2:]), np.bool_)
    touched[middle.row, middle.column] = True
    alone = replace(plan, spec=replace(plan.spec, touched=runs_of(touched)))
    with (
        tempfile.TemporaryDirectory(prefix="canopycube-") as folder,
        connect(ClusterSection(kind="threads", workers=1)) as client,
    ):
        cube, target = Path(folder) / "cube.zarr", Path(folder) / "map.zarr"
        reporter.say(f"building tile {middle.id} to see how long it takes")
        build_cube(alone, cube, client, Reporter(is_quiet=True), title="calibration")
        built = cube_rate(alone, cube)
        assert built is not None  # it was built
        if map_tile is None:
            return built, None
        reporter.say(f"mapping tile {middle.id}")
        map_tile(cube, target, client)
        Ledger(store=target, inputs=None).forget(middle)
        map_tile(cube, target, client)
        return built, map_rate(alone.spec, target)


def work_ahead(plan: CubePlan) -> float:
    """Return the work of the whole cube in the unit of its rate, from some of its tiles."""
    regions = plan.spec.regions()
    work = _work_of(plan)
    if work is _pixels:
        return float(plan.spec.pixel_count)
    chosen = regions[:: max(len(regions) // _MOST_TILES, 1)]
    scenes = [max(sum(map(len, plan.made_from.scenes_of(region).values())), 1) for region in chosen]
    return float(plan.spec.pixel_count * np.mean(scenes))


def _work_of(plan: CubePlan) -> Work:
    """Return what the time of a tile grows with: its scenes, where they are read one by one."""
    is_read = plan.scenes is not None and isinstance(plan.source, SceneComposites)
    return _scenes if is_read else _pixels


def time_facts(rate: Rate | None, work: float, *, workers: int | None, name: str) -> dict[str, Any]:
    """Return what `plan` says of the time of a step, as plain JSON; None where nobody knows."""
    hours = None if rate is None else rate.seconds * work / 3600
    seconds = None if hours is None or workers is None else hours * 3600 / workers
    return {
        f"{name}_core_hours": None if hours is None else round(hours, 4),
        f"{name}_seconds": None if seconds is None else round(seconds, 1),
        f"{name}_measured_tiles": 0 if rate is None else rate.tiles,
    }
