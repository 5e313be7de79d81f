"""A recipe with Earth Engine in, the part of the plan that its images decide out."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from odc.geo.geom import Geometry

from cube.cog import Patience
from cube.earthengine import Access
from cube.earthengine.composite import Definition, Mask
from cube.earthengine.exported import ExportedSource, TileFiles
from cube.earthengine.source import LOOK_AHEAD, EarthEngineSource
from cube.errors import InputError
from cube.ledger import fingerprint
from cube.periods import acquisition_periods, looks_by_period
from cube.spec import CubeSpec
from cube.stac import SceneList
from cube.store import refuse_other_cube
from pipelines.imagelock import ImageLock
from pipelines.memory import computed_memory
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
    if (cube := lock.parent / "cube.zarr").exists():
        refuse_other_cube(cube, spec, ignoring=("periods",) if is_series else ())
    access, definition = access_of(recipe, section), definition_of(recipe, section)
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
        "definition": vars(definition),
    }
    files = None
    if section.export is not None:
        name = fingerprint({**pixels, "spec": spec.to_json()})[:12]
        files = _tile_files(section.export, f"canopycube-{name}")
    return PlannedSource(
        spec=spec,
        source=computed
        if files is None
        else ExportedSource(computed=computed, spec=spec, files=files),
        pixels=pixels,
        looks=looks_by_period(spec.periods, starts),
        memory=computed_memory(
            spec,
            at_once=min(LOOK_AHEAD, access.requests_at_once),
            is_finished=is_finished(recipe),
        ),
        scenes=scenes,
        facts={
            **_facts(section, computed, spec, scenes, tiles_at_once=tiles_at_once(recipe)),
            "warnings": locked.warnings(),
        },
    )


def _tile_files(section: ExportSection, name: str) -> TileFiles:
    if section.to == "drive" and section.files is None:
        raise InputError(
            "source.export.files is missing: Earth Engine writes to your Drive, and files come from "
            "there by your own hand; name the folder into which you will download them"
        )
    return TileFiles(name=name, folder=section.files, bucket=section.bucket, prefix=section.folder)


def access_of(recipe: Recipe, section: EarthEngineSection) -> Access:
    """Return whom each process asks; the requests at once are shared among them."""
    cluster = recipe.cluster
    processes = 1 if cluster.kind == "threads" else cluster.workers or 1
    return Access(
        project=section.project,
        endpoint=section.endpoint,
        requests_at_once=max(section.requests_at_once // processes, 1),
        patience=Patience(
            attempts=section.attempts, timeout=section.timeout, longest_wait=section.timeout
        ),
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


def _facts(
    section: EarthEngineSection,
    source: EarthEngineSource,
    spec: CubeSpec,
    scenes: SceneList,
    *,
    tiles_at_once: int,
) -> dict[str, Any]:
    asked = [
        source.requests(spec.periods, region.window(spec.geobox), spec.bands)
        for region in spec.regions()
    ]
    number = sum(one.number for one in asked)
    # each tile that is worked on has so many periods under way
    at_once = min(section.requests_at_once, tiles_at_once * LOOK_AHEAD)
    is_exported = section.export is not None
    if is_exported:  # one task a tile
        number = sum(one.number > 0 for one in asked)
    pace = {
        "requests_at_once": at_once,
        "seconds_per_request": section.seconds_per_request,
        "seconds_at_least": math.ceil(number / at_once) * section.seconds_per_request,
    }
    return {
        "provider": f"Earth Engine, {section.collection}",
        "mask": source.definition.mask,
        "scenes": len(scenes.scenes),
        "overpasses": len({scene.overpass for scene in scenes.scenes}),
        "scenes_dropped": {item.id: item.reason for item in scenes.dropped},
        "offsets": dict(Counter(scene.offset_reason for scene in scenes.scenes)),
        "strips": 1,
        "requests": number,
        "bytes_to_read": sum(one.bytes for one in asked),
        **({} if is_exported else pace),
    }
