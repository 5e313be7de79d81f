"""Classes and their parents in, a tree out: scores and answers at every level of a legend."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Int64

from model.errors import ConfigError

UNDECIDED = -1
"""Node of a sample that no node of the legend is probable enough for."""


@dataclass(frozen=True, kw_only=True)
class Legend:
    """Classes as the leaves of a tree, e.g. leaf type > genus > species.

    Level 0 is the roots; a class that lies higher than others stands for itself further down, so
    that every level has every sample.
    """

    classes: tuple[str, ...]
    """The leaves, in the order of the classifier's classes."""
    parents: Mapping[str, str] = field(default_factory=dict)
    """Node to the node above it; a class that is not in it is a root."""

    def __post_init__(self) -> None:
        for name, parent in self.parents.items():
            if not (isinstance(name, str) and isinstance(parent, str)):
                raise ConfigError(f"legend gives {name!r} the parent {parent!r}; names are text")
        above = set(self.parents.values())
        if both := sorted(above & set(self.classes)):
            raise ConfigError(
                f"legend: {both[0]!r} is a class and stands above {self._below(both[0])!r}; "
                "only leaves are classes, give the node above another name"
            )
        if odd := sorted(set(self.parents) - above - set(self.classes)):
            raise ConfigError(
                f"legend names {odd[0]!r}, which is no class and above none; classes are "
                f"{', '.join(self.classes)}"
            )
        if blank := [name for name in above if not name.strip()]:
            raise ConfigError(
                f"legend gives {self._below(blank[0])!r} a blank parent; leave it out"
            )
        for name in self.parents:
            if self._path(name) is None:
                raise ConfigError(f"legend: {name!r} lies above itself")

    def _below(self, parent: str) -> str:
        return next(name for name, above in self.parents.items() if above == parent)

    def _path(self, name: str) -> tuple[str, ...] | None:
        path = [name]
        while (above := self.parents.get(path[0])) is not None:
            if above in path:
                return None
            path.insert(0, above)
        return tuple(path)

    def path(self, name: str) -> tuple[str, ...]:
        """Return the nodes from the root down to `name`, itself included."""
        found = self._path(name)
        assert found is not None  # no node lies above itself
        return found

    @cached_property
    def depth(self) -> int:
        """Number of levels; 1 for classes without parents."""
        return max((len(self.path(name)) for name in self.classes), default=0)

    def nodes(self, level: int) -> tuple[str, ...]:
        """Return the names that stand at a level, in the order of the classes."""
        return tuple(dict.fromkeys(self._at(name, level) for name in self.classes))

    def _at(self, name: str, level: int) -> str:
        path = self.path(name)
        return path[min(level, len(path) - 1)]

    def node_of_class(self, level: int) -> Int64[np.ndarray, "class"]:
        """Return, for each class, its index into `nodes(level)`."""
        place = {name: index for index, name in enumerate(self.nodes(level))}
        return np.array([place[self._at(name, level)] for name in self.classes], np.int64)

    def probability(
        self, probability: Float32[np.ndarray, "sample class"], level: int
    ) -> Float32[np.ndarray, "sample node"]:
        """Add up class probabilities to those of the nodes of a level."""
        summed = np.zeros((len(probability), len(self.nodes(level))), np.float32)
        np.add.at(summed.T, self.node_of_class(level), probability.T)
        return summed

    @cached_property
    def every_node(self) -> tuple[str, ...]:
        """All names: first the classes, then the nodes above them, the deepest first."""
        above = [name for level in reversed(range(self.depth)) for name in self.nodes(level)]
        return tuple(dict.fromkeys([*self.classes, *above]))

    def back_off(
        self, probability: Float32[np.ndarray, "sample class"], *, least: float
    ) -> Int64[np.ndarray, "sample"]:
        """Return the most exact node that is at least so probable, as an index into `every_node`.

        A sample whose best class is probable enough gets it; else the best node of the level above
        is asked, and so on to the roots; `UNDECIDED` where none suffices (or probability is NaN).
        """
        node = np.full(len(probability), UNDECIDED, np.int64)
        place = {name: index for index, name in enumerate(self.every_node)}
        for level in reversed(range(self.depth)):
            summed = self.probability(probability, level)
            names = self.nodes(level)
            index = np.array([place[name] for name in names], np.int64)
            best = np.nan_to_num(summed, nan=-1).argmax(axis=1)
            enough = summed[np.arange(len(summed)), best] >= least
            chosen = enough & (node == UNDECIDED)
            node[chosen] = index[best[chosen]]
        return node

    def to_dict(self) -> dict[str, str]:
        """Return node and parent as what JSON can hold."""
        return dict(self.parents)


def is_under(legend: Legend, class_index: Sequence[int], node: Sequence[int]) -> np.ndarray:
    """Say for each pair whether the class lies under the node of `every_node`, or is it."""
    paths = [frozenset(legend.path(name)) for name in legend.classes]
    names = legend.every_node
    return np.array(
        [
            where != UNDECIDED and names[where] in paths[which]
            for which, where in zip(class_index, node, strict=True)
        ],
        dtype=bool,
    )
