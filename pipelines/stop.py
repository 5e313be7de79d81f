"""A signal in, an orderly stop out."""

import signal
import threading
from types import FrameType

_asked = threading.Event()


def listen() -> None:
    """Let SIGINT and SIGTERM stop the command by `KeyboardInterrupt`; main thread only."""
    _asked.clear()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _stop)


def raise_if_asked() -> None:
    """Raise `KeyboardInterrupt` if a stop was asked for and lost.

    Python drops an interrupt that hits a destructor, so loops that last look here too.
    """
    if _asked.is_set():
        raise KeyboardInterrupt


def _stop(number: int, frame: FrameType | None) -> None:
    del number, frame
    if not _asked.is_set():  # a second one must not disturb the clean-up
        _asked.set()
        raise KeyboardInterrupt
