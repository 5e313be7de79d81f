"""Tasks on a cluster: how many are under way, what is done again, what is told."""

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dask.delayed import delayed
from distributed import Client, KilledWorker
from hypothesis import given, settings
from hypothesis import strategies as st

from cube.errors import InputError, WorkFailedError
from model.errors import ClassifierError
from pipelines.cluster import (
    FailedTile,
    Parcel,
    TilesFailedError,
    TileWork,
    along_curve,
    carried_files,
    connect,
    job_of,
    reported,
    run_tasks,
    stream,
)
from pipelines.cluster.faults import Fault, fault_of, reason_of
from pipelines.cluster.parcels import ParcelMissingError, close_parcel, open_parcel
from pipelines.cores import Cores
from pipelines.failed_tiles import keep_failed, read_failed
from pipelines.progress import Reporter, Stage
from pipelines.recipe import ClusterSection, read_recipe
from pipelines.run import Run


@dataclass(frozen=True, kw_only=True)
class Tile:
    row: int
    column: int = 0

    @property
    def id(self) -> str:
        return f"r{self.row}"


def tiles(count: int) -> list[Tile]:
    return [Tile(row=row) for row in range(count)]


class Told(Stage):
    """Keeps what a stage is told."""

    def __init__(self) -> None:
        self.gave_up: list[tuple[str, str]] = []
        self.again: list[str] = []
        self.said: list[str] = []

    def failed(self, tile: str, reason: str) -> None:
        self.gave_up.append((tile, reason))

    def retried(self, tile: str, reason: str) -> None:
        self.again.append(tile)

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def threads() -> Iterator[Client]:
    """Return a client of two threads of this process."""
    with connect(ClusterSection(kind="threads", workers=2, retries=2)) as client:
        yield client


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "FIRST_PAUSE", 0.01)


_CALLS: dict[str, Callable[..., Any]] = {}
"""Functions of tests, by name: threads are of this process, and what pickles is a name."""


def _call(name: str, tile: Tile, **more: Any) -> Any:
    return _CALLS[name](tile, **more)


def work(function: Callable[..., Any], **more: Any) -> TileWork[Tile]:
    """Return work that calls a function of this process with each tile."""
    name = f"call {len(_CALLS)}"
    _CALLS[name] = function
    task = delayed(_call, pure=False)
    return TileWork(step="test", delay=lambda some: [task(name, tile) for tile in some], **more)


def done_by(client: Client, some: Sequence[Tile], how: TileWork[Tile], stage: Stage) -> list[str]:
    done: list[str] = []
    run_tasks(client, some, how, on_done=lambda tile, _: done.append(tile), stage=stage)
    return done


def test_only_some_tiles_are_asked_for_at_a_time(threads: Client) -> None:
    ended: set[str] = set()
    ahead: list[int] = []

    def ask() -> Iterator[Tile]:
        for number, tile in enumerate(tiles(200)):
            ahead.append(number - len(ended))
            yield tile

    results: dict[str, int] = {}

    def keep(tile: str, result: int) -> None:
        ended.add(tile)
        results[tile] = result

    run_tasks(threads, ask(), work(lambda tile: tile.row**2), on_done=keep)
    assert results == {f"r{row}": row**2 for row in range(200)}
    assert max(ahead[:50]) < stream.AHEAD * 2 + 1
    assert max(ahead) < stream.MOST_AHEAD * 2 + 1
    assert not threads.futures


def test_no_tile_is_no_work(threads: Client) -> None:
    assert done_by(threads, [], work(lambda tile: None), Told()) == []


@pytest.mark.parametrize("error", [OSError("link down"), TimeoutError("no answer")])
def test_what_passes_is_tried_again(threads: Client, error: Exception) -> None:
    tries: dict[int, int] = {}

    def fetch(tile: Tile) -> None:
        tries[tile.row] = tries.get(tile.row, 0) + 1
        if tile.row % 3 == 0 and tries[tile.row] <= 2:
            raise error

    told = Told()
    assert sorted(done_by(threads, tiles(9), work(fetch), told)) == sorted(
        tile.id for tile in tiles(9)
    )
    assert tries == {row: 3 if row % 3 == 0 else 1 for row in range(9)}
    assert sorted(told.again) == ["r0", "r0", "r3", "r3", "r6", "r6"]
    assert told.gave_up == []


