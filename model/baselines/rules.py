"""Rows of columns in, class scores out: linear models and perceptrons as plain arrays."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from model.errors import ClassifierError

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Layers:
    """Linear layers with max(0, x) between them; a linear model has one layer."""

    weights: tuple[Float32[np.ndarray, "_ _"], ...]
    """One matrix per layer, from columns to classes."""
    offsets: tuple[Float32[np.ndarray, "_"], ...]
    """Added after each layer."""

    def check(self, columns: int, classes: int) -> None:
        """Refuse arrays that do not lead from `columns` to `classes`: `ClassifierError`."""
        width = columns
        for weight, offset in zip(self.weights, self.offsets, strict=True):
            if weight.ndim != 2 or weight.shape[0] != width or offset.shape != weight.shape[1:]:
                raise ClassifierError(
                    f"a layer has shapes {weight.shape!r} and {offset.shape!r}; expected {width} in"
                )
            if not (np.isfinite(weight).all() and np.isfinite(offset).all()):
                raise ClassifierError("a layer has values that are not finite")
            width = weight.shape[1]
        if width != classes:
            raise ClassifierError(f"the last layer gives {width} scores for {classes} classes")

    def probability(
        self, table: Float32[np.ndarray, "sample column"]
    ) -> Float64[np.ndarray, "sample class"]:
        """Return the softmax of the last layer; in Float64, so that rounding does not depend on
        how many rows come at once."""
        values = table.astype(np.float64)
        for number, (weight, offset) in enumerate(zip(self.weights, self.offsets, strict=True)):
            if number:
                np.maximum(values, 0, out=values)
            values = values @ weight.astype(np.float64) + offset
        return softmax(values)

    def to_arrays(self) -> Arrays:
        """Return everything by name."""
        weights = {f"weight{number}": weight for number, weight in enumerate(self.weights)}
        return weights | {f"offset{number}": offset for number, offset in enumerate(self.offsets)}

    @classmethod
    def from_arrays(cls, arrays: Arrays, layers: int) -> "Layers":
        """Take what `to_arrays` gave; raises `KeyError` if something is missing."""
        return cls(
            weights=tuple(_float32(arrays[f"weight{number}"]) for number in range(layers)),
            offsets=tuple(_float32(arrays[f"offset{number}"]) for number in range(layers)),
        )


def softmax(
    score: Float64[np.ndarray, "sample class"],
) -> Float64[np.ndarray, "sample class"]:
    """Return exp(score) with rows that sum to 1."""
    power = np.exp(score - score.max(axis=1, keepdims=True))
    share: np.ndarray = power / power.sum(axis=1, keepdims=True)
    return share


def _float32(values: np.ndarray) -> np.ndarray:
    if values.dtype != np.float32:
        raise ClassifierError(f"weights are {values.dtype}; expected float32")
    return values
