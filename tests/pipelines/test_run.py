"""A whole run on the synthetic forest: resumed, repeated, on threads and processes."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr

from cube import open_cube
from cube.bands import REFLECTANCE_BANDS
from cube.errors import InputError
from cube.forest import Forest, true_scene
from cube.mapstore import open_map
from cube.stac import read_scenes
from model.classifier import SpeciesClassifier
from pipelines import classify
from pipelines.progress import Reporter
from pipelines.recipe import Recipe
from pipelines.run import open_run

WriteRecipe = Callable[..., Recipe]


def chunk_bytes(store: Path) -> dict[str, str]:
    """Return the hash of every file of a store that is not its ledger."""
    return {
        str(file.relative_to(store)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(store.rglob("*"))
        if file.is_file() and "ledger" not in file.relative_to(store).parts
    }


def test_the_report_has_what_a_forester_asks(finished: tuple[Recipe, dict[str, Any]]) -> None:
    _, report = finished
    assert report["cube"]["tiles"] == "4 of 4"
    assert report["map"]["tiles"] == "4 of 4, 0 failed"
    assert sum(report["samples"]["by_class"].values()) == report["samples"]["samples"]
    splits = [(entry["model"], entry["split"]) for entry in report["training"]["scores"]["entries"]]
    assert len(splits) == len(set(splits)) == 9
    assert sum(report["published"]["hectares"].values()) == pytest.approx(144, abs=0.1)
    assert report["run"]["peak_memory_mb"] > 0


def test_the_composite_is_the_median_of_what_the_scenes_hold(
    finished: tuple[Recipe, dict[str, Any]], forest: Forest
) -> None:
    """April, blue: an independent read with rasterio of the scenes the lock kept."""
    recipe, _ = finished
    cube = open_cube(recipe.outputs.folder / "cube.zarr").sel(time="2022-04", band="B02")
    locked = read_scenes(recipe.outputs.folder / "scenes.parquet").scenes
    looks = []
    for scene in sorted(locked, key=lambda scene: scene.time):
        if scene.time.month != 4 or scene.epsg != 32648:
            continue
        layers = {}
        for name in ("B02", "B04", "B05", "B08", "B11", "SCL"):
            with rasterio.open(scene.assets[name].href) as file:
                layer = file.read(1).astype(int)
            layers[name] = layer
        scl = layers["SCL"].repeat(2, 0).repeat(2, 1)
        has_data = layers["B02"] > 0
        is_clear = np.isin(scl, (4, 5, 6, 7)) & has_data
        looks.append(np.where(is_clear, layers["B02"] + scene.offset, np.nan))
    zone_49 = [scene for scene in locked if scene.epsg == 32649 and scene.time.month == 4]
    assert zone_49  # an overpass of the other zone fills gaps only where its twin saw nothing
    stack = np.array(looks)
    seen = np.isfinite(stack).any(axis=0)
    middle = np.full(seen.shape, np.nan)
    middle[seen] = np.rint(np.nanmedian(stack[:, seen], axis=0)) * 1e-4
    found = cube["reflectance"].values.squeeze()
    both = np.isfinite(found) & np.isfinite(middle)
    assert both.mean() > 0.5
    assert (np.abs(found - middle)[both] < 1e-6).mean() > 0.98


def test_offsets_that_lie_do_not_reach_the_cube(
    finished: tuple[Recipe, dict[str, Any]], forest: Forest
) -> None:
    recipe, _ = finished
    liars = [scene for scene in forest.scenes if scene.is_lying]
    assert liars
    locked = {s.id: s for s in read_scenes(recipe.outputs.folder / "scenes.parquet").scenes}
    settled = 0
    for scene in liars:
        record = locked[scene.id]
        if "undecided" in record.offset_reason:
            continue  # hazy dark pixels tell neither way: the item is believed, and the lock says so
        assert record.offset == (-1000 if scene.offset_in_pixels else 0)
        settled += 1
    assert settled >= len(liars) / 2
    may = next(s for s in liars if s.epsg == 32648)
    month = f"{may.time.year}-{may.time.month:02d}"
    cube = open_cube(recipe.outputs.folder / "cube.zarr").sel(time=month, band="B04")
    truth = true_scene(forest.spec, may.id).reflectance
    red = np.nanmedian(truth[REFLECTANCE_BANDS.index("B04")])
    # an offset taken off twice would leave the month 0.1 darker
    assert abs(np.nanmedian(cube["reflectance"].values) - red) < 0.03


def test_the_map_is_what_the_classifier_says_of_each_pixel(
    finished: tuple[Recipe, dict[str, Any]],
) -> None:
    recipe, _ = finished
    folder = recipe.outputs.folder
    cube = open_cube(folder / "cube.zarr").load()
    classifier = SpeciesClassifier.load(folder / "classifier")
    stored = open_map(folder / "map.zarr").load()
    bands = tuple(cube["band"].values.tolist())
    for y, x in [(0, 0), (63, 64), (64, 63), (119, 119), (17, 90), (100, 3)]:
        series = cube["reflectance"].isel(y=y, x=x).values[None]  # (1, time, band)
        probability = classifier.predict_samples(series, bands)[0]
        assert stored["species"].values[y, x] == probability.argmax() + 1
        assert round(stored["confidence"].values[y, x] * 100) == np.rint(probability.max() * 100)
        assert stored["months_observed"].values[y, x] == np.isfinite(series).all(axis=2).sum()


def test_the_lazy_map_equals_the_stored_one(finished: tuple[Recipe, dict[str, Any]]) -> None:
    recipe, _ = finished
    folder = recipe.outputs.folder
    lazy = classify(open_cube(folder / "cube.zarr"), folder / "classifier")
    stored = open_map(folder / "map.zarr")
    assert lazy["species"].chunks is not None
    assert lazy.rio.crs.to_epsg() == 32648
    window = {"y": slice(50, 80), "x": slice(40, 71)}
    np.testing.assert_array_equal(lazy["species"][window], stored["species"][window])
    for name in ("confidence", "margin", "months_observed"):
        np.testing.assert_array_equal(lazy[name][window], stored[name][window])


def test_the_geotiff_opens_with_names_and_colours(finished: tuple[Recipe, dict[str, Any]]) -> None:
    recipe, report = finished
    with rasterio.open(report["published"]["map"]) as file:
        assert file.crs.to_epsg() == 32648
        assert file.nodata == 0
        mapped = file.read(1)
        colours = file.colormap(1)
    sidecar = Path(report["published"]["map"] + ".aux.xml").read_text()
    classifier = SpeciesClassifier.load(recipe.outputs.folder / "classifier")
    for value, (name, colour) in enumerate(
        zip(classifier.classes, classifier.colours, strict=True), start=1
    ):
        assert f"<Category>{name}</Category>" in sidecar
        assert "#{:02x}{:02x}{:02x}".format(*colours[value]) == colour
    stored = xr.open_zarr(recipe.outputs.folder / "map.zarr", mask_and_scale=False)
    np.testing.assert_array_equal(mapped, stored["species"])
    for picture in ("legend", "quicklook"):
        assert Path(report["published"][picture]).read_bytes()[:4] == b"\x89PNG"


def test_running_again_does_nothing(
    finished: tuple[Recipe, dict[str, Any]], reporter: Reporter
) -> None:
    recipe, report = finished
    before = {
        path: path.stat().st_mtime_ns
        for path in recipe.outputs.folder.rglob("*")
        if path.is_file() and "report" not in path.name and path.parent.name != ".lease"
    }
    with open_run(recipe, reporter) as run:
        again = run.all()
    assert again["cube"]["built_now"] == again["map"]["mapped_now"] == 0
    assert again["cube"]["digest"] == report["cube"]["digest"]
    after = {
        path: path.stat().st_mtime_ns
        for path in recipe.outputs.folder.rglob("*")
        if path.is_file() and "report" not in path.name and path.parent.name != ".lease"
    }
    assert before == after


def test_chunks_that_divide_nothing_give_the_same_pixels(
    finished: tuple[Recipe, dict[str, Any]], forest_recipe: WriteRecipe, reporter: Reporter
) -> None:
    recipe, _ = finished
    other = forest_recipe(
        "composite.tile=50",
        "composite.chunk=25",
        "composite.sharded=false",
        "composite.zarr_format=2",
    )
    with open_run(other, reporter) as run:
        run.build()
    ours, theirs = (open_cube(r.outputs.folder / "cube.zarr").load() for r in (recipe, other))
    xr.testing.assert_equal(ours.drop_vars("spatial_ref"), theirs.drop_vars("spatial_ref"))


def test_a_killed_run_goes_on_where_it_was(
    forest_recipe: WriteRecipe, tmp_path: Path, reporter: Reporter
) -> None:
    keys = ("cluster.workers=1", "composite.tile=32", "months.first=2022-05", "months.last=2022-06")
    overrides = [word for key in keys for word in ("--set", key)]
    other = forest_recipe(*keys)
    ledger = other.outputs.folder / "cube.zarr" / "ledger"
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "build", str(tmp_path / "recipe.toml"), *overrides],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while len(list(ledger.glob("r*.json"))) < 3:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = {path: path.stat().st_mtime_ns for path in ledger.glob("r*.json")}
    assert 3 <= len(done) < 16
    with open_run(other, reporter) as run:
        found = run.build()
    assert found["built_now"] == 16 - len(done)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in done.items())

    undisturbed = other.outputs.folder / "undisturbed"
    whole = other.model_copy(
        update={"outputs": other.outputs.model_copy(update={"folder": undisturbed})}
    )
    with open_run(whole, reporter) as run:
        run.build()
    assert chunk_bytes(undisturbed / "cube.zarr") == chunk_bytes(other.outputs.folder / "cube.zarr")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_so_in_one_line(
    forest_recipe: WriteRecipe, tmp_path: Path, number: signal.Signals
) -> None:
    other = forest_recipe("composite.tile=16", "composite.chunk=16")
    ledger = other.outputs.folder / "cube.zarr" / "ledger"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pipelines",
            "build",
            str(tmp_path / "recipe.toml"),
            "--set",
            "composite.tile=16",
            "--set",
            "composite.chunk=16",
        ],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not list(ledger.glob("r*.json")):
            assert process.poll() is None, "the run ended before it could be stopped"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        _, complaint = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert complaint == "stopped; running again goes on where this left off\n"


def test_the_reference_preset_runs_from_scenes_to_map(
    forest_recipe: WriteRecipe, reporter: Reporter
) -> None:
    """Twenty features of fourteen bands, two layers of 128, last step to a linear layer."""
    bands = [*REFLECTANCE_BANDS, "AOT", "WVP"]
    recipe = forest_recipe(
        f"bands={json.dumps(bands)}",
        "training.preset=reference",
        "training.hidden=128",
        "training.epochs=1",
        "months.first=2022-05",
        "months.last=2022-06",
    )
    with open_run(recipe, reporter) as run:
        report = run.all()
    assert report["map"]["tiles"] == "4 of 4, 0 failed"
    classifier = SpeciesClassifier.load(recipe.outputs.folder / "classifier")
    config = classifier.fitted.config
    assert (config.hidden, config.layers, config.dropout, config.batch_size) == (128, 2, 0.2, 32)
    assert (config.learning_rate, config.standardise, config.mask_input) == (1e-3, False, False)
    assert len(config.features.names) == 20
    water = open_cube(recipe.outputs.folder / "cube.zarr").sel(band="WVP")["reflectance"]
    assert 0.01 < float(water.mean()) < 0.5, "decimetres of water vapour"


def test_the_reference_preset_says_which_bands_it_lacks(
    forest_recipe: WriteRecipe, reporter: Reporter
) -> None:
    with (
        open_run(forest_recipe("training.preset=reference"), reporter) as run,
        pytest.raises(ValueError, match=r"training needs bands .*, which the samples do not have"),
    ):
        run.all()
    assert not (run.layout.cube).exists(), "told before the build"


def test_results_are_not_written_over_an_import(
    forest_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    (tmp_path / "imported").mkdir()
    (tmp_path / "imported" / "import.json").write_text("{}")
    recipe = forest_recipe(f"outputs.folder='{tmp_path / 'imported'}'")
    with pytest.raises(InputError, match="holds an import"), open_run(recipe):
        pass
