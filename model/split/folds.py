"""A fold per sample in, for each fold the samples to score and those to train on out."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.spatial import cKDTree

from model.samples import Samples

Split = Literal["random", "grouped", "block", "region", "year", "knndm"]
SPLITS: tuple[Split, ...] = ("random", "grouped", "block")
"""The splits that any samples allow, from the one that flatters most to the strictest."""

ALL_SPLITS: tuple[Split, ...] = (*SPLITS, "region", "year", "knndm")
"""Every way to split; `splits_of` says which of them given samples allow."""

HELD_OUT: dict[Split, str] = {
    "random": "sample",
    "grouped": "group",
    "block": "block",
    "region": "region",
    "year": "year",
    "knndm": "group",
}
"""What each split holds out whole."""

BY_BLOCK: tuple[Split, ...] = ("block", "knndm", "region")
"""Splits under which samples of one block are on one side, or nearly so."""

NEVER_HELD_OUT = -1
"""Fold of samples that always train: their class has a single unit, which cannot be both."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Folds:
    """Which samples are held out together, and which then train."""

    split: Split
    """`random` by sample, `grouped` by label unit, `block` by square of the spatial grid, `region`
    and `year` by leaving one out, `knndm` by clusters of places (see `model.split.knndm`)."""
    fold: Int64[np.ndarray, "sample"]
    """0 .. count-1, or `NEVER_HELD_OUT`; fold 0 holds the most typical share of the classes."""
    count: int
    """Number of folds."""
    notes: tuple[str, ...]
    """What could not be done as asked, one sentence each."""
    is_scored: Bool[np.ndarray, "sample"] | None = None
    """False where a sample is held out, but nothing of its class trains meanwhile; None if never."""
    group: Int64[np.ndarray, "sample"] | None = None
    """Label units that may lie in several folds and must not train while part of them is held out;
    None where folds hold whole groups, and where the split is by sample or by year."""
    buffer: float = 0.0
    """Metres round held-out samples within which no sample trains."""
    place: Float64[np.ndarray, "sample 2"] | None = None
    """Easting and northing in metres, for the buffer."""
    doubted: tuple[Int64[np.ndarray, "_"], ...] | None = None
    """Samples that do not train in each fold because their labels are doubted (see
    `model.doctor.trusted`); None where all labels are believed."""
    distance: float | None = None
    """Of `knndm`: metres between the distances of cross-validation and those of prediction
    (Wasserstein)."""
    is_of_hull: bool = False
    """Of `knndm`: whether nobody said what will be mapped, so the samples' hull stands for it."""

    def __post_init__(self) -> None:
        if self.buffer and self.place is None:
            raise ValueError(f"a buffer of {self.buffer:g} m needs places")

    def held_out(self, fold: int) -> Int64[np.ndarray, "test"]:
        """Samples that are scored in `fold`."""
        is_test = self.fold == fold
        if self.is_scored is not None:
            is_test = is_test & self.is_scored
        return np.flatnonzero(is_test).astype(np.int64)

    def trained_on(self, fold: int) -> Int64[np.ndarray, "train"]:
        """Samples that train when `fold` is held out.

        None of the fold itself, of a `group` that it shares, within `buffer` metres of it, or
        `doubted`.
        """
        is_held = self.fold == fold
        is_out = is_held
        if self.group is not None:
            is_out = is_out | np.isin(self.group, self.group[is_held])
        if self.buffer:
            assert self.place is not None  # refused in __post_init__
            away, _ = cKDTree(self.place[is_held]).query(self.place)
            is_out = is_out | (away <= self.buffer)
        if self.doubted is not None:
            is_out = is_out.copy()
            is_out[self.doubted[fold]] = True
        return np.flatnonzero(~is_out).astype(np.int64)


def unit_of(samples: Samples, split: Split) -> Int64[np.ndarray, "sample"]:
    """Return what counts as one witness under `split`: the block or the group of each sample.

    Regions and years are too few to be dealt, so blocks stand for regions and groups for years.
    """
    return samples.block if split in BY_BLOCK else samples.group


def unit_word(split: Split) -> str:
    """Return what `unit_of` counts: `block` or `group`."""
    return "block" if split in BY_BLOCK else "group"
