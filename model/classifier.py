"""A trained network and its legend in, `SpeciesClassifier` out: the unit that is saved and applied."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from model import classifier_file
from model.config import TrainConfig
from model.crossvalidate import ScoreTable, train_network
from model.errors import ClassifierError, SampleError
from model.network import BATCH
from model.periods import calendar_positions, is_position
from model.samples import Samples
from model.threads import torch_threads
from model.train import EpochReport, Fitted

MOST_CLASSES = 254
"""Classes a map can hold: its values are bytes, 0 means unclassified and 255 is kept free."""

_COLOUR = re.compile(r"#[0-9a-f]{6}")


@dataclass(frozen=True, kw_only=True, eq=False)
class SpeciesClassifier:
    """Everything needed to classify a cube, and where it came from."""

    fitted: Fitted
    """The network, its statistics and how it was trained."""
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
    """`ScoreTable.to_dict()`; None if it was not scored."""

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
        outputs = self.fitted.network.head.out_features
        if outputs != len(self.classes):
            raise ClassifierError(
                f"the network has {outputs} outputs for {len(self.classes)} classes"
            )

    @property
    def required_bands(self) -> tuple[str, ...]:
        """The bands a cube must have."""
        return self.fitted.preparation.features.required_bands

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of weights and settings, in hexadecimal: what decides the map's values."""
        content = classifier_file.describe(self)
        # scores and colours do not change what a pixel is given
        content = {k: v for k, v in content.items() if k not in ("scores", "colours")}
        digest = sha256(json.dumps(content, sort_keys=True).encode())
        digest.update(classifier_file.weights_of(self.fitted.network))
        return digest.hexdigest()

    def check_cube(self, bands: Sequence[str], periods: Sequence[str]) -> None:
        """Refuse a cube this classifier was not made for.

        `bands` may hold more than is needed, in any order; `periods` (as `Samples` names
        them) must have the same places in the calendar in the same order, of any year. Raises `ClassifierError` with what
        is needed and what there is.
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
        self._refuse_steps(reflectance.shape[1])
        with torch_threads(threads):
            probability = self.fitted.probability(reflectance, bands, batch=BATCH)
        features = self.fitted.preparation.features
        probability[~features.is_clear(reflectance, bands).any(axis=1)] = np.nan
        return probability

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
        parts = classifier_file.load(folder)
        try:
            return cls(**parts)
        except ClassifierError as error:
            raise ClassifierError(f"classifier {str(folder)!r}: {error}") from error


def train_classifier(
    samples: Samples,
    config: TrainConfig,
    *,
    colours: Sequence[str],
    scores: ScoreTable | None = None,
    watch: Callable[[EpochReport], None] | None = None,
) -> SpeciesClassifier:
    """Train on all samples and attach the legend.

    Raises `SampleError` if a class has no sample (merge or drop it), and what `fit` raises.
    """
    empty = [name for name, count in samples.class_counts.items() if count == 0]
    if empty:
        raise SampleError(f"classes {', '.join(empty)} have no sample; drop or merge them")
    fitted = train_network(samples, config, watch=watch)
    return SpeciesClassifier(
        fitted=fitted,
        periods=calendar_positions(samples.periods),
        classes=samples.classes,
        colours=tuple(colours),
        sample_fingerprint=samples.fingerprint,
        code_version=code_version(),
        scores=None if scores is None else scores.to_dict(),
    )


def code_version() -> str:
    """Return the installed version of canopycube, or that it runs uninstalled."""
    try:
        return version("canopycube")
    except PackageNotFoundError:
        return "not installed"
