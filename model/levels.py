"""Held-out answers and a legend in, what they score at each of its levels out."""

from typing import Any

import numpy as np
from jaxtyping import Int64

from model.assess import merged
from model.certainty.calibrate import Calibration
from model.legend import Legend, is_under
from model.outoffold import OutOfFold
from model.samples import Samples

_LEAST = (0.5, 0.7, 0.9)
"""Probabilities at which the report shows answers higher up the legend."""


def scores_by_level(
    samples: Samples, held_out: OutOfFold, legend: Legend, calibration: Calibration | None
) -> dict[str, Any] | None:
    """Return scores at each level of the legend, and of answers that are given higher up.

    As JSON can hold; None for a legend of one level. `calibration` is of these very predictions,
    so shares of answers given higher up are those of the classifier, not of units it never saw.
    """
    if legend.depth < 2:
        return None
    label = samples.label[held_out.index]
    probability = held_out.probability
    if calibration is not None:
        probability = calibration.apply(probability)
    scores = held_out.scores(samples)
    levels = []
    for level in range(legend.depth):
        above = merged(scores, {name: legend.nodes(level)[at] for name, at in _of(legend, level)})
        levels.append(
            {
                "level": level,
                "nodes": list(legend.nodes(level)),
                "accuracy": round(above.accuracy, 6),
                "macro_f1": round(above.macro_f1, 6),
            }
        )
    return {
        "parents": legend.to_dict(),
        "levels": levels,
        "back_off": [_backed_off(legend, probability, label, least) for least in _LEAST],
    }


def _of(legend: Legend, level: int) -> list[tuple[str, int]]:
    return list(zip(legend.classes, legend.node_of_class(level).tolist(), strict=True))


def _backed_off(
    legend: Legend, probability: np.ndarray, label: Int64[np.ndarray, "sample"], least: float
) -> dict[str, Any]:
    node = legend.back_off(probability, least=least)
    answered = node >= 0
    right = is_under(legend, label.tolist(), node.tolist())
    depth = np.array([len(legend.path(name)) - 1 for name in legend.every_node])
    by_level = {
        str(level): round(float((depth[node[answered]] == level).sum() / len(node)), 6)
        for level in range(legend.depth)
    }
    return {
        "least": least,
        "undecided": round(float((~answered).mean()), 6),
        "right": round(float(right[answered].mean()), 6) if answered.any() else None,
        "by_level": by_level,
    }
