"""An event in; once it is set, the requests that go with it are tried no more."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from cube.errors import WorkFailedError
from cube.patience import STOPPED

LOOK = 0.2
"""Seconds between two looks whether waiting is over."""

_given_up: ContextVar[threading.Event | None] = ContextVar("given_up", default=None)


@contextmanager
def tried_until(given_up: threading.Event) -> Iterator[None]:
    """End what this thread asks for inside at its next try, once `given_up` is set.

    A request that is under way is waited for: its server goes on computing in any case, and counts
    it among those at once.
    """
    token = _given_up.set(given_up)
    try:
        yield
    finally:
        _given_up.reset(token)


def raise_if_over() -> None:
    """Raise `WorkFailedError` if the run was stopped, or what is asked for was given up."""
    if STOPPED.is_set():
        raise WorkFailedError("the run was stopped")
    event = _given_up.get()
    if event is not None and event.is_set():
        raise WorkFailedError("it was given up, because something else failed that it goes with")


def wait(seconds: float) -> None:
    """Wait so long, or until `raise_if_over` would raise, up to `LOOK` later."""
    event, end = _given_up.get(), time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not (event is not None and event.is_set()):
        if STOPPED.wait(left if event is None else min(left, LOOK)):
            return
