"""What a run found: kept as `report.json`, told as `report.md` and on the terminal."""

import json
from pathlib import Path
from typing import Any

from cube.durable import replace_text
from cube.errors import InputError

SPLITS = {
    "random": "random pixels held out: flatters, neighbours are on both sides",
    "grouped": "whole groups held out",
    "block": "whole spatial blocks held out",
}
"""The three ways samples are held out, and how each is to be read."""


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
        lines.append(f"cube      {shape}, {_bytes(cube['bytes'])}, {cube['tiles']} tiles")
        empty = [month for month, share in cube["empty_share_by_month"].items() if share == 1]
        if empty:
            lines.append(f"          no clear look at all in {', '.join(empty)}")
    if samples := report.get("samples"):
        counts = ", ".join(f"{name} {count}" for name, count in samples["by_class"].items())
        lines.append(
            f"samples   {samples['samples']} in {samples['groups']} groups and "
            f"{samples['blocks']} blocks: {counts}"
        )
        if samples["dropped"]:
            lines.append(f"          left out: {_counts(samples['dropped'])}")
        if few := [name for name, count in samples["groups_by_class"].items() if count < 2]:
            lines.append(f"          too few groups to be scored: {', '.join(few)}")
    if training := report.get("training"):
        lines += [f"scores    {line}" for line in score_lines(training["scores"])]
    if made := report.get("map"):
        lines.append(f"map       {made['tiles']}; {made['classified_share']:.1%} of it classified")
    if published := report.get("published"):
        areas = ", ".join(f"{name} {area:,.1f}" for name, area in published["hectares"].items())
        lines.append(f"          {published['map']}")
        lines.append(f"          hectares mapped (pixel counts, no estimate): {areas}")
    if run := report.get("run"):
        lines.append(f"done      {run['seconds']:.0f} s, peak memory {run['peak_memory_mb']} MB")
    return lines


def plan_lines(found: dict[str, Any]) -> list[str]:
    """Return what `plan` tells people."""
    shape = " x ".join(f"{size} {dim}" for dim, size in found["shape"].items())
    looks = found["looks_by_month"]
    lines = [
        f"cube      {shape}, {found['resolution']:g} m, {found['crs']}, {found['months']}",
        f"          bands {' '.join(found['bands'])}",
        f"          {_bytes(found['cube_bytes_uncompressed'])} before compression",
        f"work      {found['tiles']} tiles; a tile needs up to "
        f"{_bytes(found['peak_bytes_per_worker'])}, all workers {_bytes(found['peak_bytes'])}",
        f"looks     {', '.join(f'{month} {count}' for month, count in looks.items() if count)}",
    ]
    if empty := found["months_without_scenes"]:
        lines.append(f"          no scene in {_some(empty)}")
    if "scenes" in found:
        dropped = found["scenes_dropped"]
        lines.append(f"scenes    {found['scenes']} used, {len(dropped)} not; offsets:")
        lines += [f"          {count} x {reason}" for reason, count in found["offsets"].items()]
        lines += [f"          not used: {name}: {reason}" for name, reason in dropped.items()]
    return lines


def _some(words: list[str]) -> str:
    return ", ".join(words[:12]) + (f" and {len(words) - 12} more" if len(words) > 12 else "")


def score_lines(scores: dict[str, Any]) -> list[str]:
    """Return one line per split: accuracy and macro-F1 of the network beside the simple models."""
    lines = []
    for split, meaning in SPLITS.items():
        entries = [entry for entry in scores["entries"] if entry["split"] == split]
        told = [
            f"{entry['model']} {entry['scores']['accuracy']:.3f} / {entry['scores']['macro_f1']:.3f}"
            for entry in entries
            if entry["scores"]
        ]
        if not told:
            told = [entries[0]["notes"][0] if entries else "not scored"]
        lines.append(f"{split:8}{'; '.join(told)}   ({meaning})")
    return ["accuracy / macro-F1 on held-out samples", *lines]


def markdown(report: dict[str, Any]) -> str:
    """Return the report for people."""
    lines = [f"# {_escape(str(report.get('name', 'canopycube run')))}", ""]
    lines += ["```", *summary(report), "```", ""]
    if training := report.get("training"):
        lines += ["## Scores", ""]
        lines += _score_table(training["scores"])
        lines += [
            "",
            "The random split puts pixels of one stand on both sides and flatters; it is shown so "
            "that other people's figures can be compared. None of these is the accuracy of the "
            "map: only a probability sample of the mapped area gives that (Olofsson et al. 2014).",
            "",
        ]
        lines += _class_table(training["scores"])
    if cube := report.get("cube"):
        lines += ["", "## Pixels without a clear look, by month", ""]
        lines += ["| month | share |", "|---|---|"]
        lines += [
            f"| {month} | {share:.1%} |" for month, share in cube["empty_share_by_month"].items()
        ]
    return "\n".join(lines) + "\n"


def _score_table(scores: dict[str, Any]) -> list[str]:
    lines = [
        "| held out | model | samples | folds | accuracy | macro-F1 | note |",
        "|---|---|---|---|---|---|---|",
    ]
    told: set[tuple[str, str]] = set()
    for entry in scores["entries"]:
        notes = [note for note in entry["notes"] if (entry["split"], note) not in told]
        told |= {(entry["split"], note) for note in notes}
        found = entry["scores"]
        figures = f"{found['accuracy']:.3f} | {found['macro_f1']:.3f}" if found else "– | –"
        lines.append(
            f"| {entry['split']} | {entry['model']} | {entry['held_out']} | "
            f"{entry['folds_used']} of {entry['folds']} | {figures} | "
            f"{_escape('; '.join(notes))} |"
        )
    return lines


def _class_table(scores: dict[str, Any]) -> list[str]:
    """Return recall and precision per class of the network with whole blocks or groups held out."""
    by_split = {entry["split"]: entry for entry in scores["entries"] if entry["model"] == "lstm"}
    split = next((name for name in ("block", "grouped") if by_split[name]["scores"]), None)
    if split is None:
        return []
    lines = [f"Per class, {SPLITS[split]}:", ""]
    lines += ["| class | samples | recall | precision | F1 |", "|---|---|---|---|---|"]
    for name, found in by_split[split]["scores"]["per_class"].items():
        figures = " | ".join(
            "–" if found[key] is None else f"{found[key]:.3f}"
            for key in ("recall", "precision", "f1")
        )
        lines.append(f"| {_escape(name)} | {found['support']} | {figures} |")
    return lines


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items())


def _escape(text: str) -> str:
    # class names and titles come from the user's files
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} PB"
