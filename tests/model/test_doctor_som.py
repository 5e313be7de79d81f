"""The map keeps likes together and judges labels by others: against plain loops."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from model.doctor import VERDICTS, SomConfig, fit_som, judge_labels
from model.doctor.som import edge_for
from model.errors import ConfigError, SampleError
from model.samples import Samples

Make = Callable[..., Samples]


def test_classes_part_on_the_map_and_planted_errors_are_told(make_samples: Make) -> None:
    samples = make_samples(groups=60, per_group=5, classes=3, gap=0.3)
    som = fit_som(samples.reflectance)
    neuron = som.place(samples.reflectance)
    purity = sum(
        Counter(samples.label[neuron == one].tolist()).most_common(1)[0][1]
        for one in np.unique(neuron)
    )
    assert purity / len(samples) > 0.95
    label = samples.label.copy()
    wrong = [3, 10, 20, 40]
    for group in wrong:
        label[samples.group == group] = (label[samples.group == group] + 1) % 3
    found = judge_labels(som, samples.reflectance, label, samples.group, class_count=3)
    told = [VERDICTS[place] for place in found.group_verdict]
    assert {
        int(g) for g, verdict in zip(found.group, told, strict=True) if verdict == "remove"
    } == (set(wrong))
    assert told.count("clean") > 45


def test_neighbours_are_alike_and_gaps_do_not_matter() -> None:
    """One season with a phase: neurons that touch differ less than neurons far apart."""
    random = np.random.default_rng(3)
    phase = random.uniform(0, 2 * np.pi, 600)
    series = np.cos(np.arange(12)[None] / 12 * 2 * np.pi - phase[:, None]).astype(np.float32)
    som = fit_som(series)
    assert som.edge == edge_for(600)
    grid = som.weights.reshape(som.edge, som.edge, -1)
    touching = np.abs(np.diff(grid, axis=0)).mean()
    apart = np.abs(grid[: som.edge // 2] - grid[-(som.edge // 2) :]).mean()
    assert touching < apart / 3
    gaps = series.copy()
    gaps[random.random(gaps.shape) < 0.3] = np.nan
    away = grid.reshape(-1, 12)[som.place(gaps)] - grid.reshape(-1, 12)[som.place(series)]
    assert np.abs(away).mean() < 0.3


def test_the_nearest_neuron_is_what_a_loop_finds() -> None:
    random = np.random.default_rng(5)
    series = random.normal(size=(80, 3, 4)).astype(np.float32)
    series[random.random(series.shape) < 0.4] = np.nan
    series = series[np.isfinite(series).reshape(80, -1).any(axis=1)]
    som = fit_som(series, SomConfig(edge=4, rounds=3))
    placed = som.place(series)
    for row, neuron in zip(series.reshape(len(series), -1), placed, strict=True):
        distances = [
            sum(
                ((value - mean) / deviation - weight) ** 2
                for value, mean, deviation, weight in zip(
                    row, som.mean, som.deviation, weights, strict=True
                )
                if np.isfinite(value)
            )
            for weights in som.weights
        ]
        assert distances[neuron] == pytest.approx(min(distances), abs=1e-4)


def test_a_group_is_no_witness_for_itself() -> None:
    """Witnesses and posterior of every sample, counted by loops over all others."""
    random = np.random.default_rng(7)
    series = random.normal(size=(60, 6)).astype(np.float32)
    group, label = random.integers(0, 12, 60), random.integers(0, 3, 60)
    config = SomConfig(edge=3, rounds=2, prior_weight=2.0)
    som = fit_som(series, config)
    found = judge_labels(som, series, label, group, class_count=3, config=config)
    neuron = som.place(series)
    units = sorted(set(zip(group.tolist(), label.tolist(), strict=True)))
    number = {
        (unit, place): ((group == unit[0]) & (label == unit[1]) & (neuron == place)).sum()
        for unit in units
        for place in range(9)
    }
    for sample in range(60):
        own = (int(group[sample]), int(label[sample]))
        here, around = np.zeros(3), np.zeros(3)
        row, column = divmod(int(neuron[sample]), 3)
        for (unit, place), count in number.items():
            if unit == own:
                continue
            away = max(abs(place // 3 - row), abs(place % 3 - column))
            if away <= 1:
                (here if away == 0 else around)[unit[1]] += np.sqrt(count)
        prior = (around + 1e-6) / (around + 1e-6).sum()
        expected = (here + 2.0 * prior) / (here.sum() + 2.0)
        np.testing.assert_allclose(found.posterior[sample], expected, atol=1e-9)
        share = here[label[sample]] / here.sum() if here.sum() else np.nan
        np.testing.assert_allclose(found.conditional[sample], share, atol=1e-9)


def test_one_seed_gives_one_map_and_every_sample_is_judged(make_samples: Make) -> None:
    samples = make_samples(groups=30, per_group=6)
    config = SomConfig(most_samples=50, seed=4)
    first, second = (fit_som(samples.reflectance, config) for _ in range(2))
    np.testing.assert_array_equal(first.weights, second.weights)
    series = samples.reflectance.copy()
    series[samples.group == 2] = np.nan
    found = judge_labels(first, series, samples.label, samples.group, class_count=3)
    assert len(found.verdict) == len(samples)
    empty = found.group == 2
    assert found.group_neuron[empty].tolist() == [-1]
    assert np.isnan(found.group_posterior[empty]).all()
    assert [VERDICTS[place] for place in found.group_verdict[empty]] == ["analyse"]
    known = np.isfinite(found.posterior).all(axis=1)
    np.testing.assert_allclose(found.posterior[known].sum(axis=1), 1)


def test_the_map_grows_with_the_samples() -> None:
    assert [edge_for(count) for count in (1, 100, 1000, 20_000, 10**9)] == [3, 7, 13, 27, 30]


def test_a_single_value_and_constant_series_make_a_map() -> None:
    som = fit_som(np.full((5, 1), 0.2, np.float32))
    assert np.isfinite(som.weights).all()


def test_wrong_input_is_refused() -> None:
    with pytest.raises(SampleError, match="none of 4 series has a value"):
        fit_som(np.full((4, 3), np.nan, np.float32))
    som = fit_som(np.zeros((4, 3), np.float32))
    with pytest.raises(SampleError, match="series of 3 values, these have 2"):
        som.place(np.zeros((4, 2), np.float32))
    for wrong in ({"edge": 1}, {"rounds": 0}, {"sure": 0.4}, {"prior_weight": 0.0}):
        with pytest.raises(ConfigError):
            SomConfig(**wrong)
