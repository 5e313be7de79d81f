"""A column of numbers in, whether it counts the table's rows and observes nothing out."""

import numpy as np
from jaxtyping import Float64

_FEWEST = 8
"""Different values below which an order may be chance: 8 rise by chance once in 40,000 times."""

_SURE, _DENSE = 1000, 2
"""So many whole numbers that are all different are names, as are fewer that leave few numbers out:
of counts of a sensor some would be alike."""


def counts_rows(value: Float64[np.ndarray, " row"]) -> bool:
    """Say whether numbers rise (or fall) from row to row of a table, or name each row.

    Rows are often sorted by class: such a column then tells the class, and nothing of what grows.
    """
    steps = np.diff(value)
    different = np.unique(value[np.isfinite(value)])
    if len(different) < _FEWEST:
        return False
    with np.errstate(invalid="ignore"):
        if (steps >= 0).all() or (steps <= 0).all():
            return True
    is_name = len(different) == len(value) and bool((different == np.rint(different)).all())
    span = float(different[-1] - different[0])
    return is_name and (len(value) >= _SURE or span < _DENSE * len(value))
