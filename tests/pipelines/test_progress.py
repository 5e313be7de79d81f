"""What is told of a step while it lasts: to people, to logs and to machines."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import progress
from pipelines.progress import SILENT, Reporter
from pipelines.tally import Tally


def test_the_line_of_a_log_has_all_figures() -> None:
    tally = Tally(title="map", total=400, already=100, started=1000.0)
    assert tally.line(1060.0) == "map: 100 of 400 tiles"
    for number in range(60):
        tally.count_done(f"r{number}", 1.5 + number / 100)
    tally.failed, tally.retried, tally.workers = 2, 3, 4
    assert tally.line(1060.0) == (
        "map: 160 of 400 tiles, 4 min left; 60/min, 2 failed, 3 done again, slowest r59 2.09 s, "
        "4 workers"
    )
    assert tally.facts(1060.0) == {
        "tiles": 400, "done": 160, "failed": 2, "retried": 3, "workers": 4,
        "tiles_per_minute": 60.0, "seconds_left": 238.0,
        "slowest": {"tile": "r59", "seconds": 2.09},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "words"), [(20, "20 s left"), (600, "10 min left"), (9000, "2 h 30 min left")]
)
def test_how_long_is_told_in_units_that_fit(seconds: float, words: str) -> None:
    tally = Tally(title="x", total=2, already=0, started=0.0)
    tally.count_done("a")
    assert words in tally.line(seconds)


@given(st.integers(1, 1000), st.integers(0, 1000), st.integers(0, 1000), st.floats(0, 1e6))
def test_the_rate_and_the_rest_agree(total: int, done: int, failed: int, now: float) -> None:
    tally = Tally(title="x", total=total, already=0, started=0.0, done=done, failed=failed)
    left = tally.seconds_left(now)
    if not done:
        assert left is None
        assert tally.per_minute(now) == 0
        return
    assert left is not None
    tiles = left * tally.per_minute(now) / 60
    if now > 1e-3:
        assert tiles == pytest.approx(max(total - done - failed, 0))


def test_machines_are_told_everything_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(has_events=True)
    with reporter.stage("cube", 3, already=1) as stage:
        stage.workers(2)
        stage.retried("r0c1", "OSError: x")
        stage.done("r0c1", seconds=1.23456)
        stage.failed("r0c2", "ValueError: y")
        stage.say("the scheduler is lost; waiting for it")
    printed = capsys.readouterr()
    events = [json.loads(line) for line in printed.err.splitlines()]
    assert printed.out == ""
    assert all(event.pop("time").endswith("+00:00") for event in events)
    assert events.pop(-1) | {"tiles_per_minute": 0} == {
        "event": "finished", "step": "cube", "tiles": 3, "done": 2, "failed": 1, "retried": 1,
        "workers": 2, "tiles_per_minute": 0, "seconds_left": 0.0,
        "slowest": {"tile": "r0c1", "seconds": 1.235},
    }  # fmt: skip
    assert events == [
        {"event": "started", "step": "cube", "tiles": 3, "done": 1},
        {"event": "workers", "step": "cube", "workers": 2},
        {"event": "tile retried", "step": "cube", "tile": "r0c1", "reason": "OSError: x"},
        {"event": "tile done", "step": "cube", "tile": "r0c1", "seconds": 1.235},
        {"event": "tile failed", "step": "cube", "tile": "r0c2", "reason": "ValueError: y"},
        {"event": "said", "text": "cube: the scheduler is lost; waiting for it"},
    ]


def test_a_log_shows_life_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with Reporter().stage("map", 10) as stage:
        for minute in range(1, 11):
            now = 60.0 * minute
            stage.done(f"r{minute}")
            stage.look()
            stage.look()
    monkeypatch.undo()
    assert capsys.readouterr().err.splitlines() == [
        "map: 5 of 10 tiles, 5 min left; 1/min",
        "map: 10 of 10 tiles, 0 s left; 1/min",
    ]


@pytest.mark.parametrize("reporter", [Reporter(is_quiet=True), Reporter()])
def test_a_short_step_says_nothing_where_nobody_watches(
    reporter: Reporter, capsys: pytest.CaptureFixture[str]
) -> None:
    with reporter.stage("map", 2) as stage:
        stage.done("a", seconds=1.0)
        stage.failed("b", "x")
        stage.look()
    assert capsys.readouterr() == ("", "")


def test_a_terminal_has_one_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    reporter = Reporter()
    reporter.is_live = True
    reporter.console = progress.Console(file=(shown := _Terminal()), force_terminal=True, width=120)
    with reporter.stage("map", 4, already=1) as stage:
        stage.workers(2)
        stage.done("r0c1", seconds=3.0)
        stage.failed("r0c2", "x")
        time.sleep(0.2)
    assert "2/4" in shown.text
    assert "1 failed, slowest r0c1 3 s, 2 workers" in shown.text


class _Terminal:
    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def test_nobody_is_told_by_a_silent_stage(capsys: pytest.CaptureFixture[str]) -> None:
    SILENT.done("a")
    SILENT.failed("b", "x")
    SILENT.retried("b", "x")
    SILENT.workers(1)
    SILENT.say("x")
    SILENT.look()
    assert capsys.readouterr() == ("", "")
