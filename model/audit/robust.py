"""Values with gaps in, medians and spreads that a few wrong ones do not move out."""

import numpy as np
from jaxtyping import Float64, Num

TO_SIGMA = 1.4826
"""Standard deviation of a normal variable over its median absolute deviation."""


def median_known(values: Num[np.ndarray, "row *rest"]) -> Float64[np.ndarray, "*rest"]:
    """Return the median over the first axis of what is not NaN; NaN where nothing is known."""
    known = np.isfinite(values).sum(axis=0)
    if not len(values):
        return np.full(values.shape[1:], np.nan)
    order = np.sort(np.where(np.isfinite(values), values, np.nan), axis=0)  # NaN come last
    low, high = np.maximum(known - 1, 0) // 2, known // 2
    last = len(values) - 1
    both = [
        np.take_along_axis(order, np.minimum(at, last)[np.newaxis], axis=0)[0] for at in (low, high)
    ]
    middle = (both[0].astype(np.float64) + both[1]) / 2
    return np.asarray(np.where(known > 0, middle, np.nan))


def spread_known(values: Num[np.ndarray, "row *rest"]) -> Float64[np.ndarray, "*rest"]:
    """Return the standard deviation that the median absolute deviation stands for."""
    return np.asarray(median_known(np.abs(values - median_known(values))) * TO_SIGMA)
