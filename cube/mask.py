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

CLOUD_SHADOW = 3
"""Class of ground in the shadow of a cloud."""

CLOUD_CLASSES = (8, 9, 10)
"""Classes of cloud."""

_SHADOW_CLASSES = (2, CLOUD_SHADOW)
_SNOW = 11
_NEVER_CLEAR = (0, 1)


@dataclass(frozen=True, kw_only=True)
class ClearMask:
    """Which scene classes are usable ground, and how far to stay away from clouds.

    Raises `InputError` for a class outside 2..11 (0 is nodata and 1 saturated or defective: such
    pixels have no measurement), for no class at all, and for lengths that are negative or not
    finite.
    """

    classes: tuple[int, ...] = (4, 5, 6, 7)
    """SCL classes taken as clear; every other value is not, those the product does not define too."""
    buffer: float = 0.0
    """Metres round cloud and cloud shadow (SCL 3, 8, 9, 10) that are not clear either."""
    shadow: bool = False
    """Whether dark ground and cloud shadow (SCL 2 and 3) are clear too."""
    snow: bool = False
    """Whether snow and ice (SCL 11) are clear too."""
    opening: float = 0.0
    """Metres: cloud (SCL 8, 9, 10 together) into which no disc of this radius fits is no cloud but
    clear ground, such as bright roofs; done before the buffer."""

    def __post_init__(self) -> None:
        unmeasured = [number for number in self.classes if number in _NEVER_CLEAR]
        if unmeasured:
            raise InputError(
                f"mask classes {unmeasured} can never be clear: SCL 0 is nodata and 1 saturated or "
                "defective; leave them out"
            )
        unknown = [number for number in self.classes if number not in SCL_CLASSES]
        if unknown:
            raise InputError(f"mask classes {unknown} do not exist; SCL has 2..11 for the ground")
        if not self.classes:
            raise InputError("mask classes are empty, so nothing would be clear; try [4, 5, 6, 7]")
        for name in ("buffer", "opening"):
            metres = getattr(self, name)
            if not (np.isfinite(metres) and metres >= 0):
                raise InputError(f"mask {name} is {metres!r}; expected metres, 0 or more")

    @property
    def clear_classes(self) -> tuple[int, ...]:
        """SCL classes that are clear: `classes`, with those of `shadow` and `snow`."""
        more = _SHADOW_CLASSES * self.shadow + (_SNOW,) * self.snow
        return tuple(dict.fromkeys(self.classes + more))

    @property
    def possible_classes(self) -> tuple[int, ...]:
        """SCL classes that a clear pixel can have: with an opening a speck of cloud is clear."""
        return tuple(dict.fromkeys(self.clear_classes + CLOUD_CLASSES * (self.opening > 0)))

    @property
    def is_spatial(self) -> bool:
        """Whether a pixel's neighbours matter, so that pixels need a size in metres."""
        return self.buffer > 0 or self.opening > 0

    def is_clear(
        self,
        scl: Integer[np.ndarray, "*look y x"],
        *,
        pixel_size: float | tuple[float, float],
    ) -> Bool[np.ndarray, "*look y x"]:
        """Return True where the class is clear and no cloud lies within the buffer.

        `scl` may have any integer dtype and any dimensions before (y, x); 0 is nodata.
        `pixel_size` is in metres, one number or (y, x). Distances are from pixel centre to pixel
        centre, so a buffer or an opening smaller than a pixel changes nothing. Ground outside the
        array and nodata are unknown: cloud may go on there, but does not begin there. Give `scl`
        with a margin of `margin()` pixels and cut it off afterwards.
        """
        is_clear = np.isin(scl, self.clear_classes)
        if not self.is_spatial or scl.size == 0:
            return is_clear
        step = pixel_size if isinstance(pixel_size, tuple) else (pixel_size, pixel_size)
        clouds = [number for number in CLOUD_CLASSES if number not in self.clear_classes]
        for index in _planes(scl.shape[:-2]):
            is_cloud = np.isin(scl[index], clouds)
            if self.opening:
                opened = self._opened(is_cloud, scl[index] == 0, step)
                is_clear[index] |= is_cloud & ~opened
                is_cloud = opened
            if CLOUD_SHADOW not in self.clear_classes:
                is_cloud |= scl[index] == CLOUD_SHADOW
            if self.buffer:
                is_clear[index] &= _distance_to(is_cloud, step) > self.buffer
        return is_clear

    def margin(self, *, pixel_size: float | tuple[float, float]) -> int:
        """Return how many pixels beyond a window can change whether its own pixels are clear."""
        step = min(pixel_size) if isinstance(pixel_size, tuple) else pixel_size
        return int(np.ceil(self.buffer / step) + 2 * np.ceil(self.opening / step))

    def _opened(
        self,
        is_cloud: Bool[np.ndarray, "y x"],
        is_unknown: Bool[np.ndarray, "y x"],
        step: tuple[float, float],
    ) -> Bool[np.ndarray, "y x"]:
        """Return the cloud that a disc of radius `opening` covers without leaving the cloud."""
        is_core = _distance_to(~(is_cloud | is_unknown), step) > self.opening
        return np.asarray(is_cloud & (_distance_to(is_core, step) <= self.opening))


def _distance_to(
    is_target: Bool[np.ndarray, "y x"], step: tuple[float, float]
) -> np.ndarray:  # (y, x) float64
    """Return metres to the nearest target, infinite where there is none."""
    if not is_target.any():  # the transform would measure to a place outside the array
        return np.full(is_target.shape, np.inf)
    return np.asarray(distance_transform_edt(~is_target, sampling=step))


def _planes(leading: tuple[int, ...]) -> Iterable[tuple[int, ...]]:
    return np.ndindex(*leading)
