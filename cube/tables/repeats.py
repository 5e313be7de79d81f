"""Records in, counts out: what repeats itself that should not, and what is told as often."""

from collections import Counter

import numpy as np
from jaxtyping import Bool, Float64, Int16, Int32, Int64

ROUNDING = 1e-6
"""Degrees (0.1 m) by which two texts of one coordinate may differ; samples are 8 m apart."""


def is_spelled_otherwise(
    place: Float64[np.ndarray, "row 2"], other: Float64[np.ndarray, "row 2"]
) -> Bool[np.ndarray, " row"]:
    """Return which longitudes and latitudes differ from the others, but by rounding only."""
    apart = np.abs(place - other).max(axis=1)
    return np.asarray((apart > 0) & (apart < ROUNDING))


def count_filled_down(
    pixel: Int64[np.ndarray, " row"],
    day: Int32[np.ndarray, " row"],
    values: Int16[np.ndarray, "row band"],
) -> int:
    """Count records that repeat every value of the record before them, of another pixel or date.

    That is what filling missing values down a table leaves behind.
    """
    # one band tells nearly all apart, and is compared ten times as fast as all are
    likely = np.flatnonzero(values[1:, 0] == values[:-1, 0])
    has_moved = (pixel[likely + 1] != pixel[likely]) | (day[likely + 1] != day[likely])
    likely = likely[has_moved]
    return int((values[likely + 1] == values[likely]).all(axis=1).sum())


def count_into(counter: Counter[int], values: np.ndarray) -> None:
    """Count how often each whole number is among `values`, of which none is negative."""
    counts = np.bincount(values.ravel())
    counter.update({number: count for number, count in enumerate(counts.tolist()) if count})
