"""The words of commands that carry out a recipe: `init`, `plan` … `run`."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cube.errors import InputError
from pipelines.command_parts import (
    add_command,
    add_watching_options,
    overridable,
    print_lines,
    reporter_for,
)

if TYPE_CHECKING:
    from pipelines.recipe import SeriesRecipe

RECIPES = ("template", "changqing", "changqing-best")
"""What `init` can write, by name in `pipelines/recipes`."""


def add_recipe_commands(commands: Any) -> None:
    """Add `init` and every step of a recipe."""
    init = add_command(commands, "init", "write a commented recipe", _init)
    init.add_argument("recipe", type=Path, nargs="?", help="default: recipe.toml, or NAME.toml")
    init.add_argument(
        "--from",
        dest="name",
        choices=RECIPES,
        default=RECIPES[0],
        help="what to start from: every key explained, or a published run (default: template)",
    )

    for name, text in {
        "plan": "say what a run will do, before it reads whole scenes",
        "lock": "search the scenes and keep them; --update searches anew and says what changed",
        "export": "have Earth Engine write the cube's tiles into files (source.export)",
        "build": "make the data cube",
        "sample": "draw training sequences from the cube",
        "train": "score and train the classifier",
        "map": "classify the cube",
        "publish": "write the map as GeoTIFF and pictures",
        "run": "do every step, or what is missing of them",
    }.items():
        command = add_command(commands, name, text, _on_recipe(name))
        command.add_argument("recipe", type=Path, help="recipe file (TOML)")
        command.add_argument(
            "--wait", action="store_true", help="wait for a run that is at work there already"
        )
        add_watching_options(command)
        if name == "plan":
            command.add_argument(
                "--calibrate", action="store_true", help="make one tile, to tell how long all take"
            )
        if name == "lock":
            command.add_argument("--update", action="store_true", help="ask the catalogue again")
        if name == "export":
            command.add_argument(
                "--no-wait", action="store_true", help="hand the tasks in and come back later"
            )
            instead = command.add_mutually_exclusive_group()
            instead.add_argument(
                "--again",
                nargs="*",
                metavar="TILE",
                help="export these tiles anew; without any, those whose file is lost or damaged",
            )
            instead.add_argument(
                "--cancel", action="store_true", help="stop the tasks that have not ended"
            )
        if name == "map":
            command.add_argument(
                "--table",
                type=Path,
                nargs="?",
                const=_TABLE_INSIDE,
                metavar="FILE",
                help="write latitude, longitude and class of every pixel, too: .csv, .csv.gz or "
                ".parquet (default: map_table.csv in the output folder)",
            )
            command.add_argument(
                "--engine",
                metavar="NAME",
                help="auto, exact, fast, torch, cuda or cuda-fast; overrides map.engine",
            )
        overridable(command)


def _init(options: argparse.Namespace) -> dict[str, Any]:
    is_template = options.name == RECIPES[0]
    target = options.recipe or Path("recipe.toml" if is_template else f"{options.name}.toml")
    if target.exists():
        raise InputError(f"{str(target)!r} exists; it is not overwritten")
    template = Path(__file__).parent / "recipes" / f"{options.name}.toml"
    try:
        target.write_text(template.read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{str(target)!r} cannot be written: {error.strerror}") from error
    if not options.json:
        print(f"wrote {target}; edit it, then: canopycube run {target}")
    return {"recipe": str(target)}


def _on_recipe(step: str) -> Callable[[argparse.Namespace], Any]:
    def carry_out(options: argparse.Namespace) -> Any:
        from pipelines.recipe import SeriesRecipe, read_any_recipe

        recipe = read_any_recipe(options.recipe, _overrides(options))
        if isinstance(recipe, SeriesRecipe):
            return _on_series(step, recipe, options)
        # a wrong recipe is told before the seconds that these take to import
        from pipelines.report import export_lines, lock_lines, plan_lines, summary
        from pipelines.run import open_run

        with open_run(recipe, reporter_for(options), waits=options.wait) as run:
            run.performance_report = options.performance_report
            if step == "plan":
                found = run.describe(calibrates=options.calibrate)
                print_lines(options, plan_lines(found))
            elif step == "lock":
                found = run.lock(update=options.update)
                print_lines(options, lock_lines(found))
            elif step == "export":
                found = run.export(
                    waits=not options.no_wait, again=options.again, cancels=options.cancel
                )
                print_lines(options, export_lines(found))
            elif step == "map":
                found = run.map(table=_table_file(options.table, run.layout.folder))
                print_lines(options, summary(run.report))
            else:
                found = run.all() if step == "run" else getattr(run, step)()
                print_lines(options, summary(run.report))
        return found

    return carry_out


def _overrides(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the keys that the command line overrides; an option of its own counts most."""
    engine = getattr(options, "engine", None)
    if engine is None:
        return tuple(options.overrides)
    quoted = json.dumps(engine, ensure_ascii=False)  # a string of TOML, whatever is in it
    return (*options.overrides, f"map.engine={quoted}")


_SERIES_STEPS = ("sample", "train", "run")
"""What can be done with labelled series, which have no cube."""


def _on_series(step: str, recipe: "SeriesRecipe", options: argparse.Namespace) -> Any:
    if step not in _SERIES_STEPS:
        raise InputError(
            f"{step} needs a cube, and the recipe has no [source]; samples alone allow "
            f"{', '.join(_SERIES_STEPS)}, audit, label-doctor, and predict on other tables"
        )
    from pipelines.report import summary
    from pipelines.run import open_learning

    with open_learning(recipe, reporter_for(options), waits=options.wait) as learning:
        found = learning.all() if step == "run" else getattr(learning, step)()
        print_lines(options, summary(learning.report))
    return found


_TABLE_INSIDE = Path()
"""`--table` without a file."""


def _table_file(given: Path | None, folder: Path) -> Path | None:
    """Return where `--table` writes: the file given, or one of the usual name in the run's folder."""
    if given != _TABLE_INSIDE:
        return given
    from pipelines.map_table import TABLE_NAME

    return folder / TABLE_NAME
