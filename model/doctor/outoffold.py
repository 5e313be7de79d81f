"""Names of quick baselines in, out-of-fold probabilities for `diagnose` out."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from model.baselines import fit_baseline
from model.doctor.confident import OutOfFoldFit
from model.doctor.evidence import geometric_mean, logarithms
from model.errors import ConfigError, SampleError
from model.features import FeatureSet, default_features
from model.samples import Samples
from model.split import Folds

DOCTORS = ("lda",)
"""Baselines whose opinions are pooled by default. Four simulated forests, 20 % of 250 stands wrong,
two rounds: linear discriminants find 0.87 of them at a precision of 0.89, a random forest 0.78 at
0.89, both pooled no more than the first."""

_SHAPED = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
"""Bands whose spectral shape is looked at: those of 10 and 20 m."""


def doctor_features(bands: Sequence[str]) -> FeatureSet:
    """Return what labels are judged by: logarithm and spectral shape of each band.

    Straight borders in logarithms are ratios of bands; the shape is what light and slope leave
    alone. Bands of other sensors are taken as they are. Without two bands of Sentinel-2 it is what
    a classifier sees by default. Raises `FeatureError` if no band can be used.
    """
    default = default_features(bands)
    own = [band for band in _SHAPED if band in bands]
    if len(own) < 2:
        return default
    foreign = [name for name in default.names if name.startswith("band:")]
    names = (*(f"log:{band}" for band in own), *(f"shape:{band}" for band in own), *foreign)
    return FeatureSet(names=names)


def pooled_baselines(
    features: FeatureSet,
    *,
    names: Sequence[str] = DOCTORS,
    most_per_group: int = 10,
    seed: int = 0,
    threads: int = 1,
    watch: Callable[[], None] | None = None,
) -> OutOfFoldFit:
    """Return what fits baselines fold by fold and pools them (normalised geometric mean).

    Of each group at most `most_per_group` samples, drawn at random, train: groups were labelled
    as a whole, so one with many samples has no more to say about labels, but would outvote others.
    Samples without a time at which every band of the features has a value neither train nor are
    predicted: nothing can be said of their labels. `watch` is called after each fold and baseline.
    Raises `ConfigError` without a name or for a limit below 1; what is returned raises
    `SampleError` for a band that is empty, and where a fold leaves nothing to train on.
    """
    if not names or most_per_group < 1:
        raise ConfigError(
            f"names = {tuple(names)!r} and most_per_group = {most_per_group!r}; expected one or "
            "more baselines and samples"
        )

    def fit(
        samples: Samples, folds: Folds, is_trusted: Bool[np.ndarray, "sample"]
    ) -> Float32[np.ndarray, "sample class"]:
        is_clear = _clear(samples, features)
        is_used = is_trusted & is_clear & _thinned(samples.group, most_per_group, seed)
        probability = np.full((len(samples), len(samples.classes)), np.nan, np.float32)
        for fold in range(folds.count):
            held_out, trained_on = folds.held_out(fold), folds.trained_on(fold)
            held_out = held_out[is_clear[held_out]]
            train = samples.take(trained_on[is_used[trained_on]])
            if not len(train):
                raise SampleError(
                    f"fold {fold} of {folds.count} leaves no trusted sample to train on; use fewer "
                    "folds or more groups"
                )
            if not len(held_out):
                continue
            total: Float64[np.ndarray, "held_out class"] = np.zeros(
                (len(held_out), len(samples.classes))
            )
            for name in names:
                fitted = fit_baseline(name, train, features, seed=seed, threads=threads)
                found = fitted.probability(samples.reflectance[held_out], samples.bands)
                total += logarithms(found)
                if watch is not None:
                    watch()
            probability[held_out] = geometric_mean(total, len(names))
        return probability

    return fit


def _clear(samples: Samples, features: FeatureSet) -> Bool[np.ndarray, "sample"]:
    """Return which samples have features at any time; refuse a band that no sample has."""
    is_clear = np.asarray(features.is_clear(samples.reflectance, samples.bands).any(axis=1))
    for band in features.required_bands:
        if not np.isfinite(samples.reflectance[..., samples.bands.index(band)]).any():
            raise SampleError(
                f"{band} has no value in any sample; leave it out of the samples' bands"
            )
    return is_clear


def _thinned(
    group: Int64[np.ndarray, "sample"], most: int, seed: int
) -> Bool[np.ndarray, "sample"]:
    """Choose at most so many samples of each group."""
    rank = np.random.default_rng(seed).random(len(group))
    order = np.lexsort((rank, group))
    start = np.flatnonzero(np.diff(group[order], prepend=group.min(initial=0) - 1))
    place = np.arange(len(group)) - np.repeat(start, np.diff(start, append=len(group)))
    is_chosen = np.zeros(len(group), dtype=bool)
    is_chosen[order[place < most]] = True
    return is_chosen
