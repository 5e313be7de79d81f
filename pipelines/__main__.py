"""The command line: words in, a step of a run carried out, an exit code out."""

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cube.errors import InputError, WorkFailedError
from cube.patience import allow_fetching, stop_fetching
from model.errors import ModelError
from pipelines import stop
from pipelines.audit_command import add_audit_options
from pipelines.printable import printable
from pipelines.series_options import add_series_options, series_options
from pipelines.thresholds import Thresholds

if TYPE_CHECKING:
    from pipelines.recipe import SeriesRecipe

EXIT_DONE, EXIT_FAILED, EXIT_WRONG_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130

RECIPES = ("template", "changqing", "changqing-best")
"""What `init` can write, by name in `pipelines/recipes`."""


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

    init = _command(commands, "init", "write a commented recipe", _init)
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
        command = _command(commands, name, text, _on_recipe(name))
        command.add_argument("recipe", type=Path, help="recipe file (TOML)")
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
        _overridable(command)

    compare = _command(commands, "compare", "say how far two cubes agree", _compare)
    for name in ("a", "b"):
        compare.add_argument(name, type=Path, metavar=name.upper(), help=_CUBE)
    compare.add_argument("--classifier", type=Path, help="folder; compares what it says of both")
    compare.add_argument(
        "--min-months", type=int, default=1, help="clear periods a pixel needs to be classified (1)"
    )
    for name, text in _THRESHOLDS.items():
        compare.add_argument(
            f"--{name.replace('_', '-')}",
            type=float,
            default=getattr(Thresholds, name),
            metavar="NUMBER",
            help=f"{text} (%(default)s)",
        )
    compare.add_argument("--workers", type=int, help="threads (default: one a core)")
    compare.add_argument("--full", action="store_true", help="print every band and period")
    compare.add_argument("--csv", type=Path, metavar="FILE", help="write every figure as a table")

    tables = _command(
        commands,
        "import-table",
        "make samples of labelled series, or a stack and samples of Earth Engine's tables",
        _import_table,
    )
    tables.add_argument(
        "tables", nargs="+", metavar="TABLE", help="CSV, gzip or Parquet: file, folder or pattern"
    )
    tables.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="made if missing")
    tables.add_argument(
        "--crs", help="CRS of the grid (default: the data's UTM zone), or of x and y"
    )
    tables.add_argument("--first", metavar="YYYY-MM", help="first month (default: of whole years)")
    tables.add_argument("--last", metavar="YYYY-MM", help="last month (default: of whole years)")
    tables.add_argument("--scale", type=float, help="reflectance of one count (default: 0.0001)")
    add_series_options(tables)

    audit = _command(
        commands, "audit", "find what makes a score or a map untrue, before it is believed", _audit
    )
    add_audit_options(audit)
    _overridable(audit)

    doctor = _command(
        commands, "label-doctor", "find labels that look wrong and decide about them", _doctor
    )
    doctor.add_argument("recipe", type=Path, help="recipe file (TOML) whose samples are drawn")
    doctor.add_argument("--page", type=Path, metavar="FILE", help="default: label_doctor.html")
    doctor.add_argument(
        "--decisions", type=Path, metavar="FILE", help="made before (default: reference.decisions)"
    )
    doctor.add_argument(
        "--model",
        dest="models",
        action="append",
        metavar="NAME",
        help="baseline that judges, e.g. 'random forest'; several are pooled (default: lda)",
    )
    _overridable(doctor)

    predict = _command(
        commands, "predict", "classify tables of series with a saved classifier", _predict
    )
    predict.add_argument("classifier", type=Path, help="folder of a classifier")
    predict.add_argument(
        "tables", nargs="+", metavar="TABLE", help="CSV, gzip or Parquet: file, folder or pattern"
    )
    predict.add_argument(
        "--to", type=Path, required=True, metavar="FILE", help=".csv, .csv.gz or .parquet"
    )
    predict.add_argument("--crs", help="CRS of x and y, where places are not longitude, latitude")
    predict.add_argument("--scale", type=float, help="physical value of one count, e.g. 0.0001")
    add_series_options(predict, is_prediction=True)

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
        from pipelines.progress import Reporter
        from pipelines.report import export_lines, lock_lines, plan_lines, summary
        from pipelines.run import open_run

        with open_run(recipe, Reporter(is_quiet=options.json)) as run:
            if step == "plan":
                found = run.describe()
                _print_lines(options, plan_lines(found))
            elif step == "lock":
                found = run.lock(update=options.update)
                _print_lines(options, lock_lines(found))
            elif step == "export":
                found = run.export(
                    waits=not options.no_wait, again=options.again, cancels=options.cancel
                )
                _print_lines(options, export_lines(found))
            elif step == "map":
                found = run.map(table=_table_file(options.table, run.layout.folder))
                _print_lines(options, summary(run.report))
            else:
                found = run.all() if step == "run" else getattr(run, step)()
                _print_lines(options, summary(run.report))
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
    from pipelines.progress import Reporter
    from pipelines.report import summary
    from pipelines.run import open_learning

    with open_learning(recipe, Reporter(is_quiet=options.json)) as learning:
        found = learning.all() if step == "run" else getattr(learning, step)()
        _print_lines(options, summary(learning.report))
    return found


