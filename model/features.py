"""Reflectance in, features out: the one function that training and inference share."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from model.errors import FeatureError
from model.formulas import (
    BANDS,
    BRIGHTNESS,
    FEATURES,
    Feature,
    log_feature,
    shape_feature,
    stored_feature,
)
from model.indices import index_names, spectral_index

__all__ = [
    "BANDS", "DEFAULT_FEATURES", "FEATURES", "REFERENCE_FEATURES", "Feature", "FeatureSet",
    "canonical_feature", "default_features", "warnings_of",
]  # fmt: skip

_OWN = {name.lower(): name for name in FEATURES}
_BAND = {name.lower(): name for name in BANDS} | {
    name.replace("B0", "B").lower(): name for name in BANDS
}
_PREFIXES = {"band:": stored_feature, "log:": log_feature, "shape:": shape_feature}
_SHAPE = "shape:"

_NOT_BY_DEFAULT = re.compile(r"scl|qa\d*|qa_.*|msk_.*|tci(_[rgb])?|b10", re.IGNORECASE)
"""Layers of products that say nothing of the ground's spectrum: quality, masks, pictures, cirrus."""

# Measured by tests/benchmarks/telling.py: a random forest on nine dates of the simulated forest,
# whose air knows nothing of its trees, sees this one layer only and is scored by a random split.
_MAJORITY = "the largest class has 29 %"
_TELLING = {
    "AOT": ("is a smooth field per scene, not a property of trees", "98 %", "97 %"),
    "WVP": ("is a smooth field per scene, not a property of trees", "98 %", "98 %"),
    "B01": ("has 60 m pixels and sees aerosol first", "96 %", "94 %"),
    "B09": ("has 60 m pixels and sees water vapour first", "96 %", "94 %"),
}


def canonical_feature(name: str) -> str:
    """Return the canonical name of a feature written in any way (`B2`, `ndvi`, `log:b4`).

    A name of our own goes before one of the Awesome Spectral Indices list, whatever the case of
    its letters. Raises `FeatureError` for a name that is no feature.
    """
    for prefix in _PREFIXES:
        if name.lower().startswith(prefix):
            return _canonical_prefixed(prefix, name[len(prefix) :])
    if (own := _OWN.get(name.lower()) or _BAND.get(name.lower())) is not None:
        return own
    listed = [name] if name in index_names() else [
        index for index in index_names() if index.lower() == name.lower()
    ]  # fmt: skip
    if len(listed) > 1:
        raise FeatureError(f"feature {name!r} may be {' or '.join(listed)}; write it as the list")
    if listed:
        return spectral_index(listed[0]).name
    raise FeatureError(
        f"feature {name!r} does not exist; known are {', '.join(FEATURES)}, any index of the "
        "Awesome Spectral Indices list, and band:NAME, log:NAME and shape:NAME of a stored band"
    )


def _canonical_prefixed(prefix: str, band: str) -> str:
    if not band.strip() or band != band.strip():
        raise FeatureError(f"feature {prefix + band!r} names no band; write e.g. '{prefix}B04'")
    if (
        prefix == "band:"
    ):  # as it is stored, so in its own spelling; a Sentinel-2 band needs no prefix
        return band if band in BANDS else prefix + band
    canonical = _canonical_band(band)
    if prefix == _SHAPE and canonical in ("AOT", "WVP"):
        raise FeatureError(f"{canonical} is no reflectance; a spectral shape has no part for it")
    return prefix + canonical


def _canonical_band(band: str) -> str:
    """Return the name of a Sentinel-2 band in any spelling (`b1`); others stay as they are."""
    return _BAND.get(band.lower(), band)


