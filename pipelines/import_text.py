"""The report of an import in; advice, a recipe to go on with, lines and Markdown out."""

import json
from typing import Any

from cube.tables.columns import EXPECTED, RECOMPUTED


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
            f"{_printable(name)} {count}" for name, count in samples["by_class"].items()
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
    ]:
        lines += ["", "## Indices of the tables against those of their bands", ""]
        lines += [
            "| table | index | mean difference | right | as on counts |",
            "|---|---|---|---|---|",
        ]
        lines += checks
    left_out = sorted({name for file in report["files"] for name in file["columns_not_imported"]})
    made_again = [name for name in left_out if name.upper() in RECOMPUTED]
    lines += ["", "Columns not imported: " + (", ".join(map(_plain, left_out)) or "none") + "."]
    if made_again:
        lines[-1] += f" {', '.join(made_again)} are made from the bands where they are asked for."
    return "\n".join(lines) + "\n"


def advice(report: dict[str, Any]) -> list[str]:
    """Say in words what a user should know or do."""
    checks, found = report["checks"], []
    left_out = {name for file in report["files"] for name in file["columns_not_imported"]}
    if unknown := sorted(name for name in left_out if name not in EXPECTED):
        found.append(
            f"Columns {', '.join(map(_printable, unknown))[:200]} are not known and not imported; "
            "the class of ground truth is expected in a column Class."
        )
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
    if checks["rows_repeating_the_row_before"]:
        found.append(
            f"{checks['rows_repeating_the_row_before']:,} rows repeat every band of the row before "
            "them, which is another pixel or date: missing values were filled down the table. "
            "They are imported as they are; import the raw table instead."
        )
    if checks["values_repeated_at_the_next_date"]:
        found.append(
            f"{checks['values_repeated_at_the_next_date']:,} looks of a pixel repeat its look "
            "before them in every band: padded, or filled forward."
        )
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
    return found


def _printable(text: str) -> str:
    # a class of a foreign table could say things that a terminal obeys
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _plain(text: str) -> str:
    # names of files, columns and classes come from the user's tables
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
