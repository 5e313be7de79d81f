"""What a source's part of a plan is made of: the nouns that `plan` and `plan_*.py` share."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry

from cube.errors import InputError
from cube.finish import Finish
from cube.gapfill import GapFill
from cube.grid import grid_of_area
from cube.mask import ClearMask
from cube.outlier import OutlierScreen, visible_band
from cube.periods import Period
from cube.source import PeriodSource
from cube.spec import CubeSpec
from cube.stac import SceneList
from cube.touched import runs_of, touched_tiles
from pipelines.memory import Memory
from pipelines.recipe import Recipe

MOST_TILES = 1_000_000
"""Of a cube: with tiles of 512 pixels of 10 m, 26 million square kilometres."""

_MOST_OF_GRID = 20_000_000
"""Tiles of the grid round a cube, of which it may have few: as many are looked at."""


@dataclass(frozen=True, kw_only=True)
class PlannedSource:
    """A cube's grid and where its pixels come from."""

    spec: CubeSpec
    """What the cube will be."""
    source: PeriodSource
    """Where its pixels come from."""
    pixels: dict[str, Any]
    """What decides the source's pixels, as plain JSON: which scenes, how read."""
    looks: dict[Period, int]
    """Most looks a pixel can have in each period that has any."""
    memory: Memory
    """What building takes at most."""
    memory_of: Callable[[CubeSpec], Memory]
    """The same of another cube of these scenes, e.g. of smaller tiles."""
    scenes: SceneList | None = None
    """The scenes, where they come from a catalogue."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What `plan` prints of this source beside all that, as plain JSON."""


def clear_mask(recipe: Recipe) -> ClearMask:
    """Return the recipe's mask; raises `InputError` for one that cannot be."""
    mask = recipe.mask
    return ClearMask(
        classes=mask.classes,
        buffer=mask.buffer,
        shadow=mask.shadow,
        snow=mask.snow,
        opening=mask.opening,
    )


def outlier_screen(recipe: Recipe) -> OutlierScreen | None:
    """Return the recipe's screen; raises `InputError` where the cube lacks a band for it."""
    if not recipe.composite.outliers:
        return None
    visible_band(recipe.bands)
    return OutlierScreen(absolute=recipe.composite.outlier_threshold)


def finish(recipe: Recipe) -> Finish:
    """Return what is done to a tile's finished series."""
    gaps = recipe.gaps
    return Finish(
        screen=outlier_screen(recipe),
        gaps=None
        if gaps is None
        else GapFill(method=gaps.method, longest_gap=gaps.longest_gap, smoothness=gaps.smoothness),
    )


def is_finished(recipe: Recipe) -> bool:
    """Say whether anything is done to a finished series."""
    return recipe.composite.outliers or recipe.gaps is not None


def cube_spec(recipe: Recipe, area: Geometry, *, geobox: GeoBox | None = None) -> CubeSpec:
    """Return what the cube will be: the tiles that `area` touches of its grid, or all of `geobox`.

    Raises `InputError` for a grid that cannot be, or of more than `MOST_TILES` tiles.
    """
    grid, tile = recipe.grid, recipe.composite.tile
    is_whole = geobox is not None
    geobox = geobox or grid_of_area(
        area, crs=grid.crs, resolution=grid.resolution, anchor=grid.anchor
    )
    around = -(-geobox.shape.y // tile) * -(-geobox.shape.x // tile)
    _refuse_many(around, _MOST_OF_GRID, geobox, tile)
    touched = None if is_whole else touched_tiles(area, geobox, tile)
    number = around if touched is None else int(touched.sum())
    _refuse_many(number, MOST_TILES, geobox, tile)
    return CubeSpec(
        geobox=geobox,
        periods=recipe.months.calendar,
        bands=recipe.bands,
        tile=tile,
        chunk=recipe.composite.chunk,
        sharded=recipe.composite.sharded,
        zarr_format=recipe.composite.zarr_format,
        touched=None if touched is None or number == around else runs_of(touched),
    )


def _refuse_many(tiles: int, most: int, geobox: GeoBox, tile: int) -> None:
    if tiles > most:
        height, width = geobox.shape
        raise InputError(
            f"the cube would have {height} x {width} pixels, {tiles} tiles of {tile}; at most "
            f"{most} fit: take a smaller area, a coarser grid.resolution or a larger composite.tile"
        )


def tiles_at_once(recipe: Recipe) -> int:
    """Return how many tiles are worked on at once."""
    return recipe.cluster.most_workers or os.cpu_count() or 1


def month_ends(recipe: Recipe) -> tuple[Period, Period]:
    """Return the first and the last month."""
    return recipe.months.first, recipe.months.last