_TABLE_INSIDE = Path()
"""`--table` without a file."""


def _table_file(given: Path | None, folder: Path) -> Path | None:
    """Return where `--table` writes: the file given, or one of the usual name in the run's folder."""
    if given != _TABLE_INSIDE:
        return given
    from pipelines.map_table import TABLE_NAME

    return folder / TABLE_NAME


_CUBE = "cube.zarr, a folder that holds one, or its recipe"

_THRESHOLDS = {
    "max_bias": "largest mean difference of a band and period, in reflectance",
    "max_rmse": "largest root mean square difference of a band and period, in reflectance",
    "min_correlation": "smallest correlation of a band and period",
    "max_clear_difference": "largest share of pixels that are clear, or have a label, in one cube only",
    "min_agreement": "smallest share of equal labels where both have one",
}
"""What each threshold of `compare` limits; exit code 1 beyond any of them."""


def _compare(options: argparse.Namespace) -> dict[str, Any]:
    limits = Thresholds(**{name: getattr(options, name) for name in _THRESHOLDS})
    # wrong thresholds are told before the seconds that these take to import
    from pipelines.compare_cubes import compare_cubes
    from pipelines.compare_lines import comparison_lines, verdict
    from pipelines.compare_report import check_table, compared, write_table
    from pipelines.compare_verdict import CubesDifferError, exceeded
    from pipelines.progress import Reporter

    if options.classifier is None and limits.min_agreement != Thresholds.min_agreement:
        raise InputError("--min-agreement goes with --classifier; there are no labels to compare")
    if options.csv:
        check_table(options.csv)
    made = compare_cubes(
        options.a,
        options.b,
        Reporter(is_quiet=options.json),
        classifier=options.classifier,
        min_months=options.min_months,
        workers=options.workers,
    )
    above = exceeded(made, limits)
    found = compared(made, limits, above)
    _print_lines(options, comparison_lines(made, above, is_full=options.full))
    if options.csv:
        write_table(options.csv, made)
    if above:
        raise CubesDifferError(verdict(above), found)
    return found


def _import_table(options: argparse.Namespace) -> Any:
    from cube.periods import parse_month
    from pipelines.import_series_text import series_lines
    from pipelines.import_table import ImportOptions, import_tables
    from pipelines.import_text import import_lines
    from pipelines.progress import Reporter

    found = import_tables(
        options.tables,
        options.to,
        Reporter(is_quiet=options.json),
        ImportOptions(
            crs=options.crs,
            first=parse_month(options.first) if options.first else None,
            last=parse_month(options.last) if options.last else None,
            scale=options.scale,
        ),
        series_options(options),
    )
    is_series = found.get("form") == "series"
    _print_lines(options, (series_lines if is_series else import_lines)(found))
    return found


def _audit(options: argparse.Namespace) -> Any:
    from pipelines.audit_command import audit_command

    return audit_command(options)


def _doctor(options: argparse.Namespace) -> Any:
    from pipelines.recipe import read_any_recipe

    recipe = read_any_recipe(options.recipe, tuple(options.overrides))
    # a wrong recipe is told before the seconds that these take to import
    from pipelines.label_doctor import examine_labels, examined_lines
    from pipelines.progress import Reporter

    found = examine_labels(
        recipe,
        Reporter(is_quiet=options.json),
        page=options.page,
        decisions=options.decisions,
        models=tuple(options.models or ("lda",)),
    )
    _print_lines(options, examined_lines(found))
    return found


def _predict(options: argparse.Namespace) -> Any:
    from pipelines.predict_table import predict_table, prediction_lines
    from pipelines.progress import Reporter

    read = series_options(options, has_classifier=True)
    found = predict_table(
        options.classifier,
        options.tables,
        options.to,
        Reporter(is_quiet=options.json),
        options=read,
        is_placed=read.step is not None,
    )
    _print_lines(options, prediction_lines(found))
    return found


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
