"""What travels with a map's tasks, what is noted with a map, and what a failure takes back."""

import pickle
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import shapely
from odc.geo.geom import Geometry
from repeated_cube import LEFT, PIXEL, TOP, empty_map, tile_samples, write_classifier, write_cube

from cube.errors import InputError, WorkFailedError
from cube.ledger import Ledger
from cube.mapstore import map_engine, note_engine
from cube.spec import Region
from cube.store import read_region
from model.config import TrainConfig
from pipelines import map_species as species
from pipelines import map_tile as tiles
from pipelines.engine_choice import Machine
from pipelines.lazy_map import Classified, classify_tile
from pipelines.map_clip import clip_bytes, keep_clip
from pipelines.map_engine import NOT_MEASURED, engine_details, own_pixels, tiles_by_engine
from pipelines.map_species import forget_damaged, map_species, tile_inputs
from pipelines.map_tile import MapJob, lazily_written, map_tile, wanted_pixels
from pipelines.progress import Reporter
from pipelines.recipe import Recipe

BANDS = ("B02", "B04", "B08", "B11")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Return a recipe with a cube of 256 x 256 pixels, hidden in the middle of every tile."""
    folder = tmp_path_factory.mktemp("run")
    year = np.random.default_rng(0).integers(100, 4000, (4, len(BANDS), 128, 128))
    year = year.astype(np.int16)
    samples = tile_samples(year[:, :, :32, :32], BANDS, count=300, classes=3)
    year[:, :, 32:96, 32:96] = -32768
    recipe = write_cube(folder, year, BANDS, tiles=2)
    config = TrainConfig.preset("default", features=["B04", "B08", "NDVI"], hidden=8, epochs=1)
    write_classifier(folder, samples, config)
    return recipe


@pytest.fixture
def planned(trained: Recipe, tmp_path: Path) -> Callable[..., MapJob]:
    """Return a function that plans a map of the cube; its map is empty and made."""

    return partial(empty_map, trained, tmp_path / "map.zarr")


def _circle(radius: float, *, row: float, column: float, vertices: int = 64) -> Geometry:
    """Return a circle, in pixels of the cube."""
    middle = shapely.Point(LEFT + column * PIXEL, TOP - row * PIXEL)
    return Geometry(middle.buffer(radius * PIXEL, quad_segs=vertices // 4), "EPSG:32633")


def test_a_task_is_small_whatever_the_clip(planned: Callable[..., MapJob]) -> None:
    sizes = []
    for vertices in (64, 10_000):
        job = planned(clip=_circle(100, row=128, column=128, vertices=vertices))
        assert job.clip is not None
        assert len(clip_bytes(job.clip)) >= 16 * vertices
        block = lazily_written(job).to_delayed(optimize_graph=True)[1, 1]
        pickled = [pickle.dumps(task) for task in dict(block.__dask_graph__()).values()]
        *tasks, shared = sorted(pickled, key=len)
        assert len(tasks) == 4
        assert all(b"map_tile" in task for task in tasks)
        sizes.append((len(tasks[-1]), len(shared)))
    assert sizes[0] == sizes[1]
    assert sizes[1][0] < 500
    assert sizes[1][1] < 4000


def test_a_clip_is_a_file_that_is_what_was_written(
    planned: Callable[..., MapJob], tmp_path: Path
) -> None:
    first = planned(clip=_circle(30, row=64, column=64)).clip
    job = planned(clip=_circle(31, row=64, column=64))
    assert job.clip is not None
    assert list(tmp_path.glob("*clip*")) == [job.clip] != [first]
    assert shapely.from_wkb(clip_bytes(job.clip)).area == pytest.approx(
        np.pi * (31 * PIXEL) ** 2, rel=0.01
    )
    other = keep_clip(b"another", tmp_path / "other.zarr")
    assert job.clip.exists()
    assert isinstance(other, Path)
    other.write_bytes(b"something else")
    with pytest.raises(InputError, match=r"other\.zarr-clip-.* is not what was written; run again"):
        clip_bytes(other)
    other.unlink()
    with pytest.raises(InputError, match=r"other\.zarr-clip-.* cannot be read"):
        clip_bytes(other)


def test_fast_is_measured_where_a_small_clip_has_pixels(planned: Callable[..., MapJob]) -> None:
    # in a corner of one tile, whose middle is hidden and outside
    job = planned(clip=_circle(6, row=118, column=20), engine="fast")
    lazily_written(job).compute(scheduler="sync")
    details = engine_details(job)
    expected = []
    for region in job.spec.regions():
        wanted = wanted_pixels(job, region)
        if wanted is not None and wanted.any():
            expected.append(read_region(job.cube, region)[:, :, wanted])
    pixels = np.concatenate(expected, axis=2).transpose(2, 0, 1)  # (pixel, time, band)
    found = own_pixels(job)
    assert found is not None
    np.testing.assert_allclose(found, pixels * 1e-4, rtol=1e-6)
    assert details["pixels_compared"] == len(pixels) > 100
    assert details["classes_equal"] > 0.9


def test_without_a_classified_pixel_fast_says_so(planned: Callable[..., MapJob]) -> None:
    job = planned(clip=_circle(6, row=64, column=64), engine="fast")
    lazily_written(job).compute(scheduler="sync")
    assert engine_details(job)["difference"] == NOT_MEASURED
    assert "difference" not in engine_details(replace(job, engine="exact"))


def test_the_tiles_of_each_engine_are_noted_with_the_map(
    planned: Callable[..., MapJob], monkeypatch: pytest.MonkeyPatch, reporter: Reporter
) -> None:
    job = planned(engine="exact")

    def as_workers(_: Any, tiles: Iterable[Region], __: Any, **___: Any) -> None:
        for tile in tiles:
            map_tile(job=job, block_id=(tile.row, tile.column))

    monkeypatch.setattr(species, "run_tasks", as_workers)
    made = map_species(job, Mock(), reporter)
    assert made["engine"]["tiles"] == {"exact": 4}
    (words,) = made["engine"]["arithmetic"]
    assert words in job.engine_reason
    assert map_engine(job.path) == made["engine"]
    ledger = Ledger(store=job.path, inputs=tile_inputs(job))
    region = job.spec.regions()[0]
    ledger.record(region, {**ledger.record_of(region), "engine": "torch", "arithmetic": "other"})
    made = map_species(job, Mock(), reporter)
    assert map_engine(job.path)["tiles"] == dict(Counter(exact=3, torch=1))
    assert map_engine(job.path)["arithmetic"] == {words: 3, "other": 1}
    assert map_engine(job.path) == made["engine"]
    known = {"name": "exact", "reason": "as before tiles were counted", "inputs": job.inputs}
    note_engine(job.path, known)
    map_species(job, Mock(), reporter)
    assert map_engine(job.path)["reason"] == "as before tiles were counted"
    assert map_engine(job.path)["tiles"] == {"exact": 3, "torch": 1}


def test_tiles_outside_the_clip_are_by_no_engine(planned: Callable[..., MapJob]) -> None:
    job = planned(clip=_circle(20, row=10, column=10), engine="exact")
    lazily_written(job).compute(scheduler="sync")
    records = Ledger(store=job.path, inputs=None).records()
    assert [record["engine"] for record in records.values()] == ["exact", "none", "none", "none"]
    assert tiles_by_engine(records.values())["tiles"] == {"exact": 1}


def test_fast_is_not_mixed_with_another_arithmetic(planned: Callable[..., MapJob]) -> None:
    """What `fast` computes with belongs to what a map is made from; what `exact` does is noted."""
    job = planned(engine="fast")
    other = planned(engine="fast", machines=[Machine(has_device=False, fast="three lanes")])
    assert (other.engine, other.arithmetic) == ("fast", "three lanes")
    regions = other.spec.regions()
    assert tile_inputs(job).keys() == tile_inputs(other).keys() == {r.id for r in regions}
    assert not set(tile_inputs(job).values()) & set(tile_inputs(other).values())
    message = "engine fast computes with .* on this worker, the map's other tiles with three lanes"
    with pytest.raises(WorkFailedError, match=message):
        map_tile(job=other, block_id=(0, 0))
    assert not Ledger(store=other.path, inputs=None).records()
    here, there = (
        planned(engine="exact", machines=machines)
        for machines in ([], [Machine(has_device=False, fast="three lanes")])
    )
    assert here.inputs == there.inputs


def test_a_tile_in_strips_is_by_one_engine(
    planned: Callable[..., MapJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = planned(engine="exact")
    asked = []

    def classified(block: np.ndarray, **words: Any) -> Classified:
        found = classify_tile(block, **words)
        asked.append(block.shape[2])
        return replace(found, engine="cuda", arithmetic="lost") if len(asked) == 1 else found

    monkeypatch.setattr(tiles, "classify_tile", classified)
    map_tile(job=job, block_id=(0, 0), in_strips=True)
    assert asked == [tiles.STRIP_ROWS] * 4
    (record,) = Ledger(store=job.path, inputs=None).records().values()
    assert record["engine"] == "exact"
    monkeypatch.undo()
    map_tile(job=job, block_id=(0, 0))
    (again,) = Ledger(store=job.path, inputs=None).records().values()
    assert again["digest"] == record["digest"]


@pytest.mark.parametrize(
    ("error", "is_damage"),
    [
        (ValueError("chunk (0, 0) is damaged"), True),
        (RuntimeError("error during blosc decompression: -1"), True),
        (RuntimeError("can't start new thread"), False),
        (MemoryError(), False),
        (OSError(24, "Too many open files"), False),
        (FileNotFoundError("a disk that is gone"), False),
    ],
)
def test_only_damage_takes_records_back(
    planned: Callable[..., MapJob],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    is_damage: bool,
) -> None:
    job = planned()
    lazily_written(job).compute(scheduler="sync")
    region = job.spec.regions()[0]
    record = Ledger(store=job.cube, inputs=None).record_of(region)
    cube = Ledger(store=job.cube, inputs=record["inputs"])

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(species, "read_region", fail)
    monkeypatch.setattr(species, "read_map_region", fail)
    try:
        assert species._forget_unreadable(job, [region]) == [region.id] * is_damage
        assert bool(cube.record_of(region)) != is_damage
    finally:
        cube.record(region, record)
    if is_damage:
        assert forget_damaged(job.path, [region]) == [region.id]
    else:
        with pytest.raises(type(error)):
            forget_damaged(job.path, [region])
    assert len(Ledger(store=job.path, inputs=None).records()) == 4 - is_damage
