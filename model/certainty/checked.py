"""Probabilities, labels and groups in; the same out, checked, or an error that says what is wrong."""

import numpy as np
from jaxtyping import Float, Float64, Int64, Integer

from model.errors import SampleError

_SUM_TOLERANCE = 1e-3


def checked_probability(
    probability: Float[np.ndarray, "sample class"],
) -> Float64[np.ndarray, "sample class"]:
    """Return probabilities in double precision; rows sum to 1 exactly.

    Raises `SampleError` for NaN, values beyond 0..1 and rows that do not sum to 1.
    """
    double = probability.astype(np.float64)
    total = double.sum(axis=1)
    with np.errstate(invalid="ignore"):
        is_right = (double >= -_SUM_TOLERANCE).all(axis=1) & (np.abs(total - 1) <= _SUM_TOLERANCE)
    if not is_right.all():
        first = int(np.flatnonzero(~is_right)[0])
        raise SampleError(
            f"{int((~is_right).sum())} of {len(double)} rows are no probabilities, first row "
            f"{first}: {double[first].tolist()!r}; expected values of 0..1 that sum to 1"
        )
    np.clip(double, 0, 1, out=double)
    double /= double.sum(axis=1, keepdims=True)
    return double


def checked_pair(
    probability: Float[np.ndarray, "sample class"], label: Integer[np.ndarray, "label"]
) -> tuple[Float64[np.ndarray, "sample class"], Int64[np.ndarray, "sample"]]:
    """Return probabilities and class indices of held-out samples that belong together.

    Raises `SampleError` if there are none, as many labels as rows are missing, or a label is no
    column.
    """
    _refuse_other_length("label", len(label), len(probability))
    if not len(label):
        raise SampleError("there is no held-out sample; certainty is measured on held-out samples")
    classes = probability.shape[1]
    if not 0 <= label.min() <= label.max() < classes:
        raise SampleError(
            f"labels reach from {label.min()} to {label.max()}; {classes} columns allow 0 to "
            f"{classes - 1}"
        )
    return checked_probability(probability), label.astype(np.int64)


def group_numbers(group: Integer[np.ndarray, "unit"], samples: int) -> Int64[np.ndarray, "sample"]:
    """Return the group of each sample, numbered 0, 1 …; raises `SampleError` for another length."""
    _refuse_other_length("group", len(group), samples)
    return np.unique(group, return_inverse=True)[1].astype(np.int64)


def checked_shares(
    share: Float[np.ndarray, "share column"] | None,
    label: Int64[np.ndarray, "sample"],
    classes: int,
) -> Float64[np.ndarray, "sample class"]:
    """Return the share of each class in each sample: all of `label`'s where there are no shares.

    Raises `SampleError` for shares of another shape or that do not sum to 1.
    """
    if share is None:
        return np.asarray(np.eye(classes)[label])
    if share.shape != (len(label), classes):
        raise SampleError(
            f"shares have shape {share.shape!r}; {len(label)} samples of {classes} classes need "
            f"{(len(label), classes)!r}"
        )
    return checked_probability(share)


def parts_of_groups(
    group: Integer[np.ndarray, "sample"], parts: int, *, seed: int
) -> Int64[np.ndarray, "sample"]:
    """Deal whole groups to at most `parts` parts of similar size; return the part of each sample.

    Raises `SampleError` for fewer than two groups or parts.
    """
    number = group_numbers(group, len(group))
    size = np.bincount(number)
    if len(size) < 2 or parts < 2:
        raise SampleError(
            f"{len(size)} groups in {parts} parts were asked for; two of each are the least, or "
            "what is measured was fitted on itself"
        )
    count = min(parts, len(size))
    shuffled = np.random.default_rng(seed).permutation(len(size))
    filled = np.zeros(count)
    part = np.empty(len(size), np.int64)
    # large groups first: what comes late can still even things out
    for unit in shuffled[np.argsort(-size[shuffled], kind="stable")]:
        part[unit] = filled.argmin()
        filled[part[unit]] += size[unit]
    return np.asarray(part[number])


def _refuse_other_length(name: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise SampleError(f"{wanted} rows of probabilities but {found} values of {name!r}")
