"""The paired bootstrap against a plain loop over units, and against theory."""

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from model import compare
from model.compare import Against, Interval, compare_answers


def _answers(units: int = 40, size: int = 5) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(5)
    unit = np.repeat(np.arange(units), size)
    label = random.integers(0, 4, units)[unit]
    good = np.where(random.random(len(unit)) < 0.8, label, random.integers(0, 4, len(unit)))
    poor = np.where(random.random(len(unit)) < 0.6, label, random.integers(0, 4, len(unit)))
    return label, good, poor, unit


def test_intervals_equal_those_of_a_loop_that_copies_samples() -> None:
    label, good, poor, unit = _answers()
    macro_f1, accuracy = compare_answers(
        label, good, poor, unit=unit * 7 - 50, classes=6, draws=60, seed=2
    )
    drawn = np.random.default_rng(2).multinomial(40, np.full(40, 1 / 40), size=60)
    differences = []
    for draw in drawn:
        chosen = np.repeat(np.arange(len(label)), draw[unit])
        there = np.unique(label[chosen])
        scores = [
            (
                f1_score(label[chosen], answer[chosen], labels=there, average="macro"),
                accuracy_score(label[chosen], answer[chosen]),
            )
            for answer in (good, poor)
        ]
        differences.append(np.subtract(*scores))
    low, high = np.quantile(differences, [0.025, 0.975], axis=0)
    assert [macro_f1.low, accuracy.low] == pytest.approx(low.tolist())
    assert [macro_f1.high, accuracy.high] == pytest.approx(high.tolist())
    assert accuracy.difference == pytest.approx((good == label).mean() - (poor == label).mean())
    assert macro_f1.is_clear


def test_alike_samples_of_one_unit_count_once() -> None:
    random = np.random.default_rng(0)
    label = np.zeros(30, np.int64)
    right = random.random(30) < 0.7
    one = np.where(right, 0, 1)
    alone = compare_answers(label, one, label, unit=np.arange(30), classes=2)[1]
    copies = compare_answers(
        label.repeat(50), one.repeat(50), label.repeat(50), unit=np.arange(30).repeat(50), classes=2
    )[1]
    assert (copies.low, copies.high) == pytest.approx((alone.low, alone.high))
    # half the width is about two standard errors of a share over 30 draws
    error = np.sqrt(right.mean() * (1 - right.mean()) / 30)
    assert alone.high - alone.low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_equal_models_have_no_difference() -> None:
    label, good, _, unit = _answers()
    for interval in compare_answers(label, good, good, unit=unit, classes=4):
        assert (interval.difference, interval.low, interval.high) == (0, 0, 0)
        assert not interval.is_clear


def test_about_one_interval_in_twenty_misses() -> None:
    random = np.random.default_rng(1)
    missed = 0
    for seed in range(200):
        label = random.integers(0, 2, 100)
        first, second = (np.where(random.random(100) < 0.8, label, 1 - label) for _ in range(2))
        found = compare_answers(
            label, first, second, unit=np.arange(100), classes=2, draws=300, seed=seed
        )
        missed += found[1].is_clear
    assert 2 <= missed <= 22


def test_one_unit_says_nothing_of_chance() -> None:
    label, good, poor, _ = _answers()
    found = compare_answers(label, good, poor, unit=np.zeros(len(label), np.int64), classes=4)
    assert np.isnan([found[0].low, found[1].high]).all()
    assert found[0].difference > 0
    assert found[0].to_dict()["low"] is None


@pytest.mark.parametrize(
    ("ends", "units", "text"),
    [
        ((0.012, 0.003, 0.021), 40, "random forest wins by 1.2 points of macro-F1 (0.3 to 2.1)"),
        ((-0.05, -0.08, -0.01), 40, "lstm wins by 5.0 points of macro-F1 (1.0 to 8.0)"),
        (
            (0.004, -0.007, 0.015),
            40,
            "no difference can be shown: random forest is 0.4 points of macro-F1 ahead "
            "(random forest -0.7 to 1.5)",
        ),
        (
            (-0.004, -0.015, 0.007),
            6,
            "no difference can be shown: lstm is 0.4 points of macro-F1 ahead "
            "(random forest -1.5 to 0.7), from 6 blocks only",
        ),
        (
            (0.1, float("nan"), float("nan")),
            1,
            "no difference can be shown: 1 block says nothing of chance",
        ),
    ],
)
def test_verdict_is_a_sentence(ends: tuple[float, float, float], units: int, text: str) -> None:
    interval = Interval(difference=ends[0], low=ends[1], high=ends[2])
    against = Against(
        model="random forest", network="lstm", macro_f1=interval, accuracy=interval, samples=90,
        units=units, unit="block",
    )  # fmt: skip
    assert against.verdict == text
    assert json.loads(json.dumps(against.to_dict(), allow_nan=False))["verdict"] == text


def test_draws_in_strips_are_the_draws_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    label, good, poor, unit = _answers()
    found = []
    for strip in (7, 1000):
        monkeypatch.setattr(compare, "_STRIP", strip)
        found.append(compare_answers(label, good, poor, unit=unit, classes=4, draws=120))
    assert found[0] == found[1]
