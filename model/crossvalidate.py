"""Samples and a config in, out-of-fold scores out: the network and simple models on equal folds."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from model.baselines import BASELINES, fit_baseline, majority_probability
from model.compare import Against, compare_answers
from model.config import TrainConfig
from model.doctor.trusted import with_trusted
from model.errors import SplitError
from model.features import FeatureSet
from model.outoffold import OutOfFold, out_of_fold
from model.predictor import Predictor
from model.samples import Samples
from model.scoretable import MAJORITY, STRICTEST, ScoreTable, SplitScores, choose, strictest_split
from model.split import SPLITS, Folds, Split, make_folds, unit_of, unit_word
from model.train import EpochReport, Fitted
from model.train_network import train_network

__all__ = [
    "MAJORITY", "RANDOM_FOREST", "OutOfFold", "Progress", "ScoreTable", "SplitScores",
    "choose", "compare_models", "compare_splits", "cross_validate", "cross_validate_baseline",
    "cross_validate_majority", "strictest_split", "train_network",
]  # fmt: skip

RANDOM_FOREST = "random forest"


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

OnModel = Callable[[Split, int, Fitted], None]
"""Given the network of each fold, with its split and number."""

Settle = Callable[[Samples, Split, int], TrainConfig]
"""Given the samples that train while a fold (the number) of a split is held out: settings for them."""


def cross_validate(
    samples: Samples,
    config: TrainConfig,
    *,
    folds: Folds,
    folds_used: int | None = None,
    settle: Settle | None = None,
    watch: Watch | None = None,
    on_model: OnModel | None = None,
    keep: Path | None = None,
) -> OutOfFold:
    """Predict held-out samples with networks that never saw their units.

    `folds_used` holds out only the first so many folds (fold 0 is the most typical one). `settle`
    gives other settings than `config` for what a fold trains on, as a search among these samples
    finds them: what it scores has not seen the choice. `keep` is
    a folder for checkpoints: finished folds and the one under way wait there for the next run.
    """
    used = folds.count if folds_used is None else min(folds_used, folds.count)

    def learn(train: Samples, fold: int) -> Predictor:
        def tell(report: EpochReport) -> None:
            if watch is not None:
                watch(Progress(split=folds.split, fold=fold, folds_used=used, report=report))

        place = None if keep is None else keep / f"{folds.split}-{fold}"
        settings = config if settle is None else settle(train, folds.split, fold)
        fitted = train_network(train, settings, stop_by=folds.split, watch=tell, checkpoint=place)
        if on_model is not None:
            on_model(folds.split, fold, fitted)
        return fitted

    return out_of_fold(
        samples,
        learn,
        model=config.architecture,
        folds=folds,
        folds_used=folds_used,
    )


def cross_validate_baseline(
    name: str,
    samples: Samples,
    features: FeatureSet,
    *,
    folds: Folds,
    folds_used: int | None = None,
    seed: int = 0,
    threads: int = 1,
    keep: Path | None = None,
) -> OutOfFold:
    """Predict held-out samples with the simple model `name` on the same features and folds."""

    def learn(train: Samples, fold: int) -> Predictor:
        return fit_baseline(name, train, features, seed=seed, threads=threads)

    return out_of_fold(
        samples,
        learn,
        model=name,
        folds=folds,
        folds_used=folds_used,
        keep=keep,
        settings=json.dumps([seed, features.names, features.definitions]),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Majority:
    """Answers with the shares of the classes it was trained on; a `Predictor`."""

    train: Samples
    features: FeatureSet
    kind: str = MAJORITY

    @property
    def class_count(self) -> int:
        """Number of classes it tells apart."""
        return len(self.train.classes)

    def probability(
        self,
        reflectance: Float32[np.ndarray, "sample time band"],
        bands: tuple[str, ...],
        *,
        batch: int = 512,
    ) -> Float32[np.ndarray, "sample class"]:
        """Return the same shares for every sample."""
        return majority_probability(self.train, len(reflectance))


def cross_validate_majority(
    samples: Samples, features: FeatureSet, *, folds: Folds, folds_used: int | None = None
) -> OutOfFold:
    """Predict held-out samples as the most frequent class of the rest."""

    def learn(train: Samples, fold: int) -> Predictor:
        return _Majority(train=train, features=features)

    return out_of_fold(samples, learn, model=MAJORITY, folds=folds, folds_used=folds_used)


def compare_splits(
    samples: Samples,
    config: TrainConfig,
    *,
    folds: int = 5,
    folds_used: int | None = 1,
    splits: Sequence[Split] = SPLITS,
    buffer: float = 0.0,
    prediction: Float64[np.ndarray, "place 2"] | None = None,
    baselines: Sequence[str] = BASELINES,
    leaves_out_doubtful: bool = False,
    settle: Settle | None = None,
    watch: Watch | None = None,
    on_model: OnModel | None = None,
    keep: Path | None = None,
) -> ScoreTable:
    """Score the network, simple models and the majority class under the same folds of `splits`.

    Every fold of the strictest split is held out in turn, for calibration needs its predictions;
    of the others, `folds_used` folds, as a network is dear. All models of a split are scored on the
    same samples, so that their scores stand side by side. `buffer` (metres) goes with
    every split but the random one; `prediction` are the places to be mapped (metres), for `knndm`.
    `settle` as in `cross_validate`.
    `keep` is a folder in which finished folds wait for the next run. `on_model` is given the
    networks of the strictest split only. With `leaves_out_doubtful` no model learns from samples
    whose labels the other training samples doubt (`model.doctor.trusted`). A split the samples do not allow has an entry without
    scores that says why.
    """
    entries: list[SplitScores] = []
    predictions: list[OutOfFold] = []
    made_folds: dict[Split, Folds] = {}
    for split in splits:
        try:
            made_folds[split] = make_folds(
                samples, split, folds=folds, seed=config.seed,
                buffer=0.0 if split == "random" else buffer, prediction=prediction,
            )  # fmt: skip
        except SplitError as error:
            models = (config.architecture, *baselines, MAJORITY)
            entries += [_without_scores(split, model, error) for model in models]
    if leaves_out_doubtful:
        made_folds = {
            split: with_trusted(made, samples, seed=config.seed)
            for split, made in made_folds.items()
        }
    strictest = next((split for split in STRICTEST if split in made_folds), None)
    for split, made in made_folds.items():
        used = None if split == strictest else folds_used
        network = cross_validate(
            samples, config, folds=made, folds_used=used, settle=settle,
            watch=watch, on_model=on_model if split == strictest else None, keep=keep,
        )  # fmt: skip
        results = [network] + [
            cross_validate_baseline(
                name, samples, config.features, folds=made, folds_used=used,
                seed=config.seed, threads=config.threads, keep=keep,
            )
            for name in baselines
        ]  # fmt: skip
        results.append(
            cross_validate_majority(samples, config.features, folds=made, folds_used=used)
        )
        predictions += results
        entries += [_entry(samples, result, network, config.seed) for result in results]
    return ScoreTable(
        entries=tuple(sorted(entries, key=lambda entry: splits.index(entry.split))),
        network=config.architecture,
        predictions=tuple(predictions),
        folds=tuple(made_folds.values()),
    )


def _entry(samples: Samples, result: OutOfFold, network: OutOfFold, seed: int) -> SplitScores:
    return SplitScores(
        split=result.split,
        model=result.model,
        scores=result.scores(samples),
        held_out=len(result.index),
        folds=result.folds,
        folds_used=result.folds_used,
        notes=result.notes,
        against=None if result is network else compare_models(samples, result, network, seed=seed),
    )


def compare_models(
    samples: Samples, result: OutOfFold, other: OutOfFold, *, seed: int = 0
) -> Against:
    """Compare a model with an `other` under one split, on the samples both were scored on.

    What the split holds out whole is drawn whole.
    """
    both, own, its = np.intersect1d(result.index, other.index, return_indices=True)
    unit = unit_of(samples, result.split)[both]
    macro_f1, accuracy = compare_answers(
        samples.label[both],
        result.predicted[own],
        other.predicted[its],
        unit=unit,
        classes=len(samples.classes),
        seed=seed,
    )
    return Against(
        model=result.model,
        network=other.model,
        macro_f1=macro_f1,
        accuracy=accuracy,
        samples=len(both),
        units=len(np.unique(unit)),
        unit=unit_word(result.split),
    )


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
