"""A folder in, the right to write there out, which ends by itself if its owner does.

The lease of a folder is a small file in `.lease`, numbered: whoever creates the next number, which
only one can, has the lease. The owner changes his file again and again. One who waits watches that
on his own clock, and never compares a time of two hosts: if nothing has changed for as long as a
lease holds, he takes the next number. An owner who was suspended meanwhile sees the higher number
before he writes on. That needs of a disk or an object store that a name is created once, and no more.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cube.errors import InputError, WorkFailedError
from cube.place import (
    Place,
    create_content,
    names_below,
    remove_files,
    replace_content,
)

HOLDS = 60.0
"""Seconds without a sign of its owner after which a lease may be taken over."""

_BEATS = 4
"""Signs that an owner gives in that time."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What tells a lease from those before and after it; small, for tasks carry it."""

    folder: Place
    """The folder that the lease is of."""
    number: int
    """Counted up whenever the lease changes hands."""

    def refuse_lost(self) -> None:
        """Raise `WorkFailedError` if another run has taken the lease over; asks the folder.

        Raises `FileNotFoundError` where there is no lease any more.
        """
        highest = _highest(self.folder)
        if not highest:
            raise FileNotFoundError(
                f"{str(self.folder)!r} has no lease any more: it was removed, or its disk is gone"
            )
        if highest != self.number:
            raise WorkFailedError(
                f"another run has taken over {str(self.folder)!r}, because this one gave no sign "
                "for too long; what it had done stays, running again goes on"
            )


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Who has a lease, as its file says."""

    number: int
    """The lease's number."""
    text: bytes
    """All of the file; it changes with every sign of the owner."""
    host: str
    """Name of the owner's machine."""
    process: int
    """His process there."""
    life: str
    """What tells that process from all others, also from later ones of the same number."""
    is_free: bool
    """Whether he has given the lease back."""

    @property
    def is_here(self) -> bool:
        """Whether he is, or was, among the processes that this one can see."""
        return self.life.rpartition(" ")[0] == _life(os.getpid()).rpartition(" ")[0]

    @property
    def is_dead(self) -> bool:
        """Whether he is known to have ended; of another machine nobody knows."""
        return self.is_here and _life(self.process) != self.life and not _is_hidden(self.process)

    def __str__(self) -> str:
        return f"process {self.process} on {self.host!r}"


_OVER: set[bytes | None] = set()
"""What lies in leases of this process that are over and could not say so."""


