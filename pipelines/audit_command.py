"""Words of `canopycube audit` in; samples or tables audited, told, and refused if something is severe."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cube.errors import InputError
from pipelines.series_options import add_series_options, series_options

if TYPE_CHECKING:
    from pipelines.audit_text import AuditReport


AUDITED = ("id", "label", "date", "year", "bands", "wide", "start", "step", "nodata")
"""Options of tables of series that decide what an audit reads."""


def add_audit_options(command: argparse.ArgumentParser) -> None:
    """Add what `audit` takes."""
    command.add_argument(
        "what",
        nargs="+",
        metavar="RECIPE|TABLE",
        help="a recipe whose samples are drawn, samples.zarr, or tables of labelled pixels and dates",
    )
    command.add_argument(
        "--allow",
        action="extend",
        nargs="+",
        default=[],
        metavar="CODE",
        help="severe findings that are no failure, e.g. split-canary",
    )
    command.add_argument("--crs", help="CRS of x and y, where places are not longitude, latitude")
    command.add_argument("--scale", type=float, help="physical value of one count, e.g. 0.0001")
    add_series_options(command, only=AUDITED)
    command.add_argument("--rows", type=Path, metavar="FILE.csv", help="write all rows to look at")


def audit_command(options: argparse.Namespace) -> dict[str, Any]:
    """Audit what the options name and return the report.

    Raises `AuditFailedError` (exit 1) for severe findings that are not allowed, `InputError` for
    what cannot be audited.
    """
    # these take seconds to import
    from pipelines.audit_samples import audit_run
    from pipelines.audit_table import audit_tables
    from pipelines.audit_text import (
        check_allowed,
        refuse_severe,
        report_json,
        report_lines,
        write_rows,
    )

    read = series_options(options)
    is_of_tables = read != type(read)()
    allowed = check_allowed(options.allow)
    named = [Path(name) for name in options.what]
    is_recipe = any(path.suffix == ".toml" for path in named)
    is_store = len(named) == 1 and (named[0] / "zarr.json").is_file()
    if is_of_tables and (is_recipe or is_store):
        raise InputError(
            f"--label, --date and the like go with tables; {options.what[0]!r} is none, leave them out"
        )
    if is_recipe:
        report, by_recipe = _of_recipe(named, tuple(options.overrides))
        allowed |= by_recipe
    elif is_store:
        report = audit_run(named[0])
    else:
        report = audit_tables(options.what, options=read)
    if options.rows:
        write_rows(options.rows, report)
    if not options.json:
        print("\n".join(report_lines(report, allowed)))
    found = report_json(report, allowed)
    refuse_severe(found, allowed)
    return found


def _of_recipe(
    named: list[Path], overrides: tuple[str, ...]
) -> "tuple[AuditReport, frozenset[str]]":
    """Return the audit of a recipe's own samples, and the codes that the recipe allows."""
    if len(named) > 1:
        raise InputError(f"one recipe or tables, not {len(named)} names with a recipe among them")
    from pipelines.audit_text import check_allowed
    from pipelines.recipe import SeriesRecipe, read_any_recipe
    from pipelines.run import open_learning, open_run

    recipe = read_any_recipe(named[0], overrides)
    allowed = check_allowed(recipe.training.audit_allow, given="training.audit_allow")
    if isinstance(recipe, SeriesRecipe):
        with open_learning(recipe) as learning:
            return learning.audit(str(named[0])), allowed
    with open_run(recipe) as run:
        return run.audit(str(named[0])), allowed