def test_what_fails_too_often_is_told_and_the_others_are_done(threads: Client) -> None:
    tries: list[int] = []

    def fetch(tile: Tile) -> None:
        if tile.row in (2, 5):
            tries.append(tile.row)
            raise ConnectionError(f"no route to host {tile.row}")

    told = Told()
    done: list[str] = []
    with pytest.raises(
        TilesFailedError,
        match=r"test: 2 of 20 tiles failed \(r2, r5\); first: tile r2: ConnectionError: no route to "
        r"host 2\. Running again does only what is missing\.",
    ) as raised:
        run_tasks(
            threads, tiles(20), work(fetch), on_done=lambda tile, _: done.append(tile), stage=told
        )
    assert sorted(tries) == [2, 2, 2, 5, 5, 5]
    assert len(done) == 18
    assert raised.value.failed == (
        FailedTile(tile="r2", reason="ConnectionError: no route to host 2", tries=3),
        FailedTile(tile="r5", reason="ConnectionError: no route to host 5", tries=3),
    )
    assert isinstance(raised.value, WorkFailedError)
    assert json.loads(json.dumps(raised.value.found))["failed"][1]["tile"] == "r5"
    assert sorted(tile for tile, _ in told.gave_up) == ["r2", "r5"]


def test_what_fails_every_time_is_not_tried_again(threads: Client) -> None:
    tries: list[int] = []

    def compute(tile: Tile) -> None:
        if tile.row == 1:
            tries.append(tile.row)
            raise ValueError("no such value")

    with pytest.raises(TilesFailedError, match=r"1 of 4 tiles failed \(r1\).*no such value"):
        done_by(threads, tiles(4), work(compute), Told())
    assert tries == [1]


@pytest.mark.parametrize("error", [InputError("the band is wrong"), ClassifierError("not ours")])
def test_wrong_data_end_the_run(threads: Client, error: Exception) -> None:
    begun: list[int] = []

    def compute(tile: Tile) -> None:
        begun.append(tile.row)
        if tile.row == 0:
            raise error
        time.sleep(0.01)

    with pytest.raises(type(error), match=str(error)):
        done_by(threads, tiles(300), work(compute), Told())
    assert len(begun) < 300
    assert not threads.futures


def test_a_full_disk_ends_the_run(threads: Client) -> None:
    def write(tile: Tile) -> None:
        if tile.row == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        time.sleep(0.01)

    with pytest.raises(WorkFailedError, match=r"tile r3 cannot be written: .*No space left"):
        done_by(threads, tiles(300), work(write), Told())


def test_a_tile_that_takes_too_much_memory_is_made_in_strips(threads: Client) -> None:
    made: list[tuple[int, bool]] = []

    def compute(tile: Tile, *, is_whole: bool = True) -> int:
        made.append((tile.row, is_whole))
        if tile.row == 2 and is_whole:
            raise MemoryError
        return tile.row

    _CALLS["strips"] = compute
    strips = delayed(_call, pure=False)
    how = work(compute, in_strips=lambda tile: strips("strips", tile, is_whole=False))
    told = Told()
    assert len(done_by(threads, tiles(5), how, told)) == 5
    assert sorted(made) == [(0, True), (1, True), (2, False), (2, True), (3, True), (4, True)]
    assert told.again == ["r2"]


def test_of_work_that_knows_no_strips_the_whole_is_tried_again(threads: Client) -> None:
    def compute(tile: Tile) -> None:
        raise MemoryError

    with pytest.raises(TilesFailedError, match=r"first: tile r0: MemoryError\. Running") as raised:
        done_by(threads, tiles(1), work(compute), Told())
    assert raised.value.failed[0].tries == 3


