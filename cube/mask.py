"""Scene classification in, usable ground out: which pixels of one look may enter a composite."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Integer
from scipy.ndimage import distance_transform_edt

from cube.errors import InputError

SCL_CLASSES: dict[int, str] = {
    0: "nodata",
    1: "saturated or defective",
    2: "dark or topographic shadow",
    3: "cloud shadow",
    4: "vegetation",
    5: "bare soil",
    6: "water",
    7: "unclassified",
    8: "cloud, medium probability",
    9: "cloud, high probability",
    10: "thin cirrus",
    11: "snow or ice",
}
"""Scene classes of a Sentinel-2 L2A product (ESA product specification, table of SCL codes)."""

_GROWS = (3, 8, 9, 10)
"""Classes with blurred edges, which the buffer widens: cloud shadow and the three of cloud."""


@dataclass(frozen=True, kw_only=True)
class ClearMask:
    """Which scene classes are usable ground, and how far to stay away from clouds.

    Raises `InputError` for a class outside 1..11 (0 is nodata and can never be clear), for no
    class at all, and for a buffer that is negative or not finite.
    """

    classes: tuple[int, ...] = (4, 5, 6, 7)
    """SCL classes taken as clear; every other value is not, those the product does not define too."""
    buffer: float = 0.0
    """Metres round cloud and cloud shadow (SCL 3, 8, 9, 10) that are not clear either."""

    def __post_init__(self) -> None:
        unknown = [number for number in self.classes if number not in range(1, 12)]
        if unknown:
            raise InputError(f"mask classes {unknown} do not exist; SCL has 1..11 (0 is nodata)")
        if not self.classes:
            raise InputError("mask classes are empty, so nothing would be clear; try [4, 5, 6, 7]")
        if not (np.isfinite(self.buffer) and self.buffer >= 0):
            raise InputError(f"mask buffer is {self.buffer!r}; expected metres, 0 or more")

    def is_clear(
        self,
        scl: Integer[np.ndarray, "*look y x"],
        *,
        pixel_size: float | tuple[float, float],
    ) -> Bool[np.ndarray, "*look y x"]:
        """Return True where the class is clear and no cloud lies within the buffer.

        `scl` may have any integer dtype and any dimensions before (y, x); 0 is nodata.
        `pixel_size` is in metres, one number or (y, x). The distance is from pixel centre to
        pixel centre, so a buffer smaller than a pixel changes nothing. Ground outside the array
        is unknown: give `scl` with a margin of `margin()` pixels and cut it off afterwards.
        """
        is_clear = np.isin(scl, self.classes)
        if self.buffer == 0 or scl.size == 0:
            return is_clear
        step = pixel_size if isinstance(pixel_size, tuple) else (pixel_size, pixel_size)
        is_cloud = np.isin(scl, [number for number in _GROWS if number not in self.classes])
        for index in _planes(scl.shape[:-2]):
            if is_cloud[index].any():
                metres = distance_transform_edt(~is_cloud[index], sampling=step)
                is_clear[index] &= metres > self.buffer
        return is_clear

    def margin(self, *, pixel_size: float | tuple[float, float]) -> int:
        """Return how many pixels beyond a window can make its own pixels not clear."""
        step = min(pixel_size) if isinstance(pixel_size, tuple) else pixel_size
        return int(np.ceil(self.buffer / step))


def _planes(leading: tuple[int, ...]) -> Iterable[tuple[int, ...]]:
    return np.ndindex(*leading)
