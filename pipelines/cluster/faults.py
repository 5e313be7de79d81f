"""An error of a task in, what follows from it out: again, again in strips, never, or the end."""

import enum
import errno

from distributed import CancelledError, KilledWorker
from distributed.client import ClosedClientError

from cube.errors import InputError
from model.errors import ModelError


class Fault(enum.Enum):
    """What is to be done about a tile that failed."""

    PASSING = "passing"
    """Network, disk, token: it is done again after a pause."""
    DEATH = "death"
    """Its worker died, perhaps of it: it is done again, with less memory where that can be."""
    MEMORY = "memory"
    """It took too much memory: it is done again with less."""
    OWN = "own"
    """It fails every time: it is told, and the others go on."""
    INPUT = "input"
    """What the user gave is wrong: the run ends."""
    HOPELESS = "hopeless"
    """Nothing can be written any more: the run ends."""


GONE = (OSError, TimeoutError, RuntimeError, ValueError, ClosedClientError)
"""What a client raises whose scheduler is gone."""

_NOTHING_CAN_BE_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def fault_of(error: BaseException) -> Fault:
    """Return what kind of failure an error of a task is."""
    if isinstance(error, InputError | ModelError):
        return Fault.INPUT
    if isinstance(error, KilledWorker):
        return Fault.DEATH
    if isinstance(error, MemoryError):
        return Fault.MEMORY
    if isinstance(error, CancelledError):
        return Fault.PASSING
    if isinstance(error, OSError):  # time-outs and lost connections are among them
        is_hopeless = error.errno in _NOTHING_CAN_BE_WRITTEN
        return Fault.HOPELESS if is_hopeless else Fault.PASSING
    return Fault.OWN


def reason_of(error: BaseException) -> str:
    """Return an error in one line of at most 300 characters."""
    if isinstance(error, KilledWorker):
        return "the workers that had it died: killed by the system or for want of memory"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__
