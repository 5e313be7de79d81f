"""A recipe with Earth Engine in, the part of the plan that its images decide out."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from odc.geo.geom import Geometry

from cube.earthengine.access import PATIENCE, Access
from cube.earthengine.composite import Definition, Mask
from cube.earthengine.exported import ExportedSource, TileFiles
from cube.earthengine.source import LOOK_AHEAD, EarthEngineSource
from cube.errors import InputError
from cube.ledger import fingerprint
from cube.periods import acquisition_periods, looks_by_period
from cube.spec import CubeSpec
from cube.stac import SceneList
from pipelines.carry_cube import refuse_unlike
from pipelines.imagelock import ImageLock
from pipelines.layout import Layout
from pipelines.memory import Memory, computed_memory
from pipelines.planned import (
    PlannedSource,
    clear_mask,
    cube_spec,
    is_finished,
    month_ends,
    tiles_at_once,
)
from pipelines.recipe import EarthEngineSection, ExportSection, Recipe


def plan_earthengine(
    recipe: Recipe,
    section: EarthEngineSection,
    area: Geometry,
    *,
    lock: Path,
    update: bool = False,
) -> PlannedSource:
    """Settle the images: those of the file `lock`, or of a search if it answers another question.

    With `update` Earth Engine is asked in any case. Raises `InputError` for settings that cannot
    be, missing credentials, and an area or months without any image; `WorkFailedError` where Earth
    Engine does not answer.
    """
    spec = cube_spec(recipe, area)
    is_series = recipe.months.step == "acquisition"
    refuse_unlike(Layout.of(recipe.outputs).cube, spec, is_series=is_series)
    access = access_of(recipe, section, tiles=spec.tile_count)
    definition = definition_of(recipe, section)
    locked = ImageLock(
        section=section,
        months=month_ends(recipe),
        spec=spec,
        access=access,
        mask=definition.mask,
        file=lock,
    )
    scenes = locked.scenes(update=update)
    starts = {scene.overpass: scene.overpass_start for scene in scenes.scenes}.values()
    if is_series:
        spec = replace(spec, periods=acquisition_periods(starts, *month_ends(recipe)))
    computed = EarthEngineSource(
        scenes=lock, fingerprint=scenes.fingerprint, access=access, definition=definition
    )
    pixels = {
        "collection": section.collection,
        "images": [scene.identity for scene in scenes.scenes],
        "definition": definition.identity,
    }

    def memory_of(spec: CubeSpec) -> Memory:
        at_once = min(LOOK_AHEAD, access.requests_at_once)
        return computed_memory(spec, at_once=at_once, is_finished=is_finished(recipe))

    files = None
    if section.export is not None:
        files = _tile_files(section.export, _export_name(spec, pixels))
    return PlannedSource(
        spec=spec,
        source=computed
        if files is None
        else ExportedSource(computed=computed, spec=spec, files=files),
        pixels=pixels,
        looks=looks_by_period(spec.periods, starts),
        memory=memory_of(spec),
        memory_of=memory_of,
        scenes=scenes,
        facts={
            **_facts(section, computed, scenes, recipe),
            "warnings": [*locked.warnings(), *_unused(recipe, definition.mask)],
        },
    )


def _export_name(spec: CubeSpec, pixels: dict[str, Any]) -> str:
    """Return what names of exported files begin with: it tells all that decides their pixels.

    How the cube is stored is none of it, nor what is done to a series that is there.
    """
    from pipelines.plan import ALGORITHM  # that module imports this one

    stored = spec.to_json()
    grid = {key: stored[key] for key in ("crs", "transform", "shape", "tile", "bands", "periods")}
    return f"canopycube-{fingerprint({**pixels, **grid, 'algorithm': ALGORITHM})}"


def _tile_files(section: ExportSection, name: str) -> TileFiles:
    if section.to == "drive" and section.files is None:
        raise InputError(
            "source.export.files is missing: Earth Engine writes to your Drive, and files come from "
            "there by your own hand; name the folder into which you will download them"
        )
    return TileFiles(name=name, folder=section.files, bucket=section.bucket, prefix=section.folder)


def access_of(recipe: Recipe, section: EarthEngineSection, *, tiles: int = 0) -> Access:
    """Return whom each process asks; the requests at once are shared among them.

    Processes elsewhere are not known unless the recipe tells them: each then has one request. How
    many there are here may depend on the number of `tiles`.
    """
    cluster = recipe.cluster.settled(tiles)
    if cluster.is_elsewhere and cluster.most_workers is None:
        each = 1
    else:
        processes = 1 if cluster.kind == "threads" else tiles_at_once(recipe)
        each = max(section.requests_at_once // processes, 1)
    return Access(
        project=section.project,
        endpoint=section.endpoint,
        requests_at_once=each,
        patience=replace(PATIENCE, attempts=section.attempts, timeout=section.timeout),
    )


def definition_of(recipe: Recipe, section: EarthEngineSection) -> Definition:
    """Return what Earth Engine is to make of a period's looks."""
    by_preset: Mask = "qa60" if recipe.training.preset == "reference" else "cloud-score-plus"
    method = recipe.composite.method
    if method not in ("median", "mean", "medoid"):
        raise InputError(f"composite.method {method!r} is not computed on Earth Engine")
    return Definition(
        mask=section.mask or by_preset,
        threshold=section.clear_threshold,
        classes=clear_mask(recipe).clear_classes,
        method=method,
        resampling=section.resampling,
    )


