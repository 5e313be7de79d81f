"""What a lazy map refuses before anything is computed, and how often a classifier is loaded."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from repeated_cube import tile_samples, write_classifier, write_cube

from cube import open_cube
from cube.errors import InputError
from model.classifier import SpeciesClassifier
from model.config import TrainConfig
from pipelines import classify
from pipelines.lazy_map import classifier_stamp, load_once

BANDS = ("B02", "B04", "B08", "B11")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[xr.Dataset, Path]:
    """Return a cube and a classifier that was saved without extra layers."""
    folder = tmp_path_factory.mktemp("run")
    year = np.random.default_rng(0).integers(100, 4000, (4, len(BANDS), 64, 64)).astype(np.int16)
    recipe = write_cube(folder, year, BANDS, tiles=1)
    config = TrainConfig.preset("default", features=["B04", "B08", "NDVI"], hidden=8, epochs=1)
    write_classifier(folder, tile_samples(year, BANDS, count=300, classes=3), config)
    return open_cube(recipe.outputs.folder / "cube.zarr"), recipe.outputs.folder / "classifier"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"layers": ("aplicable",)}, "layers asks for 'aplicable'; expected names of likely_class"),
        ({"layers": "applicable"}, "layers is 'applicable'; expected a list of names"),
        (
            {"layers": ["applicable"]},
            "layers asks for 'applicable', which the classifier was saved",
        ),
        ({"layers": ["species"]}, "layers asks for 'species'"),
        ({"engine": "warp"}, "engine is 'warp'; expected one of auto, exact"),
        ({"min_months": 0}, "min_months is 0; expected 1 or more"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    made: tuple[xr.Dataset, Path], options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        classify(*made, **options)


def test_a_dataset_that_is_no_cube_is_refused(made: tuple[xr.Dataset, Path]) -> None:
    cube, classifier = made
    with pytest.raises(InputError, match="the cube has no variable 'reflectance'; open it with"):
        classify(cube.drop_vars("reflectance"), classifier)


def test_threads_that_come_together_load_once(
    made: tuple[xr.Dataset, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "another"  # not in the cache
    folder.mkdir()
    for file in made[1].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    loads, load, together = [], SpeciesClassifier.load, threading.Barrier(4)

    def slowly(path: Path) -> SpeciesClassifier:
        loads.append(path)
        time.sleep(0.05)
        return load(path)

    def ask(_: int) -> SpeciesClassifier:
        together.wait(30)
        return load_once(folder, stamp)

    monkeypatch.setattr(SpeciesClassifier, "load", slowly)
    stamp = classifier_stamp(folder)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(4)))
    assert loads == [folder]
    assert len(set(map(id, found))) == 1
