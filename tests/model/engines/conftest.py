"""Models with weights as sharp as trained ones, and pixels with gaps: what engines are tried on."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from model.config import TrainConfig
from model.fitted import Fitted
from model.formulas import BANDS
from model.networks import build_network
from model.networks.encoding import PiecewiseEncoding
from model.preparation import Preparation


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Fitted]:
    """Build a model of random networks whose gates move and whose probabilities are not flat."""

    def build(
        preset: str = "default",
        *,
        classes: int = 5,
        steps: int = 12,
        seed: int = 0,
        sharpness: float = 3.0,
        **settings: object,
    ) -> Fitted:
        config = TrainConfig.preset(preset, **settings)
        features = config.features
        generator = np.random.default_rng(seed)
        values = features.compute(
            generator.normal(0.25, 0.12, (400, steps, len(BANDS))).astype(np.float32), BANDS
        )
        mean, deviation = np.zeros(len(features)), np.ones(len(features))
        if config.standardise:
            mean, deviation = np.nanmean(values, axis=(0, 1)), np.nanstd(values, axis=(0, 1))
        positions = tuple(f"{month % 12 + 1:02d}" for month in range(steps))
        preparation = Preparation(
            features=features,
            mean=mean.astype(np.float32),
            deviation=deviation.astype(np.float32),
            limit=10.0 if config.standardise else None,
            mask_input=config.mask_input,
            positions=positions if config.calendar_input else (),
        )
        scaled = ((values - mean) / deviation).reshape(-1, len(features)).astype(np.float32)
        scaled = np.clip(scaled[np.isfinite(scaled).all(axis=1)], -10, 10)
        networks = []
        for member in range(config.members):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed + member)
                network = build_network(
                    config, channels=preparation.channels, classes=classes, steps=steps
                )
            network.eval().requires_grad_(False)
            for parameter in network.parameters():
                parameter.mul_(1.5)
            network.head.weight.mul_(sharpness)
            if config.input_pieces:
                assert isinstance(network.encoding, PiecewiseEncoding)
                network.encoding.learn(torch.from_numpy(scaled))
            networks.append(network)
        return Fitted(networks=tuple(networks), preparation=preparation, config=config, epoch=1)

    return build


@pytest.fixture(scope="session")
def make_pixels() -> Callable[..., np.ndarray]:
    """Build stored units (time, band, pixel) of all of `BANDS`: gaps, empty and odd pixels."""

    def build(count: int, *, steps: int = 12, seed: int = 0, gap: float = 0.2) -> np.ndarray:
        generator = np.random.default_rng(seed)
        values = generator.normal(2500, 1200, (steps, len(BANDS), count))
        odd = generator.random(values.shape) < 0.01
        values[odd] = generator.choice([-32767, -500, 0, 1, 17000, 32767], int(odd.sum()))
        missing = generator.random((steps, 1, count)) < gap
        missing = np.broadcast_to(missing, values.shape).copy()
        missing |= generator.random(values.shape) < gap / 20
        missing[..., ::41] = True
        return np.where(missing, -32768, np.clip(values, -32767, 32767)).astype(np.int16)

    return build


@pytest.fixture(scope="session")
def reflectance_of() -> Callable[[np.ndarray], np.ndarray]:
    """Turn stored units (time, band, pixel) into samples (pixel, time, band), by the definition."""

    def convert(stored: np.ndarray) -> np.ndarray:
        physical = stored.astype(np.float32) * np.float32(1e-4)
        physical[stored == -32768] = np.nan
        return np.ascontiguousarray(physical.transpose(2, 0, 1))

    return convert
