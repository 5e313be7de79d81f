"""Looks of real and made scenes, against plain rasterio and NumPy."""

import json
import pickle
import re
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from cube.bands import NODATA
from cube.errors import InputError
from cube.mask import ClearMask
from cube.periods import Period
from cube.stac import (
    SceneList,
    SceneQuery,
    SceneReadError,
    SceneUnreachableError,
    StacSource,
    find_scenes,
    lock_scenes,
    read_odc,
    read_scenes,
    write_scenes,
)
from cube.stac.files import check_format
from cube.stac.footprint import geojson, meets_window, unwrapped, window_outline
from cube.stac.merge import merge_granule
from cube.stac.pixels import HEADERS
from cube.stac.scene import Asset, Scene
from cube.warp import resample

AUGUST = Period.of_month(2023, 8)
BANDS = ("B02", "B03", "B04", "B08")
GRID = GeoBox((915, 915), Affine(120, 0, 499980, 0, -120, 5100000), "EPSG:32633")
"""The grid that the files of tile 33TWL have, whatever their items say."""


@pytest.fixture(scope="module")
def real(shared_data, tmp_path_factory):
    """(folder of the scenes, lock file) of the real static catalogue."""
    root = shared_data / "earth-search-33TWL"
    found = find_scenes(
        SceneQuery(
            catalogue=str(root / "catalog.json"),
            collection="sentinel-2-l2a",
            periods=(AUGUST,),
            bbox=(15.2, 45.2, 16.2, 45.8),
        )
    )
    path = tmp_path_factory.mktemp("lock") / "scenes.json"
    write_scenes(path, lock_scenes(found, bands=BANDS))
    return root / "sentinel-2-l2a", path


@cache
def plain(folder, scene_id, name):
    with rasterio.open(folder / scene_id / f"{name}.tif") as file:
        return file.read(1)


def test_lock_has_the_files_geometry_and_offset(real):
    scenes = read_scenes(real[1]).scenes
    assert [scene.overpass_start.day for scene in scenes] == [10, 13, 15, 18, 20]
    for scene in scenes:
        assert scene.is_locked
        assert scene.offset == 0
        assert scene.offset_reason == ("baseline 05.09, boa_offset_applied is true; pixels agree")
        assert set(scene.assets) == {*BANDS, "SCL"}
        for asset in scene.assets.values():  # the items declare 10 m and 10980 pixels
            assert asset.transform == (120, 0, 499980, 0, -120, 5100000)
            assert asset.shape == (915, 915)


@pytest.mark.parametrize(
    ("reader", "top", "left", "height", "width"),
    [
        ("direct", 300, 400, 97, 131),
        ("odc", 300, 400, 97, 131),
        ("stackstac", 300, 400, 97, 131),
        ("odc", -20, 850, 60, 90),  # partly outside
        ("odc", 0, 0, 50, 50),
    ],
)
def test_looks_equal_plain_rasterio(real, reader, top, left, height, width):
    folder, lock = real
    window = GeoBox((height, width), GRID.transform * Affine.translation(left, top), GRID.crs)
    looks = StacSource(scenes=lock, reader=reader).looks(AUGUST, window, BANDS)
    ids, days = [], []
    seen = np.zeros(window.shape, int)
    for scene in read_scenes(lock).scenes:
        padded = {
            name: np.pad(plain(folder, scene.id, name), 100)[
                100 + top : 100 + top + height, 100 + left : 100 + left + width
            ].astype(int)
            for name in (*BANDS, "SCL")
        }
        has_data = np.all([layer > 0 for layer in padded.values()], axis=0) & (padded["SCL"] > 1)
        may_be_clear = np.isin(padded["SCL"], (4, 5, 6, 7))
        seen += padded["SCL"] > 1
        is_clear = has_data & may_be_clear
        if not is_clear.any():
            continue
        look = len(ids)
        ids.append(scene.id)
        days.append((scene.overpass_start.date() - date(1970, 1, 1)).days)
        np.testing.assert_array_equal(looks.is_clear[look], is_clear)
        for index, name in enumerate(BANDS):  # the offset is out already: counts as they are
            expected = np.where(has_data, padded[name], NODATA)
            np.testing.assert_array_equal(looks.reflectance[look, index], expected)
    assert looks.ids == tuple(ids)
    assert looks.days.tolist() == days
    np.testing.assert_array_equal(looks.seen_count, seen)
    assert looks.reflectance.shape == (len(ids), 4, height, width)
    assert looks.reflectance.dtype == np.int16


