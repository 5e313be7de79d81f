"""Dates of looks in, the day of the year that a composite stands for out."""

import numpy as np
from jaxtyping import Bool, Int32, UInt16


def mean_day_of_year(
    days: Int32[np.ndarray, " look"], is_clear: Bool[np.ndarray, "look y x"]
) -> UInt16[np.ndarray, "y x"]:
    """Return the day of the year, 1..366, of the mean date of the clear looks, 0 without any.

    `days` count from 1970-01-01; their mean is rounded to a day, halves to the even number.
    """
    if not days.size:
        return np.zeros(is_clear.shape[1:], np.uint16)
    first = int(days.min())
    count = np.zeros(is_clear.shape[1:], np.int64)
    total = np.zeros(is_clear.shape[1:], np.int64)
    for day, is_usable in zip(days.tolist(), is_clear, strict=True):
        count += is_usable
        total += is_usable * np.int64(day - first)
    mean, rest = np.divmod(total, np.maximum(count, 1))
    mean += (2 * rest > count) | ((2 * rest == count) & ((mean + first) % 2 == 1) & (count > 0))
    dates = np.arange(first, int(days.max()) + 1).astype("M8[D]")
    of_year = (dates - dates.astype("M8[Y]")).astype(np.uint16) + np.uint16(1)
    return np.where(count > 0, of_year[mean], np.uint16(0))
