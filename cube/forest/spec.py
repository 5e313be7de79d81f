"""Seed, scale and year in; `ForestSpec` out: what a synthetic forest is, before any pixel exists."""

import zlib
from dataclasses import dataclass

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from cube.errors import InputError

CENTRE = (742_800, 3_732_000)
"""Easting and northing of the forest's middle in EPSG:32648: lon 107.62, lat 33.70, in the
Qinling mountains."""

NATIVE_EPSG = 32648
NEIGHBOUR_EPSG = 32649

_EDGE = 480
_SMALLEST, _LARGEST = 0.25, 40.0


@dataclass(frozen=True, kw_only=True)
class ForestClass:
    """One class of the forest: what it is called, how it is drawn, how many points it has."""

    number: int
    """Value in `truth/classes.tif`, from 1; 0 is no class."""
    name: str
    """Name in the label files."""
    title: str
    """Name for people."""
    colour: str
    """Colour on a map, `#rrggbb`."""
    points: int
    """Reference points at scale 1, as many as the reference workflow had."""
    area_share: float
    """Share of the forest's area that its stands are meant to cover."""


FOREST_CLASSES: tuple[ForestClass, ...] = (
    ForestClass(
        number=1,
        name="larch_JP",
        title="Japanese larch (Larix kaempferi), planted",
        colour="#e8a33d",
        points=1340,
        area_share=0.26,
    ),
    ForestClass(
        number=2,
        name="deci_broad",
        title="Deciduous broadleaf forest (oak, birch)",
        colour="#8bc34a",
        points=1212,
        area_share=0.24,
    ),
    ForestClass(
        number=3,
        name="ever_coni",
        title="Evergreen conifers (pine)",
        colour="#1b5e3a",
        points=819,
        area_share=0.17,
    ),
    ForestClass(
        number=4,
        name="mix_coni_broad",
        title="Mixed conifer and broadleaf forest",
        colour="#5b8f6b",
        points=789,
        area_share=0.16,
    ),
    ForestClass(
        number=5,
        name="larch_CN",
        title="Chinese larch (Larix chinensis), natural",
        colour="#c2571a",
        points=229,
        area_share=0.07,
    ),
    ForestClass(
        number=6,
        name="shrubland",
        title="Shrubland",
        colour="#d9cf8f",
        points=199,
        area_share=0.06,
    ),
    ForestClass(
        number=7,
        name="ever_broad",
        title="Evergreen broadleaf forest (evergreen oak)",
        colour="#00897b",
        points=39,
        area_share=0.04,
    ),
)
"""The seven classes of the reference workflow with its point counts; the number is the index + 1."""


@dataclass(frozen=True, kw_only=True)
class ForestSpec:
    """Everything a synthetic forest follows from: equal specs give equal bytes.

    Bytes are equal on one machine with one set of library versions; elsewhere a count may differ
    by one where a rounding lies on the edge.
    """

    seed: int = 7
    """Start of every random number, 0 or more."""
    scale: int | float = 1.0
    """Factor on the image's edge: 1 is 480 pixels of 10 m, 8 is 3,840. Stands keep their size,
    so their number grows with the area. Below 1 the reference points shrink with the area;
    above 1 they stay, the same labels over a larger country."""
    year: int = 2022
    """Year of the scenes, 2016..2099."""
    lying_share: int | float = 0.1
    """Share of the scenes from baseline 04.00 on whose item says that the offset is still in the
    pixels although it was taken out, 0..1."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"forest seed {self.seed!r} is negative; give 0 or more")
        if not _SMALLEST <= self.scale <= _LARGEST:
            raise InputError(
                f"forest scale {self.scale!r} is outside {_SMALLEST}..{_LARGEST}; 1 is 480 pixels"
            )
        if not 2016 <= self.year <= 2099:
            raise InputError(f"forest year {self.year!r} has no Sentinel-2; give 2016..2099")
        if not 0 <= self.lying_share <= 1:
            raise InputError(f"forest lying_share {self.lying_share!r} is no share; give 0..1")

    @property
    def edge(self) -> int:
        """Pixels of 10 m along one side; a multiple of 12, so that 20 and 60 m pixels fit."""
        return round(_EDGE * self.scale / 12) * 12

    @property
    def geobox(self) -> GeoBox:
        """The native grid at 10 m, (y, x) = (edge, edge), EPSG:32648."""
        left, top = self.corner
        return GeoBox((self.edge, self.edge), Affine(10, 0, left, 0, -10, top), NATIVE_EPSG)

    @property
    def corner(self) -> tuple[int, int]:
        """Easting and northing of the upper left corner, on the 60 m lattice of UTM."""
        half = self.edge * 5
        return ((CENTRE[0] - half) // 60 * 60, (CENTRE[1] + half) // 60 * 60)

    def generator(self, purpose: str, *numbers: int) -> np.random.Generator:
        """Return the random stream of one purpose (and scene, band ...), independent of others."""
        key = (zlib.crc32(purpose.encode()), *numbers)
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def points_of(self, forest_class: ForestClass) -> int:
        """Return how many reference points a class gets at this scale, at least 6."""
        return max(6, round(forest_class.points * min(1.0, self.scale**2)))
