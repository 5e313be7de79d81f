"""Samples and a plan in, a scored, calibrated classifier out, with what was found on the way."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from model.baselines import BASELINES, FittedBaseline, fit_baseline
from model.certainty.measure import Certainty, measure_certainty
from model.classifier import SpeciesClassifier, code_version
from model.config import TrainConfig
from model.crossvalidate import Settle, Watch, compare_splits
from model.doctor.trusted import weigh_doubt
from model.errors import ConfigError, SampleError
from model.fitted import Fitted
from model.importance import fewest_periods, periods_needed, permutation_importance
from model.legend import Legend
from model.levels import scores_by_level
from model.outoffold import OutOfFold
from model.periods import calendar_positions
from model.predictor import Predictor
from model.samples import Samples
from model.scoretable import ScoreTable, choose, strictest_split
from model.split import SPLITS, Split
from model.threads import torch_threads
from model.train import EpochReport
from model.train_network import train_network
from model.verdict import choices_told, verdict

NETWORK = "network"
AUTO = "auto"

Doubtful = Literal["auto", "keep", "leave out"]
"""What becomes of samples whose labels the others doubt."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LearnPlan:
    """How a classifier is made of samples."""

    config: TrainConfig
    """How the network is built and trained."""
    colours: tuple[str, ...]
    """One `#rrggbb` per class."""
    parents: Mapping[str, str] = field(default_factory=dict)
    """What lies above a class in the legend."""
    model: str = NETWORK
    """`network`, the name of a simple model, or `auto` for whichever wins on held-out units."""
    baselines: tuple[str, ...] = BASELINES
    """Simple models that are scored beside the network."""
    splits: tuple[Split, ...] = SPLITS
    """How samples are held out; random, grouped and block together or not at all."""
    folds: int = 5
    """Parts of each split."""
    folds_used: int = 1
    """Folds models are scored on, of every split but the strictest, which holds all out."""
    buffer: float = 0.0
    """Metres round held-out samples in which nothing trains."""
    prediction: Float64[np.ndarray, "place 2"] | None = None
    """Places that will be mapped, metres, for the split `knndm`; None takes the samples' hull."""
    trials: int = 0
    """Settings that were tried on these samples before `config` was chosen; the verdict says so."""
    settle: Settle | None = None
    """Chooses settings anew for what trains while a fold is held out, so that scores have not seen
    the choice; None scores `config`."""
    doubtful: Doubtful = "auto"
    """Whether models learn from samples whose labels the others doubt; "auto" leaves them out where
    that makes linear discriminants better on groups that they did not see (`weigh_doubt`)."""
    measures_importance: bool = True
    """Whether periods and bands are swapped and hidden to see which matter: some 500,000
    predictions for 12 periods of 15 bands."""
    coverage: float = 0.9
    """Share of samples whose set of likely classes shall hold the true one."""
    keep: Path | None = None
    """Folder of what was finished, for the next run to go on from."""

    def __post_init__(self) -> None:
        if self.model not in (NETWORK, AUTO, *self.baselines):
            raise ConfigError(
                f"model is {self.model!r}, which is not scored; expected {NETWORK!r}, {AUTO!r} or "
                f"one of the baselines {', '.join(self.baselines)}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Learned:
    """A classifier, and what was found when it was made."""

    classifier: SpeciesClassifier
    """Trained on all samples; its `scores` are `found`."""
    table: ScoreTable
    """Every model under every split."""
    found: dict[str, Any]
    """Everything a report tells, as JSON can hold."""


def learn(
    samples: Samples,
    plan: LearnPlan,
    *,
    watch: Watch | None = None,
    watch_training: Callable[[EpochReport], None] | None = None,
) -> Learned:
    """Score the network and simple models on held-out units, then train the chosen one on all.

    Temperature, conformal thresholds and the area of applicability are learned from predictions
    for units that the predicting model never saw; what is told of them is measured on yet other
    units. Raises `SampleError` for a class without samples, and what training raises.
    """
    refuse_empty_classes(samples)
    with torch_threads(plan.config.threads):  # predictions are most of the work
        return _learn(samples, plan, watch, watch_training)


def _learn(
    samples: Samples,
    plan: LearnPlan,
    watch: Watch | None,
    watch_training: Callable[[EpochReport], None] | None,
) -> Learned:
    legend = Legend(classes=samples.classes, parents=plan.parents)
    networks: dict[int, Predictor] = {}  # of the strictest split, by fold

    def remember(split: Split, fold: int, network: Fitted) -> None:
        networks[fold] = network

    config = plan.config
    doubt = weigh_doubt(samples, seed=config.seed)
    leaves_out = plan.doubtful == "leave out" or (plan.doubtful == "auto" and doubt.helps)
    table = compare_splits(
        samples,
        config,
        folds=plan.folds,
        folds_used=plan.folds_used,
        splits=plan.splits,
        buffer=plan.buffer,
        prediction=plan.prediction,
        baselines=plan.baselines,
        leaves_out_doubtful=leaves_out,
        settle=plan.settle,
        watch=watch,
        on_model=remember,
        keep=plan.keep,
    )
    name = _chosen(plan, table)
    split = strictest_split(table)
    held_out = None if split is None else table.predictions_of(split, name)
    kept = samples
    if leaves_out:
        kept = samples.take(doubt.kept)
    fitted = _fitted(kept, plan, name, watch_training)
    certainty = Certainty()
    found: dict[str, Any] = {}
    if held_out is not None:
        tried: Mapping[int, Predictor] = networks
        if name != table.network:
            tried = _simple_models(samples, plan, table, held_out)
        certainty = measure_certainty(
            samples,
            held_out,
            fitted,
            tried,
            folds=table.folds_of(held_out.split),
            coverage=plan.coverage,
        )
        found = {
            **certainty.found,
            "importance": _importance(samples, held_out, tried)
            if plan.measures_importance
            else None,
            "legend": scores_by_level(samples, held_out, legend, certainty.calibration),
        }
    found = {
        "model": name,
        "split": split,
        "verdict": verdict(samples, table, name, split, seed=config.seed)
        + choices_told(
            models=len(plan.baselines) + 1 if plan.model == AUTO and split else 0,
            trials=plan.trials if name == table.network and split else 0,
            is_nested=plan.settle is not None,
        ),
        "scores": table.to_dict(),
        "samples_by_class": samples.class_counts,
        "doubtful": {"left_out": leaves_out, "samples": len(samples) - len(doubt.kept)}
        | doubt.to_dict(),
        "settings": config.to_dict(),
        "sample_fingerprint": samples.fingerprint,
        "code_version": code_version(),
        **found,
    }
    classifier = SpeciesClassifier(
        fitted=fitted,
        periods=calendar_positions(samples.periods),
        classes=samples.classes,
        colours=plan.colours,
        parents=dict(plan.parents),
        sample_fingerprint=samples.fingerprint,
        code_version=code_version(),
        scores=found,
        calibration=certainty.calibration,
        conformal=certainty.conformal,
        applicability=certainty.applicability,
    )
    return Learned(classifier=classifier, table=table, found=found)


def train_classifier(
    samples: Samples,
    config: TrainConfig,
    *,
    colours: Sequence[str],
    parents: Mapping[str, str] | None = None,
    watch: Callable[[EpochReport], None] | None = None,
) -> SpeciesClassifier:
    """Train a network on all samples and attach the legend; nothing is scored or calibrated.

    Raises `SampleError` if a class has no sample (merge or drop it), and what `fit` raises.
    """
    refuse_empty_classes(samples)
    return SpeciesClassifier(
        fitted=train_network(samples, config, watch=watch),
        periods=calendar_positions(samples.periods),
        classes=samples.classes,
        colours=tuple(colours),
        parents=dict(parents or {}),
        sample_fingerprint=samples.fingerprint,
        code_version=code_version(),
        scores=None,
    )


def refuse_empty_classes(samples: Samples) -> None:
    """Raise `SampleError` for a class that has no sample, nor a share of a mixed one."""
    counts = samples.class_counts
    if samples.share is not None:
        counts = dict(zip(samples.classes, samples.share.sum(axis=0).tolist(), strict=True))
    empty = [name for name, count in counts.items() if count == 0]
    if empty:
        raise SampleError(f"classes {', '.join(empty)} have no sample; drop or merge them")


def _chosen(plan: LearnPlan, table: ScoreTable) -> str:
    if plan.model == AUTO:
        return choose(table)
    return table.network if plan.model == NETWORK else plan.model


def _fitted(
    samples: Samples,
    plan: LearnPlan,
    name: str,
    watch: Callable[[EpochReport], None] | None,
) -> Fitted | FittedBaseline:
    config = plan.config
    if name in plan.baselines:
        return fit_baseline(
            name, samples, config.features, seed=config.seed, threads=config.threads
        )
    checkpoint = None if plan.keep is None else plan.keep / "network"
    return train_network(samples, config, watch=watch, checkpoint=checkpoint)


def _simple_models(
    samples: Samples, plan: LearnPlan, table: ScoreTable, held_out: OutOfFold
) -> dict[int, Predictor]:
    """Return the simple model of each fold, once more: only their predictions were kept."""
    folds = table.folds_of(held_out.split)
    config = plan.config
    return {
        fold: fit_baseline(
            held_out.model,
            samples.take(folds.trained_on(fold)),
            config.features,
            seed=config.seed,
            threads=config.threads,
        )
        for fold in np.unique(held_out.fold).tolist()
    }


def _tried(
    samples: Samples, held_out: OutOfFold, models: Mapping[int, Predictor]
) -> list[tuple[Predictor, Samples]]:
    """Return each fold's model with the samples that it never saw."""
    return [
        (model, samples.take(held_out.index[held_out.fold == fold]))
        for fold, model in sorted(models.items())
    ]


def _importance(
    samples: Samples, held_out: OutOfFold, models: Mapping[int, Predictor]
) -> dict[str, Any] | None:
    """Return which periods and bands matter; None where the models of the folds are not at hand."""
    tried = _tried(samples, held_out, models)
    if not tried or len(np.unique(samples.group[held_out.index])) < 2:
        return None
    months = periods_needed(tried)
    return {
        **permutation_importance(tried, repeats=2).to_dict(),
        "months": [one.to_dict() for one in months],
        "enough": fewest_periods(months).to_dict(),
    }
