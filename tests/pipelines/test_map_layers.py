"""Layers that a map has if asked for: against the classifier's own word on each pixel, and published."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from repeated_cube import tile_samples, write_classifier, write_cube

from cube import open_cube
from cube.errors import InputError
from cube.mapstore import open_map
from model.certainty.applicability import Applicability, clear_values
from model.certainty.conformal import ConformalSets
from model.certainty.space import Space
from model.classifier import SpeciesClassifier
from model.config import TrainConfig
from model.predict import predict_block
from pipelines import classify
from pipelines.recipe import Recipe, read_recipe
from pipelines.run import open_run

BANDS = ("B02", "B04", "B08", "B11")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Return a recipe with a cube of 96 x 96 and a classifier that knows what it does not know."""
    folder = tmp_path_factory.mktemp("run")
    generator = np.random.default_rng(0)
    year = generator.integers(100, 4000, (4, len(BANDS), 48, 48)).astype(np.int16)
    year = year // 4 + np.linspace(0, 3000, 48, dtype=np.int16)
    year[:, :, 30:40] += 4000  # like nothing that was trained on
    hidden = generator.random((4, 48, 48)) < 0.2
    year = np.where(hidden[:, None], np.int16(-32768), year)
    year[:, :, :5, :5] = -32768
    recipe = write_cube(folder, year, BANDS, tiles=2)
    samples = tile_samples(year[:, :, :30], BANDS, count=600, classes=3)
    config = TrainConfig.preset("default", features=["B04", "B08", "NDVI"], hidden=8, epochs=4)
    write_classifier(folder, samples, config)
    trained = SpeciesClassifier.load(folder / "out" / "classifier")
    values = clear_values(trained.fitted.features, samples.reflectance, BANDS)
    space = Space.learn(values, label=samples.label, group=samples.group)
    certain = replace(
        trained,
        conformal=ConformalSets(
            coverage=0.9, threshold=np.array([0.3, 0.6, 0.9]), groups=np.array([50, 50, 50])
        ),
        applicability=Applicability(spaces={"features": space}, thresholds={"features": 0.8}),
    )
    certain.save(folder / "certain")
    trained.save(folder / "plain")
    return recipe


def _with_classifier(recipe: Recipe, name: str, *overrides: str) -> Recipe:
    folder = recipe.outputs.folder.parent
    target = recipe.outputs.folder / "classifier"
    for file in target.glob("*"):
        file.unlink()
    for file in (folder / name).glob("*"):
        (target / file.name).write_bytes(file.read_bytes())
    return read_recipe(folder / "recipe.toml", overrides)


def test_layers_are_what_the_classifier_says_of_each_pixel(finished: Recipe) -> None:
    recipe = _with_classifier(
        finished, "certain", 'map.layers=["applicable", "likely_classes"]', "map.engine=torch"
    )
    with open_run(recipe) as run:
        made = run.map()
        assert run.map()["mapped_now"] == 0
        published = run.publish()
    assert made["tiles"] == "4 of 4, 0 failed"
    cube = open_cube(recipe.outputs.folder / "cube.zarr").load()
    classifier = SpeciesClassifier.load(recipe.outputs.folder / "classifier")
    pixels = cube["reflectance"].values.reshape(4, len(BANDS), -1).transpose(2, 0, 1)
    pixels = np.ascontiguousarray(pixels)  # (pixel, time, band)
    probability = classifier.predict_samples(pixels, BANDS)
    is_known = np.isfinite(probability[:, 0])
    likely = (probability >= 1 - np.array([0.3, 0.6, 0.9])).sum(axis=1)
    applicable = classifier.is_applicable(pixels, BANDS)
    found = open_map(made["path"]).load()
    np.testing.assert_array_equal(
        found["likely_classes"].values.ravel(), np.where(is_known, likely, np.nan)
    )
    np.testing.assert_array_equal(
        found["applicable"].values.ravel(), np.where(is_known, applicable, np.nan)
    )
    assert len(set(likely[is_known])) > 1
    assert 0.1 < applicable[is_known].mean() < 0.9
    lazy = classify(
        open_cube(recipe.outputs.folder / "cube.zarr"),
        recipe.outputs.folder / "classifier",
        engine="torch",
        layers=("likely_classes",),
    )
    assert "applicable" not in lazy
    np.testing.assert_array_equal(lazy["likely_classes"], found["likely_classes"])
    names = ("confidence", "margin", "months_observed", "likely_classes", "applicable")
    with rasterio.open(published["quality"]) as file:
        assert file.descriptions == names
        assert file.scales == (0.01, 0.01, 1.0, 1.0, 1.0)
        written = file.read(5, masked=True)
    np.testing.assert_array_equal(written.filled(9).ravel(), np.where(is_known, applicable, 9))


def test_without_being_asked_there_are_none(finished: Recipe) -> None:
    recipe = _with_classifier(finished, "certain")
    with open_run(recipe) as run:
        assert run.map()["mapped_now"] == 4
        published = run.publish()
    stored = open_map(recipe.outputs.folder / "map.zarr")
    assert {"likely_classes", "applicable"}.isdisjoint(stored)
    with rasterio.open(published["quality"]) as file:
        assert file.count == 3


def test_layers_that_cannot_be_are_refused(
    finished: Recipe, command: Callable[..., tuple[int, str, str]]
) -> None:
    _with_classifier(finished, "plain")
    file: Path = finished.outputs.folder.parent / "recipe.toml"
    code, _, complaint = command("map", file, "--set", 'map.layers=["applicable"]')
    assert code == 2
    assert "map.layers asks for 'applicable', which the classifier was saved without" in complaint
    with pytest.raises(InputError, match="layers repeat"):
        read_recipe(file, ('map.layers=["applicable", "applicable"]',))
    with pytest.raises(InputError, match=r"map\.layers\.0: found 'margins'; expected 'likely_"):
        read_recipe(file, ('map.layers=["margins"]',))
    classifier = SpeciesClassifier.load(finished.outputs.folder / "classifier")
    with pytest.raises(ValueError, match="there is no layer 'margins'"):
        predict_block(classifier, np.ones((4, 4, 2, 2), np.int16), BANDS, layers=("margins",))
