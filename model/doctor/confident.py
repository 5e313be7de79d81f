"""Labels and out-of-fold probabilities in, suspects out: confident learning, group by group.

Confident learning is Northcutt, Jiang & Chuang 2021 (Journal of Artificial Intelligence Research
70, doi:10.1613/jair.1.12125): a label is doubted where another class reaches the probability that
its own members reach on average. The paper judges examples; here a group is the example, for a
stand was labelled once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from model.doctor.evidence import Evidence, calibrated_evidence, gather_evidence
from model.errors import ConfigError
from model.samples import Samples
from model.split import Folds

Prune = Literal["noise rate", "class", "both", "either"]
"""How many labels are doubted, and which: by the noise of each pair of classes, or of each class."""

OutOfFoldFit = Callable[
    [Samples, Folds, Bool[np.ndarray, "sample"]], Float[np.ndarray, "sample class"]
]
"""(samples, folds, is_trusted) to the probabilities of every sample by a model that learned from
trusted samples of other folds only; rows of NaN for samples that are never held out."""

_LEAST_UNITS = 2
"""Groups of a class that go on training however doubtful: without any the class is gone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Diagnosis:
    """What is thought of every group's label; the most doubtful first."""

    group: Int64[np.ndarray, "unit"]
    """The group; twice if its samples have two labels."""
    given: Int64[np.ndarray, "unit"]
    """The class it was given."""
    suggested: Int64[np.ndarray, "unit"]
    """The class that its samples look most like; for a suspect another than the given one."""
    score: Float64[np.ndarray, "unit"]
    """Doubt, 0..1: half of 1 + (probability of the likeliest other class - that of the given one),
    so 0.5 is a tie."""
    is_suspect: Bool[np.ndarray, "unit"]
    """Whether confident learning doubts the label."""
    samples: Int64[np.ndarray, "unit"]
    """Number of samples it was judged by."""
    agreement: Float64[np.ndarray, "unit"]
    """Share of them that by themselves look most like the suggested class."""
    probability: Float64[np.ndarray, "unit class"]
    """What its samples say together, calibrated."""
    joint: Float64[np.ndarray, "given true"]
    """Estimated share of all groups that were given a class (row) and are of a class (column)."""
    unjudged: int
    """Number of groups without a prediction: always trained on, never held out."""

    def __len__(self) -> int:
        return len(self.group)

    @property
    def suspects(self) -> Int64[np.ndarray, "suspect"]:
        """Groups that are doubted, the most doubtful first."""
        suspects: np.ndarray = self.group[self.is_suspect]
        return suspects

    @property
    def noise(self) -> float:
        """Estimated share of groups with a wrong label, found or not."""
        return float(1 - self.joint.trace()) if len(self) else 0.0


def self_thresholds(
    probability: Float64[np.ndarray, "unit class"], label: Int64[np.ndarray, "unit"]
) -> Float64[np.ndarray, "class"]:
    """Return the mean probability of each class over the units that were given it.

    A class without a unit has 1, which nothing but certainty reaches.
    """
    classes = probability.shape[1]
    count = np.bincount(label, minlength=classes)
    own = np.bincount(label, probability[np.arange(len(label)), label], minlength=classes)
    thresholds: np.ndarray = np.ones(classes)
    np.divide(own, count, out=thresholds, where=count > 0)
    return thresholds


def confident_joint(
    probability: Float64[np.ndarray, "unit class"],
    label: Int64[np.ndarray, "unit"],
    thresholds: Float64[np.ndarray, "class"],
) -> Int64[np.ndarray, "given true"]:
    """Count the units of each given class (row) that confidently are of a class (column).

    A unit confidently is of the likeliest class among those whose threshold it reaches; a unit
    that reaches none is not counted.
    """
    classes = len(thresholds)
    reached = np.where(probability >= thresholds, probability, -1.0)
    likeliest = reached.argmax(axis=1)
    is_counted = reached.max(axis=1, initial=-1.0) >= 0
    joint = np.zeros((classes, classes), np.int64)
    np.add.at(joint, (label[is_counted], likeliest[is_counted]), 1)
    return joint


def calibrated(
    joint: Int64[np.ndarray, "given true"], count: Int64[np.ndarray, "given"]
) -> Float64[np.ndarray, "given true"]:
    """Scale a confident joint to shares of all units: its rows to the counts of the given classes.

    A class of which no unit is confident is taken to be right.
    """
    rows = joint.sum(axis=1)
    table = np.where(rows[:, None] > 0, joint, np.eye(len(joint)))
    table = table / table.sum(axis=1, keepdims=True) * count[:, None]
    shares: np.ndarray = table / max(float(table.sum()), 1.0)
    return shares


def find_suspects(
    probability: Float[np.ndarray, "sample class"],
    label: Int64[np.ndarray, "sample"],
    group: Int64[np.ndarray, "sample"],
    *,
    prune: Prune = "both",
    calibrate: bool = True,
) -> Diagnosis:
    """Judge the label of every group by out-of-fold probabilities (rows of NaN: none).

    `prune` decides who is doubted. With n the number of groups and Q the calibrated joint:
    "noise rate" takes, of each pair of classes, the n Q[given, true] groups of the largest margin
    between the two; "class", of each class, the n (sum of its row of Q without the diagonal)
    groups of the smallest probability of their own class; "both" those in both, "either" those in
    one. A group whose given class is its likeliest is never doubted. To judge samples one by one,
    give each a group of its own. With `calibrate` the groups' probabilities are calibrated first
    (`calibrated_evidence`). Raises `SampleError` for labels that are no class and rows that are no
    probabilities.
    """
    evidence = gather_evidence(probability, label, group)
    if calibrate:
        evidence = calibrated_evidence(evidence)
    return _judged(evidence, probability, group, prune)


