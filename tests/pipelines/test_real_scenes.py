"""The whole chain on real Sentinel-2 pixels, through the public commands."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.windows import from_bounds

from cube import open_cube
from cube.mapstore import open_map

SITE = "_00002806639B424A_32631_2017-08-01_2018-11-30.nc"
BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
CLEAR = (4, 5, 6, 7)


def _recipe(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.slow  # half a minute: five folds of three splits
def test_a_crop_site_ends_in_a_map_and_honest_scores(
    shared_data: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    site = shared_data / "worldcereal-site1"
    recipe = _recipe(
        tmp_path / "site.toml",
        f"""
        name = "Flanders, 2018"
        [months]
        first = "2017-11"
        last = "2018-10"
        [source]
        kind = "stack"
        files = ["{site}/S2_L2A_10m{SITE}", "{site}/S2_L2A_20m{SITE}"]
        time = "timestamp"
        mask = "SCL"
        [composite]
        tile = 32
        chunk = 32
        [reference]
        file = "{site}/OUTPUT_POLY-110_10m{SITE}"
        variable = "CT"
        names = {{ 1200 = "maize", 9120 = "grass", 7900 = "other", 2130 = "2130", 5100 = "5100" }}
        [sampling]
        block_size = 80
        [training]
        epochs = 20
        baselines = ["random forest"]
        importance = false
        audit_allow = ["few-groups"]
        [outputs]
        folder = "out"
        """,
    )
    code, _, complaint = command("run", recipe)
    assert (code, complaint.count("Traceback")) == (0, 0)

    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["samples"]["by_class"] == {
        "maize": 1249, "grass": 835, "other": 96, "2130": 31, "5100": 25
    }  # fmt: skip
    scores = {
        (entry["model"], entry["split"]): entry["scores"]["macro_f1"]
        for entry in report["training"]["scores"]["entries"]
    }
    # SOURCE.md of the site: random forest 0.942 by random folds. By blocks two of the five classes
    # lie in one and two of them, so that their F1 is near 0 and the best possible mean near 0.8.
    assert scores["random forest", "random"] > 0.85
    assert scores["random forest", "random"] > scores["random forest", "block"] > 0.35
    assert scores["lstm", "block"] > scores["majority class", "block"] + 0.1
    text = (tmp_path / "out" / "report.md").read_text()
    assert all(f"| {split} | lstm |" in text for split in ("random", "grouped", "block"))

    truth = xr.open_dataset(site / f"OUTPUT_POLY-110_10m{SITE}", mask_and_scale=False)["CT"]
    with rasterio.open(tmp_path / "out" / "map.tif") as file:
        mapped = file.read(1)
        assert file.crs.to_epsg() == 32631
        assert file.bounds == (501360, 5629040, 502000, 5629680)
        assert len(file.colormap(1)) == 256
    names = sorted(report["samples"]["by_class"])
    codes = {"maize": 1200, "grass": 9120, "other": 7900, "2130": 2130, "5100": 5100}
    wanted = np.select([truth == codes[name] for name in names], range(1, 6), default=0)
    assert (mapped[wanted > 0] == wanted[wanted > 0]).mean() > 0.8
    assert (mapped == open_map(tmp_path / "out" / "map.zarr")["species"].values).all()


def test_monthly_medians_of_the_crop_site_equal_a_plain_loop(
    shared_data: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    site = shared_data / "worldcereal-site1"
    recipe = _recipe(
        tmp_path / "site.toml",
        f"""
        name = "Flanders"
        bands = ["B02", "B08"]
        [months]
        first = "2018-04"
        last = "2018-05"
        [source]
        kind = "stack"
        files = ["{site}/S2_L2A_10m{SITE}", "{site}/S2_L2A_20m{SITE}"]
        time = "timestamp"
        mask = "SCL"
        [composite]
        tile = 48
        chunk = 16
        [outputs]
        folder = "out"
        """,
    )
    assert command("build", recipe)[0] == 0
    cube = open_cube(tmp_path / "out" / "cube.zarr")

    scenes = xr.open_dataset(site / f"S2_L2A_10m{SITE}", mask_and_scale=False)
    flags = xr.open_dataset(site / f"S2_L2A_20m{SITE}", mask_and_scale=False)["SCL"]
    flags = flags.values.repeat(2, axis=1).repeat(2, axis=2)
    months = scenes["timestamp"].values.astype("datetime64[M]")
    for month in ("2018-04", "2018-05"):
        chosen = np.flatnonzero(months == np.datetime64(month))
        for y, x in np.ndindex(64, 64):
            if (y * 64 + x) % 37:
                continue
            looks = [
                (int(scenes["B02"].values[i, y, x]), int(scenes["B08"].values[i, y, x]))
                for i in chosen
                if flags[i, y, x] in CLEAR
            ]
            looks = [look for look in looks if 0 not in look]
            place = {"time": month, "y": scenes["y"].values[y], "x": scenes["x"].values[x]}
            assert int(cube["clear_count"].sel(place).squeeze()) == len(looks)
            found = cube["reflectance"].sel(place).squeeze().values
            if not looks:
                assert np.isnan(found).all()
            else:
                middle = np.rint(np.median(looks, axis=0)) * 1e-4
                np.testing.assert_allclose(found, middle, atol=1e-7)


@pytest.mark.parametrize("reader", ["odc", "stackstac"])
def test_a_static_catalogue_ends_in_the_right_composite(
    shared_data: Path, tmp_path: Path, command: Callable[..., Any], reader: str
) -> None:
    catalogue = shared_data / "earth-search-33TWL" / "catalog.json"
    left, bottom, right, top = 520020, 5040000, 532020, 5052000  # 100 x 100 pixels of 120 m
    recipe = _recipe(
        tmp_path / "tile.toml",
        f"""
        name = "33TWL, August 2023"
        bands = ["B02", "B03", "B04", "B08"]
        [area]
        bbox = [{left}, {bottom}, {right}, {top}]
        crs = "EPSG:32633"
        [grid]
        crs = "EPSG:32633"
        resolution = 120
        anchor = [499980, 5100000]
        [months]
        first = "2023-08"
        last = "2023-08"
        [source]
        kind = "stac"
        catalogue = "{catalogue}"
        max_cloud_cover = 100
        reader = "{reader}"
        [composite]
        tile = 48
        chunk = 16
        [outputs]
        folder = "out"
        """,
    )
    code, _, complaint = command("run", recipe)
    assert (code, complaint) == (0, "")
    cube = open_cube(tmp_path / "out" / "cube.zarr")
    assert cube.rio.resolution() == (120, -120)

    folders = sorted((catalogue.parent / "sentinel-2-l2a").glob("S2*"))
    assert len(folders) == 5
    looks, clear = [], []
    for folder in folders:
        counts = []
        for band in ("B02", "B03", "B04", "B08", "SCL"):
            with rasterio.open(folder / f"{band}.tif") as file:
                assert file.shape == (915, 915)
                window = from_bounds(*cube.rio.bounds(), transform=file.transform)
                window = window.round_offsets().round_lengths()
                counts.append(file.read(1, window=window).astype(int))
        looks.append(counts[:4])
        clear.append(np.isin(counts[4], CLEAR) & (np.array(counts[:4]) > 0).all(axis=0))
    stack, is_clear = np.array(looks, float), np.array(clear)
    stack[~np.broadcast_to(is_clear[:, None], stack.shape)] = np.nan
    count = is_clear.sum(axis=0)
    with np.errstate(all="ignore"):
        middle = np.full(stack.shape[1:], np.nan)
        seen = count > 0
        middle[:, seen] = np.rint(np.nanmedian(stack[..., seen], axis=0))
    np.testing.assert_array_equal(cube["clear_count"].values[0], count)
    # reflectance is DN / 10000: the offset that raster:bands states is already in these pixels
    np.testing.assert_allclose(cube["reflectance"].values[0], middle * 1e-4, atol=1e-7)
    dark = np.nanpercentile(cube["reflectance"].sel(band="B04").values, 2)
    assert 0 < dark < 0.06


def test_months_without_scenes_are_there_as_nodata(
    shared_data: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    romania = shared_data / "nrt-romania"
    recipe = _recipe(
        tmp_path / "romania.toml",
        f"""
        name = "Romania, winter"
        bands = ["B02", "B08", "B8A", "B11"]
        [months]
        first = "2018-11"
        last = "2019-05"
        [source]
        kind = "stack"
        files = [
          "{romania}/sentinel2_cube_subset_romania_10m.nc",
          "{romania}/sentinel2_cube_subset_romania_20m.nc",
        ]
        bands = {{ B02 = "B2", B08 = "B8", B8A = "B8A", B11 = "B11" }}
        mask = "SCL"
        [composite]
        tile = 64
        chunk = 64
        [outputs]
        folder = "out"
        """,
    )
    code, printed, complaint = command("run", recipe)
    assert (code, complaint) == (0, "")
    assert "no clear look at all in 2018-12, 2019-01, 2019-05" in printed
    cube = open_cube(tmp_path / "out" / "cube.zarr")
    assert cube.sizes == {"time": 7, "band": 4, "y": 100, "x": 100}
    assert cube.rio.crs.to_epsg() == 3035
    source = xr.open_dataset(romania / "sentinel2_cube_subset_romania_10m.nc")
    np.testing.assert_allclose(cube["x"], source["x"], atol=1e-6)
    np.testing.assert_allclose(cube["y"], source["y"], atol=1e-6)
    is_empty = cube["reflectance"].isnull().all(("band", "y", "x")).values
    months = cube["time"].dt.strftime("%Y-%m").values[is_empty].tolist()
    assert months == ["2018-12", "2019-01", "2019-05"]
    assert (cube["clear_count"].sel(time=["2018-12-01", "2019-05-01"]) == 0).all()
