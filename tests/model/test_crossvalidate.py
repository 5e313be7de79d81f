import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model import crossvalidate, outoffold
from model.baselines import BASELINES
from model.config import TrainConfig
from model.crossvalidate import (
    MAJORITY,
    RANDOM_FOREST,
    Progress,
    ScoreTable,
    choose,
    compare_splits,
    cross_validate,
    cross_validate_baseline,
    strictest_split,
    train_network,
)
from model.errors import SampleError
from model.features import DEFAULT_FEATURES, FeatureSet
from model.fitted import Fitted
from model.outoffold import out_of_fold
from model.samples import Samples
from model.split import SPLITS, make_folds

NETWORK = "lstm"
Make = Callable[..., Samples]
FEW = FeatureSet(names=("B04", "B08"))


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
    samples = make_samples(groups=30, per_group=2)
    seen: list[Progress] = []
    some = replace(quick, epochs=3, features=FEW)
    table = compare_splits(samples, some, folds=5, watch=seen.append)
    models = (NETWORK, *BASELINES, MAJORITY)
    assert {(e.split, e.model) for e in table.entries} == {
        (split, model) for split in SPLITS for model in models
    }
    for split in SPLITS:
        # the strictest split chooses and calibrates: there the network has every fold held out
        used = 5 if split == "block" else 1
        entry = table.of(split)
        assert entry.held_out == pytest.approx(len(samples) * used / 5, rel=0.3)
        assert (entry.folds, entry.folds_used, entry.against) == (5, used, None)
        for model in models[1:]:
            entry = table.of(split, model)
            # scores that stand side by side, and their difference, are of the same samples
            assert (entry.held_out, entry.folds_used) == (table.of(split).held_out, used)
            own, its = (table.predictions_of(split, one).index for one in (model, NETWORK))
            assert own.tolist() == its.tolist()
            assert entry.against is not None
            assert entry.against.samples == table.of(split).held_out
            assert entry.scores is not None
            network = table.of(split).scores
            assert network is not None
            ahead = entry.scores.macro_f1 - network.macro_f1
            assert entry.against.macro_f1.difference == pytest.approx(ahead)
            assert entry.against.unit == ("block" if split == "block" else "group")
        held_out = table.folds_of(split).fold < used
        assert table.predictions_of(split).index.tolist() == np.flatnonzero(held_out).tolist()
    assert {progress.split for progress in seen} == set(SPLITS)
    found = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert found["entries"][0]["split"] == "random"
    assert found["entries"][1]["against"]["verdict"]
    assert found["chosen_by"] == "block"
    assert found["best"] == choose(table) == choose(table, "block")
    assert len(found["verdicts"]) == len(BASELINES)
    assert found["entries"][1]["macro_f1"] == found["entries"][1]["scores"]["macro_f1"]


def test_a_random_score_alone_is_refused(make_samples: Make, quick: TrainConfig) -> None:
    samples = make_samples(groups=12, per_group=4)
    table = compare_splits(samples, replace(quick, epochs=1), baselines=())
    alone = tuple(entry for entry in table.entries if entry.split == "random")
    with pytest.raises(ValueError, match="never shown without the grouped and block ones"):
        ScoreTable(entries=alone)


def test_a_split_that_cannot_be_made_says_why(make_samples: Make, quick: TrainConfig) -> None:
    samples = make_samples(groups=12, per_group=4)
    one_block = replace(samples, block=np.zeros(len(samples), np.int64))
    table = compare_splits(one_block, replace(quick, epochs=1), baselines=("lda",))
    entry = table.of("block")
    assert entry.scores is None
    assert entry.notes[0].startswith("the block split finds 0 classes in two blocks or more")
    assert entry.to_dict()["scores"] is None
    assert table.of("block", "lda").scores is None
    assert table.of("grouped").scores is not None
    assert strictest_split(table) == "grouped"
    assert table.to_dict()["chosen_by"] == "grouped"


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
    table = compare_splits(
        samples,
        replace(quick, hidden=32),
        folds_used=2,
        baselines=(RANDOM_FOREST,),
    )
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


def test_out_of_fold_equals_a_plain_loop(make_samples: Make) -> None:
    samples = make_samples(groups=15)
    folds = make_folds(samples, "grouped", folds=3)
    found = cross_validate_baseline("lda", samples, FEW, folds=folds, seed=2)
    from model.baselines import fit_baseline

    for fold in range(3):
        out = folds.fold == fold
        model = fit_baseline("lda", samples.take(np.flatnonzero(~out)), FEW, seed=2)
        expected = model.probability(samples.reflectance[out], samples.bands)
        np.testing.assert_array_equal(found.probability[found.fold == fold], expected)
    assert found.index.tolist() == list(range(len(samples)))


