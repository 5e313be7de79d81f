import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.certainty.calibrate import FLOOR, Calibration, calibrate, cross_calibrated
from model.certainty.checked import group_numbers, parts_of_groups
from model.certainty.reliability import assess_reliability
from model.errors import ClassifierError, SampleError


def honest(count: int, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (count, classes))
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    label = (probability.cumsum(axis=1) < random.random((count, 1))).sum(axis=1)
    return probability, np.minimum(label, classes - 1).astype(np.int64)


def sharpened(probability: np.ndarray, power: float) -> np.ndarray:
    powered = probability**power
    return np.asarray(powered / powered.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_temperature_undoes_what_sharpened(power: float) -> None:
    probability, label = honest(20_000)
    found = calibrate(sharpened(probability, power), label)
    assert found.temperature == pytest.approx(power, rel=0.05)
    mended = found.apply(sharpened(probability, power))
    assert assess_reliability(mended, label).error < 0.015


def test_no_other_temperature_has_less_loss() -> None:
    probability, label = honest(400, seed=3)
    probability = sharpened(probability, 3)
    found = calibrate(probability, label).temperature
    # a loop over a fine grid, in other words than the module's
    losses = {}
    for temperature in np.geomspace(0.2, 10, 400):
        flat = np.maximum(probability, FLOOR) ** (1 / temperature)
        flat /= flat.sum(axis=1, keepdims=True)
        losses[temperature] = -np.log(flat[np.arange(400), label]).mean()
    assert found == pytest.approx(min(losses, key=lambda key: losses[key]), rel=0.03)


@given(st.integers(0, 50), st.floats(0.05, 20), st.booleans())
@settings(deadline=None)
def test_applying_keeps_sums_and_order(seed: int, temperature: float, forest: bool) -> None:
    probability, _ = honest(20, seed=seed)
    if forest:  # votes of ten trees: zeros and ties
        probability = np.random.default_rng(seed).multinomial(10, [0.6, 0.3, 0.1, 0.0], 20) / 10
    mended = Calibration(temperature=temperature).apply(probability)
    assert mended.dtype == np.float32
    np.testing.assert_allclose(mended.sum(axis=1), 1, rtol=1e-5)
    order = np.argsort(probability, axis=1, kind="stable")
    assert (np.diff(np.take_along_axis(mended, order, axis=1), axis=1) >= -1e-6).all()
    single = Calibration(temperature=temperature).apply(probability[3:4])
    np.testing.assert_array_equal(single[0], mended[3])


def test_what_was_never_predicted_stays_so() -> None:
    probability = np.array([[0.5, 0.5], [np.nan, np.nan]], np.float32)
    mended = Calibration(temperature=2.0).apply(probability)
    assert np.isfinite(mended[0]).all()
    assert np.isnan(mended[1]).all()


def test_a_handful_that_is_right_gives_no_certainty() -> None:
    probability = np.array([[0.7, 0.2, 0.1]] * 5)
    few = calibrate(probability, np.zeros(5, np.int64)).apply(probability)
    assert 0.7 < few[0, 0] < 0.95
    # all alike, and every class possible: nothing to learn, and no error
    even = np.full((6, 3), 1 / 3)
    assert calibrate(even, np.array([0, 1, 2, 0, 1, 2])).apply(even) == pytest.approx(1 / 3)


def test_a_class_that_was_never_learned_does_not_set_the_temperature() -> None:
    probability, label = honest(1000)
    known = calibrate(probability, label).temperature
    # a hundred samples of a fifth class, of which the model knows nothing
    wider = np.pad(np.concatenate([probability, probability[:100]]), ((0, 0), (0, 1)))
    strange = np.concatenate([label, np.full(100, 4)])
    assert calibrate(wider, strange).temperature == pytest.approx(known, rel=0.1)
    only = calibrate(wider[:5], np.full(5, 4))
    assert only == Calibration(temperature=1.0)


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_shares_that_are_right_are_left_alone_and_sharp_ones_mended(power: float) -> None:
    share = np.random.default_rng(2).dirichlet(np.ones(4), 400)
    given_shares = sharpened(share, power)
    label = share.argmax(axis=1)
    found = calibrate(given_shares, label, share=share)
    assert found.temperature == pytest.approx(power, rel=0.1)
    assert np.abs(found.apply(given_shares) - share).mean() < 0.02
    # shares of one class each are labels
    alone = np.eye(4)[label]
    assert calibrate(given_shares, label, share=alone) == calibrate(given_shares, label)


def test_no_temperature_saw_the_groups_it_is_applied_to() -> None:
    probability, label = honest(600, seed=5)
    probability = sharpened(probability, 2)
    group = np.repeat(np.arange(60), 10)
    before = cross_calibrated(probability, label, group, seed=1)
    assert len(before.temperatures) == 5
    # with other labels in one part, all parts but that one get another temperature
    part = parts_of_groups(group, 5, seed=1)
    changed = np.where(part == 2, (label + 1) % 4, label)
    after = cross_calibrated(probability, changed, group, seed=1)
    same = np.array(before.temperatures) == np.array(after.temperatures)
    assert same.tolist() == [False, False, True, False, False]
    np.testing.assert_array_equal(before.probability[part == 2], after.probability[part == 2])


@given(st.lists(st.integers(0, 12), min_size=2, max_size=60), st.integers(2, 8))
@settings(deadline=None)
def test_parts_hold_whole_groups(groups: list[int], parts: int) -> None:
    group = np.array(groups)
    if len(set(groups)) < 2:
        with pytest.raises(SampleError, match="1 groups in"):
            parts_of_groups(group, parts, seed=0)
        return
    part = parts_of_groups(group, parts, seed=0)
    assert sorted(set(part.tolist())) == list(range(min(parts, len(set(groups)))))
    assert all(len(set(part[group == one].tolist())) == 1 for one in groups)


def test_a_calibration_survives_its_dictionary_and_refuses_another() -> None:
    found = Calibration(temperature=1.7)
    assert Calibration.from_dict(found.to_dict()) == found
    wrong: list[Any] = [{"temperature": 1.0, "more": 2}, {}, [1.0], None]
    for entry in wrong:
        with pytest.raises(ClassifierError, match="expected a temperature and no more"):
            Calibration.from_dict(entry)
    values: list[Any] = [0.0, -1.0, math.nan, math.inf, True, "1", 1e9]
    for value in values:
        with pytest.raises(ClassifierError, match=r"temperature is .*; (expected 0.05 to 20|no)"):
            Calibration.from_dict({"temperature": value})


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(SampleError, match="rows are no probabilities"):
        calibrate(np.array([[np.nan, 1.0]]), np.array([1]))
    with pytest.raises(SampleError, match=r"shares have shape \(1, 2\); 2 samples of 2 classes"):
        calibrate(np.full((2, 2), 0.5), np.array([0, 1]), share=np.array([[0.5, 0.5]]))
    with pytest.raises(SampleError, match="there is no held-out sample"):
        calibrate(np.empty((0, 2)), np.empty(0, np.int64))
    with pytest.raises(SampleError, match="2 rows of probabilities but 1 values of 'group'"):
        group_numbers(np.array([1]), 2)
    with pytest.raises(SampleError, match="two of each are the least"):
        cross_calibrated(np.full((2, 2), 0.5), np.array([0, 1]), np.array([4, 4]))
