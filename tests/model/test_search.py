import math

import pytest

from model.config import TrainConfig
from model.errors import ConfigError
from model.search import Range, best_of, configured, search

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
    config = TrainConfig(month_dropout=0.0)
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
    ],
)
def test_wrong_ranges_are_refused(ranges: dict[str, list[int]], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        list(search(TrainConfig(), ranges, lambda _: 0.0, trials=2))


def test_words_and_three_numbers_are_choices() -> None:
    assert Range.of("hidden", [32, 64, 128]).choices == (32, 64, 128)
    assert Range.of("pooling", ["last", "mean"]).choices == ("last", "mean")
