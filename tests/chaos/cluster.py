"""Hosts in, a Dask cluster of real processes on them out, whose parts can be killed, stopped, cut off.

It does what a cluster manager does: a worker that is gone is replaced, on the same host.
"""

import itertools
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import witness
from tests.chaos.hosts import Host
from tests.chaos.processes import Process, start, start_nursery, wait_until

WORKER_TTL = 5.0
"""Seconds after which the scheduler gives up a worker of which it hears nothing."""

_UP = 120.0
"""Seconds that scheduler and workers have to come up, on two busy cores."""

_DASK = {
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{WORKER_TTL:.0f}s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
    "DASK_DISTRIBUTED__ADMIN__TICK__LIMIT": "60s",
}


@dataclass(kw_only=True)
class Worker:
    """A place for a worker, and the process that fills it at present."""

    number: int
    """Which place."""
    host: Host
    """Where it runs."""
    process: Process
    """What runs there now."""
    is_stopped: bool = False
    """Whether it was sent SIGSTOP and not yet SIGCONT."""
    is_cut: bool = False
    """Whether its host's cable is pulled."""


class Cluster:
    """A scheduler on the first host and a worker of one thread on each of the others."""

    def __init__(self, hosts: tuple[Host, ...], folder: Path) -> None:
        self.folder, self.home = folder, hosts[0]
        self.port = 8786 if hosts[0].namespace else free_port()
        self.address = f"tcp://{hosts[0].address}:{self.port}"
        self._serial = itertools.count()
        self.replaced = 0
        """Workers that were started for one that had gone."""
        (folder / "witness").mkdir(parents=True, exist_ok=True)
        self.scheduler = self._start_scheduler()
        surroundings = {**_DASK, witness.WITNESS: str(folder / "witness")}
        self._nurseries = [
            start_nursery(host=host, folder=folder, environment=surroundings) for host in hosts[1:]
        ]
        self.workers = [
            Worker(number=number, host=host, process=self._start_worker(number, host))
            for number, host in enumerate(hosts[1:])
        ]

    @property
    def processes(self) -> list[Process]:
        """All of them, for messages."""
        return [self.scheduler, *(worker.process for worker in self.workers)]

    def wait(self) -> None:
        """Wait until every worker has joined the scheduler."""
        wait_until(self._is_whole, seconds=_UP, what="all workers joined", processes=self.processes)

    def tend(self) -> None:
        """Replace what has ended, as a cluster manager does."""
        for worker in self.workers:
            if worker.process.code is not None and not worker.is_cut:
                worker.is_stopped = False
                worker.process = self._start_worker(worker.number, worker.host)
                self.replaced += 1

    def restart_scheduler(self, pause: float) -> None:
        """Kill the scheduler; after `pause` seconds another one listens at the same address."""
        self.scheduler.kill()
        time.sleep(pause)
        self.scheduler = self._start_scheduler()

    def begun(self) -> int:
        """Return how often workers have begun a tile, all told."""
        return sum(line[0] == "began" for line in self._witnessed())

    def recorded(self, store: Path) -> dict[str, int]:
        """Return how often each tile of a store was recorded by workers, by tile id."""
        counts: dict[str, int] = {}
        for line in self._witnessed():
            if line[0] == "recorded" and line[1] == str(store):
                counts[line[2]] = counts.get(line[2], 0) + 1
        return counts

    def told(self) -> int:
        """Return how many lines workers have written of what they do; grows while any is at work."""
        return sum(1 for _ in self._witnessed())

    def close(self) -> None:
        """End every process and put every cable back."""
        for worker in self.workers:
            worker.process.kill()
            if worker.is_cut:
                worker.host.mend()
        for nursery in self._nurseries:
            nursery.close()
        self.scheduler.kill()

    def _is_whole(self) -> bool:
        self.tend()
        return all("Registered to" in worker.process.last_words(20_000) for worker in self.workers)

    def _witnessed(self) -> Iterator[list[str]]:
        for file in (self.folder / "witness").glob("*.txt"):
            for line in file.read_text().splitlines():
                yield line.split("\t")

    def _start_scheduler(self) -> Process:
        words = ["--host", self.home.address, "--port", str(self.port), "--no-dashboard"]
        return start(
            f"scheduler-{next(self._serial)}",
            ["dask", "scheduler", *words],
            host=self.home,
            folder=self.folder,
            environment=_DASK,
        )

    def _start_worker(self, number: int, host: Host) -> Process:
        name = f"worker-{number}-{next(self._serial)}"
        words = [self.address, "--nthreads", "1", "--host", host.address, "--name", name]
        words += ["--no-nanny", "--no-dashboard", "--memory-limit", "0"]
        words += ["--local-directory", str(self.folder / "scratch")]
        words += ["--preload", witness.__file__]
        log = self.folder / f"{name}.log"
        return Process(name=name, log=log, handle=self._nurseries[number].start(words, log))


@contextmanager
def cluster(hosts: tuple[Host, ...], folder: Path) -> Iterator[Cluster]:
    """Yield a cluster whose workers have all joined; end its processes afterwards."""
    made = Cluster(hosts, folder)
    try:
        made.wait()
        yield made
    finally:
        made.close()


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
