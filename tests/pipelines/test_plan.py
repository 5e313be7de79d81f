"""What `plan` promises: the memory of a tile, and what it says without reading pixels."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cube.composite import median_composite
from cube.store import create_cube, open_cube
from pipelines.build_cube import build_tile
from pipelines.plan import plan_cube
from pipelines.recipe import Recipe, read_recipe

RECIPE = """
name = "Stack"
bands = ["B02", "B03", "B04", "B08"]
[months]
first = "2022-01"
last = "2022-04"
[source]
kind = "stack"
files = ["scenes.zarr"]
mask = "SCL"
[composite]
tile = 512
chunk = 256
[outputs]
folder = "out"
"""


def _stack(folder: Path, *, looks: int, edge: int) -> Recipe:
    """Write `looks` scenes in each of two months and the recipe for them."""
    random = np.random.default_rng(0)
    days = [np.datetime64("2022-01-01") + np.timedelta64(n, "D") for n in range(looks)]
    days += [np.datetime64("2022-03-01") + np.timedelta64(n, "D") for n in range(looks)]
    dims = ("time", "y", "x")
    coordinates = {
        "time": np.array(days, "datetime64[ns]"),
        "y": 5000000 - 10.0 * np.arange(edge) - 5,
        "x": 500000 + 10.0 * np.arange(edge) + 5,
    }
    shape = (2 * looks, edge, edge)
    scenes = xr.Dataset(
        {
            name: (dims, random.integers(1, 4000, shape, dtype=np.uint16))
            for name in ("B02", "B03", "B04", "B08")
        }
        | {"SCL": (dims, random.integers(3, 9, shape, dtype=np.uint8))},
        coords=coordinates,
        attrs={"crs": "EPSG:32633"},
    )
    scenes.to_zarr(folder / "scenes.zarr", zarr_format=2, consolidated=True)
    (folder / "recipe.toml").write_text(RECIPE)
    return read_recipe(folder / "recipe.toml")


def test_a_tile_stays_within_the_memory_that_plan_prints(tmp_path: Path) -> None:
    recipe = _stack(tmp_path, looks=15, edge=512)
    plan = plan_cube(recipe)
    create_cube(tmp_path / "cube.zarr", plan.spec)
    (tmp_path / "cube.zarr" / "ledger").mkdir()
    median_composite(np.ones((2, 1, 4, 4), np.int16), np.ones((2, 4, 4), bool))  # compile first
    region = plan.spec.regions()[0]
    tracemalloc.start()
    try:
        build_tile(
            tmp_path / "cube.zarr",
            plan.spec,
            plan.source,
            region,
            plan.made_from.of(region),
            plan.finish,
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.2 * plan.peak_bytes < peak < plan.peak_bytes


def test_memory_does_not_grow_with_the_area(tmp_path: Path) -> None:
    small = plan_cube(_stack(tmp_path, looks=1, edge=512))
    (tmp_path / "large").mkdir()
    large = plan_cube(_stack(tmp_path / "large", looks=1, edge=1300))
    assert len(small.spec.regions()) == 1
    assert len(large.spec.regions()) == 9
    assert small.peak_bytes == large.peak_bytes


@pytest.mark.parametrize(
    ("step", "looks"),
    [
        ("half-month", {"2022-01-01/2022-01-15": 2, "2022-03-01/2022-03-15": 2}),
        ("60", {"2022-01-01/2022-03-01": 3, "2022-03-02/2022-04-30": 1}),
        (
            "acquisition",
            {f"2022-0{month}-0{day}T00:00:00": 1 for month in (1, 3) for day in (1, 2)},
        ),
    ],
)
def test_looks_of_other_periods(tmp_path: Path, step: str, looks: dict[str, int]) -> None:
    _stack(tmp_path, looks=2, edge=32)
    plan = plan_cube(read_recipe(tmp_path / "recipe.toml", (f"months.step={step}",)))
    assert {str(period): count for period, count in plan.looks.items()} == looks
    assert set(plan.looks) <= set(plan.spec.periods)
    assert (len(plan.looks) == len(plan.spec.periods)) == (step != "half-month")
    assert max(plan.looks.values()) == 2 - (step == "acquisition") + (step == "60")


def test_a_tile_of_acquisitions_holds_each_scene_alone(tmp_path: Path) -> None:
    _stack(tmp_path, looks=2, edge=32)
    plan = plan_cube(read_recipe(tmp_path / "recipe.toml", ("months.step=acquisition",)))
    path = tmp_path / "cube.zarr"
    create_cube(path, plan.spec)
    (path / "ledger").mkdir()
    region = plan.spec.regions()[0]
    build_tile(path, plan.spec, plan.source, region, plan.made_from.of(region), plan.finish)
    cube = open_cube(path).load()
    scenes = xr.open_zarr(tmp_path / "scenes.zarr", chunks=None)
    is_clear = scenes["SCL"].isin((4, 5, 6, 7)).values
    np.testing.assert_array_equal(cube["time"].values, scenes["time"].values)
    np.testing.assert_array_equal(cube["clear_count"].values, is_clear)
    np.testing.assert_array_equal(cube["clear_share"].values, np.where(is_clear, 100, 0))
    days = scenes["time"].dt.dayofyear.values[:, None, None]
    np.testing.assert_array_equal(cube["mean_day"].values, np.where(is_clear, days, 0))
    expected = np.where(is_clear, scenes["B04"].values * np.float32(1e-4), np.nan)
    np.testing.assert_allclose(cube["reflectance"].sel(band="B04").values, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("months", "words"),
    [
        (("2025-01", "2025-02"), "no scene lies in 2025-01 … 2025-02; the files have 2022-01"),
        (("2022-02", "2022-02"), "no scene lies in 2022-02"),
    ],
)
def test_months_without_any_scene_are_refused(
    tmp_path: Path, months: tuple[str, str], words: str
) -> None:
    _stack(tmp_path, looks=1, edge=32)
    first, last = months
    recipe = read_recipe(tmp_path / "recipe.toml", (f"months.first={first}", f"months.last={last}"))
    with pytest.raises(ValueError, match=words):
        plan_cube(recipe)


def test_an_area_beside_the_stack_is_refused_with_both_boxes(tmp_path: Path) -> None:
    _stack(tmp_path, looks=1, edge=32)
    recipe = read_recipe(tmp_path / "recipe.toml", ("area.bbox=[10.0, 50.0, 10.1, 50.1]",))
    with pytest.raises(ValueError, match=r"the area \[9\.99.* lies outside every scene \[15"):
        plan_cube(recipe)
