"""Sequences with gaps in, how far they lie from every training sequence out.

A sequence is reduced to how its level and its yearly wave deviate from the mean training season,
feature by feature: three numbers each (or more, where there are one or two features only), fitted
to the clear periods and drawn towards none where these are few. Distances are counted in standard
deviations within a class, so that a deviation no species shows, however small, is far: on a
simulated forest bands that were off by 5 % were told at once, where plain standardised sequences
hid them among the species.
"""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float32, Int64, Integer

from model.certainty.checked import group_numbers
from model.errors import ClassifierError, SampleError

MOST_PROTOTYPES = 2000
"""Training sequences that are kept for comparison; a pixel costs as much as there are."""

_LIMIT = 10.0
"""Standardised deviations end here: a cloud edge must not carry a whole year away."""

_SHRINKAGE = 4.0
"""Weight, in periods, of the belief that a sequence is as the mean season."""

_FLOOR = 1e-4
"""Smallest variance within classes that counts, as a share of the largest."""

_MANY_FEATURES = 3

_BATCH = 512
"""Sequences that are compared at once: their distances to all prototypes take 4 MB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Space:
    """Where the training sequences lie, and how to bring others there."""

    season: Float32[np.ndarray, "time feature"]
    """The mean training season."""
    deviation: Float32[np.ndarray, "feature"]
    """Standard deviation of the feature over all periods; positive."""
    centre: Float32[np.ndarray, "coefficient"]
    """Mean coefficients of the training sequences: level and wave, by feature."""
    whitening: Float32[np.ndarray, "coefficient axis"]
    """From coefficients to axes along which a class has a standard deviation of 1 (or less, where
    its variance is below the floor)."""
    prototypes: Float32[np.ndarray, "prototype width"]
    """Training sequences, spread over their groups."""
    mean_distance: float
    """Mean distance between prototypes, positive: 1 on the scale of dissimilarity."""

    def __post_init__(self) -> None:
        times, features = self.season.shape
        coefficients = len(_waves(times, features)) * features
        axes = self.whitening.shape[1]
        if (
            self.deviation.shape != (features,)
            or self.centre.shape != (coefficients,)
            or self.whitening.shape[0] != coefficients
            or self.prototypes.shape[1:] != (axes,)
            or not len(self.prototypes)
        ):
            raise ClassifierError("arrays of the area of applicability do not fit each other")
        arrays = [getattr(self, field.name) for field in fields(self)]
        if not all(np.isfinite(array).all() for array in arrays):
            raise ClassifierError("a value of the area of applicability is not finite")
        if not ((self.deviation > 0).all() and self.mean_distance > 0):
            raise ClassifierError("a scale of the area of applicability is not positive")

    @classmethod
    def learn(
        cls,
        values: Float32[np.ndarray, "sample time feature"],
        *,
        label: Integer[np.ndarray, "sample"],
        group: Integer[np.ndarray, "sample"],
        prototypes: int = MOST_PROTOTYPES,
        seed: int = 0,
    ) -> "Space":
        """Learn from training sequences; NaN where a value is missing.

        A vector per sample (a network's last hidden layer) is a sequence of one period. Raises
        `SampleError` if fewer than two sequences have a value.
        """
        number = group_numbers(group, len(values))
        known = np.isfinite(values)
        usable = np.flatnonzero(known.any(axis=(1, 2)))
        if len(usable) < 2:
            raise SampleError(
                f"{len(usable)} of {len(values)} sequences have a value; an area of applicability "
                "needs two or more"
            )
        values, number, true = values[usable], number[usable], label[usable]
        season, deviation = _season(values)
        rest = _deviations(values, season, deviation)
        coefficient = _coefficients(rest, np.isfinite(values).any(axis=2))
        centre = coefficient.mean(axis=0)
        whitening = _whitening(coefficient, true.astype(np.int64))
        chosen = _spread(number, prototypes, seed)
        kept = ((coefficient[chosen] - centre) @ whitening).astype(np.float32)
        return cls(
            season=season,
            deviation=deviation,
            centre=centre.astype(np.float32),
            whitening=whitening.astype(np.float32),
            prototypes=kept,
            mean_distance=_mean_distance(kept),
        )

    def dissimilarity(
        self, values: Float32[np.ndarray, "sample time feature"]
    ) -> Float32[np.ndarray, "sample"]:
        """Return the distance to the nearest training sequence over the mean one between them.

        The dissimilarity index of Meyer & Pebesma 2021 (Methods in Ecology and Evolution 12) in
        this space: 0 is a training sequence, 1 as far as training sequences are from each other.
        Infinite without any value. Raises `ClassifierError` for other periods or features.
        """
        if values.shape[1:] != self.season.shape:
            raise ClassifierError(
                f"the area of applicability is of (time, feature) {self.season.shape!r}, the "
                f"values are {values.shape[1:]!r}"
            )
        squares = (self.prototypes**2).sum(axis=1)
        found = np.full(len(values), np.inf, np.float32)
        for start in range(0, len(values), _BATCH):
            part = values[start : start + _BATCH]
            clear = np.isfinite(part).any(axis=2)
            rest = _deviations(part, self.season, self.deviation)
            axes = (_coefficients(rest, clear) - self.centre) @ self.whitening  # (sample, axis)
            squared = -2 * axes @ self.prototypes.T  # (sample, prototype)
            squared += squares
            square = np.maximum(squared.min(axis=1) + (axes**2).sum(axis=1), 0)
            index = np.sqrt(square) / np.float32(self.mean_distance)
            found[start : start + _BATCH] = np.where(clear.any(axis=1), index, np.float32(np.inf))
        return found

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return everything as arrays, for safetensors."""
        # safetensors writes memory as it lies, and eigenvectors lie column by column
        return {f.name: np.asarray(getattr(self, f.name), order="C") for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "Space":
        """Read what `to_arrays` wrote; raises `ClassifierError` for anything else."""
        dimensions = {"season": 2, "deviation": 1, "centre": 1, "whitening": 2, "prototypes": 2}
        wanted: dict[str, tuple[type, int]] = {
            name: (np.float32, count) for name, count in dimensions.items()
        }
        wanted["mean_distance"] = (np.float64, 0)
        found = {name: (array.dtype.type, array.ndim) for name, array in arrays.items()}
        if found != wanted:
            raise ClassifierError(
                f"arrays of the area of applicability are {sorted(found)!r} or of wrong types; "
                f"expected {sorted(wanted)!r}"
            )
        rest = {name: arrays[name] for name in dimensions}
        return cls(**rest, mean_distance=float(arrays["mean_distance"]))


def _waves(times: int, features: int) -> Float32[np.ndarray, "wave time"]:
    """Return the level, the yearly wave and, where few features tell little, its overtones."""
    angle = np.arange(times) * 2 * np.pi / max(times, 1)
    # one value a month in twelve steps: half a year off was seen in 86 % with three, 73 % with one
    overtones = min(1 if features >= _MANY_FEATURES else 3, max(times - 1, 0) // 3)
    waves = [wave(k * angle) for k in range(1, overtones + 1) for wave in (np.cos, np.sin)]
    return np.stack([np.ones(times), *waves]).astype(np.float32)


def _season(
    values: Float32[np.ndarray, "sample time feature"],
) -> tuple[Float32[np.ndarray, "time feature"], Float32[np.ndarray, "feature"]]:
    known = np.isfinite(values)
    filled = np.where(known, values, 0).astype(np.float64)
    seen = known.sum(axis=0)  # (time, feature)
    overall = filled.sum(axis=(0, 1)) / np.maximum(seen.sum(axis=0), 1)
    season = np.where(seen > 0, filled.sum(axis=0) / np.maximum(seen, 1), overall)
    square = np.where(known, values - overall, 0) ** 2
    spread = np.sqrt(square.sum(axis=(0, 1)) / np.maximum(seen.sum(axis=0), 1))
    # a feature that never changes in training has no scale of its own
    deviation = np.where(spread > 1e-6, spread, 1.0)
    return season.astype(np.float32), deviation.astype(np.float32)


def _deviations(
    values: np.ndarray, season: np.ndarray, deviation: np.ndarray
) -> Float32[np.ndarray, "sample time feature"]:
    """Return standardised deviations from the season; 0 where there is no value."""
    rest = (values - season) / deviation
    np.clip(rest, -_LIMIT, _LIMIT, out=rest)
    return np.asarray(np.nan_to_num(rest, copy=False, nan=0.0))


def _coefficients(
    rest: Float32[np.ndarray, "sample time feature"], clear: Bool[np.ndarray, "sample time"]
) -> Float32[np.ndarray, "sample coefficient"]:
    """Fit level and wave to the clear periods by ridge regression; 0 without a clear period."""
    waves = _waves(*rest.shape[1:])
    # neighbours share their gaps, so there are few systems to solve
    patterns, which = np.unique(clear, axis=0, return_inverse=True)
    seen = waves[None] * patterns[:, None].astype(np.float32)  # (pattern, wave, time)
    system = seen @ waves.T + np.float32(_SHRINKAGE) * np.eye(len(waves), dtype=np.float32)
    solved = np.linalg.solve(system, seen)  # (pattern, wave, time)
    fitted = np.matmul(solved[which.reshape(-1)], rest)  # (sample, wave, feature)
    return np.asarray(fitted.reshape(len(rest), -1), np.float32)  # (sample, coefficient)


def _whitening(
    coefficient: Float32[np.ndarray, "sample coefficient"], label: Int64[np.ndarray, "sample"]
) -> np.ndarray:
    double = coefficient.astype(np.float64)
    number = np.unique(label, return_inverse=True)[1]
    total = np.zeros((number.max() + 1, double.shape[1]))
    np.add.at(total, number, double)
    within = double - (total / np.bincount(number)[:, None])[number]
    variance, axes = np.linalg.eigh(within.T @ within / len(within))
    largest = max(float(variance[-1]), 1e-12)
    return np.asarray(axes / np.sqrt(np.maximum(variance, 0) + _FLOOR * largest))


def _spread(
    group: Int64[np.ndarray, "sample"], most: int, seed: int
) -> Int64[np.ndarray, "prototype"]:
    """Choose samples so that every group gives one before any gives another."""
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(group))
    by_group = shuffled[np.argsort(group[shuffled], kind="stable")]
    size = np.bincount(group)
    turn = np.arange(len(group)) - np.repeat(np.cumsum(size) - size, size)
    order = by_group[np.lexsort((random.random(len(group)), turn))]
    return np.asarray(order[:most], np.int64)


def _mean_distance(prototypes: Float32[np.ndarray, "prototype axis"]) -> float:
    few = prototypes[:500].astype(np.float64)
    squares = (few**2).sum(axis=1)
    distance = np.sqrt(np.maximum(squares[:, None] + squares - 2 * few @ few.T, 0))
    mean = float(distance.sum() / (len(few) * max(len(few) - 1, 1)))
    return mean if mean > 0 else 1.0