def test_window_without_scenes_and_month_without_scenes(real):
    source = StacSource(scenes=real[1])
    elsewhere = GeoBox((5, 6), Affine(120, 0, 300000, 0, -120, 5700000), "EPSG:32633")
    for month, window in ((AUGUST, elsewhere), (Period.of_month(2023, 7), GRID[:5, :6])):
        looks = source.looks(month, window, BANDS)
        assert looks.reflectance.shape == (0, 4, 5, 6)
        assert looks.is_clear.shape == (0, 5, 6)
        assert looks.ids == ()


WINDOWS = {
    "half a pixel off": GeoBox.from_bbox(
        (540000, 4990080, 565080, 5010000), "EPSG:32633", resolution=120
    ),
    "finer": GeoBox.from_bbox((540060, 4990080, 550000, 5000000), "EPSG:32633", resolution=50),
    "coarser": GeoBox.from_bbox((510000, 4990000, 580000, 5060000), "EPSG:32633", resolution=500),
    "another zone": GeoBox.from_bbox(
        (1010000, 5010000, 1035000, 5035000), "EPSG:32632", resolution=120
    ),
    "LAEA Europe": GeoBox.from_bbox(
        (4730000, 2490000, 4750000, 2510000), "EPSG:3035", resolution=100
    ),
    "degrees": GeoBox.from_bbox((15.2, 45.2, 15.4, 45.4), "EPSG:4326", resolution=0.001),
}


def read(source, scene, names, window):
    """Return counts (band, y, x) of one scene."""
    return np.stack([source.pixels().read(scene, name, window) for name in names])


@pytest.mark.parametrize(
    ("place", "resampling"),
    [(place, "bilinear") for place in WINDOWS] + [("another zone", "nearest")],
)
def test_any_grid_any_tiling_either_reader(real, place, resampling):
    window = WINDOWS[place]
    height, width = window.shape
    step_y, step_x = height // 2 + 3, width // 2 - 5  # two rows and three columns, uneven
    by_reader = {}
    for reader in ("direct", "odc", "stackstac"):
        source = StacSource(scenes=real[1], reader=reader, resampling=resampling)
        scene = read_scenes(real[1]).scenes[2]
        whole = read(source, scene, ("B04", "B08"), window)
        parts = np.zeros_like(whole)
        for y in range(0, height, step_y):
            for x in range(0, width, step_x):
                tile = window[y : min(y + step_y, height), x : min(x + step_x, width)]
                part = read(source, scene, ("B04", "B08"), tile)
                parts[:, y : y + step_y, x : x + step_x] = part
        np.testing.assert_array_equal(whole, parts)
        by_reader[reader] = whole
    np.testing.assert_array_equal(by_reader["direct"], by_reader["stackstac"])
    np.testing.assert_array_equal(by_reader["odc"], by_reader["stackstac"])
    assert (by_reader["odc"] > 0).mean() > 0.5


@pytest.mark.parametrize("place", ["another zone", "LAEA Europe", "finer"])
def test_warp_against_a_loop_over_pixels(real, place):
    window = WINDOWS[place][20:50, 30:70]
    folder, lock = real
    scene = read_scenes(lock).scenes[2]
    red = plain(folder, scene.id, "B04").astype(float)
    nearest = read(StacSource(scenes=lock, resampling="nearest"), scene, ("B04",), window)[0]
    smooth = read(StacSource(scenes=lock), scene, ("B04",), window)[0]
    to_utm = Transformer.from_crs(window.crs.to_epsg(), 32633, always_xy=True)
    for y in range(30):
        for x in range(40):
            point = to_utm.transform(*(window.transform * (x + 0.5, y + 0.5)))
            column, row = ~GRID.transform * point
            on_an_edge = min(row % 1, -row % 1, column % 1, -column % 1) < 1 / 500
            assert on_an_edge or nearest[y, x] == red[int(row), int(column)]
            top, left = int(np.floor(row - 0.5)), int(np.floor(column - 0.5))
            down, right = row - 0.5 - top, column - 0.5 - left
            four = red[top : top + 2, left : left + 2]
            if (four > 0).all():
                expected = np.outer([1 - down, down], [1 - right, right]).ravel() @ four.ravel()
                slope = np.abs(np.diff(four, axis=0)).max() + np.abs(np.diff(four, axis=1)).max()
                assert abs(smooth[y, x] - expected) <= 0.5 + slope / 1000


