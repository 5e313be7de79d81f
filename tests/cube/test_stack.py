"""Stacks of the user's own: real and made NetCDF, Zarr and GeoTIFF, against xarray and rasterio."""

import datetime as dt
import os
import pickle
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from cube.bands import NODATA
from cube.errors import InputError
from cube.mask import ClearMask
from cube.periods import Period, looks_by_period, periods_between
from cube.source import SceneCatalogue
from cube.stack import StackSource, file_stamp
from cube.tifffolder import template_regex

SITE = "00002806639B424A_32631_2017-08-01_2018-11-30.nc"
MAY, JUNE = Period.of_month(2018, 5), Period.of_month(2018, 6)
GRID = GeoBox((12, 9), Affine(10, 0, 600000, 0, -10, 5000000), "EPSG:32633")


# --- real scenes ---------------------------------------------------------------------------------


@pytest.fixture
def flanders(shared_data):
    folder = shared_data / "worldcereal-site1"
    files = tuple(str(folder / f"S2_L2A_{size}m_{SITE}") for size in (10, 20))
    return files, StackSource(files=files, bands={}, mask="SCL", time="timestamp")


@pytest.fixture
def romania(shared_data):
    folder = shared_data / "nrt-romania"
    files = tuple(str(folder / f"sentinel2_cube_subset_romania_{size}m.nc") for size in (10, 20))
    names = {"B02": "B2", "B03": "B3", "B04": "B4", "B08": "B8"}
    return files, StackSource(files=files, bands=names, mask="SCL")


def plain(path, name, month, time="time"):
    """Counts of a month by xarray alone."""
    with xr.open_dataset(path, mask_and_scale=False) as dataset:
        return dataset[name].sel({time: str(month)}).values


def units(counts):
    return np.where(counts == 0, NODATA, counts.astype(int))


def warped(counts, grid, window, resampling, nodata=0):
    """Counts of one date on the grid of `window`, by GDAL."""
    profile = {"driver": "GTiff", "count": 1, "dtype": counts.dtype, "nodata": nodata}
    height, width = grid.shape
    with MemoryFile() as memory:
        with memory.open(
            **profile, height=height, width=width, crs=str(grid.crs), transform=grid.transform
        ) as file:
            file.write(counts, 1)
        with (
            memory.open() as file,
            WarpedVRT(
                file,
                crs=str(window.crs),
                transform=window.transform,
                height=window.shape[0],
                width=window.shape[1],
                resampling=resampling,
                tolerance=0.001,
                XSCALE=1,  # else GDAL takes a turned window for a coarser one, and smooths
                YSCALE=1,
            ) as view,
        ):
            return view.read(1)


def test_native_bands_are_copied(flanders):
    files, source = flanders
    assert isinstance(source, SceneCatalogue)
    grid = source.native_geobox(("B11", "B04"))
    assert grid == GeoBox((64, 64), Affine(10, 0, 501360, 0, -10, 5629680), "EPSG:32631")
    looks = source.looks(MAY, grid, ("B08", "B02"))
    for index, name in enumerate(("B08", "B02")):
        expected = units(plain(files[0], name, MAY, "timestamp"))
        np.testing.assert_array_equal(looks.reflectance[:, index], expected)
    scl = plain(files[1], "SCL", MAY, "timestamp").repeat(2, axis=1).repeat(2, axis=2)
    is_clear = np.isin(scl, (4, 5, 6, 7)) & (looks.reflectance != NODATA).all(axis=1)
    np.testing.assert_array_equal(looks.is_clear, is_clear)
    assert is_clear.any()
    assert not is_clear.all()
    with xr.open_dataset(files[0]) as dataset:
        times = dataset["timestamp"].sel(timestamp=str(MAY)).values
    assert looks.ids == tuple(str(time)[:19] for time in times)
    assert looks.days.tolist() == [
        (time - np.datetime64("1970")).astype("m8[D]").astype(int) for time in times
    ]
    has_data = (looks.reflectance != NODATA).all(axis=1)
    np.testing.assert_array_equal(looks.seen_count, has_data.sum(axis=0))
    alone = source.looks(Period.of_acquisition(times[1]), grid, ("B08", "B02"))
    assert alone.ids == looks.ids[1:2]
    np.testing.assert_array_equal(alone.reflectance[0], looks.reflectance[1])
    np.testing.assert_array_equal(alone.seen_count, has_data[1])


def test_coarser_bands_are_gdals(flanders):
    files, source = flanders
    grid = source.native_geobox(("B02",))
    coarse = source.native_geobox(("B11",))
    assert coarse == GeoBox((32, 32), Affine(20, 0, 501360, 0, -20, 5629680), "EPSG:32631")
    counts = plain(files[1], "B11", MAY, "timestamp")
    nearest = StackSource(files=files, bands={}, time="timestamp", resampling="nearest")
    found = nearest.looks(MAY, grid, ("B11",)).reflectance[:, 0]
    smooth = source.looks(MAY, grid, ("B11",)).reflectance[:, 0]
    for look, count in enumerate(counts):
        np.testing.assert_array_equal(
            found[look], units(warped(count, coarse, grid, Resampling.nearest))
        )
        has_data = units(count.repeat(2, axis=0).repeat(2, axis=1)) != NODATA
        by_gdal = warped(count, coarse, grid, Resampling.bilinear)
        assert has_data.any()
        assert np.abs(smooth[look] - by_gdal.astype(int))[has_data].max() <= 1  # its rounding
        assert (smooth[look][~has_data] == NODATA).all()


