"""Rows of columns in, class probabilities out: forests and boosted trees as plain arrays."""

from dataclasses import dataclass, fields
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt8

from model.baselines.rules import Arrays, softmax
from model.errors import ClassifierError
from model.networks.kept import kept

LEAF = -1
"""Feature of a node that ends a tree; output of a tree whose leaves speak of every class."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trees:
    """Decision trees one after the other; the nodes of a tree follow its root."""

    root: Int32[np.ndarray, "tree"]
    """First node of each tree, rising."""
    output: Int32[np.ndarray, "tree"]
    """The class whose score a tree adds to; -1 where its leaves hold one value per class."""
    feature: Int32[np.ndarray, "node"]
    """Column that a node looks at; -1 for a leaf."""
    threshold: Float32[np.ndarray, "node"]
    """Rows at or below it go left."""
    left: Int32[np.ndarray, "node"]
    """The node on the left, which comes later; of a leaf: its row in `leaf`."""
    right: Int32[np.ndarray, "node"]
    """The node on the right, which comes later."""
    missing_left: UInt8[np.ndarray, "node"]
    """1 where a row without a value goes left."""
    leaf: Float32[np.ndarray, "leaf width"]
    """What leaves hold: a share per class, or one score."""
    start: Float64[np.ndarray, "class"]
    """Score of each class before any tree; 0 for a forest."""
    is_boosted: bool
    """Whether values are summed and become probabilities by softmax; else they are averaged."""

    def check(self, columns: int, classes: int) -> None:
        """Refuse arrays that a walk could leave or circle in: `ClassifierError`."""
        nodes, trees = len(self.feature), len(self.root)
        if any(len(getattr(self, name)) != nodes for name in _OF_NODES) or (
            len(self.output) != trees or self.start.shape != (classes,)
        ):
            raise ClassifierError("the arrays of the trees have different lengths")
        if not trees or self.root[0] != 0 or (np.diff(self.root) < 1).any():
            raise ClassifierError("the roots of the trees do not rise from 0")
        if self.root[-1] >= nodes:
            raise ClassifierError(f"a tree begins at node {self.root[-1]}, of {nodes}")
        self._check_nodes(columns)
        width = 1 if self.is_boosted else classes
        if self.leaf.ndim != 2 or self.leaf.shape[1] != width:
            raise ClassifierError(f"leaves have shape {self.leaf.shape!r}; expected {width} values")
        lowest, highest = (0, classes - 1) if self.is_boosted else (LEAF, LEAF)
        if not ((self.output >= lowest) & (self.output <= highest)).all():
            raise ClassifierError(f"a tree speaks of a class beyond the {classes} there are")
        known = (np.isfinite(values).all() for values in (self.leaf, self.start))
        if not all(known) or np.isnan(self.threshold).any():
            raise ClassifierError("the trees hold values that are not finite")
        if not self.is_boosted and ((self.leaf < 0).any() or (self.leaf > 1.001).any()):
            raise ClassifierError("the leaves of a forest hold shares outside 0..1")

    def _check_nodes(self, columns: int) -> None:
        number = np.arange(len(self.feature))
        end = np.append(self.root[1:], len(number))  # one past the last node of each tree
        end_of_node = np.repeat(end, np.diff(np.append(self.root, len(number))))
        is_leaf = self.feature == LEAF
        if not ((self.feature >= LEAF) & (self.feature < columns)).all():
            raise ClassifierError(f"a node looks at a column beyond the {columns} there are")
        # A child comes after its parent and within the tree, so that every walk ends in a leaf.
        for child in (self.left[~is_leaf], self.right[~is_leaf]):
            if not ((child > number[~is_leaf]) & (child < end_of_node[~is_leaf])).all():
                raise ClassifierError("a node leads out of its tree or back")
        row = self.left[is_leaf]
        if not ((row >= 0) & (row < len(self.leaf))).all():
            raise ClassifierError(f"a leaf points beyond the {len(self.leaf)} values there are")

    def probability(
        self, table: Float32[np.ndarray, "sample column"]
    ) -> Float64[np.ndarray, "sample class"]:
        """Return the probability of each class for rows that may hold NaN."""
        total = np.tile(self.start, (len(table), 1))  # (sample, class)
        _walk(
            np.ascontiguousarray(table), self.root, self.output, self.feature, self.threshold,
            self.left, self.right, self.missing_left, self.leaf, total,
        )  # fmt: skip
        if self.is_boosted:
            return softmax(total)
        share: np.ndarray = total / np.maximum(total.sum(axis=1, keepdims=True), 1e-12)
        return share

    def to_arrays(self) -> Arrays:
        """Return the arrays by name."""
        return {name: getattr(self, name) for name in _DTYPES}

    @classmethod
    def from_arrays(cls, arrays: Arrays, *, is_boosted: bool) -> "Trees":
        """Take what `to_arrays` gave; raises `KeyError` if something is missing."""
        taken = {}
        for name, dtype in _DTYPES.items():
            values = arrays[name]
            if values.dtype != dtype or values.ndim != (2 if name == "leaf" else 1):
                raise ClassifierError(f"{name!r} of the trees is {values.dtype} {values.shape!r}")
            taken[name] = values
        return cls(**taken, is_boosted=is_boosted)


_OF_NODES = ("threshold", "left", "right", "missing_left")
_DTYPES = {
    "root": np.int32, "output": np.int32, "feature": np.int32, "threshold": np.float32,
    "left": np.int32, "right": np.int32, "missing_left": np.uint8, "leaf": np.float32,
    "start": np.float64,
}  # fmt: skip
assert {field.name for field in fields(Trees)} == {*_DTYPES, "is_boosted"}


@kept()
@no_type_check  # a run-time check inside would keep numba from compiling it
def _walk(
    table: np.ndarray,  # (sample, column) float32, NaN where missing
    root: np.ndarray,  # (tree) and below as in `Trees`
    output: np.ndarray,
    feature: np.ndarray,  # (node)
    threshold: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    missing_left: np.ndarray,
    leaf: np.ndarray,  # (leaf, width)
    total: np.ndarray,  # (sample, class) float64, added to
) -> None:
    for tree in range(len(root)):
        for sample in range(len(table)):
            node = root[tree]
            while feature[node] >= 0:
                value = table[sample, feature[node]]
                goes_left = value <= threshold[node]
                if np.isnan(value):
                    goes_left = missing_left[node] == 1
                node = left[node] if goes_left else right[node]
            row = left[node]
            if output[tree] >= 0:
                total[sample, output[tree]] += leaf[row, 0]
            else:
                for index in range(leaf.shape[1]):
                    total[sample, index] += leaf[row, index]
