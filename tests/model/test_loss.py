from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from model.config import TrainConfig
from model.loss import Loss, class_counts, validation_weights
from model.samples import Samples

Make = Callable[..., Samples]


def skewed(make_samples: Make) -> Samples:
    samples = make_samples(groups=30)
    few = np.flatnonzero((samples.label == 0) | np.isin(samples.group % 9, (1, 2))).astype(np.int64)
    return samples.take(few)


def set_up(samples: Samples, **settings: object) -> tuple[Loss, torch.Tensor, torch.Tensor]:
    loss = Loss.from_config(
        TrainConfig.preset("default", **({"label_smoothing": 0.0} | settings)), samples
    )
    torch.manual_seed(0)
    scores = torch.randn(len(samples), len(samples.classes), dtype=torch.float64)
    return loss, scores, torch.from_numpy(samples.label)


def by_hand(
    scores: torch.Tensor, share: np.ndarray, weights: np.ndarray, smoothing: float, gamma: float
) -> float:
    total = whole = 0.0
    for row, true in zip(scores.numpy(), share, strict=True):
        probability = np.exp(row) / np.exp(row).sum()
        weight = sum(weights[k] * true[k] for k in range(len(row)))
        whole += weight
        for k in range(len(row)):
            target = true[k] * (1 - smoothing) + smoothing / len(row)
            total -= weight * target * np.log(probability[k]) * (1 - probability[k]) ** gamma
    return total / whole


@pytest.mark.parametrize(("smoothing", "gamma"), [(0.0, 0.0), (0.1, 0.0), (0.0, 2.0), (0.2, 1.5)])
@pytest.mark.parametrize("soft", [False, True])
def test_loss_is_the_sum_over_samples_and_classes(
    make_samples: Make, smoothing: float, gamma: float, soft: bool
) -> None:
    samples = skewed(make_samples)
    loss, scores, target = set_up(samples, label_smoothing=smoothing, focal_gamma=gamma)
    share = np.eye(3)[samples.label]
    if soft:
        share = 0.7 * share + 0.3 / 3
        target = torch.from_numpy(share)
    expected = by_hand(scores, share, loss.weights.double().numpy(), smoothing, gamma)
    loss = replace(loss, weights=loss.weights.double())
    assert float(loss.of(scores, target)) == pytest.approx(expected, rel=1e-5)


def test_a_certain_and_right_network_has_a_finite_gradient(make_samples: Make) -> None:
    loss, _, target = set_up(skewed(make_samples), focal_gamma=0.5)
    scores = (100 * nn.functional.one_hot(target, 3)).float().requires_grad_()
    loss.of(scores, target).backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


def test_adjustment_is_the_logarithm_of_each_class_s_share(make_samples: Make) -> None:
    samples = skewed(make_samples)
    loss, scores, target = set_up(samples, class_weights="none", logit_adjustment=1.5)
    share = np.bincount(samples.label) / len(samples)
    expected = nn.functional.cross_entropy(scores + torch.from_numpy(1.5 * np.log(share)), target)
    plain = replace(loss, weights=loss.weights.double())
    assert float(plain.of(scores, target)) == pytest.approx(float(expected), rel=1e-5)


def test_validation_is_read_as_training_aims(make_samples: Make) -> None:
    samples = skewed(make_samples)
    counts = class_counts(samples)
    for settings in ({"balanced_sampling": True}, {"logit_adjustment": 1.0}):
        config = TrainConfig.preset("default", class_weights="none", **settings)
        weighted = validation_weights(config, samples) * counts
        np.testing.assert_allclose(weighted, weighted[0], rtol=1e-5)


def test_shares_are_counted(make_samples: Make) -> None:
    samples = make_samples(groups=6)
    share = np.full((len(samples), 3), 0.1, np.float32)
    share[np.arange(len(samples)), samples.label] = 0.8
    counts = class_counts(replace(samples, share=share))
    np.testing.assert_allclose(counts, share.sum(axis=0), rtol=1e-5)
