"""A recipe with a catalogue in, the part of the plan that its scenes decide out."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from odc.geo.geom import Geometry

from cube.bands import BANDS
from cube.cloudmodels import CloudModel, cloud_model
from cube.cog import Patience
from cube.cog.cache import KEPT_BYTES
from cube.cog.fetch import is_http
from cube.cog.header import KEPT_HEADER_BYTES
from cube.composite import SceneComposites, method_margin
from cube.composite.methods import check_method
from cube.errors import InputError
from cube.periods import acquisition_periods, looks_by_period
from cube.spec import CubeSpec
from cube.stac import SceneList, StacSource, provider_of
from cube.stac.cost import ReadingCost, total_cost
from cube.stac.gather import IN_FLIGHT
from cube.stac.href import is_remote, without_query
from cube.stac.overpass import overpasses
from cube.stac.scene import SCL
from pipelines.carry_cube import refuse_unlike
from pipelines.layout import Layout
from pipelines.memory import LookSizes, Memory, scenes_memory, strips_of
from pipelines.planned import (
    PlannedSource,
    clear_mask,
    cube_spec,
    is_finished,
    month_ends,
    outlier_screen,
)
from pipelines.recipe import Recipe, StacSection
from pipelines.scenelock import OnScene, SceneLock

FINEST = 1.0
"""Metres of a pixel below which a grid holds nothing but copies."""


def plan_stac(
    recipe: Recipe,
    section: StacSection,
    area: Geometry,
    *,
    lock: Path,
    update: bool = False,
    on_scene: OnScene | None = None,
) -> PlannedSource:
    """Settle the scenes: those of the file `lock`, or of a search if it answers another question.

    With `update` the catalogue is searched in any case. Raises `InputError` for settings that
    cannot be and for an area or months without any scene; `WorkFailedError` where a server does
    not answer.
    """
    _refuse_copies(recipe.grid.resolution)
    check_method(recipe.composite.method, bands=recipe.bands)
    screen, mask = outlier_screen(recipe), clear_mask(recipe)
    model = None if recipe.mask.model is None else cloud_model(recipe.mask.model)
    spec = cube_spec(recipe, area)
    is_series = recipe.months.step == "acquisition"
    # or the scenes of a cube that stays would be gone
    refuse_unlike(Layout.of(recipe.outputs).cube, spec, is_series=is_series)
    source = StacSource(
        scenes=lock,
        mask=mask,
        model=recipe.mask.model,
        reader=section.reader,
        resampling=section.resampling,
        overviews=section.overviews,
        access=provider_of(section.catalogue).access
        if section.access == "auto"
        else section.access,
        patience=Patience(attempts=section.attempts, timeout=section.timeout),
    )
    bands = tuple(dict.fromkeys((*spec.bands, *(model.bands if model else ()))))
    locked = SceneLock(
        recipe=recipe, section=section, spec=spec, bands=bands, reader=source.pixels(), file=lock
    )
    scenes = locked.scenes(update=update, on_scene=on_scene)
    starts = {scene.overpass: scene.overpass_start for scene in scenes.scenes}.values()
    if recipe.months.step == "acquisition":
        spec = replace(spec, periods=acquisition_periods(starts, *month_ends(recipe)))
    looks = looks_by_period(spec.periods, starts)
    buffer = recipe.composite.buffer * 10**6
    sizes = _look_sizes(recipe, spec, max(looks.values()), model)

    def memory_of(spec: CubeSpec) -> Memory:
        return scenes_memory(spec, sizes, is_finished=is_finished(recipe))

    return PlannedSource(
        spec=spec,
        source=SceneComposites(
            catalogue=replace(source, fingerprint=scenes.fingerprint),
            method=recipe.composite.method,
            screen=screen,
            buffer_bytes=buffer,
        ),
        pixels={
            "scenes": [scene.identity for scene in scenes.scenes],
            "resampling": section.resampling,
            "overviews": section.overviews and section.reader == "direct",
        },
        looks=looks,
        memory=memory_of(spec),
        memory_of=memory_of,
        scenes=scenes,
        facts=_facts(scenes, section) | {"strips": strips_of(spec, sizes)},
    )


def _refuse_copies(resolution: float) -> None:
    """Refuse pixels so fine that a satellite's would only be copied."""
    if resolution < FINEST:
        copies = round((min(band.resolution for band in BANDS.values()) / resolution) ** 2)
        raise InputError(
            f"grid.resolution is {resolution:g} m, so that each pixel of the finest band would be "
            f"stored {copies} times; expected {FINEST:g} m or more, e.g. 10"
        )


def reading_cost(
    scenes: SceneList, spec: CubeSpec, *, workers: int, processes: int
) -> ReadingCost | None:
    """Return what a build asks of servers, None where files are read that nobody has counted.

    `workers` make tiles at the same time, in so many `processes`. Each process reads the headers of
    all files itself; local files cost nothing. Files that are not fetched over HTTP are read by
    GDAL, which does not say what it asks for.
    """
    hrefs = {scene.id: scene.assets[SCL].href for scene in scenes.scenes}
    if any(is_remote(href) and not is_http(href) for href in hrefs.values()):
        return None
    remote = [scene for scene in scenes.scenes if is_http(hrefs[scene.id])]
    found = overpasses(remote, epsg=spec.crs.epsg)
    cost = total_cost(found, at_once=max(workers // processes, 1))
    return replace(
        cost, headers=cost.headers * processes, header_bytes=cost.header_bytes * processes
    )


def _look_sizes(recipe: Recipe, spec: CubeSpec, looks: int, model: CloudModel | None) -> LookSizes:
    step = abs(spec.geobox.resolution.x)
    method = recipe.composite.method
    margin = method_margin(method, pixel_size=(step, step))
    margin += clear_mask(recipe).margin(pixel_size=step) + (model.margin if model else 0)
    extra = set(model.bands) - set(spec.bands) if model else set()
    fine = max(step / 10, 1.0) ** 2
    is_nearest = recipe.source.resampling == "nearest"
    return LookSizes(
        looks=looks,
        buffer=recipe.composite.buffer * 10**6,
        margin=margin,
        extra_bands=len(extra),
        scratch=(
            3 * recipe.composite.outliers  # blue, and what is kept
            + 8 * (method in ("max-ndvi", "best"))  # a score
            + 2 * len(spec.bands) * (model is not None)  # looks cut to the tile
        ),
        # means are taken from an overview less than twice as fine in each direction
        finer_bands=fine if is_nearest else min(fine, 4.0),
        finer_mask=max(step / 20, 1.0) ** 2,
        in_flight=IN_FLIGHT,
        kept=KEPT_BYTES + KEPT_HEADER_BYTES,
    )


def _facts(scenes: SceneList, section: StacSection) -> dict[str, Any]:
    return {
        "provider": provider_of(section.catalogue).name or without_query(section.catalogue),
        "scenes": len(scenes.scenes),
        "overpasses": len({scene.overpass for scene in scenes.scenes}),
        "scenes_dropped": {item.id: item.reason for item in scenes.dropped},
        "offsets": dict(Counter(scene.offset_reason for scene in scenes.scenes)),
    }
