"""A parcel in, a worker that is ready for its tasks out: cores, caches, code, parcel."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import psutil
from distributed import Client, Worker, WorkerPlugin

from pipelines.cluster.code import code_stamp
from pipelines.cluster.faults import GONE
from pipelines.cluster.parcels import Parcel, close_parcel, open_parcel
from pipelines.cores import kept_to_together
from pipelines.progress import Stage

_REFUSED = "canopycube-refused"
"""Topic under which the cluster's events name workers that were sent away."""


class Readiness(WorkerPlugin):
    """Readies each worker for a step, those too that come later, and clears up after it.

    The worker's process keeps to as many cores as the worker has threads, and to its share of the
    memory with its caches. A worker that has other code than the client is sent away.
    """

    idempotent = True
    """A scheduler that has it keeps it: its workers may be in the middle of tiles."""

    def __init__(self, parcel: Parcel, *, stamp: str | None) -> None:
        self.parcel = parcel
        self.stamp = stamp
        self.name = f"canopycube-{parcel.key}"

    def setup(self, worker: Worker) -> None:
        """Ready a worker; called by Dask, before the worker's first task of the step."""
        self._stack = contextlib.ExitStack()
        if self.stamp is not None and code_stamp() != self.stamp:
            worker.log_event(
                _REFUSED, {"worker": worker.address, "name": str(worker.name), "code": code_stamp()}
            )
            # not now: Dask has not yet heard that it is there. Without the parcel no task runs here
            worker.loop.call_later(0.1, worker.close, reason="canopycube-other-code")
            return
        memory = worker_memory(worker)
        self._stack.enter_context(kept_to_together(worker.state.nthreads, memory=memory))
        open_parcel(self.parcel)
        self._stack.callback(close_parcel, self.parcel)

    def teardown(self, worker: Worker) -> None:
        """Put everything back; called by Dask when the step or the worker ends."""
        del worker
        self._stack.close()


def worker_memory(worker: Worker) -> int:
    """Return the bytes a worker may use: its limit, or its cores' share of the machine."""
    limit = worker.memory_manager.memory_limit
    if limit:
        return int(limit)
    cores = os.cpu_count() or 1
    return int(psutil.virtual_memory().total) * min(worker.state.nthreads, cores) // cores


@contextlib.contextmanager
def told_of_refusals(client: Client, stage: Stage) -> Iterator[None]:
    """Tell `stage`, during the body, of workers that are sent away because they have other code."""

    def tell(event: tuple[float, Any]) -> None:
        refused = event[1]
        stage.say(
            f"worker {refused['name']} at {refused['worker']} was sent away: it has canopycube "
            f"{refused['code']}, this program is {code_stamp()}"
        )

    client.subscribe_topic(_REFUSED, tell)
    try:
        yield
    finally:
        with contextlib.suppress(*GONE):
            client.unsubscribe_topic(_REFUSED)
