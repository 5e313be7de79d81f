"""Small labelled sequences with a season, gaps and label units: fast to learn, known to be so."""

from collections.abc import Callable

import numpy as np
import pytest

from model.config import TrainConfig
from model.features import DEFAULT_FEATURES
from model.samples import Samples

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
MONTHS = tuple(f"2022-{month:02d}" for month in range(1, 13))


@pytest.fixture(scope="session")
def make_samples() -> Callable[..., Samples]:
    """Build separable samples: each class peaks in a season of its own, groups differ a little."""

    def build(
        *,
        groups: int = 40,
        per_group: int = 8,
        classes: int = 3,
        gap: float = 0.2,
        noise: float = 0.02,
        seed: int = 0,
    ) -> Samples:
        random = np.random.default_rng(seed)
        group = np.repeat(np.arange(groups), per_group)
        label = group % classes
        time = np.arange(12)
        season = np.cos((time[None] - 12 / classes * label[:, None]) / 12 * 2 * np.pi)
        level = np.linspace(0.05, 0.4, len(BANDS))
        values = level + 0.04 * season[..., None] * np.sign(level - 0.2)
        values = values + random.normal(0, 0.01, (groups, 12, len(BANDS)))[group]
        values = values + random.normal(0, noise, values.shape)
        values[random.random(values.shape[:2]) < gap] = np.nan
        samples = Samples(
            reflectance=values.astype(np.float32),
            bands=BANDS,
            periods=MONTHS,
            label=label.astype(np.int64),
            classes=tuple(f"species {index}" for index in range(classes)),
            group=group.astype(np.int64),
            # three groups, one of each class, share a block
            block=(group // classes).astype(np.int64),
        )
        return samples.with_clear_periods(DEFAULT_FEATURES)

    return build


@pytest.fixture(scope="session")
def quick() -> TrainConfig:
    """A small network that learns the samples above in about a second."""
    return TrainConfig.preset(
        "default", hidden=16, epochs=25, batch_size=32, learning_rate=1e-2, patience=20
    )
