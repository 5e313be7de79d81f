"""Cubes on disk, as xarray, rioxarray, odc-geo and rasterio (GDAL) see them."""

import hashlib
import os
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import ODCExtension  # noqa: F401  registers .odc

from cube import open_cube
from cube.bands import NODATA
from cube.errors import InputError, WorkFailedError
from cube.periods import Period
from cube.spec import CubeSpec, Region
from cube.store import (
    LOOKS_LOST,
    NO_LOOK,
    CubeBlocks,
    clear_share,
    create_cube,
    decode,
    open_stored_cube,
    read_attributes,
    read_spec,
    write_region,
)

GRID = GeoBox((50, 70), Affine(10, 0, 500000, 0, -10, 5300000), "EPSG:32633")
LAYOUTS = {
    "sharded": {"sharded": True, "zarr_format": 3},
    "chunked": {"sharded": False, "zarr_format": 3},
    "format 2": {"sharded": False, "zarr_format": 2},
}


def spec(**changes):
    given = {
        "geobox": GRID,
        "periods": tuple(map(Period.parse, ("2022-02", "2022-03", "2022-05"))),
        "bands": ("B02", "B04", "AOT"),
        "tile": 32,
        "chunk": 16,
    }
    return CubeSpec(**(given | changes))


def pixels(made, seed=0):
    """Every pixel of a cube, a tenth of them nodata."""
    rng = np.random.default_rng(seed)
    times, _, height, width = made.shape
    reflectance = rng.integers(-2000, 12000, made.shape).astype(np.int16)
    clear_count = rng.integers(0, 10, (times, height, width)).astype(np.uint16)
    reflectance[np.broadcast_to((clear_count == 0)[:, None], made.shape)] = NODATA
    return reflectance, clear_count


def beside(clear_count):
    """(clear share, mean day) that go with a count of clear looks among ten."""
    share = np.where(clear_count > 0, clear_count * 10, 255).astype(np.uint8)
    return share, np.where(clear_count > 0, 30 + clear_count, 0).astype(np.uint16)


def write(path, made, regions, data):
    for region in regions:
        rows, columns = region.rows, region.columns
        reflectance, clear_count = data[0][:, :, rows, columns], data[1][:, rows, columns]
        share, day = beside(clear_count)
        blocks = CubeBlocks(
            reflectance=reflectance,
            clear_count=clear_count,
            clear_share=share,
            mean_day=day,
            is_filled=(clear_count == 1).astype(np.uint8),
        )
        write_region(path, region, blocks)


def file_hashes(path):
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(params=LAYOUTS)
def cube(request, tmp_path):
    """(path, spec, what was written), with one tile missing."""
    made = spec(**LAYOUTS[request.param])
    path = tmp_path / "cube.zarr"
    create_cube(path, made)
    data = pixels(made)
    write(path, made, made.regions()[:-1], data)
    hole = made.regions()[-1]
    data[0][:, :, hole.rows, hole.columns] = NODATA
    data[1][:, hole.rows, hole.columns] = 0
    return path, made, data


# --- what other tools see ------------------------------------------------------------------------


def test_xarray_decodes_it_without_a_warning(cube):
    path, made, (reflectance, clear_count) = cube
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = xr.open_zarr(path, chunks=None, decode_coords="all").load()
    expected = np.where(reflectance == NODATA, np.nan, reflectance * 1e-4)
    np.testing.assert_allclose(found["reflectance"].values, expected, rtol=1e-6)
    np.testing.assert_array_equal(found["clear_count"].values, clear_count)
    assert found["clear_count"].dtype.kind == "u", "0 clear looks is a number, not nodata"
    assert found["reflectance"].dims == ("time", "band", "y", "x")
    assert list(found["band"].values) == list(made.bands)
    np.testing.assert_array_equal(
        found["time"].values, np.array([period.start for period in made.periods])
    )
    np.testing.assert_allclose(found["x"].values, 500005 + 10 * np.arange(70))
    np.testing.assert_allclose(found["y"].values, 5299995 - 10 * np.arange(50))