def test_coarser_pixels_are_the_mean_of_what_they_cover(real):
    folder, lock = real
    scene = read_scenes(lock).scenes[2]
    window = GRID[300:420, 400:520].zoom_out(4)
    found = read(StacSource(scenes=lock), scene, ("B04",), window)[0]
    red = plain(folder, scene.id, "B04")[300:420, 400:520].astype(float)
    assert (red > 0).all()
    blocks = red.reshape(30, 4, 30, 4).mean(axis=(1, 3))
    np.testing.assert_array_equal(found, np.floor(blocks + 0.5))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shift=st.tuples(st.integers(-40, 40), st.integers(-40, 40)),
    scale=st.sampled_from([0.25, 0.5, 1.0]),
)
def test_bilinear_leaves_nodata_out(seed, shift, scale):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, (1, 9, 8)).astype(np.uint16) * np.uint16(700)
    rows = (np.arange(6)[:, None] * scale + shift[0] / 16) * np.ones((1, 7))
    columns = (np.arange(7)[None, :] * scale + shift[1] / 16) * np.ones((6, 1))
    found = resample(counts, columns, rows, True, 0)[0]
    for y in range(5):
        for x in range(6):
            row, column = rows[y, 0] + scale / 2, columns[0, x] + scale / 2
            own = (int(np.floor(row)), int(np.floor(column)))
            inside = 0 <= own[0] < 9 and 0 <= own[1] < 8
            if not inside or counts[0][own] == 0:
                assert found[y, x] == 0
                continue
            total = weight = 0.0
            for i in range(9):
                for j in range(8):
                    near = max(0, 1 - abs(row - 0.5 - i)) * max(0, 1 - abs(column - 0.5 - j))
                    if counts[0, i, j] > 0:
                        total, weight = total + near * counts[0, i, j], weight + near
            assert found[y, x] == int(np.floor(total / weight + 0.5))


def merged(counts, scl, *, gain=1.0, bias=0.0, nodata=0, seen=None):
    """Return (reflectance of one band, is_seen, number of pixels) of a first or second granule."""
    counts = np.asarray(counts)[None]
    out = np.full(counts.shape, 77, np.int16)
    is_seen = np.zeros(counts.shape[1:], np.bool_) if seen is None else np.array(seen)
    found = merge_granule(
        counts,
        np.asarray(scl, np.uint8),
        np.array([gain]),
        np.array([bias]),
        nodata,
        out,
        is_seen,
        seen is None,
    )
    return out[0].tolist(), is_seen.tolist(), found


def test_stored_units():
    counts = np.array([[0, 1, 900, 1000, 1250, 40000, 65535]], np.uint16)
    scl = np.full(counts.shape, 4)
    with_offset, is_seen, found = merged(counts, scl, bias=-1000.0)
    assert with_offset == [[NODATA, -999, -100, 0, 250, 32767, 32767]]
    assert (is_seen, found) == ([[False] + [True] * 6], 6)
    plain, *_ = merged(counts, scl)
    assert plain == [[NODATA, 1, 900, 1000, 1250, 32767, 32767]]
    landsat, *_ = merged(
        np.array([[0, 7273, 10000, 43636]], np.uint16), scl[:, :4], gain=0.275, bias=-2000.0
    )
    assert landsat == [[NODATA, 0, 750, 10000]]
    hls, *_ = merged(np.array([[-9999, -20, 0, 500]], np.int16), scl[:, :4], nodata=-9999)
    assert hls == [[NODATA, -20, 0, 500]]


