"""Longitudes and latitudes in, cells of Sentinel-2's lattice of 10 m pixels out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from affine import Affine
from jaxtyping import Int32
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from pyproj import Transformer

from cube.errors import InputError
from cube.grid import LON_LAT, parse_crs, utm_crs
from cube.spec import METRES
from cube.tables.scratch import told_if_full
from cube.tables.spill import Spill

PIXEL = 10
"""Edge of a pixel in metres; corners are multiples of it, as those of Sentinel-2's tiles are."""

MOST_PIXELS = 100_000_000
"""Pixels of a stack: 10,000 square kilometres, of which 28 patches of 256 x 256 are a fiftieth."""

_MOST_ACROSS = 200_000
"""Pixels along an edge of what ground truth is spread over: 2000 km, beyond which one zone is no
place for it."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    """A rectangle of cells of the lattice."""

    left: int
    """Column of the westernmost cells: easting of their left edge / 10 m."""
    right: int
    """Column of the easternmost cells."""
    bottom: int
    """Row number of the southernmost cells: northing of their lower edge / 10 m."""
    top: int
    """Row number of the northernmost cells."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns; two at least, or a store cannot say how large a pixel is."""
        return max(2, self.top - self.bottom + 1), max(2, self.right - self.left + 1)

    @property
    def pixels(self) -> int:
        """Number of cells."""
        height, width = self.shape
        return height * width

    def geobox(self, crs: CRS) -> GeoBox:
        """Return the grid of these cells."""
        corner = Affine(PIXEL, 0, self.left * PIXEL, 0, -PIXEL, (self.top + 1) * PIXEL)
        return GeoBox(self.shape, corner, crs)

    def holds(self, other: "Extent") -> bool:
        """Say whether all of `other` lies within."""
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.bottom <= other.bottom
            and other.top <= self.top
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedTable:
    """A table whose records have their places on the lattice."""

    spill: Spill
    """The records."""
    cells: Path
    """Column and row number (int32) of each record's cell, in their order."""
    extent: Extent
    """What they cover."""

    def parts(
        self,
    ) -> Iterator[tuple[np.ndarray, Int32[np.ndarray, " row"], Int32[np.ndarray, " row"]]]:
        """Yield (records, columns, row numbers), some at a time."""
        with self.cells.open("rb") as file:
            for part in self.spill.parts():
                cells = np.fromfile(file, np.int32, 2 * len(part)).reshape(-1, 2)
                yield part, cells[:, 0], cells[:, 1]


def joined(extents: Sequence[Extent]) -> Extent:
    """Return the smallest extent that holds all of `extents`."""
    return Extent(
        left=min(extent.left for extent in extents),
        right=max(extent.right for extent in extents),
        bottom=min(extent.bottom for extent in extents),
        top=max(extent.top for extent in extents),
    )


def crs_of(spills: Sequence[Spill], asked: str | None) -> CRS:
    """Return the CRS asked for, or the UTM zone in which the middle of all tables lies.

    Raises `InputError` if the one asked for is not in metres.
    """
    if asked is not None:
        crs = parse_crs(asked)
        if not crs.projected or crs.units[0] not in METRES:
            raise InputError(f"--crs {asked!r} is not in metres; give e.g. 'EPSG:32648'")
        return crs
    least = np.min([spill.bounds.least for spill in spills], axis=0)
    most = np.max([spill.bounds.most for spill in spills], axis=0)
    return utm_crs(Geometry(shapely.Point(*((least + most) / 2)), LON_LAT))


def cells_of(
    transformer: Transformer, part: np.ndarray, *, file: str
) -> tuple[Int32[np.ndarray, " row"], Int32[np.ndarray, " row"]]:
    """Return column and row number on the lattice of the cell that each record's point falls into.

    A point on the line between two cells belongs to the eastern or northern one. Raises
    `InputError` for a point that has no coordinates in the CRS.
    """
    x, y = transformer.transform(part["lon"], part["lat"])
    column, row = (np.floor(np.asarray(axis) / PIXEL) for axis in (x, y))
    with np.errstate(invalid="ignore"):
        is_there = (np.abs(column) < 2**30) & (np.abs(row) < 2**30)
    if not is_there.all():
        at = int(np.argmin(is_there))
        raise InputError(
            f"{file!r}, row {part['number'][at]}: longitude {part['lon'][at]:g}, latitude "
            f"{part['lat'][at]:g} has no coordinates in the grid's CRS; is it wrong, or --crs?"
        )
    return column.astype(np.int32), row.astype(np.int32)


def place(spill: Spill, crs: CRS) -> PlacedTable:
    """Write the cells of a table's records beside them; return what they cover.

    Raises `WorkFailedError` if the disk is full.
    """
    transformer = Transformer.from_crs(LON_LAT, crs, always_xy=True)
    cells = spill.file.with_suffix(".cells")
    edges: list[tuple[int, int, int, int]] = []
    with cells.open("wb") as file:
        for part in spill.parts():
            column, row = cells_of(transformer, part, file=spill.name)
            edges.append((int(column.min()), int(column.max()), int(row.min()), int(row.max())))
            both = np.stack([column, row], axis=1)
            with told_if_full(cells.parent, both.nbytes, is_all=False):
                file.write(both.data)
                file.flush()
    least, most = np.min(edges, axis=0), np.max(edges, axis=0)
    extent = Extent(left=int(least[0]), right=int(most[1]), bottom=int(least[2]), top=int(most[3]))
    return PlacedTable(spill=spill, cells=cells, extent=extent)


def refuse_too_wide(tables: Sequence[PlacedTable]) -> None:
    """Raise `InputError` if tables are spread over more than a grid can be made for.

    A stack has at most `MOST_PIXELS`; ground truth is only bound to one zone.
    """
    extent = joined([table.extent for table in tables])
    height, width = extent.shape
    is_stack = not tables[0].spill.columns.is_truth
    if max(height, width) <= _MOST_ACROSS and not (is_stack and extent.pixels > MOST_PIXELS):
        return
    spills = [table.spill for table in tables]
    least = np.min([spill.bounds.least for spill in spills], axis=0)
    most = np.max([spill.bounds.most for spill in spills], axis=0)
    raise InputError(
        f"the points reach from longitude {least[0]:.5f} to {most[0]:.5f} and latitude "
        f"{least[1]:.5f} to {most[1]:.5f}: a grid of {height} x {width} pixels of 10 m is too "
        f"large. Farthest out is {_farthest(spills)}; if it is right, import in parts"
    )


def _farthest(spills: Sequence[Spill]) -> str:
    """Name the row that lies farthest from the middle of the others."""
    firsts = [next(spill.parts()) for spill in spills]
    middle = np.array(
        [np.median(np.concatenate([part[axis] for part in firsts])) for axis in ("lon", "lat")]
    )
    found = []
    for spill in spills:
        for edges, rows in zip(
            (spill.bounds.least, spill.bounds.most), spill.bounds.rows, strict=True
        ):
            far = np.abs(edges - middle)
            found += [(float(far[axis]), spill.name, int(rows[axis])) for axis in (0, 1)]
    _, name, row = max(found)
    return f"row {row} of {name!r}"
