"""The report of an import in; advice, a recipe to go on with, lines and Markdown out."""

import json
from typing import Any

from cube.tables.columns import RECOMPUTED
from pipelines.printable import printable


def import_recipe(report: dict[str, Any]) -> str:
    """Return a recipe that goes on from the import, as TOML."""
    months, samples = report["months"], report["samples"]
    lines = [
        "# Made by `canopycube import-table`; edit it as you like.",
        'name = "Imported tables"',
        f"bands = {json.dumps(report['bands'])}",
        "",
        "[months]",
        f'first = "{months["first"]}"',
        f'last = "{months["last"]}"',
        "",
    ]
    if report["stack"]:
        lines += ["[source]", 'kind = "stack"', 'files = ["scenes.zarr"]', ""]
        if report["checks"]["bright_share"] > 0.01:
            lines += ["# The tables hold clouds that no mask took out; to reject such looks:"]
            lines += ["# [composite]", "# outliers = true", ""]
    else:
        lines += [
            "# There were no tables of patches: the samples can be trained on as they are",
            "# (canopycube train); a map needs a cube, here of the area round the samples.",
            "[area]",
            f"bbox = {json.dumps(samples['bounds_lon_lat'])}",
            "",
            "[source]",
            'kind = "stac"',
            'catalogue = "earth-search"',
            "",
        ]
    if samples:
        lines += ["[reference]", 'samples = "samples.zarr"', ""]
    return "\n".join([*lines, "[outputs]", 'folder = "run"', ""])


def import_lines(report: dict[str, Any]) -> list[str]:
    """Return what `import-table` tells people."""
    rows = report["rows"]
    lines = [
        f"rows      {rows['read']:,} read from {len(report['files'])} tables, {rows['kept']:,} kept"
    ]
    lines += [f"          {count:,} {reason}" for reason, count in rows["dropped"].items()]
    if stack := report["stack"]:
        lines.append(
            f"stack     {len(stack['dates'])} dates x {stack['shape']['y']} x "
            f"{stack['shape']['x']} pixels of 10 m, {report['crs']}; {stack['pixels']:,} with data"
        )
        if missed := stack["pixels_missed_by_the_sampling"]:
            lines.append(f"          {missed:,} pixels between them got no sample and stay empty")
        lines.append(
            f"          {stack['share_of_pixels_missing_a_month']:.1%} of them lack a month"
        )
    if samples := report["samples"]:
        counts = ", ".join(
            f"{printable(name)} {count}" for name, count in samples["by_class"].items()
        )
        lines.append(
            f"samples   {samples['samples']} in {samples['groups']} groups and "
            f"{samples['blocks']} blocks: {counts}"
        )
    return lines + [f"note      {text}" for text in report["advice"]]


def import_markdown(report: dict[str, Any]) -> str:
    """Return the report for people."""
    told = [line.replace("`", "'") for line in import_lines(report)]
    lines = ["# Import of tables", "", "```", *told, "```", ""]
    lines += ["## Tables", "", "| table | kind | form | rows | kept | dates | pixels | left out |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for file in report["files"]:
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in file["dropped"].items())
        lines.append(
            f"| {_plain(file['name'])} | {file['kind']} | {file['form']} | {file['rows']:,} | "
            f"{file['kept']:,} | {len(file['dates'])} | {file['pixels']:,} | {dropped or '–'} |"
        )
    if checks := [
        f"| {_plain(file)} | {name} | {check['mean_difference']:.4g} | {check['share_right']:.1%} | "
        f"{check['share_as_on_counts']:.1%} |"
        for file, indices in report["checks"]["indices"].items()
        for name, check in indices.items()
        if check["rows"]
    ]:
        lines += ["", "## Indices of the tables against those of their bands", ""]
        lines += [
            "| table | index | mean difference | right | as on counts |",
            "|---|---|---|---|---|",
        ]
        lines += checks
    lines += _counted(report)
    left_out = sorted({name for file in report["files"] for name in file["columns_not_imported"]})
    made_again = [name for name in left_out if name.upper() in RECOMPUTED]
    lines += ["", "Columns not imported: " + (", ".join(map(_plain, left_out)) or "none") + "."]
    if made_again:
        lines[-1] += f" {', '.join(made_again)} are made from the bands where they are asked for."
    return "\n".join(lines) + "\n"


_COUNTED = {
    "values_outside_0_65535": "values outside 0..65535 (or infinite) taken as missing",
    "values_clipped": "values beyond 32767 stored as 32767",
    "values_rounded": "values that are no whole counts rounded",
    "rows_bright_in_blue": "rows brighter than 0.25 in blue",
    "rows_repeating_the_row_before": "rows that repeat every band of the row before them",
    "rows_with_coordinates_spelled_otherwise": "rows whose coordinates differ by rounding only from "
    "others of their pixel",
}
"""What is counted of a table, in words."""


def _counted(report: dict[str, Any]) -> list[str]:
    """Return what else was counted, table by table, where it is not zero."""
    lines = []
    for file in report["files"]:
        counts = [f"{file[key]:,} {words}" for key, words in _COUNTED.items() if file[key]]
        counts += [
            f"{count:,} rows without {band}, which are left out"
            for band, count in file["rows_without_band"].items()
        ]
        counts += [
            f"{check['impossible_values']:,} values of {name} that no index has"
            for name, check in report["checks"]["indices"].get(file["name"], {}).items()
            if check["impossible_values"]
        ]
        if counts:
            lines.append(f"- {_plain(file['name'])}: {'; '.join(counts)}")
    for name in ("stack", "samples"):
        if report[name] and (count := report[name]["values_repeated_at_the_next_date"]):
            lines.append(f"- {name}: {count:,} looks that repeat their pixel's look before them")
    if report["samples"] and (count := report["samples"]["pixels_of_several_classes"]):
        lines.append(f"- samples: {count:,} pixels left out to which rows give several classes")
    return ["", "## Counted", "", *lines] if lines else []


def _plain(text: str) -> str:
    # names of files, columns and classes come from the user's tables
    return (
        " ".join(printable(text).split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
    )
