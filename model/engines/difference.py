"""A classifier and pixels in, how far one of its engines is from another one on them out."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from model.classifier import SpeciesClassifier
from model.engines.chosen import choose_engine
from model.engines.oracle import true_probability
from model.errors import ClassifierError
from model.fitted import Fitted


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far an engine is from another one on some pixels."""

    pixels: int
    """How many were compared."""
    classes_equal: float
    """Share of them that get the same class; not a number without pixels."""
    largest: float
    """Largest difference of a probability; 0 without pixels."""


def measure_difference(
    classifier: SpeciesClassifier,
    reflectance: Float32[np.ndarray, "pixel time band"],
    bands: tuple[str, ...],
    *,
    engine: str,
    against: str = "float64",
) -> Difference:
    """Compare `engine` with another, or with double precision, on given pixels.

    Physical units in, NaN where not clear; `bands` names the last axis. Pixels without a clear
    step are left out. Raises `ConfigError` for an unknown engine, `ClassifierError` for another
    number of steps than the classifier's.
    """
    if reflectance.shape[1] != len(classifier.periods):
        raise ClassifierError(
            f"the classifier reads {len(classifier.periods)} periods, the pixels have "
            f"{reflectance.shape[1]}"
        )
    needed = [bands.index(band) for band in classifier.required_bands]
    values = reflectance[..., needed]
    values = values[np.isfinite(values).all(axis=2).any(axis=1)]
    if not len(values):
        return Difference(pixels=0, classes_equal=float("nan"), largest=0.0)
    first, second = (_probability(classifier, values, name) for name in (engine, against))
    return Difference(
        pixels=len(values),
        classes_equal=float((first.argmax(axis=1) == second.argmax(axis=1)).mean()),
        largest=float(np.abs(first - second).max()),
    )


def _probability(
    classifier: SpeciesClassifier, values: Float32[np.ndarray, "pixel time band"], name: str
) -> Float64[np.ndarray, "pixel class"]:
    if name == "float64" and isinstance(classifier.fitted, Fitted):
        true = true_probability(classifier.fitted, values, classifier.required_bands)
        calibration = classifier.calibration
        return true if calibration is None else calibration.apply(true).astype(np.float64)
    engine = choose_engine(classifier, "torch" if name == "float64" else name)
    pixels = np.ascontiguousarray(values.transpose(1, 2, 0))  # (time, band, pixel)
    places = np.arange(pixels.shape[1]), np.arange(pixels.shape[2])
    return engine.probability(classifier, pixels, *places).astype(np.float64)
