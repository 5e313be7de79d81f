"""Arrays in, a fitted baseline out and back: predicts, and is saved without anything that can run."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from model.baselines.columns import Columns
from model.baselines.rules import Arrays, Layers
from model.baselines.trees import Trees
from model.errors import ClassifierError, FeatureError
from model.features import FeatureSet

_MOST_LAYERS = 8
_MOST_CLASSES = 65_535


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedBaseline:
    """A simple classifier that has learned; a `Predictor`."""

    kind: str
    """Its name, e.g. `random forest`."""
    class_count: int
    """Number of classes, those without training samples included."""
    present: Int64[np.ndarray, "present"]
    """Indices of the classes it was trained on, rising; the others get probability 0."""
    columns: Columns
    """How reflectance becomes what it sees."""
    rule: Layers | Trees
    """What it learned."""

    def __post_init__(self) -> None:
        if not 1 <= self.class_count <= _MOST_CLASSES:
            raise ClassifierError(f"{self.class_count} classes; expected 1 to {_MOST_CLASSES}")
        inside = (self.present >= 0) & (self.present < self.class_count)
        if not len(self.present) or not inside.all() or (np.diff(self.present) < 1).any():
            raise ClassifierError(
                f"classes {self.present.tolist()!r} are not of {self.class_count}"
            )
        self.rule.check(self.columns.count, len(self.present))

    @property
    def features(self) -> FeatureSet:
        """What it sees at each step."""
        return self.columns.features

    def probability(
        self,
        reflectance: Float32[np.ndarray, "sample time band"],
        bands: tuple[str, ...],
        *,
        batch: int = 512,
    ) -> Float32[np.ndarray, "sample class"]:
        """Return the probability of each class; 0 for one it never saw.

        Physical units in, NaN where not clear. Raises `ClassifierError` for another number of
        periods, `FeatureError` for a missing band.
        """
        probability = np.zeros((len(reflectance), self.class_count), np.float32)
        # In pieces, so that memory does not grow with the number of samples.
        for start in range(0, len(reflectance), batch):
            table = self.columns.table(reflectance[start : start + batch], bands)
            probability[start : start + batch, self.present] = self.rule.probability(table)
        return probability

    def to_arrays(self) -> tuple[dict[str, Any], Arrays]:
        """Return what JSON can hold, and arrays by name; `from_arrays` takes both."""
        columns = {"median": self.columns.median, "present": self.present}
        if self.columns.mean is not None and self.columns.deviation is not None:
            columns |= {"mean": self.columns.mean, "deviation": self.columns.deviation}
        description: dict[str, Any] = {
            "kind": self.kind,
            "class_count": self.class_count,
            "features": list(self.features.names),
            "keeps_gaps": self.columns.keeps_gaps,
            "scaled": self.columns.mean is not None,
        }
        if isinstance(self.rule, Layers):
            description |= {"rule": "layers", "layers": len(self.rule.weights)}
        else:
            description |= {"rule": "boosted" if self.rule.is_boosted else "forest"}
        return description, {**columns, **self.rule.to_arrays()}

    @classmethod
    def from_arrays(cls, description: dict[str, Any], arrays: Arrays) -> "FittedBaseline":
        """Take what `to_arrays` gave, trusting none of it.

        Raises `ClassifierError` for what is missing, has another shape or type, is not finite, or
        would lead a walk through a tree out of it or in a circle.
        """
        try:
            return cls._taken(description, arrays)
        except ClassifierError:
            raise
        except KeyError as error:
            raise ClassifierError(f"the stored model lacks {error.args[0]!r}") from error
        except (TypeError, ValueError, OverflowError, FeatureError) as error:
            raise ClassifierError(f"the stored model has a wrong entry: {error}") from error

    @classmethod
    def _taken(cls, description: dict[str, Any], arrays: Arrays) -> "FittedBaseline":
        for name, values in arrays.items():
            if not isinstance(values, np.ndarray) or values.dtype.hasobject:
                raise ClassifierError(f"{name!r} of the stored model is no array of numbers")
        scaled = _flag(description, "scaled")
        kept = ("median", "mean", "deviation") if scaled else ("median",)
        for name in kept:
            if arrays[name].dtype != np.float32 or arrays[name].ndim != (
                2 if name == "median" else 1
            ):
                raise ClassifierError(f"{name!r} of the stored model is {arrays[name].dtype} "
                                      f"{arrays[name].shape!r}")  # fmt: skip
        present = arrays["present"]
        if present.dtype != np.int64 or present.ndim != 1:
            raise ClassifierError(f"'present' of the stored model is {present.dtype}")
        names = description["features"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ClassifierError(f"features of the stored model are {names!r}")
        columns = Columns(
            features=FeatureSet(names=tuple(names)),
            median=arrays["median"],
            keeps_gaps=_flag(description, "keeps_gaps"),
            mean=arrays["mean"] if scaled else None,
            deviation=arrays["deviation"] if scaled else None,
        )
        return cls(
            kind=str(description["kind"]),
            class_count=_whole(description, "class_count", _MOST_CLASSES),
            present=present,
            columns=columns,
            rule=_rule(description, arrays),
        )


def _rule(description: dict[str, Any], arrays: Arrays) -> Layers | Trees:
    match description["rule"]:
        case "layers":
            return Layers.from_arrays(arrays, _whole(description, "layers", _MOST_LAYERS))
        case "boosted" | "forest" as rule:
            return Trees.from_arrays(arrays, is_boosted=rule == "boosted")
    raise ClassifierError(f"rule {description['rule']!r} of the stored model is not known")


def _flag(description: dict[str, Any], name: str) -> bool:
    value = description[name]
    if not isinstance(value, bool):
        raise ClassifierError(f"{name!r} of the stored model is {value!r}; expected true or false")
    return value


def _whole(description: dict[str, Any], name: str, most: int) -> int:
    value = description[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ClassifierError(f"{name!r} of the stored model is {value!r}; expected 1 to {most}")
    return value