def test_another_projection_is_gdals(romania):
    files, source = romania
    native = source.native_geobox(("B04",))
    assert native.crs.epsg == 3035
    center = native.extent.to_crs("EPSG:32635").boundingbox
    left, top = center.left + 95, center.top - 95
    window = GeoBox((70, 70), Affine(10, 0, left, 0, -10, top), "EPSG:32635")
    month = Period.of_month(2018, 8)
    counts = plain(files[0], "B4", month)
    smooth = source.looks(month, window, ("B04",)).reflectance[:, 0]
    assert len(counts) == len(smooth) > 0
    for look, count in enumerate(counts):
        by_gdal = warped(count, native, window, Resampling.bilinear).astype(int)
        both = (smooth[look] != NODATA) & (by_gdal > 0)
        assert both.mean() > 0.9
        slope = np.abs(np.diff(count.astype(int), axis=0)).max()
        assert np.abs(smooth[look] - by_gdal)[both].max() <= 1 + slope / 100


def test_empty_months_have_no_look(romania):
    files, source = romania
    bands = ("B02", "B8A", "B11")
    grid = source.native_geobox(bands)
    empty = [
        Period.of_month(2015, 9),
        Period.of_month(2016, 2),
        Period.of_month(2018, 12),
        Period.of_month(2019, 5),
        Period.of_month(2020, 1),
    ]
    for month in empty:
        looks = source.looks(month, grid, bands)
        assert looks.reflectance.shape == (0, 3, 100, 100)
        assert looks.is_clear.shape == (0, 100, 100)
        assert looks.ids == ()
        assert looks.days.shape == (0,)
        assert not looks.seen_count.any()
    every = periods_between(Period.of_month(2015, 1), Period.of_month(2021, 12))
    known = list(looks_by_period(every, source.dates(bands)))
    assert not set(empty) & set(known)
    assert (known[0], known[-1]) == (Period.of_month(2015, 8), Period.of_month(2021, 1))
    with xr.open_dataset(files[0]) as dataset:
        assert len(known) == len(set(dataset["time"].values.astype("datetime64[M]")))


def test_windows_beyond_the_edge(flanders):
    _, source = flanders
    grid = source.native_geobox(("B02",))
    whole = source.looks(MAY, grid, ("B02", "B11"))
    wide = source.looks(MAY, grid.pad(7), ("B02", "B11"))
    np.testing.assert_array_equal(wide.reflectance[..., 7:-7, 7:-7], whole.reflectance)
    np.testing.assert_array_equal(wide.is_clear[:, 7:-7, 7:-7], whole.is_clear)
    outer = np.ones(grid.pad(7).shape, bool)
    outer[7:-7, 7:-7] = False
    assert (wide.reflectance[..., outer] == NODATA).all()
    assert not wide.is_clear[:, outer].any()
    far = source.looks(MAY, grid.translate_pix(1000, -3000), ("B02", "B11"))
    assert (far.reflectance == NODATA).all()
    assert len(far.ids) == len(whole.ids)
    assert not far.is_clear.any()


@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
@pytest.mark.parametrize("place", ["native", "shifted", "UTM", "coarse"])
def test_any_tiling_gives_the_same_pixels(romania, place, resampling):
    files, source = romania
    bands = ("B04", "B11")
    source = StackSource(files=files, bands=source.bands, mask="SCL", resampling=resampling,
                         clear=ClearMask(buffer=35.0))  # fmt: skip
    native = source.native_geobox(bands)
    box = native.extent.to_crs("EPSG:32635").boundingbox
    window = {
        "native": native,
        "shifted": GeoBox((103, 98), native.transform * Affine.translation(-2.3, -1.6), native.crs),
        "UTM": GeoBox((110, 120), Affine(10, 0, box.left + 3, 0, -10, box.top), "EPSG:32635"),
        "coarse": GeoBox((24, 22), native.transform * Affine.scale(4.6), native.crs),
    }[place]
    month = Period.of_month(2018, 8)
    whole = source.looks(month, window, bands)
    assert (whole.reflectance != NODATA).mean() > 0.5
    for tile in (17, 64):
        parts = np.zeros_like(whole.reflectance)
        clear = np.zeros_like(whole.is_clear)
        for y in range(0, window.shape[0], tile):
            for x in range(0, window.shape[1], tile):
                ends = min(y + tile, window.shape[0]), min(x + tile, window.shape[1])
                looks = source.looks(month, window[y : ends[0], x : ends[1]], bands)
                parts[..., y : ends[0], x : ends[1]] = looks.reflectance
                clear[:, y : ends[0], x : ends[1]] = looks.is_clear
        np.testing.assert_array_equal(parts, whole.reflectance)
        np.testing.assert_array_equal(clear, whole.is_clear)


