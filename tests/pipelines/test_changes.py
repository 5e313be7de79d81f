"""What happens when a recipe changes between runs, or two runs meet: nothing stale survives."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import zarr

from cube import map_classes, open_cube
from cube.errors import InputError, WorkFailedError
from cube.ledger import Ledger
from pipelines import map_species
from pipelines.progress import Reporter
from pipelines.recipe import Recipe, read_recipe
from pipelines.run import open_run

WriteRecipe = Callable[..., Recipe]
Finished = tuple[Recipe, dict[str, Any]]


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Callable[..., Recipe]:
    """Return a function that reads the finished run's recipe over a copy of its folder."""
    recipe, _ = finished
    shutil.copytree(recipe.outputs.folder, tmp_path / "copy" / "out")
    path = tmp_path / "copy" / "recipe.toml"
    shutil.copy(recipe.outputs.folder.parent / "recipe.toml", path)
    return lambda *overrides: read_recipe(path, ("cluster.workers=2", *overrides))


def test_a_copied_folder_is_still_finished(copy: Callable[..., Recipe]) -> None:
    with open_run(copy()) as run:
        report = run.all()
    assert report["cube"]["built_now"] == report["map"]["mapped_now"] == 0


def test_new_class_names_and_colours_reach_what_is_published(copy: Callable[..., Recipe]) -> None:
    with open_run(copy()) as run:
        before = run.report["training"]["scores"]["entries"][0]["scores"]["classes"]
    names = {name: name.upper() for name in before}
    classes = "{" + ", ".join(f'"{old}" = "{new}"' for old, new in names.items()) + "}"
    recipe = copy(f"reference.classes={classes}", 'reference.colours={LARCH_JP = "#123456"}')
    with open_run(recipe) as run:
        report = run.all()
    sidecar = Path(report["published"]["map"] + ".aux.xml").read_text()
    assert "<Category>LARCH_JP</Category>" in sidecar
    assert "<Category>larch_JP</Category>" not in sidecar
    value = next(
        item.value for item in map_classes(Path(report["map"]["path"])) if item.name == "LARCH_JP"
    )
    with rasterio.open(report["published"]["map"]) as file:
        assert file.colormap(1)[value] == (0x12, 0x34, 0x56, 255)


def test_another_colour_alone_does_not_train_again(copy: Callable[..., Recipe]) -> None:
    with open_run(copy('reference.colours={larch_JP = "#123456"}')) as run:
        trained = run.report["training"]
        report = run.all()
    assert report["training"] == trained
    with rasterio.open(report["published"]["map"]) as file:
        assert (0x12, 0x34, 0x56, 255) in file.colormap(1).values()


def test_a_colour_of_no_class_is_refused(copy: Callable[..., Recipe]) -> None:
    recipe = copy('reference.colours={lark = "#123456"}')
    with open_run(recipe) as run, pytest.raises(InputError, match="names 'lark', which is no cl"):
        run.all()


def test_part_of_a_map_is_not_published(copy: Callable[..., Recipe]) -> None:
    recipe = copy()
    store = recipe.outputs.folder / "map.zarr"
    next((store / "ledger").glob("r*.json")).unlink()
    with open_run(recipe) as run, pytest.raises(InputError, match="the map has 3 of 4 tiles"):
        run.publish()
    with open_run(recipe) as run:
        assert run.all()["map"]["mapped_now"] == 1


def _failing(*_: Any, **__: Any) -> None:
    raise WorkFailedError("as if a worker had died")


