from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model import augment
from model.augment import Augmentation, days_of_steps
from model.config import TrainConfig
from model.preparation import Preparation
from model.samples import Samples

Make = Callable[..., Samples]


_OFF = {
    "shift_days": 0.0, "month_dropout": 0.0, "noise": 0.0, "mixup": 0.0, "calendar_input": False,
}  # fmt: skip


def set_up(samples: Samples, **settings: object) -> tuple[Augmentation, torch.Tensor]:
    config = TrainConfig.preset("default", **(_OFF | settings))
    preparation = Preparation.learn(samples, config)
    steps = torch.from_numpy(preparation.apply(samples.reflectance, samples.bands))
    return Augmentation.from_config(config, preparation, samples), steps


def test_days_rise_over_the_new_year() -> None:
    days = days_of_steps(("2021-11", "2021-12", "2022-01", "2022-02-01/2022-02-28"))
    np.testing.assert_allclose(days, [319, 349.5, 380.5, 410])


def test_nothing_asked_changes_nothing(make_samples: Make) -> None:
    augmentation, steps = set_up(make_samples(groups=6))
    assert augmentation.apply(steps) is steps


@pytest.mark.parametrize("calendar", [False, True])
def test_hidden_periods_look_like_missing_ones(make_samples: Make, calendar: bool) -> None:
    samples = make_samples(groups=30)
    augmentation, steps = set_up(samples, month_dropout=0.4, calendar_input=calendar)
    torch.manual_seed(0)
    hidden = augmentation.apply(steps)
    end = augmentation.changeable
    is_gone = (hidden[..., :end] == 0).all(dim=2) & ~(steps[..., :end] == 0).all(dim=2)
    is_clear = steps[..., augmentation.features] == 1
    assert 0.17 < is_gone[is_clear].float().mean() < 0.23  # half the largest chance
    assert torch.equal(hidden[~is_gone], steps[~is_gone])
    assert torch.equal(hidden[..., end:], steps[..., end:])


def test_noise_reaches_clear_features_only(make_samples: Make) -> None:
    augmentation, steps = set_up(make_samples(groups=30), noise=0.3, calendar_input=True)
    torch.manual_seed(0)
    change = augmentation.apply(steps) - steps
    is_clear = steps[..., augmentation.features] == 1
    spread = change[is_clear][:, : augmentation.features].std()
    assert 0.28 < spread < 0.32
    assert not change[~is_clear].any()
    assert not change[..., augmentation.features :].any()


@pytest.mark.parametrize("gap", [0.0, 0.3])
def test_season_is_read_between_the_steps(
    make_samples: Make, monkeypatch: pytest.MonkeyPatch, gap: float
) -> None:
    """The oracle interpolates one sample, one step and one channel at a time."""
    augmentation, steps = set_up(make_samples(groups=6, gap=gap), shift_days=20.0)
    turn = torch.linspace(0, 0.99, len(steps))[:, None]
    monkeypatch.setattr(augment.torch, "rand", lambda *shape: turn)
    moved = augmentation.apply(steps)
    days = augmentation.days.double().numpy()
    around = np.concatenate([days - 365, days, days + 365])
    for sample in (0, *range(len(steps) // 4, 3 * len(steps) // 4, 3), len(steps) - 1):
        known = (steps[sample, :, : augmentation.features] != 0).any(dim=1).numpy()
        # draws from a quarter to three quarters move, by -20 to 20 days
        moved_by = (float(turn[sample]) - 0.5) * 80 if 0.25 < turn[sample] < 0.75 else 0.0
        for time, day in enumerate(days + moved_by):
            after = int(np.searchsorted(around, day))
            share = (day - around[after - 1]) / (around[after] - around[after - 1])
            one, two = (after - 1) % 12, after % 12
            weights = (1 - share) * known[one], share * known[two]
            expected = np.zeros(steps.shape[2])
            if known[two if share >= 0.5 else one]:
                values = steps[sample, one].numpy(), steps[sample, two].numpy()
                expected = (weights[0] * values[0] + weights[1] * values[1]) / sum(weights)
            np.testing.assert_allclose(moved[sample, time].numpy(), expected, atol=2e-4)


def test_half_of_the_samples_keep_their_season(make_samples: Make) -> None:
    augmentation, steps = set_up(make_samples(groups=60, gap=0), shift_days=20.0)
    torch.manual_seed(0)
    moved = augmentation.apply(steps)
    is_kept = torch.isclose(moved, steps, atol=1e-5).all(dim=2).all(dim=1)
    assert 0.4 < is_kept.float().mean() < 0.6


def test_half_a_year_stands_still_at_its_ends(make_samples: Make) -> None:
    samples = make_samples(groups=6, gap=0)
    half = replace(
        samples, reflectance=samples.reflectance[:, 3:9].copy(), periods=samples.periods[3:9]
    )
    augmentation, steps = set_up(half, shift_days=20.0)
    torch.manual_seed(0)
    moved = augmentation.apply(steps)
    lowest, highest = steps.amin(dim=1), steps.amax(dim=1)
    assert (moved >= lowest[:, None] - 1e-4).all()
    assert (moved <= highest[:, None] + 1e-4).all()
    one = replace(samples, reflectance=samples.reflectance[:, :1], periods=samples.periods[:1])
    augmentation, steps = set_up(one, shift_days=20.0)
    torch.testing.assert_close(augmentation.apply(steps), steps)


@given(st.floats(0.05, 5), st.integers(1, 20), st.integers(0, 99))
def test_blends_stay_between_two_samples_and_labels_sum_to_one(
    parameter: float, count: int, seed: int
) -> None:
    augmentation = Augmentation(
        shift_days=0.0,
        noise=0.0,
        month_dropout=0.0,
        mixup=parameter,
        days=torch.arange(4.0),
        features=2,
        mask_input=False,
        changeable=2,
    )
    torch.manual_seed(seed)
    steps = torch.rand(count, 4, 2)
    target = torch.nn.functional.one_hot(torch.randint(0, 3, (count,)), 3).float()
    blended, shares = augmentation.mixed(steps, target)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(count))
    assert (shares.gather(1, target.argmax(dim=1, keepdim=True)) >= 0.5 - 1e-6).all()
    assert blended.min() >= steps.min() - 1e-6
    assert blended.max() <= steps.max() + 1e-6


def test_what_is_clear_is_told_by_the_mask(make_samples: Make) -> None:
    # a clear step at the mean of every feature is all zeros, and no missing one
    augmentation, steps = set_up(make_samples(groups=6), noise=0.3)
    steps = torch.zeros_like(steps)
    steps[:, ::2, augmentation.features] = 1
    changed = (augmentation.apply(steps) != steps).any(dim=2)
    assert changed[:, ::2].all()
    assert not changed[:, 1::2].any()


def test_the_last_clear_step_is_never_hidden(make_samples: Make) -> None:
    augmentation, steps = set_up(make_samples(groups=30), month_dropout=0.99)
    mask = steps[..., augmentation.features]
    steps = torch.where(((mask.cumsum(dim=1) == 1) & (mask == 1))[..., None], steps, 0.0)
    assert torch.equal(augmentation.apply(steps), steps)