def diagnose(
    fit: OutOfFoldFit,
    samples: Samples,
    folds: Folds,
    *,
    rounds: int = 2,
    prune: Prune = "both",
) -> Diagnosis:
    """Judge all labels in rounds: from the second on, models do not learn from earlier suspects.

    Wrong labels damage the model that is to find them. Whom "either" way to prune doubts does not
    train in the next round, whatever `prune` is: leaving a right label out costs a model little,
    a wrong one left in costs much. All are predicted and judged again, so a group that a poor
    model doubted can be cleared. Two groups of each class go on training whatever is thought of
    them, the least doubtful ones. Ends early when the groups left out stay the same. Raises
    `ConfigError` for no rounds, `SampleError` for what `fit` must not give.
    """
    if rounds < 1:
        raise ConfigError(f"{rounds} rounds were asked for; one is the least")
    is_trusted = np.ones(len(samples), dtype=bool)
    for at in range(rounds):
        probability = fit(samples, folds, is_trusted)
        if at + 1 == rounds:
            break
        found = find_suspects(probability, samples.label, samples.group, prune="either")
        trusted_now = ~is_left_out(found, samples)
        if (trusted_now == is_trusted).all():
            break
        is_trusted = trusted_now
    return find_suspects(probability, samples.label, samples.group, prune=prune)


def is_left_out(found: Diagnosis, samples: Samples) -> Bool[np.ndarray, "sample"]:
    """Say which samples should not train: those of suspects, but two groups of each class do.

    These are the least doubtful ones, where a class has no others. A label that somebody has
    decided about is no longer doubted.
    """
    left_out = found.is_suspect.copy()
    for index in range(len(samples.classes)):
        of_class = np.flatnonzero(found.given == index)  # the most doubtful first
        missing = _LEAST_UNITS - int((~left_out[of_class]).sum())
        if missing > 0:
            left_out[of_class[left_out[of_class]][-missing:]] = False
    pairs = set(zip(found.group[left_out].tolist(), found.given[left_out].tolist(), strict=True))
    both = zip(samples.group.tolist(), samples.label.tolist(), strict=True)
    is_doubted = np.array([pair in pairs for pair in both], dtype=bool)
    return is_doubted if samples.is_settled is None else is_doubted & ~samples.is_settled


def _judged(
    evidence: Evidence,
    own: Float[np.ndarray, "sample class"],
    group: Int64[np.ndarray, "sample"],
    prune: Prune,
) -> Diagnosis:
    probability, given = evidence.probability, evidence.label
    classes, unit = probability.shape[1], np.arange(len(evidence))
    count = np.bincount(given, minlength=classes)
    joint = calibrated(
        confident_joint(probability, given, self_thresholds(probability, given)), count
    )
    others = probability.copy()
    others[unit, given] = -1.0
    rival = others.argmax(axis=1)
    margin = others[unit, rival] - probability[unit, given]
    suggested = np.where(margin > 0, rival, given)
    is_suspect = _pruned(probability, given, joint, prune) & (margin > 0)
    order = np.lexsort((evidence.group, -margin))
    known = len(np.unique(evidence.group))
    return Diagnosis(
        group=evidence.group[order],
        given=given[order],
        suggested=suggested[order],
        score=np.clip((1 + margin) / 2, 0, 1)[order],
        is_suspect=is_suspect[order],
        samples=evidence.samples[order],
        agreement=_agreement(evidence, own, suggested)[order],
        probability=probability[order],
        joint=joint,
        unjudged=len(np.unique(group)) - known,
    )


def _pruned(
    probability: Float64[np.ndarray, "unit class"],
    label: Int64[np.ndarray, "unit"],
    joint: Float64[np.ndarray, "given true"],
    prune: Prune,
) -> Bool[np.ndarray, "unit"]:
    by_class, by_noise = np.zeros((2, len(label)), dtype=bool)
    expected = np.rint(joint * len(label)).astype(np.int64)
    wrong = np.rint((joint.sum(axis=1) - joint.diagonal()) * len(label)).astype(np.int64)
    for given in range(len(joint)):
        members = np.flatnonzero(label == given)
        own = probability[members, given]
        by_class[members[np.argsort(own, kind="stable")[: wrong[given]]]] = True
        for true in range(len(joint)):
            if true != given:
                order = np.argsort(own - probability[members, true], kind="stable")
                by_noise[members[order[: expected[given, true]]]] = True
    chosen: Bool[np.ndarray, " unit"] = {
        "noise rate": by_noise,
        "class": by_class,
        "both": by_noise & by_class,
        "either": by_noise | by_class,
    }[prune]
    return chosen


def _agreement(
    evidence: Evidence,
    own: Float[np.ndarray, "sample class"],
    suggested: Int64[np.ndarray, "unit"],
) -> Float64[np.ndarray, "unit"]:
    """Return the share of each unit's samples whose likeliest class is the suggested one."""
    sample = np.flatnonzero(evidence.unit >= 0)
    unit = evidence.unit[sample]
    is_agreed = own[sample].argmax(axis=1) == suggested[unit]
    agreed: np.ndarray = np.bincount(unit, is_agreed, minlength=len(evidence))
    share: np.ndarray = agreed / np.maximum(evidence.samples, 1)
    return share
