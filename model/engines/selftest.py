"""A classifier in, pixels made up to put its engines to the test, and what is true of them, out."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int16, Int64

from model.classifier import SpeciesClassifier
from model.engines.oracle import true_probability
from model.engines.pixels import STORED_NODATA, STORED_SCALE
from model.fitted import Fitted

PIXELS = 720
"""Some blocks, the last of which is not full."""

CLASSES_EQUAL = 0.999
"""Share of pixels that must get the true class where it leads by more than the tolerance."""

_SEED = 6
_GAPS = (0.0, 0.1, 0.5, 0.9)
_ODD = (-0.2, 0.0, 1e-5, 0.05, 1.7)


def trial_reflectance(
    fitted: Fitted, *, steps: int, pixels: int = PIXELS
) -> Float32[np.ndarray, "pixel time band"]:
    """Return sequences of the `required_bands`: likely ones, odd ones, with and without gaps.

    Bands that the model has statistics of vary about their mean, others as reflectance does. Each
    pixel has a level and a season of its own; in one of six some values are far outside what a
    model ever saw, and steps are missing from none up to all.
    """
    generator = np.random.default_rng(_SEED)
    bands = fitted.features.required_bands
    centre, spread = np.full(len(bands), 0.25), np.full(len(bands), 0.1)
    if fitted.preparation.limit is not None:
        for name, mean, deviation in zip(
            fitted.features.names,
            fitted.preparation.mean,
            fitted.preparation.deviation,
            strict=True,
        ):
            if name.removeprefix("band:") in bands:
                index = bands.index(name.removeprefix("band:"))
                centre[index], spread[index] = mean, deviation
    level = generator.normal(0, 1, (pixels, 1, len(bands)))
    phase = generator.uniform(0, 2 * np.pi, (pixels, 1, 1))
    season = np.sin(2 * np.pi * np.arange(steps)[:, None] / max(steps, 1) + phase)
    noise = generator.normal(0, 0.5, (pixels, steps, len(bands)))
    values = centre + spread * (level + season + noise)

    odd = generator.random(values.shape) < 0.1
    odd &= np.arange(pixels)[:, None, None] % 6 == 5
    values = np.where(odd, generator.choice(_ODD, values.shape), values)
    gap = generator.choice(_GAPS, (pixels, 1))
    values[generator.random((pixels, steps)) < gap] = np.nan
    values[-1] = np.nan  # a pixel without any step
    values[-2, :, :1] = np.nan  # one band alone
    return values.astype(np.float32)


Compute = Callable[
    [np.ndarray, Int64[np.ndarray, "band"], Int64[np.ndarray, "n"]],
    Float32[np.ndarray, "n class"],
]
"""Calibrated probabilities of (time, band, pixel), places of bands, places of pixels."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an engine did."""

    difference: float
    """Largest difference of a probability; not a number if either is none."""
    classes_equal: float
    """Share of the pixels that get the true class, of those whose first class leads clearly."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """Pixels as a map has them: stored, some of a block, bands in any order."""

    stored: Int16[np.ndarray, "time band pixel"]
    """Stored units; bands and pixels that nobody asks for are among them."""
    chosen: Int64[np.ndarray, "chosen"]
    """Places of the `required_bands`."""
    wanted: Int64[np.ndarray, "n"]
    """Places of pixels, in no order."""
    true: Float64[np.ndarray, "n class"]
    """Calibrated probabilities in double precision."""

    @classmethod
    def of(cls, classifier: SpeciesClassifier, fitted: Fitted) -> "Trial":
        """Make up pixels for `classifier`; slow, for it computes what is true."""
        steps, bands = len(classifier.periods), fitted.features.required_bands
        reflectance = trial_reflectance(fitted, steps=steps)
        counts = np.clip(np.rint(reflectance / STORED_SCALE), -32767, 32767)
        sequences = np.where(np.isnan(counts), STORED_NODATA, counts).astype(np.int16)
        physical = sequences.astype(np.float32) * STORED_SCALE
        physical[sequences == STORED_NODATA] = np.nan
        true = true_probability(fitted, physical, bands)
        if classifier.calibration is not None:
            true = classifier.calibration.apply(true).astype(np.float64)

        generator = np.random.default_rng(_SEED)
        chosen = generator.permutation(len(bands) + 1)[: len(bands)]
        wanted = generator.permutation(2 * len(sequences))[: len(sequences)]
        stored = generator.integers(
            STORED_NODATA, 20_000, (steps, len(bands) + 1, 2 * len(sequences)), np.int16
        )
        stored[:, chosen[:, None], wanted] = sequences.transpose(1, 2, 0)
        return cls(stored=stored, chosen=chosen, wanted=wanted, true=true)

    def outcome(self, compute: Compute, *, tolerance: float) -> Outcome:
        """Compare what `compute` gives for stored and for physical units."""
        physical = self.stored.astype(np.float32) * STORED_SCALE
        physical[self.stored == STORED_NODATA] = np.nan
        top = np.sort(self.true, axis=1)
        is_clear_cut = top[:, -1] - top[:, -2] > tolerance
        differences, shares = [], [1.0]
        for pixels in (self.stored, physical):
            found = compute(pixels, self.chosen, self.wanted)
            differences.append(np.abs(found - self.true).max())
            is_equal = found.argmax(axis=1) == self.true.argmax(axis=1)
            if is_clear_cut.any():
                shares.append(float(is_equal[is_clear_cut].mean()))
        return Outcome(difference=float(np.max(differences)), classes_equal=min(shares))