def test_rioxarray_and_odc_place_it(cube):
    path, _, _ = cube
    for found in (open_cube(path), xr.open_zarr(path, chunks=None, decode_coords="all")):
        assert found.odc.geobox == GRID
        for name in ("reflectance", "clear_count"):
            assert found[name].odc.geobox == GRID
            assert found[name].rio.crs.to_epsg() == 32633
            assert found[name].rio.transform() == GRID.transform
            assert found[name].rio.bounds() == (500000, 5299500, 500700, 5300000)


def test_rasterio_reads_format_2(tmp_path):
    made = spec(**LAYOUTS["format 2"])
    path = tmp_path / "cube.zarr"
    create_cube(path, made)
    reflectance, clear_count = pixels(made)
    write(path, made, made.regions(), (reflectance, clear_count))
    with rasterio.open(f'ZARR:"{path}":/reflectance') as file:
        assert file.crs.to_epsg() == 32633
        assert file.transform == GRID.transform
        assert set(file.nodatavals) == {NODATA}
        assert file.count == 9
        np.testing.assert_array_equal(file.read().reshape(reflectance.shape), reflectance)
    with rasterio.open(f'ZARR:"{path}":/clear_count') as file:
        np.testing.assert_array_equal(file.read(), clear_count)
        assert file.transform == GRID.transform


@pytest.mark.parametrize("crs", ["EPSG:3035", "+proj=laea +lat_0=33 +lon_0=107 +datum=WGS84"])
def test_any_projected_crs_survives(tmp_path, crs):
    grid = GeoBox((5, 7), Affine(12.5, 0, 0.123, 0, -12.5, 7.5), crs)
    create_cube(tmp_path / "cube.zarr", spec(geobox=grid))
    found = open_cube(tmp_path / "cube.zarr")
    assert found.odc.geobox.crs == grid.crs
    np.testing.assert_allclose(found.odc.geobox.transform[:6], grid.transform[:6], atol=1e-9)
    assert read_spec(tmp_path / "cube.zarr").geobox == grid


# --- opening -------------------------------------------------------------------------------------


def test_open_cube_is_float32_and_nan(cube):
    path, made, (reflectance, clear_count) = cube
    found = open_cube(path)
    values = found["reflectance"].values
    assert values.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(values), reflectance == NODATA)
    has_data = reflectance != NODATA
    np.testing.assert_array_equal(
        values[has_data], reflectance[has_data].astype(np.float32) * np.float32(1e-4)
    )
    np.testing.assert_array_equal(found["clear_count"].values, clear_count)
    hole = made.regions()[-1]
    assert np.isnan(values[:, :, hole.rows, hole.columns]).all()
    assert (found["clear_count"].values[:, hole.rows, hole.columns] == 0).all()


def test_decoding_every_stored_value():
    stored = np.arange(-32768, 32768).astype(np.int16)
    found = decode(stored)
    assert np.isnan(found[0])
    exact = stored[1:].astype(np.float64) * 1e-4
    assert np.isfinite(found[1:]).all()
    # the classifier multiplies likewise, so training and map see the same bits
    np.testing.assert_array_equal(found[1:], stored[1:] * np.float32(1e-4))
    assert (np.abs(found[1:] - exact) <= np.spacing(np.abs(exact).astype(np.float32))).all()
    np.testing.assert_array_equal(np.rint(found[1:] * np.float32(1e4)), stored[1:])


def test_opening_reads_no_pixel_and_a_pixel_reads_one_object(cube, monkeypatch):
    path, made, (reflectance, _) = cube
    read = []
    original = zarr.storage.LocalStore.get

    async def get(self, key, *args, **kwargs):
        read.append(key)
        return await original(self, key, *args, **kwargs)

    monkeypatch.setattr(zarr.storage.LocalStore, "get", get)

    def pixel_objects():
        is_metadata = re.compile(r"(zarr\.json|\.zarray|\.zattrs|\.zgroup|\.zmetadata)$")
        return {
            key
            for key in read
            if key.startswith(("reflectance", "clear_count")) and not is_metadata.search(key)
        }

    found = open_cube(path)
    assert read
    assert pixel_objects() == set()
    assert {block for sizes in found["reflectance"].chunks[2:] for block in sizes[:1]} == {32}
    value = float(found["reflectance"].isel(time=1, band=2, y=5, x=6))
    assert value == pytest.approx(reflectance[1, 2, 5, 6] * 1e-4, rel=1e-6)
    if made.sharded:
        assert len(pixel_objects()) == 1, "one shard holds the tile"
    assert all(key.startswith("reflectance") for key in pixel_objects())


