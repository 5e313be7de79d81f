"""Tiles done as a cluster does them: with what was sent to a worker, whole and in strips."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from repeated_cube import empty_map, tile_samples, write_classifier, write_cube

from cube.composite.scenes import SceneComposites
from cube.errors import InputError
from cube.spec import Region
from model.classifier import SpeciesClassifier
from model.config import TrainConfig
from model.errors import ClassifierError
from pipelines import build_cube, lazy_map
from pipelines.cluster import Parcel
from pipelines.cluster.parcels import close_parcel, open_parcel
from pipelines.lazy_map import classifier_files, classifier_stamp, load_once
from pipelines.map_tile import MapJob, map_tile, written_tiles
from pipelines.recipe import Recipe

BANDS = ("B02", "B04", "B08", "B11")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Return a recipe with a cube of 2 x 2 tiles of 128 pixels and a classifier."""
    folder = tmp_path_factory.mktemp("run")
    year = np.random.default_rng(0).integers(100, 4000, (4, len(BANDS), 128, 128))
    year = year.astype(np.int16)
    samples = tile_samples(year[:, :, :32, :32], BANDS, count=300, classes=3)
    year[:, :, 100:, :20] = -32768
    recipe = write_cube(folder, year, BANDS, tiles=2)
    config = TrainConfig.preset("default", features=["B04", "B08", "NDVI"], hidden=8, epochs=1)
    write_classifier(folder, samples, config)
    return recipe


@pytest.fixture
def planned(trained: Recipe, tmp_path: Path) -> Callable[[str], MapJob]:
    """Return a function that plans a map of that name, which is empty and made."""

    return lambda name: empty_map(trained, tmp_path / name, engine="exact")


def _content(store: Path) -> dict[str, bytes]:
    """Return all chunks of a map by name, and what its records say of pixels."""
    found = {}
    for file in sorted(store.rglob("*")):
        name = file.relative_to(store).as_posix()
        if file.is_file() and name.startswith("ledger/r"):
            found[name] = json.loads(file.read_bytes())["digest"].encode()
        elif file.is_file() and "zarr.json" not in name:
            found[name] = file.read_bytes()
    return found


def test_a_map_in_strips_or_as_tasks_is_the_same(planned: Callable[[str], MapJob]) -> None:
    whole, strips, tasks = (planned(name) for name in ("whole.zarr", "strips.zarr", "tasks.zarr"))
    regions = whole.spec.regions()
    for region in regions:
        map_tile(job=whole, block_id=(region.row, region.column))
        map_tile(job=strips, block_id=(region.row, region.column), in_strips=True)
    parcel = Parcel(job=replace(tasks, classes=()))
    open_parcel(parcel)
    try:
        some = written_tiles(regions[:3], parcel=parcel.key)
        (last,) = written_tiles(regions[3:], parcel=parcel.key, in_strips=True)
        seconds = [task.compute(scheduler="sync") for task in (*some, last)]
    finally:
        close_parcel(parcel)
    assert all(one.shape == (1,) and one[0] > 0 for one in seconds)
    expected = _content(whole.path)
    assert len([name for name in expected if name.startswith("ledger/r")]) == 4
    assert _content(strips.path) == expected
    assert _content(tasks.path) == expected


@pytest.fixture
def _forgets_classifiers() -> Iterator[None]:
    lazy_map._loaded.cache_clear()
    yield
    lazy_map._loaded.cache_clear()


@pytest.mark.usefixtures("_forgets_classifiers")
def test_a_classifier_that_was_sent_needs_no_disk(trained: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "classifier"
    shutil.copytree(trained.outputs.folder / "classifier", folder)
    stamp = classifier_stamp(folder)
    expected = SpeciesClassifier.load(folder)
    parcel = Parcel(files=classifier_files(folder, stamp))
    shutil.rmtree(folder)
    open_parcel(parcel)
    try:
        loaded = load_once(folder, stamp)
    finally:
        close_parcel(parcel)
    assert loaded.fingerprint == expected.fingerprint
    sequence = np.random.default_rng(1).uniform(0, 1, (5, 4, len(BANDS))).astype(np.float32)
    np.testing.assert_array_equal(
        loaded.predict_samples(sequence, BANDS), expected.predict_samples(sequence, BANDS)
    )


@pytest.mark.usefixtures("_forgets_classifiers")
def test_a_classifier_that_arrives_otherwise_is_refused(trained: Recipe) -> None:
    folder = trained.outputs.folder / "classifier"
    stamp = classifier_stamp(folder)
    files = classifier_files(folder, stamp)
    weights = next(name for name in files if "weights-" in name)
    parcel = Parcel(files={**files, weights: files[weights][:-1] + b"\0"})
    open_parcel(parcel)
    try:
        with pytest.raises(InputError, match="classifier' did not arrive as it was sent; run aga"):
            load_once(folder, stamp)
    finally:
        close_parcel(parcel)
    with pytest.raises(InputError, match="was replaced while it was in use"):
        classifier_files(folder, "another stamp")


def test_files_in_memory_are_believed_no_more_than_a_folder(trained: Recipe) -> None:
    folder = trained.outputs.folder / "classifier"
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    weights = next(name for name in files if name.startswith("weights-"))
    load = SpeciesClassifier.load_files
    assert load(files, named="x").fingerprint == SpeciesClassifier.load(folder).fingerprint
    with pytest.raises(ClassifierError, match=r"classifier 'x': there is no classifier.json"):
        load({}, named="x")
    with pytest.raises(ClassifierError, match=r"x': weights-.* is missing or not what was saved"):
        load({name: files[name] for name in files if name != weights}, named="x")
    with pytest.raises(ClassifierError, match=r"x': weights-.* is missing or not what was saved"):
        load({**files, weights: files[weights] + b"\0"}, named="x")
    changed = files["classifier.json"].replace(b'"schema"', b'"Schema"')
    with pytest.raises(ClassifierError, match="layout version None"):
        load({**files, "classifier.json": changed}, named="x")


class _Catalogue:
    """Stands for a catalogue of scenes; nothing is read of it."""

    def looks(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("is_too_small", [False, True])
def test_a_build_in_strips_takes_a_quarter_of_the_buffer(
    monkeypatch: pytest.MonkeyPatch, is_too_small: bool
) -> None:
    asked: list[int] = []

    def build_tile(path: Any, spec: Any, source: Any, region: Any, inputs: Any, **more: Any) -> str:
        asked.append(source.buffer_bytes)
        if is_too_small and len(asked) == 1:
            raise InputError("one row of pixels needs more than the buffer has")
        return "done"

    monkeypatch.setattr(build_cube, "build_tile", build_tile)
    source = SceneComposites(catalogue=_Catalogue(), buffer_bytes=1001)
    job = Mock(source=source)
    region = Region(row=0, column=0, top=0, left=0, height=1, width=1)
    parcel = Parcel(job=job)
    open_parcel(parcel)
    try:
        for in_strips in (True, False):
            found: Any = build_cube._build_shared(parcel.key, region, None, in_strips, None)  # type: ignore[arg-type]
            assert found == "done"
    finally:
        close_parcel(parcel)
    assert asked == ([251, 1001, 1001] if is_too_small else [251, 1001])
