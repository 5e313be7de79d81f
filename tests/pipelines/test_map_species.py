"""A map's pixels and bytes: whoever computes them, in whichever tiles, threads and order."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import shapely
import zarr
from odc.geo.geom import Geometry
from repeated_cube import LEFT, PIXEL, TOP, empty_map, tile_samples, write_classifier, write_cube

from cube import open_cube
from cube.errors import InputError
from cube.mapstore import map_engine, open_map
from model.classifier import SpeciesClassifier
from model.config import TrainConfig
from model.engines import ENGINES
from pipelines import classify
from pipelines.cores import kept_to, own_cores
from pipelines.map_clip import clip_bytes
from pipelines.map_tile import lazily_written, map_tile, wanted_pixels
from pipelines.recipe import Recipe, read_recipe
from pipelines.recipe_model import Engine
from pipelines.report import summary
from pipelines.run import open_run

BANDS = ("B02", "B04", "B08", "B11")
LAYERS = ("species", "confidence", "margin", "months_observed")


@pytest.fixture(scope="module")
def year() -> np.ndarray:
    """32 x 32 pixels, four months, a third of the values hidden and some pixels in all months."""
    generator = np.random.default_rng(0)
    values = generator.integers(100, 4000, (4, len(BANDS), 32, 32)).astype(np.int16)
    values = values // 4 + np.linspace(0, 3000, 32, dtype=np.int16)  # brighter to the east
    hidden = generator.random((4, 32, 32)) < 0.33
    hidden[:, 5:9, 5:9] = True
    return np.where(hidden[:, None], np.int16(-32768), values)


@pytest.fixture(scope="module")
def trained(year: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that has a classifier and nothing else."""
    folder = tmp_path_factory.mktemp("trained")
    config = TrainConfig.preset("default", features=["B04", "B08", "NDVI"], hidden=8, epochs=4)
    write_classifier(folder, tile_samples(year, BANDS, count=600, classes=3), config)
    return folder / "out" / "classifier"


