"""Tiles that an area touches, against a plain loop over tiles and shapely's own overlay."""

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry

from cube.errors import InputError
from cube.grid import area_from_bbox, area_from_file, grid_of_area
from cube.periods import Period
from cube.spec import CubeSpec
from cube.touched import area_on_grid, numbers_of, runs_of, touched_tiles

UTM = "EPSG:32633"


def grid(height, width):
    return GeoBox((height, width), Affine(10, 0, 500_000, 0, -10, 5_300_000), UTM)


def spec(geobox, tile, touched=None):
    months = (Period.parse("2022-01"),)
    return CubeSpec(
        geobox=geobox, periods=months, bands=("B02",), tile=tile, chunk=tile, touched=touched
    )


def slowly(area, geobox, tile):
    """Ask each tile how much ground it shares with the area."""
    left, top = geobox.transform.c, geobox.transform.f
    return {
        one.id: shapely.box(
            left + 10 * one.columns.start,
            top - 10 * one.rows.stop,
            left + 10 * one.columns.stop,
            top - 10 * one.rows.start,
        )
        .intersection(area)
        .area
        for one in spec(geobox, tile).regions()
    }


corner = st.tuples(st.integers(-200, 1200), st.integers(-200, 1200))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(corner, min_size=3, max_size=6), min_size=1, max_size=3),
    st.integers(1, 100),
    st.integers(1, 100),
    st.integers(5, 40),
)
def test_the_tiles_are_those_that_share_ground(parts, height, width, tile):
    rings = [shapely.Polygon([(500_000 + x, 5_300_000 - y) for x, y in part]) for part in parts]
    area = shapely.union_all([shapely.make_valid(ring) for ring in rings])
    geobox = grid(height, width)
    shared = slowly(area, geobox, tile)
    if max(shared.values()) < 1:
        return
    touched = touched_tiles(Geometry(area, UTM), geobox, tile)
    found = {region.id for region in spec(geobox, tile, runs_of(touched)).regions()}
    assert {name for name, ground in shared.items() if ground > 0.1} <= found
    assert found <= {name for name, ground in shared.items() if ground > 0}


def test_holes_and_islands_are_seen():
    tile, geobox = 10, grid(100, 100)
    box = geobox.extent.geom
    lake = shapely.box(500_250, 5_299_250, 500_750, 5_299_750)
    island = shapely.box(500_455, 5_299_455, 500_458, 5_299_458)
    area = Geometry(box.difference(lake).union(island), UTM)
    touched = touched_tiles(area, geobox, tile)
    # tiles 3 to 6 lie in the lake as a whole; the island is in one of them
    expected = np.ones((10, 10), bool)
    expected[3:7, 3:7] = False
    expected[5, 4] = True
    np.testing.assert_array_equal(touched, expected)


def test_an_edge_in_common_is_no_ground_in_common():
    geobox = grid(40, 40)
    left = Geometry(shapely.box(500_000, 5_299_600, 500_200, 5_300_000), UTM)
    np.testing.assert_array_equal(touched_tiles(left, geobox, 20), [[True, False], [True, False]])


def test_an_area_smaller_than_all_rounding_touches_its_tile():
    geobox = grid(40, 40)
    speck = Geometry(shapely.box(500_200, 5_299_900, 500_200 + 1e-6, 5_299_900 + 1e-6), UTM)
    assert touched_tiles(speck, geobox, 20)[0, 1]


def test_a_million_tiles_of_a_country_are_asked_by_its_border():
    angle = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    radius = 2.4e6 * (1 + 0.05 * np.sin(9 * angle))
    country = shapely.Polygon(np.column_stack([radius * np.cos(angle), radius * np.sin(angle)]))
    geobox = GeoBox((512_000, 512_000), Affine(10, 0, -2.56e6, 0, -10, 2.56e6), "EPSG:3035")
    touched = touched_tiles(Geometry(country, "EPSG:3035"), geobox, 512)
    ground = touched.sum() * 5120.0**2
    assert country.area < ground < country.area + 1.5 * country.length * 5120
    runs = runs_of(touched)
    assert len(runs) < 3 * touched.shape[0]
    assert spec(geobox, 512, runs).tile_count == touched.sum()


