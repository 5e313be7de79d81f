"""What every trained model offers, whatever learned it: bands in, class probabilities out."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from model.features import FeatureSet


@runtime_checkable
class Predictor(Protocol):
    """A model that has learned."""

    @property
    def kind(self) -> str:
        """What it is, for people: `lstm`, `random forest` …."""

    @property
    def features(self) -> FeatureSet:
        """What it sees at each step."""

    @property
    def class_count(self) -> int:
        """Number of classes it tells apart."""

    def probability(
        self,
        reflectance: Float32[np.ndarray, "sample time band"],
        bands: tuple[str, ...],
        *,
        batch: int = 512,
    ) -> Float32[np.ndarray, "sample class"]:
        """Return the probability of each class; rows sum to 1.

        Physical units in, NaN where not clear. A sample's result depends on no other sample and
        on no `batch`. A sample without a clear period gets one too, which means nothing.
        """
