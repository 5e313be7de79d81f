import math
from typing import Any

import pytest

from model.config import TrainConfig
from model.errors import ConfigError
from model.search import Range, Trial, best_of, configured, search
from model.verdict import choices_told

RANGES = {"hidden": [8, 512], "learning_rate": [1e-4, 1e-2], "bidirectional": [True, False]}


def closeness(config: TrainConfig) -> float:
    return -abs(math.log(config.hidden / 64)) - abs(math.log(config.learning_rate / 1e-3))


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_a_search_keeps_to_its_ranges_and_finds_better_settings(method: str) -> None:
    if method == "tpe":
        pytest.importorskip("optuna", reason="the search group is not installed")
    config = TrainConfig(hidden=512, learning_rate=1e-2)
    trials = list(search(config, RANGES, closeness, trials=25, method=method, seed=3))
    assert [trial.number for trial in trials] == list(range(25))
    assert trials[0].settings == {}
    for trial in trials[1:]:
        assert isinstance(trial.settings["hidden"], int)
        assert 8 <= trial.settings["hidden"] <= 512
        assert 1e-4 <= float(trial.settings["learning_rate"]) <= 1e-2
        assert trial.settings["bidirectional"] in (True, False)
    best = best_of(trials)
    assert best.score > trials[0].score
    assert closeness(configured(config, best)) == best.score


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_one_seed_gives_one_series_of_trials(method: str) -> None:
    if method == "tpe":
        pytest.importorskip("optuna", reason="the search group is not installed")
    one, two = (
        list(search(TrainConfig(), RANGES, closeness, trials=6, method=method, seed=1))
        for _ in range(2)
    )
    assert one == two


def test_wide_ranges_are_drawn_by_orders_of_magnitude() -> None:
    config = TrainConfig()
    trials = list(search(config, {"learning_rate": [1e-6, 1.0]}, lambda _: 0.0, trials=400))
    small = [float(trial.settings["learning_rate"]) < 1e-3 for trial in trials[1:]]
    assert 0.4 < sum(small) / len(small) < 0.6


def test_settings_that_exclude_each_other_are_tried_without_a_score() -> None:
    config = TrainConfig(month_dropout=0.0, input_pieces=0)
    trials = list(
        search(config, {"mask_input": [False], "month_dropout": [0.2]}, lambda _: 1.0, trials=2)
    )
    assert trials[0].score == 1.0
    assert math.isnan(trials[1].score)
    assert best_of(trials).number == 0


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ({"width": [1, 2]}, "'width' is no setting that can be searched; known are .*hidden"),
        ({"seed": [1, 2]}, "'seed' is no setting"),
        ({"hidden": []}, "hidden has no values"),
        ({"hidden": [128, 64]}, "hidden from 128 to 64; ends must rise"),
        ({"hidden": [64, 9, 5000]}, "hidden 5000 cannot be trained: .* expected 1 to 4096"),
        ({"dropout": [0.1, 3.0]}, "dropout 3.0 cannot be trained: .* expected 0.0 to 0.99"),
        ({"learning_rate": [1e-4, math.inf]}, "from 0.0001 to inf; ends must be finite"),
    ],
)
def test_wrong_ranges_are_refused(ranges: dict[str, list[Any]], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        list(search(TrainConfig(), ranges, lambda _: 0.0, trials=2))


def test_words_and_three_numbers_are_choices() -> None:
    assert Range.of("hidden", [32, 64, 128]).choices == (32, 64, 128)
    assert Range.of("pooling", ["last", "mean"]).choices == ("last", "mean")


def test_another_architecture_brings_its_shape() -> None:
    seen: list[TrainConfig] = []

    def score(config: TrainConfig) -> float:
        seen.append(config)
        return 0.0

    ranges = {"architecture": ["tempcnn", "ltae", "inception", "lstm"]}
    trials = list(search(TrainConfig(), ranges, score, trials=20))
    assert not any(math.isnan(trial.score) for trial in trials)
    for config in seen:
        assert config == TrainConfig.preset("default", architecture=config.architecture)
    assert {config.architecture for config in seen} == {"tempcnn", "ltae", "inception", "lstm"}
    back = configured(
        TrainConfig.preset("default", architecture="tempcnn"),
        Trial(number=1, settings={"architecture": "lstm"}, score=0.0),
    )
    assert back == TrainConfig()


def test_epochs_that_are_searched_are_the_epochs_trained() -> None:
    trial = Trial(number=1, settings={"epochs": 3}, score=0.0)
    assert configured(TrainConfig(least_steps=800), trial).least_steps == 0
    both = Trial(number=1, settings={"epochs": 3, "least_steps": 50}, score=0.0)
    assert configured(TrainConfig(), both).least_steps == 50


def test_a_value_that_needs_another_one_is_searched_with_it() -> None:
    ranges: dict[str, list[Any]] = {"mask_input": [False], "month_dropout": [0.0, 0.2, 0.4]}
    config = TrainConfig(input_pieces=0)
    trials = list(search(config, ranges, lambda _: 1.0, trials=12))
    assert {math.isnan(trial.score) for trial in trials} == {True, False}


def test_a_choice_is_told_and_whether_the_score_has_seen_it() -> None:
    assert choices_told(models=1, trials=1) == ""
    assert "5 on these samples, so the score is a little flattering." in choices_told(
        models=5, trials=0
    )
    assert "these samples, those of the simple models were not searched, so the score" in (
        choices_told(models=0, trials=9)
    )
    nested = choices_told(models=0, trials=9, is_nested=True)
    assert "9 trials, for each score anew without what it holds out" in nested
    assert "flattering" not in nested
