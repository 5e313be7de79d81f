"""A trained model in, pixels made up to put an engine to the test out."""

import numpy as np
from jaxtyping import Float32

from model.fitted import Fitted

PIXELS = 240
"""More than a block, so that the last one is filled up."""

_SEED = 6
_GAPS = (0.0, 0.1, 0.5, 0.9)
_ODD = (-0.2, 0.0, 1e-5, 0.05, 1.7)


def trial_reflectance(
    fitted: Fitted, *, steps: int, pixels: int = PIXELS
) -> Float32[np.ndarray, "pixel time band"]:
    """Return sequences of the `required_bands`: likely ones, odd ones, with and without gaps.

    Bands that the model has statistics of vary about their mean, others as reflectance does. Each
    pixel has a level and a season of its own; in one of six some values are far outside what a
    model ever saw, and steps are missing from none up to all.
    """
    generator = np.random.default_rng(_SEED)
    bands = fitted.features.required_bands
    centre, spread = np.full(len(bands), 0.25), np.full(len(bands), 0.1)
    if fitted.preparation.limit is not None:
        for name, mean, deviation in zip(
            fitted.features.names,
            fitted.preparation.mean,
            fitted.preparation.deviation,
            strict=True,
        ):
            if name.removeprefix("band:") in bands:
                index = bands.index(name.removeprefix("band:"))
                centre[index], spread[index] = mean, deviation
    level = generator.normal(0, 1, (pixels, 1, len(bands)))
    phase = generator.uniform(0, 2 * np.pi, (pixels, 1, 1))
    season = np.sin(2 * np.pi * np.arange(steps)[:, None] / max(steps, 1) + phase)
    noise = generator.normal(0, 0.5, (pixels, steps, len(bands)))
    values = centre + spread * (level + season + noise)

    odd = generator.random(values.shape) < 0.1
    odd &= np.arange(pixels)[:, None, None] % 6 == 5
    values = np.where(odd, generator.choice(_ODD, values.shape), values)
    gap = generator.choice(_GAPS, (pixels, 1))
    values[generator.random((pixels, steps)) < gap] = np.nan
    values[-1] = np.nan  # a pixel without any step
    values[-2, :, :1] = np.nan  # one band alone
    return values.astype(np.float32)
