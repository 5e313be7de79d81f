"""A block of pixels in, class and certainty out: what a map is made of."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Shaped, UInt8

from model.classifier import SpeciesClassifier
from model.engines import choose_engine
from model.engines.pixels import STORED_NODATA, STORED_SCALE, check_type, nodata_of, reflectance_of
from model.engines.preparing import count_clear
from model.errors import ClassifierError

__all__ = [
    "EXTRA_LAYERS", "MOST_PERIODS", "NO_CERTAINTY", "STORED_NODATA", "STORED_SCALE", "UNCLASSIFIED",
    "Prediction", "predict_block",
]  # fmt: skip

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
    likely_classes: UInt8[np.ndarray, "y x"] | None = None
    """Number of classes that cannot be ruled out; 255 unclassified. None unless asked for."""
    applicable: UInt8[np.ndarray, "y x"] | None = None
    """1 where the pixel is like the training samples, else 0; 255 unclassified. None unless asked
    for."""


EXTRA_LAYERS = ("likely_classes", "applicable")
"""What a prediction says beside the rest if asked to. Whether a pixel is like the training samples
is a search among them and a pass through the network in PyTorch, whatever the engine."""


def predict_block(
    classifier: SpeciesClassifier,
    block: Shaped[np.ndarray, "time band y x"],
    bands: tuple[str, ...],
    *,
    min_months: int = 1,
    threads: int = 1,
    engine: str = "auto",
    wanted: Bool[np.ndarray, "wanted_y wanted_x"] | None = None,
    layers: tuple[str, ...] = (),
) -> Prediction:
    """Classify every pixel that has at least `min_months` clear periods and is `wanted`.

    `block` holds stored units (int16, 1e-4, nodata -32768) or physical ones (float32, NaN where
    not clear); `bands` names its second axis. A pixel's result depends neither on its neighbours
    nor on the shape of the block nor on `threads`. `engine` is one of `model.engines.ENGINES`;
    `choose_engine` says which one that is here. By default all pixels are wanted; the others are
    left unclassified and cost next to nothing. `layers` names those of `EXTRA_LAYERS` that are
    wanted, too. Memory beyond the block and the result is that of
    some thousand pixels a thread, and a copy of a block that is not contiguous. Raises
    `ClassifierError` for another type or number of periods, a missing band, `wanted` of another
    shape, or probabilities that are not finite, `ConfigError` for an unknown engine.
    """
    check_type(block)
    times, _, rows, columns = block.shape
    if times != len(classifier.periods):
        raise ClassifierError(
            f"the classifier reads {len(classifier.periods)} periods, the block has {times}"
        )
    if wanted is not None and wanted.shape != (rows, columns):
        raise ClassifierError(f"wanted has shape {wanted.shape}, the block {(rows, columns)}")
    if min_months < 1:
        raise ValueError(
            f"min_months is {min_months!r}; a pixel without a clear period has no class"
        )
    if unknown := set(layers) - set(EXTRA_LAYERS):
        raise ValueError(f"there is no layer {min(unknown)!r}; known are {EXTRA_LAYERS}")
    chosen = _band_indices(classifier, bands)
    chosen_engine = choose_engine(classifier, engine)
    # (time, band, pixel)
    pixels = np.ascontiguousarray(block.reshape(times, len(bands), rows * columns))

    observed = np.empty(rows * columns, np.uint16)
    count_clear(pixels, chosen, nodata_of(pixels), observed)
    value = np.full(rows * columns, UNCLASSIFIED, np.uint8)
    confidence = np.full(rows * columns, NO_CERTAINTY, np.uint8)
    margin = np.full(rows * columns, NO_CERTAINTY, np.uint8)
    extra = {name: np.full(rows * columns, NO_CERTAINTY, np.uint8) for name in layers}

    def classify(part: Int64[np.ndarray, "n"]) -> None:
        now = choose_engine(classifier, engine)  # another one once a device is lost
        is_own = now.model is not None
        probability = now.probability(
            classifier, pixels, chosen, part, threads=1 if is_own else threads
        )
        if not np.isfinite(probability).all():
            raise ClassifierError("the classifier gave probabilities that are not finite; the "
                                  "block has values far beyond those it was trained on")  # fmt: skip
        best = probability.argmax(axis=1)
        top = np.sort(probability, axis=1)[:, -2:]  # (pixel, second and first)
        value[part] = best + 1
        confidence[part] = np.rint(top[:, 1] * 100)
        margin[part] = np.rint((top[:, 1] - top[:, 0]) * 100)
        if "likely_classes" in extra:
            extra["likely_classes"][part] = classifier.likely_classes(probability).sum(axis=1)
        if "applicable" in extra:
            reflectance = reflectance_of(pixels, chosen, part)
            extra["applicable"][part] = classifier.is_applicable(
                reflectance, classifier.required_bands, threads=threads
            )

    is_classified = observed >= min_months
    if wanted is not None:
        is_classified &= wanted.ravel()
    parts = _parts(np.flatnonzero(is_classified), chosen_engine.part)
    if threads > 1 and chosen_engine.model is not None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(classify, parts))
    else:
        for part in parts:
            classify(part)

    shape = (rows, columns)
    return Prediction(
        class_value=value.reshape(shape),
        confidence=confidence.reshape(shape),
        margin=margin.reshape(shape),
        # cut before it is narrowed: 256 periods would wrap round to 0, and 255 is a map's nodata
        months_observed=np.minimum(observed, MOST_PERIODS).astype(np.uint8).reshape(shape),
        **{name: layer.reshape(shape) for name, layer in extra.items()},
    )


def _parts(wanted: Int64[np.ndarray, "n"], size: int) -> Iterator[Int64[np.ndarray, "part"]]:
    for start in range(0, len(wanted), size):
        yield wanted[start : start + size]


def _band_indices(
    classifier: SpeciesClassifier, bands: tuple[str, ...]
) -> Int64[np.ndarray, "band"]:
    missing = classifier.fitted.features.missing_bands(bands)
    if missing:
        raise ClassifierError(
            f"the classifier needs bands {' '.join(classifier.required_bands)}; "
            f"the block has {' '.join(bands)}, lacks {' '.join(missing)}"
        )
    return np.array([bands.index(band) for band in classifier.required_bands])