def test_threads_and_copies_agree(flanders):
    _, source = flanders
    grid = source.native_geobox(("B02",))
    whole = source.looks(MAY, grid, ("B02", "B11"))
    assert len(pickle.dumps(source)) < 2000
    copies = [pickle.loads(pickle.dumps(source)) for _ in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for looks in pool.map(lambda copy: copy.looks(MAY, grid, ("B02", "B11")), copies):
            np.testing.assert_array_equal(looks.reflectance, whole.reflectance)
            np.testing.assert_array_equal(looks.is_clear, whole.is_clear)


# --- made arrays ---------------------------------------------------------------------------------

DATES = pd.DatetimeIndex(
    np.array(["2018-05-03", "2018-05-13", "2018-05-13T10:00", "2018-06-02"], "datetime64[ns]")
)


def dataset(grid=GRID, dates=DATES, names=("time", "y", "x"), seed=0, crs=True, **layers):
    """A dataset of random counts on `grid`, or of the given layers."""
    rng = np.random.default_rng(seed)
    height, width = grid.shape
    shape = (len(dates), height, width)
    layers = layers or {
        "B02": rng.integers(0, 5000, shape).astype(np.uint16),
        "B04": rng.integers(1, 5000, shape).astype(np.uint16),
        "SCL": rng.integers(0, 12, shape).astype(np.uint8),
    }
    transform = grid.transform
    made = xr.Dataset(
        {name: (names, values) for name, values in layers.items()},
        coords={
            names[0]: np.asarray(dates),
            names[1]: transform.f + transform.e * (np.arange(height) + 0.5),
            names[2]: transform.c + transform.a * (np.arange(width) + 0.5),
        },
    )
    if crs:
        made["spatial_ref"] = ((), 0, {"crs_wkt": grid.crs.to_wkt()})
    return made


def save(made, path):
    if path.suffix == ".zarr":
        made.to_zarr(path, zarr_format=3, consolidated=False)
    else:
        made.to_netcdf(path)
    return str(path)


def source_of(*files, **changes):
    return StackSource(**({"files": files, "bands": {}} | changes))


@pytest.mark.parametrize("kind", ["nc", "zarr"])
def test_names_and_order_of_dimensions(tmp_path, kind):
    made = dataset()
    odd = made.rename({"time": "t", "y": "northing", "x": "east"})[
        ["B02", "B04", "SCL", "spatial_ref"]
    ]
    odd = odd.transpose("east", "t", "northing").isel(northing=slice(None, None, -1))
    odd = odd.isel(t=[2, 0, 3, 1], east=slice(None, None, -1))
    path = save(odd, tmp_path / f"odd.{kind}")
    source = source_of(path, time="t", y="northing", x="east", mask="SCL")
    assert source.native_geobox(("B02",)) == GRID
    assert list(looks_by_period((MAY, JUNE), source.dates(("B02",)))) == [MAY, JUNE]
    window = GRID[1:9, 2:8]
    looks = source.looks(MAY, window, ("B04", "B02"))
    for index, name in enumerate(("B04", "B02")):
        expected = units(made[name].values[:3, 1:9, 2:8])
        np.testing.assert_array_equal(looks.reflectance[:, index], expected)
    assert looks.ids == ("2018-05-03T00:00:00", "2018-05-13T00:00:00", "2018-05-13T10:00:00")


def test_reflectance_as_floats(tmp_path):
    rng = np.random.default_rng(1)
    values = rng.uniform(-0.05, 1, (4, 12, 9)).astype(np.float32)
    values[:, 2, 3] = np.nan
    values[0, 0, 0] = 9.0
    path = save(dataset(B04=values), tmp_path / "a.nc")
    with pytest.raises(InputError, match="floating-point values and no scale_factor; set source"):
        source_of(path).looks(MAY, GRID, ("B04",))
    found = source_of(path, scale=1.0).looks(MAY, GRID, ("B04",))
    expected = np.clip(np.rint(values[:3].astype(float) * 10000), -32767, 32767)
    expected = np.where(np.isnan(values[:3]), NODATA, expected)
    np.testing.assert_array_equal(found.reflectance[:, 0], expected)
    np.testing.assert_array_equal(found.is_clear, expected != NODATA)
    assert found.reflectance.min() < 0


def test_the_files_own_scale_and_offset(tmp_path):
    counts = np.arange(-54, 54, dtype=np.int16).reshape(1, 12, 9) * 100
    made = dataset(dates=DATES[:1], B04=counts)
    made["B04"].attrs = {"scale_factor": 2e-4, "add_offset": -0.1, "_FillValue": np.int16(-5400)}
    path = save(made, tmp_path / "a.nc")
    decoded = xr.open_dataset(path)["B04"].values  # xarray's own idea of it
    expected = np.where(np.isnan(decoded), NODATA, np.rint(decoded * 10000))
    found = source_of(path).looks(MAY, GRID, ("B04",)).reflectance[:, 0]
    np.testing.assert_array_equal(found, expected)
    assert (found == NODATA).sum() == 1
    told = source_of(path, scale=1e-4, offset=0.0, nodata=100.0).looks(MAY, GRID, ("B04",))
    np.testing.assert_array_equal(told.reflectance[:, 0], np.where(counts == 100, NODATA, counts))


def test_offset_of_baseline_4(tmp_path):
    counts = np.array([0, 1, 900, 1000, 1250, 40000, 65535, 5, 6], np.uint16)
    values = np.broadcast_to(counts, (1, 12, 9))
    path = save(dataset(dates=DATES[:1], B04=values, AOT=values, WVP=values), tmp_path / "a.nc")
    found = source_of(path, offset=-0.1).looks(MAY, GRID, ("B04", "AOT", "WVP")).reflectance[0]
    assert found[0, 0].tolist() == [NODATA, -999, -100, 0, 250, 32767, 32767, -995, -994]
    assert found[1, 0, :5].tolist() == [NODATA, 10, 9000, 10000, 12500]  # as `cube.stac` has it
    assert found[2, 0, :5].tolist() == [NODATA, 1, 900, 1000, 1250]


@pytest.mark.parametrize(
    ("attributes", "crs", "expected"),
    [
        ({"crs": "+init=epsg:32631"}, None, 32631),
        ({"crs": "EPSG:3035"}, None, 3035),
        ({"crs": "EPSG:3035"}, "EPSG:32635", 32635),
        ({}, "EPSG:32635", 32635),
    ],
)
def test_where_the_crs_is_said(tmp_path, attributes, crs, expected):
    path = save(dataset(crs=False).assign_attrs(attributes), tmp_path / "a.nc")
    assert source_of(path, crs=crs).native_geobox(("B02",)).crs.epsg == expected


def test_cf_grid_mapping_without_wkt(tmp_path):
    import pyproj

    made = dataset(crs=False)
    attributes = pyproj.CRS.from_epsg(3035).to_cf()
    del attributes["crs_wkt"]
    made["laea"] = ((), 0, attributes)
    made["B02"].attrs["grid_mapping"] = "laea: x y"
    grid = source_of(save(made, tmp_path / "a.nc")).native_geobox(("B02",))
    assert grid.crs.proj.to_cf()["latitude_of_projection_origin"] == 52
    assert grid.crs.projected


def change(made, kind):
    if kind == "no crs":
        return made.drop_vars("spatial_ref")
    if kind == "bad crs":
        return made.assign(spatial_ref=((), 0, {"crs_wkt": "nonsense"}))
    if kind == "bad mapping":
        return made.assign(spatial_ref=((), 0, {"grid_mapping_name": "nonsense"}))
    if kind == "irregular":
        return made.assign_coords(y=made["y"].values + np.where(np.arange(12) == 5, 3, 0))
    if kind == "no coordinates":
        return made.drop_vars("x")
    if kind == "one row":
        return made.isel(y=[0])
    if kind == "same place":
        return made.assign_coords(x=np.zeros(9))
    if kind == "numbered":
        return made.assign_coords(time=np.arange(4))
    if kind == "no time":
        return made.isel(time=0)
    assert kind == "gap"
    return made.assign_coords(time=[DATES[0], pd.NaT, *DATES[2:]])


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("no crs", "does not say its CRS; set source.crs"),
        ("bad crs", "crs 'nonsense' is not known"),
        ("bad mapping", "grid mapping 'spatial_ref' is no CRS; set source.crs"),
        ("irregular", "is not on a regular grid along 'y'"),
        ("no coordinates", "has no coordinates along 'x'"),
        ("one row", "has no coordinates along 'y', at least two are needed"),
        ("same place", "is not on a regular grid along 'x'"),
        ("numbered", "holds no dates"),
        ("no time", "has no variable with dims"),
        ("gap", "holds no dates, or gaps"),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path, kind, text):
    path = save(change(dataset(), kind), tmp_path / "a.nc")
    with pytest.raises(InputError, match=re.escape(text)):
        source_of(path).looks(MAY, GRID, ("B02",))


