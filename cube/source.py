"""The border between pixels that exist somewhere and a cube: looks in, monthly composite out."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int16, UInt16
from odc.geo.geobox import GeoBox

from cube.months import Month


@dataclass(frozen=True, kw_only=True)
class Looks:
    """Every look a month has at one window, on the window's grid.

    A look is one overpass: granules, tiles and zones of the same pass are already merged.
    """

    reflectance: Int16[np.ndarray, "look band y x"]
    """Stored units (1e-4), offset already removed; `NODATA` where the sensor saw nothing."""
    is_clear: Bool[np.ndarray, "look y x"]
    """True where the mask calls the ground usable and every band has data."""
    ids: tuple[str, ...]
    """What each look was made of, for the ledger (scene ids joined by '+')."""


@dataclass(frozen=True, kw_only=True)
class Composite:
    """The one value a month gives, over one window."""

    reflectance: Int16[np.ndarray, "band y x"]
    """Stored units (1e-4); `NODATA` where no look was clear."""
    clear_count: UInt16[np.ndarray, "y x"]
    """Number of clear looks behind each pixel."""
    scenes: tuple[str, ...]
    """Ids of the scenes that were read, for the ledger."""


@runtime_checkable
class SceneCatalogue(Protocol):
    """Scenes on disk or behind an API; pickles small and holds no secret."""

    def looks(self, month: Month, window: GeoBox, bands: tuple[str, ...]) -> Looks:
        """Read every look of `month` at `window` (zero looks is a fine answer)."""
        ...


@runtime_checkable
class MonthSource(Protocol):
    """The composite of one month over one window of the cube's grid."""

    def composite(self, month: Month, window: GeoBox, bands: tuple[str, ...]) -> Composite:
        """Return the composite of `month` for `bands`, exactly on the grid of `window`."""
        ...
