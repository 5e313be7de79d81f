"""The address of a scheduler and a number of tiles in, what doing them took this process out, as JSON.

A process of its own, and without what maps import, so that its memory tells of the tiles.
"""

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from dask.delayed import delayed

from pipelines.cluster import TileWork, connect, run_tasks
from pipelines.recipe import ClusterSection

SLEEP = 0.001
"""Seconds that a simulated tile takes."""


@dataclass(frozen=True)
class Sleeper:
    """A simulated tile."""

    number: int

    @property
    def id(self) -> str:
        """Name of the tile."""
        return f"r{self.number // 1000:05}c{self.number % 1000:05}"


def as_client(address: str, tiles: int) -> dict[str, float]:
    """Do so many simulated tiles on a scheduler; return what this process took."""
    task = delayed(time.sleep, pure=False)
    work: TileWork[Sleeper] = TileWork(step="scale", delay=lambda some: [task(SLEEP) for _ in some])
    done = 0

    def count(tile: str, result: None) -> None:
        nonlocal done
        done += 1

    with connect(ClusterSection(kind="scheduler", address=address)) as client:
        began, processor = time.perf_counter(), time.process_time()
        run_tasks(client, (Sleeper(number) for number in range(tiles)), work, on_done=count)
        seconds, processor = time.perf_counter() - began, time.process_time() - processor
    if done != tiles:
        raise RuntimeError(f"{done} of {tiles} tiles were done")
    return {"seconds": seconds, "processor": processor, "peak": peak_of(os.getpid())}


def peak_of(process: int) -> float:
    """Return the largest resident memory that a process has had, in MB."""
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    print(json.dumps(as_client(sys.argv[1], int(sys.argv[2]))))