def test_a_stop_ends_it_and_takes_tiles_back(threads: Client) -> None:
    begun: list[int] = []
    wait = threading.Event()

    def compute(tile: Tile) -> None:
        begun.append(tile.row)
        wait.wait(0.05)

    def stop_after_the_first(tile: str, result: Any) -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_tasks(threads, tiles(500), work(compute), on_done=stop_after_the_first)
    assert time.monotonic() - started < 20
    assert len(begun) < 50
    assert not threads.futures


def test_every_task_has_the_parcel_and_nothing_is_left_of_it(threads: Client) -> None:
    parcel = Parcel(job={"answer": 42}, files={"stamp/a": b"1", "stamp/b": b"2", "other": b"3"})

    def compute(tile: Tile) -> Any:
        return job_of(parcel.key)["answer"], carried_files("stamp/")

    found: dict[str, Any] = {}
    run_tasks(threads, tiles(3), work(compute, parcel=parcel), on_done=found.__setitem__)
    assert found == {tile.id: (42, {"a": b"1", "b": b"2"}) for tile in tiles(3)}
    assert carried_files("") == {}
    with pytest.raises(ParcelMissingError, match="was not given what its tasks share"):
        job_of(parcel.key)


def test_a_parcel_stays_as_long_as_one_worker_of_the_process_has_it() -> None:
    parcel = Parcel(job="job")
    for _ in range(2):
        open_parcel(parcel)
    close_parcel(parcel)
    assert job_of(parcel.key) == "job"
    close_parcel(parcel)
    close_parcel(parcel)
    with pytest.raises(ParcelMissingError):
        job_of(parcel.key)


def test_a_worker_that_dies_costs_no_tile(tmp_path: Path) -> None:
    """Processes: the first try of some tiles kills its worker, and another one takes over."""

    def die_once(tile: Any, folder: Path) -> int:
        import os

        mark = folder / tile.id
        if tile.row % 4 == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()

    task = delayed(die_once, pure=False)
    how: TileWork[Any] = TileWork(
        step="test", delay=lambda some: [task(_plain(tile), tmp_path) for tile in some]
    )
    done: dict[str, int] = {}
    with connect(ClusterSection(kind="local", workers=2)) as client:
        run_tasks(client, tiles(12), how, on_done=done.__setitem__)
    assert sorted(done) == sorted(tile.id for tile in tiles(12))
    assert sorted(mark.name for mark in tmp_path.iterdir()) == ["r1", "r5", "r9"]
    assert os.getpid() not in done.values()


def test_a_tile_that_kills_every_worker_is_given_up() -> None:
    def die(tile: Any) -> None:
        import os

        if tile.row == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    task = delayed(die, pure=False)
    how: TileWork[Any] = TileWork(
        step="test", delay=lambda some: [task(_plain(tile)) for tile in some]
    )
    done: list[str] = []
    with (
        connect(ClusterSection(kind="local", workers=1, retries=1)) as client,
        pytest.raises(TilesFailedError, match="tile r1: the workers that had it died") as raised,
    ):
        run_tasks(client, tiles(2), how, on_done=lambda tile, _: done.append(tile))
    assert [one.tile for one in raised.value.failed] == ["r1"]
    assert done == ["r0"]


def _plain(tile: Tile) -> Any:
    """Return a tile that other processes can unpickle, for they do not know this module."""
    from types import SimpleNamespace

    return SimpleNamespace(row=tile.row, id=tile.id)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (InputError("x"), Fault.INPUT),
        (ClassifierError("x"), Fault.INPUT),
        (OSError("x"), Fault.PASSING),
        (PermissionError(13, "token expired"), Fault.PASSING),
        (ConnectionResetError(), Fault.PASSING),
        (OSError(errno.EROFS, "read-only"), Fault.HOPELESS),
        (OSError(errno.EDQUOT, "quota"), Fault.HOPELESS),
        (MemoryError(), Fault.MEMORY),
        (KilledWorker("task", None, 3), Fault.DEATH),
        (WorkFailedError("x"), Fault.OWN),
        (ZeroDivisionError(), Fault.OWN),
    ],
)
def test_which_fault_an_error_is(error: Exception, fault: Fault) -> None:
    assert fault_of(error) is fault
    assert "\n" not in reason_of(error)
    assert reason_of(OSError("a\n  b" + "c" * 500)) == f"OSError: a b{'c' * 500}"[:300]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 70_000), st.integers(0, 70_000)), max_size=40))
