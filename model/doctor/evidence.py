"""Probabilities of samples in, probabilities of groups out: what a stand's samples say together."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.special import softmax

from model.errors import SampleError

_SMALLEST = 1e-3
"""Probability below which one sample does not say more: a forest of a hundred trees gives exact
zeros, and one zero would veto whatever the other samples of the group say."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What the samples of each label unit say together; units without a prediction are left out.

    A unit is all samples of one group with one label: a group of two labels is two units.
    """

    group: Int64[np.ndarray, "unit"]
    """The group."""
    label: Int64[np.ndarray, "unit"]
    """The class it was given."""
    samples: Int64[np.ndarray, "unit"]
    """Number of its samples that have a prediction."""
    probability: Float64[np.ndarray, "unit class"]
    """Geometric mean of the samples' probabilities, rows sum to 1."""
    unit: Int64[np.ndarray, "sample"]
    """Unit of each sample; -1 for samples without a prediction."""

    def __len__(self) -> int:
        return len(self.group)


def gather_evidence(
    probability: Float[np.ndarray, "sample class"],
    label: Int64[np.ndarray, "sample"],
    group: Int64[np.ndarray, "sample"],
) -> Evidence:
    """Pool out-of-fold probabilities by group; rows of NaN are samples that were never held out.

    The pool is the normalised geometric mean. Samples of a stand are no independent witnesses:
    a product would call any large stand certain, the mean of logarithms does not grow with their
    number. Raises `SampleError` for labels that are no class and values that are no probabilities.
    """
    _refuse_wrong(probability, label)
    is_known = np.isfinite(probability).all(axis=1)
    pairs, inverse = np.unique(
        np.stack([group[is_known], label[is_known]], axis=1), axis=0, return_inverse=True
    )
    inverse = inverse.reshape(-1)
    count = np.bincount(inverse, minlength=len(pairs))
    logarithm = np.zeros((len(pairs), probability.shape[1]))
    np.add.at(logarithm, inverse, logarithms(probability[is_known]))
    unit = np.full(len(label), -1, np.int64)
    unit[is_known] = inverse
    return Evidence(
        group=pairs[:, 0].astype(np.int64),
        label=pairs[:, 1].astype(np.int64),
        samples=count.astype(np.int64),
        probability=geometric_mean(logarithm, np.maximum(count, 1)[:, None]),
        unit=unit,
    )


def logarithms(
    probability: Float[np.ndarray, "sample class"],
) -> Float64[np.ndarray, "sample class"]:
    """Return what is added up to be pooled; no opinion is a veto."""
    return np.asarray(np.log(np.maximum(probability, _SMALLEST)), np.float64)


def geometric_mean(
    total: Float64[np.ndarray, "unit class"], count: Int64[np.ndarray, "unit 1"] | int
) -> Float64[np.ndarray, "unit class"]:
    """Return the normalised geometric mean of `count` opinions whose `logarithms` make up `total`."""
    return np.asarray(softmax(total / count, axis=1), np.float64)


def calibrated_evidence(evidence: Evidence) -> Evidence:
    """Return evidence as sure as the given labels bear out: temperature scaling by group.

    Guo et al. 2017 (ICML, arXiv:1706.04599): probabilities to the power of 1/T, of T from 0.5 to
    20 the one of the least cross-entropy against the labels. Which class is likeliest never
    changes. Models that are too sure of everything make every threshold of confident learning 1;
    on simulated forests with 20 % wrong stands this took the worst precision from 0.75 to 0.83.
    """
    if not len(evidence):
        return evidence
    logarithm = np.log(np.maximum(evidence.probability, 1e-12))
    unit = np.arange(len(evidence))
    best, least = evidence.probability, np.inf
    for temperature in np.geomspace(0.5, 20, 60):
        scaled = logarithm / temperature
        scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        scaled /= scaled.sum(axis=1, keepdims=True)
        loss = -np.log(np.maximum(scaled[unit, evidence.label], 1e-300)).mean()
        if loss < least:
            best, least = scaled, loss
    return replace(evidence, probability=best)


def _refuse_wrong(probability: np.ndarray, label: np.ndarray) -> None:
    count, classes = probability.shape
    if count and not 0 <= label.min() <= label.max() < classes:
        raise SampleError(
            f"labels reach from {label.min()} to {label.max()}; {classes} classes allow 0 to "
            f"{classes - 1}"
        )
    is_wrong: Bool[np.ndarray, " sample"] = ~np.isnan(probability).any(axis=1) & (
        (probability < 0).any(axis=1) | (np.abs(probability.sum(axis=1) - 1) > 1e-2)
    )
    if is_wrong.any():
        first = int(np.flatnonzero(is_wrong)[0])
        raise SampleError(
            f"{int(is_wrong.sum())} rows are no probabilities, first sample {first}: "
            f"{probability[first].tolist()!r}"
        )
