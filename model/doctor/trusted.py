"""Samples in, those whose labels nobody doubts out: what models learn from where labels are poor."""

from dataclasses import replace

import numpy as np
from jaxtyping import Int64

from model.doctor.confident import diagnose, is_left_out
from model.doctor.outoffold import doctor_features, pooled_baselines
from model.errors import SplitError
from model.samples import Samples
from model.split import Folds, make_folds

_FOLDS = 5


def trusted(samples: Samples, *, seed: int = 0) -> Int64[np.ndarray, "trusted"]:
    """Return which samples are of groups whose labels look right, judged by the others.

    As `canopycube label-doctor` judges them: linear discriminants that never saw a group say what
    it looks like, in two rounds. Two groups of each class stay whatever is thought of them. All
    stay where groups are too few to be held out.
    """
    everything = np.arange(len(samples), dtype=np.int64)
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
