"""A block of pixels in, class and certainty out: what a map is made of."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Shaped, UInt8

from model.classifier import SpeciesClassifier
from model.engines import Engine, choose_engine
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
    engine: str
    """Name of the engine that computed the whole block."""
    arithmetic: str
    """What it computed with (`Engine.arithmetic`)."""
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
    # (time, band, pixel)
    pixels = np.ascontiguousarray(block.reshape(times, len(bands), rows * columns))
    observed = np.empty(rows * columns, np.uint16)
    count_clear(pixels, chosen, nodata_of(pixels), observed)
    is_classified = observed >= min_months
    if wanted is not None:
        is_classified &= wanted.ravel()
    work = _Work.begin(
        classifier, pixels, chosen, threads=threads, engine=engine, layers=(*_LAYERS, *layers)
    )
    computed_by = work.classify_all(np.flatnonzero(is_classified))
    shape = (rows, columns)
    return Prediction(
        # cut before it is narrowed: 256 periods would wrap round to 0, and 255 is a map's nodata
        months_observed=np.minimum(observed, MOST_PERIODS).astype(np.uint8).reshape(shape),
        engine=computed_by.name,
        arithmetic=computed_by.arithmetic,
        **{name: layer.reshape(shape) for name, layer in work.layers.items()},
    )


_LAYERS = ("class_value", "confidence", "margin")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Work:
    """A block while its pixels are classified, part after part."""

    classifier: SpeciesClassifier
    pixels: Shaped[np.ndarray, "time band pixel"]
    chosen: Int64[np.ndarray, "chosen"]
    threads: int
    engine: str
    """What was asked for."""
    layers: dict[str, UInt8[np.ndarray, "pixel"]]

    @classmethod
    def begin(
        cls,
        classifier: SpeciesClassifier,
        pixels: Shaped[np.ndarray, "time band pixel"],
        chosen: Int64[np.ndarray, "chosen"],
        *,
        threads: int,
        engine: str,
        layers: tuple[str, ...],
    ) -> "_Work":
        """Return a block of which nothing is classified."""
        count = pixels.shape[2]
        made = {name: np.full(count, NO_CERTAINTY, np.uint8) for name in layers}
        made["class_value"].fill(UNCLASSIFIED)
        return cls(
            classifier=classifier,
            pixels=pixels,
            chosen=chosen,
            threads=threads,
            engine=engine,
            layers=made,
        )

    def classify_all(self, places: Int64[np.ndarray, "n"]) -> Engine:
        """Classify the pixels at these places; return the engine that computed all of them."""
        while True:
            engine = choose_engine(self.classifier, self.engine)
            parts = _parts(places, engine.part)
            if self.threads > 1 and engine.model is not None:
                with ThreadPoolExecutor(self.threads) as pool:
                    list(pool.map(self._classify, parts))
            else:
                for part in parts:
                    self._classify(part)
            if choose_engine(self.classifier, self.engine) is engine:
                return engine
            # a device was lost on the way, once and for all: a block is by one engine

    def _classify(self, part: Int64[np.ndarray, "n"]) -> None:
        engine = choose_engine(self.classifier, self.engine)  # another one once a device is lost
        probability = engine.probability(
            self.classifier,
            self.pixels,
            self.chosen,
            part,
            threads=self.threads if engine.model is None else 1,
        )
        if not np.isfinite(probability).all():
            raise ClassifierError("the classifier gave probabilities that are not finite; the "
                                  "block has values far beyond those it was trained on")  # fmt: skip
        top = np.sort(probability, axis=1)[:, -2:]  # (pixel, second and first)
        self.layers["class_value"][part] = probability.argmax(axis=1) + 1
        self.layers["confidence"][part] = np.rint(top[:, 1] * 100)
        self.layers["margin"][part] = np.rint((top[:, 1] - top[:, 0]) * 100)
        if "likely_classes" in self.layers:
            likely = self.classifier.likely_classes(probability)
            self.layers["likely_classes"][part] = likely.sum(axis=1)
        if "applicable" in self.layers:
            reflectance = reflectance_of(self.pixels, self.chosen, part)
            self.layers["applicable"][part] = self.classifier.is_applicable(
                reflectance, self.classifier.required_bands, threads=self.threads
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