def test_flags_and_days_are_shown_as_stored(cube):
    path, _, (_, clear_count) = cube
    share, day = beside(clear_count)
    for found in (open_cube(path), open_stored_cube(path)):
        for name, expected in (("clear_share", share), ("mean_day", day)):
            layer = found[name]
            assert layer.dims == ("time", "y", "x")
            assert layer.dtype == expected.dtype
            np.testing.assert_array_equal(layer.values, expected)
        assert found["clear_share"].attrs["flag_values"] == [LOOKS_LOST, NO_LOOK]
        assert found["clear_share"].attrs["flag_meanings"] == "looks_lost no_look"
        assert list(found["period"].values) == ["2022-02", "2022-03", "2022-05"]
        assert found.sel(time="2022-03")["reflectance"]["period"].values.tolist() == ["2022-03"]


@pytest.mark.parametrize(
    "names",
    [
        ("2022-02-01/2022-02-15", "2022-02-16/2022-02-28", "2022-03"),
        ("2022-03-04T10:30:21", "2022-03-04T10:30:22.500", "2022-03-05T10:20:01"),
    ],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_time_axis_is_read_back_exactly(tmp_path, names, layout):
    made = spec(periods=tuple(map(Period.parse, names)), **LAYOUTS[layout])
    create_cube(tmp_path / "cube.zarr", made)
    assert read_spec(tmp_path / "cube.zarr") == made
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = xr.open_zarr(tmp_path / "cube.zarr", chunks=None).load()
        found = open_cube(tmp_path / "cube.zarr")
    for opened in (plain, found):
        starts = np.array([period.start for period in made.periods])
        np.testing.assert_array_equal(opened["time"].values.astype("M8[ns]"), starts)
        assert "period" in opened.coords
        assert list(opened["period"].values) == list(names)


def test_share_of_clear_looks_is_100_or_0_only_where_all_or_none_are():
    clear, seen = np.meshgrid(np.arange(301), np.arange(301))
    clear, seen = (part.astype(np.uint16) for part in (clear, seen))
    found = clear_share(np.minimum(clear, seen), seen)
    for count, looks in ((0, 0), (0, 3), (3, 3), (1, 3), (1, 300), (299, 300), (2, 3)):
        exact = 100 * count / looks if looks else 255
        expected = min(max(round(exact), 1), 99) if 0 < count < looks else exact
        assert found[looks, count] == expected


def test_selecting_by_month_band_and_place(cube):
    path, _, (reflectance, _) = cube
    found = open_cube(path)["reflectance"]
    march = found.sel(time="2022-03", band="B04")
    assert march.shape == (1, 50, 70)
    np.testing.assert_array_equal(march.values[0], decode(reflectance[1, 1]))
    assert found.sel(time="2022-04").sizes["time"] == 0, "a month that was not asked for"
    place = found.sel(x=500_123.0, y=5_299_876.0, method="nearest", tolerance=5)
    np.testing.assert_array_equal(place.values, decode(reflectance[:, :, 12, 12]))
    with pytest.raises(KeyError):
        found.sel(x=0.0, y=0.0, method="nearest", tolerance=5)


def test_chunks_in_memory(cube):
    path, _, (reflectance, _) = cube
    by_month = open_cube(path)["reflectance"]
    assert by_month.chunks == ((1, 1, 1), (3,), (32, 18), (32, 32, 6))
    stored = open_stored_cube(path)["reflectance"]
    assert stored.chunks == ((3,), (3,), (32, 18), (32, 32, 6))
    assert stored.dtype == np.int16
    np.testing.assert_array_equal(stored.values, reflectance)


# --- writing -------------------------------------------------------------------------------------


def test_regions_come_back_as_they_went(cube):
    path, made, (reflectance, clear_count) = cube
    for region in made.regions():
        place = {"y": region.rows, "x": region.columns}
        stored = open_stored_cube(path).isel(place)
        np.testing.assert_array_equal(
            stored["reflectance"], reflectance[:, :, region.rows, region.columns]
        )
        np.testing.assert_array_equal(
            stored["clear_count"], clear_count[:, region.rows, region.columns]
        )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_written_tiles_are_flushed(tmp_path, monkeypatch, layout):
    made = spec(**LAYOUTS[layout])
    path = tmp_path / "cube.zarr"
    create_cube(path, made)
    before = set(file_hashes(path))
    flushed = set()

    def fsync(handle):
        flushed.add(Path(f"/proc/self/fd/{handle}").readlink())

    monkeypatch.setattr(os, "fsync", fsync)
    region = made.regions()[3]
    write(path, made, [region], pixels(made))
    files = {path / name for name in set(file_hashes(path)) - before}
    assert files
    folders = {place for file in files for place in file.parents if place.is_relative_to(path)} - {
        path
    }
    assert flushed == files | folders
    # what becomes all nodata loses its objects; their folders remember it
    flushed.clear()
    reflectance, clear_count = pixels(made)
    write(path, made, [region], (np.full_like(reflectance, NODATA), np.zeros_like(clear_count)))
    gone = {file for file in files if not file.exists()}
    assert gone
    assert {file.parent for file in gone if file.parent.exists()} <= flushed


def test_twice_is_once_and_neighbours_stay(cube):
    path, made, data = cube
    before = file_hashes(path)
    write(path, made, made.regions()[:1], data)
    assert file_hashes(path) == before
    write(path, made, made.regions()[-1:], pixels(made, seed=1))  # 18 by 6 pixels at the corner
    after = file_hashes(path)
    assert set(before) < set(after)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_order_gives_the_same_bytes(tmp_path, layout):
    made = spec(**LAYOUTS[layout])
    data = pixels(made)
    hashes = []
    for name, order in (("a", 1), ("b", -1)):
        create_cube(tmp_path / name, made)
        write(tmp_path / name, made, made.regions()[::order], data)
        hashes.append(file_hashes(tmp_path / name))
    assert hashes[0] == hashes[1]


def test_a_tile_of_one_object(tmp_path):
    made = spec()
    path = tmp_path / "cube.zarr"
    create_cube(path, made)
    empty = set(file_hashes(path))
    write(path, made, made.regions()[:1], pixels(made))
    assert sorted(set(file_hashes(path)) - empty) == [
        "clear_count/c/0/0/0",
        "clear_share/c/0/0/0",
        "is_filled/c/0/0/0",
        "mean_day/c/0/0/0",
        "reflectance/c/0/0/0/0",
    ]


def test_a_region_that_cuts_objects_is_refused(cube):
    path, made, _ = cube
    before = file_hashes(path)
    step = 32 if made.sharded else 16
    for top, left, height, width in ((8, 0, step, step), (0, 0, step - 3, step), (0, 64, step, 8)):
        region = Region(row=0, column=0, top=top, left=left, height=height, width=width)
        with pytest.raises(ValueError, match="would cut the stored objects of"):
            write_region(path, region, CubeBlocks.empty(3, 3, height, width))
    assert file_hashes(path) == before


def test_blocks_are_not_stretched(cube):
    path, made, _ = cube
    region = made.regions()[0]
    before = file_hashes(path)
    with pytest.raises(ValueError, match=r"has shape \(1, 3, 32, 32\), the store expects \(3, 3"):
        write_region(path, region, CubeBlocks.empty(1, 3, 32, 32))
    assert file_hashes(path) == before


# --- creating ------------------------------------------------------------------------------------


def test_the_same_cube_again_is_kept(cube):
    path, made, _ = cube
    before = file_hashes(path)
    create_cube(path, made)
    assert file_hashes(path) == before
    assert read_spec(path) == made


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"periods": (Period.parse("2022-02"),)}, "with other periods"),
        ({"bands": ("B04", "B02", "AOT")}, "with other bands"),
        ({"tile": 16}, "with other tile"),
        ({"geobox": GRID.pad(1)}, "with other transform, shape"),
    ],
)
def test_another_cube_is_kept(tmp_path, changes, text):
    path = tmp_path / "cube.zarr"
    create_cube(path, spec())
    before = file_hashes(path)
    with pytest.raises(InputError, match=text) as error:
        create_cube(path, spec(**changes))
    assert "remove it or choose another output folder" in str(error.value)
    assert file_hashes(path) == before


