"""What all tasks of a step share in, the same on every worker out: sent to each process once.

In a task it would travel with each tile, and data that Dask scatters dies with the workers that
hold it. A worker that joins later gets the parcel before its first task.
"""

import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class ParcelMissingError(OSError):
    """A worker has not been given what its task needs; another one, or a later try, may have it."""


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """What goes to every worker before the first task of a step."""

    job: Any = None
    """What all its tasks share; it must pickle, and hold no secret."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Files that tasks read, so that workers need no common disk, by name; a name has a hash of its
    content, which whoever reads it checks."""
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    """What tasks call it by."""


_lock = threading.Lock()
_opened: dict[str, list[Parcel]] = {}
"""The parcels of this process; as often as it has workers that were given one."""


def open_parcel(parcel: Parcel) -> None:
    """Have the tasks of this process find a parcel."""
    with _lock:
        _opened.setdefault(parcel.key, []).append(parcel)


def close_parcel(parcel: Parcel) -> None:
    """Take back one `open_parcel`."""
    with _lock:
        held = _opened.get(parcel.key, [])
        if held:
            held.pop()
        if not held:
            _opened.pop(parcel.key, None)


def job_of(key: str) -> Any:
    """Return what the tasks of a step share; `ParcelMissingError` if this process has not got it."""
    with _lock:
        held = _opened.get(key)
        if not held:
            raise ParcelMissingError("this worker was not given what its tasks share")
        return held[0].job


def carried_files(prefix: str) -> dict[str, bytes]:
    """Return the files whose names begin with `prefix`, by what follows it; empty without any."""
    with _lock:
        return {
            name.removeprefix(prefix): content
            for held in _opened.values()
            for name, content in held[0].files.items()
            if name.startswith(prefix)
        }