@pytest.mark.parametrize("crs", ["utm", "equal-area", "EPSG:3035"])
def test_every_part_of_an_area_in_degrees_is_in_a_tile(crs):
    ring = [(13.0, 47.0), (16.9, 47.3), (16.5, 49.8), (14.1, 48.2), (13.2, 49.9)]
    area = Geometry(shapely.Polygon(ring), "EPSG:4326")
    geobox = grid_of_area(area, crs=crs, resolution=100.0)
    touched = touched_tiles(area, geobox, 64)
    own = spec(geobox, 64, runs_of(touched))
    assert 0.4 < touched.mean() < 0.9
    dense = shapely.segmentize(area.geom, 0.01)
    moved = geopandas.GeoSeries([dense], crs=4326).to_crs(geobox.crs.to_wkt()).iloc[0]
    ground = shapely.union_all([region.window(geobox).extent.geom for region in own.regions()])
    assert moved.difference(ground).area < 1e-6 * moved.area
    wide = moved.buffer(1)
    assert all(region.window(geobox).extent.geom.intersects(wide) for region in own.regions())


def test_an_area_across_the_antimeridian_is_one_piece():
    area = area_from_bbox((179.0, -17.5, -179.0, -16.5))
    geobox = grid_of_area(area, resolution=100.0)
    assert geobox.crs == "EPSG:32701"
    assert touched_tiles(area, geobox, 128).mean() > 0.9
    equal = grid_of_area(area, crs="equal-area", resolution=100.0)
    assert 2000 < equal.shape[1] < 2300  # two degrees there are 213 km
    assert touched_tiles(area, equal, 128).mean() > 0.9


def test_polygons_of_a_file_choose_the_tiles(tmp_path):
    two = [shapely.box(14.0, 50.0, 14.02, 50.02), shapely.box(14.2, 50.2, 14.21, 50.21)]
    geopandas.GeoDataFrame(geometry=two, crs=4326).to_file(tmp_path / "area.geojson")
    area = area_from_file(tmp_path / "area.geojson")
    geobox = grid_of_area(area)
    touched = touched_tiles(area, geobox, 64)
    assert 0 < touched.sum() < 0.05 * touched.size


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_runs_keep_which_tiles(rows, columns, seed):
    touched = np.random.default_rng(seed).random((rows, columns)) < 0.5
    runs = runs_of(touched)
    assert sum(runs) == rows * columns
    np.testing.assert_array_equal(numbers_of(runs), np.flatnonzero(touched))


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 25), st.integers(0, 2**32 - 1))
def test_counts_are_those_of_the_regions(height, width, tile, seed):
    shape = (-(-height // tile), -(-width // tile))
    touched = np.random.default_rng(seed).random(shape) < 0.5
    touched[-1, -1] = True
    own = spec(grid(height, width), tile, runs_of(touched))
    regions = own.regions()
    assert own.tile_count == len(regions) == touched.sum()
    assert own.pixel_count == sum(region.height * region.width for region in regions)
    assert [(one.row, one.column) for one in regions] == list(zip(*touched.nonzero(), strict=True))
    assert CubeSpec.from_json(own.to_json()) == own


def test_an_older_cube_has_all_tiles():
    stored = spec(grid(40, 40), 20).to_json()
    del stored["touched"]
    assert CubeSpec.from_json(stored).tile_count == 4


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ((1, 2), "are no runs of its 4 tiles"),
        ((5, -1), "are no runs of its 4 tiles"),
        ((4,), "none of the grid's 4 tiles belongs to the cube"),
    ],
)
def test_runs_that_cannot_be_are_refused(runs, words):
    with pytest.raises(InputError, match=words):
        CubeSpec.from_json(spec(grid(40, 40), 20).to_json() | {"touched": list(runs)})


def test_polygons_that_cross_themselves_after_projection_are_mended():
    bow = shapely.Polygon([(14, 50), (14.1, 50.1), (14.1, 50), (14, 50.1)])
    area = area_on_grid(Geometry(bow, "EPSG:4326"), grid(1, 1).crs)
    assert area.geom.is_valid
    assert area.geom.area > 0
