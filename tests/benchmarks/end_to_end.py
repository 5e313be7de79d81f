"""A tile of a simulated forest in, how fast each way maps a cube that repeats it from Zarr to Zarr out.

Run with `python -m tests.benchmarks.end_to_end [--json] [--minutes 10]`. Ways take turns, round by
round; a ratio is the median over rounds. `canopycube map` runs as the command that it is, with two
workers, `fast` and `exact` over the whole cube; what is slower runs over a part of it, a cube of
fewer of the same tiles. `naive` is what a user would write: Dask's map_blocks over chunks of 256
pixels, features in NumPy, one call of `nn.LSTM` for a whole chunk. `pool` does what `canopycube map`
does in plain threads without Dask. Pixels per second are those of the map step; what the command
takes to start is in the seconds to the first tile. Processor seconds are told beside them: others
who use the machine change them less. Those of a command are what it takes over running it again
when there is nothing left to do.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import torch

from cube.ledger import Ledger
from cube.mapstore import create_map
from cube.store import decode, open_stored_cube, read_region
from model.classifier import SpeciesClassifier
from model.config import TrainConfig
from model.fitted import Fitted
from model.networks import class_probability
from model.predict import predict_block
from pipelines.cluster import connect
from pipelines.cores import kept_to, tiles_ahead
from pipelines.map_species import map_species, plan_map
from pipelines.map_tile import MapJob, map_tile
from pipelines.plan import plan_cube
from pipelines.progress import Reporter
from pipelines.recipe import ClusterSection, Recipe, read_recipe
from tests.benchmarks.layout import forest_year
from tests.benchmarks.rounds import machine, show
from tests.simulated.repeated_cube import tile_samples, write_classifier, write_cube

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
TILE, WORKERS = 512, 2
SLOW_SECONDS = 15.0
"""About so long runs a way that maps a part only."""

_INDICES = ("NDVI", "NDWI", "EVI", "NDMI", "CIre")
_LOGS = ("log:B04", "log:B08", "log:B8A", "log:B11", "log:B12")
_TWENTY = [*BANDS, *_INDICES, *_LOGS]

NETWORKS: dict[str, Callable[[], TrainConfig]] = {
    "reference1": lambda: TrainConfig.preset("reference", layers=1, epochs=4, features=_TWENTY),
    "reference2": lambda: TrainConfig.preset("reference", epochs=4, features=_TWENTY),
    "default": lambda: TrainConfig.preset("default", epochs=3),
    "tiny": lambda: TrainConfig.preset(
        "default",
        features=["B04", "B08"],
        hidden=4,
        epochs=1,
        bidirectional=False,
        pooling="last",
        input_pieces=0,
    ),
}
"""What is mapped with: the reference workflow's network with one layer and two, on ten bands and
ten features of them, ours, and one that costs next to nothing."""


@dataclass(kw_only=True)
class Bench:
    """Cubes of one network, from one tile to all."""

    folder: Path
    """Where they are made."""
    network: str
    """Key of `NETWORKS`."""
    year: np.ndarray = field(default_factory=lambda: forest_year(TILE, seed=1))
    """The tile, (time, band, y, x) in stored units."""

    def cube(self, tiles: int, *, links: bool = False) -> Path:
        """Return the folder of a run whose cube has so many tiles a side; made once."""
        folder = self.folder / f"{tiles} tiles"
        if not folder.exists():
            folder.mkdir()
            write_cube(folder, self.year, BANDS, tiles=tiles, links=links)
            if not (self.folder / "classifier").exists():
                samples = tile_samples(self.year, BANDS, count=3000)
                write_classifier(folder, samples, NETWORKS[self.network]())
                shutil.copytree(folder / "out" / "classifier", self.folder / "classifier")
            else:
                shutil.copytree(self.folder / "classifier", folder / "out" / "classifier")
        return folder

    def classifier(self) -> SpeciesClassifier:
        """Return the classifier, once a cube is made."""
        return SpeciesClassifier.load(self.folder / "classifier")


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """What one run of the command took."""

    pixels: int
    """Pixels of the cube."""
    seconds: float
    """Of the map step."""
    wall: float
    """Of the whole command."""
    first_tile: float
    """From the start of the command to the record of the first tile."""
    processor: float
    """Processor seconds of the whole command."""
    peak: float
    """Largest resident memory, in MB."""

    @property
    def rate(self) -> float:
        """Pixels per second of the map step."""
        return self.pixels / self.seconds


def command(folder: Path, engine: str, *, is_again: bool = False) -> Mapped:
    """Map the cube of a run with `canopycube map`, or let it find that nothing is left to do."""
    if not is_again:
        shutil.rmtree(folder / "out" / "map.zarr", ignore_errors=True)
    ledger = folder / "out" / "map.zarr" / "ledger"
    words = ["map", str(folder / "recipe.toml"), "--json", "--engine", engine]
    words += ["--set", f"cluster.workers={WORKERS}"]
    started, first_tile = time.perf_counter(), 0.0
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen([sys.executable, "-m", "pipelines", *words], stdout=printed)
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if not first_tile and any(ledger.glob("r*.json")):
                first_tile = time.perf_counter() - started
            if ended:
                break
            time.sleep(0.02)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        found = json.loads(printed.read())
    if process.returncode:
        raise RuntimeError(f"canopycube map: {found['error']}")
    if found["engine"]["tiles"].keys() != {engine}:
        raise RuntimeError(f"asked for {engine}, tiles are by {found['engine']['tiles']}")
    edge = read_edge(folder)
    return Mapped(
        pixels=edge * edge,
        seconds=found["seconds"],
        wall=wall,
        first_tile=first_tile,
        processor=usage.ru_utime + usage.ru_stime,
        peak=usage.ru_maxrss / 1024,
    )


def read_edge(folder: Path) -> int:
    """Return the edge of a run's cube in pixels."""
    return int(folder.name.split()[0]) * TILE


