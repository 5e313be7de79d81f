"""A shape in, an array that begins at a cache line out.

A vector of 64 bytes that does not lie in one line costs two reads, and NumPy begins arrays anywhere.
"""

import math

import numpy as np

_LINE = 64


def aligned_zeros(*shape: int, dtype: type[np.generic] = np.float32) -> np.ndarray:
    """Return an array of zeros."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def aligned_copy(values: np.ndarray) -> np.ndarray:
    """Return the same values in an array in C order."""
    copied = aligned_zeros(*values.shape, dtype=values.dtype.type)
    copied[...] = values
    return copied
