"""A table of scores in, what is to be told of the model that is saved out."""

import numpy as np

from model.crossvalidate import compare_models
from model.samples import Samples
from model.scoretable import MAJORITY, STRICTEST, ScoreTable, choose
from model.split import HELD_OUT, Split

_STRICT = f"(the strictest of the splits made, in the order {', '.join(STRICTEST)})"
_NONE_BETTER = "No other model that was tried has a higher macro-F1."


def verdict(
    samples: Samples, table: ScoreTable, name: str, split: Split | None, *, seed: int = 0
) -> str:
    """Return a few sentences: what is saved, what it scores, and whether something beats it.

    The best model is compared with the one that is saved, on the samples both were scored on; so is
    the answer that is always the same, whose accuracy may be higher where one class is frequent.
    """
    if split is None:
        return (
            f"{name} was trained, but no groups or blocks could be held out: nothing says how good "
            "it is"
        )
    scores = table.of(split, name).scores
    assert scores is not None  # the split has scores
    told = (
        f"{name}: accuracy {scores.accuracy:.3f}, macro-F1 {scores.macro_f1:.3f} with "
        f"{_held_out(table, split)} held out {_STRICT}. {_majority_told(samples, table, name, split)}"
    )
    best = choose(table)
    if best == name:
        return told + _NONE_BETTER
    both = (table.predictions_of(split, best), table.predictions_of(split, name))
    found = compare_models(samples, *both, seed=seed)
    if found.macro_f1.low > 0:
        return told + f"{best} is better: {found.verdict}."
    if found.macro_f1.difference > 0:
        return told + f"{best} is ahead, but {found.verdict}."
    return told + _NONE_BETTER


def _held_out(table: ScoreTable, split: Split) -> str:
    if split != "knndm":
        return "whole groups" if split == "grouped" else f"{HELD_OUT[split]}s"
    far = "their hull is, for want of a map" if table.is_of_hull else "the map is"
    return f"whole groups, as far away as {far},"


def _majority_told(samples: Samples, table: ScoreTable, name: str, split: Split) -> str:
    """Say so where one answer for all is right as often as the model; empty where it is not."""
    if not any((one.split, one.model) == (split, MAJORITY) for one in table.predictions):
        return ""
    always = table.predictions_of(split, MAJORITY)
    plain, own = (one.scores(samples) for one in (always, table.predictions_of(split, name)))
    if own.accuracy > plain.accuracy:
        return ""
    named = np.unique(always.predicted)
    which = repr(samples.classes[named[0]]) if len(named) == 1 else "the most frequent class"
    often = "more often" if own.accuracy < plain.accuracy else "as often"
    told = (
        f"But naming always {which} is right {often}: accuracy {plain.accuracy:.3f}, macro-F1 "
        f"{plain.macro_f1:.3f}"
    )
    if own.macro_f1 > plain.macro_f1:
        return f"{told}; what {name} has over it is that it finds rarer classes, too. "
    return f"{told}; {name} tells nothing apart. "


def choices_told(*, models: int, trials: int, is_nested: bool = False) -> str:
    """Return what was chosen by the very samples that score it, as sentences; empty for nothing.

    `models` and `trials` are how many models and settings were tried; 0 or 1 is no choice. With
    `is_nested` the settings that were scored were chosen without what was held out.
    """
    told = []
    if models > 1:
        told.append(
            f"The model was chosen among {models} on these samples, so the score is a little "
            "flattering."
        )
    if trials > 1 and is_nested:
        told.append(
            f"Its settings were chosen among {trials} trials, for each score anew without what it "
            "holds out; those of the simple models were not searched."
        )
    elif trials > 1:
        told.append(
            f"Its settings were chosen among {trials} trials on these samples, those of the "
            "simple models were not searched, so the score is a little flattering."
        )
    return "".join(f" {one}" for one in told)
