"""A number of cores in, a process that keeps to it out: so many tiles compute, and nothing beside.

Every library here starts a thread per core by itself, and two that do so at once slow each other
down by more than they gain (measured: up to twelve times). So tiles are what runs in parallel, and
inside a tile everything runs on its own thread.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import numba
import numcodecs.blosc
import numpy as np
import zarr
from threadpoolctl import threadpool_limits

Result = TypeVar("Result")

GDAL_SHARE = 20
"""GDAL's cache is one part in so many of the memory, as it is of itself of the machine's."""

GDAL_LEAST = 16 * 2**20
"""Bytes of GDAL's cache at least; smaller numbers would be taken for megabytes."""


def tiles_ahead(cores: int) -> int:
    """Return how many tiles are read or written while as many as there are `cores` compute.

    Few: each costs a tile's memory, and what it hides is the wait for the disk, where a tile of 512
    pixels spends under a tenth of its time.
    """
    return 1 + cores // 8


class Cores:
    """What a process may use: so many tiles compute at once, a few more are read or written."""

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"{count!r} cores; expected 1 or more")
        self.count = count
        self.under_way = threading.Semaphore(count + tiles_ahead(count))
        self._rooms: list[np.ndarray] = []
        self._computing = ThreadPoolExecutor(
            count, thread_name_prefix="compute", initializer=_compute_alone
        )

    def compute(self, function: Callable[..., Result], *words: Any, **named: Any) -> Result:
        """Call `function` on one of the threads that compute, as soon as one is free.

        They stay the same ones from tile to tile, so what an engine keeps for each stays warm. Raises
        `InterruptedError` once they are closed: the worker leaves, and another one does the tile.
        """
        try:
            computing = self._computing.submit(function, *words, **named)
        except RuntimeError as error:
            raise InterruptedError("the worker leaves") from error
        try:
            return computing.result()
        except CancelledError as error:
            raise InterruptedError("the worker leaves") from error

    @contextmanager
    def room(self, size: int) -> Iterator[np.ndarray]:
        """Yield `size` bytes of memory that tiles have one after the other.

        Else each tile's would be new to the process, which costs more than reading it, and what
        the allocator keeps of old ones would grow with the number of tiles.
        """
        try:
            memory = self._rooms.pop()
        except IndexError:
            memory = np.empty(0, np.uint8)
        if memory.size < size:
            memory = np.empty(size, np.uint8)
        try:
            yield memory[:size]
        finally:
            self._rooms.append(memory)

    def close(self) -> None:
        """End the threads; calls that wait for one fail."""
        self._computing.shutdown(cancel_futures=True)


_own: Cores | None = None
"""What this process keeps to; None where nobody has said."""


def own_cores() -> Cores | None:
    """Return what this process keeps to, None outside `kept_to`."""
    return _own


@contextmanager
def kept_to(count: int, *, memory: int | None = None) -> Iterator[Cores]:
    """Keep this process to `count` cores: Zarr's codecs share as many threads, the others have one.

    That is what is process-wide: BLAS, blosc, GDAL, numba's loops, Zarr's pool. Torch and OpenMP
    count by thread: those that compute are told when they start. GDAL keeps blocks of files in a
    share of `memory`, bytes that the process may use; of itself it takes one of the whole machine
    in each process, once and for all when it first reads. Everything is put back at the end, but a
    pool that Zarr has made keeps its size.
    """
    with ExitStack() as stack:
        cores = Cores(count)
        stack.callback(cores.close)
        stack.enter_context(threadpool_limits(1, user_api="blas"))
        stack.enter_context(zarr.config.set({"threading.max_workers": count}))
        stack.enter_context(_replaced(numcodecs.blosc, "use_threads", False))
        stack.enter_context(_replaced(numba.config, "NUMBA_NUM_THREADS", 1))
        stack.enter_context(_environment("GDAL_NUM_THREADS", "1"))
        if memory is not None and "GDAL_CACHEMAX" not in os.environ:
            cache = max(memory // GDAL_SHARE, GDAL_LEAST) // 2**20
            stack.enter_context(_environment("GDAL_CACHEMAX", str(cache)))
        stack.enter_context(_replaced_own(cores))
        yield cores


_users = 0
_users_lock = threading.Lock()
_for_users = ExitStack()


@contextmanager
def kept_to_together(count: int, *, memory: int | None = None) -> Iterator[None]:
    """Keep this process to the `count` cores of who asks first, until the last of them has left.

    Inside `kept_to` that one's count holds. One who leaves takes nothing from the others.
    """
    global _users
    with _users_lock:
        if not _users and own_cores() is None:
            _for_users.enter_context(kept_to(count, memory=memory))
        _users += 1
    try:
        yield
    finally:
        with _users_lock:
            _users -= 1
            if not _users:
                _for_users.close()


def _compute_alone() -> None:
    """Give the calling thread, and what it starts, no thread beside it."""
    import torch  # of the processes that compute maps only: it takes seconds and 200 MB

    torch.set_num_threads(1)


@contextmanager
def _replaced_own(cores: Cores) -> Iterator[None]:
    global _own
    before, _own = _own, cores
    try:
        yield
    finally:
        _own = before


@contextmanager
def _replaced(holder: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(holder, name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, before)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value  # GDAL asks for it each time it decodes
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
