"""Two models' answers for the same samples in, how sure their difference is out."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from scipy.sparse import csr_array

DRAWS = 1000
"""Bootstrap draws; the ends of the interval then move by about a twentieth of its width."""

_STRIP = 50
"""Draws at a time: 20,000 units take 8 MB so, and 160 MB in one piece."""

_CONFIDENCE = 0.95
_FEW_UNITS = 10


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A difference and where it lies with a probability of 95 %."""

    difference: float
    """Score of the model less that of the network, 0..1; NaN without samples."""
    low: float
    """2.5 % of the draws lie below; NaN if there are fewer than two units to draw from."""
    high: float
    """2.5 % of the draws lie above; NaN likewise."""

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves no doubt about the sign."""
        return self.low > 0 or self.high < 0  # False for NaN

    def to_dict(self) -> dict[str, float | None]:
        """Return what JSON can hold."""
        values = {"difference": self.difference, "low": self.low, "high": self.high}
        return {k: None if np.isnan(v) else round(float(v), 6) for k, v in values.items()}


@dataclass(frozen=True, kw_only=True)
class Against:
    """A simple model beside the network on the samples that both were scored on."""

    model: str
    """Name of the simple model."""
    network: str
    """Name of the network."""
    macro_f1: Interval
    """Difference of macro-F1, model less network."""
    accuracy: Interval
    """Difference of accuracy, model less network."""
    samples: int
    """Number of samples that both were scored on."""
    units: int
    """Number of groups or blocks that were drawn from."""
    unit: str
    """What was drawn whole: `group` or `block`."""

    @property
    def verdict(self) -> str:
        """One sentence for people: who wins, by how many points of macro-F1."""
        found = self.macro_f1
        few = f", from {self.units} {self.unit}s only" if self.units < _FEW_UNITS else ""
        if np.isnan(found.low):
            return f"no difference can be shown: {self.units} {self.unit} says nothing of chance"
        if not found.is_clear:
            ahead = self.model if found.difference >= 0 else self.network
            size = _points(abs(found.difference))
            return (
                f"no difference can be shown: {ahead} is {size} points of macro-F1 ahead "
                f"({self.model} {_points(found.low)} to {_points(found.high)}){few}"
            )
        if found.low > 0:
            winner, ends = self.model, (found.low, found.high)
        else:
            winner, ends = self.network, (-found.high, -found.low)
        size = _points(abs(found.difference))
        sure = f"{_points(ends[0])} to {_points(ends[1])}"
        return f"{winner} wins by {size} points of macro-F1 ({sure}){few}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        return {
            "network": self.network,
            "macro_f1": self.macro_f1.to_dict(),
            "accuracy": self.accuracy.to_dict(),
            "samples": self.samples,
            "units": self.units,
            "unit": self.unit,
            "verdict": self.verdict,
        }


def _points(share: float) -> str:
    return f"{share * 100:.1f}"


def compare_answers(
    label: Int64[np.ndarray, "sample"],
    model: Int64[np.ndarray, "sample"],
    network: Int64[np.ndarray, "sample"],
    *,
    unit: Int64[np.ndarray, "sample"],
    classes: int,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[Interval, Interval]:
    """Return the differences of macro-F1 and accuracy, `model` less `network`.

    Units (groups or blocks) are drawn whole and with replacement, because samples of one unit are
    alike; both models are scored on the same draw, because what is hard is hard for both. The
    interval is the central 95 % of the draws (Efron & Tibshirani 1993, chapter 13).
    """
    units, place = np.unique(unit, return_inverse=True)
    counts = [_counts(label, answer, place, classes) for answer in (model, network)]
    whole = np.ones((1, len(units)))
    found = _difference(counts, whole, classes)
    if len(units) < 2:
        nothing = float("nan")
        return tuple(  # type: ignore[return-value]
            Interval(difference=float(value[0]), low=nothing, high=nothing) for value in found
        )
    random = np.random.default_rng(seed)
    chance = np.full(len(units), 1 / len(units))
    strips = [
        _difference(counts, random.multinomial(len(units), chance, size=size), classes)
        for size in np.diff([*range(0, draws, _STRIP), draws]).tolist()
    ]
    spreads = [np.concatenate(of_score) for of_score in zip(*strips, strict=True)]
    ends = [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2]
    intervals = []
    for value, spread in zip(found, spreads, strict=True):
        low, high = np.quantile(spread, ends)
        intervals.append(Interval(difference=float(value[0]), low=float(low), high=float(high)))
    return intervals[0], intervals[1]


def _counts(label: np.ndarray, answer: np.ndarray, place: np.ndarray, classes: int) -> "csr_array":
    """Count per unit (row) what is of each class, predicted as it, and both: 3 x classes."""
    right = label == answer
    row = np.concatenate([place, place, place[right]])
    column = np.concatenate([label, answer + classes, label[right] + 2 * classes])
    shape = (int(place.max(initial=-1)) + 1, 3 * classes)
    return csr_array((np.ones(len(row)), (row, column)), shape=shape)


def _difference(
    counts: list["csr_array"], drawn: np.ndarray, classes: int
) -> tuple[Float64[np.ndarray, "draw"], Float64[np.ndarray, "draw"]]:
    scores = []
    for table in counts:
        there, predicted, right = np.split(drawn @ table, 3, axis=1)  # (draw, class) each
        f1 = 2 * right / np.maximum(there + predicted, 1)
        is_scored = there > 0
        # as `Scores.macro_f1`: the mean over the classes that have samples in the draw
        macro = (f1 * is_scored).sum(axis=1) / np.maximum(is_scored.sum(axis=1), 1)
        scores.append((macro, right.sum(axis=1) / np.maximum(there.sum(axis=1), 1)))
    return scores[0][0] - scores[1][0], scores[0][1] - scores[1][1]
