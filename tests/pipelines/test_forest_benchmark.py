from collections.abc import Callable

import numpy as np
import pytest

from model.samples import Samples
from tests.benchmarks import forest
from tests.benchmarks.disturbed import MIXED, blended, disturbed, joined, moved, share_errors

BANDS = ("B04", "B08")
PERIODS = tuple(f"2022-{month:02}" for month in range(1, 13))


@pytest.fixture(name="plots")
def _plots() -> Callable[[], Samples]:
    def make() -> Samples:
        random = np.random.default_rng(0)
        values = random.uniform(0.1, 0.4, (60, 12, 2)).astype(np.float32)
        values[random.uniform(size=(60, 12)) < 0.1] = np.nan
        return Samples.from_names(
            reflectance=values, bands=BANDS, periods=PERIODS,
            labels=[("deci_broad", "ever_coni", MIXED)[number % 3] for number in range(60)],
            group=np.arange(60) // 2, block=np.arange(60) // 6,
        )  # fmt: skip

    return make


@pytest.mark.parametrize("days", [-15.0, 15.0, 40.0])
def test_a_clear_year_is_interpolated_round_the_new_year(days: float) -> None:
    values = np.random.default_rng(1).uniform(size=(3, 12, 2)).astype(np.float32)
    at = (np.arange(12) + 0.5) * 365 / 12
    found = moved(values, days)
    for sample in range(3):
        for band in range(2):
            expected = np.interp(at + days, at, values[sample, :, band], period=365)
            np.testing.assert_allclose(found[sample, :, band], expected, atol=1e-5)


def test_a_month_is_missing_where_the_nearer_one_is() -> None:
    values = np.ones((1, 12, 1), np.float32)
    values[0, 4] = np.nan
    np.testing.assert_array_equal(np.isnan(moved(values, 10.0))[0, :, 0], np.arange(12) == 4)
    np.testing.assert_array_equal(np.isnan(moved(values, 20.0))[0, :, 0], np.arange(12) == 3)
    assert np.nanmax(np.abs(moved(values, 10.0) - 1)) < 1e-6  # a missing month has no part


def test_four_months_are_hidden_from_all(plots: Callable[[], Samples]) -> None:
    values = plots().reflectance
    found = disturbed(values, 3, seed=0)
    assert sorted(found) == ["earlier", "gap0", "gap1", "gap2", "later"]
    for draw in range(3):
        hidden = found[f"gap{draw}"]
        gone = np.isnan(hidden).all(axis=(0, 2))
        assert gone.sum() == 4
        np.testing.assert_array_equal(hidden[:, ~gone], values[:, ~gone])


def test_a_blend_is_the_sum_of_its_parts(plots: Callable[[], Samples]) -> None:
    samples = plots()
    mixed = blended(samples, count=40, seed=0)
    assert mixed.share is not None
    assert len(mixed) == 40
    assert not mixed.share[:, samples.classes.index(MIXED)].any()
    for plot in range(40):
        part = mixed.share[plot].max()
        assert 0.5 <= part <= 0.9
        same = (samples.label == mixed.label[plot]) & (samples.group == mixed.group[plot])
        others = np.flatnonzero(mixed.share[plot] > 0)
        assert len(others) == 2
        second = samples.reflectance[
            np.isin(samples.label, others) & (samples.label != mixed.label[plot])
        ]
        made = [
            part * one + (1 - part) * second for one in samples.reflectance[same]
        ]  # (candidate, time, band) for each sample of the stand
        assert any(
            np.allclose(one, mixed.reflectance[plot], atol=1e-5, equal_nan=True)
            for candidates in made
            for one in candidates
        )
    both = joined(samples, mixed)
    assert both.share is not None
    assert len(both) == 100
    np.testing.assert_array_equal(both.share[:60].argmax(axis=1), samples.label)


def test_share_errors_of_known_answers(plots: Callable[[], Samples]) -> None:
    mixed = blended(plots(), count=40, seed=0)
    assert mixed.share is not None
    assert set(share_errors(mixed.share, mixed).values()) == {0.0}
    swapped = mixed.share[:, [1, 0, 2]]
    parts = np.sort(mixed.share, axis=1)[:, ::-1]
    gap = float((parts[:, 0] - parts[:, 1]).mean())
    found = share_errors(swapped, mixed)
    np.testing.assert_allclose(found[""], gap, atol=1e-6)
    np.testing.assert_allclose(found["_of_all"], gap * 2 / 3, atol=1e-6)
    np.testing.assert_allclose(found["_of_leaf_type"], gap, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--models", "oracle"], "'oracle' is not known; expected default lstm"),
        (["--parts", "grouped,all"], "'all' is not known; expected grouped"),
        (["--set", "mixup=much", "--models", "default lstm", "--forest", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_measured_is_told(
    options: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert forest.main([*options, "--seeds", "1"]) == 2
    assert text in capsys.readouterr().err
