"""What the groups of commands share: how a command is added, overridden and told."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.progress import Reporter


def add_command(
    commands: Any, name: str, text: str, function: Callable[[argparse.Namespace], Any]
) -> argparse.ArgumentParser:
    """Add a command that `function` carries out; its words go onto what is returned."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.add_argument("--json", action="store_true", help="print one JSON object, no progress")
    command.add_argument("--debug", action="store_true", help="show where an error comes from")
    command.set_defaults(command=function)
    return command


def add_watching_options(command: argparse.ArgumentParser) -> None:
    """Let a command tell machines how far it is, and where the cluster's time went."""
    command.add_argument(
        "--progress",
        choices=("auto", "json"),
        default="auto",
        help="json: one JSON object a line on stderr for all that happens (default: a live line)",
    )
    command.add_argument(
        "--performance-report",
        type=Path,
        metavar="FILE",
        help="write Dask's report of where the time went, as HTML",
    )


def reporter_for(options: argparse.Namespace) -> "Reporter":
    """Return what tells people, or machines, of a command's progress as its options ask."""
    from pipelines.progress import Reporter  # takes a while to import

    return Reporter(is_quiet=options.json, has_events=options.progress == "json")


def overridable(command: argparse.ArgumentParser) -> None:
    """Let a command override keys of its recipe."""
    command.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one key of the recipe, e.g. --set training.epochs=20",
    )


def print_lines(options: argparse.Namespace, lines: list[str]) -> None:
    """Print what people read; nothing where a machine reads."""
    if not options.json:
        print("\n".join(lines))
