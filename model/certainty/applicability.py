"""Training sequences and held-out distances in, where a classifier may be believed out.

The area of applicability of Meyer & Pebesma 2021: a pixel is outside if it is further from all
training sequences than held-out samples were from the ones of other folds. Several spaces can be
asked at once (features of the year, a network's last hidden layer); one suffices to be outside.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, Integer
from scipy.optimize import isotonic_regression

from model.certainty.space import MOST_PROTOTYPES, Space
from model.errors import ClassifierError, SampleError
from model.features import FeatureSet
from model.split import Folds

INSIDE = 0.93
"""Share of held-out samples that are inside. On a simulated forest the outlier-removed maximum of
the paper kept 96 % inside and, of pixels half a year off, left 5 % there; this leaves 3 %."""

FEATURES, HIDDEN = "features", "hidden"
"""Usual spaces: what a model sees, and what a network makes of it."""

Values = Mapping[str, Float32[np.ndarray, "sample time feature"]]
"""Sequences by the name of the space they belong to; NaN where a value is missing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Applicability:
    """What a classifier has seen, and how far from that it may be believed."""

    spaces: dict[str, Space]
    """Spaces by name, e.g. `features` and `hidden`."""
    thresholds: dict[str, float]
    """Dissimilarity above which a pixel is outside, by space; positive."""

    def __post_init__(self) -> None:
        if not self.spaces or set(self.spaces) != set(self.thresholds):
            raise ClassifierError(
                f"the area of applicability has spaces {sorted(self.spaces)!r} and thresholds of "
                f"{sorted(self.thresholds)!r}"
            )
        for name, value in self.thresholds.items():
            if not (isinstance(value, float) and 0 < value < float("inf")):
                raise ClassifierError(
                    f"the threshold of {name!r} is {value!r}; expected above 0 and finite"
                )

    def dissimilarity(self, values: Values) -> Float32[np.ndarray, "sample"]:
        """Return how far outside each sample is: above 1 outside, infinite without any value.

        It is the dissimilarity index in units of its threshold, the larger one of the spaces.
        Raises `ClassifierError` if a space or its shape is missing.
        """
        if set(values) != set(self.spaces):
            raise ClassifierError(
                f"the area of applicability needs values of {sorted(self.spaces)!r}, found "
                f"{sorted(values)!r}"
            )
        parts = [
            space.dissimilarity(values[name]) / np.float32(self.thresholds[name])
            for name, space in self.spaces.items()
        ]
        return np.asarray(np.max(parts, axis=0), np.float32)

    def is_inside(self, values: Values) -> Bool[np.ndarray, "sample"]:
        """Tell which samples are like what the classifier has learned from."""
        return np.asarray(self.dissimilarity(values) <= 1)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return everything as arrays for safetensors, named `space.array`."""
        arrays: dict[str, np.ndarray] = {}
        for name, space in self.spaces.items():
            arrays |= {f"{name}.{key}": array for key, array in space.to_arrays().items()}
            arrays[f"{name}.threshold"] = np.asarray(self.thresholds[name], np.float64)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Applicability":
        """Read what `to_arrays` wrote; raises `ClassifierError` for anything else."""
        by_space: dict[str, dict[str, np.ndarray]] = {}
        for full, array in arrays.items():
            name, _, key = full.rpartition(".")
            by_space.setdefault(name, {})[key] = array
        spaces, thresholds = {}, {}
        for name, parts in by_space.items():
            threshold = parts.pop("threshold", None)
            if threshold is None or threshold.dtype != np.float64 or threshold.ndim:
                raise ClassifierError(f"the area of applicability has no threshold of {name!r}")
            thresholds[name] = float(threshold)
            spaces[name] = Space.from_arrays(parts)
        return cls(spaces=spaces, thresholds=thresholds)


@dataclass(frozen=True, kw_only=True, eq=False)
class AccuracyCurve:
    """How often predictions are right, the further from the training samples the less."""

    dissimilarity: Float64[np.ndarray, "bin"]
    """Mean dissimilarity of the bin, rising; bins hold about equally many samples."""
    count: Int64[np.ndarray, "bin"]
    """Samples of the bin."""
    accuracy: Float64[np.ndarray, "bin"]
    """Share of them that were predicted right, 0..1."""
    falling: Float64[np.ndarray, "bin"]
    """The nearest curve to `accuracy` that never rises: what to expect at that distance, 0..1."""

    def expected(self, dissimilarity: Float[np.ndarray, "sample"]) -> Float64[np.ndarray, "sample"]:
        """Return the share of right predictions to expect; beyond the last bin it is the last."""
        return np.asarray(np.interp(dissimilarity, self.dissimilarity, self.falling))

    def to_dict(self) -> dict[str, Any]:
        """Return the curve as what JSON can hold."""
        names = ("dissimilarity", "count", "accuracy", "falling")
        return {name: np.round(getattr(self, name), 6).tolist() for name in names}


def clear_values(
    features: FeatureSet,
    reflectance: Float32[np.ndarray, "sample time band"],
    bands: tuple[str, ...],
) -> Float32[np.ndarray, "sample time feature"]:
    """Return features with NaN in every period that is not clear: what a space reads.

    Physical units in, NaN where not clear. Raises `FeatureError` if a band is missing.
    """
    values = features.compute(reflectance, bands)
    clear = features.is_clear(reflectance, bands)
    return np.where(clear[..., None], values, np.float32(np.nan))


def held_out_dissimilarity(
    values: Float32[np.ndarray, "sample time feature"],
    *,
    label: Integer[np.ndarray, "sample"],
    group: Integer[np.ndarray, "sample"],
    folds: Folds,
    prototypes: int = MOST_PROTOTYPES,
    seed: int = 0,
) -> Float32[np.ndarray, "sample"]:
    """Return each sample's dissimilarity to the samples that train while it is held out.

    NaN for what is never held out or not scored. For a hidden layer do the same with every fold's own network (`Space.learn` on what it was
    trained on, `dissimilarity` of what it was not). Raises `SampleError` if nothing is held out.
    """
    found = np.full(len(values), np.nan, np.float32)
    for index in range(folds.count):
        held, rest = folds.held_out(index), folds.trained_on(index)
        if not rest.size:
            raise SampleError("all samples are in one fold; dissimilarity needs two or more")
        space = Space.learn(
            values[rest], label=label[rest], group=group[rest], prototypes=prototypes, seed=seed
        )
        found[held] = space.dissimilarity(values[held])
    return found


def learn_applicability(
    values: Values,
    held_out: Mapping[str, Float32[np.ndarray, "sample"]],
    *,
    label: Integer[np.ndarray, "sample"],
    group: Integer[np.ndarray, "sample"],
    inside: float = INSIDE,
    prototypes: int = MOST_PROTOTYPES,
    seed: int = 0,
) -> Applicability:
    """Learn the spaces from all samples and their thresholds from held-out dissimilarities.

    `held_out` has a dissimilarity per sample and space (NaN: never held out). Thresholds are
    such that `inside` of the held-out samples are inside all spaces at once. Raises `SampleError`
    if names differ or nothing was held out.
    """
    if set(values) != set(held_out) or not values:
        raise SampleError(
            f"values are of spaces {sorted(values)!r}, distances {sorted(held_out)!r}"
        )
    if not 0 < inside < 1:
        raise SampleError(f"inside is {inside!r}; expected between 0 and 1, e.g. {INSIDE}")
    return Applicability(
        spaces={
            name: Space.learn(of, label=label, group=group, prototypes=prototypes, seed=seed)
            for name, of in values.items()
        },
        thresholds=thresholds_of(held_out, inside=inside),
    )


def thresholds_of(
    held_out: Mapping[str, Float32[np.ndarray, "sample"]], *, inside: float = INSIDE
) -> dict[str, float]:
    """Return a threshold for each space, so that `inside` of the samples are below all of them.

    Raises `SampleError` if no sample has a finite dissimilarity in every space.
    """
    stacked = np.stack([held_out[name] for name in held_out]).astype(np.float64)  # (space, sample)
    known = stacked[:, np.isfinite(stacked).all(axis=0)]
    if not known.size:
        raise SampleError("no sample was held out; the threshold needs dissimilarities")
    single = np.maximum(np.quantile(known, inside, axis=1), 1e-9)
    together = np.quantile((known / single[:, None]).max(axis=0), inside)
    return {
        name: float(value)
        for name, value in zip(held_out, single * max(together, 1e-9), strict=True)
    }


def accuracy_curve(
    dissimilarity: Float[np.ndarray, "sample"],
    is_right: Bool[np.ndarray, "sample"],
    *,
    bins: int = 10,
) -> AccuracyCurve:
    """Compare held-out samples' dissimilarity with how often they were predicted right.

    Samples of equal dissimilarity share a bin. Raises `SampleError` without a finite one.
    """
    known = np.isfinite(dissimilarity)
    index, right = dissimilarity[known].astype(np.float64), is_right[known]
    if not len(index):
        raise SampleError("no held-out sample has a dissimilarity; there is no curve")
    rank = np.searchsorted(np.sort(index), index, side="left") * bins // len(index)
    number = np.unique(rank, return_inverse=True)[1]
    count = np.bincount(number)
    mean = np.bincount(number, weights=index) / count
    accuracy = np.bincount(number, weights=right) / count
    falling = isotonic_regression(accuracy, weights=count, increasing=False).x
    return AccuracyCurve(
        dissimilarity=mean,
        count=count.astype(np.int64),
        accuracy=accuracy,
        falling=np.asarray(falling, np.float64),
    )
