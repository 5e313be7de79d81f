"""The words of commands about tables, samples and labels, and of `demo`."""

import argparse
from pathlib import Path
from typing import Any

from pipelines.audit_command import add_audit_options
from pipelines.command_parts import add_command, overridable, print_lines
from pipelines.series_options import add_series_options, series_options


def add_label_commands(commands: Any) -> None:
    """Add the commands for samples and labels, and `demo`."""
    tables = add_command(
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

    audit = add_command(
        commands, "audit", "find what makes a score or a map untrue, before it is believed", _audit
    )
    add_audit_options(audit)
    overridable(audit)

    doctor = add_command(
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
    overridable(doctor)

    predict = add_command(
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

    demo = add_command(commands, "demo", "simulate a forest and map its species", _demo)
    demo.add_argument("folder", type=Path, nargs="?", default=Path("demo"))
    demo.add_argument("--scale", type=float, default=1.0, help="edge of the forest, 1 is 4.8 km")
    demo.add_argument("--seed", type=int, default=7, help="another seed grows another forest")
    overridable(demo)


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
    print_lines(options, (series_lines if is_series else import_lines)(found))
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
    print_lines(options, examined_lines(found))
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
    print_lines(options, prediction_lines(found))
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
    print_lines(options, summary(report))
    return report
