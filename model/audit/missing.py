"""Values in, which of them stand for "missing" out: -999, 65535, zeros in every band …."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32

from model.features import BANDS

FILLS = (-32768.0, -9999.0, -999.0, 65535.0)
"""What products and exports write where they have nothing."""

SCALES = (1.0, 1e-3, 1e-4)
"""Physical value of one count: of what is not scaled, of AOT and water vapour, of reflectance."""

_LARGEST_REAL = 3.0
"""No band of Sentinel-2, scaled, reaches beyond it, so that every fill value there is one."""

_BEYOND_ALL = 10.0
"""How many times as large as nearly all other values a band's fill value is that one occurrence
shows: a few may be fill that resampling mixed in, and what other sensors measure (decibels, indices
as counts) may well be -9.999 or -999."""

_STEP = 1e-4
"""Reflectance of one count; in other bands steps are as large as the fill value's scale."""

_PEAK = 5.0
"""How many times as frequent as its neighbours a value must be that could be real."""

MODIS_FILL, MODIS_LEAST = -0.3, -0.2
"""What the fill value of MODIS' vegetation indices becomes when it is scaled, and their least real
value; `cube.series` has the same, for neither package may import the other."""

_FEWEST_OTHERS = 50

DIFFERENCES = ("NDVI", "NDWI", "MNDWI", "NDMI", "LSWI", "NBR", "NBR2", "NDRE", "GNDVI")
"""Normalised differences, which are never beyond 1."""

_FEWEST = 3
"""How often it must be there at least: fewer are chance."""


def is_fill(
    values: Float32[np.ndarray, "sample time band"], bands: Sequence[str]
) -> Bool[np.ndarray, "sample time band"]:
    """Say which values stand for "missing".

    A fill value such as -999, as it is or scaled to reflectance (-0.0999), counts where it could
    not be real (in a band of Sentinel-2 beyond 3, in others beyond ten times all other values) or is
    far more frequent than the values beside it; a step counts where every one of
    three bands or more is 0, which is a product's own nodata. Infinity is never a value.
    """
    found: np.ndarray = np.isinf(values)
    for at, band in enumerate(bands):
        found[..., at] |= _fill_of_band(values[..., at], is_own=band in BANDS)
    if len(bands) >= 3:
        is_zero = (values == 0) | found
        found |= (is_zero.all(axis=2) & (values == 0).any(axis=2))[..., np.newaxis]
    return found


def _fill_of_band(
    values: Float32[np.ndarray, "sample time"], *, is_own: bool
) -> Bool[np.ndarray, "sample time"]:
    """Say where a band holds fill; `is_own` is whether it is one of Sentinel-2."""
    found = np.zeros(values.shape, bool)
    largest = _LARGEST_REAL if is_own else _BEYOND_ALL * _largest_of_others(values)
    for scale in SCALES:
        for fill in FILLS:
            value = fill * scale
            is_it = _equals(values, value)
            if not is_it.any():
                continue
            step = _STEP if is_own else scale
            if abs(value) > largest or _is_peak(values, value, int(is_it.sum()), step):
                found |= is_it
    return found


def _equals(
    values: Float32[np.ndarray, "sample time"], value: float
) -> Bool[np.ndarray, "sample time"]:
    near: np.ndarray = np.abs(values - np.float32(value)) <= max(1e-6, abs(value) * 1e-6)
    return near


def _largest_of_others(values: Float32[np.ndarray, "sample time"]) -> float:
    """Return the size that 99 % of what is no fill value keep below, 0 where nothing else is."""
    is_other = np.isfinite(values)
    for scale in SCALES:
        for fill in FILLS:
            is_other &= ~_equals(values, fill * scale)
    return float(np.quantile(np.abs(values[is_other]), 0.99)) if is_other.any() else 0.0


def _is_peak(
    values: Float32[np.ndarray, "sample time"], value: float, count: int, step: float
) -> bool:
    """Say whether a value that could be real is far more frequent than those some steps beside."""
    away = np.abs(values - np.float32(value))
    beside = ((away > step / 2) & (away < 10.5 * step)).sum() / 20
    return bool(count >= max(_FEWEST, _PEAK * beside))


def is_modis_fill(
    values: Float32[np.ndarray, "sample time"], band: str
) -> Bool[np.ndarray, "sample time"]:
    """Say where a vegetation index is -0.3, the scaled fill value of MODIS, and nothing else.

    Their valid range ends at -0.2 (MOD13): a column with other values below that is not theirs, and
    one of few different values may have been rounded to -0.3.
    """
    is_it = _equals(values, MODIS_FILL)
    others = values[np.isfinite(values) & ~is_it]
    is_theirs = (
        band in ("NDVI", "EVI")
        and is_it.sum() >= _FEWEST
        and np.unique(others).size >= _FEWEST_OTHERS
        and others.min() >= MODIS_LEAST
    )
    return is_it if is_theirs else np.zeros_like(is_it)


def is_mixed(
    values: Float32[np.ndarray, "sample time"], band: str
) -> Bool[np.ndarray, "sample time"]:
    """Say where a normalised difference is beyond 1, which it never is."""
    if band not in DIFFERENCES:
        return np.zeros(values.shape, bool)
    return np.asarray(np.abs(values) > 1 + 1e-6)
