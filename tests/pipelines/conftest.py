"""Runs of the whole chain that several tests look at, each made once."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cube.forest import Forest, ForestSpec
from pipelines.progress import Reporter
from pipelines.recipe import Recipe, read_recipe
from pipelines.run import open_run


@pytest.fixture(scope="session", autouse=True)
def _searches_in_a_folder_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANOPYCUBE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


FOREST_RECIPE = """
name = "Small forest"
bands = ["B02", "B04", "B05", "B08", "B11"]
[area]
file = "forest/area.geojson"
[months]
first = "2022-01"
last = "2022-12"
[source]
kind = "stac"
catalogue = "forest/catalog.json"
offset = "verify"
[composite]
tile = 64
chunk = 32
[reference]
file = "forest/labels.gpkg"
group_column = "stand"
[sampling]
block_size = 300
[training]
hidden = 16
epochs = 4
baselines = ["lda"]
importance = false
# a small forest has few stands of some classes
audit_allow = ["few-groups"]
[outputs]
folder = "out"
"""


@pytest.fixture(scope="session")
def forest(written: Callable[[ForestSpec], Forest]) -> Forest:
    """Return a forest of 120 x 120 pixels, which tiles of 64 do not divide."""
    return written(ForestSpec(scale=0.25, lying_share=0.2))


@pytest.fixture(scope="session")
def honest(written: Callable[[ForestSpec], Forest]) -> Forest:
    """Return a forest whose items tell the truth: of liars, STAC may believe one that haze hides."""
    return written(ForestSpec(scale=0.25, lying_share=0.0))


@pytest.fixture(scope="session")
def reporter() -> Reporter:
    """Return a reporter that says nothing."""
    return Reporter(is_quiet=True)


def _write_recipe(folder: Path, forest: Forest, overrides: tuple[str, ...]) -> Recipe:
    path = folder / "recipe.toml"
    path.write_text(FOREST_RECIPE.replace("forest/", f"{forest.folder}/"))
    return read_recipe(path, overrides)


@pytest.fixture
def forest_recipe(forest: Forest, tmp_path: Path) -> Callable[..., Recipe]:
    """Return a function that writes the forest's recipe into `tmp_path` and reads it."""
    return lambda *overrides: _write_recipe(tmp_path, forest, overrides)


@pytest.fixture(scope="session")
def finished(
    forest: Forest, tmp_path_factory: pytest.TempPathFactory, reporter: Reporter
) -> tuple[Recipe, dict[str, Any]]:
    """Carry the forest's recipe out once, in two threads: the recipe and its report."""
    recipe = _write_recipe(tmp_path_factory.mktemp("run"), forest, ("cluster.workers=2",))
    with open_run(recipe, reporter) as run:
        return recipe, json.loads(json.dumps(run.all()))


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Return a function that runs one command: exit code, what it printed, what it complained."""
    from pipelines.__main__ import main

    def run(*words: str | Path) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run
