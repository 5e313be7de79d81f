"""Exact sums in, the figures that people read out: bias, RMSE, correlation, shares."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from cube.compare.tally import ClearCounts, PairSums

_UNITS = 10_000
"""Stored units in 1.0; sums are divided by whole numbers, so that each figure is rounded once."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far the values of two cubes agree where both have one; None where nothing says."""

    pixels: int
    """Values that both have."""
    only_first: int
    """Values that the first cube alone has."""
    only_second: int
    """Values that the second cube alone has."""
    bias: float | None
    """Mean of second - first, in the band's unit (reflectance 0..1)."""
    rmse: float | None
    """Root of the mean squared difference, in the band's unit."""
    largest: float | None
    """Largest absolute difference, in the band's unit."""
    within_one: float | None
    """Share of the values that differ by one stored unit (1e-4) at most."""
    correlation: float | None
    """Pearson's r; 0 where only one of the cubes varies, None where neither does."""

    @classmethod
    def of(cls, sums: PairSums) -> "Agreement":
        """Return what the sums of one band and period mean."""
        count = sums.both
        return cls(
            pixels=count,
            only_first=sums.only_first,
            only_second=sums.only_second,
            bias=sums.difference / (count * _UNITS) if count else None,
            rmse=math.sqrt(sums.square / (count * _UNITS**2)) if count else None,
            largest=sums.largest / _UNITS if count else None,
            within_one=sums.within_one / count if count else None,
            correlation=_correlation(sums),
        )

    @classmethod
    def of_all(cls, sums: Iterable[PairSums]) -> "Agreement":
        """Return the agreement over several periods together."""
        return cls.of(sum(sums, PairSums()))


def _correlation(sums: PairSums) -> float | None:
    """Pearson's r from whole numbers: nothing cancels, whatever the mean of the values."""
    count = sums.both
    first = count * sums.first_square - sums.first**2
    second = count * sums.second_square - sums.second**2
    if first == 0 or second == 0:
        return None if first == second else 0.0
    together = count * sums.product - sums.first * sums.second
    # 64 bits after the point, rounded down: equal cubes have exactly 1, and nothing has more
    return (together << 64) / math.isqrt((first * second) << 128)


@dataclass(frozen=True, kw_only=True)
class ClearAgreement:
    """How far two cubes agree on where there is a value."""

    differs: float
    """Share of pixels at which a shared band has a value in one cube and not in the other."""
    only_first: float
    """Share of pixels at which a shared band has a value in the first cube alone."""
    only_second: float
    """Share of pixels at which a shared band has a value in the second cube alone."""
    counts_differ: float
    """Share of pixels with another number of clear looks."""

    @classmethod
    def of(cls, counts: ClearCounts) -> "ClearAgreement":
        """Return what the counts of one period mean; there is at least one pixel."""
        return cls(
            differs=counts.differs / counts.pixels,
            only_first=counts.only_first / counts.pixels,
            only_second=counts.only_second / counts.pixels,
            counts_differ=counts.counts_differ / counts.pixels,
        )

    @classmethod
    def of_all(cls, counts: Iterable[ClearCounts]) -> "ClearAgreement":
        """Return the agreement over several periods together: shares of pixels times periods."""
        return cls.of(sum(counts, ClearCounts()))