def test_the_order_is_that_of_interleaved_bits(places: list[tuple[int, int]]) -> None:
    some = [Tile(row=row, column=column) for row, column in places]

    def bits(tile: Tile) -> str:
        pairs = zip(f"{tile.row:032b}", f"{tile.column:032b}", strict=True)
        return "".join(row + column for row, column in pairs)

    assert along_curve(some) == sorted(some, key=bits)


def test_failed_tiles_are_kept_until_they_are_done(tmp_path: Path) -> None:
    one = FailedTile(tile="r1", reason="OSError: x", tries=4)
    other = FailedTile(tile="r0", reason="ValueError: y", tries=1)
    assert keep_failed(tmp_path, "build", [one, other]) == read_failed(tmp_path)
    assert [entry["tile"] for entry in read_failed(tmp_path)] == ["r0", "r1"]
    keep_failed(tmp_path, "map", [one])
    keep_failed(tmp_path, "build", [])
    assert read_failed(tmp_path) == [
        {"step": "map", "tile": "r1", "reason": "OSError: x", "tries": 4}
    ]
    assert keep_failed(tmp_path, "map", []) == []
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "failed.json").write_text("no JSON")
    assert read_failed(tmp_path) == []


def test_a_run_keeps_what_failed_until_it_is_done(tmp_path: Path) -> None:
    scenes = tmp_path / "catalogue.json"
    scenes.write_text("{}")
    (tmp_path / "recipe.toml").write_text(
        'name = "x"\nmonths = { first = "2022-01", last = "2022-01" }\narea = { bbox = [1, 2, 3, 4] }'
        '\nsource = { kind = "stac", catalogue = "catalogue.json" }\noutputs = { folder = "out" }\n'
    )
    recipe = read_recipe(tmp_path / "recipe.toml")
    recipe.outputs.folder.mkdir()
    report = recipe.outputs.folder / "report.json"
    failed = [FailedTile(tile="r1", reason="OSError: x", tries=4)]
    entry = {"step": "map", "tile": "r1", "reason": "OSError: x", "tries": 4}
    run = Run(recipe, Reporter(is_quiet=True))
    with pytest.raises(TilesFailedError), run._failures("map"):
        raise TilesFailedError("map: 1 of 9 tiles failed", failed)
    assert read_failed(recipe.outputs.folder) == [entry]
    assert json.loads(report.read_text())["failed"] == [entry]
    with pytest.raises(KeyboardInterrupt), run._failures("map"):
        raise KeyboardInterrupt
    assert read_failed(recipe.outputs.folder) == [entry]
    with run._failures("map"):
        pass
    assert read_failed(recipe.outputs.folder) == []
    assert "failed" not in json.loads(report.read_text())


def test_where_the_time_went_is_written(threads: Client, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    with reported(page):
        done_by(threads, tiles(3), work(lambda tile: None), Told())
    assert "<html" in page.read_text()
    nowhere = tmp_path / "no" / "page.html"
    with (
        pytest.raises(InputError, match=r"--performance-report .* cannot be written: No such"),
        reported(nowhere),
    ):
        pass


def test_a_worker_that_leaves_lets_others_do_its_tiles() -> None:
    cores = Cores(1)
    cores.close()
    with pytest.raises(InterruptedError, match="the worker leaves") as raised:
        cores.compute(lambda: None)
    assert fault_of(raised.value) is Fault.PASSING
