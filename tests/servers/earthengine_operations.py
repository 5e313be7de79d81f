"""Exports in, what became of them out: operations that advance whenever they are looked at."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earthengine_export import Export
from earthengine_grids import EngineError

_STATES = ("PENDING", "RUNNING", "SUCCEEDED")
_TYPES = "type.googleapis.com/google.earthengine.v1alpha"
_TIME = "2023-01-01T00:00:00Z"


@dataclass(kw_only=True)
class _Operation:
    name: str
    export: Export
    description: str
    state: str = "PENDING"
    error: str = ""


class Operations:
    """The exports of one project, written below `folder`; safe to use from several threads.

    With `error` set, exports that end from then on fail with it; with `most_waiting`, one more that
    has not ended is refused. With `page` set, a list has so many on a page at most.
    """

    def __init__(self, folder: Path | None, *, project: str) -> None:
        self.error = ""
        self.most_waiting = 3_000
        self.page = 500
        self._folder = folder
        self._project = project
        self._known: dict[str, _Operation] = {}
        self._lock = threading.RLock()

    def start(self, export: Export, *, request_id: str, description: str) -> dict[str, Any]:
        """Return the operation of an export; of one that is sent again, the first one's."""
        if self._folder is None:
            raise EngineError("This server was given no folder for exports.")
        with self._lock:
            name = request_id or f"{len(self._known):024d}"
            if name not in self._known:
                if self._waiting() >= self.most_waiting:
                    raise EngineError(
                        f"Too many tasks already in the queue ({self.most_waiting}). Please wait "
                        "for some of them to complete."
                    )
                self._known[name] = _Operation(name=name, export=export, description=description)
            return self._told(self._known[name])

    def read(self, name: str) -> dict[str, Any]:
        """Return an operation after it has advanced by one state."""
        with self._lock:
            return self._told(self._advanced(self._named(name)))

    def listed(self, *, size: int = 500, token: str = "") -> dict[str, Any]:
        """Return a page of the operations, each after it has advanced by one state."""
        with self._lock:
            known, start = list(self._known.values()), int(token or 0)
            stop = start + min(size, self.page)
            page = {"operations": [self._told(self._advanced(one)) for one in known[start:stop]]}
            # an empty list is left out, as by every Google interface
            found = {name: value for name, value in page.items() if value}
            return found | ({"nextPageToken": str(stop)} if stop < len(known) else {})

    def forget(self) -> None:
        """Know no operation any longer."""
        with self._lock:
            self._known.clear()

    def _waiting(self) -> int:
        return sum(one.state in _STATES[:-1] for one in self._known.values())

    def cancel(self, name: str) -> None:
        """Stop an operation that has not ended."""
        with self._lock:
            if (operation := self._named(name)).state in _STATES[:-1]:
                operation.state, operation.error = "CANCELLED", "Cancelled."

    def _named(self, name: str) -> _Operation:
        if name not in self._known:
            raise EngineError(f"Operation {name!r} not found.", code=404, status="NOT_FOUND")
        return self._known[name]

    def _advanced(self, operation: _Operation) -> _Operation:
        if operation.state not in _STATES[:-1]:
            return operation
        operation.state = _STATES[_STATES.index(operation.state) + 1]
        if operation.state == "SUCCEEDED":
            try:
                if self.error:
                    raise EngineError(self.error)
                assert self._folder is not None
                operation.export.write(self._folder)
            except EngineError as error:
                operation.state, operation.error = "FAILED", str(error)
        return operation

    def _told(self, operation: _Operation) -> dict[str, Any]:
        told: dict[str, Any] = {
            "name": f"projects/{self._project}/operations/{operation.name}",
            "metadata": {
                "@type": f"{_TYPES}.OperationMetadata",
                "state": operation.state,
                "description": operation.description,
                "type": "EXPORT_IMAGE",
                "priority": 100,
                "attempt": 1,
                "createTime": _TIME,
                "updateTime": _TIME,
            },
            "done": operation.state not in _STATES[:-1],
        }
        if operation.state == "SUCCEEDED":
            told["response"] = {"@type": f"{_TYPES}.ExportImageResponse"}
        if operation.error:
            code = 1 if operation.state == "CANCELLED" else 3
            told["error"] = {"code": code, "message": operation.error}
        return told
