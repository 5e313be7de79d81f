"""A recipe, labels and a cube in; stored samples, tables and the model's arrays out."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Geod, Transformer

from cube.errors import InputError
from cube.periods import Period, periods_between
from cube.samplestore import open_samples, stored_folds, write_samples
from cube.spec import CubeSpec
from cube.store import CubeBlocks, create_cube, write_region
from model.split import make_folds, splits_of
from pipelines.cluster import connect
from pipelines.draw_samples import (
    places_to_map,
    sample_cube,
    sample_options,
    store_folds,
    take_samples,
)
from pipelines.layout import Layout
from pipelines.learning_samples import learning_samples
from pipelines.recipe import Recipe, read_recipe

CRS = "EPSG:32633"
GRID = GeoBox((96, 96), Affine(10, 0, 500_000, 0, -10, 5_200_000), CRS)
MONTHS = periods_between(Period.of_month(2022, 1), Period.of_month(2022, 3))

RECIPE = """
name = "By hand"
bands = ["B04", "B8A"]
[months]
first = "2022-01"
last = "2022-03"
[source]
kind = "stac"
catalogue = "catalogue.json"
[area]
bbox = [15.0, 46.9, 15.02, 46.95]
[reference]
file = "labels.gpkg"
group_column = "stand"
region_column = "county"
[sampling]
block_size = 200
[outputs]
folder = "out"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Recipe]:
    """Return a function that reads a recipe whose cube and labels are there."""
    random = np.random.default_rng(1)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "catalogue.json").write_text("{}")
    corners = [(r, c) for r in range(0, 96, 12) for c in range(0, 96, 12)]
    frame = geopandas.GeoDataFrame(
        {
            "class": [("oak", "fir", "pine")[n % 3] for n in range(64)],
            "stand": [f"stand {n}" for n in range(64)],
            "county": ["north" if r < 48 else "south" for r, _ in corners],
            "oak": random.uniform(0, 1, 64),
            "fir": random.uniform(0, 1, 64),
        },
        geometry=[
            shapely.box(500_000 + 10 * c + 5, 5_200_000 - 10 * r - 45, 500_000 + 10 * c + 45,
                        5_200_000 - 10 * r - 5)
            for r, c in corners
        ],
        crs=CRS,
    )  # fmt: skip
    frame.to_file(tmp_path / "labels.gpkg")
    spec = CubeSpec(geobox=GRID, periods=MONTHS, bands=("B04", "B8A"), tile=32, chunk=32)
    create_cube(tmp_path / "out" / "cube.zarr", spec)
    for region in spec.regions():
        seen = random.integers(0, 3, (3, 32, 32)).astype(np.uint16)
        values = random.integers(100, 5000, (3, 2, 32, 32)).astype(np.int16)
        values[np.broadcast_to(seen[:, None] == 0, values.shape)] = -32768
        blocks = CubeBlocks.empty(3, 2, 32, 32)
        write_region(
            tmp_path / "out" / "cube.zarr",
            region,
            replace(blocks, reflectance=values, clear_count=seen),
        )
    return lambda *overrides: read_recipe(tmp_path / "recipe.toml", overrides)


