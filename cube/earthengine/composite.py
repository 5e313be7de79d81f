"""What a composite of Earth Engine is to be in, and pixels as it sends them in, a `Composite` out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Int16, UInt16

from cube.bands import NODATA
from cube.errors import InputError, WorkFailedError
from cube.mask import ClearMask
from cube.periods import Period
from cube.source import Composite
from cube.stac.pixels import Resampling

Mask = Literal["cloud-score-plus", "scl", "qa60"]
"""What tells clear ground from cloud on Earth Engine."""

Method = Literal["median", "mean", "medoid"]
"""How Earth Engine makes one value of a period's clear looks."""

COUNTS: tuple[str, ...] = ("clear_count", "seen_count", "day_offset")
"""Bands that an answer has after those of the cube: number of clear looks, number of looks that had
data (as `Looks.seen_count`), and days from the period's first day to the mean date of the clear
looks."""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What Earth Engine is to make of a period's looks; all of it goes into every request.

    Raises `InputError` for a name that is unknown, a threshold outside 0..1, and classes that
    `ClearMask` refuses.
    """

    mask: Mask = "cloud-score-plus"
    """What is clear: Cloud Score+ `cs_cdf` of `threshold` or more; one of the SCL's `classes`; or
    neither of QA60's bits for opaque cloud and cirrus, where an image without QA60 has no cloud.
    Saturated and missing pixels (SCL 0 and 1) are never clear."""
    threshold: float = 0.6
    """Least `cs_cdf` of clear ground, 0 (not clear) .. 1 (clear)."""
    classes: tuple[int, ...] = ClearMask().clear_classes
    """SCL classes that are clear, as `ClearMask.clear_classes`."""
    method: Method = "median"
    """How the clear looks become one value, as the method of this name in `cube.composite`."""
    resampling: Resampling = "bilinear"
    """For reflectance whose pixels are not the cube's, as `StacSource.resampling`. Masks always
    take the nearest pixel."""

    def __post_init__(self) -> None:
        for what, value, known in (
            ("mask", self.mask, get_args(Mask)),
            ("composite", self.method, get_args(Method)),
            ("resampling", self.resampling, get_args(Resampling)),
        ):
            if value not in known:
                raise InputError(
                    f"{what} {value!r} cannot be had from Earth Engine; expected one of "
                    f"{', '.join(known)}"
                )
        if not 0 <= self.threshold <= 1:
            raise InputError(f"mask threshold is {self.threshold!r}; cs_cdf goes from 0 to 1")
        ClearMask(classes=self.classes)

    @property
    def identity(self) -> dict[str, Any]:
        """What of it decides pixels, as plain JSON: not the settings of masks that are not asked."""
        used: dict[str, Any] = {"mask": self.mask}
        if self.mask == "cloud-score-plus":
            used["threshold"] = self.threshold
        if self.mask == "scl":
            used["classes"] = sorted(self.classes)
        return {**used, "method": self.method, "resampling": self.resampling}


def answer_bands(bands: tuple[str, ...]) -> tuple[str, ...]:
    """Return the bands of an answer, in its order: those of the cube, then `COUNTS`."""
    return (*bands, *COUNTS)


def composite_from_pixels(
    pixels: Int16[np.ndarray, "answer y x"], period: Period, *, scenes: tuple[str, ...]
) -> Composite:
    """Return the composite that an answer with the bands `answer_bands` holds.

    Stored units in and out. `scenes` are the ids of each look's scenes, joined by '+'. Raises
    `WorkFailedError` for an answer that contradicts itself: values where no look was clear, more
    clear looks than there are, a date outside the period.
    """
    reflectance, (clear_count, seen_count, day_offset) = pixels[:-3], pixels[-3:]
    is_clear = clear_count > 0
    _check_counts(clear_count, seen_count, looks=len(scenes), period=period)
    if ((reflectance == NODATA) == is_clear).any():
        raise WorkFailedError(
            f"Earth Engine's composite of {period} has values where it counts no clear look, or "
            "none where it counts some"
        )
    first, days = _days_of(period)
    if day_offset.min(initial=0) < 0 or day_offset.max(initial=0) >= days:
        raise WorkFailedError(
            f"Earth Engine's composite of {period} has looks of {day_offset.min()}.."
            f"{day_offset.max()} days after {first}; the period has {days}"
        )
    return Composite(
        reflectance=reflectance,
        clear_count=clear_count.astype(np.uint16),
        seen_count=seen_count.astype(np.uint16),
        mean_day=_days_of_year(first, day_offset, days) * is_clear,
        scenes=scenes,
    )


def composite_without_looks(shape: tuple[int, int], bands: Sequence[str]) -> Composite:
    """Return what a period without a scene gives: `NODATA`, and counts of 0."""
    nothing = np.zeros(shape, np.uint16)
    return Composite(
        reflectance=np.full((len(bands), *shape), NODATA, np.int16),
        clear_count=nothing,
        seen_count=nothing,
        mean_day=nothing,
        scenes=(),
    )


def _check_counts(
    clear_count: Int16[np.ndarray, "y x"],
    seen_count: Int16[np.ndarray, "y x"],
    *,
    looks: int,
    period: Period,
) -> None:
    for what, count, most in (("clear", clear_count, seen_count), ("seen", seen_count, looks)):
        if ((count < 0) | (count > most)).any():
            raise WorkFailedError(
                f"Earth Engine's composite of {period} counts {count.min()}..{count.max()} {what} "
                f"looks of {looks}, which cannot be"
            )


def _days_of(period: Period) -> tuple[np.datetime64, int]:
    """(first day, number of days in which a look of the period can lie)."""
    return period.start.astype("M8[D]"), max(period.days, 1)


def _days_of_year(
    first: np.datetime64, offset: Int16[np.ndarray, "y x"], days: int
) -> UInt16[np.ndarray, "y x"]:
    dates = np.arange(first, first + days)
    of_year = (dates - dates.astype("M8[Y]")).astype(np.uint16) + np.uint16(1)
    return np.asarray(of_year[offset])