def job_of(folder: Path, engine: str) -> MapJob:
    """Return the job that `canopycube map` would carry out."""
    recipe: Recipe = read_recipe(folder / "recipe.toml")
    out = folder / "out"
    shutil.rmtree(out / "map.zarr", ignore_errors=True)
    return plan_map(
        out / "cube.zarr",
        out / "classifier",
        out / "map.zarr",
        title="benchmark",
        cube_inputs=plan_cube(recipe).inputs,
        engine=engine,
    )


def with_dask(folder: Path, engine: str) -> float:
    """Return the pixels per second of the map step in this process, with Dask's threads."""
    job = job_of(folder, engine)
    with connect(ClusterSection(workers=WORKERS)) as client:
        began = time.perf_counter()
        map_species(job, client, Reporter(is_quiet=True))
        return read_edge(folder) ** 2 / (time.perf_counter() - began)


def with_a_pool(folder: Path, engine: str) -> float:
    """Return the same with as many threads of Python's own, and nothing of Dask."""
    job = job_of(folder, engine)
    began = time.perf_counter()
    create_map(
        job.path,
        geobox=job.spec.geobox,
        classes=job.classes,
        tile=job.spec.tile,
        chunk=job.spec.chunk,
    )
    Ledger(store=job.path, inputs=job.inputs).prepare()
    with kept_to(WORKERS), ThreadPoolExecutor(WORKERS + tiles_ahead(WORKERS)) as pool:
        places = [(region.row, region.column) for region in job.spec.regions()]
        list(pool.map(lambda place: map_tile(job=job, block_id=place), places))
    return read_edge(folder) ** 2 / (time.perf_counter() - began)


