"""What every kind of file with layers over time offers: names, dates, and counts under a window."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped
from odc.geo.geobox import GeoBox

from cube.warp import Placement


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Counts of one layer at some dates, on the file's own grid, and how the file encodes them."""

    counts: Shaped[np.ndarray, "time row column"]
    """Values as stored, of the part of the file that the window needs."""
    placement: Placement | None
    """How the window lies on the file; None where it lies outside."""
    fill: float
    """Count that means no data; NaN where only NaN does."""
    scale: float | None
    """Physical value of one count, where the file states it."""
    offset: float | None
    """Physical value of count 0, where the file states it."""


@runtime_checkable
class StackFile(Protocol):
    """Layers over time, wherever they are kept."""

    def names(self) -> frozenset[str]:
        """Names of the layers that can be read."""
        ...

    def times(self, name: str) -> tuple[np.datetime64, ...]:
        """Time steps of a layer, ascending; one that the file repeats is repeated."""
        ...

    def geobox(self, name: str) -> GeoBox:
        """Grid on which a layer is stored, north up."""
        ...

    def read(self, name: str, steps: range, window: GeoBox) -> Iterator[Layers]:
        """Yield the layer at consecutive `steps` of `times(name)`, in their order."""
        ...
