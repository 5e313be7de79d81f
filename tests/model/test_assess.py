import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from model.assess import Scores, merged

pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


@given(pairs)
def test_scores_equal_those_of_scikit_learn(given_pairs: list[tuple[int, int]]) -> None:
    true, predicted = (np.array(side, np.int64) for side in zip(*given_pairs, strict=True))
    scores = Scores.from_labels(true, predicted, ("a", "b", "c", "d", "e"))
    every = list(range(5))
    np.testing.assert_array_equal(
        scores.confusion, metrics.confusion_matrix(true, predicted, labels=every)
    )
    assert scores.accuracy == pytest.approx(metrics.accuracy_score(true, predicted))
    there = sorted(set(true.tolist()))
    for average, ours in (("macro", scores.macro_f1), ("weighted", scores.weighted_f1)):
        theirs = metrics.f1_score(true, predicted, labels=there, average=average, zero_division=0.0)
        assert ours == pytest.approx(theirs)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        true, predicted, labels=every, zero_division=np.nan
    )
    np.testing.assert_allclose(scores.precision, precision)
    np.testing.assert_allclose(scores.recall, recall)
    np.testing.assert_allclose(scores.f1, f1)
    np.testing.assert_array_equal(scores.support, support)


def test_dictionary_is_strict_json_and_names_what_was_not_scored() -> None:
    scores = Scores.from_labels(np.array([0, 0, 1]), np.array([0, 1, 1]), ("oak", "fir", "elm"))
    text = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert text["unscored"] == ["elm"]
    assert text["per_class"]["elm"] == {
        "precision": None, "recall": None, "f1": None, "support": 0,
    }  # fmt: skip
    assert text["confusion"] == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert text["macro_f1"] == pytest.approx(2 / 3, abs=1e-6)


def test_no_samples_give_no_score() -> None:
    none = np.array([], np.int64)
    scores = Scores.from_labels(none, none, ("a", "b"))
    assert np.isnan([scores.accuracy, scores.macro_f1, scores.weighted_f1]).all()
    assert scores.to_dict()["accuracy"] is None


@given(pairs)
def test_merged_scores_equal_those_of_labels_merged_before(
    given_pairs: list[tuple[int, int]],
) -> None:
    true, predicted = (np.array(side, np.int64) for side in zip(*given_pairs, strict=True))
    scores = Scores.from_labels(true, predicted, ("pine", "oak", "spruce", "ash", "water"))
    leaf = {"pine": "conifer", "spruce": "conifer", "oak": "broadleaf", "ash": "broadleaf"}
    found = merged(scores, leaf)
    assert found.classes == ("conifer", "broadleaf", "water")
    number = np.array([0, 1, 0, 1, 2])
    expected = metrics.confusion_matrix(number[true], number[predicted], labels=[0, 1, 2])
    np.testing.assert_array_equal(found.confusion, expected)


def test_merging_what_is_no_class_is_refused() -> None:
    none = np.array([], np.int64)
    scores = Scores.from_labels(none, none, ("a", "b"))
    with pytest.raises(ValueError, match=r"\['c'\] are no classes of the scores; those are"):
        merged(scores, {"c": "d"})
