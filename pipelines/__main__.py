"""The command line: words in, a step of a run carried out, an exit code out."""

import argparse
import json
import sys
import traceback
from collections.abc import Sequence

from cube.errors import InputError, WorkFailedError
from cube.patience import allow_fetching, stop_fetching
from model.errors import ModelError
from pipelines import stop
from pipelines.commands_labels import add_label_commands
from pipelines.commands_mosaic import add_mosaic_command
from pipelines.commands_recipe import RECIPES, add_recipe_commands
from pipelines.commands_stores import add_store_commands
from pipelines.printable import printable

__all__ = ["RECIPES", "main"]

EXIT_DONE, EXIT_FAILED, EXIT_WRONG_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command; 0 done, 1 the work failed, 2 the recipe or an input is wrong."""
    options = _parser().parse_args(arguments)
    stop.listen()
    _let_fetch(True)
    try:
        found = options.command(options)
    except KeyboardInterrupt:
        _let_fetch(False)  # or threads would go on asking, and this process waits for them
        print("stopped; running again goes on where this left off", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (InputError, ModelError) as error:
        return _fail(options, error, EXIT_WRONG_INPUT)
    except (WorkFailedError, OSError) as error:
        return _fail(options, error, EXIT_FAILED)
    if options.json:
        print(json.dumps(found, allow_nan=False))
    return EXIT_DONE


def _let_fetch(is_allowed: bool) -> None:
    """Let threads of this process ask servers, or end their tries."""
    (allow_fetching if is_allowed else stop_fetching)()


def _fail(options: argparse.Namespace, error: Exception, code: int) -> int:
    if options.debug:
        traceback.print_exception(error)
    text = printable("; ".join(str(error).split("\n")))
    if options.json:
        # cubes that differ are an error that has figures to tell
        print(json.dumps({**getattr(error, "found", {}), "error": text, "exit": code}))
    print(f"canopycube: {text}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="canopycube",
        description="Species and land-cover maps from a year of Sentinel-2.",
        epilog="A recipe describes the run; `canopycube init` writes one to start from.",
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    add_recipe_commands(commands)
    add_store_commands(commands)
    add_mosaic_command(commands)
    add_label_commands(commands)
    return parser


def _version() -> str:
    from importlib.metadata import version

    return f"canopycube {version('canopycube')}"


if __name__ == "__main__":
    sys.exit(main())
