"""A scheduler and workers as processes of their own: lost, restarted, of another version, stopped."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from dask.delayed import delayed

from cube.errors import WorkFailedError
from pipelines.cluster import Parcel, TileWork, client, connect, run_tasks, stream
from pipelines.progress import Stage
from pipelines.recipe import ClusterSection

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


class Processes:
    """Starts schedulers and workers on a port of their own, and ends them all."""

    def __init__(self, code: Path, logs: Path) -> None:
        self.code, self.logs = code, logs
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.running: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def scheduler(self) -> subprocess.Popen[bytes]:
        return self._start(
            "scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"
        )

    def worker(self, name: str, *, code: Path | None = None, options: tuple[str, ...] = ()) -> Any:
        return self._start(
            "worker", self.address, "--name", name, "--nthreads", "1", "--no-dashboard",
            "--no-nanny", "--host", "127.0.0.1", *options, code=code,
        )  # fmt: skip

    def _start(self, *words: str, code: Path | None = None) -> subprocess.Popen[bytes]:
        with (self.logs / f"{len(self.running)}-{words[0]}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *words],
                cwd=self.logs,
                env={
                    **os.environ,
                    "PYTHONPATH": str(code or self.code),
                    "PYTHONWARNINGS": "ignore",
                },
                stdout=log,
                stderr=log,
            )
        self.running.append(process)
        return process

    def end(self) -> None:
        for process in self.running:
            process.kill()
        for process in self.running:
            process.wait()


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the packages: all processes have the same, whoever edits the originals."""
    folder = tmp_path_factory.mktemp("code")
    for package in ("cube", "model", "pipelines"):
        shutil.copytree(ROOT / package, folder / package, ignore=_only_sources)
    return folder


def _only_sources(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "__pycache__" or name.endswith((".nbi", ".nbc"))]


@pytest.fixture
def processes(code: Path, tmp_path: Path) -> Iterator[Processes]:
    started = Processes(code, tmp_path)
    try:
        yield started
    finally:
        started.end()


@pytest.fixture
def _same_code(monkeypatch: pytest.MonkeyPatch, code: Path) -> None:
    """Have this process say that its code is that of the processes."""
    stamp = _stamp_of(code)
    monkeypatch.setattr(client, "code_stamp", lambda: stamp)
    monkeypatch.setattr(stream, "code_stamp", lambda: stamp)


