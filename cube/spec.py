"""What a cube will be, declared before any pixel is read: grid, periods, bands, tiles, chunks."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj.exceptions import CRSError

from cube.bands import BANDS
from cube.errors import InputError
from cube.periods import Period, check_periods
from cube.touched import numbers_of

_TILE_ID = re.compile(r"r(\d+)c(\d+)", re.ASCII)
_LONGEST_ID = 30

METRES = ("metre", "meter", "m")
"""What CRS definitions call their unit where it is the metre."""


@dataclass(frozen=True, kw_only=True, order=True)
class Region:
    """A rectangle of whole pixels of a grid: the place of one tile in a store."""

    row: int
    """Row of the tile in the tile grid, from the top."""
    column: int
    """Column of the tile in the tile grid, from the left."""
    top: int
    """First row of pixels."""
    left: int
    """First column of pixels."""
    height: int
    """Rows of pixels (smaller in the last row of tiles)."""
    width: int
    """Columns of pixels (smaller in the last column of tiles)."""

    @property
    def id(self) -> str:
        """Name of the tile in ledgers and messages, e.g. `r0003c0012`."""
        return f"r{self.row:04d}c{self.column:04d}"

    @property
    def rows(self) -> slice:
        """The rows of pixels, for indexing the y axis."""
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        """The columns of pixels, for indexing the x axis."""
        return slice(self.left, self.left + self.width)

    def window(self, geobox: GeoBox) -> GeoBox:
        """Return the part of `geobox` that this region covers."""
        return geobox[self.rows, self.columns]


def tile_region(shape: tuple[int, int], tile: int, row: int, column: int) -> Region:
    """Return one tile of a (y, x) raster; those at the far edges may be smaller."""
    height, width = shape
    top, left = row * tile, column * tile
    return Region(
        row=row,
        column=column,
        top=top,
        left=left,
        height=min(tile, height - top),
        width=min(tile, width - left),
    )


def tile_regions(shape: tuple[int, int], tile: int) -> Iterator[Region]:
    """Yield the tiles of a (y, x) raster row by row."""
    rows, columns = (-(-size // tile) for size in shape)
    for row in range(rows):
        for column in range(columns):
            yield tile_region(shape, tile, row, column)


@dataclass(frozen=True, kw_only=True)
class CubeSpec:
    """The declared shape of a cube: everything that decides where a value is stored."""

    geobox: GeoBox
    """The grid: CRS, transform and (y, x) shape. It is the only truth about coordinates."""
    periods: tuple[Period, ...]
    """The whole time axis, ascending without overlap, with gaps or not; all acquisitions or none."""
    bands: tuple[str, ...]
    """Canonical band names, in storage order."""
    tile: int = 512
    """Edge of the unit of work in pixels; a multiple of `chunk`."""
    chunk: int = 256
    """Edge of a stored chunk in pixels."""
    sharded: bool = True
    """Store one object (shard) per tile instead of one per chunk; Zarr format 3 only."""
    zarr_format: Literal[2, 3] = 3
    """Zarr format of the store; 2 is what GDAL older than 3.12 can read."""
    touched: tuple[int, ...] | None = None
    """Which tiles belong to the cube, as `cube.touched.runs_of` keeps it: those that the area
    touches. None for all of the grid; the others stay nodata and have no record."""

    def __post_init__(self) -> None:
        crs = self.geobox.crs
        if crs is None or not crs.projected or crs.units[0] not in METRES:
            raise InputError(
                f"the cube's grid is in {self.geobox.crs}; it needs a projected CRS in metres, "
                "e.g. crs = 'utm' or 'EPSG:32633'"
            )
        transform = self.geobox.transform
        if transform.b or transform.d or not transform.a > 0 > transform.e:  # nor NaN
            raise InputError(
                f"the cube's grid is turned (transform {list(transform)[:6]}); it needs north up"
            )
        if min(self.geobox.shape) < 1:
            raise InputError(f"the cube's grid has no pixel: shape {tuple(self.geobox.shape)}")
        check_periods(self.periods)
        if not self.bands or len(set(self.bands)) != len(self.bands):
            raise InputError(f"the cube's bands {self.bands!r} are empty or repeat a band")
        if unknown := [band for band in self.bands if band not in BANDS]:
            raise InputError(f"bands {unknown!r} are not known; known are {', '.join(BANDS)}")
        if self.chunk < 1 or self.tile < 1 or self.tile % self.chunk:
            raise InputError(f"tile {self.tile} is no multiple of chunk {self.chunk}")
        if self.zarr_format not in (2, 3):
            raise InputError(f"Zarr format {self.zarr_format!r} is unknown; expected 2 or 3")
        if self.sharded and self.zarr_format == 2:
            raise InputError("Zarr format 2 has no shards; set sharded = false")
        self._check_touched()

    def _check_touched(self) -> None:
        runs = self.touched
        if runs is None:
            return
        if any(type(run) is not int or run < 0 for run in runs) or sum(runs) != self.grid_tiles:
            raise InputError(
                f"the cube's touched tiles {str(runs)[:60]} are no runs of its {self.grid_tiles} tiles"
            )
        if not sum(runs[1::2]):
            raise InputError(f"none of the grid's {self.grid_tiles} tiles belongs to the cube")

    @property
    def crs(self) -> CRS:
        """The CRS of the grid."""
        assert self.geobox.crs is not None  # refused in __post_init__
        return self.geobox.crs

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Sizes of (time, band, y, x)."""
        height, width = self.geobox.shape
        return len(self.periods), len(self.bands), height, width

    @property
    def chunks(self) -> tuple[int, int, int, int]:
        """Sizes of one chunk in (time, band, y, x): one period, all bands.

        A period is sliced without touching the others, and a tile of several chunks reads them
        with no waste; `tests/benchmarks/layout.py` has the measurement behind the choice.
        """
        return 1, len(self.bands), self.chunk, self.chunk

    @property
    def shards(self) -> tuple[int, int, int, int] | None:
        """Sizes of one shard in (time, band, y, x), one a tile; None where chunks are objects."""
        return (len(self.periods), len(self.bands), self.tile, self.tile) if self.sharded else None

    @property
    def grid_tiles(self) -> int:
        """Tiles of the whole grid, whether they belong to the cube or not."""
        _, _, height, width = self.shape
        return -(-height // self.tile) * -(-width // self.tile)

    @property
    def tile_count(self) -> int:
        """Tiles that belong to the cube: as many as there are `regions()`, without making them."""
        return self.grid_tiles if self.touched is None else sum(self.touched[1::2])

    @property
    def pixel_count(self) -> int:
        """Pixels of the tiles that belong to the cube."""
        height, width = self.shape[2:]
        if self.touched is None:
            return height * width
        columns = -(-width // self.tile)
        rows, columns_of = np.divmod(numbers_of(self.touched), columns)
        heights = np.minimum(self.tile, height - rows * self.tile)
        return int((heights * np.minimum(self.tile, width - columns_of * self.tile)).sum())

    def region(self, tile: str) -> Region:
        """Return the tile of that id, e.g. `r0003c0012`; `InputError` if the grid has none."""
        if (found := _TILE_ID.fullmatch(tile)) and len(tile) < _LONGEST_ID:
            row, column = int(found[1]), int(found[2])
            rows, columns = (-(-size // self.tile) for size in self.shape[2:])
            if row < rows and column < columns:
                region = tile_region(self.shape[2:], self.tile, row, column)
                if region.id == tile:  # not with zeros too many
                    return region
        raise InputError(f"{tile[:40]!r} is no tile of the grid")

    def regions(self) -> tuple[Region, ...]:
        """Return the tiles that belong to the cube, row by row."""
        shape = self.shape[2:]
        if self.touched is None:
            return tuple(tile_regions(shape, self.tile))
        columns = -(-shape[1] // self.tile)
        numbers = numbers_of(self.touched).tolist()
        return tuple(tile_region(shape, self.tile, *divmod(one, columns)) for one in numbers)

    def to_json(self) -> dict[str, Any]:
        """Return the spec as plain JSON values."""
        return {
            "crs": self.crs.to_wkt(),
            "transform": list(self.geobox.transform)[:6],
            "shape": list(self.geobox.shape),
            "periods": [str(period) for period in self.periods],
            "bands": list(self.bands),
            "tile": self.tile,
            "chunk": self.chunk,
            "sharded": self.sharded,
            "zarr_format": self.zarr_format,
            "touched": None if self.touched is None else list(self.touched),
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "CubeSpec":
        """Rebuild a spec from `to_json`; raises `InputError` if keys are missing or odd."""
        try:
            touched = stored.get("touched")  # older cubes have all tiles
            return cls(
                touched=None if touched is None else tuple(touched),
                geobox=GeoBox(tuple(stored["shape"]), Affine(*stored["transform"]), stored["crs"]),
                periods=tuple(Period.parse(period) for period in stored["periods"]),
                bands=tuple(stored["bands"]),
                tile=stored["tile"],
                chunk=stored["chunk"],
                sharded=stored["sharded"],
                zarr_format=stored["zarr_format"],
            )
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, CRSError) as error:
            raise InputError(
                f"the cube's description is damaged ({error!r}): {json.dumps(stored)[:200]}"
            ) from error
