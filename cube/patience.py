"""Failed tries in, how long to wait for the next out, until a run that is stopped waits no more."""

import random
import threading
from dataclasses import dataclass

from cube.errors import InputError

STOPPED = threading.Event()
"""Set when this process is about to end: waits for servers, and tries, are over."""


def stop_fetching() -> None:
    """End the waits and tries of all threads of this process, which is about to end."""
    STOPPED.set()


def allow_fetching() -> None:
    """Take `stop_fetching` back, for a process that begins another run."""
    STOPPED.clear()


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a server that fails is asked again."""

    attempts: int = 8
    """Tries of one request. With every fifth request failing, one in 400,000 fails eight times."""
    first_pause: float = 0.5
    """Seconds before the second try at most; the limit doubles with each further one, and the
    pause is drawn at random below it, so that many workers do not come back at once."""
    longest_pause: float = 20.0
    """Seconds that no pause exceeds, but for what the server itself asks for."""
    longest_wait: float = 120.0
    """Seconds that a server may ask for in `Retry-After`; more ends the tries."""
    timeout: float = 60.0
    """Seconds without a byte after which a request has failed."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise InputError(f"attempts is {self.attempts!r}; expected 1 or more")
        for name in ("first_pause", "longest_pause", "longest_wait"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name)!r}; expected seconds, 0 or more")
        if not 0 < self.timeout < float("inf"):
            raise InputError(f"timeout is {self.timeout!r}; expected seconds above 0")

    def pause(self, tries: int) -> float:
        """Return the seconds to wait after `tries` failed tries: full jitter, exponential."""
        return random.uniform(0, min(self.longest_pause, self.first_pause * 2 ** (tries - 1)))
