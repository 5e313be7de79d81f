"""Values in, which of them stand for "missing" out: -999, 65535, zeros in every band …."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32

FILLS = (-32768.0, -9999.0, -999.0, 65535.0)
"""What products and exports write where they have nothing."""

SCALES = (1.0, 1e-3, 1e-4)
"""Physical value of one count: of what is not scaled, of AOT and water vapour, of reflectance."""

_LARGEST_REAL = 3.0
"""No band, scaled, reaches beyond it, so that every fill value there is one."""

_STEP = 1e-4
_PEAK = 5.0
"""How many times as frequent as its neighbours a value must be that could be real."""

_FEWEST = 3
"""How often it must be there at least: fewer are chance."""


def is_fill(
    values: Float32[np.ndarray, "sample time band"], bands: Sequence[str]
) -> Bool[np.ndarray, "sample time band"]:
    """Say which values stand for "missing".

    A fill value such as -999, as it is or scaled to reflectance (-0.0999), counts where it could
    not be real or is far more frequent than the values beside it; a step counts where every one of
    three bands or more is 0, which is a product's own nodata.
    """
    found = np.zeros(values.shape, bool)
    for at in range(len(bands)):
        found[..., at] = _fill_of_band(values[..., at])
    if len(bands) >= 3:
        is_zero = (values == 0) | found
        found |= (is_zero.all(axis=2) & (values == 0).any(axis=2))[..., np.newaxis]
    return found


def _fill_of_band(values: Float32[np.ndarray, "sample time"]) -> Bool[np.ndarray, "sample time"]:
    found = np.zeros(values.shape, bool)
    for scale in SCALES:
        for fill in FILLS:
            value = fill * scale
            is_it = np.abs(values - np.float32(value)) <= max(1e-6, abs(value) * 1e-6)
            if not is_it.any():
                continue
            if abs(value) > _LARGEST_REAL or _is_peak(values, value, int(is_it.sum())):
                found |= is_it
    return found


def _is_peak(values: Float32[np.ndarray, "sample time"], value: float, count: int) -> bool:
    """Say whether a value that could be real is far more frequent than those next to it."""
    away = np.abs(values - np.float32(value))
    beside = ((away > _STEP / 2) & (away < 10.5 * _STEP)).sum() / 20
    return bool(count >= max(_FEWEST, _PEAK * beside))
