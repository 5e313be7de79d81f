"""Ways of doing one thing in, the median seconds of each out; what every benchmark here shares."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def median_seconds(
    ways: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the median seconds of each way over `rounds`, as `seconds_in_turns` measures them."""
    seconds = seconds_in_turns(ways, rounds=rounds, clock=clock)
    return {name: statistics.median(values) for name, values in seconds.items()}


def seconds_in_turns(
    ways: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return the seconds of each way in each of `rounds`, by `clock`.

    `time.process_time` as clock gives the processor seconds of all threads together, which is
    what counts on workers with a task for every core.

    The ways take turns within every round, each time starting with another one, so that a machine
    that others use slows all of them alike and their ratios hold.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            began = clock()
            ways[name]()
            seconds[name].append(clock() - began)
    return seconds


def machine(packages: Sequence[str]) -> dict[str, str]:
    """Describe what the figures were measured on: processor, cores in use, load, versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "avx512": str("avx512bw" in flags).lower(),
        "amx": str("amx_tile" in flags).lower(),
        "load": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def show(
    tables: Mapping[str, Sequence[Mapping[str, Any]]], *, where: Mapping[str, str], as_json: bool
) -> None:
    """Print titled tables in Markdown, or all of it as one JSON object."""
    if as_json:
        print(json.dumps({"machine": where, "tables": tables}))
        return
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    for title, rows in tables.items():
        columns = list(rows[0])
        print(f"\n{title}\n\n| " + " | ".join(columns) + " |")
        print("|" + "---|" * len(columns))
        for row in rows:
            print("| " + " | ".join(_cell(row[column]) for column in columns) + " |")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)
