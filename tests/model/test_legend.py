from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ConfigError
from model.legend import UNDECIDED, Legend, is_under

CLASSES = ("larch_JP", "larch_CN", "pine", "oak", "shrub")
FOREST = Legend(
    classes=CLASSES,
    parents={
        "larch_JP": "larch",
        "larch_CN": "larch",
        "larch": "conifers",
        "pine": "conifers",
        "oak": "broadleaf",
    },
)


def test_levels_go_from_the_roots_to_the_classes() -> None:
    assert FOREST.depth == 3
    assert FOREST.nodes(0) == ("conifers", "broadleaf", "shrub")
    assert FOREST.nodes(1) == ("larch", "pine", "oak", "shrub")
    assert FOREST.nodes(2) == CLASSES
    assert FOREST.node_of_class(0).tolist() == [0, 0, 0, 1, 2]
    assert FOREST.every_node == (*CLASSES, "larch", "conifers", "broadleaf")


def test_probabilities_add_up_along_the_tree() -> None:
    probability = np.array([[0.3, 0.25, 0.2, 0.15, 0.1]], np.float32)
    np.testing.assert_allclose(FOREST.probability(probability, 0), [[0.75, 0.15, 0.1]], atol=1e-6)
    np.testing.assert_allclose(
        FOREST.probability(probability, 1), [[0.55, 0.2, 0.15, 0.1]], atol=1e-6
    )


def test_a_doubtful_sample_is_answered_higher_up() -> None:
    probability = np.array(
        [
            [0.8, 0.1, 0.1, 0.0, 0.0],  # a species
            [0.4, 0.35, 0.15, 0.1, 0.0],  # a genus
            [0.3, 0.25, 0.2, 0.15, 0.1],  # a leaf type
            [0.3, 0.0, 0.0, 0.35, 0.35],  # nothing
            [np.nan] * 5,
        ],
        np.float32,
    )
    node = FOREST.back_off(probability, least=0.7)
    names = [FOREST.every_node[index] if index != UNDECIDED else None for index in node]
    assert names == ["larch_JP", "larch", "conifers", None, None]
    assert is_under(FOREST, [0, 2, 2, 0, 0], node.tolist()).tolist() == [
        True,
        False,
        True,
        False,
        False,
    ]


@given(st.lists(st.floats(0.01, 1), min_size=5, max_size=5), st.floats(0.05, 1))
def test_an_answer_is_as_probable_as_was_asked(weights: list[float], least: float) -> None:
    probability = np.array([weights], np.float32) / np.float32(sum(weights))
    (node,) = FOREST.back_off(probability, least=least)
    if node == UNDECIDED:
        assert max(FOREST.probability(probability, 0)[0]) < least + 1e-5
        return
    below = [
        name in FOREST.classes and FOREST.every_node[node] in FOREST.path(name) for name in CLASSES
    ]
    assert probability[0][np.array(below)].sum() >= least - 1e-5


def test_classes_without_parents_are_one_level() -> None:
    flat = Legend(classes=("a", "b"))
    assert flat.depth == 1
    assert flat.nodes(0) == ("a", "b")


@pytest.mark.parametrize(
    ("parents", "words"),
    [
        ({"a": "b"}, "'b' is a class and stands above 'a'"),
        ({"a": "x", "x": "y", "y": "x"}, "'.' lies above itself"),
        ({"c": "x"}, "'c', which is no class and above none; classes are a, b"),
        ({"a": " "}, "gives 'a' a blank parent"),
        ({"b": "x", "a": 5}, "gives 'a' the parent 5; names are text"),
    ],
)
def test_what_is_no_tree_is_refused(parents: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Legend(classes=("a", "b"), parents=parents)
