"""Lines of JSON in, Dask workers out: forked from a process that has imported already what they need.

A worker that starts from nothing imports for seconds, and a hundred of them would be all that two
cores do. `python -m tests.chaos.nursery` reads `{"start": [words of dask worker], "log": file}` and
answers `{"pid": …}`; `{"poll": pid}` is answered by `{"code": …}`, null while it runs.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
"""Option of prctl(2) that has a process end with the one that started it."""


class Born:
    """A worker that a nursery has started; speaks as `subprocess.Popen` does."""

    def __init__(self, nursery: "Nursery", pid: int) -> None:
        self._nursery, self.pid = nursery, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return how it ended (minus a signal's number), None while it runs."""
        if self.returncode is None:
            self.returncode = self._nursery.ask({"poll": self.pid})["code"]
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal; its number is no other's before `poll` has told its end."""
        os.kill(self.pid, number)

    def wait(self, timeout: float) -> int:
        """Wait for its end; raises `TimeoutError`."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {self.pid} has not ended in {timeout} s")
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode


class Nursery:
    """The other end of such a process's pipes."""

    def __init__(self, handle: "subprocess.Popen[bytes]") -> None:
        self._handle = handle

    def start(self, words: list[str], log: Path) -> Born:
        """Start a worker with these words behind `dask worker`, its output at the end of `log`."""
        return Born(self, self.ask({"start": words, "log": str(log)})["pid"])

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Send a line and return what is answered."""
        assert self._handle.stdin is not None
        assert self._handle.stdout is not None
        self._handle.stdin.write(json.dumps(question).encode() + b"\n")
        self._handle.stdin.flush()
        answer = self._handle.stdout.readline()
        if not answer:
            raise ChildProcessError("a nursery of workers has ended; its log says why")
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        """End it, and with it all its workers."""
        assert self._handle.stdin is not None
        self._handle.stdin.close()
        try:
            self._handle.wait(20)
        except subprocess.TimeoutExpired:
            self._handle.kill()  # its workers end with it, by `_PR_SET_PDEATHSIG`
            self._handle.wait(20)
        if self._handle.stdout is not None:
            self._handle.stdout.close()


def main() -> None:
    """Answer until nobody asks any more; then end what was started."""
    from tests.chaos import witness  # noqa: F401 - what a worker needs, before the first is asked for

    alive: set[int] = set()
    for line in sys.stdin:
        asked = json.loads(line)
        if "start" in asked:
            answer = {"pid": _fork(asked["start"], asked["log"])}
            alive.add(answer["pid"])
        else:
            answer = {"code": _code(asked["poll"], alive)}
        print(json.dumps(answer), flush=True)
    for pid in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os._exit(0)  # what it has imported takes seconds to end in an orderly way


def _code(pid: int, alive: set[int]) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        return None
    alive.discard(pid)
    return os.waitstatus_to_exitcode(status)


def _fork(words: list[str], log: str) -> int:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    pid = os.fork()
    if pid:
        os.close(output)
        return pid
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        from distributed.cli.dask_worker import main as dask_worker

        dask_worker.main(args=words, prog_name="dask worker", standalone_mode=False)
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