class Lease:
    """The right to write into a folder; given back by `release`, lost if it is not kept up."""

    def __init__(self, folder: Place, *, holds: float = HOLDS) -> None:
        self.folder, self.holds = folder, holds
        self._mark: Mark | None = None
        self._beat = 0
        self._confirmed = 0.0
        self._lost: WorkFailedError | None = None
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None
        self._writing = threading.Lock()

    @property
    def mark(self) -> Mark:
        """What tasks carry of the lease; only after `acquire`."""
        assert self._mark is not None  # by contract
        return self._mark

    def acquire(self, *, waits: bool = False, say: Callable[[str], None] | None = None) -> None:
        """Take the lease, and keep it up until `release`.

        Of an owner who gives no sign for as long as a lease holds it is taken over. From one who
        does, the lease is refused by `InputError`, unless this `waits` for him. `say` is told, once,
        whom it watches. Raises `OSError` and `InputError` where the folder cannot be written.
        """
        seen, since = b"", _now()
        while True:
            owner = current_owner(self.folder)
            if owner is None or owner.is_free or owner.is_dead or owner.text in _OVER:
                if self._create(0 if owner is None else owner.number):
                    return
                continue
            if owner.text != seen:
                if not waits and (seen or owner.is_here):
                    raise InputError(_refusal(self.folder, owner))
                if not seen and say is not None:
                    say(_watching(self.folder, owner, self.holds, waits=waits))
                seen, since = owner.text, _now()
            elif _now() - since >= self.holds and self._create(owner.number):
                return
            time.sleep(min(1.0, self.holds / 20))

    def refuse_lost(self) -> None:
        """Raise `WorkFailedError` if the lease is lost; asks only if that may be since the last sign."""
        if self._lost is not None:
            raise self._lost
        if _now() - self._confirmed > self.holds / 2:
            self._confirm()

    def release(self) -> None:
        """Give the lease back, so that the next one need not wait."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()
        if self._lost is None:
            try:
                self._confirm(is_free=True)
            except (OSError, WorkFailedError):
                # as on a full disk: for others it ends by itself, this process knows that it is over
                with contextlib.suppress(OSError):
                    _OVER.add(_text(self.mark))

    def _create(self, last: int) -> bool:
        """Take the number after `last`; False if another was first."""
        mark, started = Mark(folder=self.folder, number=last + 1), _now()
        if isinstance(self.folder, Path):
            (self.folder / _FOLDER).mkdir(parents=True, exist_ok=True)
        content = self._content()
        # a server may have done what it was asked while its answer was lost: then ours lies there
        if not create_content(_file(mark), content) and _text(mark) != content:
            return False
        numbers = _numbers(self.folder)
        if max(numbers, default=0) != mark.number:
            remove_files([_file(mark)])  # late: others have gone on meanwhile
            return False
        remove_files([_file(Mark(folder=self.folder, number=one)) for one in numbers[:-1]])
        self._mark, self._confirmed = mark, started
        self._thread = threading.Thread(target=self._keep_up, name="canopycube-lease", daemon=True)
        self._thread.start()
        return True

    def _keep_up(self) -> None:
        while self._lost is None and not self._is_over.wait(self.holds / _BEATS):
            # a server that fails is asked again at the next sign, and `refuse_lost` asks too; it
            # also tells that the lease is lost
            with contextlib.suppress(OSError, WorkFailedError):
                self._confirm()

    def _confirm(self, *, is_free: bool = False) -> None:
        with self._writing:
            started = _now()
            self._beat += 1
            # written first: a network disk then shows the folder as it is, not as it remembers it
            with contextlib.suppress(FileNotFoundError):  # of the folder, which is told below
                replace_content(_file(self.mark), self._content(is_free=is_free))
            try:
                self.mark.refuse_lost()
            except WorkFailedError as error:
                self._lost = error
                remove_files([_file(self.mark)])
                raise
            self._confirmed = started

    def _content(self, *, is_free: bool = False) -> bytes:
        content = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "life": _life(os.getpid()),
            "sign": f"{self._beat} {secrets.token_hex(4)}",
            "is_free": is_free,
        }
        return json.dumps(content).encode()


def current_owner(folder: Place) -> Owner | None:
    """Return who has the lease of a folder, or had it last; None if there never was one.

    Raises `InputError` for a file that is none of ours.
    """
    mark = Mark(folder=folder, number=_highest(folder))
    text = _text(mark)
    if text is None:
        return None
    try:
        content: dict[str, Any] = json.loads(text)
        return Owner(
            number=mark.number,
            text=text,
            host=str(content["host"]),
            process=int(content["process"]),
            life=str(content["life"]),
            is_free=bool(content["is_free"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{str(_file(mark))!r} is no lease of a run ({error!r}); remove it if no run is at work "
            "there"
        ) from error


_FOLDER = ".lease"
"""Folder of a lease's files, within the one it is of."""


def _highest(folder: Place) -> int:
    return max(_numbers(folder), default=0)


def _numbers(folder: Place) -> list[int]:
    names = names_below(folder / _FOLDER, "[0-9]*.json")
    return sorted(int(name[:-5]) for name in names if name[:-5].isdecimal())


def _file(mark: Mark) -> Place:
    return mark.folder / _FOLDER / f"{mark.number:08d}.json"


def _text(mark: Mark) -> bytes | None:
    try:
        return _file(mark).read_bytes()
    except FileNotFoundError:
        return None


def _now() -> float:
    """Return seconds of a clock that goes on while the machine sleeps, and that nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _life(process: int) -> str:
    """Return what tells a process of this machine from all others; empty for one that has ended."""
    proc = Path("/proc")
    try:
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
        space = (proc / "self/ns/pid").readlink()
        state, *fields = (proc / str(process) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else f"{boot} {space} {fields[18]}"


def _is_hidden(process: int) -> bool:
    """Say whether a process lives of which /proc shows us nothing (`hidepid`): another user's."""
    try:
        os.kill(process, 0)  # sends nothing
    except PermissionError:
        return not _life(process)
    except (ProcessLookupError, OverflowError):
        pass
    return False


def _refusal(folder: Place, owner: Owner) -> str:
    return (
        f"another run ({owner}) is at work in {str(folder)!r}; wait for it (--wait), or choose "
        "another outputs.folder or outputs.stores"
    )


def _watching(folder: Place, owner: Owner, holds: float, *, waits: bool) -> str:
    if waits:
        return f"{owner} is at work in {str(folder)!r}: waiting for it"
    return f"{owner} has left {str(folder)!r} in use: watching it for up to {holds:.0f} s"
