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
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.mapping_ways import (
    NETWORKS,
    TILE,
    WORKERS,
    Bench,
    Mapped,
    command,
    naive,
    one_core,
    reading,
    with_a_pool,
    with_dask,
)
from tests.benchmarks.rounds import machine, show

SLOW_SECONDS = 15.0
"""About so long runs a way that maps a part only."""


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
