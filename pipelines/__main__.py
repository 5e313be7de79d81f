"""The command line: words in, a step of a run carried out, an exit code out."""

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cube.errors import InputError, WorkFailedError
from model.errors import ModelError
from pipelines import stop

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
    """Let threads of this process ask servers, or end their tries; where none does, do nothing."""
    if fetch := sys.modules.get("cube.cog.fetch"):  # half a second, and only some commands need it
        (fetch.allow_fetching if is_allowed else fetch.stop_fetching)()


def _fail(options: argparse.Namespace, error: Exception, code: int) -> int:
    if options.debug:
        traceback.print_exception(error)
    text = _printable(" ".join(str(error).split("\n")))
    if options.json:
        print(json.dumps({"error": text, "exit": code}))
    print(f"canopycube: {text}", file=sys.stderr)
    return code


def _printable(text: str) -> str:
    """Return a message without what a terminal would obey: it may quote a foreign catalogue."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="canopycube",
        description="Species and land-cover maps from a year of Sentinel-2.",
        epilog="A recipe describes the run; `canopycube init` writes one to start from.",
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    init = _command(commands, "init", "write a commented recipe", _init)
    init.add_argument("recipe", type=Path, nargs="?", default=Path("recipe.toml"))

    for name, text in {
        "plan": "say what a run will do, before it reads whole scenes",
        "lock": "search the scenes and keep them; --update searches anew and says what changed",
        "build": "make the data cube",
        "sample": "draw training sequences from the cube",
        "train": "score and train the classifier",
        "map": "classify the cube",
        "publish": "write the map as GeoTIFF and pictures",
        "run": "do every step, or what is missing of them",
    }.items():
        command = _command(commands, name, text, _on_recipe(name))
        command.add_argument("recipe", type=Path, help="recipe file (TOML)")
        if name == "lock":
            command.add_argument("--update", action="store_true", help="ask the catalogue again")
        _overridable(command)

    demo = _command(commands, "demo", "simulate a forest and map its species", _demo)
    demo.add_argument("folder", type=Path, nargs="?", default=Path("demo"))
    demo.add_argument("--scale", type=float, default=1.0, help="edge of the forest, 1 is 4.8 km")
    demo.add_argument("--seed", type=int, default=7, help="another seed grows another forest")
    _overridable(demo)
    return parser


def _command(
    commands: Any, name: str, text: str, function: Callable[[argparse.Namespace], Any]
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.add_argument("--json", action="store_true", help="print one JSON object, no progress")
    command.add_argument("--debug", action="store_true", help="show where an error comes from")
    command.set_defaults(command=function)
    return command


def _overridable(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one key of the recipe, e.g. --set training.epochs=20",
    )


def _init(options: argparse.Namespace) -> dict[str, Any]:
    if options.recipe.exists():
        raise InputError(f"{str(options.recipe)!r} exists; it is not overwritten")
    template = Path(__file__).parent / "recipes" / "template.toml"
    try:
        options.recipe.write_text(template.read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{str(options.recipe)!r} cannot be written: {error.strerror}") from error
    if not options.json:
        print(f"wrote {options.recipe}; edit it, then: canopycube run {options.recipe}")
    return {"recipe": str(options.recipe)}


def _on_recipe(step: str) -> Callable[[argparse.Namespace], Any]:
    def carry_out(options: argparse.Namespace) -> Any:
        from pipelines.recipe import read_recipe

        recipe = read_recipe(options.recipe, tuple(options.overrides))
        # a wrong recipe is told before the seconds that these take to import
        from pipelines.progress import Reporter
        from pipelines.report import lock_lines, plan_lines, summary
        from pipelines.run import open_run

        with open_run(recipe, Reporter(is_quiet=options.json)) as run:
            if step == "plan":
                found = run.describe()
                _print_lines(options, plan_lines(found))
            elif step == "lock":
                found = run.lock(update=options.update)
                _print_lines(options, lock_lines(found))
            else:
                found = run.all() if step == "run" else getattr(run, step)()
                _print_lines(options, summary(run.report))
        return found

    return carry_out


def _demo(options: argparse.Namespace) -> Any:
    from pipelines.demo import run_demo
    from pipelines.progress import Reporter
    from pipelines.report import summary

    report = run_demo(
        options.folder,
        Reporter(is_quiet=options.json),
        scale=options.scale,
        seed=options.seed,
        overrides=tuple(options.overrides),
    )
    _print_lines(options, summary(report))
    return report


def _print_lines(options: argparse.Namespace, lines: list[str]) -> None:
    if not options.json:
        print("\n".join(lines))


def _version() -> str:
    from importlib.metadata import version

    return f"canopycube {version('canopycube')}"


if __name__ == "__main__":
    sys.exit(main())
