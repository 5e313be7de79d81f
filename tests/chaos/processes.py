"""Words in, a process of this machine out, that ends with us and can be told to end at any time."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.hosts import Host
from tests.chaos.nursery import Born, Nursery

ROOT = Path(__file__).parents[2]
"""Where `cube`, `model` and `pipelines` of this checkout lie."""

_END = 20.0
"""Seconds a process has to end after SIGKILL."""


class TooLateError(AssertionError):
    """Something did not happen within its time."""


@dataclass(kw_only=True)
class Process:
    """A process that was started, and what it said."""

    name: str
    """What it is, for messages."""
    log: Path
    """File of its output."""
    handle: "subprocess.Popen[bytes] | Born" = field(repr=False)
    """The process itself."""

    @property
    def code(self) -> int | None:
        """How it ended (minus a signal's number), None while it runs."""
        return self.handle.poll()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.code is None:
            self.handle.send_signal(number)

    def kill(self) -> None:
        """End it at once and wait until it has."""
        self.send(signal.SIGKILL)
        self.wait(_END)

    def wait(self, seconds: float) -> int:
        """Wait for its end and return how it ended; `TooLateError` with its last words."""
        try:
            return self.handle.wait(seconds)
        except (subprocess.TimeoutExpired, TimeoutError) as error:
            raise TooLateError(
                f"{self.name} has not ended in {seconds:.0f} s: {self.last_words()}"
            ) from error

    def last_words(self, count: int = 2000) -> str:
        """Return the end of what it said."""
        return self.log.read_text(errors="replace")[-count:]


def start(
    name: str,
    command: Sequence[str],
    *,
    host: Host,
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> Process:
    """Start `python -m command…` of this checkout on a host, its output in `folder/name.log`.

    It is ended by the system if this process dies; where `setpriv` is missing, only by us.
    """
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        handle = subprocess.Popen(
            host.words([*bound(), sys.executable, "-m", *command]),
            cwd=ROOT,
            env={**os.environ, **_CALM, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Process(name=name, log=log, handle=handle)


def start_nursery(*, host: Host, folder: Path, environment: Mapping[str, str]) -> Nursery:
    """Start a process on a host from which workers are forked; it says in `nursery.log` what fails."""
    with (folder / "nursery.log").open("ab") as output:
        handle = subprocess.Popen(
            host.words([*bound(), sys.executable, "-m", "tests.chaos.nursery"]),
            cwd=ROOT,
            env={**os.environ, **_CALM, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
        )
    return Nursery(handle)


def bound() -> list[str]:
    """Return words before a command that have the system end it with this process."""
    return ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


_CALM = {
    "PYTHONPATH": str(ROOT),
    "PYTHONWARNINGS": "ignore",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}
"""What keeps many processes on few cores from getting into each other's way."""


def wait_until(
    is_so: Callable[[], bool], *, seconds: float, what: str, processes: Sequence[Process] = ()
) -> None:
    """Wait until something is so; `TooLateError` with the last words of `processes` otherwise."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            told = "\n".join(f"--- {one.name}\n{one.last_words()}" for one in processes)
            raise TooLateError(f"not within {seconds:.0f} s: {what}\n{told}")
        time.sleep(0.02)