def test_granules_of_one_date_are_one_look(tmp_path):
    first = np.zeros((12, 9), np.uint16)
    first[:, :5] = 100
    second = np.full((12, 9), 200, np.uint16)
    second[:3] = 0
    scl = np.full((2, 12, 9), 4, np.uint8)
    scl[0, 5] = 9  # cloud where the first granule has data: the second does not take its place
    made = dataset(dates=DATES[[0, 0]], B04=np.stack([first, second]), SCL=scl)
    looks = source_of(save(made, tmp_path / "a.nc"), mask="SCL").looks(MAY, GRID, ("B04",))
    expected = np.where(first > 0, first, second).astype(int)
    np.testing.assert_array_equal(looks.reflectance[0, 0], units(expected))
    is_clear = expected > 0
    is_clear[5, :5] = False
    np.testing.assert_array_equal(looks.is_clear[0], is_clear)
    assert looks.ids == ("2018-05-03T00:00:00",)


def test_two_files_with_one_band(tmp_path):
    fine, coarse = dataset(seed=1), dataset(grid=GRID.zoom_out(3), seed=2)
    paths = [save(fine, tmp_path / "a.nc"), save(coarse, tmp_path / "b.zarr")]
    for files, own in ((paths, fine), (paths[::-1], coarse)):
        source = source_of(*files, resampling="nearest")
        factor = 12 // own["B04"].shape[1]
        expected = units(own["B04"].values[:3].repeat(factor, axis=1).repeat(factor, axis=2))
        looks = source.looks(MAY, GRID, ("B04",))
        np.testing.assert_array_equal(looks.reflectance[:, 0], expected)
    assert source.native_geobox(("B04",)) == GRID.zoom_out(3)


