"""Baselines against scikit-learn's own predictions, and what is stored against hostile hands."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from model.baselines import BASELINES, FittedBaseline, fit_baseline, fitting, majority_probability
from model.errors import ClassifierError, ConfigError, FeatureError, SampleError
from model.features import DEFAULT_FEATURES, FeatureSet
from model.predictor import Predictor
from model.samples import Samples

Make = Callable[..., Samples]
FEW = FeatureSet(names=("B04", "B08", "NDVI"))
ESTIMATORS = {
    "logistic regression": LogisticRegression,
    "random forest": RandomForestClassifier,
    "gradient boosting": HistGradientBoostingClassifier,
    "mlp": MLPClassifier,
}


def columns(train: Samples, samples: Samples, name: str) -> np.ndarray:
    """What a baseline should see, by scikit-learn's own means."""

    def raw(given: Samples) -> np.ndarray:
        return FEW.compute(given.reflectance, given.bands).reshape(len(given), -1)

    def clear(given: Samples) -> np.ndarray:
        return FEW.is_clear(given.reflectance, given.bands).astype(np.float32)

    if name == "gradient boosting":
        return np.hstack([raw(samples), clear(samples)])
    impute = SimpleImputer(strategy="median").fit(raw(train))
    filled = [np.hstack([impute.transform(raw(s)), clear(s)]) for s in (train, samples)]
    return np.clip(StandardScaler().fit(filled[0]).transform(filled[1]), -10, 10)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine the threads of scikit-learn wait for each other, for half a minute."""
    with threadpool_limits(1):
        yield


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The estimators that a fit made, as they were fitted."""
    made: list[Any] = []
    for estimator in ESTIMATORS.values():

        def build(*args: Any, estimator: Any = estimator, **settings: Any) -> Any:
            made.append(estimator(*args, **settings))
            return made[-1]

        monkeypatch.setattr(fitting, estimator.__name__, build)
    return made


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_probabilities_equal_those_of_scikit_learn(
    make_samples: Make, spy: list[Any], name: str, classes: int
) -> None:
    train = make_samples(groups=25, classes=classes, noise=0.08)
    test = make_samples(groups=25, classes=classes, noise=0.08, seed=1)
    fitted = fit_baseline(name, train, FEW, seed=3)
    (theirs,) = spy
    expected = theirs.predict_proba(columns(train, test, name).astype(np.float32))
    found = fitted.probability(test.reflectance, test.bands)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert isinstance(fitted, Predictor)
    assert (fitted.kind, fitted.class_count, fitted.features) == (name, classes, FEW)


def test_our_own_columns_are_what_scikit_learn_would_learn_from(
    make_samples: Make, spy: list[Any]
) -> None:
    # trained anew on columns made by scikit-learn: the same model comes out
    train, test = make_samples(groups=15), make_samples(groups=15, seed=1)
    for name in ("random forest", "gradient boosting"):
        fitted = fit_baseline(name, train, FEW, seed=3)
        again = ESTIMATORS[name](**spy[-1].get_params())
        weight = np.ones(len(train))  # a forest draws otherwise without weights
        again.fit(columns(train, train, name).astype(np.float32), train.label, weight)
        expected = again.predict_proba(columns(train, test, name).astype(np.float32))
        found = fitted.probability(test.reflectance, test.bands)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 4])
def test_lda_equals_that_of_scikit_learn_with_the_same_covariance(
    make_samples: Make, classes: int
) -> None:
    train = make_samples(groups=24, classes=classes, noise=0.08)
    test = make_samples(groups=24, classes=classes, noise=0.08, seed=1)
    table = columns(train, train, "lda")
    means = np.array([table[train.label == c].mean(axis=0) for c in range(classes)])
    from sklearn.covariance import LedoitWolf

    pooled = LedoitWolf(assume_centered=True).fit(table - means[train.label])

    class Pooled:
        def fit(self, rows: np.ndarray) -> "Pooled":
            self.covariance_ = pooled.covariance_ + 1e-6 * np.eye(rows.shape[1])
            return self

    theirs = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Pooled())
    theirs.fit(table, train.label)
    found = fit_baseline("lda", train, FEW).probability(test.reflectance, test.bands)
    expected = theirs.predict_proba(columns(train, test, "lda"))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", BASELINES)
def test_a_separable_forest_is_separated(make_samples: Make, name: str) -> None:
    train, test = make_samples(groups=30), make_samples(groups=30, seed=1)
    probability = fit_baseline(name, train, FEW).probability(test.reflectance, test.bands)
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-5)
    assert (probability.argmax(axis=1) == test.label).mean() > 0.9


@pytest.mark.parametrize("name", BASELINES)
def test_one_seed_gives_one_model_and_no_batch_another_answer(
    make_samples: Make, name: str
) -> None:
    samples = make_samples(groups=9)
    first, second = (fit_baseline(name, samples, FEW, seed=2**40 + 5) for _ in range(2))
    whole = first.probability(samples.reflectance, samples.bands)
    np.testing.assert_array_equal(whole, second.probability(samples.reflectance, samples.bands))
    pieces = first.probability(samples.reflectance, samples.bands, batch=7)
    np.testing.assert_array_equal(whole, pieces)
    none = first.probability(samples.reflectance[:0], samples.bands)
    assert none.shape == (0, 3)


