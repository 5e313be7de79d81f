"""Held-out probabilities and labels in, sets of classes out that hold the true one nine times in ten.

Class-conditional (Mondrian) split-conformal sets: Vovk, Gammerman & Shafer 2005; the score is one
minus the probability, which gives the smallest sets (Sadinle, Lei & Wasserman 2019). The cumulative
score of Romano, Sesia & Candès 2020 covered as much with sets 1.8 times as large on a simulated
forest of seven classes, whose probabilities are spread over too many of them.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Integer

from model.certainty.checked import checked_pair, group_numbers, parts_of_groups
from model.errors import ClassifierError, SampleError

FEWEST_GROUPS = 10
"""Groups a class needs for a threshold of its own: with 9 the 90 % quantile is the largest score,
and one group more or less would move it anywhere."""

_PARTS = 20
"""Groups are left out in so many parts when the level is raised."""

_LEVELS = 20
"""Levels that are tried between the wanted coverage and 1."""

_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class ConformalSets:
    """Which classes cannot be ruled out, by the probability each would need."""

    coverage: float
    """Share of samples whose true class should be in their set, 0..1 (both excluded)."""
    threshold: Float64[np.ndarray, "class"]
    """A class is in the set where 1 - probability is at most this, 0..1; 1 is always in."""
    groups: Int64[np.ndarray, "class"]
    """Calibration groups that hold the class. Below `FEWEST_GROUPS` the threshold is the larger of
    its own and the one of all classes together, which is the latter where there is no group."""

    def __post_init__(self) -> None:
        if not 0 < self.coverage < 1:
            raise ClassifierError(
                f"the coverage of the sets is {self.coverage!r}; expected between 0 and 1"
            )
        with np.errstate(invalid="ignore"):
            is_right = ((self.threshold >= 0) & (self.threshold <= 1)).all()
        if not (is_right and len(self.threshold) == len(self.groups) > 0):
            raise ClassifierError(
                f"thresholds of the sets are {self.threshold.tolist()!r} for "
                f"{len(self.groups)} classes; expected 0 to 1 for each"
            )
        if (self.groups < 0).any():
            raise ClassifierError(
                f"groups of the sets are {self.groups.tolist()!r}; expected 0 or more for each"
            )

    @property
    def never_ruled_out(self) -> tuple[int, ...]:
        """Classes that are in every set: too few groups to say when they are not meant."""
        return tuple(np.flatnonzero(self.threshold >= 1).tolist())

    def sets(
        self, probability: Float[np.ndarray, "sample class"]
    ) -> Bool[np.ndarray, "sample class"]:
        """Tell which classes are in the set of each sample.

        `probability` must have been calibrated as the ones the thresholds are from. A set may be
        empty: every class looks less likely than it does for nine in ten of its own samples. NaN
        is in no set. Raises `ClassifierError` for another number of classes.
        """
        if probability.shape[1] != len(self.threshold):
            raise ClassifierError(
                f"sets are of {len(self.threshold)} classes, the probabilities of "
                f"{probability.shape[1]}"
            )
        # compared as the probability that is needed: pixels need no double precision
        needed = (1 - self.threshold - _ROUNDING).astype(probability.dtype)
        return np.asarray(probability >= needed)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        return {
            "coverage": self.coverage,
            "threshold": self.threshold.tolist(),
            "groups": self.groups.tolist(),
        }

    @classmethod
    def from_dict(cls, entry: Any, *, classes: int) -> "ConformalSets":
        """Read what `to_dict` wrote; raises `ClassifierError` for anything else."""
        names = {"coverage", "threshold", "groups"}
        if not isinstance(entry, dict) or set(entry) != names:
            raise ClassifierError(f"conformal sets need {sorted(names)!r}, found {entry!r}")
        coverage, threshold, groups = (entry[name] for name in ("coverage", "threshold", "groups"))
        if not isinstance(coverage, float):
            raise ClassifierError(
                f"the coverage of the sets is {coverage!r}; expected between 0 and 1"
            )
        for name, values, kinds in (
            ("threshold", threshold, (int, float)),
            ("groups", groups, int),
        ):
            if not (
                isinstance(values, list)
                and len(values) == classes
                and all(isinstance(v, kinds) and not isinstance(v, bool) for v in values)
            ):
                raise ClassifierError(
                    f"{name} of the conformal sets is {values!r}; expected {classes} numbers"
                )
        return cls(
            coverage=coverage,
            threshold=np.array(threshold, np.float64),
            groups=np.array(groups, np.int64),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Coverage:
    """What sets did for samples whose groups they were not calibrated on."""

    sets: Bool[np.ndarray, "sample class"]
    """The set of each sample."""
    covered: Bool[np.ndarray, "sample"]
    """Whether it holds the true class."""
    by_class: Float64[np.ndarray, "class"]
    """Share of covered samples of each true class, 0..1; NaN for a class without samples."""
    by_group: float
    """Mean over the groups of their share of covered samples, 0..1: what the next group may
    expect, where small groups count as much as large ones."""

    @property
    def share(self) -> float:
        """Share of covered samples, 0..1."""
        return float(self.covered.mean())

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as what JSON can hold; None for a class without samples."""
        size = self.sets.sum(axis=1)
        return {
            "share": round(self.share, 6),
            "by_group": round(self.by_group, 6),
            "by_class": [None if math.isnan(v) else round(float(v), 6) for v in self.by_class],
            "mean_size": round(float(size.mean()), 6),
            "single": round(float((size == 1).mean()), 6),
            "empty": round(float((size == 0).mean()), 6),
        }


