"""Runs over a polygon that touches few tiles of its grid, and what `plan` says of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
import xarray as xr
import zarr

from cube.ledger import Ledger
from cube.store import read_region, read_spec
from pipelines.recipe import Recipe, read_recipe
from pipelines.run import open_run

LEFT, TOP = 500_000.0, 5_000_000.0

RECIPE = """
name = "Triangle"
bands = ["B02", "B04"]
[area]
file = "area.gpkg"
[grid]
crs = "EPSG:32633"
[months]
first = "2022-01"
last = "2022-03"
[source]
kind = "stack"
files = ["scenes.zarr"]
mask = "SCL"
[composite]
tile = 32
chunk = 16
[cluster]
kind = "threads"
workers = 2
[outputs]
folder = "out"
"""


@pytest.fixture
def triangle(tmp_path: Path) -> Path:
    """Write scenes of 160 x 160 pixels, a triangle in them, and a recipe for its ground."""
    random = np.random.default_rng(0)
    dims, shape = ("time", "y", "x"), (2, 160, 160)
    xr.Dataset(
        {
            "B02": (dims, random.integers(1, 4000, shape, dtype=np.uint16)),
            "B04": (dims, random.integers(1, 4000, shape, dtype=np.uint16)),
            "SCL": (dims, random.integers(3, 9, shape, dtype=np.uint8)),
        },
        coords={
            "time": np.array(["2022-01-10", "2022-03-10"], "datetime64[ns]"),
            "y": TOP - 10 * (np.arange(160) + 0.5),
            "x": LEFT + 10 * (np.arange(160) + 0.5),
        },
        attrs={"crs": "EPSG:32633"},
    ).to_zarr(tmp_path / "scenes.zarr", zarr_format=2, consolidated=True)
    corners = [(LEFT, TOP), (LEFT + 1600, TOP), (LEFT, TOP - 1600)]
    ground = geopandas.GeoDataFrame(geometry=[shapely.Polygon(corners)], crs=32633)
    ground.to_file(tmp_path / "area.gpkg")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def whole(folder: Path) -> Recipe:
    """Return the recipe of the box round the triangle."""
    box = [LEFT, TOP - 1600, LEFT + 1600, TOP]
    changes = (f'area={{bbox={box}, crs="EPSG:32633"}}', 'outputs.folder="whole"')
    return read_recipe(folder / "recipe.toml", changes)


def test_only_tiles_that_the_polygon_touches_are_built(triangle: Path) -> None:
    with open_run(triangle / "recipe.toml") as run:
        found = run.build()
        assert run._is_built()
    with open_run(whole(triangle)) as run:
        assert run.build()["tiles"] == "25 of 25"
    assert found["tiles"] == "15 of 15"
    own, other = triangle / "out" / "cube.zarr", triangle / "whole" / "cube.zarr"
    spec = read_spec(own)
    assert (spec.tile_count, spec.grid_tiles) == (15, 25)
    names = {region.id for region in spec.regions()}
    assert set(Ledger(store=own, inputs=None).records()) == names
    for region in read_spec(other).regions():
        pixels = read_region(own, region)
        if region.id in names:
            np.testing.assert_array_equal(pixels, read_region(other, region))
        else:
            assert (pixels == -32768).all()
    # shares are of the tiles that were made
    assert found["empty_share_by_period"]["2022-02"] == 1.0
    clear = zarr.open_group(own, mode="r")["clear_count"][0]
    made = sum(clear[one.rows, one.columns].size for one in spec.regions())
    assert found["empty_share_by_period"]["2022-01"] == pytest.approx(1 - (clear > 0).sum() / made)


def test_plan_says_how_many_tiles_are_touched_and_what_is_there(
    triangle: Path, command: Callable[..., Any]
) -> None:
    code, out, _ = command("plan", triangle / "recipe.toml")
    assert code == 0
    assert "15 of 25 tiles touch the area; a tile needs up to" in out
    assert "not calibrated: `canopycube plan RECIPE --calibrate`" in out
    assert command("build", triangle / "recipe.toml")[0] == 0
    code, out, _ = command("plan", triangle / "recipe.toml")
    assert "15 of 25 tiles touch the area, 15 are there; a tile" in out
    assert "building 0 core hours" in out
    assert "by 15 tiles made here" in out


def test_a_tile_that_is_made_tells_of_all(triangle: Path, command: Callable[..., Any]) -> None:
    code, out, err = command("plan", triangle / "recipe.toml", "--calibrate", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert said["is_calibrated"]
    assert said["build_measured_tiles"] == 1
    assert said["build_core_hours"] > 0
    assert said["build_seconds"] == pytest.approx(said["build_core_hours"] * 1800, rel=0.1, abs=0.2)
    assert 0 < said["cube_bytes"] <= said["cube_bytes_uncompressed"]
    assert not (triangle / "out" / "cube.zarr").exists()


def test_plan_refuses_what_does_not_fit(
    triangle: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines import plan_fit

    # 32 x 32 pixels take some hundred kilobytes, and the program has 400 MB to itself
    monkeypatch.setattr(plan_fit, "MEMORY_LIMIT", plan_fit.PROGRAM_BYTES + 150_000)
    code, _, err = command("plan", triangle / "recipe.toml")
    assert code == 2
    assert "this machine has 400 MB; what fits: " in err
    assert "cluster.workers = 1 or composite.tile = 16" in err
