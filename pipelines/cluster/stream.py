"""Tiles in, finished tasks out: a bounded number under way, and failures dealt with as they come."""

import contextlib
import queue
import random
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any, Generic

from distributed import CancelledError, Client, Future
from distributed.client import ClosedClientError

from cube.errors import WorkFailedError
from pipelines import stop
from pipelines.cluster.again import Again
from pipelines.cluster.client import asked_of, replace_lost
from pipelines.cluster.code import code_stamp
from pipelines.cluster.faults import GONE, Fault, fault_of, reason_of
from pipelines.cluster.plugin import Readiness, told_of_refusals
from pipelines.cluster.work import FailedTile, Tile, TileWork, given_up
from pipelines.progress import SILENT, Stage
from pipelines.sole_user import refuse_lost_leases

AHEAD = 4
"""Tiles under way for each thread of the cluster: read, computed, written, and one that waits."""

MOST_AHEAD = 100
"""Tiles under way for each thread at most, where they end so fast that `AHEAD` would not last for
`_SECONDS_AHEAD`."""

LEAST_AHEAD = 8
"""Tiles under way at least."""

_SECONDS_AHEAD = 1.0

_COLLECT = 0.05
"""Seconds for which tasks that end fast are collected, for each round asks the cluster twice."""

_ROUND = 0.5
"""Seconds after which it is looked whether a stop was asked for, at most."""

_COUNT_WORKERS = 2.0
"""Seconds between two looks at the workers."""

FIRST_PAUSE = 1.0
"""Seconds before a tile is done again whose network or disk failed, at most; doubled each time."""

_LONGEST_PAUSE = 60.0

_LONGEST_GATHER = 60.0


def run_tasks(
    client: Client,
    tiles: Iterable[Tile],
    work: TileWork[Tile],
    *,
    on_done: Callable[[str, Any], None],
    stage: Stage = SILENT,
) -> None:
    """Do the work of every tile on the cluster, calling `on_done` with its id and result.

    `tiles` is asked for more as others end, so neither this process nor the scheduler grows with
    their number. A tile whose worker died, or which a network or disk failed, is done again, as
    often as `cluster.retries` says; one that took too much memory in strips, where the work knows
    how. What fails for other reasons, or too often, is told to `stage`, and the others go on.

    An `InputError` or `ModelError` of a task ends the run and is raised: wrong data stays wrong.
    Raises `TilesFailedError` at the end if tiles were given up, and `WorkFailedError` at once where
    the disk is full or read-only, or scheduler or workers are gone for `cluster.timeout` seconds.
    """
    stream = _Stream(client, tiles, work, on_done=on_done, stage=stage)
    with told_of_refusals(client, stage):
        try:
            stream.run()
        finally:
            stream.end()
    if stream.failed:
        raise given_up(work.step, stream.failed, stream.count)


