"""The memory of a map: what `plan` prints holds, however large the cube is."""

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from repeated_cube import tile_samples, write_classifier, write_cube

from cube.ledger import Ledger
from cube.mapstore import create_map
from model.config import TrainConfig
from pipelines.map_species import plan_map
from pipelines.map_tile import map_tile
from pipelines.memory import map_memory
from pipelines.plan import describe_map, plan_cube
from pipelines.recipe import Recipe
from pipelines.report import plan_lines
from pipelines.run import open_run

BANDS = ("B02", "B04", "B08", "B11")


def _finished_cube(folder: Path, *, tiles: int, tile: int = 512, times: int = 12) -> Recipe:
    """Write a cube of noise, 5 % of it not clear, and a classifier that costs little."""
    generator = np.random.default_rng(0)
    year = generator.integers(100, 4000, (times, len(BANDS), tile, tile), dtype=np.int16)
    hidden = generator.random((times, tile, tile)) < 0.05
    year = np.where(hidden[:, None], np.int16(-32768), year)
    folder.mkdir()
    recipe = write_cube(folder, year, BANDS, tiles=tiles, links=True)
    config = TrainConfig.preset(
        "default",
        features=["B04", "B08"],
        hidden=4,
        epochs=1,
        bidirectional=False,
        pooling="last",
        input_pieces=0,
    )
    write_classifier(folder, tile_samples(year, BANDS, count=300), config)
    return recipe


@pytest.mark.parametrize("engine", ["exact", "torch"])
@pytest.mark.parametrize("times", [1, 12])
def test_a_tile_stays_within_its_formula(tmp_path: Path, engine: str, times: int) -> None:
    recipe = _finished_cube(tmp_path / "run", tiles=2, tile=256, times=times)
    plan, out = plan_cube(recipe), recipe.outputs.folder
    job = plan_map(
        out / "cube.zarr", out / "classifier", out / "map.zarr",
        title="test", cube_inputs=plan.inputs, engine=engine,
    )  # fmt: skip
    create_map(job.path, geobox=job.spec.geobox, classes=job.classes, tile=256, chunk=128)
    Ledger(store=job.path, inputs=job.inputs).prepare()
    map_tile(job=job, block_id=(0, 0))  # compile first
    tracemalloc.start()
    try:
        map_tile(job=job, block_id=(0, 1))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    memory = map_memory(plan.spec, computing=1)
    assert 0.6 * memory.tile < peak < memory.total(tiles=1, processes=1)


def test_plan_prints_the_memory_of_the_map(tmp_path: Path) -> None:
    recipe = _finished_cube(tmp_path / "run", tiles=1, tile=64)
    spec = plan_cube(recipe).spec
    found = describe_map(spec, workers=4, processes=4)
    block = 64 * 64 * 12 * 4 * 2
    assert found == {
        "map_tiles_at_once": 8,
        "map_peak_bytes": 8 * map_memory(spec, computing=1).tile + 4 * 32 * 2**20,
    }
    assert block < map_memory(spec, computing=1).tile < 2 * block
    with open_run(recipe) as run:
        without_labels = run.describe()
    assert "map_peak_bytes" not in without_labels
    assert not any("under way" in line for line in plan_lines(without_labels))
    (line,) = (line for line in plan_lines(without_labels | found) if line.startswith("map "))
    assert line.startswith("map       8 tiles under way need up to 1")
    assert line.endswith(" MB, however large the cube is")


_LIMITED = """
import json, resource, sys
import distributed, torch, numba, rioxarray, xarray, zarr  # what the program takes itself
from cube.mapstore import map_classes
from model.engines import choose_engine
from model.classifier import SpeciesClassifier
from pathlib import Path
from pipelines.__main__ import main
recipe, allowed = sys.argv[1], int(sys.argv[2])
choose_engine(SpeciesClassifier.load(Path(recipe).parent / "out" / "classifier"), "exact")
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
own = int(status["VmData"].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (own + allowed, own + allowed))
code = main(["map", recipe, "--json", "--engine", "exact", "--set", "cluster.workers=2"])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"code": code, "peak": peak}))
"""

_PROGRAM = 200 * 2**20
"""What may go to the program beside the tiles: a dozen threads with 8 MiB of stack each, Dask."""


def _mapped_within(recipe: Recipe, folder: Path, allowed: int) -> tuple[dict[str, Any], int]:
    """(what the command said, peak bytes) of a map made with so many bytes to spare."""
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(folder / "recipe.toml"), str(allowed)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said, ended = (json.loads(line) for line in done.stdout.splitlines())
    assert ended["code"] == 0, said
    return said, ended["peak"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limit of a process's memory")
def test_a_larger_cube_takes_no_more_memory(tmp_path: Path) -> None:
    """One megapixel and thirteen, whose pixels would not fit into what the process may take."""
    peaks = []
    for tiles in (2, 7):
        folder = tmp_path / str(tiles)
        recipe = _finished_cube(folder, tiles=tiles)
        spec = plan_cube(recipe).spec
        allowed = describe_map(spec, workers=2, processes=1)["map_peak_bytes"] + _PROGRAM
        said, peak = _mapped_within(recipe, folder, allowed)
        assert said["tiles"] == f"{tiles * tiles} of {tiles * tiles}, 0 failed"
        peaks.append(peak)
    times, bands, height, width = spec.shape
    assert times * bands * height * width * 2 > 2 * allowed
    assert peaks[1] < 1.1 * peaks[0]
