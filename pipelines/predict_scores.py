"""Labels of a table and a classifier's answers in; scores, or why there are none, out."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped

from model.assess import Scores
from model.classifier import SpeciesClassifier
from pipelines.label_names import LabelNames
from pipelines.printable import printable

_MOST_UNKNOWN = 0.1
"""Share of labelled series whose label may be unknown if the others are to be scored."""
_TOLD = 3


def scores_of(
    classifier: SpeciesClassifier,
    names: LabelNames,
    label: Shaped[np.ndarray, " series"] | None,
    probability: Float32[np.ndarray, "series class"],
) -> dict[str, Any] | None:
    """Score series by their labels, named as training named them.

    Where more than a few labels are unknown there are no scores: those of the few classes that
    happen to be called alike would say nothing. None for a table without labels.
    """
    if label is None or not (labelled := int((label != "").sum())):
        return None
    number = {name: at for at, name in enumerate(classifier.classes)} | {"": -1}
    true = np.array(
        [number[names.class_of(name, classifier.classes)] for name in label.tolist()], np.int64
    )
    used = (true >= 0) & np.isfinite(probability[:, 0])
    others = Counter(name for name in label[true < 0].tolist() if name)
    unknown = {name: count for name, count in others.items() if not names.leaves_out(name)}
    found: dict[str, Any] = {
        "series": int(used.sum()),
        "labelled": labelled,
        "unknown_labels": unknown,
        "left_out_labels": {name: n for name, n in others.items() if name not in unknown},
    }
    if not used.any() or sum(unknown.values()) > _MOST_UNKNOWN * labelled:
        return found
    scores = Scores.from_labels(
        true[used], probability[used].argmax(axis=1).astype(np.int64), classifier.classes
    )
    return found | scores.to_dict()


def score_lines(scores: dict[str, Any] | None) -> list[str]:
    """Return the scores, or why there are none, and which labels they are not of."""
    if not scores:
        return []
    unknown, left_out = scores["unknown_labels"], scores["left_out_labels"]
    if "accuracy" not in scores:
        others = unknown or left_out
        which = "no class of the classifier" if unknown else "of classes left out of training"
        return [
            f"scores    none: {sum(others.values()):,} of {scores['labelled']:,} labelled series are "
            f"{which}: {_some(others)}"
        ]
    lines = [
        f"scores    accuracy {scores['accuracy']:.3f}, macro-F1 {scores['macro_f1']:.3f} over "
        f"{scores['series']:,} labelled series (right only if none of them trained)"
    ]
    if unknown:
        lines.append(f"          without {_some(unknown)}: no class of the classifier")
    if left_out:
        lines.append(f"          without {_some(left_out)}: left out of training")
    return lines


def _some(counts: Mapping[str, int]) -> str:
    """Name the most frequent labels."""
    ranked = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    named = ", ".join(f"{printable(name)!r} {count:,}" for name, count in ranked[:_TOLD])
    more = f" and {len(ranked) - _TOLD} more" if len(ranked) > _TOLD else ""
    return named + more