def test_nodata_and_defective_classes_have_no_pixels_and_the_first_granule_wins():
    counts = np.array([[5, 5, 5, 5]], np.uint16)
    first, is_seen, _ = merged(counts, [[0, 1, 2, 11]])
    assert first == [[NODATA, NODATA, 5, 5]]
    second, is_seen, found = merged(counts, [[4, 4, 4, 4]], seen=[[False, True, False, True]])
    assert (second, found) == ([[5, 77, 5, 77]], 2)
    assert is_seen == [[True] * 4]


# --- made scenes, a few pixels each -------------------------------------------------------------

SMALL = GeoBox((6, 8), Affine(10, 0, 600000, 0, -10, 5000000), "EPSG:32633")


def write_raster(path, pixels, grid=SMALL, **options):
    profile = {
        "driver": "GTiff",
        "count": 1,
        "dtype": pixels.dtype.name,
        "nodata": 0,
        "crs": str(grid.crs),
        "transform": grid.transform,
        "height": pixels.shape[0],
        "width": pixels.shape[1],
    }
    with rasterio.open(path, "w", **(profile | options)) as file:
        file.write(pixels, 1)
    return str(path)


@pytest.fixture
def made(tmp_path):
    """Make a scene of arrays, and a source of scenes."""

    def scene(name, counts, scl, *, offset=0, grid=SMALL, **changes):
        scl_path = write_raster(tmp_path / f"{name}_SCL.tif", np.asarray(scl, np.uint8), grid)
        blue_path = write_raster(tmp_path / f"{name}_B02.tif", np.asarray(counts, np.uint16), grid)
        outline = window_outline(grid)
        fields = {
            "id": name,
            "collection": "sentinel-2-l2a",
            "time": "2023-08-10T09:58:11+00:00",
            "overpass": "S2B_20230810T094549",
            "tile": "33TWL",
            "baseline": "05.09",
            "version": ["", ""],
            "epsg": grid.crs.to_epsg(),
            "footprint": geojson(outline),
            "cloud_cover": None,
            "updated": "",
            "offset": offset,
            "offset_reason": "made",
            "sensor": "sentinel-2-l2a",
            "metadata_href": "",
            "is_locked": False,
            "cost": {},
            "lost": "",
            "assets": {
                "B02": {"href": blue_path, "transform": None, "shape": None, "stamp": None},
                "SCL": {"href": scl_path, "transform": None, "shape": None, "stamp": None},
            },
        }
        return Scene.from_json(fields | changes)

    def source(*scenes, **settings):
        path = tmp_path / "scenes.json"
        locked = lock_scenes(SceneList(scenes=scenes), bands=("B02",), offset="metadata")
        write_scenes(path, locked)
        return StacSource(scenes=path, **settings)

    scene.source = source
    return scene


def layer(value, **patches):
    out = np.full(SMALL.shape, value, int)
    for patch in patches.values():
        rows, columns, inside = patch
        out[rows, columns] = inside
    return out


ALL = slice(None)


def test_offset_is_taken_off_and_negative_reflectance_survives(made):
    scene = made("a", layer(1200, dark=(0, ALL, 950), gap=(1, ALL, 0)), layer(4), offset=-1000)
    looks = made.source(scene).looks(AUGUST, SMALL, ("B02",))
    assert looks.reflectance[0, 0, :3, 0].tolist() == [-50, NODATA, 200]
    assert looks.is_clear[0, :3, 0].tolist() == [True, False, True]


def test_granules_of_one_overpass_are_one_look(made):
    left = made("left", layer(500, none=(ALL, slice(4, None), 0)), layer(4))
    right = made(
        "right", layer(1700, none=(ALL, slice(0, 2), 0)), layer(5), offset=-1000, baseline="05.00"
    )
    later = made("later", layer(600), layer(4), overpass="S2A_20230812T095031")
    looks = made.source(later, right, left).looks(AUGUST, SMALL, ("B02",))
    assert looks.ids == ("left+right", "later")
    assert looks.reflectance[0, 0, 0].tolist() == [500] * 4 + [700] * 4  # the newer where both see
    assert looks.is_clear.all()


