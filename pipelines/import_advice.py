"""The report of an import in; what a user should know or do out, in words."""

from collections.abc import Sequence
from typing import Any

from cube.tables.columns import EXPECTED
from cube.tables.dark import OFFSET_SINCE
from pipelines.label_units import few_groups_notes
from pipelines.printable import printable
from pipelines.recipe import TrainingSection

_BY_CHANCE = 1e-3
"""Share of rows that may repeat another: dark water and saturated cloud are alike."""

_NOT_BY_CHANCE = 1e-2


def advice(report: dict[str, Any]) -> list[str]:
    """Say in words what a user should know or do."""
    checks, found = report["checks"], []
    left_out = {name for file in report["files"] for name in file["columns_not_imported"]}
    if unknown := sorted(name for name in left_out if name not in EXPECTED):
        found.append(
            f"Columns {', '.join(map(printable, unknown))[:200]} are not known and not imported; "
            "the class of ground truth is expected in a column Class."
        )
    found += _left_out(report)
    found += _offset(report)
    if report["bands_without_data"]:
        found.append(
            f"{', '.join(report['bands_without_data'])}: missing in every row, so not imported"
        )
    if checks["is_one_date_a_month"]:
        found.append(
            "There is no more than one date a month: the tables hold single looks, such as the "
            "first image of each month, not composites. A cloud in that look stays in it; an "
            "export of every date, or a cube from a catalogue, does not have that fault."
        )
    if checks["bright_share"] > 0.01:
        found.append(
            f"{checks['bright_share']:.1%} of the rows are brighter than 0.25 in blue: clouds (or "
            "snow) that no mask took out, as where QA60 was empty in 2022. Set "
            "composite.outliers = true in the recipe to reject such looks."
        )
    found += _repeats(report)
    if wrong := sorted(
        {
            name
            for indices in checks["indices"].values()
            for name, check in indices.items()
            if check["is_on_counts"]
        }
    ):
        found.append(
            f"{', '.join(wrong)} of the tables was computed on counts (reflectance x 10000), which "
            "gives it other values. It is not imported: indices are made from the bands."
        )
    if contradictions := report["rows"]["dropped"].get("contradictions"):
        found.append(
            f"{contradictions:,} rows give a pixel and date other values than a row before them: "
            "two images of one day, or tables that overlap. The first counts."
        )
    for name in ("stack", "samples"):
        part = report[name]
        if part and part["months_without_data"]:
            found.append(
                f"{name}: no data in {', '.join(part['months_without_data'])}; these months stay "
                "empty."
            )
    if report["samples"] and report["samples"]["groups_of_several_classes"]:
        found.append(
            f"{report['samples']['groups_of_several_classes']} groups hold pixels of several "
            "classes, from points side by side; they are kept together when samples are split."
        )
    if report["samples"]:
        groups, folds = report["samples"]["groups_by_class"], TrainingSection().folds
        found += [printable(note) for note in few_groups_notes(groups, folds)]
    return found


def _left_out(report: dict[str, Any]) -> list[str]:
    """Tell what was not read, tables of which nothing is left, and bands that cost rows."""
    found = []
    if any((over := report["passed_over"]).values()):
        found.append(
            f"{over['files']:,} files and {over['folders']:,} folders in the folders that were "
            "named are no tables and were not read."
        )
    for file in report["files"]:
        if not file["kept"]:
            dropped = ", ".join(f"{count:,} {reason}" for reason, count in file["dropped"].items())
            found.append(
                f"{printable(file['name'])}: none of {file['rows']:,} rows was kept"
                f"{f' ({dropped})' if dropped else ''}; nothing of it is in the import."
            )
    files = [file for file in report["files"] if file["rows_without_band"]]
    for band in report["bands"]:
        if lacking := [file for file in files if band in file["rows_without_band"]]:
            count = sum(file["rows_without_band"][band] for file in lacking)
            found.append(
                f"{band}: missing in {count:,} rows of {_some(lacking)} that have other bands; "
                "such rows are left out."
            )
    return found


def _offset(report: dict[str, Any]) -> list[str]:
    """Tell tables whose counts hold the 1000 of products since 2022."""
    files = [file for file in report["files"] if file["has_offset"]]
    if not files:
        return []
    return [
        f"{_some(files)}: from {OFFSET_SINCE} on the darkest vegetation has counts near 1000, so "
        "1000 is still in them, as in S2_SR. Export S2_SR_HARMONIZED instead; source.offset in the "
        "recipe mends the stack only, at every date and not in samples."
    ]


def _repeats(report: dict[str, Any]) -> list[str]:
    """Tell values that look carried on, unless chance explains them."""
    checks, kept, found = report["checks"], report["rows"]["kept"], []
    down, forward = (
        checks[name]
        for name in ("rows_repeating_the_row_before", "values_repeated_at_the_next_date")
    )
    if down > _BY_CHANCE * kept:
        verb = "were" if down > _NOT_BY_CHANCE * kept else "may have been"
        files = [file for file in report["files"] if file["rows_repeating_the_row_before"]]
        is_cleaned = any(file["form"] == "cleaned" for file in files)
        found.append(
            f"{down:,} rows repeat every band of the row before them, which is another pixel or "
            f"date: missing values {verb} filled down the table. They are imported as they are"
            + ("; import the raw table instead." if is_cleaned else ".")
        )
    if forward > _BY_CHANCE * kept:
        verb = "were" if forward > _NOT_BY_CHANCE * kept else "may have been"
        found.append(
            f"{forward:,} looks of a pixel repeat its look before them in every band: they {verb} "
            "padded, or filled forward."
        )
    return found


def _some(files: Sequence[dict[str, Any]]) -> str:
    """Name the first of some tables."""
    more = f" and {len(files) - 2} more" if len(files) > 3 else ""
    named = files[: 2 if more else 3]
    return ", ".join(printable(file["name"]) for file in named) + more
