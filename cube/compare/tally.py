"""Pixels of two cubes in, exact counts and sums out; adding them loses no digit."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Int16, Int64, UInt16

from cube.bands import NODATA

_BOTH, _ONLY_FIRST, _ONLY_SECOND, _WITHIN_ONE = range(4)
_DIFFERENCE, _SQUARE, _FIRST, _SECOND, _FIRST_SQUARE, _SECOND_SQUARE, _PRODUCT = range(4, 11)
_SUMS = 11
_IN_FIRST, _IN_SECOND = np.uint8(1), np.uint8(2)


@dataclass(frozen=True, kw_only=True)
class PairSums:
    """What is summed over the pixels of one band and period, in stored units; a = first cube."""

    both: int = 0
    """Pixels with a value in both cubes."""
    only_first: int = 0
    """Pixels with a value in the first cube alone."""
    only_second: int = 0
    """Pixels with a value in the second cube alone."""
    within_one: int = 0
    """Pixels of both whose values differ by one unit at most."""
    difference: int = 0
    """Sum of b - a."""
    square: int = 0
    """Sum of (b - a)²."""
    first: int = 0
    """Sum of a."""
    second: int = 0
    """Sum of b."""
    first_square: int = 0
    """Sum of a²."""
    second_square: int = 0
    """Sum of b²."""
    product: int = 0
    """Sum of a b."""
    largest: int = 0
    """Largest |b - a|."""

    def __add__(self, other: "PairSums") -> "PairSums":
        summed = {name: value + getattr(other, name) for name, value in vars(self).items()}
        return PairSums(**{**summed, "largest": max(self.largest, other.largest)})


@dataclass(frozen=True, kw_only=True)
class ClearCounts:
    """What is counted over the pixels of one period."""

    pixels: int = 0
    """All pixels of the overlap."""
    differs: int = 0
    """Pixels that were clear in one cube and not in the other, or of which some shared band has a
    value in one alone (where gaps were filled, the two are not the same)."""
    only_first: int = 0
    """Pixels that were clear, or have a value, in the first cube alone."""
    only_second: int = 0
    """Pixels that were clear, or have a value, in the second cube alone."""
    counts_differ: int = 0
    """Pixels with another number of clear looks."""

    def __add__(self, other: "ClearCounts") -> "ClearCounts":
        return ClearCounts(
            **{name: value + getattr(other, name) for name, value in vars(self).items()}
        )


@dataclass(frozen=True, kw_only=True)
class Tally:
    """All that is counted of some pixels.

    Everything is a Python integer, which does not overflow: squares of stored units over 1e10
    pixels pass 64 bits, and floating-point sums would depend on how the cube is cut.
    """

    pairs: tuple[tuple[PairSums, ...], ...]
    """By period, then by band."""
    clear: tuple[ClearCounts, ...]
    """By period."""

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            pairs=tuple(
                tuple(one + two for one, two in zip(mine, theirs, strict=True))
                for mine, theirs in zip(self.pairs, other.pairs, strict=True)
            ),
            clear=tuple(one + two for one, two in zip(self.clear, other.clear, strict=True)),
        )

    @classmethod
    def empty(cls, periods: int, bands: int) -> "Tally":
        """Return the tally of no pixel."""
        return cls(pairs=((PairSums(),) * bands,) * periods, clear=(ClearCounts(),) * periods)

    @classmethod
    def of_periods(cls, periods: Iterable[tuple[tuple[PairSums, ...], ClearCounts]]) -> "Tally":
        """Return what `tally_period` found, one period after another."""
        pairs, clear = zip(*periods, strict=True)
        return cls(pairs=pairs, clear=clear)


def tally_period(
    first: Int16[np.ndarray, "first_band y x"],
    second: Int16[np.ndarray, "second_band y x"],
    *,
    first_bands: tuple[int, ...],
    second_bands: tuple[int, ...],
    first_count: UInt16[np.ndarray, "y x"],
    second_count: UInt16[np.ndarray, "y x"],
) -> tuple[tuple[PairSums, ...], ClearCounts]:
    """Count one period: stored units with `NODATA`, and the clear counts of both cubes.

    `first_bands[i]` and `second_bands[i]` are the places of the same band. Up to 2^31 pixels.
    """
    pixels = first_count.size
    sums = np.zeros((len(first_bands), _SUMS), np.int64)
    largest = np.zeros(len(first_bands), np.int64)
    alone = np.zeros(pixels, np.uint8)
    _count(
        first.reshape(len(first), pixels),
        second.reshape(len(second), pixels),
        np.array(first_bands, np.int64),
        np.array(second_bands, np.int64),
        sums,
        largest,
        alone,
    )
    was_clear, is_clear = (count.reshape(pixels) > 0 for count in (first_count, second_count))
    alone |= _IN_FIRST * (was_clear & ~is_clear) | _IN_SECOND * (is_clear & ~was_clear)
    return _pair_sums(sums, largest), ClearCounts(
        pixels=pixels,
        differs=int(np.count_nonzero(alone)),
        only_first=int(np.count_nonzero(alone & _IN_FIRST)),
        only_second=int(np.count_nonzero(alone & _IN_SECOND)),
        counts_differ=int((first_count != second_count).sum()),
    )


def _pair_sums(
    sums: Int64[np.ndarray, "band sum"], largest: Int64[np.ndarray, "band"]
) -> tuple[PairSums, ...]:
    return tuple(
        PairSums(
            both=row[_BOTH],
            only_first=row[_ONLY_FIRST],
            only_second=row[_ONLY_SECOND],
            within_one=row[_WITHIN_ONE],
            difference=row[_DIFFERENCE],
            square=row[_SQUARE],
            first=row[_FIRST],
            second=row[_SECOND],
            first_square=row[_FIRST_SQUARE],
            second_square=row[_SECOND_SQUARE],
            product=row[_PRODUCT],
            largest=most,
        )
        for row, most in zip(sums.tolist(), largest.tolist(), strict=True)
    )


@numba.njit(nogil=True, cache=True)
@no_type_check  # a run-time check inside would keep numba from compiling it
def _count(
    first: np.ndarray,  # (band, pixel) int16
    second: np.ndarray,  # (band, pixel) int16
    first_bands: np.ndarray,  # (band) int64
    second_bands: np.ndarray,  # (band) int64
    sums: np.ndarray,  # (band, sum) int64, added to
    largest: np.ndarray,  # (band) int64, raised
    alone: np.ndarray,  # (pixel) uint8, written: 1 a value in the first alone, 2 the second, 3 both
) -> None:
    pixels = first.shape[1]
    for band in range(first_bands.size):
        a_row, b_row = first[first_bands[band]], second[second_bands[band]]
        both = only_first = only_second = within_one = most = 0
        difference = square = a_sum = b_sum = a_square = b_square = product = 0
        for pixel in range(pixels):
            a, b = np.int64(a_row[pixel]), np.int64(b_row[pixel])
            if a == NODATA or b == NODATA:
                if a != NODATA:
                    only_first += 1
                    alone[pixel] |= np.uint8(1)
                elif b != NODATA:
                    only_second += 1
                    alone[pixel] |= np.uint8(2)
                continue
            gap = b - a
            size = abs(gap)
            both += 1
            within_one += size <= 1
            most = max(most, size)
            difference += gap
            square += gap * gap
            a_sum += a
            b_sum += b
            a_square += a * a
            b_square += b * b
            product += a * b
        row = sums[band]
        row[_BOTH] += both
        row[_ONLY_FIRST] += only_first
        row[_ONLY_SECOND] += only_second
        row[_WITHIN_ONE] += within_one
        row[_DIFFERENCE] += difference
        row[_SQUARE] += square
        row[_FIRST] += a_sum
        row[_SECOND] += b_sum
        row[_FIRST_SQUARE] += a_square
        row[_SECOND_SQUARE] += b_square
        row[_PRODUCT] += product
        largest[band] = max(largest[band], most)
