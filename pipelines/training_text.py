"""The sections `audit` and `training` of a run's report in; lines for a terminal and Markdown out."""

from textwrap import wrap
from typing import Any

SPLITS = {
    "random": "random pixels held out: flatters, neighbours are on both sides",
    "grouped": "whole groups held out",
    "block": "whole spatial blocks held out",
    "region": "whole regions held out",
    "year": "whole years held out",
    "knndm": "held out as far from training samples as the map is (kNNDM)",
}
"""The ways samples are held out, and how each is to be read."""

STRICTNESS = (
    "The strictest split decides, in the order region, block, knndm, grouped, year: how much of the "
    "neighbourhood of what is held out may train. With region and block it is nothing of the same "
    "region or block, with knndm what lies as far away as samples are from the map, with grouped "
    "the stand next to it, with year the same stand in another year. Random decides nothing."
)
"""Which split decides and why: the order of `model.scoretable.STRICTEST`."""

AUDIT_OFF = 'switched off (training.audit = "off"): nobody looked for faults of the samples'
"""What is told where there was no audit."""

_WIDTH = 90
"""Letters of a line of the verdict, which has several sentences."""

_SEVERITIES = ("severe", "warning", "note")


def audit_lines(audit: dict[str, Any]) -> list[str]:
    """Return the codes of what an audit found, by severity."""
    if audit.get("is_off"):
        return [f"audit     {AUDIT_OFF}"]
    lines = []
    for severity in _SEVERITIES:
        found = [one for one in audit["findings"] if one["severity"] == severity]
        if found:
            codes = (one["code"] + " (allowed)" * one["allowed"] for one in found)
            lines.append(f"{severity:<8}  {', '.join(dict.fromkeys(codes))}")
    lines = lines or ["nothing was found"]
    return [f"audit     {lines[0]}", *(f"          {line}" for line in lines[1:])]


def training_lines(training: dict[str, Any]) -> list[str]:
    """Return every score, the verdict, and what probabilities of the classifier are worth."""
    lines = [f"scores    {line}" for line in score_lines(training["scores"])]
    if verdict := training.get("verdict"):
        first, *rest = wrap(verdict, _WIDTH, break_long_words=False, break_on_hyphens=False)
        lines += [f"verdict   {first}", *(f"          {line}" for line in rest)]
    lines += [f"          {line}" for line in certainty_lines(training)]
    if doubt := doubt_told(training):
        lines.append(f"labels    {doubt}")
    lines += [
        f"left out  {count:,} {reason}" for reason, count in training.get("left_out", {}).items()
    ]
    return lines + [f"warning   {text}" for text in training.get("warnings", ())]


def score_lines(scores: dict[str, Any]) -> list[str]:
    """Return one line per split: accuracy and macro-F1 of the network beside the simple models."""
    lines = []
    for split, meaning in split_meanings(scores).items():
        entries = [entry for entry in scores["entries"] if entry["split"] == split]
        told = [
            f"{entry['model']} {entry['scores']['accuracy']:.3f} / {entry['scores']['macro_f1']:.3f}"
            for entry in entries
            if entry["scores"]
        ]
        if not entries:
            continue  # not asked for
        if not told:
            lines.append(f"{split:8}not scored: {_reason(entries[0])}   ({meaning})")
            continue
        lines.append(f"{split:8}{'; '.join(told)}   ({_samples(entries)}; {meaning})")
    return ["accuracy / macro-F1 on held-out samples", *lines]


def split_meanings(scores: dict[str, Any]) -> dict[str, str]:
    """Return how each split is to be read; of `knndm`, what stood for the map."""
    if not scores.get("is_of_hull"):
        return SPLITS
    hull = "held out as far from training samples as their hull is, for want of a map (kNNDM)"
    return SPLITS | {"knndm": hull}


def scored_splits(scores: dict[str, Any]) -> dict[str, str]:
    """Return how each split that has scores is to be read."""
    scored = {entry["split"] for entry in scores["entries"] if entry["scores"]}
    return {name: told for name, told in split_meanings(scores).items() if name in scored}


def unscored_splits(scores: dict[str, Any]) -> dict[str, str]:
    """Return the splits that no model has scores of, and why."""
    scored = {entry["split"] for entry in scores["entries"] if entry["scores"]}
    return {
        entry["split"]: _reason(entry)
        for entry in scores["entries"]
        if entry["split"] not in scored
    }


def notes_by_split(scores: dict[str, Any]) -> list[tuple[str, str]]:
    """Return each note of a split that was scored once, with its split."""
    unscored = unscored_splits(scores)
    found = [(entry["split"], note) for entry in scores["entries"] for note in entry["notes"]]
    return [one for one in dict.fromkeys(found) if one[0] not in unscored]


def _reason(entry: dict[str, Any]) -> str:
    return str(entry["notes"][0]) if entry["notes"] else "no reason is known"


