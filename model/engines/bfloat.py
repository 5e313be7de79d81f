"""Float32 in, the bfloat16 that stand for them out: rounded, in pairs, or in parts.

A bfloat16 has the upper sixteen bits of a float32: its range, and two to three digits.
"""

import numpy as np
from jaxtyping import Float32, Int32, UInt16

from model.engines.arithmetic import Arithmetic


def pairs_of(
    values: Float32[np.ndarray, "*many"],
) -> Int32[np.ndarray, "*many"]:
    """Return float32 rounded to bfloat16, as integers of their sixteen bits; NaN stays NaN."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.int32)


def in_pairs(
    first: Float32[np.ndarray, "*many"], second: Float32[np.ndarray, "*many"]
) -> Float32[np.ndarray, "*many"]:
    """Return words of two bfloat16 each."""
    words = pairs_of(first) | (pairs_of(second) << 16)
    return np.asarray(words.astype(np.int32).view(np.float32))


def input_products(arithmetic: Arithmetic, *, is_scaled: bool) -> tuple[tuple[int, int], ...]:
    """Return which parts of inputs tiles multiply with which parts of weights.

    Both are split into bfloat16. Three products are right to 2^-16; inputs that are not scaled may
    be large, and `split` takes six.
    """
    if arithmetic.split and not is_scaled:
        return (0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)
    return (0, 0), (1, 0), (0, 1)


def parts_of(
    values: Float32[np.ndarray, "*many"],
) -> list[UInt16[np.ndarray, "*many"]]:
    """Return three bfloat16 whose sum is each value: the nearest, then that of what it leaves."""
    parts, left = [], values
    for _ in range(3):
        parts.append(pairs_of(left).astype(np.uint16))
        left = left - (parts[-1].astype(np.uint32) << 16).view(np.float32)
    return parts
