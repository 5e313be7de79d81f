"""Numbers of tiles and of workers in, what the cluster itself costs out: memory, overhead, scaling.

Run with `python -m tests.benchmarks.scale [--tiles 10000 1000000] [--rounds 5] [--json]`; one of the
three parts alone with `--only memory|overhead|scaling`.

- memory: a scheduler, two workers and a client, each a process of its own, do tiles of which each
  sleeps a millisecond. Told are the largest resident memory of client and scheduler, and the
  processor time of each a tile. Ratios are over the smallest number of tiles.
- overhead: the map step over tiles of 512 x 512 pixels on one core: a plain loop against `run_tasks`
  with a thread, and with a process; rounds take turns, ratios are of one round.
- scaling: the same with one process, and with two on twice as many tiles.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from model.config import TrainConfig
from pipelines.cluster import connect
from pipelines.cores import kept_to
from pipelines.map_species import map_species
from pipelines.map_tile import map_tile
from pipelines.progress import Reporter
from pipelines.recipe import ClusterSection, Recipe
from tests.benchmarks.rounds import machine, show
from tests.benchmarks.scale_client import peak_of
from tests.simulated.repeated_cube import empty_map, tile_samples, write_classifier, write_cube

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
TILE, PERIODS = 512, 12
QUIET = Reporter(is_quiet=True)


def main() -> None:
    """Measure what is asked for and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--edge", type=int, default=3, help="tiles along an edge of the map")
    parser.add_argument("--only", choices=("memory", "overhead", "scaling"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    where = machine(["dask", "distributed"])
    tables: dict[str, list[dict[str, Any]]] = {}
    if options.only in (None, "memory"):
        tables["Memory by number of tiles"] = memory(sorted(options.tiles))
    if options.only in (None, "overhead", "scaling"):
        with tempfile.TemporaryDirectory() as folder:
            mapping = Mapping(Path(folder), options.edge)
            if options.only in (None, "overhead"):
                tables["Overhead of a map on one core"] = overhead(mapping, options.rounds)
            if options.only in (None, "scaling"):
                tables["Weak scaling"] = scaling(mapping, options.rounds)
    show(tables, where=where, as_json=options.json)


def memory(counts: list[int]) -> list[dict[str, Any]]:
    """Return what client and scheduler take for each number of tiles, each in new processes."""
    rows: list[dict[str, Any]] = []
    for tiles in counts:
        with cluster() as (address, scheduler):
            before = sum(scheduler.cpu_times()[:2])
            words = [sys.executable, "-m", "tests.benchmarks.scale_client", address, str(tiles)]
            done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
            found = json.loads(done.stdout)
            peak, processor = peak_of(scheduler.pid), sum(scheduler.cpu_times()[:2]) - before
        first = rows[0] if rows else {"client, MB": found["peak"], "scheduler, MB": peak}
        rows.append(
            {
                "tiles": tiles,
                "client, MB": found["peak"],
                "scheduler, MB": peak,
                "client, ratio": found["peak"] / first["client, MB"],
                "scheduler, ratio": peak / first["scheduler, MB"],
                "client, processor ms a tile": 1000 * found["processor"] / tiles,
                "scheduler, processor ms a tile": 1000 * processor / tiles,
                "seconds": found["seconds"],
                "ms a tile": 1000 * found["seconds"] / tiles,
            }
        )
    return rows


@contextmanager
def cluster() -> Iterator[tuple[str, psutil.Process]]:
    """Yield a scheduler's address and process; two workers of one thread are there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    folder = tempfile.mkdtemp()
    place = ["--host", "127.0.0.1", "--no-dashboard"]
    commands = [["scheduler", "--port", address.rpartition(":")[2], *place]]
    commands += [["worker", address, "--nthreads", "1", "--no-nanny", *place]] * 2
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "dask", *words],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for words in commands
    ]
    try:
        yield address, psutil.Process(running[0].pid)
    finally:
        for process in running:
            process.kill()
            process.wait()
        shutil.rmtree(folder)


class Mapping:
    """Cubes of one tile repeated, and a classifier for them."""

    def __init__(self, folder: Path, edge: int) -> None:
        self.folder, self.edge = folder, edge
        year = np.random.default_rng(0).integers(0, 5000, (PERIODS, len(BANDS), TILE, TILE))
        self.year = year.astype(np.int16)
        self.samples = tile_samples(self.year, BANDS, count=700)
        self._recipes: dict[int, Recipe] = {}

    def recipe(self, rows: int) -> Recipe:
        """Return a recipe with a finished cube of `rows` x `rows` tiles."""
        if rows not in self._recipes:
            folder = self.folder / f"{rows}"
            folder.mkdir()
            self._recipes[rows] = write_cube(folder, self.year, BANDS, tiles=rows, links=True)
            config = TrainConfig.preset("default", hidden=64, epochs=1)
            write_classifier(folder, self.samples, config)
        return self._recipes[rows]

    def loop(self, rows: int) -> float:
        """Return the seconds of a plain loop over the tiles of a map."""
        job = empty_map(self.recipe(rows))
        began = time.perf_counter()
        with kept_to(1):
            for region in job.spec.regions():
                map_tile(job=job, block_id=(region.row, region.column))
        return time.perf_counter() - began

    def cluster(self, rows: int, *, kind: str, workers: int) -> float:
        """Return the seconds of the map step on a cluster of this machine, which is warm."""
        with connect(ClusterSection(kind=kind, workers=workers)) as client:
            for _ in ("it loads", "it is measured"):
                job = empty_map(self.recipe(rows))
                began = time.perf_counter()
                map_species(job, client, QUIET)
                seconds = time.perf_counter() - began
        return seconds


def overhead(mapping: Mapping, rounds: int) -> list[dict[str, Any]]:
    """Return the seconds a tile of each way, and how much more than the loop's they are."""
    rows = mapping.edge
    mapping.loop(rows)  # compiles, and loads
    ways: dict[str, Callable[[], float]] = {
        "plain loop": lambda: mapping.loop(rows),
        "a thread": lambda: mapping.cluster(rows, kind="threads", workers=1),
        "a process": lambda: mapping.cluster(rows, kind="local", workers=1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, measure in ways.items():
            seconds[name].append(measure())
    return [
        {
            "way": name,
            "seconds a tile": statistics.median(values) / rows**2,
            "over the loop": _median_ratio(values, seconds["plain loop"]) - 1,
        }
        for name, values in seconds.items()
    ]


def scaling(mapping: Mapping, rounds: int) -> list[dict[str, Any]]:
    """Return how many times as many tiles two processes do in the time of one."""
    rows = mapping.edge
    single, double = [], []
    for _ in range(rounds):
        single.append(mapping.cluster(rows, kind="local", workers=1) / rows**2)
        double.append(mapping.cluster(2 * rows, kind="local", workers=2) / (2 * rows) ** 2)
    return [
        {
            "seconds a tile, one process": statistics.median(single),
            "two processes": statistics.median(double),
            "times as fast": _median_ratio(single, double),
        }
    ]


def _median_ratio(values: list[float], others: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(values, others, strict=True))


if __name__ == "__main__":
    main()