def test_a_map_begun_anew_takes_the_old_one_out_of_the_report(
    copy: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = copy("map.min_months=3")
    with open_run(recipe) as run:
        monkeypatch.setattr(map_species, "run_tasks", _failing)
        with pytest.raises(WorkFailedError, match="as if a worker"):
            run.map()
    monkeypatch.undo()
    report = json.loads((recipe.outputs.folder / "report.json").read_text())
    assert "map" not in report
    assert "published" not in report
    with open_run(recipe) as run, pytest.raises(InputError, match="no finished map yet"):
        run.publish()


def test_a_tile_that_other_inputs_overwrote_is_made_again(
    forest_recipe: WriteRecipe, reporter: Reporter
) -> None:
    months = ("months.first=2022-05", "months.last=2022-05", "cluster.workers=1")
    first, other = forest_recipe(*months), forest_recipe(*months, "mask.classes=[4]")
    with open_run(first, reporter) as run:
        run.build()
        wanted = open_cube(first.outputs.folder / "cube.zarr").load()
    with open_run(other, reporter) as run:
        run.build()
        ledger = Ledger(store=other.outputs.folder / "cube.zarr", inputs=run.plan.tile_inputs)
        assert len(ledger.records()) == 4
        for record in ledger.folder.glob("r*.json"):
            record.unlink()  # as if it had died between pixels and record
    with open_run(first, reporter) as run:
        assert run.build()["built_now"] == 4
    found = open_cube(first.outputs.folder / "cube.zarr").load()
    np.testing.assert_array_equal(found["reflectance"], wanted["reflectance"])


def test_edited_labels_are_noticed(copy: Callable[..., Recipe], tmp_path: Path) -> None:
    with open_run(copy()) as run:
        labels = geopandas.read_file(run.recipe.reference.file)
    labels.to_file(tmp_path / "labels.shp")
    recipe = copy(f"reference.file={tmp_path / 'labels.shp'}")
    with open_run(recipe) as run:
        first = run.sample()["by_class"]
    labels["class"] = labels["class"].replace("larch_CN", "larch_JP")
    labels.to_file(tmp_path / "labels.shp")  # the classes lie in the .dbf
    with open_run(recipe) as run:
        second = run.sample()["by_class"]
    assert "larch_CN" in first
    assert "larch_CN" not in second


def test_a_swapped_classifier_does_not_keep_the_old_scores(
    copy: Callable[..., Recipe],
) -> None:
    recipe = copy()
    description = recipe.outputs.folder / "classifier" / "classifier.json"
    assert description.exists()
    with open_run(copy("training.seed=5")) as run:
        other = run.train()
    with open_run(recipe) as run:
        again = run.train()
    assert again["fingerprint"] != other["fingerprint"]


def test_two_runs_do_not_share_a_folder(forest_recipe: WriteRecipe, tmp_path: Path) -> None:
    recipe = forest_recipe()
    with open_run(recipe):
        done = subprocess.run(
            [sys.executable, "-m", "pipelines", "run", str(tmp_path / "recipe.toml")],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 2
    assert re.search(r"another run \(process \d+ on .*\) is at work in", done.stderr)
    assert not recipe.outputs.folder.exists(), "neither run made anything"


def test_a_tile_that_fails_is_told_in_one_line(forest_recipe: WriteRecipe, tmp_path: Path) -> None:
    """In a process of its own, for what workers print must not reach the user either."""
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    for day in ("20220105", "20220205"):
        with rasterio.open(
            scenes / f"S2_{day}_B02.tif",
            "w",
            driver="GTiff",
            dtype="uint16",
            count=1,
            height=200,
            width=200,
            crs="EPSG:32633",
            transform=rasterio.transform.from_origin(500000, 5000000, 10, 10),
        ) as file:
            file.write(np.random.default_rng(0).integers(1, 4000, (1, 200, 200), dtype="u2"))
    image = scenes / "S2_20220205_B02.tif"
    image.write_bytes(image.read_bytes()[:30000])
    recipe = tmp_path / "stack.toml"
    recipe.write_text(
        'name = "s"\nbands = ["B02"]\n[months]\nfirst = "2022-01"\nlast = "2022-02"\n'
        '[source]\nkind = "stack"\nfiles = ["scenes/S2_{date:%Y%m%d}_{band}.tif"]\n'
        '[composite]\ntile = 64\nchunk = 64\n[outputs]\nfolder = "out"\n'
    )
    for kind in ("threads", "local"):
        words = [sys.executable, "-m", "pipelines", "run", str(recipe)]
        done = subprocess.run(
            [*words, "--set", f"cluster.kind={kind}"],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") <= 2, done.stderr
        assert "S2_20220205_B02.tif" in done.stderr
        assert "tile r0" in done.stderr
        assert not (tmp_path / "out" / "cube.zarr").exists() or zarr.open_group(
            tmp_path / "out" / "cube.zarr", mode="r"
        )


@pytest.mark.parametrize("damage", ["lost", "cut short"])
def test_a_damaged_file_of_the_cube_is_noticed_and_built_anew(
    copy: Callable[..., Recipe], damage: str
) -> None:
    recipe = copy("map.min_months=2")
    store = recipe.outputs.folder / "cube.zarr"
    before = (store / "reflectance" / "c" / "0" / "0" / "0" / "1").read_bytes()
    if damage == "lost":
        (store / "reflectance" / "c" / "0" / "0" / "0" / "1").unlink()
    else:
        (store / "reflectance" / "c" / "0" / "0" / "0" / "1").write_bytes(
            before[: len(before) // 2]
        )
    with open_run(recipe) as run:
        if damage == "lost":
            assert run.build()["built_now"] == 1
        else:
            with pytest.raises(WorkFailedError, match=r"r0000c0001 of .* cannot be read"):
                run.map()
    with open_run(recipe) as run:
        report = run.all()
    assert report["cube"]["built_now"] == (0 if damage == "lost" else 1)
    assert (store / "reflectance" / "c" / "0" / "0" / "0" / "1").read_bytes() == before
    assert report["map"]["tiles"] == "4 of 4, 0 failed"


def test_pixels_that_are_not_what_was_built_are_not_mapped(copy: Callable[..., Recipe]) -> None:
    recipe = copy("map.min_months=2")
    group = zarr.open_group(recipe.outputs.folder / "cube.zarr", mode="r+")
    group["reflectance"][0, 0, 100, 100] = 77
    with open_run(recipe) as run, pytest.raises(WorkFailedError, match="not what was built"):
        run.map()
    with open_run(recipe) as run:
        assert run.all()["cube"]["built_now"] == 1


def test_a_lost_file_of_the_map_is_not_published(copy: Callable[..., Recipe]) -> None:
    recipe = copy()
    (recipe.outputs.folder / "map.zarr" / "species" / "c" / "1" / "1").unlink()
    (recipe.outputs.folder / "map.tif").unlink()
    with open_run(recipe) as run, pytest.raises(WorkFailedError, match="r0001c0001 of the map"):
        run.publish()
    with open_run(recipe) as run:
        assert run.all()["map"]["mapped_now"] == 1


@pytest.mark.parametrize("text", ["garbage", None])
def test_a_damaged_classifier_is_trained_again(
    copy: Callable[..., Recipe], text: str | None
) -> None:
    recipe = copy()
    description = recipe.outputs.folder / "classifier" / "classifier.json"
    edited = description.read_text().replace("larch_JP", "larch_XX") if text is None else text
    description.write_text(edited)
    with open_run(recipe) as run:
        expected = run.report["training"]["fingerprint"]
        assert run.all()["training"]["fingerprint"] == expected
    assert "larch_JP" in description.read_text()
