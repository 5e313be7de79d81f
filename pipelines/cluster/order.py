"""Tiles in, the same tiles out in an order in which neighbours are near each other."""

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Placed(Protocol):
    """What has a row and a column in a grid of tiles."""

    @property
    def row(self) -> int: ...  # noqa: D102
    @property
    def column(self) -> int: ...  # noqa: D102


Tile = TypeVar("Tile", bound=Placed)


def along_curve(tiles: Iterable[Tile]) -> list[Tile]:
    """Return tiles along a Z curve (Morton 1966): what is under way at once lies together.

    So scenes that neighbours share are read while they are still in memory. The order depends on
    nothing but rows and columns.
    """
    return sorted(tiles, key=lambda tile: _spread(tile.row) << 1 | _spread(tile.column))


def _spread(number: int) -> int:
    """Return a number below 2**32 with a zero before each of its bits."""
    for shift, mask in (
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    ):
        number = (number | number << shift) & mask
    return number
