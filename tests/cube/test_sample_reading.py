"""Ten thousand points of a large cube: each chunk at most once, in any order, with one result."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from zarr.storage import LocalStore

from cube.chunkreads import ChunkRead, Keep, read_chunk
from cube.errors import WorkFailedError
from cube.periods import Period, periods_between
from cube.reference import Reference
from cube.sample import SampleOptions, draw_samples
from cube.spec import CubeSpec
from cube.store import create_cube

SIZE, EDGE, POINTS = 4096, 256, 10_000
GRID = GeoBox((SIZE, SIZE), Affine(10, 0, 300_000, 0, -10, 5_300_040), "EPSG:32633")
MONTHS = periods_between(Period.of_month(2022, 4), Period.of_month(2022, 5))


def value_at(time: int, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """What the cube holds, by a formula: the chunks are easy to pack and all different."""
    return (row // 16 * 7 + column // 16 * 3 + 100 * time) % 9000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "cube.zarr"
    spec = CubeSpec(
        geobox=GRID, periods=MONTHS, bands=("B04",), tile=512, chunk=EDGE, sharded=False
    )
    create_cube(path, spec)
    group = zarr.open_group(path, mode="r+")
    reflectance, clear_count = group["reflectance"], group["clear_count"]
    assert isinstance(reflectance, zarr.Array)
    assert isinstance(clear_count, zarr.Array)
    row, column = np.indices((SIZE, SIZE), sparse=True)
    for time in range(2):
        reflectance[time, 0] = value_at(time, row, column).astype(np.int16)
        clear_count[time] = np.ones((SIZE, SIZE), np.uint16)
    return path


@pytest.fixture(scope="module")
def reference() -> Reference:
    rng = np.random.default_rng(4)
    cells = rng.choice(SIZE * SIZE, POINTS, replace=False)
    return Reference(
        geobox=GRID,
        row=(cells // SIZE).astype(np.int32),
        column=(cells % SIZE).astype(np.int32),
        label=np.array(["oak", "fir", "pine"])[np.arange(POINTS) % 3],
        group=np.array([f"#{n}" for n in range(POINTS)]),
        dropped={},
    )


def test_each_chunk_is_read_once(
    large: Path, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: Counter[str] = Counter()
    plain = LocalStore.get

    async def counting(store: LocalStore, key: str, *args: object, **more: object) -> object:
        reads[key] += "/c/" in key
        return await plain(store, key, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(LocalStore, "get", counting)
    samples = draw_samples(large, reference)
    chunks = {name: times for name, times in reads.items() if times}
    pixels = {name: times for name, times in chunks.items() if not name.startswith("spatial_ref")}
    assert set(pixels.values()) == {1}
    touched = {(r // EDGE, c // EDGE) for r, c in zip(reference.row, reference.column, strict=True)}
    of_reflectance = [name for name in pixels if name.startswith("reflectance/c")]
    assert len(of_reflectance) == 2 * len(touched)
    assert samples.sizes["sample"] == POINTS
    for time in range(2):
        expected = value_at(time, samples["row"].values, samples["column"].values)
        np.testing.assert_allclose(samples["reflectance"][:, time, 0], expected * 1e-4, rtol=1e-6)


def test_any_order_and_scheduler_give_the_same_samples(large: Path, reference: Reference) -> None:
    options = SampleOptions(max_per_class=400, stratify="block", block_size=5000)
    expected = draw_samples(large, reference, options)

    def backwards(reads: Sequence[ChunkRead], keep: Keep) -> None:
        order = list(range(len(reads)))
        random.Random(3).shuffle(order)
        for number in order:
            keep(number, read_chunk(reads[number]))

    def threaded(reads: Sequence[ChunkRead], keep: Keep) -> None:
        tasks = [dask.delayed(read_chunk)(read) for read in reads]
        for number, values in enumerate(dask.compute(*tasks, scheduler="threads")):
            keep(number, values)

    for run in (backwards, threaded):
        xr.testing.assert_identical(draw_samples(large, reference, options, run=run), expected)


def test_a_read_holds_one_chunk_and_says_where_it_fails(large: Path) -> None:
    cell = np.arange(3)
    read = ChunkRead(
        path=large,
        variable="reflectance",
        rows=slice(256, 512),
        columns=slice(0, 256),
        cell=cell,
        row=np.array([256, 300, 511]),
        column=np.array([0, 255, 17]),
    )
    assert read_chunk(read).shape == (2, 1, 3)  # (time, band, cell)
    assert read.id == "reflectance from row 256, column 0"
    lost = ChunkRead(**(vars(read) | {"variable": "nothing"}))
    with pytest.raises(WorkFailedError, match="nothing from row 256, column 0 cannot be read"):
        read_chunk(lost)
