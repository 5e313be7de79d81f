"""Out-of-fold predictions of several models in, one table of scores and a winner out."""

from dataclasses import dataclass
from typing import Any

from model.assess import Scores
from model.compare import Against
from model.outoffold import OutOfFold
from model.split import SPLITS, Folds, Split

MAJORITY = "majority class"

STRICTEST: tuple[Split, ...] = ("region", "block", "knndm", "grouped", "year")
"""Splits that choose a model, the strictest first; the random one never does. The order is by how
much of the neighbourhood of what is held out may train: nothing of its region; nothing of its block;
with `knndm`, what is as far away as samples are from the map, which may be near; with `grouped`, the
stand next to it; with `year`, the same stand in another year."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitScores:
    """The scores of one model under one split, or why there are none."""

    split: Split
    """How samples were held out."""
    model: str
    """`lstm`, `random forest`, `majority class` …."""
    scores: Scores | None
    """None if the samples cannot be split like this; `notes` says why."""
    held_out: int
    """Number of samples that were scored."""
    folds: int
    """Number of folds the samples were split into."""
    folds_used: int
    """Number of folds that were held out in turn."""
    notes: tuple[str, ...]
    """What could not be done as asked."""
    against: Against | None = None
    """How it stands beside the network on the samples both were scored on; None for the network."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        found = None if self.scores is None else self.scores.to_dict()
        return {
            "split": self.split,
            "model": self.model,
            "held_out": self.held_out,
            "folds": self.folds,
            "folds_used": self.folds_used,
            "notes": list(self.notes),
            "macro_f1": None if found is None else found["macro_f1"],
            "accuracy": None if found is None else found["accuracy"],
            "against": None if self.against is None else self.against.to_dict(),
            "scores": found,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreTable:
    """The scores of a network and of simple models, under every split."""

    entries: tuple[SplitScores, ...]
    """One per model and split; no random split without the others."""
    network: str = "lstm"
    """The model that the others are compared with."""
    predictions: tuple[OutOfFold, ...] = ()
    """What the scores were made from; not part of the JSON."""
    folds: tuple[Folds, ...] = ()
    """How the samples were held out under each split; not part of the JSON."""

    def __post_init__(self) -> None:
        for model in {entry.model for entry in self.entries}:
            splits = {entry.split for entry in self.entries if entry.model == model}
            if "random" in splits and not splits >= set(SPLITS):
                raise ValueError(f"{model!r} has scores for {sorted(splits)!r} only; a random score "
                                 "is never shown without the grouped and block ones")  # fmt: skip

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits there are entries for, in order."""
        return tuple(dict.fromkeys(entry.split for entry in self.entries))

    def of(self, split: Split, model: str | None = None) -> SplitScores:
        """Return the entry of `model` (the network by default) under `split`; `KeyError` if none."""
        wanted = self.network if model is None else model
        for entry in self.entries:
            if entry.split == split and entry.model == wanted:
                return entry
        raise KeyError(f"no scores of {wanted!r} under the {split} split")

    def predictions_of(self, split: Split, model: str | None = None) -> OutOfFold:
        """Return the out-of-fold predictions of `model` under `split`; `KeyError` if none."""
        wanted = self.network if model is None else model
        for result in self.predictions:
            if result.split == split and result.model == wanted:
                return result
        raise KeyError(f"no predictions of {wanted!r} under the {split} split")

    def folds_of(self, split: Split) -> Folds:
        """Return how samples were held out under `split`; `KeyError` if they could not be."""
        for made in self.folds:
            if made.split == split:
                return made
        raise KeyError(f"no folds of the {split} split")

    @property
    def is_of_hull(self) -> bool:
        """Whether `knndm` took the samples' hull for the map, as nobody said what will be mapped."""
        return any(made.is_of_hull for made in self.folds)

    @property
    def verdicts(self) -> tuple[str, ...]:
        """One sentence per simple model, under the strictest split that could be made."""
        split = strictest_split(self)
        return tuple(
            f"{entry.model}: {entry.against.verdict} ({split} split)"
            for entry in self.entries
            if entry.split == split and entry.against is not None and entry.model != MAJORITY
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the predictions as what JSON can hold."""
        return {
            "network": self.network,
            "entries": [entry.to_dict() for entry in self.entries],
            "chosen_by": strictest_split(self),
            "is_of_hull": self.is_of_hull,
            "best": choose(self),
            "verdicts": list(self.verdicts),
        }


def strictest_split(table: ScoreTable) -> Split | None:
    """Return the strictest split that has scores; None if there is none but the random one."""
    scored = {entry.split for entry in table.entries if entry.scores is not None}
    return next((split for split in STRICTEST if split in scored), None)


def choose(table: ScoreTable, split: Split | None = None) -> str:
    """Return the model to ship: the best macro-F1 under `split`.

    By default under the strictest split that could be made; where there is none, the network. A
    simple model is measured against the network on the samples both were scored on and must be
    better, be it by little; the majority class is never chosen. Raises `ValueError` for the random
    split, which must not choose.
    """
    if split == "random":
        raise ValueError("the random split does not choose a model: it flatters what memorises")
    chosen_by = strictest_split(table) if split is None else split
    best, most = table.network, 0.0
    for entry in table.entries:
        if entry.split == chosen_by and entry.against is not None and entry.model != MAJORITY:
            ahead = entry.against.macro_f1.difference
            if ahead > most:
                best, most = entry.model, ahead
    return best