def test_scenes_of_the_cubes_own_zone_come_first(made):
    other = GeoBox.from_bbox(
        SMALL.extent.to_crs("EPSG:32632").buffer(200).boundingbox, "EPSG:32632", resolution=10
    )
    neighbour = made(
        "neighbour",
        np.full(other.shape, 900),
        np.full(other.shape, 4),
        grid=other,
        baseline="05.11",
    )
    native = made("native", layer(800, none=(0, ALL, 0)), layer(4))
    looks = made.source(neighbour, native).looks(AUGUST, SMALL, ("B02",))
    assert looks.ids == ("native+neighbour",)
    assert looks.reflectance[0, 0, :, 3].tolist() == [900, 800, 800, 800, 800, 800]


def test_an_overpass_belongs_to_the_month_it_began_in(made):
    scene = made(
        "midnight",
        layer(500),
        layer(4),
        overpass="S2B_20230731T235949",
        time="2023-08-01T00:04:00+00:00",
    )
    source = made.source(scene)
    assert source.looks(Period.of_month(2023, 7), SMALL, ("B02",)).ids == ("midnight",)
    assert source.looks(AUGUST, SMALL, ("B02",)).ids == ()
    acquisition = Period.of_acquisition(scene.overpass_start)
    assert str(acquisition) == "2023-07-31T23:59:49"
    looks = source.looks(acquisition, SMALL, ("B02",))
    assert looks.ids == ("midnight",)
    assert looks.days.tolist() == [(date(2023, 7, 31) - date(1970, 1, 1)).days]


def test_what_was_seen_is_the_same_for_any_tiling(made):
    classes = layer(9, clear=(ALL, slice(0, 4), 4), lost=(3, ALL, 0), odd=(4, ALL, 1))
    counts = layer(500, gap=(1, ALL, 0))
    source = made.source(made("a", counts, classes))
    whole = source.looks(AUGUST, SMALL, ("B02",))
    np.testing.assert_array_equal(whole.seen_count, classes > 1)
    for columns in (slice(0, 4), slice(4, 8), slice(3, 6)):
        part = source.looks(AUGUST, SMALL[0:6, columns], ("B02",))
        np.testing.assert_array_equal(part.seen_count, whole.seen_count[:, columns])


@pytest.mark.parametrize(("short", "is_used"), [(0.0, True), (0.02, True), (0.05, False)])
def test_pixels_beyond_a_simplified_footprint_are_the_same_for_any_tiling(made, short, is_used):
    wide = GeoBox((4, 100), Affine(100, 0, 600000, 0, -100, 5000000), "EPSG:32633")
    west, south, east, north = window_outline(wide).bounds
    end = east - short
    ring = [[west, south], [end, south], [end, north], [west, north], [west, south]]
    footprint = {"type": "Polygon", "coordinates": [ring]}
    scene = made("a", np.full(wide.shape, 500), np.full(wide.shape, 4), grid=wide)
    source = made.source(replace(scene, footprint=footprint))
    assert source.looks(AUGUST, wide, ("B02",)).is_clear.all()
    tile = source.looks(AUGUST, wide[0:4, 98:100], ("B02",))  # 200 m, of which 0.001 degrees are
    assert len(tile.ids) == is_used
    assert bool((tile.seen_count == 1).all()) == is_used
    assert source.count(AUGUST, wide[0:4, 98:100]) == is_used


def test_scenes_are_found_by_the_start_of_their_pass_and_across_the_antimeridian(made):
    window = GeoBox((5, 5), Affine(1000, 0, 300000, 0, -1000, 1000000), "EPSG:32601")
    west, south, east, north = window_outline(window).bounds
    assert west < -178
    moved = [shapely.box(west + turn, south, east + turn, north) for turn in (0.0, 360.0, 90.0)]
    footprints = np.empty(3, object)
    footprints[:] = moved
    assert meets_window(footprints, window).tolist() == [True, True, False]
    assert meets_window(footprints[:0], window).shape == (0,)


def test_cloudy_overpass_is_left_out_unread(made):
    cloudy = made("cloudy", layer(500), layer(9, hole=(0, 0, 3)))
    source = made.source(cloudy)
    Path(cloudy.assets["B02"].href).write_bytes(b"broken after the lock")
    assert source.looks(AUGUST, SMALL, ("B02",)).ids == ()


