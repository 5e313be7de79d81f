"""Held-out probabilities and labels in, how far they mean what they say out."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64, Integer

from model.certainty.checked import checked_pair

BINS = 15
"""Bins of a curve, as many as Guo et al. 2017 use; figures of other numbers cannot be compared."""

_DRAWS = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class ReliabilityCurve:
    """How often samples of each degree of confidence are right; bins without samples are left out."""

    lower: Float64[np.ndarray, "bin"]
    """Lower end of the bin: values lie above it."""
    upper: Float64[np.ndarray, "bin"]
    """Upper end of the bin: values lie at it or below."""
    count: Int64[np.ndarray, "bin"]
    """Samples in the bin, one at least."""
    confidence: Float64[np.ndarray, "bin"]
    """Mean probability they were given, 0..1."""
    accuracy: Float64[np.ndarray, "bin"]
    """Share of them that it came true for, 0..1."""

    @property
    def error(self) -> float:
        """Mean gap between confidence and accuracy, weighted by the samples of the bins, 0..1."""
        gaps = np.abs(self.confidence - self.accuracy)
        return float(np.average(gaps, weights=self.count))

    def to_dict(self) -> dict[str, list[float]]:
        """Return the curve as what JSON can hold."""
        names = ("lower", "upper", "count", "confidence", "accuracy")
        return {name: np.round(getattr(self, name), 6).tolist() for name in names}


@dataclass(frozen=True, kw_only=True, eq=False)
class Reliability:
    """What held-out probabilities are worth. All but `accuracy` are better when smaller."""

    samples: int
    """Number of held-out samples."""
    accuracy: float
    """Share whose most probable class is right, 0..1."""
    error: float
    """Expected calibration error: most probable class, 15 bins of equal width, 0..1."""
    chance_error: float
    """The same error that perfectly calibrated probabilities would show on so few samples, by
    chance alone; an `error` near it cannot be told from none."""
    adaptive_error: float
    """Expected calibration error over 15 bins of equally many samples, 0..1."""
    classwise_error: float
    """Mean over the classes of the error of every class's probability, 0..1."""
    brier: float
    """Mean squared distance between probabilities and truth, summed over the classes, 0..2."""
    log_loss: float
    """Mean -ln of the true class's probability, in nats; probabilities end at 1e-12."""
    curve: ReliabilityCurve
    """What `error` was computed from."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        names = (
            "accuracy", "error", "chance_error", "adaptive_error", "classwise_error", "brier",
            "log_loss",
        )  # fmt: skip
        figures = {name: round(float(getattr(self, name)), 6) for name in names}
        return {"samples": self.samples, **figures, "curve": self.curve.to_dict()}


def assess_reliability(
    probability: Float[np.ndarray, "sample class"],
    label: Integer[np.ndarray, "sample"],
    *,
    seed: int = 0,
) -> Reliability:
    """Measure the probabilities of held-out samples; raises `SampleError` if they are none."""
    checked, true = checked_pair(probability, label)
    right = checked.argmax(axis=1) == true
    curve = reliability_curve(checked, true)
    return Reliability(
        samples=len(true),
        accuracy=float(right.mean()),
        error=curve.error,
        chance_error=_chance_error(checked.max(axis=1), seed),
        adaptive_error=_adaptive_curve(checked.max(axis=1), right).error,
        classwise_error=classwise_error(checked, true),
        brier=brier_score(checked, true),
        log_loss=log_loss(checked, true),
        curve=curve,
    )


def reliability_curve(
    probability: Float[np.ndarray, "sample class"],
    label: Integer[np.ndarray, "sample"],
    *,
    bins: int = BINS,
    adaptive: bool = False,
) -> ReliabilityCurve:
    """Compare the most probable class's probability with how often it is the true one.

    Bins have equal width (Guo et al. 2017, On calibration of modern neural networks), or hold
    equally many samples if `adaptive` (Nguyen & O'Connor 2015). Raises `SampleError` for what are
    no probabilities.
    """
    checked, true = checked_pair(probability, label)
    confidence, right = checked.max(axis=1), checked.argmax(axis=1) == true
    return (_adaptive_curve if adaptive else _even_curve)(confidence, right, bins)


def classwise_error(
    probability: Float[np.ndarray, "sample class"],
    label: Integer[np.ndarray, "sample"],
    *,
    bins: int = BINS,
) -> float:
    """Return the mean over the classes of each one's calibration error, 0..1.

    Kull et al. 2019, Beyond temperature scaling: every class counts the same, so that a rare one
    with wrong probabilities is seen.
    """
    checked, true = checked_pair(probability, label)
    classes = range(checked.shape[1])
    errors = [_even_curve(checked[:, index], true == index, bins).error for index in classes]
    return float(np.mean(errors))


def brier_score(
    probability: Float[np.ndarray, "sample class"], label: Integer[np.ndarray, "sample"]
) -> float:
    """Return the mean squared distance between probabilities and truth, 0..2 (Brier 1950)."""
    checked, true = checked_pair(probability, label)
    return float(((checked - np.eye(checked.shape[1])[true]) ** 2).sum(axis=1).mean())


def log_loss(
    probability: Float[np.ndarray, "sample class"], label: Integer[np.ndarray, "sample"]
) -> float:
    """Return the mean -ln of the true class's probability in nats; probabilities end at 1e-12."""
    checked, true = checked_pair(probability, label)
    return float(-np.log(np.maximum(checked[np.arange(len(true)), true], 1e-12)).mean())


def _even_curve(value: np.ndarray, came_true: np.ndarray, bins: int = BINS) -> ReliabilityCurve:
    edges = np.linspace(0, 1, bins + 1)
    number = np.clip(np.searchsorted(edges, value, side="left") - 1, 0, bins - 1)
    return _curve(value, came_true, number, edges[:-1], edges[1:])


def _adaptive_curve(value: np.ndarray, came_true: np.ndarray, bins: int = BINS) -> ReliabilityCurve:
    # by rank: equal values share the rank of their first, so that order of samples never matters
    rank = np.searchsorted(np.sort(value), value, side="left")
    number = rank * bins // len(value)
    ends = [value[number == index] for index in range(bins)]
    lower = np.array([part.min(initial=1.0) for part in ends])
    upper = np.array([part.max(initial=0.0) for part in ends])
    return _curve(value, came_true, number, lower, upper)


def _curve(
    value: np.ndarray,
    came_true: np.ndarray,
    number: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
) -> ReliabilityCurve:
    count = np.bincount(number, minlength=len(lower))
    there = count > 0
    sums = [np.bincount(number, weights=of, minlength=len(lower)) for of in (value, came_true)]
    confidence, accuracy = (total[there] / count[there] for total in sums)
    return ReliabilityCurve(
        lower=lower[there],
        upper=upper[there],
        count=count[there].astype(np.int64),
        confidence=confidence,
        accuracy=accuracy,
    )


def _chance_error(confidence: np.ndarray, seed: int) -> float:
    random = np.random.default_rng(seed)
    errors = [
        _even_curve(confidence, random.random(len(confidence)) < confidence).error
        for _ in range(_DRAWS)
    ]
    return float(np.mean(errors))
