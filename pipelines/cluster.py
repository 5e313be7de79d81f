"""A `[cluster]` section in, finished tasks out: the only place that makes a Dask client."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import dask
from distributed import (
    Client,
    LocalCluster,
    Worker,
    WorkerPlugin,
    as_completed,
    get_worker,
    secede,
)

from cube.errors import InputError, WorkFailedError
from pipelines import stop
from pipelines.cores import Cores, kept_to_together, own_cores
from pipelines.recipe import ClusterSection


@contextlib.contextmanager
def connect(section: ClusterSection) -> Iterator[Client]:
    """Yield a Dask client for the recipe's cluster and close it afterwards.

    "threads" runs tasks in this process, "local" in processes of this machine, "scheduler" on a
    running cluster. Raises `InputError` if the scheduler does not answer within 30 seconds.
    """
    workers = section.workers or os.cpu_count() or 1
    with contextlib.ExitStack() as stack:
        # a failed tile is told once, by us, with its place; here and in worker processes
        stack.enter_context(dask.config.set({"logging": {"distributed": "critical"}}))
        if section.kind == "scheduler":
            try:
                client = Client(section.address, timeout="30s")
            except (OSError, TimeoutError) as error:
                raise InputError(
                    f"cluster.address {section.address!r} does not answer: {error}"
                ) from error
        else:
            threads = section.kind == "threads"
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=1 if threads else workers,
                    threads_per_worker=workers if threads else 1,
                    processes=not threads,
                    dashboard_address="127.0.0.1:0",
                    silence_logs=logging.CRITICAL,
                    # tiles are bounded by plan, and other programs share the machine
                    memory_limit=0,
                    # loopback also for threads: dask's in-process protocol asks for the
                    # machine's outer address, and what pickles here pickles on a cluster
                    protocol="tcp://",
                    host="127.0.0.1",
                )
            )
            client = Client(cluster)
        yield stack.enter_context(client)


def run_tasks(
    client: Client,
    tasks: dict[str, Any],
    *,
    step: str,
    on_done: Callable[[str, Any], None],
) -> None:
    """Compute delayed `tasks` (by tile id), calling `on_done` as each ends.

    The first `InputError` of a task cancels the rest and is raised: wrong data stays wrong.
    Other failures are collected; `WorkFailedError` names the tiles when all the rest is done.
    Meanwhile each worker keeps to as many cores as it has threads (`pipelines.cores`).
    """
    failed: dict[str, BaseException] = {}
    with _kept_to_their_cores(client):
        futures = dict(
            zip(client.compute(list(tasks.values()), optimize_graph=False), tasks, strict=True)
        )
        try:
            for future in as_completed(futures):
                stop.raise_if_asked()
                tile = futures[future]
                error = future.exception() if future.status == "error" else None
                if isinstance(error, InputError):
                    raise error
                if error is not None:
                    failed[tile] = error
                else:
                    on_done(tile, future.result())
                future.release()
        finally:
            client.cancel(list(futures), force=True)
    if failed:
        first = min(failed)
        raise WorkFailedError(
            f"{step}: {len(failed)} of {len(tasks)} tiles failed ({_some(failed)}); first: tile "
            f"{first}: {type(failed[first]).__name__}: {str(failed[first])[:300]}. "
            "Running again does only what is missing."
        ) from failed[first]


class _KeepToCores(WorkerPlugin):
    """Has a worker's process keep to as many cores as the worker has threads."""

    name = "canopycube-cores"

    def setup(self, worker: Worker) -> None:
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(kept_to_together(worker.state.nthreads))

    def teardown(self, worker: Worker) -> None:
        del worker
        self._stack.close()


@contextlib.contextmanager
def _kept_to_their_cores(client: Client) -> Iterator[None]:
    """Have all workers keep to their cores, those too that come later."""
    client.register_plugin(_KeepToCores())
    try:
        yield
    finally:
        client.unregister_worker_plugin(_KeepToCores.name)


@contextlib.contextmanager
def place_under_way() -> Iterator[Cores | None]:
    """Wait for a place among the tiles that are under way in this process; keep it for the body.

    With a place a task leaves Dask's threads, so that the next one can ask: a tile is read and
    another written while as many compute as there are cores. Yields what this process keeps to,
    None where no worker has set that up; then nobody waits.
    """
    cores = own_cores()
    if cores is None:
        yield None
        return
    with cores.under_way:
        with contextlib.suppress(ValueError):  # no worker
            get_worker()
            secede()
        yield cores


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:5]) + (", …" if len(listed) > 5 else "")
