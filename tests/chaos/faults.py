"""The name of a fault in, the fault done to a run out: what clusters do to those who work on them."""

import secrets
import signal
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Protocol

from tests.chaos.cluster import WORKER_TTL, Cluster, Worker
from tests.chaos.stores import chunk_files, tiles_recorded


class Struck(Protocol):
    """A run that faults are done to."""

    cluster: Cluster
    random: Random
    store: Path

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after so many seconds, or when the command has ended."""

    def end_command(self, number: signal.Signals) -> None:
        """Send the command a signal and wait for its end; it is started again."""

    def start_second_command(self) -> None:
        """Start the same command beside the one that is at work, which does not wait for it."""


def _worker(run: Struck) -> Worker | None:
    """Return one of the workers to which nothing is being done yet."""
    free = [one for one in run.cluster.workers if not one.is_stopped and not one.is_cut]
    return run.random.choice(free) if free else None


def kill_worker(run: Struck) -> bool:
    """SIGKILL a worker, as the system does for want of memory."""
    if (worker := _worker(run)) is None:
        return False
    worker.process.kill()
    return True


def kill_all_workers(run: Struck) -> bool:
    """SIGKILL every worker at once, as when a queue takes all nodes back."""
    for worker in run.cluster.workers:
        worker.process.send(signal.SIGKILL)
    for worker in run.cluster.workers:
        worker.process.kill()
    return True


def suspend_worker(run: Struck) -> bool:
    """SIGSTOP a worker for longer than the scheduler waits, then let it go on where it was."""
    if (worker := _worker(run)) is None:
        return False

    def wake() -> None:
        worker.is_stopped = False
        process.send(signal.SIGCONT)

    process, worker.is_stopped = worker.process, True
    process.send(signal.SIGSTOP)
    run.later(_longer(run), wake)
    return True


def cut_host(run: Struck) -> bool:
    """Pull a host's cable for longer than the scheduler waits, then put it back."""
    worker = _worker(run)
    if worker is None or worker.host.link is None:
        return False

    def mend() -> None:
        worker.is_cut = False
        worker.host.mend()

    worker.is_cut = True
    worker.host.cut()
    run.later(_longer(run), mend)
    return True


def restart_scheduler(run: Struck) -> bool:
    """SIGKILL the scheduler; another one comes up at its address."""
    run.cluster.restart_scheduler(pause=run.random.uniform(0.2, 2.0))
    return True


def kill_command(run: Struck) -> bool:
    """SIGKILL the command itself."""
    run.end_command(signal.SIGKILL)
    return True


def interrupt_command(run: Struck) -> bool:
    """SIGINT: Ctrl-C."""
    run.end_command(signal.SIGINT)
    return True


def terminate_command(run: Struck) -> bool:
    """SIGTERM, as from a queue whose time is up."""
    run.end_command(signal.SIGTERM)
    return True


def start_second_command(run: Struck) -> bool:
    """Start the same run twice, as two people do who share a disk."""
    run.start_second_command()
    return True


def plant_partial(run: Struck) -> bool:
    """Leave beside shards and records what a writer leaves that is killed half-way."""
    if not (done := sorted(tiles_recorded(run.store))):
        return False
    tile = run.random.choice(done)
    shard = run.store / run.random.choice(chunk_files(run.store, tile))
    shard.with_name(f"{shard.name}.{secrets.token_hex(16)}.partial").write_bytes(b"half")
    record = run.store / "ledger" / f".{tile}.json.{secrets.token_hex(6)}.draft"
    record.write_bytes(b'{"tile": ')
    return True


DURING: dict[str, Callable[[Struck], bool]] = {
    "worker killed": kill_worker,
    "all workers killed": kill_all_workers,
    "worker suspended": suspend_worker,
    "host cut off": cut_host,
    "scheduler restarted": restart_scheduler,
    "command killed": kill_command,
    "command interrupted": interrupt_command,
    "command terminated": terminate_command,
    "second command started": start_second_command,
    "partial files planted": plant_partial,
}
"""Faults while a step runs; each returns whether it could be done."""


def delete_chunk(store: Path, tile: str, random: Random) -> None:
    """Remove a file of a tile's pixels."""
    (store / random.choice(chunk_files(store, tile))).unlink()


def cut_chunk_short(store: Path, tile: str, random: Random) -> None:
    """Leave the first half of a file, as a disk does that was full."""
    file = store / random.choice(chunk_files(store, tile))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def flip_a_bit(store: Path, tile: str, random: Random) -> None:
    """Change one bit of a file, as memory and old disks do."""
    file = store / random.choice(chunk_files(store, tile))
    content = bytearray(file.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    file.write_bytes(content)


def lose_record(store: Path, tile: str, random: Random) -> None:
    """Remove the record of a tile."""
    del random
    (store / "ledger" / f"{tile}.json").unlink()


def tear_tile(store: Path, tile: str, random: Random) -> None:
    """Leave a tile half written: no record, one file cut short."""
    cut_chunk_short(store, tile, random)
    lose_record(store, tile, random)


BETWEEN: dict[str, Callable[[Path, str, Random], None]] = {
    "chunk deleted": delete_chunk,
    "chunk cut short": cut_chunk_short,
    "bit flipped": flip_a_bit,
    "record lost": lose_record,
    "tile half written": tear_tile,
}
"""Faults of a tile in a finished store, between two runs."""


def _longer(run: Struck) -> float:
    """Return seconds after which the scheduler has given a worker up."""
    return WORKER_TTL + run.random.uniform(1.0, 4.0)