def calibrate_sets(
    probability: Float[np.ndarray, "sample class"],
    label: Integer[np.ndarray, "sample"],
    group: Integer[np.ndarray, "sample"],
    *,
    coverage: float = 0.9,
) -> ConformalSets:
    """Find the threshold of each class from held-out samples.

    It is the finite-sample quantile over samples. As samples of one group are alike, that alone
    covers too few of a class with few groups (0.83 for 0.9 was seen), so its level is raised
    until, with groups left out in turn, the wanted share of their samples is covered. To weigh
    groups equally and add one unknown group (hierarchical conformal prediction: Dunn, Wasserman &
    Ramdas 2022; Lee, Barber & Willett 2023) covered most samples too often (0.91 to 0.97 for 0.9
    with 12 to 60 blocks a class). Raises `SampleError` for what are no probabilities, a coverage
    outside 0..1.
    """
    checked, true = checked_pair(probability, label)
    number = group_numbers(group, len(true))
    if not 0 < coverage < 1:
        raise SampleError(f"coverage is {coverage!r}; expected between 0 and 1, e.g. 0.9")
    score = 1 - checked[np.arange(len(true)), true]
    pooled = _threshold(score, number, coverage)
    classes = checked.shape[1]
    groups = np.array([len(np.unique(number[true == index])) for index in range(classes)], np.int64)
    threshold = np.full(classes, pooled)
    for index in np.flatnonzero(groups):
        members = true == index
        own = _threshold(score[members], number[members], coverage)
        threshold[index] = own if groups[index] >= FEWEST_GROUPS else max(own, pooled)
    return ConformalSets(coverage=float(coverage), threshold=threshold, groups=groups)


def cross_conformal(
    probability: Float[np.ndarray, "sample class"],
    label: Integer[np.ndarray, "sample"],
    group: Integer[np.ndarray, "sample"],
    *,
    coverage: float = 0.9,
    folds: int = 10,
    seed: int = 0,
) -> Coverage:
    """Measure sets on groups (or blocks) other than those their thresholds are from.

    Groups are dealt to `folds` parts; each part gets the sets of the others. Raises `SampleError`
    for fewer than two groups and what `calibrate_sets` refuses.
    """
    checked, true = checked_pair(probability, label)
    number = group_numbers(group, len(true))
    part = parts_of_groups(number, folds, seed=seed)
    sets = np.zeros(checked.shape, bool)
    for index in range(int(part.max()) + 1):
        others = part != index
        found = calibrate_sets(checked[others], true[others], number[others], coverage=coverage)
        sets[~others] = found.sets(checked[~others])
    return coverage_of(sets, true, number)


def coverage_of(
    sets: Bool[np.ndarray, "sample class"],
    true: Int64[np.ndarray, "sample"],
    number: Int64[np.ndarray, "sample"],
) -> Coverage:
    """Return how often sets hold the `true` class, given the `number` 0, 1 … of each group."""
    covered = sets[np.arange(len(true)), true]
    of_class = np.bincount(true, minlength=sets.shape[1])
    hits = np.bincount(true, weights=covered, minlength=sets.shape[1])
    by_class = np.full(len(of_class), np.nan)
    np.divide(hits, of_class, out=by_class, where=of_class > 0)
    by_group = np.bincount(number, weights=covered) / np.bincount(number)
    return Coverage(sets=sets, covered=covered, by_class=by_class, by_group=float(by_group.mean()))


def _threshold(
    score: Float64[np.ndarray, "sample"],
    group: Int64[np.ndarray, "sample"],
    coverage: float,
) -> float:
    every = np.sort(score)
    if len(np.unique(group)) < 2:
        return _quantile(every, coverage)
    part = parts_of_groups(group, _PARTS, seed=0)
    held = [np.sort(score[part == index]) for index in range(int(part.max()) + 1)]
    rest = [np.sort(score[part != index]) for index in range(len(held))]
    level = coverage
    for level in np.linspace(coverage, 1, _LEVELS, endpoint=False).tolist():
        covered = sum(
            int(np.searchsorted(out, _quantile(others, level), side="right"))
            for out, others in zip(held, rest, strict=True)
        )
        if covered >= coverage * len(score) - _ROUNDING:
            break
    return _quantile(every, level)


def _quantile(rising: Float64[np.ndarray, "sample"], level: float) -> float:
    """Return the score that `level` of all lie at or below, one more sample being at 1."""
    place = math.ceil(level * (len(rising) + 1) - _ROUNDING) - 1
    return float(rising[place]) if place < len(rising) else 1.0
