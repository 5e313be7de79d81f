"""Reflectance in, features out: the one function that training and inference share."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from model.errors import FeatureError

Bands = Mapping[str, np.ndarray]
"""Arrays of one shape by band name: Float32, physical units, NaN where not clear."""

BANDS: tuple[str, ...] = (
    "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12", "AOT", "WVP",
)  # fmt: skip
"""The bands that are features by themselves: twelve of reflectance, then the two of atmosphere."""

TCI_SATURATION = 0.2
"""Reflectance that ESA's L2A true-colour image shows as 255 (Sentinel-2 product guide, TCI)."""

_SMALLEST_DENOMINATOR = 1e-6
_SMALLEST_EVI_DENOMINATOR = 0.1


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One value per step that the network can see."""

    name: str
    """Canonical name, e.g. `B02`, `NDVI`, `TCI_R`."""
    bands: tuple[str, ...]
    """The bands it is computed from."""
    formula: Callable[[Bands], np.ndarray]
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


def _normalised_difference(first: str, second: str) -> Callable[[Bands], np.ndarray]:
    def formula(bands: Bands) -> np.ndarray:
        a, b = bands[first], bands[second]
        # Negative reflectance (dark water, haze removed too well) can push the quotient past 1.
        return _clipped(_ratio(a - b, a + b), -1.0, 1.0)

    return formula


def _evi(bands: Bands) -> np.ndarray:
    blue, red, near = bands["B02"], bands["B04"], bands["B08"]
    under = near + np.float32(6) * red - np.float32(7.5) * blue + np.float32(1)
    over = np.float32(2.5) * (near - red)
    return _clipped(_ratio(over, under, at_least=_SMALLEST_EVI_DENOMINATOR), -2.0, 2.0)


def _red_edge_chlorophyll(bands: Bands) -> np.ndarray:
    return _clipped(_ratio(bands["B07"], bands["B05"]) - np.float32(1), -1.0, 20.0)


def _true_colour(band: str) -> Callable[[Bands], np.ndarray]:
    def formula(bands: Bands) -> np.ndarray:
        # 8-bit counts 1..255, because 0 is the true-colour image's nodata.
        return _clipped(np.rint(bands[band] * np.float32(255 / TCI_SATURATION)), 1.0, 255.0)

    return formula


def _band(name: str) -> Callable[[Bands], np.ndarray]:
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

_CANONICAL = {name.lower(): name for name in FEATURES} | {
    name.replace("B0", "B").lower(): name for name in BANDS
}


def canonical_feature(name: str) -> str:
    """Return the canonical name of a feature written in any way (`B2`, `ndvi`).

    Raises `FeatureError` for a name that is no feature.
    """
    try:
        return _CANONICAL[name.lower()]
    except KeyError:
        known = ", ".join(FEATURES)
        raise FeatureError(f"feature {name!r} does not exist; known are {known}") from None


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """The features a network sees, in order; any spelling goes in, canonical names come out."""

    names: tuple[str, ...]
    """Canonical names, at least one, none twice."""

    def __post_init__(self) -> None:
        names = tuple(canonical_feature(name) for name in self.names)
        if not names:
            raise FeatureError("no feature was asked for; name at least one, e.g. 'NDVI'")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise FeatureError(f"features {', '.join(twice)} are named twice; name each once")
        object.__setattr__(self, "names", names)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def required_bands(self) -> tuple[str, ...]:
        """The bands needed to compute the features, in the order of `BANDS`."""
        needed = {band for name in self.names for band in FEATURES[name].bands}
        return tuple(band for band in BANDS if band in needed)

    def missing_bands(self, bands: Iterable[str]) -> tuple[str, ...]:
        """The required bands that are not among `bands`."""
        there = set(bands)
        return tuple(band for band in self.required_bands if band not in there)

    def restricted_to(self, bands: Iterable[str]) -> "FeatureSet":
        """The features of this set that `bands` suffice for.

        Raises `FeatureError` if that leaves none.
        """
        there = tuple(bands)
        names = tuple(n for n in self.names if set(FEATURES[n].bands) <= set(there))
        if not names:
            raise FeatureError(f"bands {there!r} suffice for none of the features {self.names!r}")
        return FeatureSet(names=names)

    def compute(
        self, reflectance: Float32[np.ndarray, "sample time band"], bands: tuple[str, ...]
    ) -> Float32[np.ndarray, "sample time feature"]:
        """Compute the features of samples whose last axis is called `bands`.

        Physical units in (reflectance 0..1, NaN where not clear); bands and indices out in the
        same units, `TCI_*` as counts 1..255. NaN stays NaN. Raises `FeatureError` if a band is
        missing.
        """
        by_name = self._by_name(reflectance, bands)
        samples, times = reflectance.shape[:2]
        features = np.empty((len(self), samples, times), np.float32)  # (feature, sample, time)
        for place, name in zip(features, self.names, strict=True):
            place[:] = FEATURES[name].formula(by_name)
        return np.moveaxis(features, 0, -1)  # (sample, time, feature)

    def is_clear(
        self, reflectance: Float32[np.ndarray, "sample time band"], bands: tuple[str, ...]
    ) -> Bool[np.ndarray, "sample time"]:
        """Tell where every required band has a value; a step with less counts as missing."""
        by_name = self._by_name(reflectance, bands)
        clear = np.ones(reflectance.shape[:2], bool)
        for values in by_name.values():
            clear &= np.isfinite(values)
        return clear

    def _by_name(self, reflectance: np.ndarray, bands: tuple[str, ...]) -> dict[str, np.ndarray]:
        missing = self.missing_bands(bands)
        if missing:
            raise FeatureError(
                f"features {', '.join(self.names)} need bands {', '.join(missing)}, "
                f"found only {', '.join(bands)}; add the bands or choose other features"
            )
        return {band: reflectance[..., bands.index(band)] for band in self.required_bands}


REFERENCE_FEATURES = FeatureSet(
    names=(
        "AOT", "B1", "B11", "B12", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9",
        "EVI", "NDVI", "NDWI", "TCI_B", "TCI_G", "TCI_R", "WVP",
    )
)  # fmt: skip
"""The twenty features of the reference workflow, in its order.

AOT, WVP and the 60 m bands tell date and place as much as species; keep them for comparison.
"""

DEFAULT_FEATURES = FeatureSet(
    names=(
        "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12",
        "NDVI", "EVI", "NDMI", "NDRE", "NBR", "CIre",
    )
)  # fmt: skip
"""The ten bands of 10 and 20 m, and six indices of greenness, leaf water and red edge."""
