"""The command line: exit codes, messages, and nothing half-written for bad input."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely

from cube.forest import Forest
from pipelines.recipe import Recipe

Command = Callable[..., tuple[int, str, str]]
WriteRecipe = Callable[..., Recipe]


def _refused(command: Command, recipe: Path, *words: str, step: str = "run") -> str:
    """Run a step that must end with exit code 2; return its one- or two-line complaint."""
    code, printed, complaint = command(step, recipe, *words)
    assert code == 2, complaint
    assert printed == ""
    assert complaint.startswith("canopycube: ")
    assert complaint.count("\n") <= 2
    assert "Traceback" not in complaint
    return complaint


@pytest.fixture
def recipe_path(forest_recipe: WriteRecipe, tmp_path: Path) -> Path:
    forest_recipe()
    return tmp_path / "recipe.toml"


def test_an_area_outside_every_scene(command: Command, recipe_path: Path, tmp_path: Path) -> None:
    text = recipe_path.read_text()
    line = next(line for line in text.splitlines() if line.startswith("file"))
    recipe_path.write_text(text.replace(line, "bbox = [10.0, 50.0, 10.02, 50.02]", 1))
    complaint = _refused(command, recipe_path)
    assert "no usable scene" in complaint
    assert not (tmp_path / "out").exists()


def test_labels_without_crs(
    command: Command, recipe_path: Path, tmp_path: Path, forest: Forest
) -> None:
    labels = geopandas.read_file(forest.labels)
    labels.to_file(tmp_path / "labels.shp")
    (tmp_path / "labels.prj").unlink()
    complaint = _refused(command, recipe_path, "--set", f"reference.file={tmp_path}/labels.shp")
    assert "CRS" in complaint
    assert not (tmp_path / "out" / "samples.zarr").exists()


@pytest.mark.parametrize("engine", ["", 'a"b', 'exact"\nname = "x'])
def test_an_unknown_engine_is_named(command: Command, recipe_path: Path, engine: str) -> None:
    code, _, complaint = command("map", recipe_path, "--engine", engine)
    assert code == 2
    assert "map.engine" in complaint


def test_an_unknown_class_column(command: Command, recipe_path: Path, tmp_path: Path) -> None:
    complaint = _refused(command, recipe_path, "--set", "reference.class_column=species")
    assert "'species'" in complaint
    assert "class" in complaint
    assert "stand" in complaint
    assert not (tmp_path / "out" / "samples.zarr").exists()


def test_labels_all_outside_the_cube(command: Command, recipe_path: Path, tmp_path: Path) -> None:
    points = [shapely.Point(20 + i / 10, 50) for i in range(4)]
    table = {"class": ["a", "b", "a", "b"], "stand": [1, 2, 3, 4]}
    geopandas.GeoDataFrame(table, geometry=points, crs=4326).to_file(tmp_path / "far.gpkg")
    complaint = _refused(command, recipe_path, "--set", f"reference.file={tmp_path}/far.gpkg")
    assert "outside" in complaint
    assert not (tmp_path / "out" / "samples.zarr").exists()


def test_a_classifier_of_other_bands(command: Command, recipe_path: Path, tmp_path: Path) -> None:
    assert command("run", recipe_path)[0] == 0
    shutil.copytree(tmp_path / "out" / "classifier", tmp_path / "kept")
    bands = 'bands=["B02", "B04", "B8A"]'
    words = ("--set", bands, "--set", "outputs.folder=other")
    assert command("build", recipe_path, *words)[0] == 0
    shutil.copytree(tmp_path / "kept", tmp_path / "other" / "classifier")
    complaint = _refused(command, recipe_path, *words, step="map")
    assert "the classifier does not fit the cube" in complaint
    assert "lacks" in complaint
    assert not (tmp_path / "other" / "map.zarr").exists()


def test_a_truncated_image(
    command: Command, recipe_path: Path, tmp_path: Path, forest: Forest
) -> None:
    copy = tmp_path / "broken"
    shutil.copytree(forest.folder, copy)
    image = sorted(copy.rglob("B08*.tif"))[0]
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    code, _, complaint = command(
        "build", str(recipe_path), "--set", f"source.catalogue={copy / 'catalog.json'}"
    )
    assert code == 1
    assert "1 scene was lost to broken files, 0 are allowed" in complaint
    assert image.name in complaint
    assert "source.lost_scenes" in complaint


@pytest.mark.parametrize("kind", ["file", "folder", "foreign zarr"])
def test_a_cube_path_that_is_something_else(
    command: Command, recipe_path: Path, tmp_path: Path, kind: str
) -> None:
    place = tmp_path / "out" / "cube.zarr"
    place.parent.mkdir()
    if kind == "file":
        place.write_text("mine")
    elif kind == "folder":
        place.mkdir()
        (place / "thesis.txt").write_text("mine")
    else:
        import zarr

        zarr.create_group(place, attributes={"author": "me"})
    before = sorted(
        str(path)
        for path in place.parent.rglob("*")
        if path.name not in ("scenes.parquet", ".lock") and ".lease" not in path.parts
    )
    complaint = _refused(command, recipe_path)
    assert "cube.zarr" in complaint
    assert "expected a canopycube cube" in complaint
    after = sorted(
        str(path)
        for path in place.parent.rglob("*")
        if path.name not in ("scenes.parquet", ".lock") and ".lease" not in path.parts
    )
    assert before == after


def test_steps_out_of_order_say_what_comes_first(command: Command, recipe_path: Path) -> None:
    assert "run `canopycube build` first" in _refused(command, recipe_path, step="sample")
    assert "run `canopycube map` first" in _refused(command, recipe_path, step="publish")
    assert command("build", recipe_path)[0] == 0
    assert "run `canopycube sample` first" in _refused(command, recipe_path, step="train")
    assert "run `canopycube train` first" in _refused(command, recipe_path, step="map")


def test_machines_get_one_json_object(command: Command, recipe_path: Path) -> None:
    code, printed, complaint = command("plan", recipe_path, "--json")
    assert (code, complaint) == (0, "")
    plan = json.loads(printed)
    assert plan["shape"] == {"time": 12, "band": 5, "y": 120, "x": 120}
    assert plan["tiles"] == 4
    assert "2022-01" in plan["periods_without_scenes"]
    code, printed, _ = command("plan", recipe_path, "--json", "--set", "months.first=never")
    assert code == 2
    assert json.loads(printed)["exit"] == 2


def test_plan_knows_the_network_and_whose_workers_map(command: Command, recipe_path: Path) -> None:
    def plan(*settings: str) -> dict[str, Any]:
        words = [word for setting in settings for word in ("--set", setting)]
        code, printed, complaint = command("plan", recipe_path, "--json", *words)
        assert (code, complaint) == (0, "")
        return dict(json.loads(printed))

    usual, wider = plan(), plan("training.hidden=512")
    assert 0 < usual["map_peak_bytes"] < wider["map_peak_bytes"]
    far = plan("cluster.kind=scheduler", "cluster.address=tcp://127.0.0.1:1", "cluster.workers=64")
    assert far["map_tiles_at_once"] is None
    assert 0 < far["map_peak_bytes"] <= usual["map_peak_bytes"]


def test_init_writes_a_recipe_once(command: Command, tmp_path: Path) -> None:
    assert command("init", tmp_path / "mine.toml")[0] == 0
    code, _, complaint = command("init", tmp_path / "mine.toml")
    assert code == 2
    assert "not overwritten" in complaint
    assert command("init", tmp_path / "none" / "mine.toml")[0] == 2


def test_a_wrong_command_is_told_with_usage(capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.__main__ import main

    with pytest.raises(SystemExit) as stopped:
        main(["mapp"])
    assert stopped.value.code == 2
    assert "invalid choice: 'mapp'" in capsys.readouterr().err


def test_help_and_wrong_recipes_cost_no_torch(tmp_path: Path) -> None:
    # torch and xarray take seconds to import: a mistyped recipe is told before them
    (tmp_path / "recipe.toml").write_text("name = 5")
    check = (
        "import sys; from pipelines.__main__ import main; code = main(sys.argv[1:]);"
        "slow = {'torch', 'xarray', 'dask'} & set(sys.modules); sys.exit(9 if slow else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", check, "run", str(tmp_path / "recipe.toml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "name: found 5" in done.stderr
