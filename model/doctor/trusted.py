"""Samples in, those whose labels nobody doubts out: what models learn from where labels are poor."""

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from jaxtyping import Bool, Float, Int64

from model.doctor.confident import OutOfFoldFit, diagnose, is_left_out
from model.doctor.evidence import gather_evidence
from model.doctor.outoffold import doctor_features, pooled_baselines
from model.errors import SplitError
from model.samples import Samples
from model.split import Folds, make_folds

_FOLDS = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Doubt:
    """Which labels are doubted, and whether a model is better off without them."""

    kept: Int64[np.ndarray, "trusted"]
    """Samples of groups whose labels look right."""
    groups: int
    """Number of groups that are left out."""
    gained: int
    """Groups that are given their own label only if the doubtful ones do not train."""
    lost: int
    """Groups that are given their own label only if the doubtful ones train."""

    @property
    def helps(self) -> bool:
        """Whether leaving them out costs nothing, or helps by more than chance may.

        Chance: the difference of heads and tails of as many coins. Where classes overlap, what is
        hard to tell is doubted too, and should train.
        """
        if not self.lost:
            return self.groups > 0
        return self.gained - self.lost > sqrt(self.gained + self.lost)

    def to_dict(self) -> dict[str, int | bool]:
        """Return what a report tells."""
        return {
            "groups": self.groups,
            "gained": self.gained,
            "lost": self.lost,
            "helps": self.helps,
        }


def weigh_doubt(samples: Samples, *, seed: int = 0) -> Doubt:
    """Find doubtful labels as `trusted` does, and ask whether leaving them out helps.

    Linear discriminants learn with and without them and predict groups that they did not see; what
    counts is how often they give these the labels that they have, right or wrong. Wrong labels
    that do not repeat themselves agree with no model, so the better model agrees more often. Where
    samples have shares nothing is doubted: a mixed plot looks like several classes because it is.
    """
    everything = np.arange(len(samples), dtype=np.int64)
    nothing = Doubt(kept=everything, groups=0, gained=0, lost=0)
    if samples.share is not None:
        return nothing
    try:
        folds = make_folds(samples, "grouped", folds=_FOLDS, seed=seed)
    except SplitError:
        return nothing
    fit = _remembering(pooled_baselines(doctor_features(samples.bands), seed=seed))
    is_kept = ~is_left_out(diagnose(fit, samples, folds), samples)
    right = [
        _is_right(fit(samples, folds, is_trusted), samples)
        for is_trusted in (np.ones(len(samples), dtype=bool), is_kept)
    ]
    return Doubt(
        kept=everything[is_kept],
        groups=len(np.unique(samples.group[~is_kept])),
        gained=int((right[1] & ~right[0]).sum()),
        lost=int((right[0] & ~right[1]).sum()),
    )


def _is_right(
    probability: Float[np.ndarray, "sample class"], samples: Samples
) -> Bool[np.ndarray, "unit"]:
    evidence = gather_evidence(probability, samples.label, samples.group)
    right: np.ndarray = evidence.probability.argmax(axis=1) == evidence.label
    return right


def _remembering(fit: OutOfFoldFit) -> OutOfFoldFit:
    """Return a `fit` of one set of samples and folds that learns only once from the same ones."""
    known: dict[bytes, Float[np.ndarray, "sample class"]] = {}

    def remembered(
        samples: Samples, folds: Folds, is_trusted: Bool[np.ndarray, "sample"]
    ) -> Float[np.ndarray, "sample class"]:
        key = is_trusted.tobytes()
        if key not in known:
            known[key] = fit(samples, folds, is_trusted)
        return known[key]

    return remembered


def trusted(samples: Samples, *, seed: int = 0) -> Int64[np.ndarray, "trusted"]:
    """Return which samples are of groups whose labels look right, judged by the others.

    As `canopycube label-doctor` judges them: linear discriminants that never saw a group say what
    it looks like, in two rounds. Two groups of each class stay whatever is thought of them. All
    stay where groups are too few to be held out, and where samples have shares.
    """
    everything = np.arange(len(samples), dtype=np.int64)
    if samples.share is not None:
        return everything
    try:
        folds = make_folds(samples, "grouped", folds=_FOLDS, seed=seed)
    except SplitError:
        return everything
    fit = pooled_baselines(doctor_features(samples.bands), seed=seed)
    found = diagnose(fit, samples, folds)
    kept: np.ndarray = everything[~is_left_out(found, samples)]
    return kept


def with_trusted(folds: Folds, samples: Samples, *, seed: int = 0) -> Folds:
    """Return the folds without doubtful samples among those that train.

    Each fold's training samples are judged among themselves, so that what is held out has no say
    in what is learned. Held-out samples are scored by the labels that they have.
    """
    doubted = []
    for fold in range(folds.count):
        train = folds.trained_on(fold)
        kept = trusted(samples.take(train), seed=seed)
        doubted.append(np.delete(train, kept))
    return replace(folds, doubted=tuple(doubted))
