"""Headers of a scene's files and the tiles of a cube in, what reading them will take out.

Counted by the same rules by which `cube.cog` fetches blocks, so that a plan can say beforehand what
a build will ask of a server. Files that are read through GDAL are not counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import shapely
from jaxtyping import Bool, UInt8
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from cube.cog import FIRST_BYTES, KEPT_BYTES, Cog, pieces
from cube.mask import ClearMask
from cube.spec import CubeSpec, tile_region
from cube.stac.footprint import meets_window, unwrapped
from cube.stac.pixels import PixelReader
from cube.stac.scene import SCL, Scene

_MOST_PAIRS = 49
"""Pairs of tiles of a scene that are counted; of more, so many, evenly, stand for all."""

_Piece = tuple[str, int, int, int]
"""Asset, level, first byte, byte after the last."""

_LEFT_OVER = 0.01
"""A granule of which other granules of its overpass cover all but this share is not read: so much
of a footprint is rounding."""


@dataclass(frozen=True, kw_only=True)
class ReadingCost:
    """Requests and bytes that reading a scene for all tiles of a cube takes."""

    headers: int = 0
    """Files whose headers are read, once by each process."""
    header_bytes: int = 0
    """Bytes of these headers."""
    mask_requests: int = 0
    """Requests for the classification."""
    mask_bytes: int = 0
    """Bytes of them."""
    band_requests: int = 0
    """Requests for bands, in the tiles in which something is clear."""
    band_bytes: int = 0
    """Bytes of them."""
    once_requests: int = 0
    """Requests for both if nothing were asked for twice."""
    once_bytes: int = 0
    """Bytes of them."""

    def __add__(self, other: "ReadingCost") -> "ReadingCost":
        return ReadingCost(
            **{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)}
        )

    @property
    def requests(self) -> int:
        """All requests of one process."""
        pixels = self.once_requests if self._fits else self.mask_requests + self.band_requests
        return self.headers + pixels

    @property
    def received(self) -> int:
        """All bytes of one process."""
        pixels = self.once_bytes if self._fits else self.mask_bytes + self.band_bytes
        return self.header_bytes + pixels

    @property
    def _fits(self) -> bool:
        """Whether a process can keep all it fetches, so that it never asks twice."""
        return self.once_bytes <= KEPT_BYTES


_PIXELS = ("mask_requests", "mask_bytes", "band_requests", "band_bytes")


def _times(cost: ReadingCost, share: float) -> ReadingCost:
    return replace(cost, **{name: round(getattr(cost, name) * share) for name in _PIXELS})


@dataclass(frozen=True, kw_only=True)
class _Found:
    """Pieces of files, each once."""

    mask: frozenset[_Piece] = frozenset()
    bands: frozenset[_Piece] = frozenset()

    def __or__(self, other: "_Found") -> "_Found":
        return _Found(mask=self.mask | other.mask, bands=self.bands | other.bands)

    @property
    def cost(self) -> ReadingCost:
        return ReadingCost(
            mask_requests=len(self.mask),
            mask_bytes=_size(self.mask),
            band_requests=len(self.bands),
            band_bytes=_size(self.bands),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """For which cube scenes will be read, and how."""

    spec: CubeSpec
    """Grid and tiles."""
    bands: tuple[str, ...]
    """Bands of the cube."""
    mask: ClearMask
    """What is clear."""
    reader: PixelReader
    """What reads them."""

    def cost(
        self, scene: Scene, headers: Mapping[str, Cog], classes: UInt8[np.ndarray, "y x"]
    ) -> dict[str, int]:
        """Return what one locked scene takes, for `Scene.cost`.

        That is a `ReadingCost` of tiles that are made two at a time, and under `alone_` what is
        otherwise if they are made one by one. `headers` by asset; those that are missing are read
        otherwise. `classes` are the scene classes over all its ground, coarse.
        """
        if SCL not in headers:
            return asdict(ReadingCost())
        pairs, share = self._pairs(scene, headers[SCL].grid())
        ground = headers[SCL].grid().zoom_to(classes.shape)
        step = (abs(ground.resolution.y), abs(ground.resolution.x))
        is_clear = self.mask.is_clear(classes, pixel_size=step)
        beside, alone, once = ReadingCost(), ReadingCost(), _Found()
        for tiles in pairs:
            both = _Found()
            for tile in tiles:
                found = self._found(scene, headers, is_clear, tile)
                alone += found.cost
                both |= found
            beside += both.cost
            once |= both
        used = [SCL, *(self.bands if beside.band_requests else ())] if pairs else []
        known = [headers[name] for name in used if name in headers]
        # of a sample of tiles nobody knows what they share
        least = once.cost if share == 1 else _times(beside, share)
        return asdict(
            replace(
                _times(beside, share),
                headers=len(known),
                header_bytes=sum(min(FIRST_BYTES, header.length) for header in known),
                once_requests=least.mask_requests + least.band_requests,
                once_bytes=least.mask_bytes + least.band_bytes,
            )
        ) | {f"alone_{name}": getattr(_times(alone, share), name) for name in _PIXELS}

    def _found(
        self,
        scene: Scene,
        headers: Mapping[str, Cog],
        is_clear: Bool[np.ndarray, "y x"],
        tile: GeoBox,
    ) -> "_Found":
        """Return what one tile fetches."""
        margin = self.mask.margin(pixel_size=abs(self.spec.geobox.resolution.x))
        mask = _fetched(SCL, headers[SCL], 0, tile.pad(margin) if margin else tile)
        if not _any(is_clear, headers[SCL].grid(), tile):
            return _Found(mask=mask)
        bands: frozenset[_Piece] = frozenset()
        for name in self.bands:
            if name in headers:
                level = self.reader.level(headers[name], scene, name, tile)
                bands |= _fetched(name, headers[name], level, tile)
        return _Found(mask=mask, bands=bands)

    def _pairs(self, scene: Scene, grid: GeoBox) -> tuple[list[list[GeoBox]], float]:
        """(tiles that the footprint comes near, two by two as they are made; how often each counts).

        Of many pairs some are taken that stand for all.
        """
        box = grid.extent.to_crs(self.spec.crs).boundingbox
        inside = _part(self.spec.geobox, (box.left, box.bottom, box.right, box.top))
        if inside is None:
            return [], 1.0
        edge = self.spec.tile
        columns = -(-self.spec.shape[3] // edge)
        groups: dict[int, list[tuple[int, int]]] = {}
        for row in range(inside[0].start // edge, -(-inside[0].stop // edge)):
            for column in range(inside[1].start // edge, -(-inside[1].stop // edge)):
                number = (row * columns + column) // 2
                groups.setdefault(number, []).append((row, column))
        every = list(groups.values())
        chosen = every[:: -(-len(every) // _MOST_PAIRS)]
        footprint = np.array([unwrapped(scene.footprint)], object)
        shape = (self.spec.shape[2], self.spec.shape[3])
        met = []
        for places in chosen:
            windows = [
                tile_region(shape, edge, *place).window(self.spec.geobox) for place in places
            ]
            if here := [one for one in windows if meets_window(footprint, one)[0]]:
                met.append(here)
        return met, len(every) / len(chosen)


def total_cost(overpasses: Iterable[Sequence[Scene]], *, at_once: int = 2) -> ReadingCost:
    """Return what scenes take together; the granules of each overpass come in order of preference.

    A process that makes `at_once` tiles side by side fetches once what two neighbours share. The
    bands of a granule whose ground earlier ones cover are not read.
    """
    total = ReadingCost()
    for granules in overpasses:
        covered: BaseGeometry = shapely.Polygon()
        for scene in granules:
            ground = unwrapped(scene.footprint)
            cost = _told(scene.cost, at_once)
            left = shapely.area(shapely.difference(ground, covered)) / shapely.area(ground)
            if left <= _LEFT_OVER:
                cost = ReadingCost(
                    headers=min(cost.headers, 1),
                    header_bytes=cost.header_bytes // max(cost.headers, 1),
                    mask_requests=cost.mask_requests,
                    mask_bytes=cost.mask_bytes,
                    once_requests=cost.mask_requests,
                    once_bytes=cost.mask_bytes,
                )
            total += cost
            covered = shapely.union(covered, ground)
    return total


def _told(cost: Mapping[str, int], at_once: int) -> ReadingCost:
    known = {one.name: cost.get(one.name, 0) for one in fields(ReadingCost)}
    if at_once == 1:
        known |= {name: cost.get(f"alone_{name}", 0) for name in _PIXELS}
    return ReadingCost(**known)


def _fetched(name: str, header: Cog, level: int, window: GeoBox) -> frozenset[_Piece]:
    """Return the pieces of an asset that bring a window of a level."""
    grid = header.grid(level)
    part = _part(grid, _box_on(grid, window))
    if part is None:
        return frozenset()
    found = pieces(header.levels[level], *part)
    return frozenset((name, level, piece.start, piece.stop) for piece in found)


def _size(found: frozenset[_Piece]) -> int:
    return sum(stop - start for _, _, start, stop in found)


def _any(is_clear: Bool[np.ndarray, "y x"], grid: GeoBox, window: GeoBox) -> bool:
    """Say whether anything in a window is clear, by a coarse look at the ground of `grid`."""
    part = _part(grid.zoom_to(is_clear.shape), _box_on(grid, window))
    return part is not None and bool(is_clear[part].any())


def _box_on(grid: GeoBox, window: GeoBox) -> tuple[float, float, float, float]:
    """(left, bottom, right, top) of a window in the CRS of `grid`."""
    assert grid.crs is not None  # of a file's header
    extent = window.extent if window.crs == grid.crs else window.extent.to_crs(grid.crs)
    box = extent.boundingbox
    return box.left, box.bottom, box.right, box.top


def _part(grid: GeoBox, box: tuple[float, float, float, float]) -> tuple[slice, slice] | None:
    """(rows, columns) of a north-up grid that a box in its CRS touches, or None."""
    left, bottom, right, top = box
    columns, rows = zip(
        *(~grid.transform * corner for corner in ((left, top), (right, bottom))), strict=True
    )
    found = []
    for (first, last), size in zip((rows, columns), grid.shape, strict=True):
        low = max(int(np.floor(min(first, last) + 1e-6)), 0)
        high = min(int(np.ceil(max(first, last) - 1e-6)), size)
        if low >= high:
            return None
        found.append(slice(low, high))
    return found[0], found[1]
