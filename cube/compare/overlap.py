"""The specs of two cubes in, what they share out: pixels, periods and bands."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from affine import Affine

from cube.errors import InputError
from cube.grid import parse_crs
from cube.spec import CubeSpec, Region, tile_regions

_OFF = 1e-3
"""Share of a pixel by which two lattices may miss each other anywhere: a rounding error."""

_PIECE = 512
"""Edge of a piece in pixels, where the chunks allow it: what a worker holds of both cubes."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One part of the overlap, as each cube counts its pixels."""

    first: Region
    """Its place in the first cube; row and column are its own, not those of a tile."""
    second: Region
    """Its place in the second cube."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What two cubes on one lattice share, and where each of them keeps it."""

    first: CubeSpec
    """The first cube."""
    second: CubeSpec
    """The second cube."""
    first_corner: tuple[int, int]
    """(row, column) of the overlap's first pixel in the first cube."""
    second_corner: tuple[int, int]
    """(row, column) of the same pixel in the second cube."""
    shape: tuple[int, int]
    """Rows and columns that both have."""
    periods: tuple[str, ...]
    """Names of the periods that both have, ascending."""
    bands: tuple[str, ...]
    """Bands that both have, as the first orders them."""

    @property
    def pixels(self) -> int:
        """Number of pixels that both have."""
        return self.shape[0] * self.shape[1]

    def pieces(self) -> Iterator[Piece]:
        """Yield the overlap in pieces that keep to the first cube's chunks."""
        chunk = self.first.chunk
        step = max(chunk, _PIECE // chunk * chunk)
        (top, left), (height, width) = self.first_corner, self.shape
        down, across = self.second_corner[0] - top, self.second_corner[1] - left
        # a grid of pieces that begins where the first cube does, so that no chunk is read twice
        whole = (top + height, left + width)
        for cell in tile_regions(whole, step):
            rows = range(max(cell.top, top), cell.top + cell.height)
            columns = range(max(cell.left, left), cell.left + cell.width)
            if not rows or not columns:
                continue
            place = {
                "row": cell.row,
                "column": cell.column,
                "height": len(rows),
                "width": len(columns),
            }
            yield Piece(
                first=Region(top=rows[0], left=columns[0], **place),
                second=Region(top=rows[0] + down, left=columns[0] + across, **place),
            )

    def not_shared(self) -> dict[str, dict[str, Any]]:
        """Return what only one of the cubes has: periods, bands and number of pixels, by cube."""
        found = {}
        for name, spec in (("a", self.first), ("b", self.second)):
            height, width = spec.geobox.shape
            found[name] = {
                "periods": [str(one) for one in spec.periods if str(one) not in self.periods],
                "bands": [one for one in spec.bands if one not in self.bands],
                "pixels": height * width - self.pixels,
            }
        return found


def overlap(first: CubeSpec, second: CubeSpec) -> Overlap:
    """Return what two cubes share.

    Raises `InputError` if they are in different CRS, if their pixels do not lie on each other, and
    if they share no pixel, no period or no band.
    """
    row, column = _offset(first, second)
    (first_rows, first_columns), (second_rows, second_columns) = first.shape[2:], second.shape[2:]
    top, left = max(row, 0), max(column, 0)
    shape = (
        min(first_rows, row + second_rows) - top,
        min(first_columns, column + second_columns) - left,
    )
    if min(shape) < 1:
        raise InputError(
            f"the cubes have no pixel in common: A covers {_bounds(first)}, B {_bounds(second)}"
        )
    return Overlap(
        first=first,
        second=second,
        first_corner=(top, left),
        second_corner=(top - row, left - column),
        shape=shape,
        periods=_common("period", list(map(str, first.periods)), list(map(str, second.periods))),
        bands=_common("band", first.bands, second.bands),
    )


def _offset(first: CubeSpec, second: CubeSpec) -> tuple[int, int]:
    """(row, column) of the second cube's first pixel in the first cube."""
    # by what they mean: one cube may name its CRS, the other spell it out
    if parse_crs(first.crs.to_wkt()) != parse_crs(second.crs.to_wkt()):
        raise InputError(
            f"the cubes are in different CRS: A in {_crs(first)}, B in {_crs(second)}; build one of "
            "them on the grid of the other"
        )
    one, other = first.geobox.transform, second.geobox.transform
    column, row = (other.c - one.c) / one.a, (other.f - one.f) / one.e
    longest = max(*first.shape[2:], *second.shape[2:])
    stretch = max(abs(other.a / one.a - 1), abs(other.e / one.e - 1)) * longest
    if max(abs(row - round(row)), abs(column - round(column)), stretch) > _OFF:
        raise InputError(
            f"the cubes' pixels do not lie on each other: A has {_lattice(one)}, B "
            f"{_lattice(other)}; build one of them on the grid of the other"
        )
    return round(row), round(column)


def _common(what: str, first: Sequence[str], second: Sequence[str]) -> tuple[str, ...]:
    shared = tuple(one for one in first if one in second)
    if not shared:
        raise InputError(
            f"the cubes have no {what} in common: A has {_some(first)}, B has {_some(second)}"
        )
    return shared


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _crs(spec: CubeSpec) -> str:
    return f"EPSG:{spec.crs.epsg}" if spec.crs.epsg else repr(str(spec.crs)[:60])


def _lattice(transform: Affine) -> str:
    x, y = transform.c % transform.a, transform.f % -transform.e
    return f"{transform.a:.10g} x {-transform.e:.10g} m with a corner at ({x:g}, {y:g})"


def _bounds(spec: CubeSpec) -> str:
    box = spec.geobox.boundingbox
    return f"x {box.left:.10g} to {box.right:.10g}, y {box.bottom:.10g} to {box.top:.10g}"
