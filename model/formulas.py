"""Values in, one value per step out: the features that are our own, with guarded formulas."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Values = Mapping[str, np.ndarray]
"""Arrays of one shape by band name: Float32, physical units, NaN where not clear."""

BANDS: tuple[str, ...] = (
    "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12", "AOT", "WVP",
)  # fmt: skip
"""The bands that are features by themselves: twelve of reflectance, then the two of atmosphere."""

TCI_SATURATION = 0.2
"""Reflectance that ESA's L2A true-colour image shows as 255 (Sentinel-2 product guide, TCI)."""

BRIGHTNESS = "sum of the bands of the shape"
"""Key of the sum that `shape_feature` divides by, among the arrays by band name."""

_SMALLEST_DENOMINATOR = 1e-6
_SMALLEST_EVI_DENOMINATOR = 0.1
_SMALLEST_BRIGHTNESS = 1e-3
_SMALLEST_LOGARITHM = np.float32(1e-4)


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One value per step that the network can see."""

    name: str
    """Canonical name, e.g. `B02`, `NDVI`, `TCI_R`."""
    bands: tuple[str, ...]
    """The bands it is computed from."""
    formula: Callable[[Values], np.ndarray]
    """Elementwise and Float32; NaN where any of the bands is NaN or the formula has no value."""


def _ratio(
    over: np.ndarray, under: np.ndarray, *, at_least: float = _SMALLEST_DENOMINATOR
) -> np.ndarray:
    """Divide, with NaN where `under` is below `at_least`: there the quotient means nothing."""
    usable = under >= at_least  # False for NaN too
    quotient = np.full_like(over, np.nan)
    np.divide(over, under, out=quotient, where=usable)
    return quotient


def _clipped(values: np.ndarray, lowest: float, highest: float) -> np.ndarray:
    """Clip in place; NaN stays NaN."""
    np.clip(values, lowest, highest, out=values)
    return values


def _normalised_difference(first: str, second: str) -> Callable[[Values], np.ndarray]:
    def formula(bands: Values) -> np.ndarray:
        a, b = bands[first], bands[second]
        # Negative reflectance (dark water, haze removed too well) can push the quotient past 1.
        return _clipped(_ratio(a - b, a + b), -1.0, 1.0)

    return formula


def _evi(bands: Values) -> np.ndarray:
    blue, red, near = bands["B02"], bands["B04"], bands["B08"]
    under = near + np.float32(6) * red - np.float32(7.5) * blue + np.float32(1)
    over = np.float32(2.5) * (near - red)
    return _clipped(_ratio(over, under, at_least=_SMALLEST_EVI_DENOMINATOR), -2.0, 2.0)


def _red_edge_chlorophyll(bands: Values) -> np.ndarray:
    return _clipped(_ratio(bands["B07"], bands["B05"]) - np.float32(1), -1.0, 20.0)


def _true_colour(band: str) -> Callable[[Values], np.ndarray]:
    def formula(bands: Values) -> np.ndarray:
        # 8-bit counts 1..255, because 0 is the true-colour image's nodata.
        return _clipped(np.rint(bands[band] * np.float32(255 / TCI_SATURATION)), 1.0, 255.0)

    return formula


def _band(name: str) -> Callable[[Values], np.ndarray]:
    return lambda bands: bands[name]


def _difference_feature(name: str, first: str, second: str) -> Feature:
    formula = _normalised_difference(first, second)
    return Feature(name=name, bands=(first, second), formula=formula)


FEATURES: dict[str, Feature] = {
    feature.name: feature
    for feature in (
        *(Feature(name=band, bands=(band,), formula=_band(band)) for band in BANDS),
        # Rouse et al. 1974
        _difference_feature("NDVI", "B08", "B04"),
        # McFeeters 1996, Int. J. Remote Sensing 17(7): open water is positive
        _difference_feature("NDWI", "B03", "B08"),
        # Gao 1996, Remote Sensing of Environment 58(3): water in leaves
        _difference_feature("NDMI", "B8A", "B11"),
        # Key & Benson 2006 (FIREMON): burnt or bare against leaf
        _difference_feature("NBR", "B8A", "B12"),
        # Gitelson & Merzlyak 1994, J. Plant Physiology 143: red edge against near infrared
        _difference_feature("NDRE", "B8A", "B05"),
        # Gitelson, Gritz & Merzlyak 2003, J. Plant Physiology 160: B07 / B05 - 1
        Feature(name="CIre", bands=("B07", "B05"), formula=_red_edge_chlorophyll),
        # Huete et al. 2002, Remote Sensing of Environment 83, on reflectance
        Feature(name="EVI", bands=("B02", "B04", "B08"), formula=_evi),
        Feature(name="TCI_R", bands=("B04",), formula=_true_colour("B04")),
        Feature(name="TCI_G", bands=("B03",), formula=_true_colour("B03")),
        Feature(name="TCI_B", bands=("B02",), formula=_true_colour("B02")),
    )
}
"""Every feature by canonical name.

Normalised differences are clipped to -1..1, EVI to -2..2 and CIre to -1..20, and are NaN where
the denominator is below 1e-6 (EVI: 0.1), so that one bad pixel cannot explode.
"""


def stored_feature(name: str, band: str) -> Feature:
    """Give the stored `band` as it is."""
    return Feature(name=name, bands=(band,), formula=_band(band))


def log_feature(name: str, band: str) -> Feature:
    """Give the natural logarithm of max(reflectance, 1e-4): -9.2 in the dark, 0 for white."""
    return Feature(
        name=name,
        bands=(band,),
        formula=lambda values: np.log(np.maximum(values[band], _SMALLEST_LOGARITHM)),
    )


def shape_feature(name: str, band: str) -> Feature:
    """Give `band` over the sum at `BRIGHTNESS`; -1..1, NaN where the sum is below 0.001."""

    def formula(values: Values) -> np.ndarray:
        share = _ratio(values[band], values[BRIGHTNESS], at_least=_SMALLEST_BRIGHTNESS)
        return _clipped(share, -1.0, 1.0)

    return Feature(name=name, bands=(band,), formula=formula)
