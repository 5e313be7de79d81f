"""The memory of a map: what `plan` prints holds, however large the cube is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from repeated_cube import tile_samples, write_classifier, write_cube

from model.certainty.applicability import FEATURES, HIDDEN, Applicability
from model.certainty.space import MOST_PROTOTYPES, Space
from model.classifier import SpeciesClassifier
from model.config import Preset, TrainConfig
from model.fitted import Fitted
from model.networks import build_network
from model.preparation import Preparation
from pipelines.map_memory import (
    PROCESS_BYTES,
    THREAD_BYTES,
    expected_engine,
    map_memory,
    network_sizes,
)
from pipelines.plan import plan_cube
from pipelines.plan_describe import describe_map
from pipelines.recipe import Recipe
from pipelines.report import plan_lines
from pipelines.run import open_run

BANDS = ("B02", "B04", "B08", "B11")

MONTHS = tuple(f"{month:02d}" for month in range(1, 13))

TINY = TrainConfig.preset(
    "default",
    features=["B04", "B08"],
    hidden=4,
    epochs=1,
    bidirectional=False,
    pooling="last",
    input_pieces=0,
)


def _finished_cube(folder: Path, *, tiles: int, tile: int = 512, times: int = 12) -> Recipe:
    """Write a cube of noise, 5 % of it not clear, and a classifier that costs little."""
    generator = np.random.default_rng(0)
    year = generator.integers(100, 4000, (times, len(BANDS), tile, tile), dtype=np.int16)
    hidden = generator.random((times, tile, tile)) < 0.05
    year = np.where(hidden[:, None], np.int16(-32768), year)
    folder.mkdir()
    recipe = write_cube(folder, year, BANDS, tiles=tiles, links=True)
    write_classifier(folder, tile_samples(year, BANDS, count=300), TINY)
    return recipe


_GROWN = """
import gc, json, sys
from pathlib import Path
import numpy as np
from cube.store import read_region  # what the program takes itself
from pipelines.lazy_map import classifier_stamp, classify_block
small, large, engine, layers = sys.argv[1:3] + [sys.argv[3], tuple(json.loads(sys.argv[4]))]

def kilobytes(name):
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status[name].split()[0])

def classified(folder, edge):
    block = np.random.default_rng(0).integers(100, 4000, (12, 4, edge, edge), dtype=np.int16)
    return classify_block(
        block, folder=Path(folder), stamp=classifier_stamp(Path(folder)),
        bands=("B02", "B04", "B08", "B11"), min_months=1, engine=engine, layers=layers,
    )

