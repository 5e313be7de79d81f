"""Scenes of many tiles at once: at least those that each tile's window meets, whatever the grid."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from shapely.geometry import mapping

from cube.spec import Region, tile_regions
from cube.stac.footprint import meets_window, unwrapped
from cube.stac.scene import Scene
from cube.stac.touching import TouchingScenes

CRS_PLACES = {
    "EPSG:32633": (500_000.0, 5_000_000.0),
    "EPSG:32601": (170_000.0, 5_000_000.0),  # at the antimeridian
    "EPSG:3035": (4_321_000.0, 3_210_000.0),
    "EPSG:3995": (0.0, 0.0),  # around the pole
    "EPSG:32733": (300_000.0, 1_200_000.0),
}


def scene_over(outline: shapely.Polygon) -> Scene:
    return Scene(
        id="S",
        collection="",
        time=datetime(2022, 5, 3, tzinfo=UTC),
        overpass="S2A_20220503T000000",
        tile="33TWL",
        baseline="05.09",
        version=("", "0"),
        epsg=32633,
        footprint=mapping(outline),
        cloud_cover=None,
        assets={},
        offset=0,
        offset_reason="",
    )


@st.composite
def grids(draw: st.DrawFn) -> GeoBox:
    crs, (left, top) = draw(st.sampled_from(sorted(CRS_PLACES.items())))
    step = draw(st.sampled_from([10.0, 60.0, 500.0]))
    shift = draw(st.tuples(st.integers(-300, 300), st.integers(-300, 300)))
    shape = draw(st.tuples(st.integers(1, 150), st.integers(1, 150)))
    corner = (left + shift[0] * step, top + shift[1] * step)
    return GeoBox(shape, Affine(step, 0, corner[0], 0, -step, corner[1]), crs)


def boxes_near(grid: GeoBox, seed: int) -> list[shapely.Polygon]:
    """Return boxes in lon/lat of all sizes around the grid's middle, also across 180 degrees."""
    random = np.random.default_rng(seed)
    middle = grid.extent.centroid.to_crs("EPSG:4326").coords[0]
    found = []
    for _ in range(25):
        size = 10 ** random.uniform(-2, 0.5, 2)
        longitude = middle[0] + random.normal(0, 0.6)
        latitude = float(np.clip(middle[1] + random.normal(0, 0.6), -85, 85))
        west = (longitude + 180) % 360 - 180
        found.append(shapely.box(west, latitude, west + size[0], min(latitude + size[1], 89.9)))
    return found


@settings(max_examples=12, deadline=None)
@given(grids(), st.integers(1, 90), st.integers(0, 40), st.integers(0, 99))
def test_none_that_a_window_meets_is_missing(
    grid: GeoBox, tile: int, margin: int, seed: int
) -> None:
    outlines = boxes_near(grid, seed)
    footprints = np.array([unwrapped(mapping(outline)) for outline in outlines], object)
    regions = list(tile_regions(tuple(grid.shape), tile))[:8]
    found = TouchingScenes([scene_over(outline) for outline in outlines]).of_tiles(
        regions, grid, margin=margin
    )
    for region, numbers in zip(regions, found, strict=True):
        window = region.window(grid)
        met = set(np.flatnonzero(meets_window(footprints, window.pad(margin))))
        assert met <= set(numbers.tolist())
        assert numbers.tolist() == sorted(set(numbers.tolist()))


@settings(max_examples=12, deadline=None)
@given(grids(), st.tuples(st.integers(0, 3), st.integers(0, 3)), st.integers(0, 99))
def test_a_tile_has_the_same_scenes_in_a_larger_grid(
    grid: GeoBox, more: tuple[int, int], seed: int
) -> None:
    tile = 32
    touching = TouchingScenes([scene_over(outline) for outline in boxes_near(grid, seed)])
    down, right = more[0] * tile, more[1] * tile
    larger = GeoBox(
        (grid.shape[0] + down, grid.shape[1] + right),
        grid.affine * Affine.translation(-right, -down),
        grid.crs,
    )
    regions = list(tile_regions(tuple(grid.shape), tile))
    moved = [
        replace(one, top=one.top + more[0] * tile, left=one.left + more[1] * tile)
        for one in regions
    ]
    assert _lists(touching.of_tiles(regions, grid, margin=3)) == _lists(
        touching.of_tiles(moved, larger, margin=3)
    )


def _lists(found: Sequence[np.ndarray]) -> list[list[int]]:
    return [numbers.tolist() for numbers in found]


def test_without_a_scene_or_a_tile_there_is_nothing() -> None:
    grid = GeoBox((64, 64), Affine(10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32633")
    regions: list[Region] = list(tile_regions((64, 64), 32))
    assert _lists(TouchingScenes([]).of_tiles(regions, grid, margin=0)) == [[]] * 4
    outline = shapely.box(14, 44, 16, 46)
    assert TouchingScenes([scene_over(outline)]).of_tiles([], grid, margin=0) == []