def test_files_that_disagree_about_dates(tmp_path):
    a = save(dataset()[["B02", "spatial_ref"]], tmp_path / "a.nc")
    later = DATES[:1].append(DATES[2:])
    b = save(dataset(dates=later)[["B04", "SCL", "spatial_ref"]], tmp_path / "b.nc")
    twice = DATES[[0, 0, 1, 2, 3]]
    c = save(dataset(dates=twice)[["B04", "SCL", "spatial_ref"]], tmp_path / "c.nc")
    both = ("B02", "B04")
    with pytest.raises(InputError, match=r"different dates in 2018-05 \(e.g. 2018-05-13\)"):
        source_of(a, b).looks(MAY, GRID, both)
    with pytest.raises(InputError, match="B02 and B04 repeat dates differently in 2018-05"):
        source_of(a, c).looks(MAY, GRID, both)
    assert len(source_of(a, b).looks(JUNE, GRID, both).ids) == 1
    with pytest.raises(InputError, match="mask 'SCL' has no layer for 2018-05-13"):
        source_of(a, b, mask="SCL").looks(MAY, GRID, ("B02",))
    with pytest.raises(InputError, match="mask 'SCL' and the bands repeat dates differently"):
        source_of(a, c, mask="SCL").looks(MAY, GRID, ("B02",))


def test_a_mask_with_more_dates_than_the_bands(tmp_path):
    made = dataset()
    bands = save(made.isel(time=[0, 2, 3])[["B04", "spatial_ref"]], tmp_path / "a.nc")
    mask = save(made[["SCL", "spatial_ref"]], tmp_path / "b.nc")
    looks = source_of(bands, mask, mask="SCL").looks(MAY, GRID, ("B04",))
    expected = np.isin(made["SCL"].values[[0, 2]], (4, 5, 6, 7))
    np.testing.assert_array_equal(looks.is_clear, expected)


def test_mask_values_of_any_type(tmp_path):
    flags = np.tile(np.array([0, 4, 65540, np.nan, -65532, 5, 9, 255, 1e30]), (4, 12, 1))
    counts = np.full((4, 12, 9), 100, np.uint16)
    path = save(dataset(B04=counts, SCL=flags), tmp_path / "a.nc")
    found = source_of(path, mask="SCL", nodata=-9999.0).looks(MAY, GRID, ("B04",))
    assert found.is_clear[0, 0].tolist() == [False, True, False, False, False, True, *[False] * 3]


def test_coarse_pixels_are_the_mean_of_what_they_cover(tmp_path):
    counts = np.random.default_rng(3).integers(1, 3000, (1, 12, 9)).astype(np.uint16)
    counts[0, 4, 4] = 0  # the middle of the middle pixel: it has no data either
    counts[0, 0, 0] = 0  # a corner: the other eight count
    path = save(dataset(dates=DATES[:1], B04=counts), tmp_path / "a.nc")
    window = GRID.zoom_out(3)
    found = source_of(path, offset=-0.1).looks(MAY, window, ("B04",)).reflectance[0, 0]
    assert found.min() < 0 or found[1, 1] == NODATA
    for y in range(4):
        for x in range(3):
            block = counts[0, 3 * y : 3 * y + 3, 3 * x : 3 * x + 3].astype(float)
            mean = (block[block > 0] - 1000).mean()
            expected = NODATA if (y, x) == (1, 1) else np.floor(mean + 0.5)
            assert found[y, x] == expected


def test_unknown_layers_and_resampling(tmp_path):
    path = save(dataset(), tmp_path / "a.nc")
    with pytest.raises(InputError, match=r"layer 'B08' is in none of .*; found \['B02', 'B04'"):
        source_of(path).looks(MAY, GRID, ("B08",))
    with pytest.raises(InputError, match="layer 'red' is in none of"):
        source_of(path, bands={"B04": "red"}).native_geobox(("B04",))
    with pytest.raises(InputError, match="layer 'CLD' is in none of"):
        source_of(path, mask="CLD").looks(MAY, GRID, ("B04",))
    with pytest.raises(InputError, match="resampling 'cubic' is unknown"):
        source_of(path, resampling="cubic")