def _samples(entries: list[dict[str, Any]]) -> str:
    """Return how many samples the models of a split were scored on."""
    counts = {entry["model"]: entry["held_out"] for entry in entries if entry["scores"]}
    if len(set(counts.values())) == 1:
        return f"{next(iter(counts.values())):,} samples"
    return f"samples: {', '.join(f'{model} {count:,}' for model, count in counts.items())}"


def certainty_lines(training: dict[str, Any]) -> list[str]:
    """Return what was measured of probabilities, sets of classes and the area of applicability."""
    found = training.get("certainty")
    if not found:
        is_told = "verdict" in training
        return ["probabilities are not calibrated: too few groups are held out"] if is_told else []
    before, after, sets = found["before"], found["after"], found["conformal"]
    lines = [
        f"calibration error {after['error']:.3f} ({before['error']:.3f} before), Brier score "
        f"{after['brier']:.3f}, on held-out samples",
        f"sets of likely classes hold the true one for {_percent(sets['share'])} "
        f"({sets['coverage']:.0%} asked), {sets['mean_size']:.2f} classes on average",
    ]
    if found := training.get("applicability"):
        lines.append(
            f"{_percent(found['inside'])} of held-out samples lie inside the area of applicability"
        )
    return lines


def doubt_told(training: dict[str, Any]) -> str | None:
    """Say what became of samples whose labels the others doubt; None if there are none."""
    doubt = training.get("doubtful")
    if not doubt or not doubt["groups"]:
        return None
    which = f"{doubt['groups']:,} groups ({doubt['samples']:,} samples) look mislabelled"
    weighed = (
        f"without them a simple model names {doubt['gained']:,} unseen groups more, "
        f"{doubt['lost']:,} less, as they are labelled"
    )
    if doubt["left_out"]:
        return f"{which} and did not train: {weighed}. `label-doctor` shows them"
    return f"{which} and trained all the same: {weighed}. `label-doctor` shows them"


def audit_markdown(audit: dict[str, Any]) -> list[str]:
    """Return what an audit found, as a section of Markdown."""
    lines = ["## Audit", ""]
    if audit.get("is_off"):
        return [*lines, f"The audit was {AUDIT_OFF}.", ""]
    if not audit["findings"]:
        return [*lines, "No fault was found in the samples.", ""]
    lines += ["| severity | code | what | what to do |", "|---|---|---|---|"]
    for one in audit["findings"]:
        told = "allowed" if one["allowed"] else one["severity"]
        texts = (told, one["code"], one["what"], one["advice"])
        lines.append(f"| {' | '.join(map(as_markdown, texts))} |")
    return [*lines, ""]


def training_markdown(training: dict[str, Any]) -> list[str]:
    """Return the scores, as a section of Markdown."""
    lines = ["## Scores", ""]
    lines += _score_table(training["scores"])
    if doubt := doubt_told(training):
        lines += ["", f"{doubt}."]
    lines += [
        "",
        STRICTNESS,
        "",
        "The random split puts pixels of one stand on both sides and flatters; it is shown so "
        "that other people's figures can be compared. None of these is the accuracy of the "
        "map: only a probability sample of the mapped area gives that (Olofsson et al. 2014).",
        "",
    ]
    return lines + _class_table(training)


def _score_table(scores: dict[str, Any]) -> list[str]:
    lines = [
        "| held out | model | samples | folds | accuracy | macro-F1 | against the network |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in scores["entries"]:
        if not (found := entry["scores"]):
            continue
        against = (entry.get("against") or {}).get("verdict", "")
        lines.append(
            f"| {entry['split']} | {entry['model']} | {entry['held_out']} | "
            f"{entry['folds_used']} of {entry['folds']} | {found['accuracy']:.3f} | "
            f"{found['macro_f1']:.3f} | {as_markdown(against)} |"
        )
    lines += ["", *(f"- {split}: {meaning}" for split, meaning in scored_splits(scores).items())]
    lines += [
        f"- {split}: not scored: {as_markdown(why)}"
        for split, why in unscored_splits(scores).items()
    ]
    return lines + [f"- {split}: {as_markdown(note)}" for split, note in notes_by_split(scores)]


def _class_table(training: dict[str, Any]) -> list[str]:
    """Return recall and precision per class of the saved model under the strictest split."""
    split, model = training.get("split"), training.get("model")
    entry = next(
        (
            one
            for one in training["scores"]["entries"]
            if (one["split"], one["model"]) == (split, model) and one["scores"]
        ),
        None,
    )
    if entry is None:
        return []
    meaning = split_meanings(training["scores"])[entry["split"]]
    lines = [f"Per class of {model}, {meaning}:", ""]
    lines += ["| class | samples | recall | precision | F1 |", "|---|---|---|---|---|"]
    for name, found in entry["scores"]["per_class"].items():
        figures = " | ".join(
            "–" if found[key] is None else f"{found[key]:.3f}"
            for key in ("recall", "precision", "f1")
        )
        lines.append(f"| {as_markdown(name)} | {found['support']} | {figures} |")
    return [*lines, ""]


def as_markdown(text: str) -> str:
    """Return text of the user's files so that it stays one cell, and no HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
