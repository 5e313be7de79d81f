"""Tiles and the declared cube, against a raster that is painted tile by tile."""

import json

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from cube.errors import InputError
from cube.periods import Period
from cube.spec import CubeSpec, tile_region, tile_regions

GRID = GeoBox((50, 70), Affine(10, 0, 500000, 0, -10, 5300000), "EPSG:32633")
AXIS = (Period.parse("2022-01"), Period.parse("2022-02"))


def spec(**changes):
    given = {
        "geobox": GRID,
        "periods": AXIS,
        "bands": ("B02", "B8A"),
        "tile": 32,
        "chunk": 16,
    }
    return CubeSpec(**(given | changes))


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 25))
def test_tiles_cover_every_pixel_once(height, width, tile):
    painted = np.zeros((height, width), int)
    regions = list(tile_regions((height, width), tile))
    for number, region in enumerate(regions):
        assert painted[region.rows, region.columns].shape == (region.height, region.width)
        painted[region.rows, region.columns] += 1
        assert region == tile_region((height, width), tile, region.row, region.column)
        assert 1 <= region.height <= tile
        assert 1 <= region.width <= tile
        assert number == region.row * -(-width // tile) + region.column
    assert (painted == 1).all()
    assert len({region.id for region in regions}) == len(regions)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 25))
def test_windows_lie_where_their_pixels_do(tile):
    for region in spec(tile=tile, chunk=1).regions():
        window = region.window(GRID)
        assert window.shape == (region.height, region.width)
        corner = GRID.transform * (region.left, region.top)
        assert (window.transform.c, window.transform.f) == corner
        assert window.crs == GRID.crs


def test_names_sort_like_places():
    region = tile_region((4000, 9000), 32, 3, 12)
    assert region.id == "r0003c0012"
    assert (
        sorted([tile_region((99, 999), 9, 0, column).id for column in (2, 10, 1)])[-1][-2:] == "10"
    )


def test_sizes():
    made = spec()
    assert made.shape == (2, 2, 50, 70)
    assert made.shards == (2, 2, 32, 32)
    assert made.chunks[2:] == (16, 16)
    assert all(whole % part == 0 for whole, part in zip(made.shards, made.chunks, strict=True))
    assert spec(sharded=False).shards is None
    assert made.crs == GRID.crs


@pytest.mark.parametrize(
    "crs",
    ["EPSG:32633", "EPSG:3035", "EPSG:32701", "+proj=laea +lat_0=33 +lon_0=107 +datum=WGS84"],
)
def test_json_and_back(crs):
    made = spec(geobox=GeoBox((50, 70), Affine(10, 0, 0.1 + 0.2, 0, -10, 1 / 3), crs))
    again = CubeSpec.from_json(json.loads(json.dumps(made.to_json())))
    assert again.geobox == made.geobox
    assert again == made


def north_up(**changes):
    a, b, c, d, e, f = (
        changes.get(key, value)
        for key, value in zip("abcdef", (10, 0, 500000, 0, -10, 5300000), strict=True)
    )
    return GeoBox((5, 7), Affine(a, b, c, d, e, f), changes.get("crs", "EPSG:32633"))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"geobox": north_up(crs="EPSG:4326")}, "needs a projected CRS in metres"),
        ({"geobox": north_up(crs="EPSG:2263")}, "needs a projected CRS in metres"),  # feet
        ({"geobox": north_up(crs=None)}, "needs a projected CRS in metres"),
        ({"geobox": north_up(e=10)}, "needs north up"),
        ({"geobox": north_up(b=2)}, "needs north up"),
        ({"geobox": GeoBox((0, 7), GRID.transform, GRID.crs)}, "has no pixel"),
        ({"periods": ()}, "periods are missing"),
        ({"periods": AXIS[::-1]}, "2022-01 does not lie after 2022-02"),
        ({"periods": AXIS[:1] * 2}, "ascending, without overlap or repeats; 2022-01"),
        ({"periods": (*AXIS, Period.parse("2022-02-28/2022-03-01"))}, "does not lie after 2022-02"),
        ({"periods": (*AXIS, Period.parse("2022-03-04T10:30:21"))}, "mix single acquisitions"),
        ({"bands": ()}, "empty or repeat a band"),
        ({"bands": ("B02", "B02")}, "empty or repeat a band"),
        ({"bands": ("B02", "B10")}, r"\['B10'\] are not known"),
        ({"tile": 40}, "tile 40 is no multiple of chunk 16"),
        ({"tile": 0}, "tile 0 is no multiple"),
        ({"tile": -32}, "tile -32 is no multiple"),
        ({"chunk": 0}, "no multiple of chunk 0"),
        ({"zarr_format": 2}, "set sharded = false"),
    ],
)
def test_what_is_no_cube(changes, text):
    with pytest.raises(InputError, match=text):
        spec(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"crs": "nonsense"},
        {"shape": [50]},
        {"shape": "many"},
        {"transform": [1, 2]},
        {"periods": ["2022-1"]},
        {"periods": None},
        {"bands": ["Q1"]},
        {"tile": "32"},
        {"zarr_format": 4},
    ],
)
def test_a_damaged_description(changes):
    with pytest.raises(InputError):
        CubeSpec.from_json(spec().to_json() | changes)
    for key in changes:
        incomplete = {name: value for name, value in spec().to_json().items() if name != key}
        with pytest.raises(InputError, match="description is damaged"):
            CubeSpec.from_json(incomplete)
