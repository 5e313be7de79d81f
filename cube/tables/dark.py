"""Rows of tables in; whether 1000 is still in their counts out, as vegetation tells it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int16, Int32

from cube.bands import NODATA
from cube.radiometry import DARK_BANDS, read_offset_from_pixels

OFFSET_SINCE = "2022-01-25"
"""First day on which Earth Engine's S2_SR, unlike S2_SR_HARMONIZED, has 1000 in its counts."""

_VEGETATION = 4
"""What the scene classification calls it."""

_MOST_LOOKED_AT = 100_000


class DarkRows:
    """How dark vegetation is in rows of that day and later, while they pass by."""

    def __init__(self, bands: Sequence[str]) -> None:
        self._dark = [bands.index(band) for band in DARK_BANDS if band in bands]
        self._pair = [bands.index(band) for band in ("B04", "B08") if band in bands]
        self._counts = np.zeros(2**15, np.int64)
        self._since = int(np.datetime64(OFFSET_SINCE, "D").astype(np.int64))

    def add(self, day: Int32[np.ndarray, " row"], values: Int16[np.ndarray, "row band"]) -> None:
        """Take more rows in; those without both red and near infrared are no help."""
        if len(self._pair) < 2:
            return
        red, near = (values[:, at].astype(np.int32) for at in self._pair)
        dark = values[:, self._dark]
        is_told = (day >= self._since) & (dark != NODATA).all(axis=1) & (dark > 0).all(axis=1)
        # bright sand without the offset is as dark as a forest with it; 1000 makes this stricter
        is_told &= near > 2 * red
        self._counts += np.bincount(dark[is_told].min(axis=1), minlength=2**15)

    def has_offset(self) -> bool:
        """Say whether these rows must have 1000 in them, as `cube.radiometry` reads pixels."""
        total = int(self._counts.sum())
        size = min(total, _MOST_LOOKED_AT)
        if not size:
            return False
        place = (np.arange(size) + 0.5) * total / size
        lowest = np.searchsorted(np.cumsum(self._counts), place, side="right").astype(np.int16)
        kinds = np.full(size, _VEGETATION, np.uint8)
        return read_offset_from_pixels(lowest[np.newaxis], kinds) == "present"
