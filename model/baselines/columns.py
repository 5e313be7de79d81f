"""Reflectance in, one row of columns per sample out: learned once, the same at every prediction."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32

from model.errors import ClassifierError
from model.features import FeatureSet
from model.samples import Samples
from model.scaling import LIMIT, centre_and_scale


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """How reflectance becomes a row: every feature of every period, then a clear flag per period."""

    features: FeatureSet
    """What is computed at each step."""
    median: Float32[np.ndarray, "time feature"]
    """Stands in for what is missing; over the clear values of the training samples."""
    keeps_gaps: bool
    """Whether what is missing stays NaN, for models that read it by themselves."""
    mean: Float32[np.ndarray, "column"] | None = None
    """Subtracted from every column; None where columns are not scaled."""
    deviation: Float32[np.ndarray, "column"] | None = None
    """Divided by; positive; None where columns are not scaled."""

    def __post_init__(self) -> None:
        if self.median.shape[1] != len(self.features) or not len(self.median):
            raise ClassifierError(
                f"medians have shape {self.median.shape!r} for {len(self.features)} features"
            )
        if (self.mean is None) != (self.deviation is None):
            raise ClassifierError("columns have a mean without a deviation, or the reverse")
        for name in ("median", "mean", "deviation"):
            values = getattr(self, name)
            if values is not None and not np.isfinite(values).all():
                raise ClassifierError(f"the {name} of the columns is not finite")
        for values in (self.mean, self.deviation):
            if values is not None and values.shape != (self.count,):
                raise ClassifierError(f"{len(values)} statistics for {self.count} columns")
        if self.deviation is not None and not (self.deviation > 0).all():
            raise ClassifierError("a deviation of the columns is not positive")

    @property
    def count(self) -> int:
        """Number of columns."""
        return self.median.size + len(self.median)

    @classmethod
    def learn(
        cls, samples: Samples, features: FeatureSet, *, keeps_gaps: bool, scaled: bool
    ) -> "Columns":
        """Learn what stands in for gaps, and the scale; raises `FeatureError` without a band."""
        values, _ = _values(samples.reflectance, samples.bands, features)
        known = np.isfinite(values)
        # A period that is never clear has no median: 0 for all samples says nothing, as it should.
        median = np.zeros(values.shape[1:], np.float32)
        for time, feature in np.ndindex(median.shape):
            column = values[known[:, time, feature], time, feature]
            if column.size:
                median[time, feature] = np.median(column)
        columns = cls(features=features, median=median, keeps_gaps=keeps_gaps)
        if not scaled:
            return columns
        table = columns.table(samples.reflectance, samples.bands).astype(np.float64)
        mean, deviation = np.array([centre_and_scale(column) for column in table.T], np.float32).T
        return replace(columns, mean=mean, deviation=deviation)

    def table(
        self, reflectance: Float32[np.ndarray, "sample time band"], bands: tuple[str, ...]
    ) -> Float32[np.ndarray, "sample column"]:
        """Return the rows of samples; NaN only where gaps are kept.

        Raises `ClassifierError` for another number of periods, `FeatureError` for a missing band.
        """
        if reflectance.shape[1] != len(self.median):
            raise ClassifierError(
                f"the model reads {len(self.median)} periods, the data have {reflectance.shape[1]}"
            )
        values, clear = _values(reflectance, bands, self.features)
        if not self.keeps_gaps:
            values = np.where(np.isfinite(values), values, self.median)
        flat = values.reshape(len(values), -1)  # (sample, time x feature)
        table = np.concatenate([flat, clear], axis=1).astype(np.float32)  # (sample, column)
        if self.mean is not None and self.deviation is not None:
            table = np.clip((table - self.mean) / self.deviation, -LIMIT, LIMIT)
        return table


def _values(
    reflectance: np.ndarray, bands: tuple[str, ...], features: FeatureSet
) -> tuple[Float32[np.ndarray, "sample time feature"], Bool[np.ndarray, "sample time"]]:
    """Compute features, NaN wherever the period is not clear or a formula has no value."""
    values = features.compute(reflectance, bands)
    clear = features.is_clear(reflectance, bands)
    return np.where(clear[..., None], values, np.float32(np.nan)), clear
