"""Runs of the synthetic forest with other periods than months."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cube import open_cube, open_samples
from cube.errors import InputError
from cube.periods import Period
from cube.stac import read_scenes
from cube.store import create_cube, read_spec
from model.classifier import SpeciesClassifier
from model.errors import ClassifierError, SampleError
from pipelines import classify
from pipelines.plan import plan_cube
from pipelines.progress import Reporter
from pipelines.recipe import Recipe, read_recipe
from pipelines.run import open_run

WriteRecipe = Callable[..., Recipe]
MAY_AND_JUNE = ("months.first=2022-05", "months.last=2022-06")


def without_labels(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"reference": None})


def test_half_months_from_scenes_to_a_map_and_to_another_year(
    forest_recipe: WriteRecipe, reporter: Reporter
) -> None:
    recipe = forest_recipe(*MAY_AND_JUNE, "months.step=half-month", "cluster.workers=1")
    with open_run(recipe, reporter) as run:
        report = run.all()
    halves = ["05-01/05-15", "05-16/05-31", "06-01/06-15", "06-16/06-30"]
    names = [f"2022-{half[:5]}/2022-{half[6:]}" for half in halves]
    assert list(report["cube"]["empty_share_by_period"]) == names
    assert report["map"]["tiles"] == "4 of 4, 0 failed"
    folder = recipe.outputs.folder
    assert open_samples(folder / "samples.zarr")["period"].values.tolist() == names
    assert SpeciesClassifier.load(folder / "classifier").periods == tuple(halves)

    spec = read_spec(folder / "cube.zarr")
    for year, is_fit in (("2024", True), ("2022-05", False)):
        texts = [name.replace("2022", year) for name in names] if is_fit else ["2022-05"]
        other = replace(spec, periods=tuple(map(Period.parse, texts)))
        path = folder / f"{year}.zarr"
        create_cube(path, other)
        if is_fit:
            found = classify(open_cube(path), folder / "classifier")
            assert not found["species"].values.any(), "nothing was seen in that year"
        else:
            with pytest.raises(ClassifierError, match=r"periods: needs 05-01/05-15 .* has 05$"):
                classify(open_cube(path), folder / "classifier")


def test_acquisitions_follow_from_the_locked_scenes(
    forest_recipe: WriteRecipe, reporter: Reporter
) -> None:
    monthly = without_labels(forest_recipe(*MAY_AND_JUNE))
    lock = monthly.outputs.folder / "scenes.parquet"
    months = plan_cube(monthly)
    written = lock.stat().st_mtime_ns
    recipe = without_labels(
        forest_recipe(*MAY_AND_JUNE, "months.step=acquisition", "cluster.workers=1")
    )
    plan = plan_cube(recipe)
    assert lock.stat().st_mtime_ns == written, "the same scenes answer for any step"
    starts = sorted({scene.overpass_start for scene in read_scenes(lock).scenes})
    assert plan.spec.periods == tuple(map(Period.of_acquisition, starts))
    assert set(plan.looks.values()) == {1}
    assert sum(plan.looks.values()) == sum(months.looks.values())

    with open_run(recipe, reporter) as run:
        run.build()
    cube = open_cube(recipe.outputs.folder / "cube.zarr")
    instants = [np.datetime64(start.replace(tzinfo=None), "ns") for start in starts]
    np.testing.assert_array_equal(cube["time"].values.astype("M8[ns]"), instants)
    clear, share = cube["clear_count"].values, cube["clear_share"].values
    assert clear.max() == 1
    np.testing.assert_array_equal(share == 100, clear == 1)
    assert set(np.unique(share)) <= {0, 100, 255}
    of_year = np.array([start.timetuple().tm_yday for start in starts])[:, None, None]
    np.testing.assert_array_equal(cube["mean_day"].values, clear * of_year)


def test_acquisitions_are_refused_for_training_before_and_after_the_build(
    forest_recipe: WriteRecipe, reporter: Reporter
) -> None:
    recipe = forest_recipe(*MAY_AND_JUNE, "months.step=acquisition")
    with (
        open_run(recipe, reporter) as run,
        pytest.raises(InputError, match=r"no classifier can be trained on them\nset months.step"),
    ):
        run.all()
    assert not (recipe.outputs.folder / "cube.zarr").exists()

    with open_run(recipe, reporter) as run:
        run.build()
        run.sample()
        with pytest.raises(SampleError, match=r"single acquisition, .* in another year\nbuild"):
            run.train()


@pytest.mark.parametrize("step", ["season", "16", "acquisition"])
def test_shares_and_days_of_real_scenes_equal_plain_counting(
    shared_data: Path, tmp_path: Path, step: str, reporter: Reporter
) -> None:
    file = shared_data / "nrt-romania" / "sentinel2_cube_subset_romania_10m.nc"
    (tmp_path / "recipe.toml").write_text(
        f"""
        name = "Romania"
        bands = ["B02"]
        [months]
        first = "2018-06"
        last = "2019-05"
        [source]
        kind = "stack"
        files = ["{file}"]
        bands = {{ B02 = "B2" }}
        mask = "SCL"
        [composite]
        tile = 64
        chunk = 64
        [outputs]
        folder = "out"
        """
    )
    recipe = read_recipe(tmp_path / "recipe.toml", (f"months.step={step}", "cluster.workers=1"))
    with open_run(recipe, reporter) as run:
        run.build()
    cube = open_cube(tmp_path / "out" / "cube.zarr").load()

    with xr.open_dataset(file, mask_and_scale=False) as scenes:
        times, blue, classes = (scenes[name].values for name in ("time", "B2", "SCL"))
    has_data = blue > 0
    is_clear = has_data & np.isin(classes, (4, 5, 6, 7))
    expected = 0
    for at, name in enumerate(cube["period"].values.tolist()):
        period = Period.parse(name)
        inside = (period.start <= times) & (times < period.end)
        expected += inside.sum()
        seen, clear = (part[inside].sum(axis=0) for part in (has_data, is_clear))
        np.testing.assert_array_equal(cube["clear_count"].values[at], clear)
        share = cube["clear_share"].values[at]
        np.testing.assert_array_equal(share == 255, seen == 0)
        near = np.abs(share - 100 * clear / np.maximum(seen, 1))
        assert near[seen > 0].max(initial=0) <= 0.5
        dates = times[inside].astype("M8[D]").astype(int)
        for y, x in ((0, 0), (50, 60), (99, 99)):
            own = dates[is_clear[inside][:, y, x]]
            mean = np.datetime64(int(np.rint(own.mean())), "D").item() if own.size else None
            day = mean.timetuple().tm_yday if mean else 0
            assert cube["mean_day"].values[at, y, x] == day
    whole = (np.datetime64("2018-06") <= times) & (times < np.datetime64("2019-06"))
    assert expected == whole.sum()
