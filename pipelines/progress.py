"""Steps that last, seen from a terminal: one live line each, and nothing where nobody watches."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Reporter:
    """Where a run says what it does: stderr for people; silent for `quiet` and machines."""

    def __init__(self, *, is_quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=is_quiet, highlight=False, soft_wrap=True)
        self.is_live = not is_quiet and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, markup=False)

    @contextlib.contextmanager
    def bar(self, title: str, total: int) -> Iterator[Callable[..., None]]:
        """Show a bar of `total` steps; yields `advance(by=1, note="")`."""
        if not self.is_live:
            yield lambda by=1, note="": None
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(title, total=total, note="")

            def advance(by: int = 1, note: str = "") -> None:
                progress.update(task, advance=by, note=note)

            yield advance
