"""True and predicted classes in, scores out: a confusion matrix and what follows from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """How well held-out samples were told apart.

    These are scores of the samples, which were not drawn at random from a map: they are no map
    accuracy and no area estimate.
    """

    classes: tuple[str, ...]
    """Names, in the order of the matrix."""
    confusion: Int64[np.ndarray, "true predicted"]
    """Number of samples by the class of their label (row) and the predicted class (column)."""

    @classmethod
    def from_labels(
        cls,
        true: Int64[np.ndarray, "sample"],
        predicted: Int64[np.ndarray, "sample"],
        classes: tuple[str, ...],
    ) -> "Scores":
        """Count the pairs of class indices."""
        confusion = np.zeros((len(classes), len(classes)), np.int64)
        np.add.at(confusion, (true, predicted), 1)
        return cls(classes=classes, confusion=confusion)

    @property
    def support(self) -> Int64[np.ndarray, "class"]:
        """Number of samples of each true class."""
        support: np.ndarray = self.confusion.sum(axis=1)
        return support

    @property
    def accuracy(self) -> float:
        """Share of samples whose predicted class is that of their label; NaN without samples."""
        return float(_share(np.asarray(self.confusion.trace()), np.asarray(self.confusion.sum())))

    @property
    def precision(self) -> Float64[np.ndarray, "class"]:
        """Share of what was predicted as a class that is of it; NaN if nothing was."""
        return _share(self.confusion.diagonal(), self.confusion.sum(axis=0))

    @property
    def recall(self) -> Float64[np.ndarray, "class"]:
        """Share of a class that was found; NaN if there is none of it."""
        return _share(self.confusion.diagonal(), self.support)

    @property
    def f1(self) -> Float64[np.ndarray, "class"]:
        """Harmonic mean of precision and recall; NaN if the class neither is nor was predicted."""
        predicted = self.confusion.sum(axis=0)
        return _share(2 * self.confusion.diagonal(), self.support + predicted)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that have held-out samples; NaN without samples."""
        scored = self.f1[self.support > 0]
        return float(scored.mean()) if scored.size else float("nan")

    @property
    def weighted_f1(self) -> float:
        """Mean F1 weighted by the number of true samples; NaN without samples."""
        there = self.support > 0
        if not there.any():
            return float("nan")
        return float(np.average(self.f1[there], weights=self.support[there]))

    @property
    def unscored(self) -> tuple[str, ...]:
        """Classes without a held-out sample."""
        return tuple(n for n, s in zip(self.classes, self.support, strict=True) if s == 0)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold; None stands for a value that does not exist."""
        per_class = {
            name: {
                "precision": _number(self.precision[index]),
                "recall": _number(self.recall[index]),
                "f1": _number(self.f1[index]),
                "support": int(self.support[index]),
            }
            for index, name in enumerate(self.classes)
        }
        return {
            "accuracy": _number(self.accuracy),
            "macro_f1": _number(self.macro_f1),
            "weighted_f1": _number(self.weighted_f1),
            "per_class": per_class,
            "unscored": list(self.unscored),
            "classes": list(self.classes),
            "confusion": self.confusion.tolist(),
        }


def merged(scores: Scores, parent: Mapping[str, str]) -> Scores:
    """Sum the matrix of `scores` onto the parents of its classes: a pine taken for a spruce is a
    conifer taken for a conifer.

    `parent` says where a class belongs; a class that it does not name stays what it is. Parents
    come in the order of their first class. Raises `ValueError` if it names what is no class.
    """
    unknown = sorted(set(parent) - set(scores.classes))
    if unknown:
        raise ValueError(f"{unknown!r} are no classes of the scores; those are {scores.classes!r}")
    names = [parent.get(name, name) for name in scores.classes]
    parents = tuple(dict.fromkeys(names))
    member = np.array([parents.index(name) for name in names], np.int64)
    confusion = np.zeros((len(parents), len(parents)), np.int64)
    np.add.at(confusion, (member[:, None], member[None, :]), scores.confusion)
    return Scores(classes=parents, confusion=confusion)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide; NaN where there is nothing to have a share of."""
    share = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=share, where=whole > 0)
    return share


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
