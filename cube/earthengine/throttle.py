"""Requests of many threads in, no more of them under way at once than the server bears."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from cube.earthengine.giveup import LOOK, raise_if_over

RUN = 20
"""Right answers in a row after which one request more is tried at once."""


class Slot:
    """One request's leave to be under way."""

    def __init__(self, throttle: "Throttle", cut: int) -> None:
        self._throttle = throttle
        self._cut = cut

    def has_succeeded(self) -> None:
        """Note that the server has answered rightly."""
        self._throttle._note_success()

    def is_refused(self) -> None:
        """Note that the server has asked for fewer requests."""
        self._throttle._note_refusal(self._cut)


class Throttle:
    """Lets at most `limit` requests be under way, in the order in which they came.

    A refusal (429) halves the limit, not below 1; of requests that were under way together only the
    first refusal counts, for the others know nothing of the lower limit yet. Each `RUN` right
    answers in a row raise it by one, up to what the user allows.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = most
        self._under_way = 0
        self._waiting: deque[threading.Event] = deque()
        self._lock = threading.Lock()
        self._run = 0
        self._cuts = 0

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        """Wait for a turn and hold it; raises as `raise_if_over`, if that comes meanwhile."""
        cut = self._enter()
        try:
            yield Slot(self, cut)
        finally:
            with self._lock:
                self._under_way -= 1
                self._let_in()

    def _enter(self) -> int:
        turn = threading.Event()
        with self._lock:
            self._waiting.append(turn)
            self._let_in()
        try:
            while not turn.wait(LOOK):
                raise_if_over()
        except BaseException:  # an interrupted wait must not keep its turn
            self._leave_queue(turn)
            raise
        with self._lock:
            return self._cuts

    def _leave_queue(self, turn: threading.Event) -> None:
        with self._lock:
            if turn.is_set():  # let in just now
                self._under_way -= 1
            else:
                self._waiting.remove(turn)
            self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._under_way < self.limit:
            self._under_way += 1
            self._waiting.popleft().set()

    def _note_success(self) -> None:
        with self._lock:
            self._run += 1
            if self._run >= RUN:
                self._run = 0
                self.limit = min(self.limit + 1, self.most)
                self._let_in()

    def _note_refusal(self, cut: int) -> None:
        with self._lock:
            self._run = 0
            if cut == self._cuts:
                self._cuts += 1
                self.limit = max(self.limit // 2, 1)
