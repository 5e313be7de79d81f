"""Planted wrong labels are found; counts and pools agree with plain loops."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.doctor import (
    Diagnosis,
    confident_joint,
    diagnose,
    doctor_features,
    find_suspects,
    pooled_baselines,
    self_thresholds,
)
from model.doctor.confident import calibrated
from model.doctor.evidence import calibrated_evidence, gather_evidence
from model.errors import ConfigError, FeatureError, SampleError
from model.features import FeatureSet
from model.samples import Samples
from model.split import Folds, make_folds

Make = Callable[..., Samples]

FEW = FeatureSet(names=("log:B04", "NDVI", "B11"))
"""Features that are quick to learn from."""


def random_rows(seed: int, count: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    probability = random.dirichlet(np.full(classes, 0.7), count)
    return probability, random.integers(0, classes, count), random.integers(0, 9, count)


def mislabelled(samples: Samples, share: float, seed: int) -> tuple[Samples, set[int]]:
    """Give so many of the groups another class, drawn evenly."""
    random = np.random.default_rng(seed)
    groups = np.unique(samples.group)
    wrong = random.choice(groups, round(share * len(groups)), replace=False)
    label = samples.label.copy()
    for group in wrong:
        own = samples.group == group
        others = [c for c in range(len(samples.classes)) if c != label[own][0]]
        label[own] = random.choice(others)
    return replace(samples, label=label), set(wrong.tolist())


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 5))
@settings(deadline=None, max_examples=40)
def test_the_confident_joint_is_what_a_loop_counts(seed: int, count: int, classes: int) -> None:
    probability, label, _ = random_rows(seed, count, classes)
    thresholds = self_thresholds(probability, label)
    expected = np.zeros((classes, classes), int)
    for row, given_class in zip(probability, label, strict=True):
        best, reached = None, -1.0
        for candidate in range(classes):
            members = [p[candidate] for p, other in zip(probability, label, strict=True)
                       if other == candidate]  # fmt: skip
            least = sum(members) / len(members) if members else 1.0
            # the mean of equal numbers may differ from them in the last digit
            if row[candidate] >= thresholds[candidate] and row[candidate] > reached:
                best, reached = candidate, row[candidate]
            assert thresholds[candidate] == pytest.approx(least)
        if best is not None:
            expected[given_class, best] += 1
    joint = confident_joint(probability, label, thresholds)
    np.testing.assert_array_equal(joint, expected)
    counts = np.bincount(label, minlength=classes)
    shares = calibrated(joint, counts)
    assert shares.sum() == pytest.approx(1)
    np.testing.assert_allclose(shares.sum(axis=1), counts / count)


@given(st.integers(0, 10_000), st.integers(1, 40))
@settings(deadline=None, max_examples=40)
def test_a_group_is_the_geometric_mean_of_its_samples(seed: int, count: int) -> None:
    probability, label, group = random_rows(seed, count, 3)
    probability[::7] = np.nan
    evidence = gather_evidence(probability, label, group)
    units = sorted({(g, c) for g, c, row in zip(group, label, probability, strict=True)
                    if not np.isnan(row).any()})  # fmt: skip
    assert list(zip(evidence.group, evidence.label, strict=True)) == units
    for place, (g, c) in enumerate(units):
        rows = [row for row, a, b in zip(probability, group, label, strict=True)
                if (a, b) == (g, c) and not np.isnan(row).any()]  # fmt: skip
        pooled = np.prod(np.maximum(rows, 1e-3), axis=0) ** (1 / len(rows))
        np.testing.assert_allclose(evidence.probability[place], pooled / pooled.sum())
        assert evidence.samples[place] == len(rows)
        assert (evidence.unit == place).sum() == len(rows)


def test_calibration_takes_no_more_sureness_than_labels_bear_out() -> None:
    random = np.random.default_rng(1)
    right = random.random(400) < 0.75
    label = np.where(right, 0, 1)
    evidence = gather_evidence(np.tile([0.999, 0.001], (400, 1)), label, np.arange(400))
    made = calibrated_evidence(evidence)
    assert made.probability[0, 0] == pytest.approx(right.mean(), abs=0.02)
    empty = gather_evidence(np.full((1, 2), np.nan), label[:1], label[:1])
    assert len(calibrated_evidence(empty)) == 0


def test_prune_takes_what_the_joint_counts() -> None:
    """Nine labels of each of two classes, one of each plainly wrong, one of class 0 on the edge."""
    own = [0.9] * 7 + [0.55] + [0.05]
    probability = np.array([[p, 1 - p] for p in own] + [[1 - p, p] for p in own])
    probability[7] = (0.45, 0.55)
    label, group = np.repeat([0, 1], 9), np.arange(18)
    found = find_suspects(probability, label, group, calibrate=False)
    assert found.suspects.tolist() == [8, 17]
    assert found.given.tolist()[:2] == [0, 1]
    assert found.suggested.tolist()[:2] == [1, 0]
    assert found.score[:2] == pytest.approx([0.95, 0.95])
    assert found.score[2] == pytest.approx(0.55)  # likelier of the other class, but not confidently
    assert not found.is_suspect[2]
    assert found.agreement.tolist() == [1.0] * 18
    assert found.noise == pytest.approx((9 * 1 / 8 + 9 * 1 / 8) / 18)


@given(st.integers(0, 10_000), st.integers(1, 60))
@settings(deadline=None, max_examples=40)
def test_ways_to_prune_are_nested_and_doubt_no_likeliest_class(seed: int, count: int) -> None:
    probability, label, group = random_rows(seed, count, 4)
    found: dict[str, Diagnosis] = {
        prune: find_suspects(probability, label, group, prune=prune)
        for prune in ("both", "noise rate", "class", "either")
    }
    doubted = {
        prune: {
            (int(g), int(c))
            for g, c, is_suspect in zip(one.group, one.given, one.is_suspect, strict=True)
            if is_suspect
        }
        for prune, one in found.items()
    }
    assert doubted["both"] == doubted["noise rate"] & doubted["class"]
    assert doubted["either"] == doubted["noise rate"] | doubted["class"]
    for one in found.values():
        assert (np.diff(one.score) <= 1e-12).all()
        assert ((one.score >= 0) & (one.score <= 1)).all()
        assert (one.suggested != one.given)[one.is_suspect].all()
        np.testing.assert_array_equal(one.probability.argmax(axis=1), one.suggested)


@pytest.mark.parametrize("seed", range(3))
def test_planted_errors_are_found_group_by_group(make_samples: Make, seed: int) -> None:
    clean = make_samples(groups=90, per_group=4, classes=3, noise=0.05, seed=seed)
    samples, wrong = mislabelled(clean, 0.2, seed)
    folds = make_folds(samples, "grouped", folds=5)
    found = diagnose(pooled_baselines(FEW), samples, folds)
    hits = len(wrong & set(found.suspects.tolist()))
    assert hits / len(wrong) >= 0.8
    assert hits / len(found.suspects) >= 0.8
    assert found.noise == pytest.approx(0.2, abs=0.1)
    true = {group: clean.label[clean.group == group][0] for group in wrong}
    for group, suggested in zip(found.group, found.suggested, strict=True):
        if group in wrong & set(found.suspects.tolist()):
            assert suggested == true[group]


@pytest.mark.parametrize("seed", range(2))
def test_right_labels_are_left_alone(make_samples: Make, seed: int) -> None:
    samples = make_samples(groups=90, per_group=4, classes=3, noise=0.05, seed=seed)
    folds = make_folds(samples, "grouped", folds=5)
    found = diagnose(pooled_baselines(FEW), samples, folds)
    assert len(found.suspects) <= 2
    assert found.noise < 0.05


def test_later_rounds_learn_without_the_doubted(make_samples: Make) -> None:
    clean = make_samples(groups=45, per_group=3, classes=3)
    samples, wrong = mislabelled(clean, 0.2, 1)
    folds = make_folds(samples, "grouped", folds=3)
    trusted: list[np.ndarray] = []
    inner = pooled_baselines(FEW, names=("lda", "lda"))

    def fit(samples: Samples, folds: Folds, is_trusted: np.ndarray) -> np.ndarray:
        trusted.append(is_trusted)
        return inner(samples, folds, is_trusted)

    found = diagnose(fit, samples, folds, rounds=3)
    assert trusted[0].all()
    assert set(samples.group[~trusted[1]].tolist()) & wrong
    assert len(trusted) <= 3
    again = diagnose(inner, samples, folds, rounds=3)
    np.testing.assert_array_equal(found.score, again.score)


def test_a_class_of_doubted_groups_goes_on_training(make_samples: Make) -> None:
    samples = make_samples(groups=12, per_group=2, classes=2)
    folds = make_folds(samples, "grouped", folds=2)
    seen: list[np.ndarray] = []

    def all_of_class_0(samples: Samples, folds: Folds, is_trusted: np.ndarray) -> np.ndarray:
        seen.append(is_trusted)
        rows = np.tile([0.99, 0.01], (len(samples), 1))
        rows[samples.group == 1] = (0.01, 0.99)
        return rows

    diagnose(all_of_class_0, samples, folds, rounds=2)
    for trusted in seen:
        for index in range(2):
            assert len(set(samples.group[trusted & (samples.label == index)].tolist())) >= 2


def test_groups_that_are_never_held_out_are_counted_and_not_judged() -> None:
    probability = np.array([[0.9, 0.1], [np.nan, np.nan], [0.2, 0.8]])
    found = find_suspects(probability, np.array([0, 1, 1]), np.array([5, 6, 7]))
    assert sorted(found.group.tolist()) == [5, 7]
    assert found.unjudged == 1
    nothing = find_suspects(np.full((2, 2), np.nan), np.array([0, 1]), np.array([5, 6]))
    assert (len(nothing), nothing.unjudged, nothing.noise) == (0, 2, 0.0)


def test_samples_without_features_are_not_judged(make_samples: Make) -> None:
    samples = make_samples(groups=24, per_group=4)
    values = samples.reflectance.copy()
    lost = samples.group == samples.group[0]
    values[lost, :, samples.bands.index("B11")] = np.nan
    broken = replace(samples, reflectance=values)
    folds = make_folds(broken, "grouped", seed=1)
    probability = pooled_baselines(FEW)(broken, folds, np.ones(len(broken), dtype=bool))
    np.testing.assert_array_equal(np.isnan(probability).all(axis=1), lost)
    assert diagnose(pooled_baselines(FEW), broken, folds).unjudged == 1
    values[..., samples.bands.index("B11")] = np.nan
    with pytest.raises(SampleError, match="B11 has no value in any sample"):
        pooled_baselines(FEW)(broken, folds, np.ones(len(broken), dtype=bool))


def test_wrong_input_is_refused(make_samples: Make) -> None:
    good, label, group = random_rows(0, 6, 3)
    with pytest.raises(SampleError, match="labels reach from 0 to 3; 3 classes allow 0 to 2"):
        find_suspects(good, np.array([0, 1, 2, 3, 0, 1]), group)
    with pytest.raises(SampleError, match="6 rows are no probabilities, first sample 0"):
        find_suspects(good * 2, label, group)
    samples = make_samples(groups=6)
    folds = make_folds(samples, "grouped", folds=2)
    fit = pooled_baselines(FEW)
    with pytest.raises(ConfigError, match="0 rounds were asked for; one is the least"):
        diagnose(fit, samples, folds, rounds=0)
    with pytest.raises(ConfigError, match="expected one or more baselines"):
        pooled_baselines(FEW, names=())
    with pytest.raises(SampleError, match="leaves no trusted sample to train on"):
        fit(samples, folds, np.zeros(len(samples), dtype=bool))
    with pytest.raises(FeatureError, match="none of the bands"):
        doctor_features(["AOT"])


def test_other_sensors_are_judged_by_their_bands() -> None:
    assert doctor_features(["NDVI_16", "B04"]).names == ("B04", "band:NDVI_16")
    assert doctor_features(["B04", "B08", "VH"]).names == (
        *("log:B04", "log:B08", "shape:B04", "shape:B08", "band:VH"),
    )