@pytest.mark.parametrize("name", BASELINES)
def test_a_rare_class_many_classes_few_samples_and_whole_gaps(
    make_samples: Make, name: str
) -> None:
    samples = make_samples(groups=60, per_group=2, classes=60, gap=0.5)
    lonely = samples.take(np.append(np.flatnonzero(samples.label != 7), 7 * 2).astype(np.int64))
    gap = lonely.reflectance.copy()
    gap[:, 4] = np.nan  # a period that nobody ever saw
    lonely = replace(lonely, reflectance=gap)
    fitted = fit_baseline(name, lonely, FEW)
    blind = np.full((2, 12, len(samples.bands)), np.nan, np.float32)
    for reflectance in (samples.reflectance, blind):
        probability = fitted.probability(reflectance, samples.bands)
        assert np.isfinite(probability).all()
        np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", BASELINES)
def test_classes_it_never_saw_have_no_chance(make_samples: Make, name: str) -> None:
    samples = make_samples(groups=12)
    two = samples.take(np.flatnonzero(samples.label != 1).astype(np.int64))
    probability = fit_baseline(name, two, FEW).probability(samples.reflectance, samples.bands)
    assert not probability[:, 1].any()
    assert (probability[:, [0, 2]].max(axis=1) > 0.5).all()
    one = samples.take(np.flatnonzero(samples.label == 2).astype(np.int64))
    probability = fit_baseline(name, one, FEW).probability(samples.reflectance, samples.bands)
    np.testing.assert_array_equal(probability, np.tile([0, 0, 1], (len(samples), 1)))


@pytest.mark.parametrize("name", BASELINES)
def test_shares_that_are_whole_are_labels(make_samples: Make, name: str) -> None:
    samples = make_samples(groups=9)
    soft = replace(samples, share=np.eye(3, dtype=np.float32)[samples.label])
    hard, whole = (fit_baseline(name, s, FEW) for s in (samples, soft))
    np.testing.assert_allclose(
        hard.probability(samples.reflectance, samples.bands),
        whole.probability(samples.reflectance, samples.bands),
        atol=1e-6,
    )


def test_shares_of_mixed_plots_are_learned(make_samples: Make) -> None:
    samples = make_samples(groups=30, classes=2)
    share = np.where(samples.label[:, None] == [0, 1], 0.7, 0.3).astype(np.float32)
    mixed = replace(samples, share=share)
    for name in BASELINES:
        # trees that grow until every leaf is pure still answer by the weights in it
        fitted = fit_baseline(name, mixed, FEW)
        probability = fitted.probability(samples.reflectance, samples.bands)
        assert np.abs(probability - share).mean() < 0.12, name


@pytest.mark.parametrize("name", BASELINES)
def test_what_is_stored_predicts_the_same(make_samples: Make, name: str) -> None:
    samples = make_samples(groups=9)
    fitted = fit_baseline(name, samples, FEW)
    description, arrays = fitted.to_arrays()
    again = FittedBaseline.from_arrays(json.loads(json.dumps(description)), arrays)
    np.testing.assert_array_equal(
        fitted.probability(samples.reflectance, samples.bands),
        again.probability(samples.reflectance, samples.bands),
    )
    assert not any(values.dtype.hasobject for values in arrays.values())


def _changed(arrays: dict[str, np.ndarray], name: str, place: Any, value: Any) -> Any:
    copy = arrays[name].copy()
    copy[place] = value
    return arrays | {name: copy}


def test_trees_that_would_lead_astray_are_refused(make_samples: Make) -> None:
    samples = make_samples(groups=9)
    for name in ("random forest", "gradient boosting"):
        description, arrays = fit_baseline(name, samples, FEW).to_arrays()
        inner = int(np.flatnonzero(arrays["feature"] >= 0)[0])
        leaf = int(np.flatnonzero(arrays["feature"] < 0)[0])
        nodes = len(arrays["feature"])
        hostile = {
            "a circle": _changed(arrays, "left", inner, inner),
            "back to the root": _changed(arrays, "right", inner, 0),
            "out of all trees": _changed(arrays, "right", inner, nodes),
            "into the next tree": _changed(arrays, "left", inner, arrays["root"][1]),
            "before the first": _changed(arrays, "left", inner, -5),
            "no such leaf": _changed(arrays, "left", leaf, len(arrays["leaf"])),
            "a leaf before the first": _changed(arrays, "left", leaf, -1),
            "no such column": _changed(arrays, "feature", inner, 48),
            "a column before the first": _changed(arrays, "feature", inner, -2),
            "not a number": _changed(arrays, "threshold", inner, np.nan),
            "an endless leaf": _changed(arrays, "leaf", (0, 0), np.inf),
            "no such class": _changed(arrays, "output", 0, 3),
            "roots that fall": _changed(arrays, "root", 1, 0),
            "a root beyond": _changed(arrays, "root", -1, nodes),
            "fewer thresholds": arrays | {"threshold": arrays["threshold"][:-1]},
            "fewer outputs": arrays | {"output": arrays["output"][:-1]},
            "wide leaves": arrays | {"leaf": np.zeros((len(arrays["leaf"]), 9), np.float32)},
            "flat leaves": arrays | {"leaf": arrays["leaf"][:, 0]},
            "long nodes": arrays | {"left": arrays["left"].astype(np.int64)},
            "objects": arrays | {"leaf": arrays["leaf"].astype(object)},
            "no tree": arrays
            | {n: arrays[n][:0] for n in arrays if n not in ("median", "present")},
            "no such start": arrays | {"start": np.zeros(4)},
            "classes that fall": _changed(arrays, "present", 0, 2),
            "medians for others": arrays | {"median": arrays["median"][:, :2]},
            "endless medians": _changed(arrays, "median", (0, 0), np.inf),
        }
        taken = []
        for what, changed in hostile.items():
            with contextlib.suppress(ClassifierError):
                FittedBaseline.from_arrays(description, changed)
                taken.append(what)
        assert not taken, name
        for missing in arrays:
            with pytest.raises(ClassifierError, match=f"lacks '{missing}'"):
                FittedBaseline.from_arrays(
                    description, {n: a for n, a in arrays.items() if n != missing}
                )


