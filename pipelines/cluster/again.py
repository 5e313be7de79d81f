"""Tiles that failed in, when and how each is done again out."""

import heapq
import time
from collections import deque
from collections.abc import Iterable
from itertools import count
from typing import Generic

from pipelines.cluster.work import Tile


class Again(Generic[Tile]):
    """The tiles of one step that are to be done again, and how often each has been tried.

    A tile that its worker did not survive, or that took too much memory, is a suspect: it is done in
    strips, and few of them at a time, for one that kills its workers takes what waits beside it
    along, and the others would be blamed.
    """

    def __init__(self) -> None:
        self._tries: dict[str, int] = {}
        self._suspected: set[str] = set()
        self._suspects: deque[Tile] = deque()
        self._waiting: list[tuple[float, int, Tile]] = []  # a heap of (when, number, tile)
        self._numbers = count()

    def __bool__(self) -> bool:
        """Whether any tile waits to be done again."""
        return bool(self._waiting or self._suspects)

    def count_try(self, tile: Tile) -> int:
        """Count one failed try; return how many there were."""
        self._tries[tile.id] = self._tries.get(tile.id, 0) + 1
        return self._tries[tile.id]

    def suspect(self, tile: Tile) -> None:
        """Have a tile be done with care from now on."""
        self._suspected.add(tile.id)

    def add(self, tile: Tile, *, pause: float = 0.0) -> None:
        """Have a tile be done again, after `pause` seconds at the earliest."""
        if tile.id in self._suspected:
            self._suspects.append(tile)
        else:
            heapq.heappush(self._waiting, (time.monotonic() + pause, next(self._numbers), tile))

    def forget(self, tile: Tile) -> None:
        """Drop what is known of a tile: it is done, or given up."""
        self._tries.pop(tile.id, None)
        self._suspected.discard(tile.id)

    def due(self, room: int) -> list[Tile]:
        """Return at most `room` tiles whose pause is over; suspects are not among them."""
        now = time.monotonic()
        found: list[Tile] = []
        while self._waiting and len(found) < room and self._waiting[0][0] <= now:
            found.append(heapq.heappop(self._waiting)[2])
        return found

    def due_suspects(self, room: int, *, under_way: Iterable[Tile], workers: int) -> list[Tile]:
        """Return suspects to be done now: at most one for two workers is under way, and one always."""
        if not self._suspects:
            return []
        taken = sum(tile.id in self._suspected for tile in under_way)
        free = min(max(workers // 2, 1) - taken, room, len(self._suspects))
        return [self._suspects.popleft() for _ in range(free)]

    def wait(self, longest: float) -> float:
        """Return the seconds until the next pause is over, at most `longest`."""
        if not self._waiting:
            return longest
        return min(max(self._waiting[0][0] - time.monotonic(), 0.001), longest)