def _stamp_of(code: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "from pipelines.cluster.code import code_stamp as s; print(s())"],
        cwd=code,
        env={**os.environ, "PYTHONPATH": str(code)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


class _Named:
    def __init__(self, name: str) -> None:
        self.id = name


TILES = [_Named(f"tile {number:02}") for number in range(24)]


class _Heard(Stage):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def _work(seconds: float, **more: Any) -> TileWork[_Named]:
    """Return work that waits and tells which process has waited."""

    def wait(name: str) -> tuple[str, int]:
        import os
        import time

        time.sleep(seconds)
        return name, os.getpid()

    task = delayed(wait, pure=False)
    return TileWork(step="test", delay=lambda some: [task(one.id) for one in some], **more)


class _During:
    """Keeps results, and does something when so many are there."""

    def __init__(self, count: int, act: Callable[[], object]) -> None:
        self.found: dict[str, tuple[str, int]] = {}
        self._count, self._act = count, act

    def keep(self, tile: str, result: tuple[str, int]) -> None:
        self.found[tile] = result
        if len(self.found) == self._count:
            self._act()

    @property
    def is_whole(self) -> bool:
        return self.found.keys() == {tile.id for tile in TILES} and all(
            name == tile for tile, (name, _) in self.found.items()
        )


@pytest.mark.usefixtures("_same_code")
def test_a_scheduler_that_is_restarted_costs_no_tile(processes: Processes) -> None:
    parcel = Parcel(job="of the run", files={"a": b"b"})

    def has_parcel(name: str, key: str) -> tuple[str, str]:
        import time

        from pipelines.cluster import carried_files, job_of

        time.sleep(0.1)
        assert carried_files("") == {"a": b"b"}
        return name, job_of(key)

    scheduler = processes.scheduler()
    workers = [processes.worker("one"), processes.worker("two")]

    def restart() -> None:
        for process in (scheduler, *workers):
            process.kill()
            process.wait()

        def later() -> None:
            time.sleep(1)
            processes.scheduler()
            processes.worker("three")

        threading.Thread(target=later).start()

    task = delayed(has_parcel, pure=False)
    work: TileWork[_Named] = TileWork(
        step="test", delay=lambda some: [task(one.id, parcel.key) for one in some], parcel=parcel
    )
    during, heard = _During(5, restart), _Heard()
    section = ClusterSection(kind="scheduler", address=processes.address, timeout=60.0)
    with connect(section) as opened:
        run_tasks(opened, TILES, work, on_done=during.keep, stage=heard)
    assert during.is_whole
    assert heard.said[0] == "the scheduler is lost; waiting for it"
    assert heard.said[1].startswith("the scheduler is back after ")


@pytest.mark.usefixtures("_same_code")
def test_a_scheduler_that_stays_away_ends_the_run(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = processes.scheduler()
    processes.worker("one")
    during = _During(3, scheduler.kill)
    section = ClusterSection(kind="scheduler", address=processes.address, timeout=3.0)
    # the first worker takes longer than that to start
    monkeypatch.setattr(client, "_wait_for_workers", lambda opened, _: opened.wait_for_workers(1))
    with (
        connect(section) as opened,
        pytest.raises(WorkFailedError, match="test: the scheduler is gone and did not come back"),
    ):
        run_tasks(opened, TILES, _work(0.05), on_done=during.keep)


@pytest.mark.usefixtures("_same_code")
def test_workers_that_stay_away_end_the_run(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes.scheduler()
    worker = processes.worker("one")
    during = _During(3, worker.kill)
    section = ClusterSection(kind="scheduler", address=processes.address, timeout=3.0)
    monkeypatch.setattr(client, "_wait_for_workers", lambda opened, _: opened.wait_for_workers(1))
    with (
        connect(section) as opened,
        pytest.raises(WorkFailedError, match=r"test: there has been no worker for cluster.timeout"),
    ):
        run_tasks(opened, TILES, _work(0.05), on_done=during.keep)


@pytest.fixture
def other_code(code: Path, tmp_path: Path) -> Path:
    """Return another version of the packages."""
    other = tmp_path / "other"
    shutil.copytree(code, other)
    with (other / "pipelines" / "build_cube.py").open("a") as file:
        file.write("\n# another version\n")
    return other


@pytest.mark.usefixtures("_same_code")
def test_a_worker_with_other_code_that_comes_later_is_sent_away(
    processes: Processes, code: Path, other_code: Path
) -> None:
    processes.scheduler()
    processes.worker("ours")
    section = ClusterSection(kind="scheduler", address=processes.address)
    during, heard = _During(2, lambda: processes.worker("theirs", code=other_code)), _Heard()
    with connect(section) as opened:
        run_tasks(opened, TILES, _work(0.4), on_done=during.keep, stage=heard)
    assert during.is_whole
    assert len({pid for _, pid in during.found.values()}) == 1
    assert len(heard.said) == 1
    assert heard.said[0].startswith("worker theirs at tcp://127.0.0.1:")
    assert heard.said[0].endswith(
        f"was sent away: it has canopycube {_stamp_of(other_code)}, this program is "
        f"{_stamp_of(code)}"
    )


CONNECT = """
import sys
from pipelines.cluster import connect
from pipelines.recipe import ClusterSection
try:
    with connect(ClusterSection(kind="scheduler", address=sys.argv[1])):
        print("connected")
except Exception as error:
    print(type(error).__name__, error)
"""


def test_other_code_is_refused_by_name(processes: Processes, code: Path, other_code: Path) -> None:
    processes.scheduler()
    worker = processes.worker("theirs", code=other_code)

    def connecting() -> str:
        return subprocess.run(
            [sys.executable, "-c", CONNECT, processes.address],
            cwd=code,
            env={**os.environ, "PYTHONPATH": str(code), "PYTHONWARNINGS": "ignore"},
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout

    told = connecting()
    assert told.startswith("InputError worker tcp://127.0.0.1:")
    assert told.endswith(
        f" has canopycube {_stamp_of(other_code)}, this program is {_stamp_of(code)}; install the "
        "same version on both\n"
    )
    worker.kill()
    worker.wait()
    processes.worker("ours")
    assert connecting() == "connected\n"


STOPPED = """
import sys, time
from pipelines import stop
stop.listen()
from dask.delayed import delayed
from pipelines.cluster import TileWork, connect, run_tasks
from pipelines.recipe import ClusterSection
class Named:
    id = "one"
def tiles():
    while True:
        yield Named()
task = delayed(time.sleep, pure=False)
if __name__ == "__main__":
    words = dict(word.split("=") for word in sys.argv[1:])
    workers = {"workers": 2} if words["kind"] == "local" else {}
    try:
        with connect(ClusterSection(**words, **workers)) as client:
            work = TileWork(step="x", delay=lambda some: [task(0.5) for _ in some])
            run_tasks(client, tiles(), work, on_done=lambda *_: print("done", flush=True))
    except KeyboardInterrupt:
        print("stopped", flush=True)
"""


@pytest.mark.usefixtures("_same_code")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["local", "scheduler"])
def test_a_signal_stops_within_seconds(
    processes: Processes, code: Path, tmp_path: Path, number: signal.Signals, kind: str
) -> None:
    words = [f"kind={kind}"]
    if kind == "scheduler":
        processes.scheduler()
        processes.worker("one")
        words.append(f"address={processes.address}")
    (tmp_path / "stopped.py").write_text(STOPPED)
    running = subprocess.Popen(
        [sys.executable, "stopped.py", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(code), "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == "done\n"
        children = _children_of(running.pid)
        running.send_signal(number)
        told, complaint = running.communicate(timeout=30)
    finally:
        running.kill()
        running.wait()
    assert told.splitlines()[-1] == "stopped"
    assert complaint == ""
    assert running.returncode == 0
    assert len(children) >= (2 if kind == "local" else 0)
    deadline = time.monotonic() + 20  # multiprocessing's own helper ends when it hears of it
    while left := [child for child in children if psutil.pid_exists(child)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def _children_of(process: int) -> list[int]:
    return [child.pid for child in psutil.Process(process).children(recursive=True)]