def _unused(recipe: Recipe, mask: Mask) -> list[str]:
    """Return a warning where the recipe's [mask] says other than by default and is not asked."""
    default = type(recipe.mask)()
    changed = [key for key, value in recipe.mask if value != getattr(default, key)]
    if mask == "scl" or not changed:
        return []
    return [f"mask.{', mask.'.join(changed)} goes with source.mask = 'scl'; {mask!r} decides here"]


def _facts(
    section: EarthEngineSection, computed: EarthEngineSource, scenes: SceneList, recipe: Recipe
) -> dict[str, Any]:
    """Return what `plan` prints of the source, but for what `asking_cost` counts."""
    cluster = recipe.cluster
    # tasks of an export go at Earth Engine's pace, and of a cluster nobody knows the processes
    has_pace = section.export is None and (not cluster.is_elsewhere or cluster.most_workers)
    pace = {"seconds_per_request": section.seconds_per_request} if has_pace else {}
    return {
        "provider": f"Earth Engine, {section.collection}",
        "mask": computed.definition.mask,
        "scenes": len(scenes.scenes),
        "overpasses": len({scene.overpass for scene in scenes.scenes}),
        "scenes_dropped": {item.id: item.reason for item in scenes.dropped},
        "offsets": dict(Counter(scene.offset_reason for scene in scenes.scenes)),
        "strips": 1,
        **pace,
    }


def asking_cost(
    source: EarthEngineSource | ExportedSource,
    spec: CubeSpec,
    *,
    workers: int,
    processes: int,
    seconds_per_request: float | None,
) -> dict[str, Any]:
    """Return what a build asks of Earth Engine, counted over all tiles, as plain JSON.

    `workers` tiles are built at once, in so many `processes`. With `seconds_per_request` also how
    many requests are under way at most, and how long they take at least. Exported tiles are one
    request, a task, each.
    """
    is_exported = isinstance(source, ExportedSource)
    computed = source.computed if isinstance(source, ExportedSource) else source
    number = received = 0
    for region in spec.regions():
        asked = computed.requests(spec.periods, region.window(spec.geobox), spec.bands)
        number += min(asked.number, 1) if is_exported else asked.number
        received += asked.bytes
    cost: dict[str, Any] = {"requests": number, "bytes_to_read": received}
    if seconds_per_request is None:
        return cost
    # each tile that is worked on has so many periods under way
    tiles = -(-workers // processes)
    at_once = processes * min(computed.access.requests_at_once, tiles * LOOK_AHEAD)
    return cost | {
        "requests_at_once": at_once,
        "seconds_at_least": math.ceil(number / at_once) * seconds_per_request,
    }
