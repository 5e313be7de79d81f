"""A random stream and metres in, smooth random fields out: the stuff of hills, clouds and haze."""

import numpy as np
from jaxtyping import Float, Float32, Float64

# Variance of a sum of independent normal values under cubic B-spline weights, averaged over the
# position between the knots: (sum of squared weights)^2 = (151/315)^2 in two dimensions.
_UNIT = 315.0 / 151.0


def _spline_weights(
    position: Float64[np.ndarray, "n"],
) -> tuple[np.ndarray, Float64[np.ndarray, "4 n"]]:
    """Return the first of four knots and the cubic B-spline weight of each."""
    first = np.floor(position).astype(np.intp)
    t = position - first
    weights = np.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    )
    return first, weights / 6


class SmoothNoise:
    """A normal field, mean 0 and variance about 1, twice differentiable, defined in metres.

    Octaves of random values on square lattices, joined by cubic B-splines; elementwise arithmetic
    only (no BLAS), so that the number of threads cannot change a bit.
    """

    def __init__(
        self,
        generator: np.random.Generator,
        *,
        extent: tuple[float, float],
        octaves: tuple[tuple[float, float], ...],
        margin: float = 0.0,
    ) -> None:
        """Draw the lattices.

        `extent` is (height, width) in metres of the square [0, height] x [0, width], usable
        `margin` metres beyond; `octaves` are pairs (lattice spacing in metres, weight).
        """
        total = np.sqrt(sum(weight**2 for _, weight in octaves))
        self._margin = margin
        self._octaves: list[tuple[float, Float64[np.ndarray, "a b"]]] = []
        for spacing, weight in octaves:
            rows, columns = (int(np.ceil((side + 2 * margin) / spacing)) + 4 for side in extent)
            lattice = generator.standard_normal((rows, columns)) * (_UNIT * weight / total)
            self._octaves.append((spacing, lattice))

    def on_grid(
        self, y: Float64[np.ndarray, "y"], x: Float64[np.ndarray, "x"]
    ) -> Float32[np.ndarray, "y x"]:
        """Return the field at every (y, x) of two axes in metres."""
        result = np.zeros((y.size, x.size), np.float32)
        for spacing, lattice in self._octaves:
            row, row_weight = _spline_weights((y + self._margin) / spacing)
            column, column_weight = _spline_weights((x + self._margin) / spacing)
            rows = sum(row_weight[k][:, None] * lattice[row + k] for k in range(4))  # (y, knot)
            rows = np.asarray(rows, np.float32)
            for k in range(4):
                result += column_weight[k].astype(np.float32) * rows[:, column + k]
        return result  # (y, x)


def sigmoid(value: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Return 1 / (1 + exp(-value)) in the dtype of `value`, without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * value)), value.dtype)
