"""Fitted trees of scikit-learn in, `Trees` out: their arrays, side by side."""

from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from model.baselines.trees import LEAF, Trees


def unfolded_forest(model: Any) -> Trees:
    """Take the arrays of a `RandomForestClassifier`; every leaf holds the shares of the classes."""
    parts: list[dict[str, np.ndarray]] = []
    leaves: list[np.ndarray] = []
    for estimator in model.estimators_:
        tree = estimator.tree_
        is_leaf = tree.children_left < 0
        shares = tree.value[is_leaf, 0]  # (leaf, class)
        leaves.append(shares / shares.sum(axis=1, keepdims=True))
        parts.append(
            {
                "feature": np.where(is_leaf, LEAF, tree.feature),
                "threshold": not_above(tree.threshold),
                "left": tree.children_left,
                "right": tree.children_right,
                "missing_left": np.zeros(len(is_leaf), np.uint8),
            }
        )
    output = np.full(len(parts), LEAF)
    return _side_by_side(parts, leaves, output, np.zeros(len(model.classes_)), is_boosted=False)


def unfolded_boosting(model: Any) -> Trees:
    """Take the arrays of a `HistGradientBoostingClassifier`, one tree per class and round."""
    parts: list[dict[str, np.ndarray]] = []
    leaves: list[np.ndarray] = []
    output: list[int] = []
    # With two classes only the second has trees and a start; the first one's score is 0.
    start = np.append([0.0] * (len(model.classes_) == 2), model._baseline_prediction.ravel())
    for round_of_trees in model._predictors:
        shift = len(model.classes_) - len(round_of_trees)
        for number, predictor in enumerate(round_of_trees):
            nodes = predictor.nodes
            is_leaf = nodes["is_leaf"].astype(bool)
            leaves.append(nodes["value"][is_leaf][:, None])
            output.append(number + shift)
            parts.append(
                {
                    "feature": np.where(is_leaf, LEAF, nodes["feature_idx"].astype(np.int64)),
                    "threshold": not_above(nodes["num_threshold"]),
                    "left": nodes["left"].astype(np.int64),
                    "right": nodes["right"].astype(np.int64),
                    "missing_left": nodes["missing_go_to_left"].astype(np.uint8),
                }
            )
    return _side_by_side(parts, leaves, np.array(output), start, is_boosted=True)


def not_above(threshold: Float64[np.ndarray, "node"]) -> Float32[np.ndarray, "node"]:
    """Return the largest Float32 at or below each threshold: Float32 rows go the same way."""
    narrow = threshold.astype(np.float32)
    return np.where(narrow > threshold, np.nextafter(narrow, np.float32(-np.inf)), narrow)


def _side_by_side(
    parts: list[dict[str, np.ndarray]],
    leaves: list[np.ndarray],
    output: np.ndarray,
    start: np.ndarray,
    *,
    is_boosted: bool,
) -> Trees:
    """Number nodes and leaves through over all trees."""
    root = np.cumsum([0, *(len(part["feature"]) for part in parts)])
    first_leaf = np.cumsum([0, *map(len, leaves)])
    for part, first, before in zip(parts, root, first_leaf, strict=False):
        is_leaf = part["feature"] == LEAF
        own = np.cumsum(is_leaf) - 1 + before
        part["left"] = np.where(is_leaf, own, part["left"] + first)
        part["right"] = np.where(is_leaf, LEAF, part["right"] + first)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Trees(
        root=root[:-1].astype(np.int32),
        output=output.astype(np.int32),
        feature=joined["feature"].astype(np.int32),
        threshold=joined["threshold"].astype(np.float32),
        left=joined["left"].astype(np.int32),
        right=joined["right"].astype(np.int32),
        missing_left=joined["missing_left"],
        leaf=np.concatenate(leaves).astype(np.float32),
        start=start.astype(np.float64),
        is_boosted=is_boosted,
    )