def test_unknown_classes_are_not_clear(made):
    looks = made.source(made("a", layer(500), layer(4, odd=(0, 0, 12), old=(0, 1, 1)))).looks(
        AUGUST, SMALL, ("B02",)
    )
    assert looks.is_clear[0, 0].tolist() == [False, False] + [True] * 6


def test_buffer_reaches_over_the_edge_of_a_tile(made):
    scene = made("a", layer(500), layer(4, cloud=(2, 3, 9)))
    source = made.source(scene, mask=ClearMask(buffer=25.0))
    whole = source.looks(AUGUST, SMALL, ("B02",))
    assert whole.is_clear[0, 2].tolist() == [True, False, False, False, False, False, True, True]
    for columns in (slice(0, 3), slice(3, 4), slice(4, 8)):
        part = source.looks(AUGUST, SMALL[0:6, columns.start : columns.stop], ("B02",))
        expected = whole.is_clear[:, :, columns]
        found = part.is_clear if part.ids else np.zeros_like(expected)
        np.testing.assert_array_equal(found, expected)
    degrees = GeoBox.from_bbox(tuple(window_outline(SMALL).bounds), "EPSG:4326", resolution=1e-4)
    with pytest.raises(InputError, match="a mask with distances needs a grid in metres"):
        source.looks(AUGUST, degrees, ("B02",))


def test_files_of_two_resolutions(made, tmp_path):
    coarse = SMALL.zoom_out(2)
    scene = made("a", layer(500), layer(4))
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4) % 2 * 5 + 4  # vegetation and cloud
    href = write_raster(tmp_path / "coarse.tif", pixels, coarse)
    scene = replace(scene, assets={**scene.assets, "SCL": Asset(href=href)})
    looks = made.source(scene).looks(AUGUST, SMALL, ("B02",))
    np.testing.assert_array_equal(looks.is_clear[0], np.kron(pixels, np.ones((2, 2))) == 4)


@pytest.mark.parametrize("reader", ["odc", "stackstac"])
def test_unreadable_files_are_named(made, reader, sent):
    size = GeoBox((600, 600), SMALL.transform, SMALL.crs)
    noise = np.random.default_rng(1).integers(1, 9000, size.shape)
    scene = made("broken", noise, np.full(size.shape, 4), grid=size)
    source = made.source(scene, reader=reader)
    href = Path(scene.assets["B02"].href)
    whole = href.read_bytes()
    href.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        SceneReadError, match=r"scene 'broken', asset B02: .*broken_B02.tif cannot"
    ) as caught:
        source.looks(AUGUST, size, ("B02",))
    for arrived in (sent(caught.value), pickle.loads(pickle.dumps(caught.value))):
        assert type(arrived) is SceneReadError
        assert str(arrived) == str(caught.value)
    href.unlink()
    with pytest.raises(SceneReadError, match="asset B02"):
        source.looks(AUGUST, size, ("B02",))


