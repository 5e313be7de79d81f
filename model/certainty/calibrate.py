"""Held-out probabilities and labels in, a temperature out that makes them mean what they say.

One number only: under grouped folds the groups are few, and with seven classes even a factor per
class fits the groups it saw.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Integer
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from model.certainty.checked import (
    checked_pair,
    checked_shares,
    group_numbers,
    parts_of_groups,
)
from model.errors import ClassifierError

COLDEST, HOTTEST = 0.05, 20.0
"""Temperatures a calibration can have; below 1 probabilities get sharper, above 1 flatter."""

UNKNOWN = 1e-6
"""A model that gives the true class less even when calibrated has not learned it (perhaps it never
saw it): no temperature mends that, and log loss would let such samples outvote all others."""

_MOST_UNKNOWN = 0.01
"""Share of such classes that a sample may have and still be learned from."""

_TINY = 1e-12

_ROUNDS = 10

FLOOR = 1e-4
"""Smallest probability before scaling: forests give 0, which no temperature can mend."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How probabilities of one classifier become honest: softmax(ln p / temperature)."""

    temperature: float = 1.0
    """0.05..20; 1 leaves probabilities as they are, but for the floor of 0.0001."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and COLDEST <= self.temperature <= HOTTEST):
            raise ClassifierError(
                f"the calibration's temperature is {self.temperature!r}; expected {COLDEST} to "
                f"{HOTTEST}"
            )

    def apply(
        self, probability: Float[np.ndarray, "sample class"]
    ) -> Float32[np.ndarray, "sample class"]:
        """Return calibrated probabilities: rows sum to 1, no class overtakes another.

        Serves whatever gives probabilities, averaged ones of several networks included. NaN stays
        NaN, so that what was never predicted stays so.
        """
        logs = _log(probability.astype(np.float64))
        return np.asarray(np.exp(_scaled(logs, self.temperature)), np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return the calibration as what JSON can hold."""
        return {"temperature": self.temperature}

    @classmethod
    def from_dict(cls, entry: Any) -> "Calibration":
        """Read what `to_dict` wrote; raises `ClassifierError` for anything else."""
        if not isinstance(entry, dict) or set(entry) != {"temperature"}:
            raise ClassifierError(f"calibration is {entry!r}; expected a temperature and no more")
        temperature = entry["temperature"]
        if isinstance(temperature, bool) or not isinstance(temperature, int | float):
            raise ClassifierError(f"the calibration's temperature is {temperature!r}; no number")
        return cls(temperature=float(temperature))


@dataclass(frozen=True, kw_only=True, eq=False)
class CrossCalibrated:
    """Probabilities that were each calibrated on other groups than their own."""

    probability: Float32[np.ndarray, "sample class"]
    """Calibrated; what a reliability may be measured on."""
    temperatures: tuple[float, ...]
    """One per part; how far they differ says how sure the temperature is."""


def calibrate(
    probability: Float[np.ndarray, "sample class"],
    label: Integer[np.ndarray, "sample"],
    *,
    share: Float[np.ndarray, "share column"] | None = None,
) -> Calibration:
    """Find the temperature under which held-out probabilities have the least log loss.

    Guo et al. 2017, On calibration of modern neural networks. `probability` must be of samples
    whose groups the model did not learn from. Samples whose true class has less than a millionth
    when calibrated are left out: on blocks of a class that none of the others held, they took the
    calibration error of a random forest from 0.06 to 0.33 in place of 0.11. Samples weigh the
    same; none is weighted by how common its like is where the map is read. One sample without a
    class is counted along, so that a handful that is all right does not become certainty.

    `share` are the shares of the classes in mixed plots: the loss is then the one to expect of a
    class drawn by its share, which is least where probabilities are the shares. Raises
    `SampleError` for what are no probabilities or shares.
    """
    checked, true = checked_pair(probability, label)
    wanted = checked_shares(share, true, checked.shape[1])
    found = Calibration()
    is_known = _is_known(checked, wanted, found.temperature)
    for _ in range(_ROUNDS):
        if not is_known.any():
            return Calibration()
        found = _least_loss(checked[is_known], wanted[is_known])
        before, is_known = is_known, _is_known(checked, wanted, found.temperature)
        if np.array_equal(before, is_known):
            break
    return found


def _is_known(
    probability: Float64[np.ndarray, "sample class"],
    wanted: Float64[np.ndarray, "sample class"],
    temperature: float,
) -> Bool[np.ndarray, "sample"]:
    """Tell which samples' true classes are given something at this temperature."""
    scaled = _scaled(np.log(np.maximum(probability, _TINY)), temperature)
    unknown = (wanted * (scaled < math.log(UNKNOWN))).sum(axis=1)  # (sample,)
    return np.asarray(unknown <= _MOST_UNKNOWN)


def _least_loss(
    probability: Float64[np.ndarray, "sample class"],
    wanted: Float64[np.ndarray, "sample class"],
) -> Calibration:
    logs = _log(probability)
    humility = 1 / (len(wanted) + 1)

    def loss(log_temperature: float) -> float:
        scaled = _scaled(logs, math.exp(log_temperature))
        of_truth = (scaled * wanted).sum(axis=1)
        expected = (1 - humility) * of_truth + humility * scaled.mean(axis=1)
        return -float(expected.mean())

    # convex in 1 / temperature, so there is one minimum
    ends = (math.log(COLDEST), math.log(HOTTEST))
    found = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-4})
    return Calibration(temperature=min(max(math.exp(found.x), COLDEST), HOTTEST))


def cross_calibrated(
    probability: Float[np.ndarray, "sample class"],
    label: Integer[np.ndarray, "sample"],
    group: Integer[np.ndarray, "sample"],
    *,
    folds: int = 5,
    seed: int = 0,
) -> CrossCalibrated:
    """Calibrate held-out probabilities so that their reliability is not fitted on itself.

    Groups are dealt to `folds` parts; each part gets the temperature of the others. Raises
    `SampleError` for fewer than two groups or what are no probabilities.
    """
    checked, true = checked_pair(probability, label)
    part = parts_of_groups(group_numbers(group, len(true)), folds, seed=seed)
    calibrated = np.empty(checked.shape, np.float32)
    temperatures = []
    for index in range(int(part.max()) + 1):
        others = part != index
        found = calibrate(checked[others], true[others])
        calibrated[~others] = found.apply(checked[~others])
        temperatures.append(found.temperature)
    return CrossCalibrated(probability=calibrated, temperatures=tuple(temperatures))


def _log(probability: Float64[np.ndarray, "sample class"]) -> Float64[np.ndarray, "sample class"]:
    return np.asarray(np.log(np.maximum(probability, FLOOR)))


def _scaled(
    logs: Float64[np.ndarray, "sample class"], temperature: float
) -> Float64[np.ndarray, "sample class"]:
    scaled = logs / temperature
    return np.asarray(scaled - logsumexp(scaled, axis=1, keepdims=True))
