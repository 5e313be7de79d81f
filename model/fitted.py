"""Trained networks in, a model that reads reflectance out."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from model.config import TrainConfig
from model.features import FeatureSet
from model.networks import BATCH, Network, class_probability, hidden_values
from model.preparation import Preparation


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """Trained networks with what they need to read reflectance; a `Predictor`."""

    networks: tuple[Network, ...]
    """In evaluation mode, nothing in them is trained further; one or more, of one shape."""
    preparation: Preparation
    """How reflectance becomes their input."""
    config: TrainConfig
    """How they were trained."""
    epoch: int
    """The epoch the weights come from, 1 for the first; of several networks the last one's."""

    def __post_init__(self) -> None:
        if not self.networks:
            raise ValueError("there is no network; a fitted model has one or more")

    @property
    def kind(self) -> str:
        """The architecture: `lstm`, `tempcnn` …."""
        return self.config.architecture

    @property
    def features(self) -> FeatureSet:
        """What it sees at each step."""
        return self.preparation.features

    @property
    def class_count(self) -> int:
        """Number of classes it tells apart."""
        return self.networks[0].head.out_features

    @property
    def network(self) -> Network:
        """The network, where there is one; raise `ValueError` where there are several."""
        if len(self.networks) > 1:
            raise ValueError(f"there are {len(self.networks)} networks; take them from networks")
        return self.networks[0]

    def probability(
        self,
        reflectance: Float32[np.ndarray, "sample time band"],
        bands: tuple[str, ...],
        *,
        batch: int = BATCH,
    ) -> Float32[np.ndarray, "sample class"]:
        """Return the probability of each class (a sample without a clear period gets one too).

        `batch` samples are prepared at a time, so that memory does not grow with their number.
        """
        pieces = [
            class_probability(
                self.networks, self.preparation.apply(reflectance[start : start + batch], bands)
            )
            for start in range(0, len(reflectance), batch)
        ]
        if not pieces:
            return np.empty((0, self.class_count), np.float32)
        return np.concatenate(pieces)

    def hidden(
        self,
        reflectance: Float32[np.ndarray, "sample time band"],
        bands: tuple[str, ...],
        *,
        batch: int = BATCH,
    ) -> Float32[np.ndarray, "sample unit"]:
        """Return the vectors before the heads, those of several networks side by side."""
        width = sum(network.head.in_features for network in self.networks)
        vectors = np.empty((len(reflectance), width), np.float32)
        for start in range(0, len(reflectance), batch):
            prepared = self.preparation.apply(reflectance[start : start + batch], bands)
            parts = [hidden_values(network, prepared) for network in self.networks]
            vectors[start : start + batch] = np.concatenate(parts, axis=1)
        return vectors