classified(small, 8)  # compilers and libraries
gc.collect()
before = kilobytes("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
classified(large, 64)
print((kilobytes("VmHWM") - before) * 1024)
"""


CLASSES = 7


def _config(preset: Preset = "default", **settings: Any) -> TrainConfig:
    return TrainConfig.preset(preset, features=["B04", "B08"], **settings)


def _save_untrained(folder: Path, config: TrainConfig) -> None:
    """Save a classifier of random weights, with an area of applicability that means nothing."""
    features = config.features
    preparation = Preparation(
        features=features,
        mean=np.full(len(features), 0.2, np.float32),
        deviation=np.full(len(features), 0.1, np.float32),
        limit=10.0 if config.standardise else None,
        mask_input=config.mask_input,
        positions=MONTHS if config.calendar_input else (),
    )
    networks = []
    for _ in range(config.members):
        network = build_network(config, channels=preparation.channels, classes=CLASSES, steps=12)
        networks.append(network.eval().requires_grad_(False))
    fitted = Fitted(networks=tuple(networks), preparation=preparation, config=config, epoch=1)
    SpeciesClassifier(
        fitted=fitted,
        periods=MONTHS,
        classes=tuple(f"species {index}" for index in range(CLASSES)),
        colours=("#1b9e77",) * CLASSES,
        sample_fingerprint="0" * 64,
        code_version="0",
        scores=None,
        applicability=_random_area(
            {FEATURES: (12, len(features)), HIDDEN: (1, sum(n.head.in_features for n in networks))}
        ),
    ).save(folder)


def _random_area(shapes: dict[str, tuple[int, int]]) -> Applicability:
    """An area as large as one that was learned of spaces of these shapes, of (time, feature)."""
    generator = np.random.default_rng(0)
    spaces = {}
    for name, (times, features) in shapes.items():
        width = features * (7 if times > 1 else 1)
        spaces[name] = Space(
            season=np.zeros((times, features), np.float32),
            deviation=np.ones(features, np.float32),
            centre=np.zeros(width, np.float32),
            whitening=generator.random((width, width), np.float32),
            prototypes=generator.random((MOST_PROTOTYPES, width), np.float32),
            mean_distance=1.0,
        )
    return Applicability(spaces=spaces, thresholds=dict.fromkeys(shapes, 1.0))


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs the kernel's mark of a peak"
)
@pytest.mark.parametrize(
    ("settings", "engine", "layers"),
    [
        ({}, "exact", ()),
        ({}, "torch", ()),
        ({}, "exact", ("applicable",)),
        ({"hidden": 512, "members": 2}, "exact", ()),
        ({"hidden": 512, "members": 2}, "torch", ()),
        ({"hidden": 512, "members": 2}, "exact", ("applicable",)),
        ({"preset": "reference", "layers": 2}, "exact", ()),
        ({"members": 5}, "exact", ()),
    ],
    ids=[
        "default", "default in torch", "default applicable", "large", "large in torch",
        "large applicable", "reference", "ensemble",
    ],
)  # fmt: skip
def test_a_process_stays_within_its_formula(
    tmp_path: Path, settings: dict[str, Any], engine: str, layers: tuple[str, ...]
) -> None:
    """Nor is the formula far above: four times at most, but for what an allocator may keep."""
    config = _config(**settings)
    _save_untrained(tmp_path / "small", _config(hidden=16))
    _save_untrained(tmp_path / "large", config)
    words = [str(tmp_path / "small"), str(tmp_path / "large"), engine, json.dumps(layers)]
    done = subprocess.run(
        [sys.executable, "-c", _GROWN, *words],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    year = np.zeros((12, 4, 64, 64), np.int16)
    allowed = map_memory(
        plan_cube(write_cube(tmp_path, year, BANDS, tiles=1)).spec,
        computing=1,
        network=network_sizes(config, steps=12, classes=CLASSES),
        engine=engine,
        layers=layers,
    ).total(tiles=1, processes=1)
    taken = int(done.stdout)
    assert taken < allowed
    assert allowed < 4 * taken + PROCESS_BYTES + THREAD_BYTES


def test_memory_grows_with_network_engine_and_layers(tmp_path: Path) -> None:
    year = np.zeros((12, 4, 64, 64), np.int16)
    spec = plan_cube(write_cube(tmp_path, year, BANDS, tiles=1)).spec
    small = network_sizes(_config(), steps=12)
    large = network_sizes(_config(hidden=512, layers=3, members=3), steps=12)
    assert 3 * large.weights == pytest.approx(184e6, rel=0.05)
    least = map_memory(spec, computing=1, network=small)
    wide = map_memory(spec, computing=1, network=large, engine="torch")
    assert wide.process > least.process + 4 * large.weights
    assert wide.tile == least.tile
    asked = ("likely_classes", "applicable")
    more = map_memory(spec, computing=1, network=small, layers=asked)
    assert more.process > least.process + 30e6  # measured: 20 MB
    assert more.tile - least.tile == 2 * 3 * 64 * 64
    device = map_memory(spec, computing=1, network=small, engine="cuda")
    assert device.process > least.process


def test_the_engine_expected_is_that_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    other = _config(architecture="ltae")
    found = {name: expected_engine(_config(), name) for name in ("auto", "fast", "torch", "cuda")}
    assert found == {"auto": "exact", "fast": "fast", "torch": "torch", "cuda": "exact"}
    assert expected_engine(other, "auto") == "torch"


def test_plan_prints_the_memory_of_the_map(tmp_path: Path) -> None:
    recipe = _finished_cube(tmp_path / "run", tiles=1, tile=64)
    spec = plan_cube(recipe).spec
    network = network_sizes(_config(), steps=12)
    memory = map_memory(spec, computing=1, network=network)
    found = describe_map(spec, workers=4, processes=4, network=network)
    block = 64 * 64 * 12 * 4 * 2
    assert found["map_tiles_at_once"] == 8
    assert found["map_peak_bytes"] == 8 * memory.tile + 4 * memory.process
    assert block < memory.tile < 2 * block
    with open_run(recipe) as run:
        without_labels = run.describe()
    assert "map_peak_bytes" not in without_labels
    assert not any("under way" in line for line in plan_lines(without_labels))
    (line,) = (line for line in plan_lines(without_labels | found) if line.startswith("map "))
    assert line.startswith("map       8 tiles under way need up to ")
    assert line.endswith(" MB, however large the cube is")


def test_plan_does_not_guess_a_scheduler_s_workers(tmp_path: Path) -> None:
    recipe = _finished_cube(tmp_path / "run", tiles=1, tile=64)
    network = network_sizes(_config(), steps=12)
    found = describe_map(plan_cube(recipe).spec, workers=None, processes=1, network=network)
    assert found["map_tiles_at_once"] is None
    with open_run(recipe) as run:
        described = run.describe() | found
    (line,) = (line for line in plan_lines(described) if line.startswith("map "))
    assert line.startswith("map       a worker of the scheduler needs up to ")
    assert line.endswith(" MB for a thread, however large the cube is")


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
        sizes = network_sizes(TINY, steps=spec.shape[0])
        found = describe_map(spec, workers=2, processes=1, network=sizes)
        allowed = found["map_peak_bytes"] + _PROGRAM
        said, peak = _mapped_within(recipe, folder, allowed)
        assert said["tiles"] == f"{tiles * tiles} of {tiles * tiles}, 0 failed"
        peaks.append(peak)
    times, bands, height, width = spec.shape
    assert times * bands * height * width * 2 > 2 * allowed
    assert peaks[1] < 1.1 * peaks[0]
