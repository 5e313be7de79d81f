"""Values of a column in, what centres and scales it out: one rule for networks and simple models."""

import numpy as np
from jaxtyping import Float64

LIMIT = 10.0
"""Scaled values end at +-10 standard deviations: a cloud edge must not saturate every gate."""

_LEAST_SPREAD = 1e-6
"""Spread in parts of the largest value below which a column is constant: Float32 has seven digits,
so that less is rounding. It is relative because bands have units: radar's power is far below 1."""


def centre_and_scale(values: Float64[np.ndarray, "value"]) -> tuple[float, float]:
    """Return the mean and the standard deviation of finite values, at least one.

    A constant column says nothing, and dividing by rounding noise would make it shout: its scale is
    its largest absolute value, at least 1.
    """
    mean, spread, largest = values.mean(), values.std(), np.abs(values).max()
    if spread <= max(_LEAST_SPREAD * largest, np.finfo(np.float32).tiny):
        spread = max(largest, 1.0)
    return float(mean), float(spread)
