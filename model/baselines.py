"""Samples in, simple classifiers out: what the network has to beat on the same folds."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32
from sklearn.ensemble import RandomForestClassifier

from model.features import FeatureSet
from model.samples import Samples


def majority_probability(train: Samples, count: int) -> Float32[np.ndarray, "sample class"]:
    """Give `count` samples the shares of the classes in `train`: the most frequent one wins."""
    shares = np.bincount(train.label, minlength=len(train.classes)) / len(train)
    return np.tile(shares.astype(np.float32), (count, 1))  # (sample, class)


@dataclass(frozen=True, kw_only=True, eq=False)
class RandomForest:
    """A random forest on the features of all periods side by side."""

    forest: Any
    """The fitted scikit-learn estimator; knows only the classes it was trained on."""
    features: FeatureSet
    """What is computed at each step."""
    median: Float32[np.ndarray, "time feature"]
    """Stands in for what is missing; over the clear values of the training samples."""
    classes: int
    """Number of classes, those without training samples included."""

    @classmethod
    def fit(
        cls,
        samples: Samples,
        features: FeatureSet,
        *,
        trees: int = 200,
        seed: int = 0,
        threads: int,
    ) -> "RandomForest":
        """Grow the forest; raises `FeatureError` if a band is missing."""
        values = _values(samples, features)
        known = np.isfinite(values)
        # A period that is never clear has no median: 0 for all samples says nothing, as it should.
        median = np.zeros(values.shape[1:], np.float32)
        for time, feature in np.ndindex(median.shape):
            column = values[known[:, time, feature], time, feature]
            if column.size:
                median[time, feature] = np.median(column)
        forest = RandomForestClassifier(trees, random_state=seed, n_jobs=threads)
        forest.fit(_columns(values, median), samples.label)
        return cls(forest=forest, features=features, median=median, classes=len(samples.classes))

    def probability(self, samples: Samples) -> Float32[np.ndarray, "sample class"]:
        """Return the probability of each class; 0 for one the forest never saw."""
        probability = np.zeros((len(samples), self.classes), np.float32)
        if len(samples):
            columns = _columns(_values(samples, self.features), self.median)
            probability[:, self.forest.classes_] = self.forest.predict_proba(columns)
        return probability


def _values(samples: Samples, features: FeatureSet) -> Float32[np.ndarray, "sample time feature"]:
    """Compute features, NaN wherever the period is not clear or a formula has no value."""
    values = features.compute(samples.reflectance, samples.bands)
    clear = features.is_clear(samples.reflectance, samples.bands)
    return np.where(clear[..., None], values, np.float32(np.nan))


def _columns(
    values: Float32[np.ndarray, "sample time feature"],
    median: Float32[np.ndarray, "time feature"],
) -> Float32[np.ndarray, "sample column"]:
    clear = np.isfinite(values).any(axis=2)  # (sample, time)
    filled = np.where(np.isfinite(values), values, median)
    return np.concatenate([filled.reshape(len(values), -1), clear], axis=1).astype(np.float32)