def test_layers_and_descriptions_that_do_not_fit_are_refused(make_samples: Make) -> None:
    description, arrays = fit_baseline("mlp", make_samples(groups=9), FEW).to_arrays()
    for changed in (
        _changed(arrays, "weight0", (0, 0), np.nan),
        _changed(arrays, "deviation", 0, 0),
        arrays | {"weight1": arrays["weight1"][:-1]},
        arrays | {"weight0": arrays["weight0"].astype(np.float64)},
        arrays | {"mean": arrays["mean"][None]},
        arrays | {"offset1": arrays["offset1"][:-1]},
    ):
        with pytest.raises(ClassifierError):
            FittedBaseline.from_arrays(description, changed)
    for name, value in {
        "rule": "pickle", "layers": 10**9, "class_count": True, "scaled": "yes",
        "features": "NDVI", "keeps_gaps": None,
    }.items():  # fmt: skip
        with pytest.raises(ClassifierError):
            FittedBaseline.from_arrays(description | {name: value}, arrays)
    for name in ("rule", "features", "class_count", "kind"):
        with pytest.raises(ClassifierError, match="lacks"):
            FittedBaseline.from_arrays({n: v for n, v in description.items() if n != name}, arrays)
    with pytest.raises(ClassifierError, match="feature 'gone' does not exist"):
        FittedBaseline.from_arrays(description | {"features": ["B04", "B08", "gone"]}, arrays)


def test_wrong_names_no_samples_and_other_data_are_refused(make_samples: Make) -> None:
    samples = make_samples(groups=6)
    with pytest.raises(ConfigError, match="baseline 'svm' does not exist; known are lda, logistic"):
        fit_baseline("svm", samples, FEW)
    with pytest.raises(SampleError, match="no sample to train on"):
        fit_baseline("lda", samples.take(np.array([], np.int64)), FEW)
    with pytest.raises(FeatureError, match="need bands B01"):
        fit_baseline("lda", samples, FeatureSet(names=("B01",)))
    fitted = fit_baseline("lda", samples, DEFAULT_FEATURES)
    with pytest.raises(ClassifierError, match="reads 12 periods, the data have 5"):
        fitted.probability(samples.reflectance[:, :5], samples.bands)


def test_majority_equals_the_prior_of_scikit_learn(make_samples: Make) -> None:
    samples = make_samples(groups=13)
    theirs = DummyClassifier(strategy="prior").fit(np.zeros((len(samples), 1)), samples.label)
    np.testing.assert_allclose(
        majority_probability(samples, 3), theirs.predict_proba(np.zeros((3, 1))), rtol=1e-6
    )


def test_majority_counts_shares_and_needs_samples(make_samples: Make) -> None:
    samples = make_samples(groups=6, classes=2)
    share = np.tile(np.array([0.6, 0.4], np.float32), (len(samples), 1))
    mixed = replace(samples, label=np.zeros_like(samples.label), share=share)
    np.testing.assert_allclose(majority_probability(mixed, 1), [[0.6, 0.4]], atol=1e-6)
    with pytest.raises(SampleError, match="there is no sample to take the shares"):
        majority_probability(samples.take(np.zeros(0, np.int64)), 1)


@pytest.mark.parametrize("name", BASELINES)
def test_units_of_a_band_do_not_matter(make_samples: Make, name: str) -> None:
    samples, test = make_samples(groups=24), make_samples(groups=24, seed=1)
    radar = {"bands": tuple(f"V{band}" for band in samples.bands)}
    features = FeatureSet(names=("band:VB04", "band:VB08"))
    for unit in (1e-8, 1e8):
        train = replace(samples, reflectance=samples.reflectance * np.float32(unit), **radar)
        values = test.reflectance * np.float32(unit)
        found = fit_baseline(name, train, features).probability(values, train.bands)
        assert (found.argmax(axis=1) == test.label).mean() > 0.8
