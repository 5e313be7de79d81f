"""A name and samples in, a fitted baseline out: the only place that knows scikit-learn."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64
from sklearn.covariance import ledoit_wolf
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from model.baselines.columns import Columns
from model.baselines.fitted import FittedBaseline
from model.baselines.rules import Layers
from model.baselines.trees import Trees
from model.baselines.unfold import unfolded_boosting, unfolded_forest
from model.errors import ConfigError, SampleError
from model.features import FeatureSet
from model.samples import Samples

BASELINES = ("lda", "logistic regression", "random forest", "gradient boosting", "mlp")
"""Every baseline by name, the quickest first."""

TREES = 100
"""Trees of the random forest."""

# scikit-learn's trees see no difference below 1e-7, which is all there is in a band of small units
_SCALED = ("lda", "logistic regression", "random forest", "mlp")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rows:
    """What a baseline learns from: a sample of a mixed plot is there once per class it holds."""

    table: Float32[np.ndarray, "row column"]
    label: Int64[np.ndarray, "row"]
    """Place of the class among those that are present."""
    weight: Float64[np.ndarray, "row"]
    """Share of the sample that a row stands for; 1 where labels are not shares."""
    classes: int
    """Number of classes that are present."""
    seed: int
    threads: int


def majority_probability(train: Samples, count: int) -> Float32[np.ndarray, "sample class"]:
    """Give `count` samples the shares of the classes in `train`: the most frequent one wins.

    Raises `SampleError` without samples.
    """
    if not len(train):
        raise SampleError("there is no sample to take the shares of the classes from")
    _, label, weight = _by_class(train)
    shares = np.bincount(label, weight, minlength=len(train.classes)) / weight.sum()
    return np.tile(shares.astype(np.float32), (count, 1))  # (sample, class)


def fit_baseline(
    name: str, samples: Samples, features: FeatureSet, *, seed: int = 0, threads: int = 1
) -> FittedBaseline:
    """Fit the baseline `name` (one of `BASELINES`) on all `samples`.

    Soft labels (`samples.share`) count by their shares. With samples of one class only, that class
    is what it answers. One seed gives one model. Raises `ConfigError` for another name,
    `SampleError` without samples, `FeatureError` if a band is missing.
    """
    if name not in BASELINES:
        raise ConfigError(f"baseline {name!r} does not exist; known are {', '.join(BASELINES)}")
    if not len(samples):
        raise SampleError("there is no sample to train on")
    index, label, weight = _by_class(samples)
    present, place = np.unique(label, return_inverse=True)
    # Only trees read gaps by themselves, and one class leaves nothing to grow a tree for.
    keeps_gaps = name == "gradient boosting" and len(present) > 1
    columns = Columns.learn(samples, features, keeps_gaps=keeps_gaps, scaled=name in _SCALED)
    table = columns.table(samples.reflectance, samples.bands)
    rows = _Rows(
        table=table[index],
        label=place.astype(np.int64),
        weight=weight,
        classes=len(present),
        seed=seed % 2**32,  # scikit-learn takes no larger one
        threads=threads,
    )
    rule: Layers | Trees
    if rows.classes == 1:
        rule = Layers(
            weights=(np.zeros((columns.count, 1), np.float32),), offsets=(np.zeros(1, np.float32),)
        )
    else:
        with threadpool_limits(threads), warnings.catch_warnings():
            # rounds are what bounds the time, and many classes of few samples are our daily bread
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.filterwarnings("ignore", "The number of unique classes is greater")
            rule = _FITS[name](rows)
    return FittedBaseline(
        kind=name,
        class_count=len(samples.classes),
        present=present.astype(np.int64),
        columns=columns,
        rule=rule,
    )


def _by_class(
    samples: Samples,
) -> tuple[Int64[np.ndarray, "row"], Int64[np.ndarray, "row"], Float64[np.ndarray, "row"]]:
    if samples.share is None:
        every = np.arange(len(samples), dtype=np.int64)
        return every, samples.label, np.ones(len(samples))
    index, label = np.nonzero(samples.share)
    weight = samples.share[index, label].astype(np.float64)
    return index.astype(np.int64), label.astype(np.int64), weight


def _fit_lda(rows: _Rows) -> Layers:
    """Linear discriminants with one covariance, shrunk as Ledoit & Wolf (2004) do.

    Pooled over the classes before it is shrunk, so that a class with one sample has one too.
    """
    table = rows.table.astype(np.float64)
    member = np.zeros((rows.classes, len(table)))
    member[rows.label, np.arange(len(table))] = rows.weight
    size = member.sum(axis=1)  # (class,)
    mean = member @ table / size[:, None]  # (class, column)
    away = (table - mean[rows.label]) * np.sqrt(rows.weight / rows.weight.mean())[:, None]
    covariance, _ = ledoit_wolf(away, assume_centered=True)
    # Samples that are all alike have no covariance; the ridge is far below any that have.
    covariance[np.diag_indices_from(covariance)] += 1e-6
    weight = np.linalg.solve(covariance, mean.T)  # (column, class)
    offset = np.log(size / size.sum()) - 0.5 * (mean * weight.T).sum(axis=1)
    # Only differences between classes matter, and small numbers keep more of their digits.
    return _linear(weight - weight.mean(axis=1, keepdims=True), offset - offset.mean())


def _fit_logistic(rows: _Rows) -> Layers:
    model = LogisticRegression(max_iter=200, random_state=rows.seed)
    model.fit(rows.table, rows.label, sample_weight=rows.weight)
    return _linear(*_every_class(model.coef_.T, model.intercept_))


def _fit_mlp(rows: _Rows) -> Layers:
    batch = min(128, len(rows.table))
    # As many steps for few samples as for many, within bounds.
    epochs = int(np.clip(1500 * batch / len(rows.table), 30, 300))
    model = MLPClassifier(
        (64,), alpha=0.1, batch_size=batch, max_iter=epochs, learning_rate_init=2e-3,
        early_stopping=False, random_state=rows.seed,
    )  # fmt: skip
    model.fit(rows.table, rows.label, sample_weight=rows.weight)
    last = _every_class(model.coefs_[-1], model.intercepts_[-1])
    return Layers(
        weights=tuple(w.astype(np.float32) for w in (*model.coefs_[:-1], last[0])),
        offsets=tuple(w.astype(np.float32) for w in (*model.intercepts_[:-1], last[1])),
    )


def _fit_forest(rows: _Rows) -> Trees:
    model = RandomForestClassifier(TREES, random_state=rows.seed, n_jobs=rows.threads)
    model.fit(rows.table, rows.label, sample_weight=rows.weight)
    return unfolded_forest(model)


def _fit_boosting(rows: _Rows) -> Trees:
    # One tree a class and round: with many classes fewer rounds, or the time grows without end.
    rounds = int(np.clip(600 / rows.classes, 30, 60))
    least = int(np.clip(len(rows.table) / (10 * rows.classes), 2, 20))
    model = HistGradientBoostingClassifier(
        max_iter=rounds, learning_rate=0.15, max_leaf_nodes=15, max_features=0.3, max_bins=63,
        min_samples_leaf=least, l2_regularization=1.0, early_stopping=False,
        random_state=rows.seed,
    )  # fmt: skip
    # scikit-learn cannot bin a column that nobody ever saw; a constant is never split at
    table = np.where(np.isnan(rows.table).all(axis=0), np.float32(0), rows.table)
    model.fit(table, rows.label, sample_weight=rows.weight)
    return unfolded_boosting(model)


_FITS: dict[str, Callable[[_Rows], Layers | Trees]] = {
    "lda": _fit_lda,
    "logistic regression": _fit_logistic,
    "random forest": _fit_forest,
    "gradient boosting": _fit_boosting,
    "mlp": _fit_mlp,
}


def _every_class(
    weight: Float[np.ndarray, "column class"], offset: Float[np.ndarray, "class"]
) -> tuple[np.ndarray, np.ndarray]:
    """Give the first of two classes a score too: scikit-learn keeps only the second's."""
    if weight.shape[1] > 1:
        return weight, offset
    return np.hstack([np.zeros_like(weight), weight]), np.append(0.0, offset)


def _linear(weight: np.ndarray, offset: np.ndarray) -> Layers:
    return Layers(weights=(weight.astype(np.float32),), offsets=(offset.astype(np.float32),))
