"""Bytes that several readers want at about the same time: fetched by the first, kept for the rest."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

KEPT_BYTES = 64 * 1024 * 1024
"""Compressed bytes kept by one process. Tiles that are made side by side share the blocks at their
common edge, and all of a 20 m block that is wider than a tile."""


class Pieces:
    """What was fetched last, up to a number of bytes."""

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self._found: OrderedDict[Hashable, bytes] = OrderedDict()
        self._busy: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()
        self._most, self._size = most, 0

    def get(self, key: Hashable, fetch: Callable[[], bytes]) -> bytes:
        """Return the bytes of `key`; threads that want them at once wait for one `fetch`."""
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
            busy = self._busy.setdefault(key, threading.Lock())
        with busy:
            with self._lock:
                if key in self._found:
                    return self._found[key]
            try:
                body = fetch()
            finally:
                with self._lock:
                    self._busy.pop(key, None)
            self._keep(key, body)
            return body

    def forget(self) -> None:
        """Empty it."""
        with self._lock:
            self._found.clear()
            self._size = 0

    def _keep(self, key: Hashable, body: bytes) -> None:
        if len(body) > self._most // 4:
            return  # one large file would push out all others
        with self._lock:
            if key not in self._found:
                self._found[key] = body
                self._size += len(body)
            while self._size > self._most:
                _, gone = self._found.popitem(last=False)
                self._size -= len(gone)