def test_the_simple_model_is_chosen_where_it_is_better(
    make_samples: Make, quick: TrainConfig
) -> None:
    samples = make_samples(groups=30, noise=0.02)
    lame = replace(quick, epochs=1, learning_rate=1e-9)  # a network that learns nothing
    table = compare_splits(samples, lame, folds_used=None, baselines=("lda",))
    assert choose(table) == "lda"
    against = table.of("block", "lda").against
    assert against is not None
    assert against.verdict.startswith("lda wins by ")
    assert table.verdicts == (f"lda: {against.verdict} (block split)",)
    # a draw goes to the network, and so does a table that says nothing
    same = replace(against, macro_f1=replace(against.macro_f1, difference=0.0))
    even = [replace(e, against=same if e.against else None) for e in table.entries]
    assert choose(replace(table, entries=tuple(even))) == NETWORK
    assert choose(ScoreTable(entries=())) == NETWORK
    with pytest.raises(ValueError, match="random split does not choose"):
        choose(table, "random")


def test_settings_are_chosen_without_what_they_are_scored_on(
    make_samples: Make, quick: TrainConfig
) -> None:
    """An oracle that sees the held-out labels cannot be: it is only ever given the others."""
    samples = make_samples(groups=18, per_group=2)
    folds = make_folds(samples, "grouped", folds=3)
    asked: dict[int, set[int]] = {}
    trained: dict[int, int] = {}

    def settle(train: Samples, split: str, fold: int) -> TrainConfig:
        assert split == "grouped"
        asked[fold] = set(train.group.tolist())
        return replace(quick, hidden=4 + fold, epochs=1, patience=None)

    def see(split: str, fold: int, network: Fitted) -> None:
        trained[fold] = network.config.hidden

    found = cross_validate(samples, quick, folds=folds, settle=settle, on_model=see)
    assert trained == {0: 4, 1: 5, 2: 6}
    for fold in range(3):
        held_out = set(samples.group[found.index[found.fold == fold]].tolist())
        assert held_out
        assert asked[fold] == set(samples.group.tolist()) - held_out


def test_the_majority_class_is_never_shipped(make_samples: Make, quick: TrainConfig) -> None:
    samples = make_samples(groups=12)
    table = compare_splits(
        samples, replace(quick, epochs=1, learning_rate=1e-9), splits=("grouped",), baselines=()
    )
    entry = table.of("grouped", MAJORITY)
    assert entry.against is not None
    better = replace(entry.against, macro_f1=replace(entry.against.macro_f1, difference=0.5))
    entries = tuple(replace(e, against=better if e.against else None) for e in table.entries)
    assert choose(replace(table, entries=entries)) == NETWORK


def test_finished_folds_are_not_done_again(
    make_samples: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = make_samples(groups=12)
    folds = make_folds(samples, "grouped", folds=3)
    fitted: list[str] = []
    fit = crossvalidate.fit_baseline

    def counted(name: str, *args: object, **settings: object) -> object:
        fitted.append(name)
        return fit(name, *args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(crossvalidate, "fit_baseline", counted)

    def run(given: Samples = samples, seed: int = 0, used: int | None = None) -> np.ndarray:
        fitted.clear()
        return cross_validate_baseline(
            "lda", given, FEW, folds=folds, folds_used=used, seed=seed, keep=tmp_path
        ).probability

    run(used=2)  # as if killed after two folds
    assert len(fitted) == 2
    whole = run()
    assert len(fitted) == 1
    np.testing.assert_array_equal(run(), whole)
    assert not fitted
    run(seed=1)  # other settings
    assert len(fitted) == 3
    run(replace(samples, label=samples.label[::-1].copy()))  # other samples
    assert len(fitted) == 3
    with monkeypatch.context() as newer:  # another release may learn something else
        newer.setattr(outoffold, "code_version", lambda: "999.0")
        run()
        assert len(fitted) == 3
    run()
    assert not fitted
    for place in tmp_path.glob("*.npy"):
        place.write_bytes(place.read_bytes()[:100])
    np.testing.assert_array_equal(run(), whole)
    assert len(fitted) == 3
    for place in tmp_path.glob("*.npy"):  # whole, but not what is needed
        np.save(place, np.full((4, 3), np.nan, np.float32))
    np.testing.assert_array_equal(run(), whole)
    assert not list(tmp_path.glob("*.part"))


def test_a_model_that_gives_nonsense_is_refused(make_samples: Make) -> None:
    samples = make_samples(groups=12)
    folds = make_folds(samples, "grouped", folds=3)

    class Broken:
        kind, features, class_count = "broken", FEW, 3

        def probability(
            self, reflectance: np.ndarray, bands: tuple[str, ...], *, batch: int = 512
        ) -> np.ndarray:
            return np.full((len(reflectance), 3), np.nan, np.float32)

    with pytest.raises(SampleError, match=r"broken gave probabilities of shape .* or not finite"):
        out_of_fold(samples, lambda train, fold: Broken(), model="broken", folds=folds)
