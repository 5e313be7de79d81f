"""Sizes of requests that Earth Engine bore or did not in, the size at which to begin out."""

import threading
from collections.abc import Hashable
from dataclasses import dataclass

RUN = 50
"""Right answers of a kind after which one larger request is tried."""

_LONGEST_RUN = 3200
"""Of answers between two tries that fail: each of them may take Earth Engine five minutes."""


@dataclass(kw_only=True)
class _Limit:
    """What is known of one kind of request."""

    most: int
    """Pixels that a request may have."""
    needed: int
    """Right answers of about that size before a larger one is tried."""
    run: int = 0
    """How many there were since the last."""
    is_trying: bool = False
    """Whether a larger one was let through and has not been answered yet."""


class Sizes:
    """Remembers what was too large, by kind of request; shared by threads.

    A kind of which nothing was ever too large has no limit. What is too large lowers the limit to
    the pieces into which it is cut. After `RUN` right answers one request of up to four times as
    many pixels is let through: if it succeeds, that is the limit, if not, twice as many answers
    have to come before the next.
    """

    def __init__(self) -> None:
        self._limits: dict[Hashable, _Limit] = {}
        self._lock = threading.Lock()

    def allows(self, kind: Hashable, pixels: int) -> bool:
        """Say whether a request of so many pixels is worth asking; one that is, is to be asked."""
        with self._lock:
            limit = self._limits.get(kind)
            if limit is None or pixels <= limit.most:
                return True
            if limit.run < limit.needed or pixels > 4 * limit.most:
                return False
            limit.run, limit.is_trying = 0, True
            return True

    def was_too_large(self, kind: Hashable, pixels: int, *, piece: int) -> None:
        """Note that so many pixels were too large; `piece` are those of the largest part of it."""
        with self._lock:
            limit = self._limits.setdefault(kind, _Limit(most=pixels, needed=RUN))
            if pixels <= limit.most:
                limit.most, limit.run = piece, 0
            elif limit.is_trying:  # else it was under way when the limit was lowered
                limit.needed = min(2 * limit.needed, _LONGEST_RUN)
                limit.is_trying = False

    def has_worked(self, kind: Hashable, pixels: int) -> None:
        """Note that a request of so many pixels was answered."""
        with self._lock:
            limit = self._limits.get(kind)
            if limit is None:
                return
            if pixels > limit.most:
                limit.most, limit.run, limit.needed, limit.is_trying = pixels, 0, RUN, False
            elif 4 * pixels > limit.most:  # a smaller one tells nothing of larger ones
                limit.run += 1