def foreign(path, kind):
    if kind == "file":
        path.write_text("precious")
    elif kind == "empty file":
        path.touch()
    elif kind == "folder":
        path.mkdir()
        (path / "precious.txt").write_text("precious")
    elif kind == "array":
        zarr.create_array(path, shape=(3,), dtype="int16")
    elif kind == "store":
        zarr.create_group(path)
    elif kind == "broken store":
        path.mkdir()
        (path / "zarr.json").write_text("[]")
    elif kind == "html":
        path.mkdir()
        (path / "zarr.json").write_text("<!DOCTYPE html>")
    elif kind == "map":
        zarr.create_group(path, attributes={"canopycube": {"kind": "map", "schema": 2}})
    elif kind == "new layout":
        zarr.create_group(path, attributes={"canopycube": {"kind": "cube", "schema": 99}})
    elif kind == "no description":
        zarr.create_group(path, attributes={"canopycube": {"kind": "cube", "schema": 2}})
    elif kind == "link":
        path.symlink_to(path.with_name("nothing"))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("file", "exists and is no Zarr store"),
        ("empty file", "exists and is no Zarr store"),
        ("folder", "exists and is no Zarr store"),
        ("array", "exists and is no Zarr store"),
        ("broken store", "exists and is no Zarr store"),
        ("html", "exists and is no Zarr store"),
        ("store", "exists and is a foreign Zarr store; expected a canopycube cube"),
        ("map", "exists and is map; expected a canopycube cube"),
        ("new layout", "has layout version 99; this version reads 2"),
        ("no description", "is damaged: its description is missing"),
        ("link", "there is no cube at"),
    ],
)
@pytest.mark.parametrize("name", ["cube.zarr", "with\nline break"])
def test_something_else_is_left_alone(tmp_path, kind, text, name):
    path = tmp_path / name
    foreign(path, kind)
    before = file_hashes(tmp_path)
    for attempt in (lambda: create_cube(path, spec()), lambda: open_cube(path)):
        with pytest.raises(InputError, match=text) as error:
            attempt()
        assert repr(str(path)) in str(error.value)
        assert "\n" not in str(error.value)
    assert file_hashes(tmp_path) == before


