"""Arrays in, `Samples` out: labelled sequences that were checked once."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Integer

from model.errors import SampleError
from model.features import BANDS, FeatureSet
from model.periods import calendar_positions

LARGEST_VALUE = 4.0
"""No reflectance lies beyond: stored values end at 3.2767. More is a fill value or raw counts."""

_OPTIONAL = ("place", "region", "year", "share", "is_settled")
"""Fields that samples may lack."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Labelled sequences of one length, with what they must not be split across."""

    reflectance: Float32[np.ndarray, "sample time band"]
    """Physical units (reflectance 0..1), NaN where the period was not clear."""
    bands: tuple[str, ...]
    """Names of the last axis, e.g. `B02`."""
    periods: tuple[str, ...]
    """Names of the time axis, rising: months `2022-03` or days `2022-03-01/2022-03-15`."""
    label: Int64[np.ndarray, "sample"]
    """Index into `classes`."""
    classes: tuple[str, ...]
    """Names, none twice."""
    group: Int64[np.ndarray, "sample"]
    """The label unit (point, polygon, stand) a sample was drawn from."""
    block: Int64[np.ndarray, "sample"]
    """The square of the spatial grid a sample lies in."""
    place: Float64[np.ndarray, "sample 2"] | None = None
    """Easting and northing in metres; None where samples have no coordinates."""
    region: Int64[np.ndarray, "sample"] | None = None
    """What `leave one region out` leaves out; None where samples have no regions."""
    year: Int64[np.ndarray, "sample"] | None = None
    """The year a sequence begins in; None where nobody says."""
    share: Float32[np.ndarray, "sample class"] | None = None
    """Soft labels: share of each class in a mixed plot, rows sum to 1; `label` is the largest.
    None where every sample is of one class."""
    is_settled: Bool[np.ndarray, "sample"] | None = None
    """Whether somebody has looked at the label and decided about it; None where nobody has."""

    def __post_init__(self) -> None:
        count = len(self.reflectance)
        for name in ("label", "group", "block", *self._optional):
            if len(getattr(self, name)) != count:
                found = len(getattr(self, name))
                raise SampleError(f"{count} sequences but {found} values of {name!r}")
        wanted = (len(self.periods), len(self.bands))
        if self.reflectance.shape[1:] != wanted:
            raise SampleError(
                f"sequences have shape (time, band) {self.reflectance.shape[1:]!r}; periods and "
                f"bands name {wanted!r}"
            )
        if len(set(self.bands)) < len(self.bands) or len(set(self.classes)) < len(self.classes):
            raise SampleError(f"a name is there twice in {self.bands!r} or {self.classes!r}")
        if count and not 0 <= self.label.min() <= self.label.max() < len(self.classes):
            raise SampleError(
                f"labels reach from {self.label.min()} to {self.label.max()}; "
                f"{len(self.classes)} classes allow 0 to {len(self.classes) - 1}"
            )
        try:
            calendar_positions(self.periods)
        except ValueError as error:
            raise SampleError(str(error)) from None
        self._refuse_wrong_shares()
        self._refuse_unphysical()

    @property
    def _optional(self) -> tuple[str, ...]:
        """The optional fields that these samples have."""
        return tuple(name for name in _OPTIONAL if getattr(self, name) is not None)

    def _refuse_wrong_shares(self) -> None:
        if self.share is None or not len(self):
            return
        if self.share.shape[1] != len(self.classes):
            raise SampleError(
                f"shares of {self.share.shape[1]} classes for {len(self.classes)} classes"
            )
        is_wrong = ~((self.share >= 0).all(axis=1) & (np.abs(self.share.sum(axis=1) - 1) < 1e-3))
        if is_wrong.any():
            first = int(np.flatnonzero(is_wrong)[0])
            raise SampleError(
                f"{int(is_wrong.sum())} samples have shares that are negative or do not sum to 1, "
                f"first sample {first}: {self.share[first].tolist()!r}"
            )

        given = self.share[np.arange(len(self)), self.label]
        is_less = given < self.share.max(axis=1) - 1e-3  # of equal shares either may be the label
        if is_less.any():
            first = int(np.flatnonzero(is_less)[0])
            raise SampleError(
                f"{int(is_less.sum())} samples have a label that is not their largest share, first "
                f"sample {first}: {self.classes[self.label[first]]!r} of "
                f"{self.share[first].tolist()!r}"
            )

    def _refuse_unphysical(self) -> None:
        # other sensors' bands have units of their own, and only infinity is wrong in all of them
        largest = [
            LARGEST_VALUE if band in BANDS else np.finfo(np.float32).max for band in self.bands
        ]
        with np.errstate(invalid="ignore"):
            bad = np.abs(self.reflectance) > np.array(largest, np.float32)  # infinite too, NaN not
        if not bad.any():
            return
        sample, time, band = (int(index) for index in np.argwhere(bad)[0])
        raise SampleError(
            f"{int(bad.sum())} values are not physical, first {self.reflectance[sample, time, band]}"
            f" in sample {sample}, {self.periods[time]}, {self.bands[band]}; expected reflectance "
            "0..1 with NaN where missing (no fill value, no raw counts)"
        )

    @classmethod
    def from_names(
        cls,
        *,
        reflectance: Float32[np.ndarray, "sample time band"],
        bands: Sequence[str],
        periods: Sequence[str],
        labels: Sequence[str],
        group: Integer[np.ndarray, "sample"],
        block: Integer[np.ndarray, "sample"],
        classes: Sequence[str] | None = None,
        place: Float64[np.ndarray, "sample 2"] | None = None,
        region: Integer[np.ndarray, "sample"] | None = None,
        year: Integer[np.ndarray, "sample"] | None = None,
        share: Float32[np.ndarray, "sample class"] | None = None,
        is_settled: Bool[np.ndarray, "sample"] | None = None,
    ) -> "Samples":
        """Build samples from class names.

        Without `classes` the classes are the names that occur, sorted. Raises `SampleError` for
        a name that is empty or not among `classes`.
        """
        names = [str(label) for label in labels]
        blank = [index for index, name in enumerate(names) if not name.strip()]
        if blank:
            raise SampleError(f"{len(blank)} labels are empty, first at sample {blank[0]}")
        known = tuple(classes) if classes is not None else tuple(sorted(set(names)))
        index_of = {name: index for index, name in enumerate(known)}
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise SampleError(f"labels {unknown!r} are no class; classes are {list(known)!r}")
        return cls(
            reflectance=reflectance,
            bands=tuple(bands),
            periods=tuple(periods),
            label=np.array([index_of[name] for name in names], np.int64),
            classes=known,
            group=group.astype(np.int64),
            block=block.astype(np.int64),
            place=place,
            region=None if region is None else region.astype(np.int64),
            year=None if year is None else year.astype(np.int64),
            share=share,
            is_settled=is_settled,
        )

    def __len__(self) -> int:
        return len(self.reflectance)

    def take(self, index: Int64[np.ndarray, "chosen"]) -> "Samples":
        """Return the samples at `index`, in that order."""
        names = ("reflectance", "label", "group", "block", *self._optional)
        chosen: dict[str, Any] = {name: getattr(self, name)[index] for name in names}
        return replace(self, **chosen)

    def with_clear_periods(self, features: FeatureSet, *, at_least: int = 1) -> "Samples":
        """Return the samples that have `at_least` so many clear periods for `features`."""
        clear = features.is_clear(self.reflectance, self.bands).sum(axis=1)
        return self.take(np.flatnonzero(clear >= at_least).astype(np.int64))

    @property
    def class_counts(self) -> dict[str, int]:
        """Number of samples of each class."""
        counts = np.bincount(self.label, minlength=len(self.classes))
        return dict(zip(self.classes, counts.tolist(), strict=True))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every value and name, in hexadecimal: what a classifier was made from."""
        digest = hashlib.sha256()
        for names in (self.bands, self.periods, self.classes):
            digest.update("\x1f".join(names).encode() + b"\x1e")
        # NaN has many bit patterns; one of them stands for all.
        values = np.where(np.isnan(self.reflectance), np.float32(np.nan), self.reflectance)
        digest.update(repr(values.shape).encode())
        optional = [getattr(self, name) for name in self._optional]
        digest.update("\x1f".join(self._optional).encode())
        for array in (values, self.label, self.group, self.block, *optional):
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(np.ascontiguousarray(little).tobytes())
        return digest.hexdigest()
