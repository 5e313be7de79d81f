"""Headers of a scene's files and the tiles of a cube in, what reading them will take out.

Counted by the same rules by which `cube.cog` fetches blocks, so that a plan can say beforehand what
a build will ask of a server. Files that are read through GDAL are not counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import shapely
from jaxtyping import Float64, UInt8
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from cube.cog import FIRST_BYTES, KEPT_BYTES, Cog, Level, pieces
from cube.mask import ClearMask
from cube.spec import CubeSpec, tile_region
from cube.stac.footprint import meets_boxes, unwrapped
from cube.stac.pixels import PixelReader
from cube.stac.scene import SCL, Scene
from cube.stac.tileparts import part_of, parts_of
from cube.stac.touching import tile_boxes
from cube.touched import numbers_of

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
        ground = headers[SCL].grid()
        tiles = self._tiles(scene, ground)
        files = self._files(scene, headers, tiles.boxes)
        is_clear = self._clear_tiles(tiles.boxes, ground.zoom_to(classes.shape), classes)
        beside, alone, once = ReadingCost(), ReadingCost(), _Found()
        for pair in tiles.pairs:
            both = _Found()
            for tile in pair:
                found = _Found(
                    mask=files[SCL].fetched(tile),
                    bands=frozenset().union(
                        *(files[name].fetched(tile) for name in self.bands if name in files)
                    )
                    if is_clear[tile]
                    else frozenset(),
                )
                alone += found.cost
                both |= found
            beside += both.cost
            once |= both
        share = tiles.share
        used = [SCL, *(self.bands if beside.band_requests else ())] if tiles.pairs else []
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

    def _files(
        self, scene: Scene, headers: Mapping[str, Cog], boxes: Float64[np.ndarray, "tile 4"]
    ) -> dict[str, "_File"]:
        """Return the files of mask and bands, each with the tiles in its own CRS."""
        step = abs(self.spec.geobox.resolution.x)
        margin = self.mask.margin(pixel_size=step) * step * np.array([-1.0, -1.0, 1.0, 1.0])
        found = {}
        for name in (SCL, *self.bands):
            if name in headers:
                header = headers[name]
                # which level is read follows from the grid, the same for all its windows
                level = (
                    0 if name == SCL else self.reader.level(header, scene, name, self.spec.geobox)
                )
                found[name] = _File(
                    name=name,
                    level=level,
                    blocks=header.levels[level],
                    parts=parts_of(
                        header.grid(level), self.spec, boxes + margin if name == SCL else boxes
                    ),
                )
        return found

    def _clear_tiles(
        self,
        boxes: Float64[np.ndarray, "tile 4"],
        ground: GeoBox,
        classes: UInt8[np.ndarray, "y x"],
    ) -> list[bool]:
        """Say in which tiles anything is clear, by a coarse look at the ground of a scene."""
        step = (abs(ground.resolution.y), abs(ground.resolution.x))
        is_clear = self.mask.is_clear(classes, pixel_size=step)
        parts = parts_of(ground, self.spec, boxes)
        return [part is not None and bool(is_clear[part].any()) for part in parts]

    def _tiles(self, scene: Scene, grid: GeoBox) -> "_Tiles":
        """Return the tiles that the footprint comes near; of many pairs some stand for all."""
        box = grid.extent.to_crs(self.spec.crs).boundingbox
        inside = part_of(self.spec.geobox, (box.left, box.bottom, box.right, box.top))
        if inside is None:
            return _Tiles(pairs=[], boxes=np.empty((0, 4)), share=1.0)
        edge = self.spec.tile
        rows, columns = (np.arange(at.start // edge, -(-at.stop // edge)) for at in inside)
        across = -(-self.spec.shape[3] // edge)
        number = (rows[:, None] * across + columns).ravel()
        turn = number  # in which a tile is made
        if self.spec.touched is not None:
            touched = numbers_of(self.spec.touched)
            turn = np.searchsorted(touched, number)
            is_touched = touched[np.minimum(turn, len(touched) - 1)] == number
            number, turn = number[is_touched], turn[is_touched]
        pair = np.unique(turn // 2, return_inverse=True)[1]
        every = int(pair.max(initial=-1)) + 1
        step = max(-(-every // _MOST_PAIRS), 1)
        chosen = np.flatnonzero(pair % step == 0)
        shape = self.spec.shape[2:]
        places = (divmod(one, across) for one in number[chosen].tolist())
        tiles = [tile_region(shape, edge, *place) for place in places]
        boxes = tile_boxes(tiles, self.spec.geobox)
        is_met = meets_boxes(unwrapped(scene.footprint), boxes, self.spec.crs)
        groups: dict[int, list[int]] = {}
        for tile in np.flatnonzero(is_met).tolist():
            groups.setdefault(int(pair[chosen[tile]]), []).append(tile)
        share = every / len(range(0, every, step)) if every else 1.0
        return _Tiles(pairs=list(groups.values()), boxes=boxes, share=share)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tiles:
    """Tiles that a scene is asked for."""

    pairs: list[list[int]]
    """Numbers of tiles that are made at the same time."""
    boxes: Float64[np.ndarray, "tile 4"]
    """(left, bottom, right, top) of each tile in the cube's CRS."""
    share: float
    """How often each of them counts."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _File:
    """A level of a file, and the part of it that each tile needs."""

    name: str
    level: int
    blocks: Level
    parts: list[tuple[slice, slice] | None]

    def fetched(self, tile: int) -> frozenset[_Piece]:
        """Return the pieces that bring a tile."""
        part = self.parts[tile]
        if part is None:
            return frozenset()
        found = pieces(self.blocks, *part)
        return frozenset((self.name, self.level, piece.start, piece.stop) for piece in found)


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


def _size(found: frozenset[_Piece]) -> int:
    return sum(stop - start for _, _, start, stop in found)