def test_samples_of_a_cube_become_stores_tables_and_arrays(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    report = sample_cube(recipe(), tile_digests={})
    path = Layout(folder=tmp_path / "out").samples
    stored = open_samples(path).load()
    assert report["samples"] == stored.sizes["sample"] > 100
    assert len(pd.read_parquet(tmp_path / "out" / "samples.parquet")) == report["samples"]
    assert set(report["autocorrelation"]) == {
        "range", "block_size", "block_size_used", "lag", "correlation", "layers", "notes",
    }  # fmt: skip
    assert report["autocorrelation"]["block_size"] == 50  # the cube is noise
    assert report["dropped_names"] == {}

    samples = learning_samples(path)
    np.testing.assert_array_equal(samples.reflectance, stored["reflectance"])
    assert np.isnan(samples.reflectance).any()
    assert samples.place is not None
    np.testing.assert_array_equal(samples.place, np.column_stack([stored["x"], stored["y"]]))
    assert samples.region is not None
    for number, name in zip(samples.region.tolist(), stored["region"].values, strict=True):
        assert ["north", "south"][number] == name
    assert samples.year is not None
    assert np.unique(samples.year).size == 1  # one cube is of one year
    assert samples.share is None
    assert splits_of(samples) == ("random", "grouped", "block", "region", "knndm")

    mapped = places_to_map(tmp_path / "out" / "cube.zarr")
    assert mapped.shape == (2500, 2)
    assert mapped.min(axis=0).tolist() == [500_005, 5_200_000 - 955]
    assert mapped.max(axis=0).tolist() == [500_955, 5_200_000 - 5]
    assert make_folds(samples, "knndm", prediction=mapped).distance is not None

    folds = {str(split): make_folds(samples, split).fold for split in splits_of(samples)}
    store_folds(path, folds)
    again = stored_folds(open_samples(path))
    table = pd.read_parquet(tmp_path / "out" / "samples.parquet")
    for split, fold in folds.items():
        np.testing.assert_array_equal(again[split], fold)
        np.testing.assert_array_equal(table[f"fold_{split}"], fold)
    np.testing.assert_array_equal(learning_samples(path).label, samples.label)


def test_samples_drawn_by_tasks_are_the_same(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    asked = recipe("cluster.workers=2")
    path = Layout(folder=tmp_path / "out").samples
    sample_cube(asked, tile_digests={})
    expected = open_samples(path).load()
    with connect(asked.cluster) as client:
        sample_cube(asked, tile_digests={}, client=client)
    xr.testing.assert_identical(open_samples(path).load(), expected)


def test_shares_and_decisions_reach_the_model(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    mixed = 'reference.share_columns={ oak = "oak", fir = "fir" }'
    sample_cube(recipe(mixed), tile_digests={})
    path = Layout(folder=tmp_path / "out").samples
    samples = learning_samples(path)
    assert samples.classes == ("fir", "oak")
    assert samples.share is not None
    np.testing.assert_array_equal(samples.share.argmax(axis=1), samples.label)
    np.testing.assert_allclose(samples.share.sum(axis=1), 1, rtol=1e-6)

    decisions = tmp_path / "decisions.csv"
    decisions.write_text("group,given,decision,label\nstand 0,oak,drop,\nstand 1,fir,fix,pine\n")
    decided = tmp_path / "decided.csv"
    odd = samples.group[samples.label == 0][0]
    name = np.unique(open_samples(path)["group"].values.astype(str))[odd]
    decided.write_text(f"group,given,decision,label\n{name},fir,fix,oak\n")
    sample_cube(recipe(mixed, 'reference.decisions="decided.csv"'), tile_digests={})
    changed = learning_samples(path)
    assert changed.share is not None
    assert (changed.share[samples.group == odd] == [0, 1]).all()
    np.testing.assert_array_equal(changed.share.argmax(axis=1), changed.label)
    others = samples.group != odd
    np.testing.assert_array_equal(changed.share[others], samples.share[others])

    report = sample_cube(recipe('reference.decisions="decisions.csv"'), tile_digests={})
    stored = open_samples(path).load()
    assert "stand 0" not in stored["group"].values
    assert set(stored["label"].values[stored["group"].values == "stand 1"]) == {"pine"}
    assert report["dropped"]["samples that decisions drop"] > 0
    decisions.write_text(
        "group,given,decision,label\n"
        + "".join(f"stand {n},{('oak', 'fir', 'pine')[n % 3]},drop,\n" for n in range(64) if n % 3)
    )
    with pytest.raises(InputError, match=r"two classes or more are needed; all \d+ are 'oak'"):
        sample_cube(recipe('reference.decisions="decisions.csv"'), tile_digests={})


def test_blocks_follow_the_measured_range_where_asked(recipe: Callable[..., Recipe]) -> None:
    report = sample_cube(recipe('sampling.block_size="auto"'), tile_digests={})
    assert report["autocorrelation"]["block_size_used"] == 50
    small = sample_cube(recipe("sampling.block_size=1"), tile_digests={})
    note = small["autocorrelation"]["notes"][-1]
    assert note.startswith("blocks of 1 m are shorter than the")
    assert note.endswith("sampling.block_size = 50 is suggested")
    assert sample_options(recipe('sampling.block_size="auto"').sampling).block_size == 1000
    asked = recipe('sampling.stratify="group"', "sampling.max_per_class=9").sampling
    assert sample_options(asked).stratify == "group"


def series(**more: tuple[str, np.ndarray]) -> xr.Dataset:
    count = 6
    return xr.Dataset(
        {
            "reflectance": (
                ("sample", "time", "band"),
                np.linspace(0, 1, count * 2).reshape(count, 2, 1).astype(np.float32),
            ),
            "label": ("sample", np.array(["a", "b"] * 3)),
            "group": ("sample", np.array([f"g{n}" for n in range(count)])),
            "block": ("sample", np.array([f"b{n}" for n in range(count)])),
            **more,
        },
        coords={
            "time": np.array(["2020-01-01", "2020-02-01"], "datetime64[D]"),
            "period": ("time", np.array(["2020-01", "2020-02"])),
            "band": np.array(["NDVI"]),
        },
        attrs={
            "canopycube": {
                "schema": 2,
                "kind": "samples",
                "dropped": {},
                "bands": ["NDVI"],
                "periods": ["2020-01", "2020-02"],
            }
        },
    )


def test_places_of_longitude_and_latitude_become_metres(tmp_path: Path) -> None:
    lon = np.array([15.0, 15.3, 14.8, np.nan, 15.1, 15.2])
    lat = np.array([47.0, 47.2, 46.9, 47.0, 47.1, 46.95])
    given = series(
        lon=("sample", lon), lat=("sample", lat), year=("sample", np.array([2019, 2020] * 3))
    )
    write_samples(tmp_path / "s.zarr", given)
    samples = learning_samples(tmp_path / "s.zarr")
    assert samples.place is not None
    assert np.isnan(samples.place[3]).all()
    earth = Geod(ellps="WGS84")
    for one in (0, 1, 2, 4):
        true = earth.inv(lon[one], lat[one], lon[5], lat[5])[2]
        found = float(np.hypot(*(samples.place[one] - samples.place[5])))
        assert found == pytest.approx(true, rel=1e-3)
    assert samples.year is not None
    assert samples.year.tolist() == [2019, 2020] * 3
    assert splits_of(samples) == ("random", "grouped", "block", "year")


def test_series_without_places_or_units_can_be_learned(tmp_path: Path) -> None:
    write_samples(tmp_path / "s.zarr", series())
    samples = learning_samples(tmp_path / "s.zarr")
    assert (samples.place, samples.region, samples.year, samples.share) == (None,) * 4
    assert samples.bands == ("NDVI",)
    with pytest.raises(InputError, match="there is no samples"):
        learning_samples(tmp_path / "none.zarr")


def test_projected_places_agree_with_pyproj(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    sample_cube(recipe(), tile_digests={})
    stored = open_samples(Layout(folder=tmp_path / "out").samples)
    to_lon_lat = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    lon, lat = to_lon_lat.transform(stored["x"].values, stored["y"].values)
    np.testing.assert_allclose(stored["lon"], lon)
    np.testing.assert_allclose(stored["lat"], lat)


def test_imported_samples_are_taken_with_their_table(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    sample_cube(recipe(), tile_digests={})
    (tmp_path / "out" / "samples.zarr").rename(tmp_path / "given.zarr")
    text = RECIPE.replace('file = "labels.gpkg"', 'samples = "given.zarr"')
    text = text.replace('group_column = "stand"\nregion_column = "county"\n', "")
    (tmp_path / "recipe.toml").write_text(text)
    taken = take_samples(recipe("sampling.max_per_class=8"))
    assert taken["samples"] == 24
    samples = learning_samples(tmp_path / "out" / "samples.zarr")
    assert samples.region is not None
    assert len(pd.read_parquet(tmp_path / "out" / "samples.parquet")) == 24
