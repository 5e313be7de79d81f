"""The report of an import of series in; a recipe to go on with, lines and Markdown out."""

import json
from collections.abc import Mapping
from typing import Any

from model.classunits import classes_of_few
from pipelines.label_units import FEW_GROUPS
from pipelines.printable import printable
from pipelines.recipe import TrainingSection

_MOST_COLUMNS = 12


def series_recipe(report: Mapping[str, Any]) -> str:
    """Return a recipe that trains on the import, as TOML: a series has no scenes and no map."""
    title = f"Labelled series of {', '.join(report['bands'][:3])}"[:100]
    return "\n".join(
        [
            "# Made by `canopycube import-table`; edit it as you like.",
            f"name = {json.dumps(title)}",
            "",
            "[reference]",
            'samples = "samples.zarr"',
            "",
            "[training]",
            *_allowed(report),
            "",
            "[outputs]",
            'folder = "run"',
            "",
        ]
    )


def _allowed(report: Mapping[str, Any]) -> list[str]:
    """Return what lets classes train that only our own grouping by distance has made poor."""
    samples, folds = report["samples"], TrainingSection().folds
    few = classes_of_few(samples["groups_by_class"], folds)
    if not few or not allows_few_groups(samples, report["group_distance"]):
        return []
    named = printable(", ".join(f"{name} {count}" for name, count in list(few.items())[:6]))
    return [
        f"# Places within {report['group_distance']:g} m are one group, so of these classes there "
        f"are fewer groups",
        f"# than folds, and their scores say little: {named}",
        f'audit_allow = ["{FEW_GROUPS}"]',
    ]


def allows_few_groups(samples: Mapping[str, Any], group_distance: float | None) -> bool:
    """Say whether the recipe of an import lets classes of few groups train.

    It does where each of them has as many series as there are folds, and grouping by distance made
    their groups few. A class of too few series is refused: nothing here has made it poor.
    """
    folds = TrainingSection().folds
    few = classes_of_few(samples["groups_by_class"], folds)
    return group_distance is not None and all(samples["by_class"][name] >= folds for name in few)


def series_lines(report: Mapping[str, Any]) -> list[str]:
    """Return what `import-table` tells people of series."""
    samples, periods = report["samples"], report["periods"]
    years = list(samples["by_year"])
    counts = ", ".join(f"{printable(name)} {n}" for name, n in samples["by_class"].items())
    lines = [
        f"series    {samples['samples']:,} of {len(report['files'])} tables, {len(periods)} steps "
        f"{periods[0]} .. {periods[-1]}, begun {_span(years)}",
        f"bands     {', '.join(map(printable, report['bands']))}",
        f"classes   {counts}",
        f"units     {samples['groups']:,} groups, {samples['blocks']:,} blocks, {len(years)} years",
    ]
    if report["steps_missing_share"]:
        lines.append(f"missing   {report['steps_missing_share']:.1%} of all steps")
    lines += [f"left out  {count:,} {reason}" for reason, count in report["dropped"].items()]
    if unused := report["columns_not_imported"]:
        more = f" and {len(unused) - _MOST_COLUMNS} more" if len(unused) > _MOST_COLUMNS else ""
        names = ", ".join(map(printable, unused[:_MOST_COLUMNS]))
        lines.append(f"unused    {names}{more} (--bands takes others)")
    return lines + [f"note      {printable(note)}" for note in report["notes"]]


def _span(years: list[str]) -> str:
    return years[0] if len(years) == 1 else f"{years[0]}..{years[-1]}"


def series_markdown(report: Mapping[str, Any]) -> str:
    """Return the report for people."""
    samples = report["samples"]
    told = [line.replace("`", "'") for line in series_lines(report)]
    lines = ["# Import of labelled series", "", "```", *told, "```", ""]
    lines += ["| class | series | groups | blocks |", "|---|---|---|---|"]
    lines += [
        f"| {_plain(name)} | {count:,} | {samples['groups_by_class'][name]:,} | "
        f"{samples['blocks_by_class'][name]:,} |"
        for name, count in samples["by_class"].items()
    ]
    lines += ["", "| band | smallest | largest |", "|---|---|---|"]
    lines += [
        f"| {_plain(band)} | {low:.4g} | {high:.4g} |"
        for band, (low, high) in report["ranges"].items()
    ]
    lines += ["", "| step | series without a value |", "|---|---|"]
    lines += [
        f"| {period} | {share:.1%} |" for period, share in report["missing_share_by_period"].items()
    ]
    unused = ", ".join(map(_plain, report["columns_not_imported"])) or "none"
    return "\n".join([*lines, "", f"Columns not imported: {unused}."]) + "\n"


def _plain(text: str) -> str:
    # names of columns and classes come from the user's tables
    return (
        " ".join(printable(text).split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
    )