@pytest.mark.parametrize("name", ["none.zarr", "x" * 5000, "a\nb"])
def test_nothing_there(tmp_path, name):
    with pytest.raises(InputError, match=r"there is no samples at .*; make it first"):
        read_attributes(tmp_path / name, kind="samples")


def test_a_parent_that_cannot_hold_it(tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(InputError, match=r"cube\.zarr' cannot be made: "):
        create_cube(tmp_path / "file" / "cube.zarr", spec())
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_on_the_way_leaves_nothing(tmp_path, monkeypatch, failure):
    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(zarr, "consolidate_metadata", fail)
    expected = WorkFailedError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        create_cube(tmp_path / "cube.zarr", spec())
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_run_do_not_get_in(tmp_path):
    create_cube(tmp_path / "a.zarr", spec())
    for draft in ("b.zarr.draft", ".b.zarr.draft"):
        shutil.copytree(tmp_path / "a.zarr", tmp_path / draft)
    create_cube(tmp_path / "b.zarr", spec())
    assert file_hashes(tmp_path / "b.zarr") == file_hashes(tmp_path / "a.zarr")


def test_a_raster_smaller_than_a_chunk(tmp_path):
    for name, layout in LAYOUTS.items():
        made = spec(geobox=GRID[:5, :7], **layout)
        path = tmp_path / name
        create_cube(path, made)
        data = pixels(made)
        write(path, made, made.regions(), data)
        np.testing.assert_array_equal(open_stored_cube(path)["reflectance"].values, data[0])
