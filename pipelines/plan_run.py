"""A recipe and its settled plan in, all that `plan` says of the run out; or why it cannot fit."""

from pathlib import Path
from typing import Any

from cube.spec import CubeSpec
from pipelines.layout import Layout
from pipelines.plan import CubePlan
from pipelines.plan_describe import describe, describe_map
from pipelines.plan_fit import disk_warning, refuse_too_large, room_of
from pipelines.plan_rate import Rate, calibrated, cube_rate, map_rate, time_facts, work_ahead
from pipelines.plan_stores import PACKED_SHARE, cube_size, map_size
from pipelines.planned import tiles_at_once
from pipelines.progress import Reporter
from pipelines.recipe import Recipe
from pipelines.tile_changes import tile_changes


def describe_run(
    recipe: Recipe,
    plan: CubePlan,
    layout: Layout,
    reporter: Reporter,
    *,
    calibrates: bool = False,
) -> dict[str, Any]:
    """Return what `plan` prints of a run, as plain JSON values.

    Times follow from tiles that earlier runs made in the same folder, or, if it `calibrates`, from
    one that is made now; else they are None. Raises `InputError` for what cannot fit the memory or
    the disk, with the settings that would.
    """
    spec, section = plan.spec, recipe.cluster.settled(plan.spec.tile_count)
    workers = tiles_at_once(recipe)
    processes = 1 if section.kind == "threads" else workers
    refuse_too_large(spec, plan.memory_of, room_of(recipe, tiles=workers, processes=processes))
    found = describe(plan, workers=workers, processes=processes)
    size = cube_size(spec).size
    if recipe.reference is not None:
        found |= _map_facts(recipe, spec, workers, processes)
    built: Rate | None
    if calibrates:
        built, mapped = calibrated(plan, reporter, map_tile=_mapping(recipe, layout))
    else:
        built = cube_rate(plan, layout.cube)
        mapped = map_rate(spec, layout.map) if recipe.reference is not None else None
    changes = tile_changes(plan, layout.cube)
    ready = changes.ready
    missing = 1 - ready / spec.tile_count
    packed = PACKED_SHARE if built is None or built.packed is None else built.packed
    known = None if section.is_elsewhere and section.most_workers is None else workers
    found |= {
        **changes.to_json(),
        "cube_bytes": round(size * packed),
        "is_calibrated": built is not None,
        **time_facts(built, work_ahead(plan) * missing, workers=known, name="build"),
    }
    if recipe.reference is not None:
        found |= time_facts(mapped, float(spec.pixel_count), workers=known, name="map")
    warning = _disk_warning(recipe, layout, spec, packed=packed, missing=missing)
    return found | {"warnings": [*found.get("warnings", ()), *([warning] if warning else [])]}


def _map_facts(recipe: Recipe, spec: CubeSpec, workers: int, processes: int) -> dict[str, Any]:
    from pipelines.map_memory import expected_engine, network_sizes  # they import PyTorch
    from pipelines.train_model import train_config

    config = train_config(recipe.training, recipe.bands)
    # a cluster elsewhere has workers of its own, whatever this machine has
    is_elsewhere = recipe.cluster.is_elsewhere
    return describe_map(
        spec,
        workers=None if is_elsewhere else workers,
        processes=1 if is_elsewhere else processes,
        network=network_sizes(config, steps=spec.shape[0]),
        engine=expected_engine(config, recipe.map.engine),
        layers=recipe.map.layers,
    )


def _mapping(recipe: Recipe, layout: Layout) -> Any:
    """Return what maps a cube of one tile, None where there is no classifier yet."""
    if recipe.reference is None or not layout.classifier.exists():
        return None
    from pipelines.map_species import map_species, plan_map

    def map_tile(cube: Path, target: Path, client: Any) -> None:
        job = plan_map(
            cube,
            layout.classifier,
            target,
            title="calibration",
            min_months=recipe.map.min_months,
            engine=recipe.map.engine,
            layers=recipe.map.layers,
        )
        map_species(job, client, Reporter(is_quiet=True))

    return map_tile


def _disk_warning(
    recipe: Recipe, layout: Layout, spec: CubeSpec, *, packed: float, missing: float
) -> str | None:
    home = layout.home
    if not isinstance(home, Path):
        return None  # an object store has no end
    cube = cube_size(spec).size * missing
    mapped = 0
    if recipe.reference is not None and not layout.map.exists():
        mapped = map_size(spec, layers=recipe.map.layers).size
    return disk_warning(home, most=round(cube) + mapped, likely=round(cube * packed) + mapped // 4)
