"""A block of pixels in, class and certainty out: what a map is made of."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int16, UInt8

from model.classifier import SpeciesClassifier
from model.errors import ClassifierError
from model.networks import BATCH

STORED_NODATA = -32768
"""The stored value of a cube that means "not clear"."""

STORED_SCALE = np.float32(1e-4)
"""Physical value of one stored unit of a cube."""

UNCLASSIFIED = 0
"""Map value of a pixel with too few clear periods; classes are numbered from 1."""

NO_CERTAINTY = 255
"""Confidence and margin of an unclassified pixel; the others have 0..100."""

MOST_PERIODS = 254
"""The largest number of clear periods that is told apart from more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """What a map says about a block."""

    class_value: UInt8[np.ndarray, "y x"]
    """1 for the first class of the classifier, 2 for the second ...; 0 unclassified."""
    confidence: UInt8[np.ndarray, "y x"]
    """Probability of the given class in percent, rounded; 255 unclassified."""
    margin: UInt8[np.ndarray, "y x"]
    """How far the second class is behind, in percent, rounded; 255 unclassified."""
    months_observed: UInt8[np.ndarray, "y x"]
    """Number of clear periods; 254 stands for 254 and more."""


def predict_block(
    classifier: SpeciesClassifier,
    block: Int16[np.ndarray, "time band y x"] | Float32[np.ndarray, "time band y x"],
    bands: tuple[str, ...],
    *,
    min_months: int = 1,
    threads: int = 1,
) -> Prediction:
    """Classify every pixel that has at least `min_months` clear periods.

    `block` holds stored units (int16, 1e-4, nodata -32768) or physical ones (float32, NaN where
    not clear); `bands` names its second axis. A pixel's result depends neither on its neighbours
    nor on the shape of the block. Memory beyond the block and the result: one clear flag per
    pixel and period, and one batch. Raises `ClassifierError`
    for another number of periods, a missing band, or probabilities that are not finite.
    """
    times, _, rows, columns = block.shape
    if times != len(classifier.periods):
        raise ClassifierError(
            f"the classifier reads {len(classifier.periods)} periods, the block has {times}"
        )
    if min_months < 1:
        raise ValueError(
            f"min_months is {min_months!r}; a pixel without a clear period has no class"
        )
    chosen = _band_indices(classifier, bands)
    pixels = block.reshape(times, len(bands), rows * columns)  # (time, band, pixel)

    observed = _is_clear(pixels, chosen).sum(axis=0, dtype=np.uint16)  # (pixel,)
    value = np.full(rows * columns, UNCLASSIFIED, np.uint8)
    confidence = np.full(rows * columns, NO_CERTAINTY, np.uint8)
    margin = np.full(rows * columns, NO_CERTAINTY, np.uint8)

    wanted = np.flatnonzero(observed >= min_months)
    for start in range(0, len(wanted), BATCH):
        part = wanted[start : start + BATCH]
        probability = classifier.probability(
            _reflectance(pixels, chosen, part), classifier.required_bands, threads=threads
        )
        if not np.isfinite(probability).all():
            raise ClassifierError("the classifier gave probabilities that are not finite; the "
                                  "block has values far beyond those it was trained on")  # fmt: skip
        best = probability.argmax(axis=1)
        top = np.sort(probability, axis=1)[:, -2:]  # (pixel, second and first)
        value[part] = best + 1
        confidence[part] = np.rint(top[:, 1] * 100)
        margin[part] = np.rint((top[:, 1] - top[:, 0]) * 100)

    shape = (rows, columns)
    return Prediction(
        class_value=value.reshape(shape),
        confidence=confidence.reshape(shape),
        margin=margin.reshape(shape),
        # cut before it is narrowed: 256 periods would wrap round to 0, and 255 is a map's nodata
        months_observed=np.minimum(observed, MOST_PERIODS).astype(np.uint8).reshape(shape),
    )


def _band_indices(classifier: SpeciesClassifier, bands: tuple[str, ...]) -> list[int]:
    missing = classifier.fitted.features.missing_bands(bands)
    if missing:
        raise ClassifierError(
            f"the classifier needs bands {' '.join(classifier.required_bands)}; "
            f"the block has {' '.join(bands)}, lacks {' '.join(missing)}"
        )
    return [bands.index(band) for band in classifier.required_bands]


def _is_clear(pixels: np.ndarray, chosen: list[int]) -> Bool[np.ndarray, "time pixel"]:
    clear = np.ones((pixels.shape[0], pixels.shape[2]), bool)
    for index in chosen:
        band = pixels[:, index]
        clear &= (band != STORED_NODATA) if pixels.dtype == np.int16 else np.isfinite(band)
    return clear


def _reflectance(
    pixels: np.ndarray, chosen: list[int], part: np.ndarray
) -> Float32[np.ndarray, "pixel time band"]:
    values = np.stack([pixels[:, index][:, part] for index in chosen])  # (band, time, pixel)
    physical = values.astype(np.float32)
    if pixels.dtype == np.int16:
        physical *= STORED_SCALE
        physical[values == STORED_NODATA] = np.nan
    return np.moveaxis(physical, 0, -1).swapaxes(0, 1)  # (pixel, time, band)
