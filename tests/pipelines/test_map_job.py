"""What travels with a map's tasks, what is noted with a map, and what a failure takes back."""

import pickle
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from odc.geo.geom import Geometry
from repeated_cube import LEFT, PIXEL, TOP, tile_samples, write_classifier, write_cube

from cube.errors import InputError
from cube.ledger import Ledger
from cube.mapstore import create_map, map_engine, note_engine
from cube.store import read_region
from model.config import TrainConfig
from pipelines import map_species as species
from pipelines.map_clip import clip_bytes, keep_clip
from pipelines.map_engine import NOT_MEASURED, engine_details, own_pixels
from pipelines.map_species import forget_damaged, map_species, plan_map
from pipelines.map_tile import MapJob, lazily_written, wanted_pixels
from pipelines.plan import plan_cube
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

    def plan(**options: Any) -> MapJob:
        out = trained.outputs.folder
        job = plan_map(
            out / "cube.zarr",
            out / "classifier",
            tmp_path / "map.zarr",
            title="test",
            cube_inputs=plan_cube(trained).inputs,
            **options,
        )
        shutil.rmtree(job.path, ignore_errors=True)
        create_map(
            job.path,
            geobox=job.spec.geobox,
            classes=job.classes,
            tile=job.spec.tile,
            chunk=job.spec.chunk,
        )
        Ledger(store=job.path, inputs=job.inputs).prepare()
        return job

    return plan


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

    def as_workers(_: Any, tasks: dict[str, Any], **__: Any) -> None:
        for task in tasks.values():
            task.compute(scheduler="sync")

    monkeypatch.setattr(species, "run_tasks", as_workers)
    made = map_species(job, None, reporter)  # type: ignore[arg-type]
    assert made["engine"]["tiles"] == {"exact": 4}
    assert map_engine(job.path) == made["engine"]
    ledger = Ledger(store=job.path, inputs=job.inputs)
    region = job.spec.regions()[0]
    ledger.record(region, {**ledger.record_of(region), "engine": "torch"})
    made = map_species(job, None, reporter)  # type: ignore[arg-type]
    assert map_engine(job.path)["tiles"] == dict(Counter(exact=3, torch=1))
    assert map_engine(job.path) == made["engine"]
    note_engine(job.path, {"name": "exact", "reason": "as before tiles were counted"})
    map_species(job, None, reporter)  # type: ignore[arg-type]
    assert map_engine(job.path)["reason"] == "as before tiles were counted"
    assert map_engine(job.path)["tiles"] == {"exact": 3, "torch": 1}


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
    cube = Ledger(store=job.cube, inputs=job.cube_inputs)
    region = job.spec.regions()[0]
    record = cube.record_of(region)

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
        assert forget_damaged(job.path, job.inputs, [region]) == [region.id]
    else:
        with pytest.raises(type(error)):
            forget_damaged(job.path, job.inputs, [region])
    assert len(Ledger(store=job.path, inputs=job.inputs).records()) == 4 - is_damage