def _feature(name: str) -> Feature:
    """Build the feature of a canonical name."""
    if name in FEATURES:
        return FEATURES[name]
    for prefix, build in _PREFIXES.items():
        if name.startswith(prefix):
            return build(name, name[len(prefix) :])
    index = spectral_index(name)
    return Feature(name=name, bands=index.bands, formula=index.compute)


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """The features a network sees, in order; any spelling goes in, canonical names come out.

    Beside the names of `FEATURES`: an index of the Awesome Spectral Indices list by its short name
    (with the list's own constants), `band:NAME` for the stored band NAME of any sensor as it is,
    `log:NAME` for the natural logarithm of max(reflectance, 1e-4), and `shape:NAME` for the
    reflectance over the sum of the bands that the set's `shape:` features name.
    """

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
        if len(self._shape_bands) == 1:
            raise FeatureError(f"'shape:{self._shape_bands[0]}' alone is always 1; name the shape: "
                               "of two bands or more")  # fmt: skip

    def __len__(self) -> int:
        return len(self.names)

    @property
    def _shape_bands(self) -> tuple[str, ...]:
        return tuple(n[len(_SHAPE) :] for n in self.names if n.startswith(_SHAPE))

    @property
    def required_bands(self) -> tuple[str, ...]:
        """The bands needed to compute the features: those of `BANDS` in its order, then others."""
        needed = dict.fromkeys(band for name in self.names for band in _feature(name).bands)
        others = (band for band in needed if band not in BANDS)
        return (*(band for band in BANDS if band in needed), *others)

    @property
    def definitions(self) -> dict[str, str]:
        """The formula of each feature that is an index of the list, with its constants.

        A saved classifier keeps them: another edition of the list may define a name otherwise.
        """
        listed = (n for n in self.names if n not in FEATURES and not n.startswith(tuple(_PREFIXES)))
        return {name: spectral_index(name).definition for name in listed}

    def missing_bands(self, bands: Iterable[str]) -> tuple[str, ...]:
        """The required bands that are not among `bands`."""
        there = set(bands)
        return tuple(band for band in self.required_bands if band not in there)

    def compute(
        self, reflectance: Float32[np.ndarray, "sample time band"], bands: tuple[str, ...]
    ) -> Float32[np.ndarray, "sample time feature"]:
        """Compute the features of samples whose last axis is called `bands`.

        Physical units in (reflectance 0..1, NaN where not clear); bands and indices out in the
        same units, `TCI_*` as counts 1..255. NaN stays NaN. Raises `FeatureError` if a band is
        missing.
        """
        by_name = self._by_name(reflectance, bands)
        if self._shape_bands:
            by_name[BRIGHTNESS] = np.sum([by_name[band] for band in self._shape_bands], axis=0)
        samples, times = reflectance.shape[:2]
        features = np.empty((len(self), samples, times), np.float32)  # (feature, sample, time)
        for place, name in zip(features, self.names, strict=True):
            place[:] = _feature(name).formula(by_name)
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


def default_features(bands: Iterable[str]) -> FeatureSet:
    """Return what a classifier of samples or a cube with `bands` sees unless told otherwise.

    That is `DEFAULT_FEATURES` as far as `bands` suffice, and every band of another sensor as it
    is; never what tells date and place (`warnings_of`). Raises `FeatureError` if nothing is left.
    """
    there = tuple(bands)
    own = tuple(n for n in DEFAULT_FEATURES.names if set(FEATURES[n].bands) <= set(there))
    foreign = tuple(
        f"band:{band}"
        for band in there
        if band not in BANDS
        and _canonical_band(band) not in _TELLING
        and not _NOT_BY_DEFAULT.fullmatch(band)
    )
    if not own and not foreign:
        raise FeatureError(
            f"none of the bands {', '.join(there)} is a feature by default; name training.features"
        )
    return FeatureSet(names=(*own, *foreign))


def warnings_of(features: FeatureSet) -> tuple[str, ...]:
    """Say of each feature that tells date and place rather than species what was measured.

    That is AOT, WVP, B01 and B09, indices made of them, and the true-colour counts `TCI_*`.
    """
    warnings = []
    for name in features.names:
        bands = map(_canonical_band, _feature(name).bands)
        for band in (band for band in bands if band in _TELLING):
            why, accuracy, placed = _TELLING[band]
            is_itself = band == _canonical_band(name.removeprefix("band:"))
            made = "" if is_itself else f" is made of {band}, which"
            warnings.append(
                f"{name}{made} {why}: in a simulated forest {band} alone reached {accuracy} "
                f"under a random split ({_MAJORITY}) and named the 200 m block of {placed} of the "
                "pixels; it identifies date and place"
            )
    if pictured := [name for name in features.names if name.startswith("TCI_")]:
        warnings.append(
            f"{', '.join(pictured)} repeat B04, B03 and B02 as 8-bit counts that end at a "
            "reflectance of 0.2: nothing new, and snow, haze and bright soil look alike"
        )
    return tuple(warnings)