@pytest.mark.parametrize("reader", ["direct", "odc", "stackstac"])
def test_formats_that_lead_to_other_files_are_not_read(made, tmp_path, reader):
    scene = made("a", layer(500), layer(4))
    source = made.source(scene, reader=reader)
    assert source.looks(AUGUST, SMALL, ("B02",)).ids == ("a",)
    other = write_raster(tmp_path / "private.tif", layer(7).astype(np.uint16))
    with rasterio.open(other) as file:
        transform = ", ".join(str(number) for number in file.transform.to_gdal())
    Path(scene.assets["B02"].href).write_text(  # after the lock, and after it was read once
        f'<VRTDataset rasterXSize="8" rasterYSize="6"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>{transform}</GeoTransform>"
        '<VRTRasterBand dataType="UInt16" band="1"><NoDataValue>0</NoDataValue><SimpleSource>'
        f"<SourceFilename>{other}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with rasterio.open(scene.assets["B02"].href) as file:  # anyone else would
        assert (file.read(1) == 7).all()
    HEADERS.forget()
    with pytest.raises(SceneReadError, match=r"asset B02: .*not recognized"):
        source.looks(AUGUST, SMALL, ("B02",))


@pytest.mark.parametrize(
    ("href", "text", "loads"),
    [
        ("https://store.example/B02.tif", "HTTP response code: 404", 1),
        ("https://store.example/B02.tif", "not recognized as being in a supported format", 1),
        ("https://store.example/B02.tif", "HTTP response code: 503", 2),
        ("/data/B02.tif", "TIFFReadEncodedTile() failed", 1),
    ],
)
def test_what_is_permanent_is_not_asked_for_again(made, monkeypatch, href, text, loads):
    scene = made("a", layer(500), layer(4))
    scene = replace(scene, assets={**scene.assets, "B02": Asset(href=href)})
    asked = []

    def load(*_):
        asked.append(1)
        raise rasterio.errors.RasterioIOError(text)

    monkeypatch.setattr(read_odc, "_load", load)
    monkeypatch.setattr(read_odc, "check_format", lambda *_: None)
    with pytest.raises((SceneReadError, SceneUnreachableError), match=re.escape(text)):
        read_odc.read_native(scene, "B02", SMALL, {})
    assert len(asked) == loads


def test_a_format_is_checked_once_until_the_file_changes(tmp_path, monkeypatch):
    href = write_raster(tmp_path / "a.tif", layer(5).astype(np.uint16))
    opened = []

    def counted(path):
        opened.append(path)
        return rasterio.open(path)

    monkeypatch.setattr("cube.stac.files.opened", counted)
    check_format(href)
    check_format(href)
    assert len(opened) == 1
    write_raster(tmp_path / "a.tif", layer(6)[:3].astype(np.uint16))
    check_format(href)
    assert len(opened) == 2


def test_source_is_small_to_pickle_and_refuses_bad_settings(tmp_path):
    source = StacSource(scenes=tmp_path / "scenes.json")
    assert len(pickle.dumps(source)) < 700
    assert pickle.loads(pickle.dumps(source)) == source
    with pytest.raises(Exception, match="'gdal'"):  # the run-time type check speaks first here
        replace(source, reader="gdal")
    with pytest.raises(Exception, match="'cubic'"):
        replace(source, resampling="cubic")
    with pytest.raises(InputError, match="does not exist"):
        source.looks(AUGUST, SMALL, ("B02",))


def test_bands_the_lock_does_not_have(made):
    source = made.source(made("a", layer(500), layer(4)))
    with pytest.raises(
        InputError, match=r"scene 'a' in .* has no B8A; run `canopycube lock RECIPE`"
    ):
        source.looks(AUGUST, SMALL, ("B02", "B8A"))


def test_scenes_that_were_never_checked(made, tmp_path):
    path = tmp_path / "unlocked.json"
    write_scenes(path, SceneList(scenes=(made("a", layer(500), layer(4)),)))
    with pytest.raises(
        InputError, match=r"'a' in .* was not checked; run `canopycube lock RECIPE`"
    ):
        StacSource(scenes=path).looks(AUGUST, SMALL, ("B02",))


def test_a_lock_that_is_replaced_under_a_run(made, tmp_path):
    source = made.source(made("a", layer(500), layer(4)))
    kept = read_scenes(source.scenes)
    planned = replace(source, fingerprint=kept.fingerprint)
    assert planned.looks(AUGUST, SMALL, ("B02",)).ids == ("a",)
    write_scenes(source.scenes, kept, question="another")  # the same scenes
    assert planned.looks(AUGUST, SMALL, ("B02",)).ids == ("a",)
    write_scenes(source.scenes, SceneList(scenes=(replace(kept.scenes[0], offset=-1000),)))
    expected = r"scene lock .*scenes.json' was replaced while this run read it; run again"
    with pytest.raises(InputError, match=expected):
        planned.looks(AUGUST, SMALL, ("B02",))
    assert source.looks(AUGUST, SMALL, ("B02",)).reflectance[0, 0, 0, 0] == -500


def test_footprints_meet_as_unwrapped(made):
    scene = made("a", layer(500), layer(4))
    assert unwrapped(json.loads(json.dumps(scene.footprint))).equals(window_outline(SMALL))
