"""Steps that last, seen from outside: one live line each for people, lines for machines and logs."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pipelines.printable import printable
from pipelines.tally import Tally

LOG_EVERY = 300.0
"""Seconds between two lines of a stage where no terminal shows a live one."""


class Stage:
    """One step over many tiles; says nothing by itself."""

    def done(self, tile: str, *, seconds: float | None = None) -> None:
        """Count a tile that is done; `seconds` are what its worker took."""

    def failed(self, tile: str, reason: str) -> None:
        """Count a tile that was given up."""

    def retried(self, tile: str, reason: str) -> None:
        """Count a tile that is done again."""

    def workers(self, count: int) -> None:
        """Note how many workers there are now."""

    def say(self, text: str) -> None:
        """Tell what happened to the run as a whole."""

    def look(self) -> None:
        """Do what is to be done now and then; called some times a second."""


SILENT = Stage()
"""A stage that nobody watches."""


class Reporter:
    """Where a run says what it does: stderr, for people, or as `events` for machines; or nowhere."""

    def __init__(self, *, is_quiet: bool = False, has_events: bool = False) -> None:
        self.console = Console(
            stderr=True, quiet=is_quiet or has_events, highlight=False, soft_wrap=True
        )
        self.has_events = has_events
        self.is_live = not is_quiet and not has_events and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """Print one line; names of others in it cannot command the terminal."""
        self.console.print(printable(text), markup=False)
        self.event("said", text=text)

    def event(self, name: str, **facts: Any) -> None:
        """Print one JSON object, with the time, on a line of stderr, if events are wanted."""
        if self.has_events:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            print(json.dumps({"event": name, "time": now, **facts}), file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def bar(self, title: str, total: int) -> Iterator[Callable[..., None]]:
        """Show a bar of `total` steps; yields `advance(by=1, note="")`."""
        if not self.is_live:
            yield lambda by=1, note="": None
            return
        with self._progress() as progress:
            task = progress.add_task(title, total=total, note="")

            def advance(by: int = 1, note: str = "") -> None:
                progress.update(task, advance=by, note=note)

            yield advance

    @contextlib.contextmanager
    def stage(self, title: str, total: int, *, already: int = 0) -> Iterator[Stage]:
        """Show a step over `total` tiles, of which some are done `already`; yields its `Stage`."""
        tally = Tally(title=title, total=total, already=already, started=time.monotonic())
        self.event("started", step=title, tiles=total, done=already)
        with contextlib.ExitStack() as stack:
            show: Callable[[], None] = lambda: None  # noqa: E731
            if self.is_live:
                progress = stack.enter_context(self._progress())
                task = progress.add_task(title, total=total, note="", completed=already)

                def show() -> None:
                    note = tally.details(time.monotonic())
                    progress.update(task, completed=tally.already + tally.done, note=note)

            yield _Watched(self, tally, show)
        self.event("finished", step=title, **tally.facts(time.monotonic()))

    def _progress(self) -> Progress:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        return Progress(*columns, console=self.console, transient=True)


class _Watched(Stage):
    """A stage of which a tally is kept: shown live, logged now and then, told as events."""

    def __init__(self, reporter: Reporter, tally: Tally, show: Callable[[], None]) -> None:
        self._reporter, self._tally, self._show = reporter, tally, show
        self._next_line = tally.started + LOG_EVERY

    def done(self, tile: str, *, seconds: float | None = None) -> None:
        self._tally.count_done(tile, seconds)
        took = {} if seconds is None else {"seconds": round(seconds, 3)}
        self._reporter.event("tile done", step=self._tally.title, tile=tile, **took)
        self._show()

    def failed(self, tile: str, reason: str) -> None:
        self._tally.failed += 1
        self._reporter.event("tile failed", step=self._tally.title, tile=tile, reason=reason)
        self._show()

    def retried(self, tile: str, reason: str) -> None:
        self._tally.retried += 1
        self._reporter.event("tile retried", step=self._tally.title, tile=tile, reason=reason)
        self._show()

    def workers(self, count: int) -> None:
        self._tally.workers = count
        self._reporter.event("workers", step=self._tally.title, workers=count)
        self._show()

    def say(self, text: str) -> None:
        self._reporter.say(f"{self._tally.title}: {text}")

    def look(self) -> None:
        now = time.monotonic()
        if now < self._next_line or self._reporter.is_live:
            return
        self._next_line = now + LOG_EVERY
        self._reporter.console.print(self._tally.line(now), markup=False)
        self._reporter.event("running", step=self._tally.title, **self._tally.facts(now))