@pytest.mark.parametrize("name", ["a.nc", "a.zarr", "with\nline break.nc"])
@pytest.mark.parametrize(
    "content", [None, b"", b"<!DOCTYPE html><html>404</html>", b"CDF\x01junk", b"\x89HDF\r\n\x1a\n"]
)
def test_hostile_arrays(tmp_path, name, content):
    path = tmp_path / name
    if content is not None:
        if path.suffix == ".zarr":
            path.mkdir()
            (path / "zarr.json").write_bytes(content)
        else:
            path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"does not exist|cannot be read as NetCDF or Zarr"
    ) as error:
        source_of(str(path)).looks(MAY, GRID, ("B02",))
    assert repr(str(path)) in str(error.value)
    assert "Traceback" not in str(error.value)


def test_a_replaced_file_is_read_anew(tmp_path):
    path = tmp_path / "a.nc"
    for seed in (1, 2):
        made = dataset(seed=seed)
        save(made, tmp_path / "new.nc")
        os.utime(tmp_path / "new.nc", ns=(seed * 10**9, seed * 10**9))
        (tmp_path / "new.nc").replace(path)
        looks = source_of(str(path)).looks(MAY, GRID, ("B04",))
        np.testing.assert_array_equal(looks.reflectance[:, 0], units(made["B04"].values[:3]))


def test_stamps_notice_every_change(tmp_path):
    store = save(dataset(), tmp_path / "a.zarr")
    chunk = next(path for path in (tmp_path / "a.zarr" / "B04").rglob("*") if "c/" in str(path)
                 and path.is_file())  # fmt: skip
    template = str(tmp_path / "{date:%Y%m%d}.tif")
    (tmp_path / "20180503.tif").write_bytes(b"1")
    for path, file in ((store, chunk), (template, tmp_path / "20180503.tif")):
        seen = [file_stamp(path)]
        assert file_stamp(path) == seen[0]
        content = file.read_bytes()
        file.write_bytes(content[::-1])
        os.utime(file, ns=(10**18, 10**18))
        seen.append(file_stamp(path))
        file.write_bytes(content + b"x")
        seen.append(file_stamp(path))
        assert len(set(map(tuple, seen))) == 3
    (tmp_path / "20180504.tif").write_bytes(b"1")
    assert file_stamp(template)[2] == 2
    with pytest.raises(InputError, match="does not exist or cannot be opened"):
        file_stamp(str(tmp_path / "none.nc"))


# --- made GeoTIFFs -------------------------------------------------------------------------------


def write_tiff(path, values, grid=GRID, descriptions=(), scale=None, **options):
    profile = {"driver": "GTiff", "count": len(values), "dtype": values.dtype.name, "nodata": 0}
    height, width = grid.shape
    with rasterio.open(
        path, "w", height=height, width=width, crs=str(grid.crs), transform=grid.transform,
        **(profile | options),
    ) as file:  # fmt: skip
        file.write(values)
        for number, text in enumerate(descriptions, start=1):
            file.set_band_description(number, text)
        if scale is not None:
            file.scales, file.offsets = [scale[0]] * file.count, [scale[1]] * file.count
    return values


@pytest.fixture
def tiffs(tmp_path):
    """Counts by (date, band), one band a file."""
    rng = np.random.default_rng(0)
    made = {}
    for day in ("20180523", "20180503", "20180602"):
        for band in ("B02", "B04_10m", "SCL"):
            high = 12 if band == "SCL" else 5000
            counts = rng.integers(0, high, (1, 12, 9)).astype(np.uint16)
            made[day, band] = write_tiff(tmp_path / f"S2_{day}_{band}.tif", counts)[0]
    (tmp_path / "S2_20180503_B02.tif.aux.xml").write_text("<PAMDataset/>")
    (tmp_path / "README.txt").write_text("no scene")
    return tmp_path, made


def test_one_band_a_file(tiffs):
    folder, made = tiffs
    source = source_of(
        str(folder / "S2_{date:%Y%m%d}_{band}.tif"), bands={"B04": "B04_10m"}, mask="SCL"
    )
    assert source.native_geobox(("B02",)) == GRID
    window = GRID[2:10, 1:9]
    looks = source.looks(MAY, window, ("B02", "B04"))
    assert looks.ids == ("2018-05-03T00:00:00", "2018-05-23T00:00:00")
    for look, day in enumerate(("20180503", "20180523")):
        for index, band in enumerate(("B02", "B04_10m")):
            expected = units(made[day, band][2:10, 1:9])
            np.testing.assert_array_equal(looks.reflectance[look, index], expected)
        is_clear = np.isin(made[day, "SCL"], (4, 5, 6, 7))[2:10, 1:9]
        is_clear &= (made[day, "B02"] > 0)[2:10, 1:9] & (made[day, "B04_10m"] > 0)[2:10, 1:9]
        np.testing.assert_array_equal(looks.is_clear[look], is_clear)
    assert source.looks(Period.of_month(2018, 7), GRID, ("B02",)).reflectance.shape == (0, 1, 12, 9)