@pytest.fixture
def finished_cube(year: np.ndarray, trained: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """Return a function that writes the same 128 x 128 pixels in tiles of any size."""

    def write(name: str, *, tile: int = 64, extra: str = "") -> Recipe:
        folder = tmp_path / name
        folder.mkdir()
        whole = np.tile(year, (1, 1, tile // 32, tile // 32))
        recipe = write_cube(folder, whole, BANDS, tiles=128 // tile, extra=extra)
        shutil.copytree(trained, folder / "out" / "classifier")
        return recipe

    return write


def _stored(path: Path) -> dict[str, np.ndarray]:
    group = zarr.open_group(path, mode="r")
    return {name: np.asarray(group[name]) for name in LAYERS}


def _same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    for name in LAYERS:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.mark.parametrize("engine", ["exact", "fast", "torch"])
def test_tiles_threads_and_order_change_no_byte(
    finished_cube: Callable[..., Recipe], engine: str
) -> None:
    maps = []
    for tile, threads, step in ((64, 1, 1), (64, 3, -1), (32, 2, -1), (128, 1, 1)):
        job = empty_map(finished_cube(f"{tile} {threads}", tile=tile), engine=engine)
        places = [(region.row, region.column) for region in job.spec.regions()][::step]
        with kept_to(threads), ThreadPoolExecutor(threads + 1) as pool:
            list(pool.map(lambda place, job=job: map_tile(job=job, block_id=place), places))  # type: ignore[misc]
        maps.append(_stored(job.path))
    assert own_cores() is None
    assert set(np.unique(maps[0]["species"])) == {0, 1, 2, 3}
    for other in maps[1:]:
        _same(maps[0], other)


def test_the_lazy_array_writes_when_it_is_computed(finished_cube: Callable[..., Recipe]) -> None:
    job = empty_map(finished_cube("lazy"))
    written = lazily_written(job)
    assert written.chunks == ((1, 1), (1, 1))
    assert not _stored(job.path)["species"].any()
    assert written.blocks[1, 0].compute(scheduler="threads").all()
    species = _stored(job.path)["species"]
    assert species[64:, :64].any()
    assert not species[:64].any()
    assert not species[:, 64:].any()


@pytest.mark.parametrize("engine", ["exact", "fast"])
def test_classify_takes_the_same_engine(finished_cube: Callable[..., Recipe], engine: str) -> None:
    job = empty_map(finished_cube("both"), engine=engine)
    lazily_written(job).compute(scheduler="sync")
    lazy = classify(open_cube(job.cube), job.classifier, engine=engine)
    stored = open_map(job.path)
    for name in LAYERS:
        np.testing.assert_array_equal(lazy[name], stored[name], err_msg=name)


def _circle(radius: float) -> Geometry:
    """Return a circle round the middle of the cube; radius in pixels."""
    middle = shapely.Point(LEFT + 64 * PIXEL, TOP - 64 * PIXEL)
    return Geometry(middle.buffer(radius * PIXEL, quad_segs=64), "EPSG:32633")


@pytest.mark.parametrize("radius", [3.3, 40.0, 64.0, 80.0, 200.0])
def test_a_pixel_is_wanted_if_its_centre_is_inside(
    finished_cube: Callable[..., Recipe], radius: float
) -> None:
    job = empty_map(finished_cube("clip", tile=32), clip=_circle(radius))
    polygon = shapely.from_wkb(clip_bytes(job.clip))
    kinds = set()
    for region in job.spec.regions():
        found = wanted_pixels(job, region)
        kinds.add("all" if found is None else "some" if found.any() else "none")
        for row in range(0, 32, 5):
            for column in range(0, 32, 5):
                centre = shapely.Point(
                    LEFT + (region.left + column + 0.5) * PIXEL,
                    TOP - (region.top + row + 0.5) * PIXEL,
                )
                is_wanted = found is None or found[row, column]
                assert is_wanted == polygon.contains(centre)
    assert (
        kinds
        == {
            3.3: {"none", "some"},
            40.0: {"none", "some"},
            64.0: {"all", "some"},
            80.0: {"all", "some"},
            200.0: {"all"},
        }[radius]
    )


def test_outside_the_clip_nothing_is_read_or_classified(
    finished_cube: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = empty_map(finished_cube("whole", tile=32))
    lazily_written(whole).compute(scheduler="sync")
    job = empty_map(finished_cube("clipped", tile=32), clip=_circle(20))
    classified = []
    true_probability = SpeciesClassifier.probability

    def counted(self: SpeciesClassifier, reflectance: np.ndarray, *rest: Any, **named: Any) -> Any:
        classified.append(len(reflectance))
        return true_probability(self, reflectance, *rest, **named)

    monkeypatch.setattr(SpeciesClassifier, "probability", counted)
    job = replace(job, engine="torch")
    for shard in (job.cube / "reflectance" / "c" / "0" / "0").glob("0/*"):
        shard.unlink()  # the first row of tiles, which the circle does not touch
    lazily_written(job).compute(scheduler="sync")
    inside = np.zeros((128, 128), bool)
    for region in job.spec.regions():
        found = wanted_pixels(job, region)
        inside[region.rows, region.columns] = True if found is None else found
    clipped, full = _stored(job.path), _stored(whole.path)
    assert sum(classified) == (full["species"][inside] > 0).sum()
    np.testing.assert_array_equal(
        clipped["months_observed"][inside], full["months_observed"][inside]
    )
    assert (clipped["species"][inside] == full["species"][inside]).mean() > 0.999
    assert not clipped["species"][~inside].any()
    for name in LAYERS[1:]:
        assert (clipped[name][~inside] == 255).all()


def test_a_recipe_knows_the_engines_of_the_model(
    finished_cube: Callable[..., Recipe], tmp_path: Path, command: Callable[..., Any]
) -> None:
    assert get_args(Engine) == ENGINES
    recipe = finished_cube("run", extra='[map]\nengine = "torch"\n')
    assert recipe.map.engine == "torch"
    file = tmp_path / "run" / "recipe.toml"
    with pytest.raises(InputError, match=r"map\.engine: found 'warp'; expected 'auto', 'exact'"):
        read_recipe(file, ("map.engine=warp",))
    code, _, complaint = command("map", file, "--engine", "warp")
    assert code == 2
    assert (
        "map.engine: found 'warp'; expected 'auto', 'exact', 'fast', 'torch', 'cuda' or 'cuda-fast'"
        in complaint
    )

    code, printed, _ = command("map", file, "--json", "--engine", "exact")
    assert code == 0
    found = json.loads(printed)["engine"]
    assert found["name"] == "exact"
    assert found["reason"].startswith("asked for")
    assert found["tiles"] == {"exact": 4}
    assert "classes_equal" not in found


def test_another_engine_makes_the_map_again(finished_cube: Callable[..., Recipe]) -> None:
    recipe = finished_cube("again")
    mapped_now, engines = [], []
    for engine in ("auto", "exact", "torch", "fast", "fast"):
        chosen = recipe.model_copy(update={"map": recipe.map.model_copy(update={"engine": engine})})
        with open_run(chosen) as run:
            report = run.map()
            lines = "\n".join(summary(run.report))
        mapped_now.append(report["mapped_now"])
        engines.append(report["engine"]["name"])
        assert f"computed by {engines[-1]}: {report['engine']['reason']}" in lines
    assert engines == ["exact", "exact", "torch", "fast", "fast"]
    assert mapped_now == [4, 0, 4, 4, 0]
    made = report["engine"]
    assert made["classes_equal"] > 0.99
    assert 0 < made["largest_difference"] < 1e-2
    assert made["pixels_compared"] > 4 * 60 * 60
    assert f"{made['classes_equal']:.3%} of {made['pixels_compared']:,} of its pixels" in lines
    stored = map_engine(recipe.outputs.folder / "map.zarr")
    assert stored == made
    assert open_map(recipe.outputs.folder / "map.zarr").attrs["canopycube"]["engine"] == stored
