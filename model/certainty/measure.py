"""Held-out predictions and the models that made them in, what a classifier may claim out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from model.certainty.applicability import (
    FEATURES,
    HIDDEN,
    Applicability,
    accuracy_curve,
    clear_values,
    held_out_dissimilarity,
    learn_applicability,
    thresholds_of,
)
from model.certainty.calibrate import Calibration, calibrate
from model.certainty.checked import group_numbers, parts_of_groups
from model.certainty.conformal import ConformalSets, Coverage, calibrate_sets, coverage_of
from model.certainty.reliability import assess_reliability
from model.certainty.space import Space
from model.fitted import Fitted
from model.outoffold import OutOfFold
from model.predictor import Predictor
from model.samples import Samples
from model.split import Folds, unit_of

_FEWEST_UNITS = 4
"""Groups that calibration needs: half of them learn a threshold, half of them test it."""

_PARTS = 10
"""Parts that groups are dealt to; each is tested with what the others were calibrated to."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Certainty:
    """What goes into a classifier, and what the report says of it."""

    calibration: Calibration | None = None
    """Temperature, from all held-out predictions."""
    conformal: ConformalSets | None = None
    """Thresholds, from all held-out predictions."""
    applicability: Applicability | None = None
    """What is like the training samples."""
    found: dict[str, Any] = field(default_factory=dict)
    """Figures measured on units that had no say in what they measure."""


def measure_certainty(
    samples: Samples,
    held_out: OutOfFold,
    fitted: Fitted | Predictor,
    models: Mapping[int, Predictor],
    *,
    folds: Folds,
    coverage: float = 0.9,
) -> Certainty:
    """Calibrate the model from predictions for samples that it (its fold's twin) never saw.

    `folds` are those of `held_out`. `models` are those of the folds, as far as they are at hand;
    with all of them the network's last hidden layer is a space of the area of applicability too.
    With fewer than four units nothing can be calibrated, and nothing is.

    Every sample weighs the same. No importance weights bring the samples to the classes' shares or
    to the conditions of the mapped area, so what is measured holds for places like the samples.
    """
    unit = unit_of(samples, held_out.split)[held_out.index]
    if len(np.unique(unit)) < _FEWEST_UNITS:
        return Certainty()
    label = samples.label[held_out.index]
    share = None if samples.share is None else samples.share[held_out.index]
    calibration = calibrate(held_out.probability, label, share=share)
    conformal = calibrate_sets(
        calibration.apply(held_out.probability), label, unit, coverage=coverage
    )
    honest, sets = _tested(held_out.probability, label, unit, share=share, coverage=coverage)
    applicability, told = _applicability(samples, held_out, fitted, models, folds)
    before = assess_reliability(held_out.probability, label)
    return Certainty(
        calibration=calibration,
        conformal=conformal,
        applicability=applicability,
        found={
            "certainty": {
                "temperature": round(calibration.temperature, 6),
                "before": before.to_dict(),
                "after": assess_reliability(honest, label).to_dict(),
                "conformal": {
                    "coverage": coverage,
                    **sets.to_dict(),
                    "threshold": np.round(conformal.threshold, 6).tolist(),
                    "never_ruled_out": [samples.classes[i] for i in conformal.never_ruled_out],
                },
                **_share_errors(share, before=held_out.probability, after=honest),
            },
            "applicability": told,
        },
    )


