"""What a run found: kept as `report.json`, told as `report.md` and on the terminal."""

import json
from pathlib import Path
from typing import Any

from cube.durable import replace_text
from cube.errors import InputError
from pipelines.amounts import bytes_text, some_of
from pipelines.plan_text import plan_lines
from pipelines.printable import printable
from pipelines.training_text import (
    as_markdown,
    audit_lines,
    audit_markdown,
    training_lines,
    training_markdown,
)

__all__ = [
    "export_lines",
    "lock_lines",
    "markdown",
    "plan_lines",
    "read_report",
    "summary",
    "write_report",
]


def read_report(path: Path) -> dict[str, Any]:
    """Return the report of earlier steps, empty if there is none; `InputError` if it is damaged."""
    if not path.exists():
        return {}
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"report {str(path)!r} is damaged ({error}); delete it and run again"
        ) from error
    if not isinstance(report, dict):
        raise InputError(f"report {str(path)!r} holds no report; delete it and run again")
    return report


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write the report as JSON and, beside it, as Markdown; each whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(report, indent=2, allow_nan=False) + "\n")
    replace_text(path.with_suffix(".md"), markdown(report))


def summary(report: dict[str, Any]) -> list[str]:
    """Return the lines that end a run: cube, samples, scores, map, cost."""
    lines = []
    if cube := report.get("cube"):
        shape = " x ".join(f"{size} {dim}" for dim, size in cube["shape"].items())
        lines.append(f"cube      {shape}, {bytes_text(cube['bytes'])}")
        lines += _certificate(cube)
        filled = max(cube.get("filled_share_by_period", {}).values(), default=0.0)
        if filled:
            mean = sum(cube["filled_share_by_period"].values()) / len(
                cube["filled_share_by_period"]
            )
            lines.append(
                f"          {mean:.1%} of all values filled in from other dates (is_filled)"
            )
        empty = [period for period, share in cube["empty_share_by_period"].items() if share == 1]
        if empty:
            lines.append(f"          no clear look at all in {some_of(empty)}")
    if samples := report.get("samples"):
        counts = ", ".join(f"{name} {count}" for name, count in samples["by_class"].items())
        lines.append(
            f"samples   {samples['samples']} in {samples['groups']} groups and "
            f"{samples['blocks']} blocks: {counts}"
        )
        if samples["dropped"]:
            lines.append(f"          left out: {_counts(samples['dropped'])}")
        lines += [f"          {note}" for note in samples.get("notes", ())]
    if audit := report.get("audit"):
        lines += audit_lines(audit)
    if training := report.get("training"):
        lines += training_lines(training)
    if made := report.get("map"):
        lines.append(f"map       {made['tiles']}; {made['classified_share']:.1%} of it classified")
        if extra := made.get("layers"):
            lines.append(f"          with layers {', '.join(extra)}")
        lines += _engine_lines(made.get("engine", {}))
        if table := made.get("table"):
            lines.append(f"          {table['rows']:,} rows in {table['path']}")
        if made.get("has_earlier_tif") and "published" not in report:
            lines.append("          map.tif is of an earlier map: run `canopycube publish`")
    if published := report.get("published"):
        areas = ", ".join(f"{name} {area:,.1f}" for name, area in published["hectares"].items())
        lines.append(f"          {published['map']}")
        lines.append(f"          hectares mapped (pixel counts, no estimate): {areas}")
    if run := report.get("run"):
        lines.append(f"done      {run['seconds']:.0f} s, peak memory {run['peak_memory_mb']} MB")
    return [printable(line) for line in lines]  # with names from the user's files


