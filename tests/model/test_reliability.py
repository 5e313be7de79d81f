import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics
from sklearn.calibration import calibration_curve

from model.certainty.checked import checked_pair
from model.certainty.reliability import (
    assess_reliability,
    brier_score,
    classwise_error,
    log_loss,
    reliability_curve,
)
from model.errors import SampleError


def drawn(count: int, classes: int, seed: int, sharpness: float = 2.0) -> tuple[np.ndarray, ...]:
    """Probabilities and labels that follow them."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, sharpness, (count, classes))
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    label = (probability.cumsum(axis=1) < random.random((count, 1))).sum(axis=1)
    return probability, np.minimum(label, classes - 1).astype(np.int64)


@given(st.integers(1, 60), st.integers(2, 6), st.integers(0, 99))
@settings(deadline=None)
def test_scores_equal_those_of_scikit_learn(count: int, classes: int, seed: int) -> None:
    probability, label = drawn(count, classes, seed)
    every = list(range(classes))
    assert log_loss(probability, label) == pytest.approx(
        metrics.log_loss(label, probability, labels=every)
    )
    squares = [
        metrics.brier_score_loss(label == index, probability[:, index], pos_label=True)
        for index in every
    ]
    assert brier_score(probability, label) == pytest.approx(sum(squares))


def test_curve_equals_that_of_scikit_learn() -> None:
    probability, label = drawn(3000, 4, 1)
    curve = reliability_curve(probability, label)
    right = probability.argmax(axis=1) == label
    accuracy, confidence = calibration_curve(right, probability.max(axis=1), n_bins=15)
    np.testing.assert_allclose(curve.accuracy, accuracy)
    np.testing.assert_allclose(curve.confidence, confidence)
    assert curve.count.sum() == 3000
    adaptive = reliability_curve(probability, label, adaptive=True)
    accuracy, confidence = calibration_curve(
        right, probability.max(axis=1), n_bins=15, strategy="quantile"
    )
    np.testing.assert_allclose(adaptive.accuracy, accuracy, atol=0.01)
    np.testing.assert_allclose(adaptive.confidence, confidence, atol=0.002)
    assert np.ptp(adaptive.count) <= 1


def by_hand(value: np.ndarray, came_true: np.ndarray, bins: int = 15) -> float:
    gap = 0.0
    for index in range(bins):
        lower, upper = index / bins, (index + 1) / bins
        chosen = [i for i, v in enumerate(value) if lower < v <= upper or (index == 0 and v == 0)]
        if chosen:
            gap += abs(value[chosen].mean() - came_true[chosen].mean()) * len(chosen)
    return gap / len(value)


@given(
    hnp.arrays(np.int64, st.tuples(st.integers(1, 40), st.just(3)), elements=st.integers(0, 9)),
    st.integers(0, 99),
)
@settings(deadline=None)
def test_errors_equal_a_loop_over_bins(counts: np.ndarray, seed: int) -> None:
    # a tenth of a vote each, as forests give: many equal values, on the bins' edges too
    probability = (counts + 1e-3) / (counts + 1e-3).sum(axis=1, keepdims=True)
    label = np.random.default_rng(seed).integers(0, 3, len(counts))
    right = probability.argmax(axis=1) == label
    error = reliability_curve(probability, label).error
    assert error == pytest.approx(by_hand(probability.max(axis=1), right), abs=1e-9)
    classes = [by_hand(probability[:, index], label == index) for index in range(3)]
    assert classwise_error(probability, label) == pytest.approx(np.mean(classes), abs=1e-9)
    order = np.random.default_rng(seed + 1).permutation(len(label))
    again = reliability_curve(probability[order], label[order], adaptive=True)
    assert again.error == pytest.approx(reliability_curve(probability, label, adaptive=True).error)


def test_honest_probabilities_show_no_more_error_than_chance() -> None:
    honest = assess_reliability(*drawn(2000, 5, 3))
    assert honest.error < 1.7 * honest.chance_error
    probability, label = drawn(2000, 5, 3)
    boasting = probability**4 / (probability**4).sum(axis=1, keepdims=True)
    found = assess_reliability(boasting, label)
    assert found.accuracy == honest.accuracy
    assert found.error > 5 * found.chance_error
    assert found.adaptive_error > 0.1
    assert found.log_loss > honest.log_loss
    assert found.brier > honest.brier


def test_equal_probabilities_and_one_sample_have_a_reliability() -> None:
    even = np.full((8, 4), 0.25, np.float32)
    found = assess_reliability(even, np.zeros(8, np.int64))
    assert found.error == pytest.approx(0.75)
    assert found.curve.count.tolist() == [8]
    assert found.log_loss == pytest.approx(np.log(4))
    one = assess_reliability(np.array([[0.9, 0.1]]), np.array([1]))
    assert one.error == pytest.approx(0.9)
    text = json.loads(json.dumps(one.to_dict(), allow_nan=False))
    assert text["samples"] == 1
    assert text["curve"]["confidence"] == [0.9]


def test_what_is_no_probability_is_refused() -> None:
    good = np.array([[0.5, 0.5], [0.2, 0.8]])
    for bad, row in ((np.nan, 0), (np.inf, 0), (1.5, 0), (-0.5, 0)):
        wrong = good.copy()
        wrong[row, 0] = bad
        with pytest.raises(SampleError, match="1 of 2 rows are no probabilities, first row 0"):
            assess_reliability(wrong, np.array([0, 1]))
    with pytest.raises(SampleError, match="2 rows of probabilities but 1 values of 'label'"):
        checked_pair(good, np.array([0]))
    with pytest.raises(SampleError, match="labels reach from 0 to 2; 2 columns allow 0 to 1"):
        log_loss(good, np.array([0, 2]))
    with pytest.raises(SampleError, match="there is no held-out sample"):
        reliability_curve(np.empty((0, 3)), np.empty(0, np.int64))