@pytest.mark.parametrize(
    "names", [{"B02": "blue", "B04": "red"}, {"B02": "1", "B04": "2"}], ids=["described", "numbers"]
)
def test_all_bands_in_a_file(tmp_path, names):
    rng = np.random.default_rng(0)
    made = {}
    for day in ("2018-123", "2018-133"):
        counts = rng.integers(1, 5000, (2, 12, 9)).astype(np.uint16)
        made[day] = write_tiff(tmp_path / f"{day}.tif", counts, descriptions=("blue", "red"))
    source = source_of(str(tmp_path / "{date:%Y-%j}.tif"), bands=names)
    looks = source.looks(MAY, GRID, ("B04", "B02"))
    np.testing.assert_array_equal(looks.reflectance, np.stack([*made.values()])[:, ::-1])
    days = [dt.datetime.strptime(day, "%Y-%j").date().isoformat() for day in made]
    assert [text[:10] for text in looks.ids] == days


def test_scale_nodata_and_grid_of_each_file(tmp_path):
    values = np.arange(1, 109, dtype=np.int16).reshape(1, 12, 9)
    write_tiff(tmp_path / "20180503.tif", values, scale=(1e-3, -0.02), nodata=7)
    moved = GeoBox(GRID.shape, GRID.transform * Affine.translation(2, -3), GRID.crs)
    write_tiff(tmp_path / "20180504.tif", values, grid=moved, nodata=-1)
    found = source_of(str(tmp_path / "{date:%Y%m%d}.tif"), bands={"B04": "1"})
    looks = found.looks(MAY, GRID, ("B04",)).reflectance[:, 0]
    np.testing.assert_array_equal(looks[0], np.where(values[0] == 7, NODATA, values[0] * 10 - 200))
    expected = np.full((12, 9), NODATA)
    expected[:9, 2:] = values[0, 3:, :7]
    np.testing.assert_array_equal(looks[1], expected)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("S2_{date:%Y%m%d}_B02.jp2", "no file in"),
        ("S2_{date}_{band}.tif", "needs one date"),
        ("S2_{date:%Y%m%d_{band}.tif", "needs one date"),
        ("S2_{date:%Y}_{date:%m%d}_{band}.tif", "needs one date"),
        ("S2_{date:%Y%m%d}_{band}_{band}.tif", "at most one band"),
        ("S2_{date:%m%d}_{band}.tif", "expected %Y with %m %d or %j"),
        ("S2_{date:%y%m%d}_{band}.tif", "expected %Y with %m %d or %j"),
        ("S2_{date:%d%b%Y}_{band}.tif", "is not understood"),
        ("S2_{date:%Y%Y%m}_{band}.tif", "repeats a part"),
        ("S2_{date:%Y%j0}_{band}.tif", "no file in"),
        ("S2_{date:%Y%d%m}_{band}.tif", "matches 'S2_{date:%Y%d%m}_{band}.tif' but has no date"),
        ("{date:%Y%m%d}/{band}.tif", "must be in the file's name"),
    ],
)
def test_templates_that_do_not_fit(tiffs, template, text):
    with pytest.raises(InputError, match=re.escape(text)):
        source_of(str(tiffs[0] / template)).looks(MAY, GRID, ("B02",))


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"source folder .* does not exist"):
        source_of(str(tmp_path / "no" / "{date:%Y%m%d}.tif")).dates(("B02",))


@settings(deadline=None)
@given(
    date=st.datetimes(dt.datetime(1984, 1, 1), dt.datetime(2100, 1, 1)),
    form=st.sampled_from(["%Y%m%d", "%Y-%m-%dT%H%M%S", "%Y%j", "%Y_%m", "%d.%m.%Y"]),
    band=st.from_regex(r"[A-Za-z0-9]{1,6}(_[0-9]{2}m)?", fullmatch=True),
    around=st.tuples(*[st.text("ab+.()[]^$*?\\|_- é", max_size=5)] * 3),
)
def test_names_made_from_a_template_are_read_by_it(date, form, band, around):
    start, middle, end = around
    pattern = f"{start}{{date:{form}}}{middle}_{{band}}.{end}"
    regex, date_format = template_regex(pattern)
    found = regex.fullmatch(f"{start}{date.strftime(form)}{middle}_{band}.{end}")
    assert found is not None
    again = dt.datetime.strptime(found["date"], date_format)
    assert again.strftime(form) == date.strftime(form)
    assert found["band"] == band
    assert not regex.fullmatch(f"{start}{date.strftime(form)}{middle}_{band}/{end}")


def damage(path, kind):
    content = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "header only":
        path.write_bytes(content[:60])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "html":
        path.write_bytes(b"<!DOCTYPE html><html>403</html>")
    elif kind == "vrt":
        path.write_text("<VRTDataset rasterXSize='9' rasterYSize='12'></VRTDataset>")


