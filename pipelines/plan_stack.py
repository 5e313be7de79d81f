"""A recipe with the user's own files in, the part of the plan that they decide out."""

from dataclasses import replace
from pathlib import Path

from odc.geo.geom import Geometry

from cube.composite import SceneComposites
from cube.errors import InputError
from cube.grid import LON_LAT
from cube.periods import acquisition_periods, looks_by_period
from cube.spec import CubeSpec
from cube.stack import StackSource, file_stamp
from pipelines.memory import Memory, stack_memory
from pipelines.planned import (
    PlannedSource,
    clear_mask,
    cube_spec,
    is_finished,
    month_ends,
    outlier_screen,
)
from pipelines.recipe import Recipe, StackSection


def plan_stack(recipe: Recipe, section: StackSection, area: Geometry | None) -> PlannedSource:
    """Settle grid and periods over the files; raises `InputError` where they hold no scene."""
    source = StackSource(
        files=section.files,
        bands=dict(section.bands),
        mask=section.mask,
        clear=clear_mask(recipe),
        time=section.time,
        y=section.y,
        x=section.x,
        crs=section.crs,
        scale=section.scale,
        offset=section.offset,
        nodata=section.nodata,
        resampling=section.resampling,
    )
    native = source.native_geobox(recipe.bands)
    if area is None:
        spec = cube_spec(recipe, native.extent, geobox=native)
    else:
        spec = cube_spec(recipe, area)
        if not spec.geobox.extent.intersects(native.extent.to_crs(spec.crs)):
            raise InputError(
                f"the area {_box(spec.geobox.extent)} lies outside every scene "
                f"{_box(native.extent)} (lon/lat)"
            )
    dates = source.dates(recipe.bands)
    if recipe.months.step == "acquisition":
        acquired = acquisition_periods(dates, *month_ends(recipe))
        spec = replace(spec, periods=acquired or spec.periods)
    looks = looks_by_period(spec.periods, dates)
    if not looks:
        first, last = month_ends(recipe)
        known = f"{str(dates[0])[:10]} … {str(dates[-1])[:10]}" if dates else "no date at all"
        raise InputError(f"no scene lies in {first} … {last}; the files have {known}")

    def memory_of(spec: CubeSpec) -> Memory:
        return stack_memory(spec, max(looks.values()), is_finished=is_finished(recipe))

    stamps = [[Path(file).name, *file_stamp(file)] for file in section.files]
    return PlannedSource(
        spec=spec,
        source=SceneComposites(
            catalogue=source, method=recipe.composite.method, screen=outlier_screen(recipe)
        ),
        pixels={"source": section.model_dump(exclude={"files"}), "files": stamps},
        looks=looks,
        memory=memory_of(spec),
        memory_of=memory_of,
    )


def _box(extent: Geometry) -> str:
    box = extent.to_crs(LON_LAT).boundingbox
    return "[" + ", ".join(f"{value:.4f}" for value in box) + "]"
