import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer

from model.baselines import RandomForest, majority_probability
from model.config import TrainConfig
from model.crossvalidate import (
    MAJORITY,
    NETWORK,
    RANDOM_FOREST,
    Progress,
    ScoreTable,
    compare_splits,
    cross_validate,
    train_network,
)
from model.features import DEFAULT_FEATURES
from model.samples import Samples
from model.split import SPLITS, make_folds

Make = Callable[..., Samples]


def test_a_separable_forest_is_separated(make_samples: Make, quick: TrainConfig) -> None:
    samples = make_samples()
    folds = make_folds(samples, "grouped", folds=3)
    result = cross_validate(samples, quick, folds=folds)
    assert result.index.tolist() == list(range(len(samples)))
    assert result.scores(samples).macro_f1 > 0.95


def test_labels_shuffled_between_groups_score_like_chance(
    make_samples: Make, quick: TrainConfig
) -> None:
    samples = make_samples(groups=60)
    label_of_group = np.random.default_rng(2).permutation(np.arange(60) % 3)
    shuffled = replace(samples, label=label_of_group[samples.group].astype(np.int64))
    grouped = cross_validate(shuffled, quick, folds=make_folds(shuffled, "grouped", folds=3))
    # 60 groups are 60 independent draws: three sigma above a third
    assert grouped.scores(shuffled).accuracy < 1 / 3 + 3 * np.sqrt(2 / 9 / 60)


def test_the_three_splits_stand_side_by_side(make_samples: Make, quick: TrainConfig) -> None:
    samples = make_samples(groups=45, per_group=4)
    seen: list[Progress] = []
    table = compare_splits(samples, replace(quick, epochs=8), folds=5, watch=seen.append)
    assert {(e.split, e.model) for e in table.entries} == {
        (split, model) for split in SPLITS for model in (NETWORK, RANDOM_FOREST, MAJORITY)
    }
    for split in SPLITS:
        held_out = {table.of(split, m).held_out for m in (NETWORK, RANDOM_FOREST, MAJORITY)}
        assert len(held_out) == 1
        assert held_out.pop() == pytest.approx(len(samples) / 5, rel=0.3)
        assert (table.of(split).folds, table.of(split).folds_used) == (5, 1)
    assert {progress.split for progress in seen} == set(SPLITS)
    assert (
        json.loads(json.dumps(table.to_dict(), allow_nan=False))["entries"][0]["split"] == "random"
    )


def test_a_random_score_alone_is_refused(make_samples: Make, quick: TrainConfig) -> None:
    samples = make_samples(groups=12, per_group=4)
    table = compare_splits(samples, replace(quick, epochs=1))
    alone = tuple(entry for entry in table.entries if entry.split == "random")
    with pytest.raises(ValueError, match="never shown without the grouped and block ones"):
        ScoreTable(entries=alone)


def test_a_split_that_cannot_be_made_says_why(make_samples: Make, quick: TrainConfig) -> None:
    samples = make_samples(groups=12, per_group=4)
    one_block = replace(samples, block=np.zeros(len(samples), np.int64))
    table = compare_splits(one_block, replace(quick, epochs=1))
    entry = table.of("block")
    assert entry.scores is None
    assert entry.notes[0].startswith("the block split finds 0 classes in two blocks or more")
    assert entry.to_dict()["scores"] is None
    assert table.of("grouped").scores is not None


def test_random_split_flatters_when_groups_are_alike_inside(quick: TrainConfig) -> None:
    # every group has a signature of its own and labels mean nothing
    random = np.random.default_rng(0)
    group = np.repeat(np.arange(30), 12)
    signature = random.uniform(0.1, 0.4, (30, 12, 10))
    samples = Samples(
        reflectance=(signature[group] + random.normal(0, 0.002, (360, 12, 10))).astype(np.float32),
        bands=DEFAULT_FEATURES.required_bands,
        periods=tuple(f"2022-{month:02d}" for month in range(1, 13)),
        label=(random.permutation(30) % 2)[group].astype(np.int64),
        classes=("a", "b"),
        group=group.astype(np.int64),
        block=group.astype(np.int64),
    )
    table = compare_splits(samples, replace(quick, hidden=32), folds_used=2)
    for model in (NETWORK, RANDOM_FOREST):
        random_scores, grouped = table.of("random", model).scores, table.of("grouped", model).scores
        assert random_scores is not None
        assert grouped is not None
        assert random_scores.accuracy > 0.9
        assert grouped.accuracy < 0.8


def test_training_stops_by_held_out_groups(make_samples: Make, quick: TrainConfig) -> None:
    samples = make_samples()
    seen = []
    fitted = train_network(samples, replace(quick, patience=2), watch=seen.append)
    assert all(report.validation_loss is not None for report in seen)
    assert fitted.epoch <= len(seen)
    few = samples.take(np.flatnonzero(samples.group < 3).astype(np.int64))
    seen.clear()
    train_network(few, replace(quick, patience=2, epochs=5), watch=seen.append)
    assert [report.validation_loss for report in seen] == [None] * 5


def test_random_forest_equals_scikit_learn_on_imputed_columns(make_samples: Make) -> None:
    train, test = make_samples(groups=12), make_samples(groups=12, seed=1)
    forest = RandomForest.fit(train, DEFAULT_FEATURES, trees=10, seed=4, threads=1)

    def columns(samples: Samples) -> np.ndarray:
        values = DEFAULT_FEATURES.compute(samples.reflectance, samples.bands)
        return values.reshape(len(samples), -1)

    impute = SimpleImputer(strategy="median").fit(columns(train))

    def filled(samples: Samples) -> np.ndarray:
        clear = np.isfinite(samples.reflectance[..., 0])
        return np.hstack([impute.transform(columns(samples)), clear]).astype(np.float32)

    theirs = RandomForestClassifier(10, random_state=4).fit(filled(train), train.label)
    expected = theirs.predict_proba(filled(test)).astype(np.float32)
    np.testing.assert_allclose(forest.probability(test), expected, atol=1e-6)


def test_majority_equals_the_prior_of_scikit_learn(make_samples: Make) -> None:
    samples = make_samples(groups=13)
    theirs = DummyClassifier(strategy="prior").fit(np.zeros((len(samples), 1)), samples.label)
    np.testing.assert_allclose(
        majority_probability(samples, 3), theirs.predict_proba(np.zeros((3, 1))), rtol=1e-6
    )


def test_forest_knows_classes_it_never_saw(make_samples: Make) -> None:
    samples = make_samples(groups=12)
    two = samples.take(np.flatnonzero(samples.label != 1).astype(np.int64))
    forest = RandomForest.fit(two, DEFAULT_FEATURES, trees=5, threads=1)
    probability = forest.probability(samples)
    assert probability.shape == (len(samples), 3)
    assert not probability[:, 1].any()
