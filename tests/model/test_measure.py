"""What a classifier claims: nothing it is measured on had a say in it, by plain loops over samples."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from model.baselines import fit_baseline
from model.certainty.applicability import clear_values, held_out_dissimilarity
from model.certainty.checked import parts_of_groups
from model.certainty.measure import _tested, measure_certainty
from model.certainty.space import Space
from model.features import DEFAULT_FEATURES, FeatureSet
from model.outoffold import OutOfFold, out_of_fold
from model.predictor import Predictor
from model.samples import Samples
from model.split import Folds, Split, make_folds

Make = Callable[..., Samples]
FEW = FeatureSet(names=("B04", "B08", "B11"))


@pytest.fixture(scope="module")
def placed(make_samples: Make) -> Samples:
    """Groups of 60 m, some of which lie on both sides of the border of a block of 100 m."""
    samples = make_samples(groups=48, noise=0.08)
    random = np.random.default_rng(4)
    stand = np.column_stack([np.arange(48) % 8, np.arange(48) // 8]) * 70.0
    place = stand[samples.group] + random.uniform(0, 60, (len(samples), 2))
    square = np.floor(place / 100).astype(np.int64)
    region = (place[:, 0] // 190).astype(np.int64)
    return replace(samples, place=place, block=square[:, 0] * 100 + square[:, 1], region=region)


def held_out_by(samples: Samples, folds: Folds) -> OutOfFold:
    def learn(train: Samples, fold: int) -> Predictor:
        return fit_baseline("lda", train, FEW)

    return out_of_fold(samples, learn, model="lda", folds=folds)


@pytest.mark.parametrize(("split", "buffer"), [("block", 0.0), ("block", 25.0), ("region", 0.0)])
def test_distances_are_to_what_trains_and_nothing_else(
    placed: Samples, split: Split, buffer: float
) -> None:
    folds = make_folds(placed, split, folds=3, buffer=buffer)
    assert folds.group is not None  # some groups are divided
    values = clear_values(FEW, placed.reflectance, placed.bands)
    found = held_out_dissimilarity(values, label=placed.label, group=placed.group, folds=folds)
    assert placed.place is not None
    for index in range(folds.count):
        held = [n for n in range(len(placed)) if folds.fold[n] == index]
        near = np.array(
            [
                min(np.hypot(*(placed.place[other] - at)) for other in held) <= buffer
                for at in placed.place
            ]
        )
        shares_group = np.isin(placed.group, placed.group[held])
        rest = np.flatnonzero(~near & ~shares_group)
        space = Space.learn(values[rest], label=placed.label[rest], group=placed.group[rest])
        np.testing.assert_allclose(found[held], space.dissimilarity(values[held]), rtol=1e-5)
    naive = held_out_dissimilarity(
        values,
        label=placed.label,
        group=placed.group,
        folds=replace(folds, group=None, buffer=0.0),
    )
    # what shares a group or lies near made held-out samples look more alike than they are
    assert np.nanmean(naive) < np.nanmean(found)


def test_what_is_not_scored_has_no_distance(placed: Samples) -> None:
    assert placed.region is not None
    label = np.where(placed.region == 0, 2, placed.label % 2).astype(np.int64)
    label[np.flatnonzero(placed.region == 0)[:6]] = [0, 1, 0, 1, 0, 1]
    odd = replace(placed, label=label)
    folds = make_folds(odd, "region")
    assert folds.is_scored is not None
    values = clear_values(FEW, odd.reflectance, odd.bands)
    found = held_out_dissimilarity(values, label=odd.label, group=odd.group, folds=folds)
    np.testing.assert_array_equal(np.isnan(found), ~folds.is_scored)
    held_out = held_out_by(odd, folds)
    made = measure_certainty(odd, held_out, fit_baseline("lda", odd, FEW), {}, folds=folds)
    assert 0.8 < made.found["applicability"]["inside"] <= 1


def test_labels_of_a_part_have_no_say_in_what_it_is_tested_with(placed: Samples) -> None:
    held_out = held_out_by(placed, make_folds(placed, "grouped", folds=3))
    label, unit = placed.label[held_out.index], placed.group[held_out.index]
    honest, sets = _tested(held_out.probability, label, unit, share=None, coverage=0.9)
    part = parts_of_groups(unit, 10, seed=0)
    for index in range(10):
        other = np.where(part == index, (label + 1) % 3, label)
        again, changed = _tested(held_out.probability, other, unit, share=None, coverage=0.9)
        np.testing.assert_array_equal(again[part == index], honest[part == index])
        np.testing.assert_array_equal(changed.sets[part == index], sets.sets[part == index])
        assert (again[part != index] != honest[part != index]).any()


def test_plots_whose_shares_are_right_stay_so(placed: Samples) -> None:
    share = np.random.default_rng(0).dirichlet(np.ones(3), len(placed)).astype(np.float32)
    mixed = replace(placed, share=share, label=share.argmax(axis=1).astype(np.int64))
    folds = make_folds(mixed, "grouped", folds=3)
    held_out = replace(
        held_out_by(mixed, folds), probability=share[np.arange(len(mixed))], fold=folds.fold
    )
    fitted = fit_baseline("lda", mixed, DEFAULT_FEATURES)
    made = measure_certainty(mixed, held_out, fitted, {}, folds=folds)
    assert made.calibration is not None
    assert made.calibration.temperature == pytest.approx(1, abs=0.1)
    told = json.loads(json.dumps(made.found, allow_nan=False))
    assert told["certainty"]["share_error"]["before"] == 0
    assert told["certainty"]["share_error"]["after"] < 0.02


def test_few_units_calibrate_nothing(placed: Samples) -> None:
    few = replace(placed, group=placed.group // 16)
    folds = make_folds(few, "grouped", folds=3)
    made = measure_certainty(
        few, held_out_by(few, folds), fit_baseline("lda", few, FEW), {}, folds=folds
    )
    assert (made.calibration, made.conformal, made.found) == (None, None, {})
