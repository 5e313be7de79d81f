"""Scores and what is true in, the training loss out: cross-entropy and what can be done to it."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from model.config import TrainConfig
from model.samples import Samples


@dataclass(frozen=True, kw_only=True, eq=False)
class Loss:
    """How far scores are from what is true."""

    weights: Float[Tensor, "class"]
    """Weight of each class; 1 for all where none is favoured."""
    adjustment: Float[Tensor, "class"] | None
    """Added to the scores in training: tau times the logarithm of each class's share (Menon 2021,
    arXiv 2007.07314)."""
    smoothing: float
    """Share of a label that is spread over all classes."""
    gamma: float
    """Exponent of the focal loss (Lin 2017, arXiv 1708.02002)."""

    @classmethod
    def from_config(cls, config: TrainConfig, samples: Samples) -> "Loss":
        """Set up the loss for the class frequencies of (training!) samples."""
        counts = class_counts(samples)
        adjustment = None
        if config.logit_adjustment > 0:
            share = np.maximum(counts, 0.5) / counts.sum()  # a class without samples keeps a score
            adjustment = torch.from_numpy((config.logit_adjustment * np.log(share)).astype("f4"))
        return cls(
            weights=torch.from_numpy(frequency_weights(counts, _POWERS[config.class_weights])),
            adjustment=adjustment,
            smoothing=config.label_smoothing,
            gamma=config.focal_gamma,
        )

    def of(
        self, scores: Float[Tensor, "sample class"], target: Float[Tensor, "sample class"] | Tensor
    ) -> Float[Tensor, ""]:
        """Return the weighted mean loss; `target` has class indices or the share of each class."""
        if self.adjustment is not None:
            scores = scores + self.adjustment
        if target.ndim == 1 and not self.smoothing and not self.gamma:
            return nn.functional.cross_entropy(scores, target, weight=self.weights)
        classes = scores.shape[1]
        if target.ndim == 1:
            target = nn.functional.one_hot(target, classes).to(scores.dtype)
        weight = target @ self.weights  # (sample,), by what is true and not by what is smoothed
        if self.smoothing:
            target = target * (1 - self.smoothing) + self.smoothing / classes
        logarithm = torch.log_softmax(scores, dim=1)
        terms = -target * logarithm  # (sample, class)
        if self.gamma:
            # the derivative of a power of exactly 0 is not finite
            terms = terms * (1 - logarithm.exp()).clamp_min(1e-6) ** self.gamma
        return (terms.sum(dim=1) * weight).sum() / weight.sum()


_POWERS = {"none": 0.0, "root": 0.5, "balanced": 1.0}


def class_counts(samples: Samples) -> Float[np.ndarray, "class"]:
    """Number of samples of each class, a mixed one counted with its shares."""
    if samples.share is not None:
        return np.asarray(samples.share.sum(axis=0, dtype=np.float64))
    return np.bincount(samples.label, minlength=len(samples.classes)).astype(np.float64)


def frequency_weights(
    counts: Float[np.ndarray, "class"], power: float
) -> Float32[np.ndarray, "class"]:
    """Weights 1/n^power with mean 1 over the samples; a class without samples has 1, no effect."""
    weights = np.where(counts > 0, np.maximum(counts, 1) ** -power, 0)
    weights *= counts.sum() / (weights * counts).sum()
    return np.where(counts > 0, weights, 1).astype(np.float32)


def validation_weights(config: TrainConfig, samples: Samples) -> Float32[np.ndarray, "class"]:
    """Return the class weights by which validation is read: those the training aims at.

    Balanced sampling and logit adjustment aim at classes of equal weight without weights in the
    loss, so validation gets them.
    """
    power = 1.0 if config.balanced_sampling else _POWERS[config.class_weights]
    if config.logit_adjustment > 0:
        power = min(config.logit_adjustment, 1.0)
    return frequency_weights(class_counts(samples), power)
