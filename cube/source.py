"""The border between pixels that exist somewhere and a cube: looks in, the composite of a period out."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int16, Int32, UInt16
from odc.geo.geobox import GeoBox

from cube.periods import Period


@dataclass(frozen=True, kw_only=True)
class Looks:
    """Every look a period has at one window, on the window's grid.

    A look is one overpass: granules, tiles and zones of the same pass are already merged.
    """

    reflectance: Int16[np.ndarray, "look band y x"]
    """Stored units (1e-4), offset already removed; `NODATA` where the sensor saw nothing."""
    is_clear: Bool[np.ndarray, "look y x"]
    """True where the mask calls the ground usable and every band has data."""
    days: Int32[np.ndarray, " look"]
    """Date of each look as days since 1970-01-01, UTC."""
    seen_count: UInt16[np.ndarray, "y x"]
    """Number of looks, clear or not, whose scene classes had data at the pixel, whether every band
    had or not (looks without scene classes: every band). Those of which nothing in the window was
    clear count too, although `reflectance` lacks them, so that it is the same for any tiling."""
    ids: tuple[str, ...]
    """What each look was made of, for the ledger (scene ids joined by '+')."""


@dataclass(frozen=True, kw_only=True)
class LostScene:
    """A scene that was left out because a file of it is broken."""

    scene: str
    """Its id."""
    reason: str
    """Which file, and what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Composite:
    """The one value a period gives, over one window."""

    reflectance: Int16[np.ndarray, "band y x"]
    """Stored units (1e-4); `NODATA` where no look was clear."""
    clear_count: UInt16[np.ndarray, "y x"]
    """Number of clear looks behind each pixel."""
    seen_count: UInt16[np.ndarray, "y x"]
    """Number of looks, clear or not, that had data at the pixel, as `Looks.seen_count`."""
    mean_day: UInt16[np.ndarray, "y x"]
    """Day of the year, 1..366, of the mean date of the clear looks (UTC); 0 where there is none."""
    scenes: tuple[str, ...]
    """Ids of the scenes that were read, for the ledger."""
    lost: tuple[LostScene, ...] = ()
    """Scenes that should have taken part but could not be read."""


@runtime_checkable
class SceneCatalogue(Protocol):
    """Scenes on disk or behind an API; pickles small and holds no secret."""

    def looks(self, period: Period, window: GeoBox, bands: tuple[str, ...]) -> Looks:
        """Read every look of `period` at `window` (zero looks is a fine answer)."""
        ...


@runtime_checkable
class CountingCatalogue(SceneCatalogue, Protocol):
    """A catalogue that says beforehand how much it would read, and can do without a scene."""

    def count(self, period: Period, window: GeoBox) -> int:
        """Return at least as many looks as `looks` would give, without reading a pixel."""
        ...

    def looks(
        self,
        period: Period,
        window: GeoBox,
        bands: tuple[str, ...],
        *,
        without: frozenset[str] = frozenset(),
    ) -> Looks:
        """Read every look as if the scenes with the ids `without` were not there.

        Raises `SceneLostError` for a scene of which a file is broken.
        """
        ...


@runtime_checkable
class PeriodSource(Protocol):
    """The composite of one period over one window of the cube's grid."""

    def composite(self, period: Period, window: GeoBox, bands: tuple[str, ...]) -> Composite:
        """Return the composite of `period` for `bands`, exactly on the grid of `window`."""
        ...


@runtime_checkable
class SeriesSource(PeriodSource, Protocol):
    """A source that is better asked for many periods at once, such as a server that computes."""

    def series(
        self, periods: tuple[Period, ...], window: GeoBox, bands: tuple[str, ...]
    ) -> Generator[Composite]:
        """Yield the composite of each of `periods`, in their order; closing it ends its work."""
        ...
