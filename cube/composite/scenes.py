"""A catalogue of scenes in, the composite of a period out, in strips that fit the memory."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool
from odc.geo.geobox import GeoBox

from cube.composite.days import mean_day_of_year
from cube.composite.methods import Method, check_method, composite_of, method_margin
from cube.errors import InputError, SceneLostError
from cube.outlier import OutlierScreen, clear_after_screen
from cube.periods import Period
from cube.source import Composite, CountingCatalogue, Looks, LostScene, SceneCatalogue
from cube.spec import METRES

STRIP_ROWS = 64
"""Strips are cut at multiples of these rows where the buffer allows, so that few blocks of a file
are read for two of them."""


@dataclass(frozen=True, kw_only=True)
class SceneComposites:
    """A `PeriodSource` over any catalogue of scenes: read a period's looks, make one value of them.

    Raises `InputError` for an unknown method and for a buffer that is not positive.
    """

    catalogue: SceneCatalogue
    """Where the looks come from; one that counts them (`CountingCatalogue`) is read in strips."""
    method: Method = "median"
    """How clear looks become one value."""
    screen: OutlierScreen | None = None
    """Which of a period's clear looks to reject before; None keeps all."""
    buffer_bytes: int = 128 * 2**20
    """Most bytes that the reflectance of all looks of a period may take at once."""

    def __post_init__(self) -> None:
        check_method(self.method)
        if self.buffer_bytes <= 0:
            raise InputError(f"composite buffer is {self.buffer_bytes!r} bytes; expected above 0")

    def composite(self, period: Period, window: GeoBox, bands: tuple[str, ...]) -> Composite:
        """Return the composite of `period` over `window`; one without a look is all `NODATA`.

        Strips give the same pixels as the whole; `scenes` are those of all strips, by date. A scene
        of which a file is broken is left out of the whole window, and told in `lost`. Raises
        `InputError` for bands that the method or the screen lacks, for the method "best" on a grid
        that is not in metres, and where one row of all looks is more than the buffer.
        """
        check_method(self.method, bands=bands)
        lost: list[LostScene] = []
        while True:
            try:
                without = frozenset(one.scene for one in lost)
                return replace(self._made(period, window, bands, without), lost=tuple(lost))
            except SceneLostError as error:
                if not error.scene or error.scene in without:
                    raise
                lost.append(LostScene(scene=error.scene, reason=str(error)))

    def _made(
        self, period: Period, window: GeoBox, bands: tuple[str, ...], without: frozenset[str]
    ) -> Composite:
        """Make the composite of every scene but those `without`, in strips."""
        margin = self._margin(window)
        rows = self._strip_rows(period, _padded(window, margin), len(bands), margin)
        parts: list[Composite] = []
        day_of: dict[str, int] = {}
        height = window.shape[0]
        for start in range(0, height, rows):
            strip = window[start : min(start + rows, height), :]  # a GeoBox goes on beyond its end
            looks = self._looks(period, _padded(strip, margin), bands, without)
            parts.append(self._reduced(looks, period, strip, bands, margin))
            day_of |= dict(zip(looks.ids, looks.days.tolist(), strict=True))
            del looks  # two strips of looks would be twice the buffer
        return Composite(
            reflectance=np.concatenate([part.reflectance for part in parts], axis=1),
            clear_count=np.concatenate([part.clear_count for part in parts]),
            seen_count=np.concatenate([part.seen_count for part in parts]),
            mean_day=np.concatenate([part.mean_day for part in parts]),
            scenes=parts[0].scenes
            if len(parts) == 1
            else tuple(sorted(day_of, key=lambda id_: day_of[id_])),
        )

    def _looks(
        self, period: Period, window: GeoBox, bands: tuple[str, ...], without: frozenset[str]
    ) -> Looks:
        if isinstance(self.catalogue, CountingCatalogue):
            return self.catalogue.looks(period, window, bands, without=without)
        return self.catalogue.looks(period, window, bands)

    def _reduced(
        self, looks: Looks, period: Period, window: GeoBox, bands: tuple[str, ...], margin: int
    ) -> Composite:
        is_clear: Bool[np.ndarray, "look y x"] = looks.is_clear
        if self.screen is not None:
            is_clear = clear_after_screen(looks.reflectance, is_clear, self.screen, bands=bands)
        reflectance, clear_count = composite_of(
            self.method,
            replace(looks, is_clear=is_clear),
            bands=bands,
            period=period,
            pixel_size=_pixel_size(window),
        )
        rows, columns = (slice(margin, margin + size) for size in window.shape)
        return Composite(
            reflectance=reflectance[:, rows, columns],
            clear_count=clear_count[rows, columns],
            seen_count=looks.seen_count[rows, columns],
            mean_day=mean_day_of_year(looks.days, is_clear[:, rows, columns]),
            scenes=looks.ids,
        )

    def _margin(self, window: GeoBox) -> int:
        margin = method_margin(self.method, pixel_size=_pixel_size(window))
        if margin and (window.crs is None or window.crs.units[0] not in METRES):
            raise InputError(
                f"composite {self.method!r} measures metres, but the grid is in {window.crs}; "
                "take a projected CRS or another method"
            )
        return margin

    def _strip_rows(self, period: Period, wide: GeoBox, bands: int, margin: int) -> int:
        """Return how many rows of the window to read at once; `wide` has the margin."""
        height, width = wide.shape
        rows = height - 2 * margin
        if not isinstance(self.catalogue, CountingCatalogue):
            return rows
        row_bytes = self.catalogue.count(period, wide) * bands * width * np.dtype(np.int16).itemsize
        if row_bytes * height <= self.buffer_bytes:
            return rows
        fitting = self.buffer_bytes // row_bytes - 2 * margin
        if fitting < 1:
            raise InputError(
                f"composite of {period} needs {row_bytes * (2 * margin + 1)} bytes for one row of "
                f"pixels, the buffer has {self.buffer_bytes}; raise it, or take fewer bands or "
                "smaller tiles"
            )
        return fitting - fitting % STRIP_ROWS if fitting >= STRIP_ROWS else fitting


def _padded(window: GeoBox, margin: int) -> GeoBox:
    return window.pad(margin) if margin else window


def _pixel_size(window: GeoBox) -> tuple[float, float]:
    """Return the pixel size (y, x) in the units of the window's CRS."""
    return abs(window.resolution.y), abs(window.resolution.x)