@pytest.mark.parametrize("which", ["20180503", "20180523"])
@pytest.mark.parametrize("kind", ["truncated", "header only", "empty", "html", "vrt"])
def test_damaged_tiffs_are_named(tmp_path, kind, which, sent):
    rng = np.random.default_rng(0)
    grid = GeoBox((200, 200), GRID.transform, GRID.crs)
    for day in ("20180503", "20180523"):
        counts = rng.integers(1, 5000, (1, 200, 200)).astype(np.uint16)
        write_tiff(tmp_path / f"{day}.tif", counts, grid=grid, compress="deflate")
    damage(tmp_path / f"{which}.tif", kind)
    source = source_of(str(tmp_path / "{date:%Y%m%d}.tif"), bands={"B04": "1"})
    with pytest.raises(InputError, match="cannot be read") as error:
        source.looks(MAY, grid, ("B04",))
    assert f"{which}.tif" in str(error.value)
    for arrived in (sent(error.value), pickle.loads(pickle.dumps(error.value))):
        assert type(arrived) is InputError
        assert str(arrived) == str(error.value)


def netcdf(path, form, size=60):
    """A stack of five dates, without a zero in it; returns its source."""
    rng = np.random.default_rng(0)
    dataset = xr.Dataset(
        {"B04": (("time", "y", "x"), rng.integers(1, 9000, (5, size, size)).astype(np.int16))},
        coords={
            "time": pd.date_range("2018-05-01", periods=5, unit="ns"),
            "y": 5_000_000 - 10.0 * np.arange(size),
            "x": 600_000 + 10.0 * np.arange(size),
        },
    )
    encoding = {"B04": {"zlib": True, "chunksizes": (1, 30, 30)}} if form == "NETCDF4" else {}
    dataset.to_netcdf(path, format=form, encoding=encoding)
    return StackSource(files=(str(path),), bands={}, crs="EPSG:32633")


@pytest.mark.parametrize("form", ["NETCDF4", "NETCDF3_CLASSIC", "NETCDF3_64BIT"])
@pytest.mark.parametrize("kind", ["truncated", "one byte less", "header only", "empty", "html"])
def test_damaged_netcdf_is_named(tmp_path, form, kind, sent):
    whole = netcdf(tmp_path / "whole.nc", form)
    window = whole.native_geobox(("B04",))
    assert (whole.looks(MAY, window, ("B04",)).reflectance != NODATA).all()
    # HDF5 keeps what it has read of an open file, so the damage is done to a copy
    path = Path(shutil.copy(tmp_path / "whole.nc", tmp_path / "stack.nc"))
    if kind == "one byte less":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        damage(path, kind)
    source = replace(whole, files=(str(path),))
    with pytest.raises(InputError, match=r"stack.nc' cannot be read") as error:
        source.looks(MAY, window, ("B04",))
    for arrived in (sent(error.value), pickle.loads(pickle.dumps(error.value))):
        assert type(arrived) is InputError
        assert str(arrived) == str(error.value)


def test_netcdf_that_is_damaged_inside_is_named(tmp_path, sent):
    path = tmp_path / "stack.nc"
    source = netcdf(path, "NETCDF4", size=300)
    window = source.native_geobox(("B04",))
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes(4000) + content[middle + 4000 :])
    with pytest.raises(InputError, match=r"variable 'B04' of .*stack.nc' cannot be read") as error:
        source.looks(MAY, window, ("B04",))
    assert type(sent(error.value)) is InputError


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_with_a_damaged_chunk_is_named(tmp_path, zarr_format, sent):
    source = netcdf(tmp_path / "stack.nc", "NETCDF4")
    window = source.native_geobox(("B04",))
    store = tmp_path / "stack.zarr"
    with xr.open_dataset(tmp_path / "stack.nc", mask_and_scale=False) as dataset:
        plain = dataset.drop_encoding()
        plain.to_zarr(store, zarr_format=zarr_format, consolidated=False)
    source = StackSource(files=(str(store),), bands={}, crs="EPSG:32633")
    assert source.looks(MAY, window, ("B04",)).is_clear.all()
    chunk = max(
        (file for file in store.rglob("*") if file.is_file()), key=lambda f: f.stat().st_size
    )
    chunk.write_bytes(chunk.read_bytes()[:10])
    with pytest.raises(
        InputError, match=r"variable 'B04' of .*stack.zarr' cannot be read"
    ) as error:
        source.looks(MAY, window, ("B04",))
    assert type(sent(error.value)) is InputError


def test_tiffs_without_crs_or_band(tmp_path):
    values = np.ones((2, 12, 9), np.uint16)
    write_tiff(tmp_path / "20180503.tif", values, descriptions=("blue", "red"))
    write_tiff(tmp_path / "20180513.tif", values, descriptions=("blue", "nir"))
    source = source_of(str(tmp_path / "{date:%Y%m%d}.tif"), bands={"B04": "red"})
    with pytest.raises(InputError, match=r"20180513.tif' has no band 'red'; found \['blue', 'nir'"):
        source.looks(MAY, GRID, ("B04",))
    with rasterio.open(
        tmp_path / "x20180503.tif", "w", driver="GTiff", width=9, height=12, count=1,
        dtype="uint16", transform=GRID.transform,
    ) as file:  # fmt: skip
        file.write(values[:1])
    with pytest.raises(InputError, match="does not say its CRS; write it into the files"):
        source_of(str(tmp_path / "x{date:%Y%m%d}.tif"), bands={"B04": "1"}).native_geobox(("B04",))
