"""Labelled sequences in, as whoever made them left them; what the detectors look at out."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, Integer

from model.audit.missing import is_fill
from model.errors import SampleError
from model.samples import Samples
from model.split import Folds

NO_DAY = -(2**31)
"""Day of a step that a sequence does not have."""

BELIEVED = frozenset({"grouped", "block", "region", "knndm"})
"""Splits whose score is believed. `random` never is; one by year has the same places on both sides
on purpose."""

SENTINEL_2 = (
    "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12",
)  # fmt: skip
"""Reflectance bands, whose spectra of vegetation are known."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Audited:
    """Sequences with all that is known of them; only the first five fields are needed."""

    values: Float32[np.ndarray, "sample time band"]
    """Physical units (reflectance 0..1), NaN where missing. What should not be in it may be."""
    bands: tuple[str, ...]
    """Names of the last axis."""
    label: Int64[np.ndarray, "sample"]
    """Index into `classes`."""
    classes: tuple[str, ...]
    """Names."""
    group: Int64[np.ndarray, "sample"]
    """The label unit (point, polygon, stand) a sample was drawn from."""
    block: Int64[np.ndarray, "sample"] | None = None
    """The square of the spatial grid a sample lies in."""
    place: Float64[np.ndarray, "sample 2"] | None = None
    """Easting and northing in metres."""
    pixel: Int64[np.ndarray, "sample"] | None = None
    """Number of the cell of the grid: samples of one number are of one pixel."""
    periods: tuple[str, ...] | None = None
    """Names of the steps where all sequences share them; None where steps are dates of their own."""
    day: Int32[np.ndarray, "sample time"] | None = None
    """Days since 1970 of each step where they differ by sample, `NO_DAY` where there is none."""
    clear_count: Integer[np.ndarray, "sample time"] | None = None
    """Dates behind each step, clear looks where there is a cube."""
    columns: Mapping[str, Float32[np.ndarray, "sample time"]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    """Columns beside the bands, by name, e.g. `EVI`: indices as the table has them."""
    folds: tuple[Folds, ...] = ()
    """Every way in which the samples are split to be scored."""
    believed: frozenset[str] = BELIEVED
    """Splits whose score somebody will believe; what leaks in others is only a note."""
    features: tuple[str, ...] | None = None
    """Bands and columns that the network will see; None is all but AOT, WVP, B01 and B09."""
    outside: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Labels that gave no sample, by reason."""
    contested: int = 0
    """Cells that gave no sample, for labels of several classes claimed them."""

    def __post_init__(self) -> None:
        count, steps = self.values.shape[:2]
        for name in ("label", "group", "block", "place", "pixel", "day", "clear_count"):
            part = getattr(self, name)
            if part is not None and len(part) != count:
                raise SampleError(f"{count} sequences but {len(part)} values of {name!r}")
        if len(self.bands) != self.values.shape[2]:
            raise SampleError(f"{self.values.shape[2]} bands have {len(self.bands)} names")
        if self.periods is not None and len(self.periods) != steps:
            raise SampleError(f"{steps} steps have {len(self.periods)} names of periods")
        for split in self.folds:
            if len(split.fold) != count:
                raise SampleError(
                    f"{count} sequences but {len(split.fold)} folds in {split.split!r}"
                )
        if count and not 0 <= self.label.min() <= self.label.max() < len(self.classes):
            raise SampleError(
                f"labels reach from {self.label.min()} to {self.label.max()}; "
                f"{len(self.classes)} classes allow 0 to {len(self.classes) - 1}"
            )

    @classmethod
    def of(cls, samples: Samples, **more: Any) -> "Audited":
        """Return samples with what else is known of them (any other field of this class)."""
        return cls(
            bands=samples.bands,
            label=samples.label,
            classes=samples.classes,
            group=samples.group,
            block=samples.block,
            periods=samples.periods,
            **({"values": samples.reflectance, "place": samples.place} | more),
        )

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: Int64[np.ndarray, "chosen"]) -> "Audited":
        """Return the samples at `index`, without folds."""
        names = ("values", "label", "group", "block", "place", "pixel", "day", "clear_count")
        parts: dict[str, Any] = {
            name: part[index] for name in names if (part := getattr(self, name)) is not None
        }
        columns = {name: column[index] for name, column in self.columns.items()}
        return replace(self, **parts, columns=columns, folds=())

    @cached_property
    def is_fill(self) -> Bool[np.ndarray, "sample time band"]:
        """Where a value is one that stands for "missing"."""
        return is_fill(self.values, self.bands)

    @cached_property
    def known(self) -> Float32[np.ndarray, "sample time band"]:
        """The values, NaN where they are missing or stand for it."""
        return np.where(self.is_fill, np.float32(np.nan), self.values)

    @cached_property
    def is_seen(self) -> Bool[np.ndarray, "sample time"]:
        """Steps in which some band has a value."""
        return np.asarray(np.isfinite(self.known).any(axis=2))

    def has(self, *bands: str) -> bool:
        """Say whether all `bands` are there."""
        return set(bands) <= set(self.bands)

    def band(self, name: str) -> Float32[np.ndarray, "sample time"]:
        """Return the known values of one band."""
        return np.asarray(self.known[..., self.bands.index(name)])

    def sees(self, name: str) -> bool:
        """Say whether the network will see a band or column."""
        if self.features is None:
            return name not in ("AOT", "WVP", "B01", "B09")
        return name.upper() in (feature.upper() for feature in self.features)
