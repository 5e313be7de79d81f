"""What training found in, one HTML page for people out: it opens from a disk, with no network."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from pipelines.classifier_plots import (
    confusion_plot,
    dissimilarity_plot,
    importance_plot,
    months_plot,
    reliability_plot,
)
from pipelines.periods_told import joined, left_out
from pipelines.training_text import (
    AUDIT_OFF,
    STRICTNESS,
    notes_by_split,
    scored_splits,
    unscored_splits,
)

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; margin: 0.6rem 0; font-size: 0.9rem; }
th, td { padding: 0.25rem 0.7rem; text-align: left; border-bottom: 1px solid #ddd; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.swatch { display: inline-block; width: 1em; height: 1em; border: 1px solid #999;
  vertical-align: -0.15em; margin-right: 0.4em; }
.told { background: #f2f6f9; border-left: 4px solid #1f5f8b; padding: 0.6rem 1rem; }
.severe { border-left-color: #b3261e; background: #fbeeed; }
.faint { color: #5f5f5f; } svg { max-width: 100%; height: auto; }
@media print { body { margin: 0; } }
"""


def classifier_page(name: str, training: dict[str, Any], audit: dict[str, Any] | None) -> str:
    """Return the report of a classifier as HTML.

    `training` and `audit` are the sections of a run's report; no audit means it was switched off. Every name in it may come from a
    stranger and is escaped.
    """
    parts = [
        f"<h1>{_text(name)}</h1>",
        f"<p class=faint>Classifier {_text(training['fingerprint'])}, "
        f"canopycube {_text(training['code_version'])}</p>",
        f"<p class=told>{_text(training['verdict'])}</p>",
        *_classes(training),
        *_scores(training),
        *_confusion(training),
        *_levels(training),
        *_certainty(training),
        *_applicability(training),
        *_importance(training),
        *_audit(audit),
        *_settings(training),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(name)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _classes(training: dict[str, Any]) -> list[str]:
    rows = [
        [
            str(value),
            f'<span class=swatch style="background:{_text(colour)}"></span>{_text(name)}',
            str(training["samples_by_class"].get(name, 0)),
        ]
        for value, (name, colour) in enumerate(
            zip(training["classes"], training["colours"], strict=True), start=1
        )
    ]
    return ["<h2>Classes</h2>", _table(["map value", "class", "samples"], rows, numbers=(0, 2))]


def _scores(training: dict[str, Any]) -> list[str]:
    rows = []
    scores = training["scores"]
    for entry in scores["entries"]:
        if not (found := entry["scores"]):
            continue
        against = entry.get("against") or {}
        rows.append(
            [
                _text(entry["split"]),
                _text(entry["model"]),
                str(entry["held_out"]),
                _figure(found["accuracy"]),
                _figure(found["macro_f1"]),
                _text(against.get("verdict", "")),
            ]
        )
    unscored = [(name, f"not scored: {why}") for name, why in unscored_splits(scores).items()]
    return [
        "<h2>Scores on held-out samples</h2>",
        _list([*scored_splits(scores).items(), *unscored]),
        f"<p>{_text(STRICTNESS)}</p>",
        _table(
            ["held out", "model", "samples", "accuracy", "macro-F1", "against the network"],
            rows,
            numbers=(2, 3, 4),
        ),
        _list(notes_by_split(scores)),
        "<p class=faint>These are scores of the samples. None of them is the accuracy of the map: "
        "only a probability sample of the mapped area gives that (Olofsson et al. 2014).</p>",
    ]


def strictest(training: dict[str, Any]) -> dict[str, Any] | None:
    """Return the scores of the saved model under the split that certainty was measured on."""
    entries = [
        entry
        for entry in training["scores"]["entries"]
        if entry["model"] == training["model"] and entry["scores"]
    ]
    chosen = [entry for entry in entries if entry["split"] == training["split"]]
    return chosen[0] if chosen else None


def _confusion(training: dict[str, Any]) -> list[str]:
    entry = strictest(training)
    if entry is None:
        return []
    found = entry["scores"]
    rows = [
        [
            _text(name),
            str(one["support"]),
            _figure(one["recall"]),
            _figure(one["precision"]),
            _figure(one["f1"]),
        ]
        for name, one in found["per_class"].items()
    ]
    return [
        f"<h2>Which classes are told apart ({_text(entry['split'])} split)</h2>",
        _table(["class", "samples", "recall", "precision", "F1"], rows, numbers=(1, 2, 3, 4)),
        confusion_plot(found["classes"], found["confusion"]),
    ]


def _levels(training: dict[str, Any]) -> list[str]:
    legend = training.get("legend")
    if not legend:
        return []
    rows = [
        [
            str(level["level"]),
            _text(", ".join(level["nodes"])),
            _figure(level["accuracy"]),
            _figure(level["macro_f1"]),
        ]
        for level in legend["levels"]
    ]
    backed = [
        [_figure(one["least"]), _figure(one["right"]), _figure(one["undecided"]), _shares(one)]
        for one in legend["back_off"]
    ]
    return [
        "<h2>Levels of the legend</h2>",
        _table(["level", "nodes", "accuracy", "macro-F1"], rows, numbers=(0, 2, 3)),
        "<p>Where no class is probable enough, the answer can be given higher up:</p>",
        _table(
            ["least probability", "right", "undecided", "answered at level"],
            backed,
            numbers=(0, 1, 2),
        ),
    ]


def _shares(one: dict[str, Any]) -> str:
    return _text(", ".join(f"{level}: {share:.0%}" for level, share in one["by_level"].items()))


def _certainty(training: dict[str, Any]) -> list[str]:
    found = training.get("certainty")
    if not found:
        return []
    before, after, sets = found["before"], found["after"], found["conformal"]
    rows = [
        [_text(name), _figure(share), _figure(threshold)]
        for name, share, threshold in zip(
            training["classes"], sets["by_class"], sets["threshold"], strict=True
        )
    ]
    never = ", ".join(sets["never_ruled_out"])
    return [
        "<h2>What a probability means</h2>",
        f"<p>On held-out samples, each calibrated on other groups than its own, the expected "
        f"calibration error is {_figure(after['error'])} (before calibration "
        f"{_figure(before['error'])}; {_figure(after['chance_error'])} would be chance), the Brier "
        f"score {_figure(after['brier'])}. The temperature is {_figure(found['temperature'])}.</p>",
        reliability_plot(after["curve"]),
        f"<p>Sets of classes that shall hold the true one for {sets['coverage']:.0%} of samples "
        f"held it for {_percent(sets['share'])}; they have {sets['mean_size']:.2f} classes on "
        f"average.{f' Too few groups to rule out: {_text(never)}.' if never else ''}</p>",
        _table(["class", "in its set", "threshold (1 - probability)"], rows, numbers=(1, 2)),
    ]


def _applicability(training: dict[str, Any]) -> list[str]:
    found = training.get("applicability")
    if not found:
        return []
    return [
        "<h2>Where the classifier may be used</h2>",
        f"<p>{_percent(found['inside'])} of held-out samples lie inside the area of applicability "
        "(Meyer &amp; Pebesma 2021): as near to training samples as those are to each other across "
        "folds. Beyond it the scores say nothing.</p>",
        dissimilarity_plot(found["curve"], found["threshold"]),
    ]


def _importance(training: dict[str, Any]) -> list[str]:
    found = training.get("importance")
    if not found:
        return []
    parts = [
        "<h2>What the classifier looks at</h2>",
        importance_plot(found["periods"], found["bands"], found["loss"]),
    ]
    if months := found.get("months"):
        steps = [one["periods"] for one in months]
        rows = [
            [str(len(one["periods"])), _figure(one["macro_f1"]), _text(gone)]
            for one, gone in zip(months, left_out(steps), strict=True)
        ]
        parts += [
            "<h2>How few periods are enough</h2>",
            "<p>Periods are hidden one after another from the models of the folds, the least useful "
            f"first.{_enough(found.get('enough'), steps[0])}</p>",
            months_plot([len(kept) for kept in steps], [one["macro_f1"] for one in months]),
            _table(["periods", "macro-F1", "left out, beside those above"], rows, numbers=(0, 1)),
        ]
    return parts


def _enough(found: dict[str, Any] | None, every: Sequence[str]) -> str:
    """Say how few periods lose next to nothing."""
    if found is None:
        return ""
    count = len(found["periods"])
    return (
        f" {count} {'is' if count == 1 else 'are'} enough to stay within 0.01 of the macro-F1 of "
        f"all: {_text(joined(found['periods'], every))}."
    )


def _audit(audit: dict[str, Any] | None) -> list[str]:
    if audit is None:
        return ["<h2>Audit</h2>", f"<p class=told>The audit was {_text(AUDIT_OFF)}.</p>"]
    rows = [
        [_text(one["severity"]), _text(one["what"]), str(one["count"]), _text(one["advice"])]
        for one in audit["findings"]
    ]
    if not rows:
        return ["<h2>Audit</h2>", "<p>No fault was found in the samples.</p>"]
    is_severe = any(one["severity"] == "severe" for one in audit["findings"])
    told = (
        ["<p class='told severe'>Severe faults: the scores above cannot be believed.</p>"]
        if is_severe
        else []
    )
    return [
        "<h2>Audit</h2>",
        *told,
        _table(["", "what was found", "count", "what to do"], rows, numbers=(2,)),
    ]


def _settings(training: dict[str, Any]) -> list[str]:
    rows = [
        [_text(name), _text(", ".join(map(str, value)) if isinstance(value, list) else str(value))]
        for name, value in training["settings"].items()
    ]
    return [
        "<h2>Settings</h2>",
        _table(["setting", "value"], rows),
        f"<p class=faint>Samples: SHA-256 {_text(training['sample_fingerprint'])}</p>",
    ]


def _table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()
) -> str:
    """Return a table of cells that are HTML already; columns in `numbers` stand to the right."""
    marks = ["n" if index in numbers else "" for index in range(len(header))]

    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="{mark}">{value}</{tag}>' if mark else f"<{tag}>{value}</{tag}>"
            for mark, value in zip(marks, values, strict=True)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><tr>{cells('th', header)}</tr>{body}</table>"


def _list(told: Sequence[tuple[str, str]]) -> str:
    """Return what is told of each split as a list; nothing where there is nothing."""
    lines = (f"<li><b>{_text(split)}</b>: {_text(text)}</li>" for split, text in told)
    return f"<ul>{''.join(lines)}</ul>" if told else ""


def _text(value: object) -> str:
    return escape(" ".join(str(value).split()))


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
