"""Samples and a config in, out-of-fold scores out: random, grouped and block side by side."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from model.assess import Scores
from model.baselines import RandomForest, majority_probability
from model.config import TrainConfig
from model.errors import SplitError
from model.samples import Samples
from model.split import SPLITS, Folds, Split, make_folds
from model.train import EpochReport, Fitted, fit

NETWORK = "lstm"
RANDOM_FOREST = "random forest"
MAJORITY = "majority class"

_STOPPING_FOLDS = 8
"""One part in so many of the training units decides when to stop."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where cross-validation stands, told after every epoch."""

    split: Split
    """The split that is running."""
    fold: int
    """The fold that is held out, 0 for the first."""
    folds_used: int
    """How many folds of the split are held out in turn."""
    report: EpochReport
    """What the epoch did."""


Watch = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class OutOfFold:
    """Predictions for samples that were held out when their model was trained."""

    split: Split
    """How samples were held out."""
    model: str
    """`lstm`, `random forest` or `majority class`."""
    index: Int64[np.ndarray, "held_out"]
    """Which samples, rising."""
    probability: Float32[np.ndarray, "held_out class"]
    """Probability of each class."""
    folds: int
    """Number of folds the samples were split into."""
    folds_used: int
    """Number of folds that were held out in turn."""
    notes: tuple[str, ...]
    """What could not be done as asked."""

    def scores(self, samples: Samples) -> Scores:
        """Score the predictions against the labels of `samples`."""
        predicted = self.probability.argmax(axis=1).astype(np.int64)
        return Scores.from_labels(samples.label[self.index], predicted, samples.classes)


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitScores:
    """The scores of one model under one split, or why there are none."""

    split: Split
    """How samples were held out."""
    model: str
    """`lstm`, `random forest` or `majority class`."""
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

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        return {
            "split": self.split,
            "model": self.model,
            "held_out": self.held_out,
            "folds": self.folds,
            "folds_used": self.folds_used,
            "notes": list(self.notes),
            "scores": None if self.scores is None else self.scores.to_dict(),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreTable:
    """The scores of a network and of simple models, under every split."""

    entries: tuple[SplitScores, ...]
    """One per model and split; no split without the others."""

    def __post_init__(self) -> None:
        for model in {entry.model for entry in self.entries}:
            splits = {entry.split for entry in self.entries if entry.model == model}
            if splits != set(SPLITS):
                raise ValueError(f"{model!r} has scores for {sorted(splits)!r} only; a random score "
                                 "is never shown without the grouped and block ones")  # fmt: skip

    def of(self, split: Split, model: str = NETWORK) -> SplitScores:
        """Return the entry of `model` under `split`; raise `KeyError` if there is none."""
        for entry in self.entries:
            if entry.split == split and entry.model == model:
                return entry
        raise KeyError(f"no scores of {model!r} under the {split} split")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        return {"entries": [entry.to_dict() for entry in self.entries]}


def train_network(
    samples: Samples,
    config: TrainConfig,
    *,
    stop_by: Split = "grouped",
    watch: Callable[[EpochReport], None] | None = None,
) -> Fitted:
    """Train on all `samples`, holding out an eighth of the units to stop early where configured.

    `stop_by` is the unit that must not be on both sides; `random` is read as `grouped`, because
    samples of one group would say "go on" too long. Where the units are too few to hold some of
    every class out, the network learns from all samples for all epochs: stopping by the classes
    that happen to be held out would leave the others unlearned.
    """
    train, validation = samples, None
    if config.patience is not None:
        held = _stopping_folds(samples, "block" if stop_by == "block" else "grouped", config.seed)
        if held is not None:
            parts = [samples.take(held.trained_on(0)), samples.take(held.held_out(0))]
            if len({frozenset(part.label.tolist()) for part in (*parts, samples)}) == 1:
                train, validation = parts
    fitted: Fitted | None = None
    for report in fit(train, config, validation=validation):
        fitted = report.best
        if watch is not None:
            watch(report)
    assert fitted is not None  # a config has at least one epoch
    return fitted


def _stopping_folds(samples: Samples, split: Split, seed: int) -> Folds | None:
    try:
        return make_folds(samples, split, folds=_STOPPING_FOLDS, seed=seed)
    except SplitError:
        return None  # too few units: training runs for all epochs, as `train_network` says


def cross_validate(
    samples: Samples,
    config: TrainConfig,
    *,
    folds: Folds,
    folds_used: int | None = None,
    watch: Watch | None = None,
) -> OutOfFold:
    """Predict held-out samples with networks that never saw their units.

    `folds_used` holds out only the first so many folds (fold 0 is the most typical one).
    """

    def predict(train: Samples, test: Samples, fold: int, used: int) -> np.ndarray:
        def tell(report: EpochReport) -> None:
            if watch is not None:
                watch(Progress(split=folds.split, fold=fold, folds_used=used, report=report))

        fitted = train_network(train, config, stop_by=folds.split, watch=tell)
        return fitted.probability(test.reflectance, test.bands)

    return _out_of_fold(samples, folds, folds_used, NETWORK, predict)


def cross_validate_forest(
    samples: Samples, config: TrainConfig, *, folds: Folds, folds_used: int | None = None
) -> OutOfFold:
    """Predict held-out samples with a random forest on the same features and folds."""

    def predict(train: Samples, test: Samples, fold: int, used: int) -> np.ndarray:
        forest = RandomForest.fit(train, config.features, seed=config.seed, threads=config.threads)
        return forest.probability(test)

    return _out_of_fold(samples, folds, folds_used, RANDOM_FOREST, predict)


def cross_validate_majority(
    samples: Samples, *, folds: Folds, folds_used: int | None = None
) -> OutOfFold:
    """Predict held-out samples as the most frequent class of the rest."""

    def predict(train: Samples, test: Samples, fold: int, used: int) -> np.ndarray:
        return majority_probability(train, len(test))

    return _out_of_fold(samples, folds, folds_used, MAJORITY, predict)


def _out_of_fold(
    samples: Samples,
    folds: Folds,
    folds_used: int | None,
    model: str,
    predict: Callable[[Samples, Samples, int, int], np.ndarray],
) -> OutOfFold:
    used = folds.count if folds_used is None else min(folds_used, folds.count)
    index, probability = [], []
    for fold in range(used):
        held_out = folds.held_out(fold)
        train = samples.take(folds.trained_on(fold))
        index.append(held_out)
        probability.append(predict(train, samples.take(held_out), fold, used))
    joined = np.concatenate(index)
    order = np.argsort(joined)
    return OutOfFold(
        split=folds.split,
        model=model,
        index=joined[order],
        probability=np.concatenate(probability)[order],
        folds=folds.count,
        folds_used=used,
        notes=folds.notes,
    )


def compare_splits(
    samples: Samples,
    config: TrainConfig,
    *,
    folds: int = 5,
    folds_used: int | None = 1,
    watch: Watch | None = None,
) -> ScoreTable:
    """Score the network, a random forest and the majority class under all three splits.

    By default one fifth is held out once per split; `folds_used=None` holds out every fold in
    turn. A split the samples do not allow has an entry without scores that says why.
    """
    entries: list[SplitScores] = []
    for split in SPLITS:
        try:
            made = make_folds(samples, split, folds=folds, seed=config.seed)
        except SplitError as error:
            entries += [_without_scores(split, model, error) for model in _MODELS]
            continue
        for result in (
            cross_validate(samples, config, folds=made, folds_used=folds_used, watch=watch),
            cross_validate_forest(samples, config, folds=made, folds_used=folds_used),
            cross_validate_majority(samples, folds=made, folds_used=folds_used),
        ):
            entries.append(
                SplitScores(
                    split=split,
                    model=result.model,
                    scores=result.scores(samples),
                    held_out=len(result.index),
                    folds=result.folds,
                    folds_used=result.folds_used,
                    notes=result.notes,
                )
            )
    return ScoreTable(entries=tuple(entries))


_MODELS = (NETWORK, RANDOM_FOREST, MAJORITY)


def _without_scores(split: Split, model: str, error: SplitError) -> SplitScores:
    return SplitScores(
        split=split,
        model=model,
        scores=None,
        held_out=0,
        folds=0,
        folds_used=0,
        notes=(str(error),),
    )
