"""An output folder and where its stores lie in, the right to work there alone out."""

import contextlib
import errno
import fcntl
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from cube.durable import DISK_FAULTS
from cube.errors import InputError, WorkFailedError
from cube.lease import HOLDS, Lease, Mark, current_owner
from cube.place import Place, check_place

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""What file systems answer that know no locks; the lease is all there is then."""

_OWN = {".lock", ".lease"}
"""What this puts into a folder."""

_held: list[Lease] = []
"""Leases of this process."""


@contextlib.contextmanager
def sole_user(
    folder: Path,
    stores: Place | None = None,
    *,
    waits: bool = False,
    say: Callable[[str], None] | None = None,
    holds: float = HOLDS,
) -> Iterator[None]:
    """Hold a folder's lock, and the leases of the folder and of where the `stores` lie.

    The system gives the lock back however the process ends; a lease, which other hosts see too,
    ends when its owner has given no sign of himself for `holds` seconds. Raises `InputError` if
    another run is at work there and this does not wait for it, and if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a")
    except OSError as error:
        kind = WorkFailedError if error.errno in DISK_FAULTS else InputError
        raise kind(f"outputs.folder {str(folder)!r} cannot be written: {error.strerror}") from error
    with file, contextlib.ExitStack() as stack:
        _lock(file, folder, waits=waits, say=say)
        stack.callback(_leave_no_trace, folder)
        for place in dict.fromkeys((folder, stores or folder)):
            check_place(place)
            stack.enter_context(_leased(Lease(place, holds=holds), waits=waits, say=say))
        yield


def refuse_lost_leases() -> None:
    """Raise `WorkFailedError` if a lease of this process is lost: another run is at work there.

    Cheap while leases are kept up; else it asks. To be called before work is begun or recorded.
    """
    for lease in _held:
        lease.refuse_lost()


def mark_of(store: Place) -> Mark | None:
    """Return the mark of the lease under which this process may write a store; None without one.

    That is the lease of a folder above the store: of zones it is their run's.
    """
    return next((lease.mark for lease in _held if _lies_in(store, lease.folder)), None)


def _lies_in(store: Place, folder: Place) -> bool:
    if isinstance(store, Path):
        return isinstance(folder, Path) and store.is_relative_to(folder)
    return str(store).startswith(f"{folder}/")


@contextlib.contextmanager
def _leased(lease: Lease, *, waits: bool, say: Callable[[str], None] | None) -> Iterator[None]:
    lease.acquire(waits=waits, say=say)
    _held.append(lease)
    try:
        yield
    finally:
        _held.remove(lease)
        lease.release()


def _lock(file: IO[str], folder: Path, *, waits: bool, say: Callable[[str], None] | None) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not waits:
                owner = current_owner(folder)
                raise InputError(
                    f"another run {f'({owner}) ' if owner else ''}is at work in {str(folder)!r}; "
                    "wait for it (--wait), or choose another outputs.folder"
                ) from error
            if say is not None:
                say(f"another run is at work in {str(folder)!r}: waiting for it")
                say = None  # once
            time.sleep(0.5)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return
            raise
        else:
            return


def _leave_no_trace(folder: Path) -> None:
    """Remove the folder if nothing was made in it, and it is not another host's run's by now."""
    if not folder.is_dir() or not {entry.name for entry in folder.iterdir()} <= _OWN:
        return
    owner = current_owner(folder)
    if owner is None or owner.is_free:
        shutil.rmtree(folder)
