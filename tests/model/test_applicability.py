import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import numpy as safetensors
from scipy.spatial.distance import cdist
from sklearn.isotonic import isotonic_regression

from model.certainty.applicability import (
    Applicability,
    accuracy_curve,
    clear_values,
    held_out_dissimilarity,
    learn_applicability,
    thresholds_of,
)
from model.certainty.space import Space
from model.errors import ClassifierError, SampleError
from model.features import DEFAULT_FEATURES
from model.samples import Samples
from model.split import Folds

Make = Callable[..., Samples]


@pytest.fixture(scope="module")
def samples(make_samples: Make) -> Samples:
    return make_samples(groups=90, per_group=5)


def values_of(samples: Samples) -> np.ndarray:
    return clear_values(DEFAULT_FEATURES, samples.reflectance, samples.bands)


def folds_of(fold: np.ndarray) -> Folds:
    return Folds(split="grouped", fold=fold.astype(np.int64), count=int(fold.max()) + 1, notes=())


def learned(samples: Samples) -> Space:
    return Space.learn(values_of(samples), label=samples.label, group=samples.group)


def by_hand(train: np.ndarray, label: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Dissimilarity as the module's text describes it, sample by sample."""
    season = np.nanmean(train, axis=0)
    deviation = np.nanstd(train, axis=(0, 1))
    angle = np.arange(train.shape[1]) / train.shape[1] * 2 * np.pi
    waves = np.stack([np.ones_like(angle), np.cos(angle), np.sin(angle)], axis=1)

    def coefficient(one: np.ndarray) -> np.ndarray:
        rest = np.clip((one - season) / deviation, -10, 10)
        clear = np.isfinite(rest).any(axis=1)
        rest = np.nan_to_num(rest[clear])
        # ridge regression of weight 4 as least squares with one row more per wave
        rows = np.vstack([waves[clear], 2 * np.eye(3)])
        padded = np.vstack([rest, np.zeros((3, rest.shape[1]))])
        return np.linalg.lstsq(rows, padded, rcond=None)[0].ravel()

    known = np.stack([coefficient(one) for one in train])
    asked = np.stack([coefficient(one) for one in test])
    within = np.concatenate([known[label == k] - known[label == k].mean(0) for k in set(label)])
    covariance = within.T @ within / len(within)
    covariance += 1e-4 * np.linalg.eigvalsh(covariance)[-1] * np.eye(len(covariance))
    inverse = np.linalg.inv(covariance)
    between = cdist(known, known, "mahalanobis", VI=inverse)
    mean = between[np.triu_indices(len(known), 1)].mean()
    return np.asarray(cdist(asked, known, "mahalanobis", VI=inverse).min(axis=1) / mean)


def test_dissimilarity_equals_brute_force(make_samples: Make) -> None:
    train = make_samples(groups=30, per_group=6, gap=0.3)
    test = make_samples(groups=12, per_group=3, gap=0.3, seed=5)
    expected = by_hand(values_of(train), train.label, values_of(test))
    found = learned(train).dissimilarity(values_of(test))
    np.testing.assert_allclose(found, expected, rtol=0.02)


def test_training_samples_are_at_no_distance_and_order_does_not_matter(samples: Samples) -> None:
    space, values = learned(samples), values_of(samples)
    index = space.dissimilarity(values)
    assert index.max() < 0.02  # rounding of float32
    order = np.random.default_rng(0).permutation(len(samples))
    np.testing.assert_allclose(space.dissimilarity(values[order]), index[order], atol=0.02)
    far = values + np.float32(0.05)
    np.testing.assert_allclose(
        space.dissimilarity(far[:7]), space.dissimilarity(far)[:7], rtol=1e-4
    )


def test_foreign_pixels_are_outside_and_held_out_groups_inside(samples: Samples) -> None:
    folds = folds_of(samples.block % 5)
    held_out = held_out_dissimilarity(
        values_of(samples), label=samples.label, group=samples.group, folds=folds
    )
    area = learn_applicability(
        {"features": values_of(samples)},
        {"features": held_out},
        label=samples.label,
        group=samples.group,
    )
    inside = held_out <= area.thresholds["features"]
    assert inside.mean() == pytest.approx(0.93, abs=0.01)
    sensor = np.where(np.arange(len(samples.bands)) % 2, 1.1, 0.9).astype(np.float32)
    foreign = {
        "offset": samples.reflectance + np.float32(0.1),
        "sensor": samples.reflectance * sensor,
        "season": np.roll(samples.reflectance, 6, axis=1),
    }
    for name, reflectance in foreign.items():
        values = values_of(replace(samples, reflectance=reflectance))
        if name == "season":  # for three classes in three seasons another season is their own
            values = np.roll(values_of(samples), 2, axis=1)
        assert (~area.is_inside({"features": values})).mean() >= 0.95, name


def test_gaps_hide_but_do_not_invent(samples: Samples) -> None:
    space, values = learned(samples), values_of(samples)
    gaps = values.copy()
    gaps[:, 3:] = np.nan
    known = np.isfinite(gaps).any(axis=(1, 2))
    assert known.any()
    assert not known.all()
    index = space.dissimilarity(gaps)
    assert (index[known] < 1).all()
    assert np.isinf(index[~known]).all()
    area = Applicability(spaces={"a": space}, thresholds={"a": 0.5})
    assert not area.is_inside({"a": gaps})[~known].any()


def test_prototypes_come_from_all_groups(samples: Samples) -> None:
    values = values_of(samples)
    few = Space.learn(values, label=samples.label, group=samples.group, prototypes=90)
    # with one prototype of each group, the others of the group are near, and none is at 0 but it
    assert (few.dissimilarity(values) < 0.02).sum() == 90
    chosen = samples.group[few.dissimilarity(values) < 0.02]
    assert len(set(chosen.tolist())) == 90


def test_a_hidden_layer_is_a_sequence_of_one_period() -> None:
    random = np.random.default_rng(0)
    label = np.arange(200) % 2
    hidden = random.normal(0, 1, (200, 1, 8)).astype(np.float32) + 5 * label[:, None, None]
    hidden = hidden.astype(np.float32)
    space = Space.learn(hidden, label=label, group=np.arange(200))
    between = np.full((1, 1, 8), 2.5, np.float32)
    assert space.dissimilarity(between)[0] > np.quantile(
        held_out_dissimilarity(
            hidden, label=label, group=np.arange(200), folds=folds_of(np.arange(200) % 4)
        ),
        0.95,
    )


@given(st.integers(1, 30), st.integers(1, 4), st.integers(0, 50))
@settings(deadline=None, max_examples=40)
def test_any_shape_learns(times: int, features: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(0, 1, (12, times, features)).astype(np.float32)
    values[random.random(values.shape[:2]) < 0.3] = np.nan
    values[0, 0], values[1, 0] = 1, 2
    space = Space.learn(values, label=np.arange(12) % 3, group=np.arange(12))
    index = space.dissimilarity(values)
    assert (index >= 0).all()
    np.testing.assert_array_equal(np.isinf(index), ~np.isfinite(values).any(axis=(1, 2)))


def test_a_feature_that_never_changes_is_no_fault() -> None:
    values = np.ones((10, 12, 2), np.float32)
    values[..., 1] = np.arange(10)[:, None]
    space = Space.learn(values, label=np.arange(10) % 2, group=np.arange(10))
    assert space.dissimilarity(values).max() < 0.02
    assert space.dissimilarity(values + np.float32([1, 0]))[0] > 1
    same = np.ones((3, 12, 1), np.float32)
    space = Space.learn(same, label=np.zeros(3, np.int64), group=np.arange(3))
    assert space.dissimilarity(same).tolist() == [0, 0, 0]
    assert (space.dissimilarity(same * 2) > 1).all()


def test_all_spaces_together_keep_the_wanted_share() -> None:
    random = np.random.default_rng(0)
    held_out = {
        name: random.gamma(3, 1, 5000).astype(np.float32) for name in ("features", "hidden")
    }
    held_out["features"][:10] = np.nan
    found = thresholds_of(held_out, inside=0.9)
    below = [held_out[name] <= found[name] for name in found]
    assert np.mean((below[0] & below[1])[10:]) == pytest.approx(0.9, abs=0.002)
    assert found["features"] == pytest.approx(found["hidden"], rel=0.05)
    with pytest.raises(SampleError, match="no sample was held out"):
        thresholds_of({"features": np.full(4, np.nan, np.float32)})


def test_the_curve_falls(make_samples: Make) -> None:
    random = np.random.default_rng(2)
    index = random.gamma(2, 0.5, 4000)
    is_right = random.random(4000) < np.exp(-index)
    index[:3] = np.inf
    curve = accuracy_curve(index, is_right, bins=12)
    assert curve.count.sum() == 3997
    assert (np.diff(curve.dissimilarity) > 0).all()
    expected = isotonic_regression(curve.accuracy, sample_weight=curve.count, increasing=False)
    np.testing.assert_allclose(curve.falling, expected)
    assert curve.expected(np.array([0.0]))[0] == pytest.approx(curve.falling[0])
    assert curve.expected(np.array([1.0]))[0] == pytest.approx(np.exp(-1.0), abs=0.07)
    assert json.loads(json.dumps(curve.to_dict()))["count"] == curve.count.tolist()
    flat = accuracy_curve(np.ones(5), np.array([True, True, False, True, True]))
    assert flat.accuracy.tolist() == [0.8]
    with pytest.raises(SampleError, match="no held-out sample has a dissimilarity"):
        accuracy_curve(np.array([np.inf]), np.array([True]))


def test_an_area_survives_safetensors_and_refuses_what_was_edited(samples: Samples) -> None:
    area = Applicability(spaces={"features": learned(samples)}, thresholds={"features": 0.4})
    stored = safetensors.load(safetensors.save(area.to_arrays()))
    again = Applicability.from_arrays(stored)
    values = {"features": values_of(samples) + np.float32(0.03)}
    np.testing.assert_array_equal(area.dissimilarity(values), again.dissimilarity(values))

    def changed(name: str, value: Any) -> dict[str, np.ndarray]:
        return {**stored, f"features.{name}": value}

    faults = [
        (changed("prototypes", stored["features.prototypes"][:, 1:]), "do not fit each other"),
        (changed("prototypes", stored["features.prototypes"][:0]), "do not fit each other"),
        (changed("season", stored["features.season"] * np.nan), "is not finite"),
        (changed("deviation", stored["features.deviation"] * 0), "is not positive"),
        (changed("mean_distance", np.array(0.0)), "is not positive"),
        (changed("centre", stored["features.centre"].astype(np.float64)), "of wrong types"),
        (changed("extra", np.zeros(1)), "of wrong types"),
        (changed("threshold", np.array(-1.0)), "threshold of 'features' is -1.0"),
        (changed("threshold", np.array([1.0])), "no threshold of 'features'"),
        ({}, r"has spaces \[\]"),
    ]
    for arrays, message in faults:
        with pytest.raises(ClassifierError, match=message):
            Applicability.from_arrays(arrays)


def test_other_shapes_and_too_few_samples_are_refused(samples: Samples) -> None:
    space, values = learned(samples), values_of(samples)
    with pytest.raises(ClassifierError, match=r"is of \(time, feature\) \(12, 16\), the values"):
        space.dissimilarity(values[:, :6])
    area = Applicability(spaces={"features": space}, thresholds={"features": 1.0})
    with pytest.raises(ClassifierError, match=r"needs values of \['features'\], found \['hid"):
        area.dissimilarity({"hidden": values})
    gone = values[:5].copy()
    gone[1:] = np.nan
    with pytest.raises(SampleError, match="1 of 5 sequences have a value"):
        Space.learn(gone, label=samples.label[:5], group=samples.group[:5])
    rest = {"label": samples.label, "group": samples.group}
    with pytest.raises(SampleError, match="all samples are in one fold"):
        held_out_dissimilarity(values, **rest, folds=folds_of(np.zeros(len(samples), np.int64)))
    distances = np.ones(len(samples), np.float32)
    with pytest.raises(SampleError, match=r"spaces \['features'\], distances \['hidden'\]"):
        learn_applicability({"features": values}, {"hidden": distances}, **rest)
    with pytest.raises(SampleError, match=r"inside is 1\.5; expected between 0 and 1"):
        learn_applicability({"features": values}, {"features": distances}, **rest, inside=1.5)


def test_what_always_trains_is_not_held_out(samples: Samples) -> None:
    fold = np.where(samples.group < 3, -1, samples.block % 2)
    folds = folds_of(fold)
    found = held_out_dissimilarity(
        values_of(samples), label=samples.label, group=samples.group, folds=folds
    )
    np.testing.assert_array_equal(np.isnan(found), samples.group < 3)
