"""A trained model and its legend in, `SpeciesClassifier` out: the unit that is saved and applied."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from model import classifier_file, classifier_weights
from model.baselines import FittedBaseline
from model.certainty.applicability import FEATURES, HIDDEN, Applicability, clear_values
from model.certainty.calibrate import Calibration
from model.certainty.conformal import ConformalSets
from model.errors import ClassifierError, ConfigError
from model.fitted import Fitted
from model.legend import Legend
from model.networks import BATCH
from model.periods import calendar_positions, is_position
from model.threads import torch_threads

MOST_CLASSES = 254
"""Classes a map can hold: its values are bytes, 0 means unclassified and 255 is kept free."""

_COLOUR = re.compile(r"#[0-9a-f]{6}")


@dataclass(frozen=True, kw_only=True, eq=False)
class SpeciesClassifier:
    """Everything needed to classify a cube, and where it came from."""

    fitted: Fitted | FittedBaseline
    """What learned: networks, or a simple model."""
    periods: tuple[str, ...]
    """Places of the steps in the calendar (`calendar_positions`); the year does not matter."""
    classes: tuple[str, ...]
    """Names; class i has the map value i + 1."""
    colours: tuple[str, ...]
    """One `#rrggbb` per class."""
    sample_fingerprint: str
    """SHA-256 of the training samples, in hexadecimal."""
    code_version: str
    """Version of canopycube that trained it."""
    scores: dict[str, Any] | None
    """What training found: scores, reliability …, as JSON can hold; None if it was not scored."""
    calibration: Calibration | None = None
    """What makes its probabilities mean what they say; None leaves them as they are."""
    conformal: ConformalSets | None = None
    """Which classes cannot be ruled out; None if that was not calibrated."""
    applicability: Applicability | None = None
    """What is like its training samples; None if that was not measured."""
    parents: Mapping[str, str] = field(default_factory=dict)
    """What lies above each class in the legend."""

    def __post_init__(self) -> None:
        if not 2 <= len(self.classes) <= MOST_CLASSES:
            raise ClassifierError(f"{len(self.classes)} classes; expected 2 to {MOST_CLASSES}")
        if len(set(self.classes)) < len(self.classes) or not all(self.classes):
            raise ClassifierError(f"class names {self.classes!r} are empty or there twice")
        if len(self.colours) != len(self.classes):
            raise ClassifierError(f"{len(self.colours)} colours for {len(self.classes)} classes")
        wrong = [colour for colour in self.colours if not _COLOUR.fullmatch(colour)]
        if wrong:
            raise ClassifierError(f"colour {wrong[0]!r} is not of the form '#1b9e77'")
        if not self.periods or not all(map(is_position, self.periods)):
            raise ClassifierError(
                f"periods {self.periods!r} are not months '03' or days '03-01/03-15' of the calendar"
            )
        if self.fitted.class_count != len(self.classes):
            raise ClassifierError(
                f"the model tells {self.fitted.class_count} classes apart, {len(self.classes)} "
                "are named"
            )
        if self.conformal is not None and len(self.conformal.threshold) != len(self.classes):
            raise ClassifierError(
                f"{len(self.conformal.threshold)} thresholds for {len(self.classes)} classes"
            )
        if self.applicability is not None and not (
            {FEATURES} <= set(self.applicability.spaces) <= self._spaces
        ):
            raise ClassifierError(
                f"the area of applicability is of spaces {sorted(self.applicability.spaces)!r}; "
                f"the model has {sorted(self._spaces)!r}"
            )
        try:
            Legend(classes=self.classes, parents=self.parents)
        except ConfigError as error:
            raise ClassifierError(str(error)) from None

    @property
    def _spaces(self) -> set[str]:
        return {FEATURES, HIDDEN} if isinstance(self.fitted, Fitted) else {FEATURES}

    @cached_property
    def legend(self) -> Legend:
        """The classes as a tree."""
        return Legend(classes=self.classes, parents=self.parents)

    @property
    def required_bands(self) -> tuple[str, ...]:
        """The bands a cube must have."""
        return self.fitted.features.required_bands

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of weights and settings, in hexadecimal: what decides the map's values."""
        content = classifier_file.describe(self)
        # scores and colours do not change what a pixel is given
        content = {k: v for k, v in content.items() if k not in ("scores", "colours")}
        digest = sha256(json.dumps(content, sort_keys=True).encode())
        digest.update(classifier_weights.arrays_as_bytes(self))
        return digest.hexdigest()

    def check_cube(self, bands: Sequence[str], periods: Sequence[str]) -> None:
        """Refuse a cube this classifier was not made for.

        `bands` may hold more than is needed, in any order; `periods` (as `Samples` names
        them) must have the same places in the calendar in the same order, of any year. Raises
        `ClassifierError` with what is needed and what there is.
        """
        differences = []
        missing = [band for band in self.required_bands if band not in bands]
        if missing:
            differences.append(
                f"bands: needs {' '.join(self.required_bands)}; "
                f"the cube has {' '.join(bands)}, lacks {' '.join(missing)}"
            )
        try:
            found = calendar_positions(periods)
        except ValueError as error:
            raise ClassifierError(f"the cube's periods cannot be classified: {error}") from None
        if found != self.periods:
            differences.append(
                f"periods: needs {' '.join(self.periods)}; the cube has {' '.join(found)}"
            )
        if differences:
            raise ClassifierError("the classifier does not fit the cube. " + "\n".join(differences))

    def predict_samples(
        self,
        reflectance: Float32[np.ndarray, "sample time band"],
        bands: tuple[str, ...],
        *,
        threads: int = 1,
    ) -> Float32[np.ndarray, "sample class"]:
        """Return the probability of each class; NaN for a sample without a clear period.

        Physical units in, NaN where not clear; the steps are the classifier's periods. Raises
        `ClassifierError` for another number of steps, `FeatureError` for a missing band.
        """
        probability = self.probability(reflectance, bands, threads=threads)
        features = self.fitted.features
        probability[~features.is_clear(reflectance, bands).any(axis=1)] = np.nan
        return probability

    def probability(
        self,
        reflectance: Float32[np.ndarray, "sample time band"],
        bands: tuple[str, ...],
        *,
        threads: int = 1,
    ) -> Float32[np.ndarray, "sample class"]:
        """Return calibrated probabilities, of samples without a clear period too."""
        self._refuse_steps(reflectance.shape[1])
        with torch_threads(threads):
            probability = self.fitted.probability(reflectance, bands, batch=BATCH)
        return probability if self.calibration is None else self.calibration.apply(probability)

    def is_applicable(
        self,
        reflectance: Float32[np.ndarray, "sample time band"],
        bands: tuple[str, ...],
        *,
        threads: int = 1,
    ) -> Bool[np.ndarray, "sample"]:
        """Say which samples are like those it was trained on, so that its scores hold for them.

        False for a sample without a clear period. Raises `ClassifierError` for another number of
        steps or if that was not measured, `FeatureError` for a missing band.
        """
        self._refuse_steps(reflectance.shape[1])
        if self.applicability is None:
            raise ClassifierError(
                "the classifier was saved without an area of applicability; train it again"
            )
        values = {FEATURES: clear_values(self.fitted.features, reflectance, bands)}
        if HIDDEN in self.applicability.spaces:
            assert isinstance(self.fitted, Fitted)  # checked when it was made
            with torch_threads(threads):
                values[HIDDEN] = self.fitted.hidden(reflectance, bands)[:, None, :]
        return self.applicability.is_inside(values)

    def likely_classes(
        self, probability: Float32[np.ndarray, "sample class"]
    ) -> Bool[np.ndarray, "sample class"]:
        """Return the classes that cannot be ruled out; raise `ClassifierError` if not calibrated."""
        if self.conformal is None:
            raise ClassifierError("the classifier was saved without conformal sets; train it again")
        likely: np.ndarray = self.conformal.sets(probability)
        return likely

    def _refuse_steps(self, found: int) -> None:
        if found != len(self.periods):
            raise ClassifierError(
                f"the classifier reads {len(self.periods)} periods ({' '.join(self.periods)}); "
                f"the data have {found}"
            )

    def save(self, folder: Path) -> None:
        """Write the classifier into `folder` (see `classifier_file.save`)."""
        classifier_file.save(self, folder)

    @classmethod
    def load(cls, folder: Path) -> "SpeciesClassifier":
        """Read what `save` wrote; raise `ClassifierError` if anything about it is not right."""
        return cls._of(classifier_file.load(folder), str(folder))

    @classmethod
    def load_files(cls, files: Mapping[str, bytes], *, named: str) -> "SpeciesClassifier":
        """Do as `load` with the content of the folder's files by name, e.g. where no disk is."""
        return cls._of(classifier_file.load(files, named=named), named)

    @classmethod
    def _of(cls, parts: dict[str, Any], named: str) -> "SpeciesClassifier":
        try:
            return cls(**parts)
        except ClassifierError as error:
            raise ClassifierError(f"classifier {named!r}: {error}") from error


def code_version() -> str:
    """Return the installed version of canopycube, or that it runs uninstalled."""
    try:
        return version("canopycube")
    except PackageNotFoundError:
        return "not installed"
