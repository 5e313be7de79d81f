"""Arrays in, `Samples` out: labelled sequences that were checked once."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Int64, Integer

from model.errors import SampleError
from model.features import FeatureSet
from model.periods import calendar_positions

LARGEST_VALUE = 4.0
"""Nothing physical lies beyond: stored values end at 3.2767. More is a fill value or raw counts."""


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

    def __post_init__(self) -> None:
        count = len(self.reflectance)
        for name in ("label", "group", "block"):
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
        self._refuse_unphysical()

    def _refuse_unphysical(self) -> None:
        with np.errstate(invalid="ignore"):
            bad = np.abs(self.reflectance) > LARGEST_VALUE  # infinite too, NaN not
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
        )

    def __len__(self) -> int:
        return len(self.reflectance)

    def take(self, index: Int64[np.ndarray, "chosen"]) -> "Samples":
        """Return the samples at `index`, in that order."""
        return replace(
            self,
            reflectance=self.reflectance[index],
            label=self.label[index],
            group=self.group[index],
            block=self.block[index],
        )

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
        for array in (values, self.label, self.group, self.block):
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(np.ascontiguousarray(little).tobytes())
        return digest.hexdigest()