def _engine_lines(engine: dict[str, Any]) -> list[str]:
    """Return what computed the map and, where that was measured, how far it is from exact."""
    if not engine:
        return []
    lines = [f"          computed by {engine['name']}: {engine['reason']}"]
    if "classes_equal" in engine:
        lines.append(
            f"          {engine['classes_equal']:.3%} of {engine['pixels_compared']:,} of its pixels "
            "have the class that exact gives, probabilities are within "
            f"{engine['largest_difference']:.1g}"
        )
    if "difference" in engine:
        lines.append(f"          its difference from exact was {engine['difference']}")
    others = {name: n for name, n in engine["tiles"].items() if name != engine["name"]}
    if others and engine["name"] == "auto":
        lines.append(f"          tiles by what each worker has: {_counts(others)}")
    elif others:
        lines.append(f"          but tiles by another engine, as workers had to: {_counts(others)}")
    if len(kinds := engine.get("arithmetic", {})) > 1:
        lines.append(f"          tiles by what processors compute with: {_counts(kinds)}")
    return lines


def _certificate(cube: dict[str, Any]) -> list[str]:
    """Return how complete the cube is, each lost scene by name, and what was read for it."""
    lost = cube["lost_scenes"]
    lines = [
        f"          {cube['tiles']} tiles, {len(lost)} {'scene' if len(lost) == 1 else 'scenes'} lost"
    ]
    lines += [f"          lost in {_tiles(one['tiles'])}: {one['reason']}" for one in lost[:12]]
    if len(lost) > 12:
        lines.append(f"          and {len(lost) - 12} more; `canopycube build --json` names all")
    if cube["requests"]:
        lines.append(
            f"          {cube['requests']:,} requests brought {bytes_text(cube['bytes_read'])}"
        )
    return lines


def _tiles(count: int) -> str:
    return f"{count} tile" if count == 1 else f"{count} tiles"


def lock_lines(found: dict[str, Any]) -> list[str]:
    """Return what `lock` tells people."""
    if "zones" in found:
        return [line for one in found["zones"].values() for line in lock_lines(one)]
    counts = f"{found['scenes']} scenes used, {found['dropped']} not"
    if found["state"] == "kept":
        return [f"{found['file']} stands: {counts}", "--update searches the catalogue anew"]
    lines = [f"wrote {found['file']}: {counts}"]
    if found["state"] == "made":
        return lines
    added, removed, changed = found["added"], found["removed"], found["changed"]
    lines.append(f"{len(added)} added, {len(removed)} removed, {len(changed)} changed")
    lines += [f"  added {name}" for name in added]
    lines += [f"  removed {name}" for name in removed]
    lines += [f"  changed {name}: {', '.join(fields)}" for name, fields in changed.items()]
    return lines


def export_lines(found: dict[str, Any]) -> list[str]:
    """Return what `export` tells people."""
    if "cancelled" in found:
        return [f"cancelled {found['cancelled']} tasks; {found['exported']} tiles are exported"]
    without = f", {found['without_scenes']} have no scene" if found["without_scenes"] else ""
    lines = [f"exported  {found['exported']} of {found['tiles']} tiles to {found['to']}{without}"]
    if found["under_way"] or found["not_started"]:
        lines.append(
            f"          {found['under_way']} tasks under way, {found['not_started']} not handed in; "
            "running again goes on with them"
        )
    else:
        lines.append(f"          {found['files']}: now `canopycube build` takes them")
    if found["earlier_under_way"]:
        lines.append(
            f"          {found['earlier_under_way']} tasks of earlier settings run on; "
            "`canopycube export RECIPE --cancel` stops all that is under way, theirs and these"
        )
    return lines


def markdown(report: dict[str, Any]) -> str:
    """Return the report for people."""
    lines = [f"# {as_markdown(str(report.get('name', 'canopycube run')))}", ""]
    lines += ["```", *summary(report), "```", ""]
    if audit := report.get("audit"):
        lines += audit_markdown(audit)
    if training := report.get("training"):
        lines += training_markdown(training)
    if cube := report.get("cube"):
        lines += ["", "## Pixels without a clear look, by period", ""]
        lines += ["| period | share |", "|---|---|"]
        lines += [
            f"| {period} | {share:.1%} |" for period, share in cube["empty_share_by_period"].items()
        ]
    return "\n".join(lines) + "\n"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
