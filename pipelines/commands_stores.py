"""The words of commands about stores that are there: `compare`, `verify` and `why`."""

import argparse
from pathlib import Path
from typing import Any

from cube.errors import InputError
from pipelines.command_parts import add_command, overridable, print_lines
from pipelines.thresholds import Thresholds


def add_store_commands(commands: Any) -> None:
    """Add the commands that look at stores."""
    compare = add_command(commands, "compare", "say how far two cubes agree", _compare)
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

    verify = add_command(
        commands, "verify", "read all of a cube or map and say whether it is whole", _verify
    )
    verify.add_argument("store", metavar="STORE", help=_STORE)
    verify.add_argument(
        "--repair",
        action="store_true",
        help="forget what is damaged, remove what was left over; with a recipe make it anew",
    )
    verify.add_argument("--workers", type=int, help="threads (default: one a core)")
    overridable(verify)

    why = add_command(
        commands, "why", "say how the pixel at a place came to be, and if it would be again", _why
    )
    why.add_argument("store", metavar="STORE", help=_STORE)
    for name, text in {
        "lon": "longitude, degrees",
        "lat": "latitude, degrees",
        "x": "easting in the store's CRS",
        "y": "northing in the store's CRS",
    }.items():
        why.add_argument(f"--{name}", type=float, metavar="NUMBER", help=text)
    why.add_argument(
        "--recipe",
        type=Path,
        help="say why it would make the pixel again (default: STORE, if it is one)",
    )
    overridable(why)


_STORE = "cube.zarr, map.zarr, a folder that holds them, or their recipe"

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
    print_lines(options, comparison_lines(made, above, is_full=options.full))
    if options.csv:
        write_table(options.csv, made)
    if above:
        raise CubesDifferError(verdict(above), found)
    return found


def _verify(options: argparse.Namespace) -> dict[str, Any]:
    from pipelines.verify_command import verify_command

    return verify_command(options)


def _why(options: argparse.Namespace) -> dict[str, Any]:
    from pipelines.why_command import why_command

    return why_command(options)
