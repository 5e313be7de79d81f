"""A table of scores in, what is to be told of the model that is saved out."""

from model.crossvalidate import compare_models
from model.samples import Samples
from model.scoretable import ScoreTable, choose
from model.split import HELD_OUT, Split


def verdict(
    samples: Samples, table: ScoreTable, name: str, split: Split | None, *, seed: int = 0
) -> str:
    """Return one or two sentences: what is saved, what it scores, and whether something beats it.

    The best model is compared with the one that is saved, on the samples both were scored on.
    """
    if split is None:
        return (
            f"{name} was trained, but no groups or blocks could be held out: nothing says how good "
            "it is"
        )
    scores = table.of(split, name).scores
    assert scores is not None  # the split has scores
    word = {"grouped": "whole groups", "knndm": "whole groups, as far away as the map is,"}
    told = (
        f"{name}: accuracy {scores.accuracy:.3f}, macro-F1 {scores.macro_f1:.3f} with "
        f"{word.get(split, f'{HELD_OUT[split]}s')} held out. "
    )
    best = choose(table)
    if best == name:
        return told + "No other model that was tried is better."
    both = (table.predictions_of(split, best), table.predictions_of(split, name))
    found = compare_models(samples, *both, seed=seed)
    if found.macro_f1.low > 0:
        return told + f"{best} is better: {found.verdict}."
    if found.macro_f1.difference > 0:
        return told + f"{best} is ahead, but {found.verdict}."
    return told + "No other model that was tried is better."


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
