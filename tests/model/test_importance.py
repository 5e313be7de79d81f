import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import importance
from model.certainty.checked import parts_of_groups
from model.errors import SampleError
from model.features import FeatureSet
from model.importance import (
    _donors,
    fewest_periods,
    periods_needed,
    permutation_importance,
)
from model.predictor import Predictor
from model.samples import Samples

Make = Callable[..., Samples]


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Looks at B04 in two periods, at the second only where the first is not clear."""

    first: int = 2
    second: int = 7
    names: tuple[str, ...] = ("B04", "B08")
    kind: str = "threshold"
    class_count: int = 2

    @property
    def features(self) -> FeatureSet:
        return FeatureSet(names=self.names)

    def probability(
        self, reflectance: np.ndarray, bands: tuple[str, ...], *, batch: int = 512
    ) -> np.ndarray:
        red = reflectance[..., bands.index("B04")]
        seen = np.where(np.isfinite(red[:, self.first]), red[:, self.first], red[:, self.second])
        second = np.nan_to_num(seen, nan=0.0) > 0.2
        return np.stack([~second, second], axis=1).astype(np.float32)


@pytest.fixture
def told_apart(make_samples: Make) -> Samples:
    """Two classes that B04 tells apart in every period."""
    samples = make_samples(groups=40, per_group=10, classes=2, gap=0)
    reflectance = np.full_like(samples.reflectance, 0.1)
    reflectance[..., samples.bands.index("B04")] += 0.2 * samples.label[:, None]
    return replace(samples, reflectance=reflectance)


def test_only_what_the_model_looks_at_is_important(told_apart: Samples) -> None:
    tried: list[tuple[Predictor, Samples]] = [(Threshold(), told_apart)]
    calls: list[tuple[int, int]] = []
    found = permutation_importance(tried, watch=lambda done, total: calls.append((done, total)))
    assert found.bands == ("B04", "B08")
    assert found.macro_f1 == 1
    assert found.samples == 400
    expected = np.zeros((12, 2), bool)
    expected[2, 0] = True
    np.testing.assert_array_equal(found.loss != 0, expected)
    # swapped with any other group: a little more than half of them are of the other class
    assert found.loss[2, 0] == pytest.approx(0.5, abs=0.1)
    np.testing.assert_array_equal(found.period_loss != 0, expected.any(axis=1))
    np.testing.assert_array_equal(found.band_loss != 0, expected.any(axis=0))
    assert calls[-1] == (3 * (24 + 12 + 2), 3 * (24 + 12 + 2))
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["bands"] == ["B04", "B08"]


def test_gaps_stay_where_they_are(told_apart: Samples) -> None:
    reflectance = told_apart.reflectance.copy()
    reflectance[told_apart.group % 4 < 2, 2] = np.nan
    gappy = replace(told_apart, reflectance=reflectance)
    found = permutation_importance([(Threshold(), gappy)])
    assert found.macro_f1 == 1
    # half of the samples rest on each of the two periods
    assert np.flatnonzero(found.loss[:, 0]).tolist() == [2, 7]


@given(st.lists(st.integers(1, 9), min_size=2, max_size=12), st.integers(0, 99))
@settings(deadline=None)
def test_donors_are_of_other_groups(sizes: list[int], seed: int) -> None:
    group = np.repeat(np.arange(len(sizes)), sizes)[
        np.random.default_rng(seed).permutation(sum(sizes))
    ]
    donor = _donors(group, np.random.default_rng(seed))
    assert sorted(donor.tolist()) == list(range(len(group)))
    if 2 * max(sizes) <= sum(sizes):
        assert (group[donor] != group).all()


def test_half_of_the_folds_count_half(told_apart: Samples) -> None:
    first = told_apart.take(np.flatnonzero(told_apart.group % 2 == 0).astype(np.int64))
    second = told_apart.take(np.flatnonzero(told_apart.group % 2 == 1).astype(np.int64))
    # a fold of one class has no macro-F1 of its own worth the name; folds are scored together
    parts: list[tuple[Predictor, Samples]] = [(Threshold(), first), (Threshold(), second)]
    found = permutation_importance(parts, most=100, repeats=1)
    assert found.samples == 100
    assert found.macro_f1 == 1


def test_one_period_is_enough_where_one_tells_all(told_apart: Samples) -> None:
    kept = periods_needed([(Threshold(), told_apart)])
    assert [len(one.periods) for one in kept] == list(range(12, 0, -1))
    assert kept[0].macro_f1 == 1
    assert kept[-1].macro_f1 == 1
    assert set(kept[-1].periods) <= {told_apart.periods[2], told_apart.periods[7]}
    assert fewest_periods(kept) == kept[-1]
    for before, after in pairwise(kept):
        assert set(after.periods) < set(before.periods)


def test_what_is_needed_stays(told_apart: Samples) -> None:
    # half of the groups are told by period 2 alone, half by period 7 alone
    reflectance = np.full_like(told_apart.reflectance, 0.1)
    red = told_apart.bands.index("B04")
    rests_on_second = told_apart.group % 4 < 2
    reflectance[~rests_on_second, 2, red] += 0.2 * told_apart.label[~rests_on_second]
    reflectance[rests_on_second, 2] = np.nan
    reflectance[rests_on_second, 7, red] += 0.2 * told_apart.label[rests_on_second]
    kept = periods_needed([(Threshold(), replace(told_apart, reflectance=reflectance))])
    assert fewest_periods(kept).periods == (told_apart.periods[2], told_apart.periods[7])
    assert kept[-1].macro_f1 < 0.9
    assert len(kept[-1].to_dict()["periods"]) == 1


def test_a_group_in_two_folds_chooses_or_scores_but_not_both(
    told_apart: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = told_apart.take(np.arange(0, len(told_apart), 2))
    two = told_apart.take(np.arange(1, len(told_apart), 2))
    dealt: list[tuple[np.ndarray, np.ndarray]] = []

    def watched(group: np.ndarray, parts: int, *, seed: int) -> np.ndarray:
        part = parts_of_groups(group, parts, seed=seed)
        dealt.append((group, part))
        return part

    monkeypatch.setattr(importance, "parts_of_groups", watched)
    periods_needed([(Threshold(), one), (Threshold(), two)])
    [(_, part)] = dealt
    groups = np.concatenate([one.group, two.group])
    assert all(len(set(part[groups == name].tolist())) == 1 for name in set(groups.tolist()))


def test_many_periods_are_left_out_several_at_once(told_apart: Samples) -> None:
    days = np.datetime64("2022-01-01") + np.arange(73) * 5
    long = replace(
        told_apart,
        periods=tuple(f"{day}/{day + 4}" for day in days),
        reflectance=np.tile(told_apart.reflectance, (1, 7, 1))[:, :73],
    ).take(np.arange(0, len(told_apart), 5))
    calls: list[tuple[int, int]] = []
    kept = periods_needed(
        [(Threshold(), long)], watch=lambda done, total: calls.append((done, total))
    )
    assert len(kept[1].periods) == 55
    assert [len(one.periods) for one in kept[-24:]] == list(range(24, 0, -1))
    assert calls[-1] == (len(calls), len(calls))
    assert len(calls) < 1000  # one by one would be 2,700
    # the two periods that tell stand in for each other, and yet one of them stays
    assert kept[-1].macro_f1 == 1
    for before, after in pairwise(kept):
        assert set(after.periods) < set(before.periods)


def test_nothing_to_measure_on_is_refused(told_apart: Samples) -> None:
    none = told_apart.take(np.empty(0, np.int64))
    with pytest.raises(SampleError, match="there is no held-out sample to measure"):
        permutation_importance([(Threshold(), none)])
    with pytest.raises(SampleError, match="the models need different bands"):
        permutation_importance([(Threshold(), told_apart), (Threshold(names=("B04",)), told_apart)])
    one = told_apart.take(np.flatnonzero(told_apart.group == 3).astype(np.int64))
    with pytest.raises(SampleError, match="1 groups in 2 parts"):
        periods_needed([(Threshold(), one)])