def _tested(
    probability: Float32[np.ndarray, "held_out class"],
    label: Int64[np.ndarray, "held_out"],
    unit: Int64[np.ndarray, "held_out"],
    *,
    share: Float32[np.ndarray, "held_out class"] | None,
    coverage: float,
) -> tuple[Float32[np.ndarray, "held_out class"], Coverage]:
    """Return calibrated probabilities and sets of units whose labels had no say in either.

    Temperature and thresholds of a part are both learned from all other parts, as those of the
    classifier are from all held-out samples.
    """
    number = group_numbers(unit, len(label))
    part = parts_of_groups(number, _PARTS, seed=0)
    honest = np.empty_like(probability)
    sets = np.zeros(probability.shape, bool)
    for index in range(int(part.max()) + 1):
        tested, others = part == index, part != index
        calibration = calibrate(
            probability[others], label[others], share=None if share is None else share[others]
        )
        conformal = calibrate_sets(
            calibration.apply(probability[others]), label[others], number[others], coverage=coverage
        )
        honest[tested] = calibration.apply(probability[tested])
        sets[tested] = conformal.sets(honest[tested])
    return honest, coverage_of(sets, label, number)


def _share_errors(
    share: Float32[np.ndarray, "held_out class"] | None,
    **given: Float32[np.ndarray, "held_out class"],
) -> dict[str, Any]:
    """Return the mean absolute error of the shares of mixed plots; nothing where there are none."""
    if share is None:
        return {}
    errors = {name: round(float(np.abs(one - share).mean()), 6) for name, one in given.items()}
    return {"share_error": errors}


def _applicability(
    samples: Samples,
    held_out: OutOfFold,
    fitted: Fitted | Predictor,
    models: Mapping[int, Predictor],
    folds: Folds,
) -> tuple[Applicability, dict[str, Any]]:
    fold = np.full(len(samples), -1, np.int64)
    fold[held_out.index] = held_out.fold
    values = {FEATURES: clear_values(fitted.features, samples.reflectance, samples.bands)}
    distance = {
        FEATURES: held_out_dissimilarity(
            values[FEATURES], label=samples.label, group=samples.group, folds=folds
        )
    }
    if isinstance(fitted, Fitted) and set(models) == set(np.unique(held_out.fold).tolist()):
        values[HIDDEN] = hidden_values(fitted, samples)
        distance[HIDDEN] = _hidden_distance(samples, folds, models)
    made = learn_applicability(values, distance, label=samples.label, group=samples.group)
    together = np.max([distance[name] / made.thresholds[name] for name in made.spaces], axis=0)
    asked = together[held_out.index]
    right = held_out.predicted == samples.label[held_out.index]
    return made, {
        "spaces": sorted(made.spaces),
        "threshold": 1.0,
        "inside": round(_inside_share(distance, fold), 6),
        "curve": accuracy_curve(asked, right).to_dict(),
    }


def _inside_share(
    distance: Mapping[str, Float32[np.ndarray, "sample"]], fold: Int64[np.ndarray, "sample"]
) -> float:
    """Return the share of held-out samples inside thresholds that the other folds set."""
    inside = []
    for index in np.unique(fold[fold >= 0]):
        rest, held = (fold >= 0) & (fold != index), fold == index
        thresholds = thresholds_of({name: of[rest] for name, of in distance.items()})
        inside.append(np.all([distance[n][held] <= thresholds[n] for n in distance], axis=0))
    return float(np.concatenate(inside).mean())


def hidden_values(fitted: Fitted, samples: Samples) -> Float32[np.ndarray, "sample time feature"]:
    """Return a network's last hidden layer as sequences of one step: what a space reads."""
    hidden = fitted.hidden(samples.reflectance, samples.bands)
    return np.asarray(hidden[:, None, :])  # (sample, time, feature)


def _hidden_distance(
    samples: Samples, folds: Folds, models: Mapping[int, Predictor]
) -> Float32[np.ndarray, "sample"]:
    """Return how far held-out samples lie from training ones in their own fold's network."""
    found = np.full(len(samples), np.nan, np.float32)
    for index, model in models.items():
        assert isinstance(model, Fitted)  # the models of a network's folds
        hidden = hidden_values(model, samples)
        held, rest = folds.held_out(index), folds.trained_on(index)
        space = Space.learn(hidden[rest], label=samples.label[rest], group=samples.group[rest])
        found[held] = space.dissimilarity(hidden[held])
    return found
