"""A map's settings and its cube's records in, what each tile of the map is made from out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from cube.ledger import fingerprint
from cube.place import Place
from cube.spec import CubeSpec, Region
from cube.stac.touching import tile_boxes
from pipelines.map_clip import clip_bytes

Clipped = Literal["inside", "outside", "across"]


@dataclass(frozen=True, kw_only=True)
class MapTileInputs:
    """What one tile of a map is made from, part by part, as its record keeps it."""

    code: int
    """Version of the step's code (`ALGORITHM`)."""
    settings: str
    """Fingerprint of what else decides pixels: engine, layers, map values, fewest clear periods."""
    classifier: str
    """Fingerprint of the classifier."""
    grid: str
    """Fingerprint of the tile's place: CRS, transform and shape."""
    clip: str
    """`inside` or `outside` the map's clip; else a fingerprint of its border within the tile."""
    pixels: str
    """Digest of the cube's reflectance there; empty outside the clip, where it is not read."""

    @cached_property
    def fingerprint(self) -> str:
        """What the tile's record is known by: two equal ones ask for the same pixels."""
        return fingerprint(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return the parts as plain JSON."""
        return {
            "code": self.code,
            "settings": self.settings,
            "classifier": self.classifier,
            "grid": self.grid,
            "clip": self.clip,
            "pixels": self.pixels,
        }


@dataclass(frozen=True, kw_only=True)
class MapInputs:
    """What a map is made from, to be asked for each tile's share of it; small to pickle."""

    code: int
    """Version of the step's code."""
    spec: CubeSpec
    """What the cube is."""
    classifier: str
    """Fingerprint of the classifier."""
    settings: str
    """Fingerprint of what else decides pixels, but for the clip."""
    clip: Place | None = None
    """File (`pipelines.map_clip`) of the polygon outside of which nothing is classified."""

    def of(self, region: Region, pixels: str) -> MapTileInputs:
        """Return what a tile is made from where the cube's reflectance has the digest `pixels`."""
        return self._of(region, pixels, None if self.clip is None else polygon_of(self.clip))

    def _of(self, region: Region, pixels: str, polygon: BaseGeometry | None) -> MapTileInputs:
        clip = "inside" if polygon is None else _clip_of(*self._box(region), polygon)
        return MapTileInputs(
            code=self.code,
            settings=self.settings,
            classifier=self.classifier,
            grid=self._grid(region),
            clip=clip,
            pixels="" if clip == "outside" else pixels,
        )

    def fingerprints(
        self, regions: Iterable[Region], cube_records: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, str]:
        """Return what each tile's record is known by, by tile id; from the records of the cube."""
        polygon = None if self.clip is None else polygon_of(self.clip)
        digests = {tile: record.get("reflectance_digest") for tile, record in cube_records.items()}
        return {
            region.id: self._of(region, str(digests.get(region.id, "")), polygon).fingerprint
            for region in regions
        }

    def _box(self, region: Region) -> tuple[float, float, float, float]:
        left, bottom, right, top = tile_boxes([region], self.spec.geobox)[0].tolist()
        return left, bottom, right, top

    def _grid(self, region: Region) -> str:
        box = [round(edge, 6) for edge in self._box(region)]
        return fingerprint([self._crs, box, [region.height, region.width]])

    @cached_property
    def _crs(self) -> str:
        return fingerprint(self.spec.crs.to_wkt())


def changed_map_parts(before: Mapping[str, Any], now: MapTileInputs) -> list[str]:
    """Return what differs between the inputs that a map's record keeps and those of now, in words."""
    if not before:
        return ["its record does not say what it was made from (an earlier version's)"]
    wanted = now.to_json()
    return [words for part, words in _PARTS.items() if before.get(part) != wanted[part]]


_PARTS = {
    "code": "another version of the code that makes it",
    "settings": "another engine, legend, layer or map.min_months",
    "classifier": "another classifier",
    "grid": "another place or size",
    "clip": "another clip",
    "pixels": "other pixels in the cube",
}


def polygon_of(clip: Place) -> BaseGeometry:
    """Return a map's clip, ready to be asked; parsed anew.

    What preparing adds to a polygon is not for several threads.
    """
    polygon = shapely.from_wkb(clip_bytes(clip))
    shapely.prepare(polygon)
    return polygon


def clipped(polygon: BaseGeometry, left: float, bottom: float, right: float, top: float) -> Clipped:
    """Say whether a box lies inside a prepared polygon, outside of it, or across its border."""
    box = shapely.box(left, bottom, right, top)
    if polygon.contains_properly(box):
        return "inside"
    return "outside" if polygon.disjoint(box) else "across"


def _clip_of(left: float, bottom: float, right: float, top: float, polygon: BaseGeometry) -> str:
    place = clipped(polygon, left, bottom, right, top)
    if place != "across":
        return place
    part = shapely.normalize(shapely.clip_by_rect(polygon, left, bottom, right, top))
    # to the millimetre: where a line meets the box's edge, versions of GEOS differ in the last digit
    corners = np.round(shapely.get_coordinates(part) - (left, bottom), 3) + 0.0
    return fingerprint(corners.tolist())