class _Stream(Generic[Tile]):
    """One call of `run_tasks`: what is under way, what is to be done again, what failed."""

    def __init__(
        self,
        client: Client,
        tiles: Iterable[Tile],
        work: TileWork[Tile],
        *,
        on_done: Callable[[str, Any], None],
        stage: Stage,
    ) -> None:
        self.client, self.work, self.on_done, self.stage = client, work, on_done, stage
        self.failed: list[FailedTile] = []
        self.count = 0
        self._tiles = iter(tiles)
        self._is_drained = False
        self._asked = asked_of(client)
        self._under_way: dict[Future[Any], Tile] = {}
        self._ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._again: Again[Tile] = Again()
        self._limit, self._is_fast = LEAST_AHEAD, False
        self._workers = 0
        self._next_look, self._last_look = 0.0, -1e9
        self._ended_count = self._counted = 0
        self._last_worker = time.monotonic()
        stamp = code_stamp() if self._asked.is_elsewhere else None
        self._readiness = Readiness(work.parcel, stamp=stamp)
        self._is_ready = False

    def run(self) -> None:
        """Do all tiles, or raise what ends the run."""
        while True:
            stop.raise_if_asked()
            refuse_lost_leases()
            self._stay_connected()
            self._look_at_workers()
            self._submit()
            if self._is_drained and not (self._under_way or self._again):
                return
            ended = self._take_ended()
            try:
                self._settle(ended)
            finally:
                self._ended_count += len(ended)
                for future in ended:
                    self._under_way.pop(future, None)
                    future.release()
            self.stage.look()

    def end(self) -> None:
        """Take back what is under way, and clear up on the workers."""
        # of a scheduler that is gone nothing can be taken back, and why is being raised already
        with contextlib.suppress(*GONE):
            if self.client.status == "running":
                self.client.cancel(list(self._under_way), force=True)
                if self._is_ready:
                    self.client.unregister_worker_plugin(self._readiness.name)
        self._under_way.clear()

    def _stay_connected(self) -> None:
        """Wait until the scheduler is there, and see that its workers are ready.

        The client connects again by itself, for `cluster.timeout` seconds. A scheduler that was
        restarted knows nothing of this run.
        """
        lost_since = None
        while self.client.status != "running":
            if self.client.status in ("closed", "closing"):
                raise WorkFailedError(
                    f"{self.work.step}: the scheduler is gone and did not come back within "
                    f"cluster.timeout = {self._asked.timeout:g} s. Running again does only what is "
                    "missing"
                )
            if lost_since is None:
                lost_since = time.monotonic()
                self.stage.say("the scheduler is lost; waiting for it")
            self._is_ready = False
            stop.raise_if_asked()
            time.sleep(_ROUND / 5)
        if lost_since is not None:
            self.stage.say(f"the scheduler is back after {time.monotonic() - lost_since:.0f} s")
            self._last_worker = time.monotonic()
        if not self._is_ready:
            # it may be lost again at any moment: then the next round tries again
            with contextlib.suppress(OSError, TimeoutError):
                self.client.register_plugin(self._readiness)
                self._is_ready = True

    def _look_at_workers(self) -> None:
        """Count the workers now and then; give up if there has been none for too long."""
        now = time.monotonic()
        if now < self._next_look:
            return
        rate = (self._ended_count - self._counted) / (now - self._last_look)
        self._next_look, self._last_look = now + _COUNT_WORKERS, now
        self._counted = self._ended_count
        try:
            threads = self.client.nthreads()
            replace_lost(self.client)
        except (OSError, TimeoutError):
            return  # the next round finds out whether the scheduler is lost
        if len(threads) != self._workers:
            self._workers = len(threads)
            self.stage.workers(self._workers)
        count = sum(threads.values()) or self._asked.most_workers or 1
        ahead = min(max(AHEAD * count, round(_SECONDS_AHEAD * rate)), MOST_AHEAD * count)
        self._limit, self._is_fast = max(ahead, LEAST_AHEAD), ahead > AHEAD * count
        if threads:
            self._last_worker = now
        elif now - self._last_worker > self._asked.timeout:
            raise WorkFailedError(
                f"{self.work.step}: there has been no worker for cluster.timeout = "
                f"{self._asked.timeout:g} s. Running again does only what is missing"
            )

    def _submit(self) -> None:
        """Send tiles until as many are under way as may be, many at a time."""
        room = self._limit - len(self._under_way)
        if not self._is_ready or room < self._limit // AHEAD:
            return
        under_way, workers = self._under_way.values(), self._workers
        for tile in self._again.due_suspects(room, under_way=under_way, workers=workers):
            in_strips = self.work.in_strips
            self._send([tile], self.work.delay([tile]) if in_strips is None else [in_strips(tile)])
            room -= 1
        batch = self._again.due(room)
        fresh = list(islice(self._tiles, room - len(batch)))
        self.count += len(fresh)
        self._is_drained = self._is_drained or len(fresh) < room - len(batch)
        if batch := batch + fresh:
            self._send(batch, self.work.delay(batch))

    def _send(self, tiles: list[Tile], delayed: Sequence[Any]) -> None:
        try:
            resources = {self.work.resource: 1} if self._has_resource() else None
            futures = self.client.compute(list(delayed), optimize_graph=False, resources=resources)
        except (OSError, TimeoutError, ClosedClientError):  # the scheduler is lost at this moment
            for tile in tiles:
                self._again.add(tile)
            return
        for future, tile in zip(futures, tiles, strict=True):
            self._under_way[future] = tile
            future.add_done_callback(self._ended.put)

    def _has_resource(self) -> bool:
        """Say whether any worker declares what a task of this work takes."""
        if self.work.resource is None:
            return False
        workers = self.client.scheduler_info()["workers"].values()
        return any(self.work.resource in worker.get("resources", {}) for worker in workers)

    def _take_ended(self) -> list[Future[Any]]:
        """Wait a little for tasks to end; return those that have."""
        ended = []
        with contextlib.suppress(queue.Empty):
            ended.append(self._ended.get(timeout=self._again.wait(_ROUND)))
            if self._is_fast:
                time.sleep(_COLLECT)
            while True:
                ended.append(self._ended.get_nowait())
        return ended

    def _settle(self, futures: list[Future[Any]]) -> None:
        """Hand over the results of tasks that have ended, and deal with those that failed."""
        done = [future for future in futures if future.status == "finished"]
        try:
            results = self._gather(done)
        except (OSError, TimeoutError) as error:
            for future in done:
                self._fail(self._under_way.pop(future), error)
            results = {}
        for future, result in results.items():
            tile = self._under_way.pop(future)
            self._again.forget(tile)
            self.on_done(tile.id, result)
        for future in futures:
            if future in self._under_way:
                tile = self._under_way.pop(future)
                self._fail(tile, future.exception() if future.status == "error" else None)

    def _gather(self, futures: list[Future[Any]]) -> dict[Future[Any], Any]:
        """Return the results of tasks, but those that whoever held them took along when it died.

        Dask makes those again, and they end again, perhaps otherwise. Raises `TimeoutError` if that
        takes longer than a minute: meanwhile nothing else is looked after.
        """
        if not futures:
            return {}
        gather = partial(
            self.client.gather, dict(enumerate(futures)), errors="skip", asynchronous=True
        )
        try:
            found = self.client.sync(gather, callback_timeout=_LONGEST_GATHER)
        except CancelledError:  # the scheduler was lost meanwhile
            return {}
        return {
            future: found[number]
            for number, future in enumerate(futures)
            if future.status == "finished"
        }

    def _fail(self, tile: Tile, error: BaseException | None) -> None:
        """Do a tile again, give it up, or end the run; None is a task that the scheduler lost."""
        if error is None:
            self._is_ready = False  # a scheduler that was restarted, most likely
            self._again.add(tile)
            return
        fault = fault_of(error)
        if fault is Fault.INPUT:
            raise error
        if fault is Fault.HOPELESS:
            raise WorkFailedError(
                f"{self.work.step}: tile {tile.id} cannot be written: {reason_of(error)}. Running "
                "again does only what is missing"
            ) from error
        tries = self._again.count_try(tile)
        if fault is Fault.OWN or tries > self._asked.retries:
            self._give_up(tile, error, tries)
            return
        self.stage.retried(tile.id, reason_of(error))
        if fault is not Fault.PASSING:
            self._again.suspect(tile)
        pause = random.uniform(0.5, 1) * FIRST_PAUSE * 2 ** (tries - 1)
        self._again.add(tile, pause=min(pause, _LONGEST_PAUSE))

    def _give_up(self, tile: Tile, error: BaseException, tries: int) -> None:
        self._again.forget(tile)
        failed = FailedTile(tile=tile.id, reason=reason_of(error), tries=tries)
        self.failed.append(failed)
        self.stage.failed(failed.tile, failed.reason)
