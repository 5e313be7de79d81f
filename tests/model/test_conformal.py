import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.certainty.conformal import (
    ConformalSets,
    calibrate_sets,
    cross_conformal,
)
from model.errors import ClassifierError, SampleError


def drawn(
    groups: int, per_group: int, *, classes: int = 4, seed: int = 0, alike: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, labels and groups; samples of a group are hard or easy together."""
    random = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), per_group)
    label = (np.arange(groups) % classes)[group].astype(np.int64)
    logits = random.normal(0, 1, (len(group), classes))
    ease = 2.0 + random.normal(0, alike, groups)[group] + random.normal(0, 1, len(group))
    logits[np.arange(len(group)), label] += ease
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probability, label, group


@given(st.integers(1, 40), st.integers(0, 99), st.sampled_from([0.5, 0.8, 0.9]))
@settings(deadline=None)
def test_one_group_gives_the_finite_sample_quantile(count: int, seed: int, coverage: float) -> None:
    random = np.random.default_rng(seed)
    true = random.integers(1, 100, count) / 100
    probability = np.stack([true, 1 - true], axis=1)
    label = np.zeros(count, np.int64)
    sets = calibrate_sets(probability, label, label, coverage=coverage)
    # brute force: the smallest score that ceil((n + 1) coverage) scores lie at or below
    needed = math.ceil((count + 1) * coverage - 1e-9)
    scores = [1 - value for value in true]
    enough = [s for s in scores if sum(other <= s + 1e-12 for other in scores) >= needed]
    assert sets.threshold[0] == pytest.approx(min(enough) if enough else 1.0)


def test_nine_in_ten_of_every_class_are_covered_over_held_out_groups() -> None:
    shares = []
    for seed in range(3):
        found = cross_conformal(*drawn(160, 12, seed=seed), seed=seed)
        shares.append(found.share)
        assert (found.by_class >= 0.85).all()
        assert found.by_group == pytest.approx(found.share, abs=0.01)  # groups of equal size
    assert np.mean(shares) == pytest.approx(0.9, abs=0.015)


def test_alike_samples_raise_the_level() -> None:
    # thirty groups, of which three are hopeless: samples alone would say that 90 % are easy
    probability, label, group = drawn(30, 20, classes=2, seed=4, alike=2.5)
    plain = [
        np.sort(1 - probability[label == index, index])[math.ceil(0.9 * 301) - 1]
        for index in range(2)
    ]
    raised = calibrate_sets(probability, label, group).threshold
    assert (raised >= np.array(plain) - 1e-9).all()
    assert (raised > np.array(plain) + 1e-6).any()


def test_a_class_with_few_groups_is_not_left_to_itself() -> None:
    probability, label, group = drawn(60, 5, classes=3)
    few = label == 2
    easy = few & (group < 10)  # three groups that are always right
    probability[easy] = [0.005, 0.005, 0.99]
    keep = ~few | easy
    sets = calibrate_sets(probability[keep], label[keep], group[keep])
    assert sets.groups.tolist() == [20, 20, 3]
    alone = calibrate_sets(probability[easy], label[easy], group[easy])
    assert alone.threshold[2] <= 0.011
    assert sets.threshold[2] >= sets.threshold[:2].min() > 0.011
    # one that was never held out has the threshold of all
    wider = np.pad(probability[keep], ((0, 0), (0, 1)))
    four = calibrate_sets(wider, label[keep], group[keep])
    assert four.groups[3] == 0
    assert four.threshold[3] == pytest.approx(sets.threshold[2])
    by_class = cross_conformal(wider, label[keep], group[keep]).by_class
    assert np.isnan(by_class[3])


def test_a_single_hard_sample_cannot_be_ruled_out() -> None:
    probability = np.array([[0.9, 0.1]] * 40)
    label = np.zeros(40, np.int64)
    label[7] = 1
    sets = calibrate_sets(probability, label, np.arange(40))
    assert sets.never_ruled_out == (1,)
    assert sets.sets(np.array([[1.0, 0.0]])).tolist() == [[True, True]]


def test_sets_hold_what_is_likely_enough() -> None:
    sets = ConformalSets(
        coverage=0.9, threshold=np.array([0.4, 0.7, 1.0]), groups=np.array([20, 20, 2])
    )
    given_rows = np.array([[0.6, 0.3, 0.1], [0.59, 0.29, 0.12], [np.nan] * 3], np.float32)
    expected = [[True, True, True], [False, False, True], [False, False, False]]
    assert sets.sets(given_rows).tolist() == expected
    assert sets.sets(given_rows.astype(np.float64)).tolist() == expected
    with pytest.raises(ClassifierError, match="sets are of 3 classes, the probabilities of 2"):
        sets.sets(np.full((4, 2), 0.5))


def test_probabilities_that_are_all_equal_cover_all() -> None:
    even = np.full((30, 3), 1 / 3)
    label = np.arange(30) % 3
    found = cross_conformal(even, label, np.arange(30))
    assert found.share == 1
    text = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert text["mean_size"] == 3
    assert text["by_class"] == [1, 1, 1]


def test_sets_survive_their_dictionary_and_refuse_another() -> None:
    sets = calibrate_sets(*drawn(40, 5))
    text = json.loads(json.dumps(sets.to_dict(), allow_nan=False))
    again = ConformalSets.from_dict(text, classes=4)
    np.testing.assert_array_equal(again.threshold, sets.threshold)
    np.testing.assert_array_equal(again.groups, sets.groups)
    changes: list[tuple[str, Any, str]] = [
        ("threshold", [0.1, 0.2, 0.3], "expected 4 numbers"),
        ("threshold", [0.1, 0.2, 0.3, "x"], "expected 4 numbers"),
        ("threshold", [0.1, 0.2, 0.3, math.nan], "expected 0 to 1 for each"),
        ("threshold", [0.1, 0.2, 0.3, 1.5], "expected 0 to 1 for each"),
        ("groups", [1, 2, 3, 4.5], "expected 4 numbers"),
        ("coverage", 1.0, "expected between 0 and 1"),
        ("coverage", "0.9", "expected between 0 and 1"),
    ]
    for name, value, message in changes:
        with pytest.raises(ClassifierError, match=message):
            ConformalSets.from_dict(text | {name: value}, classes=4)
    with pytest.raises(ClassifierError, match="conformal sets need"):
        ConformalSets.from_dict({"coverage": 0.9}, classes=4)


def test_what_cannot_be_calibrated_is_refused() -> None:
    probability, label, group = drawn(10, 3)
    with pytest.raises(SampleError, match=r"coverage is 1\.0; expected between 0 and 1"):
        calibrate_sets(probability, label, group, coverage=1.0)
    with pytest.raises(SampleError, match="two of each are the least"):
        cross_conformal(probability, label, np.zeros(30, np.int64))


def test_fewer_groups_than_none_are_refused() -> None:
    entry = {"coverage": 0.9, "threshold": [0.5, 1.0], "groups": [3, -5]}
    with pytest.raises(ClassifierError, match=r"groups of the sets are \[3, -5\]; expected 0 or"):
        ConformalSets.from_dict(entry, classes=2)
