"""Reflectance in, network input out: features scaled, gaps marked; learned once, used everywhere."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from model.config import TrainConfig
from model.errors import SampleError
from model.features import FeatureSet
from model.periods import calendar_positions, middle_of_year
from model.samples import Samples
from model.scaling import LIMIT, centre_and_scale


@dataclass(frozen=True, kw_only=True, eq=False)
class Preparation:
    """How reflectance becomes network input.

    There is one mean and one standard deviation per feature, over all periods: a statistic per
    period would take the season out of the input (the signal), and would rest on few values in
    cloudy ones.
    """

    features: FeatureSet
    """What is computed at each step."""
    mean: Float32[np.ndarray, "feature"]
    """Subtracted; 0 when features are not scaled."""
    deviation: Float32[np.ndarray, "feature"]
    """Divided by; positive; 1 when features are not scaled."""
    limit: float | None
    """Largest absolute value after scaling; None where features are not scaled."""
    mask_input: bool
    """Whether a channel after the features tells clear (1) from missing (0)."""
    positions: tuple[str, ...] = ()
    """Places of the steps in the calendar (`calendar_positions`); empty where the network gets no
    calendar. Else the last two channels are sine and cosine of each step's time of year."""

    def __post_init__(self) -> None:
        size = (len(self.features),)
        if self.mean.shape != size or self.deviation.shape != size:
            raise SampleError(f"statistics have other than the {size[0]} values of the features")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.deviation).all()):
            raise SampleError("statistics of the features are not finite")
        if not (self.deviation > 0).all():
            raise SampleError("a standard deviation of the features is not positive")
        if self.limit is not None and not self.limit > 0:
            raise SampleError(f"the limit of scaled features is {self.limit!r}; expected above 0")

    @property
    def channels(self) -> int:
        """Values per step that the network receives."""
        return len(self.features) + self.mask_input + self.calendar_channels

    @property
    def calendar_channels(self) -> int:
        """How many of the channels, at their end, tell the time of year: 2 or 0."""
        return 2 if self.positions else 0

    @classmethod
    def learn(cls, samples: Samples, config: TrainConfig) -> "Preparation":
        """Learn the statistics from the clear values of (training!) samples.

        Raises `SampleError` if a feature has no clear value at all, `FeatureError` if a band is
        missing.
        """
        features = config.features
        mean = np.zeros(len(features))
        deviation = np.ones(len(features))
        if config.standardise:
            values = features.compute(samples.reflectance, samples.bands)
            values = values[features.is_clear(samples.reflectance, samples.bands)]
            for index, name in enumerate(features.names):
                known = values[:, index][np.isfinite(values[:, index])].astype(np.float64)
                if not known.size:
                    raise SampleError(
                        f"feature {name!r} has no clear value in {len(samples)} samples"
                    )
                mean[index], deviation[index] = centre_and_scale(known)
        return cls(
            features=features,
            mean=mean.astype(np.float32),
            deviation=deviation.astype(np.float32),
            limit=LIMIT if config.standardise else None,
            mask_input=config.mask_input,
            positions=calendar_positions(samples.periods) if config.calendar_input else (),
        )

    def apply(
        self, reflectance: Float32[np.ndarray, "sample time band"], bands: tuple[str, ...]
    ) -> Float32[np.ndarray, "sample time channel"]:
        """Return the network's input: no NaN in it.

        A period that is not clear is 0 in every channel but the calendar's; a feature without a
        value in a clear period (its formula has none) is 0, which is the mean if features are
        scaled. Raises `SampleError` for other than the steps of the calendar.
        """
        clear = self.features.is_clear(reflectance, bands)
        if self.positions and len(self.positions) != reflectance.shape[1]:
            raise SampleError(
                f"sequences have {reflectance.shape[1]} steps; the calendar has "
                f"{len(self.positions)} ({' '.join(self.positions)})"
            )
        values = (self.features.compute(reflectance, bands) - self.mean) / self.deviation
        if self.limit is not None:
            np.clip(values, -self.limit, self.limit, out=values)
        values[~np.isfinite(values) | ~clear[..., None]] = 0
        prepared = np.zeros((*clear.shape, self.channels), np.float32)  # (sample, time, channel)
        prepared[..., : len(self.features)] = values
        if self.mask_input:
            prepared[..., len(self.features)] = clear
        if self.positions:
            prepared[..., -2:] = season_of(self.positions)
        return prepared


def season_of(positions: Sequence[str]) -> Float32[np.ndarray, "time 2"]:
    """Return sine and cosine of the middle of each period; a year is once round."""
    angle = 2 * np.pi * np.array([middle_of_year(position) for position in positions])
    return np.stack([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)  # (time, 2)