def naive(folder: Path) -> float:
    """Return the pixels per second of what a user would write with Dask and PyTorch."""
    classifier = SpeciesClassifier.load(folder / "out" / "classifier")
    fitted = classifier.fitted
    assert isinstance(fitted, Fitted)  # all networks here are

    def classify(block: np.ndarray) -> np.ndarray:
        times, bands, height, width = block.shape
        values = decode(block).reshape(times, bands, -1).transpose(2, 0, 1)
        prepared = fitted.preparation.apply(np.ascontiguousarray(values), BANDS)
        probability = class_probability(fitted.networks, prepared, batch=len(prepared))
        first, second = np.sort(probability, axis=1)[:, :-3:-1].T
        layers = probability.argmax(axis=1) + 1, first * 100, (first - second) * 100
        return np.stack(layers).astype(np.uint8).reshape(3, height, width)

    pixels = open_stored_cube(folder / "out" / "cube.zarr")["reflectance"].data
    pixels = pixels.rechunk({2: TILE // 2, 3: TILE // 2})
    layers = da.map_blocks(
        classify, pixels, drop_axis=(0, 1), new_axis=0, chunks=((3,), *pixels.chunks[2:]),
        dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8),
    )  # fmt: skip
    target = folder / "out" / "naive.zarr"
    shutil.rmtree(target, ignore_errors=True)
    began = time.perf_counter()
    layers.to_zarr(str(target), compute=False).compute(scheduler="threads", num_workers=WORKERS)
    return read_edge(folder) ** 2 / (time.perf_counter() - began)


def one_core(bench: Bench, classifier: SpeciesClassifier, engine: str, edge: int) -> float:
    """Return the pixels per second of `predict_block` on one core, from memory to memory."""
    block = np.ascontiguousarray(bench.year[:, :, :edge, :edge])
    began = time.perf_counter()
    predict_block(classifier, block, BANDS, engine=engine)
    return edge * edge / (time.perf_counter() - began)


def reading(folder: Path) -> float:
    """Return the pixels per second that one thread reads and decodes."""
    job = job_of(folder, "torch")
    regions = job.spec.regions()
    began = time.perf_counter()
    for region in regions:
        read_region(job.cube, region)
    return len(regions) * TILE * TILE / (time.perf_counter() - began)


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to map, and the cube it maps."""

    run: Callable[[], float]
    """Maps once, returns pixels per second."""
    tiles: int
    """Tiles a side of what it maps."""


def ways_of(
    bench: Bench,
    pixels: int,
    commands: dict[str, list[Mapped]],
    processor: dict[str, list[float]],
) -> dict[str, Way]:
    """Return the ways by name.

    What a command says of itself is added to `commands`, pixels per processor second of each way
    to `processor`.
    """
    starts: dict[str, float] = {}
    whole = max(2, round((pixels**0.5) / TILE))
    bench.cube(1)
    classifier = bench.classifier()
    torch.set_num_threads(1)
    slow = one_core(bench, classifier, "torch", TILE // 2)
    one_core(bench, classifier, "fast", TILE // 4)  # compile
    part = min(whole, max(2, round((SLOW_SECONDS * WORKERS * slow) ** 0.5 / TILE)))

    def commanded(engine: str, tiles: int) -> Way:
        def run() -> float:
            made = command(bench.cube(tiles), engine)
            commands.setdefault(engine, []).append(made)
            if engine not in starts:
                starts[engine] = command(bench.cube(tiles), engine, is_again=True).processor
            processor[engine].append(made.pixels / (made.processor - starts[engine]))
            return made.rate

        return Way(run=run, tiles=tiles)

    def counted(name: str, tiles: int, run: Callable[[], float], pixels: int) -> Way:
        def count() -> float:
            began = time.process_time()
            rate = run()
            processor[name].append(pixels / (time.process_time() - began))
            return rate

        return Way(run=count, tiles=tiles)

    def mapped(name: str, tiles: int, run: Callable[[Path], float]) -> Way:
        return counted(name, tiles, lambda: run(bench.cube(tiles)), (tiles * TILE) ** 2)

    def single(engine: str, edge: int) -> Way:
        return counted(
            f"one core, {engine}",
            1,
            lambda: one_core(bench, classifier, engine, edge),
            edge * edge,
        )

    return {
        "fast": commanded("fast", whole),
        "exact": commanded("exact", whole),
        "torch": commanded("torch", part),
        "naive": mapped("naive", part, naive),
        "fast, Dask": mapped("fast, Dask", whole, lambda folder: with_dask(folder, "fast")),
        "fast, pool": mapped("fast, pool", whole, lambda folder: with_a_pool(folder, "fast")),
        "one core, fast": single("fast", TILE),
        "one core, exact": single("exact", TILE),
        "one core, torch": single("torch", TILE // 2),
        "one core, reading": mapped("one core, reading", 2, reading),
    }


def in_rounds(
    ways: dict[str, Way], *, rounds: int, minutes: float
) -> tuple[dict[str, list[float]], int]:
    """(pixels per second of each way by round, rounds made): as many as fit, at least one."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    started, longest = time.monotonic(), 0.0
    for number in range(rounds):
        began = time.monotonic()
        if number and began - started + longest > 60 * minutes:
            return rates, number
        names = list(ways)
        start = number % len(names)
        for name in names[start:] + names[:start]:
            rates[name].append(ways[name].run())
        longest = max(longest, time.monotonic() - began)
    return rates, rounds


Ratio = tuple[str, str, str, int, str]

_RATIOS: tuple[Ratio, ...] = (
    ("fast over torch", "fast", "torch", 1, "4.5"),
    ("exact over torch", "exact", "torch", 1, "3"),
    ("fast over naive", "fast", "naive", 1, "20"),
    ("fast over twice its one core", "fast", "one core, fast", WORKERS, "0.85"),
    ("exact over twice its one core", "exact", "one core, exact", WORKERS, "0.85"),
    ("Dask over pool", "fast, Dask", "fast, pool", 1, "0.9"),
)
"""What is told: one way's rate over so many times another's, and what it shall be with AMX."""


def tables_of(
    ways: dict[str, Way],
    rates: dict[str, list[float]],
    commands: dict[str, list[Mapped]],
    processor: dict[str, list[float]],
) -> dict[str, list[dict[str, Any]]]:
    """Return what was measured as titled tables."""
    rows = [
        {
            "way": name,
            "megapixels mapped": ways[name].tiles ** 2 * TILE * TILE / 1e6,
            "thousand pixels/s": statistics.median(values) / 1e3,
            "lowest": min(values) / 1e3,
            "highest": max(values) / 1e3,
            "thousand pixels/processor s": statistics.median(processor[name]) / 1e3,
        }
        for name, values in rates.items()
    ]
    ratios = []
    for title, above, below, times, wanted in _RATIOS:
        by_round = _by_round(rates, above, below, times)
        ratios.append(
            {
                "ratio": title,
                "median": statistics.median(by_round),
                "lowest": min(by_round),
                "highest": max(by_round),
                "of processor seconds": statistics.median(_by_round(processor, above, below, 1)),
                "wanted (with AMX)": wanted,
            }
        )
    told = [
        {
            "command": f"canopycube map --engine {engine}",
            "seconds of the map step": statistics.median(one.seconds for one in made),
            "seconds of the command": statistics.median(one.wall for one in made),
            "seconds to the first tile": statistics.median(one.first_tile for one in made),
            "peak memory, MB": max(one.peak for one in made),
        }
        for engine, made in commands.items()
    ]
    return {"rates": rows, "ratios, median over rounds": ratios, "commands": told}


def _by_round(rates: dict[str, list[float]], above: str, below: str, times: int) -> list[float]:
    return [one / (times * other) for one, other in zip(rates[above], rates[below], strict=True)]


def memory_by_size(folder: Path, sizes: list[int]) -> list[dict[str, Any]]:
    """Return the peak memory of the command for cubes of about so many megapixels."""
    bench = Bench(folder=folder, network="tiny")
    rows = []
    for size in sizes:
        tiles = max(2, round((size * 1e6) ** 0.5 / TILE))
        made = command(bench.cube(tiles, links=True), "exact")
        rows.append(
            {
                "megapixels": made.pixels / 1e6,
                "tiles": tiles * tiles,
                "peak memory, MB": made.peak,
                "over the first": made.peak / rows[0]["peak memory, MB"] if rows else 1.0,
                "seconds of the map step": made.seconds,
            }
        )
    return rows


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.end_to_end", description=__doc__
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--pixels", type=int, default=4096**2, help="of the whole cube")
    parser.add_argument("--network", choices=list(NETWORKS), default="reference1")
    parser.add_argument("--minutes", type=float, default=10.0, help="no round begins after that")
    parser.add_argument("--rounds", type=int, default=5, help="at most")
    parser.add_argument(
        "--memory", type=int, nargs="*", default=[], metavar="MEGAPIXELS",
        help="peak memory for cubes of these sizes, e.g. 1 10 100, in place of the rates",
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, help="for the cubes; default: a temporary one")
    options = parser.parse_args()
    where = machine(["torch", "numpy", "numba", "dask", "zarr"])
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if options.memory:
            title = (
                f"canopycube map --engine exact, tiles of {TILE}, {WORKERS} workers, tiny network"
            )
            tables = {title: memory_by_size(folder, options.memory)}
        else:
            bench, commands = Bench(folder=folder, network=options.network), {}
            processor: dict[str, list[float]] = defaultdict(list)
            ways = ways_of(bench, options.pixels, commands, processor)
            rates, rounds = in_rounds(ways, rounds=options.rounds, minutes=options.minutes)
            where |= {"network": options.network, "rounds": str(rounds)}
            where |= {"load at the end": f"{os.getloadavg()[0]:.1f}"}
            tables = tables_of(ways, rates, commands, processor)
        show(tables, where=where, as_json=options.json)


if __name__ == "__main__":
    main()
