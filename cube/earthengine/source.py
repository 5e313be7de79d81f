"""`EarthEngineSource`: a scene list and a window in, composites made on Earth Engine's servers out."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from odc.geo.geobox import GeoBox

from cube.earthengine.access import Access
from cube.earthengine.composite import (
    Definition,
    answer_bands,
    composite_from_pixels,
    composite_without_looks,
)
from cube.earthengine.requests import PIXEL_BYTES, request_windows
from cube.errors import InputError, WorkFailedError, sendable_errors
from cube.periods import Period, looks_by_period
from cube.source import Composite
from cube.stac.overpass import overpasses
from cube.stac.scene import Scene
from cube.stac.source import StacSource

LOOK_AHEAD = 8
"""Periods asked for, or waiting to be taken, beyond the one that is being taken: what a tile's
series holds in memory beside what its caller keeps."""


@dataclass(frozen=True, kw_only=True)
class Requests:
    """What a window's composites take of Earth Engine."""

    number: int
    """Requests, if none has to be cut further or asked again."""
    bytes: int
    """Bytes of pixels in their answers."""


@dataclass(frozen=True, kw_only=True)
class EarthEngineSource:
    """Composites on the cube's grid; a `SeriesSource`.

    Small to pickle: it carries the path of the lock file, which every worker reads once, and no
    secret; every process finds its own credentials.
    """

    scenes: Path
    """The lock file of `find_images`, as `write_scenes` wrote it."""
    fingerprint: str | None = None
    """`SceneList.fingerprint` of the list that was planned with; None takes whatever lies there."""
    access: Access
    """Which project asks, where, and how patiently."""
    definition: Definition = field(default_factory=Definition)
    """What is asked for."""

    @sendable_errors
    def composite(self, period: Period, window: GeoBox, bands: tuple[str, ...]) -> Composite:
        """Return the composite of `period`; without a scene over the window nothing is asked.

        A look is one overpass, which belongs to the period in which its datatake began (UTC).
        `Composite.scenes` are those of the list over the window, whether clear or not: Earth Engine
        does not tell which gave a pixel. Raises `InputError` for a grid that Earth Engine cannot be
        asked for, a scene that it no longer has, or another lock file than that of `fingerprint`;
        `WorkFailedError` for what it cannot compute or does not answer.
        """
        from cube.earthengine.expression import period_image
        from cube.earthengine.session import session

        passes = self.passes(period, window)
        if not passes:
            return composite_without_looks((window.shape[0], window.shape[1]), bands)
        asked = session(self.access)
        image = period_image(
            passes, definition=self.definition, period=period, window=window, bands=bands
        )
        try:
            pixels = asked.pixels(image, window, answer_bands(bands))
        except (InputError, WorkFailedError) as error:
            _refuse_lost(passes, str(error), self.scenes)
            raise
        looks = tuple("+".join(scene.id for scene in scenes) for scenes in passes)
        return composite_from_pixels(pixels, period, scenes=looks)

    def series(
        self, periods: tuple[Period, ...], window: GeoBox, bands: tuple[str, ...]
    ) -> Generator[Composite]:
        """Yield the composite of each period in their order, asking for several at once.

        As many as `access.requests_at_once`, but no more than `LOOK_AHEAD` beyond the one that is
        taken. Raises what `composite` raises; what was asked for beyond it is then given up.
        """
        ahead = min(self.access.requests_at_once, LOOK_AHEAD)
        under_way: deque[Future[Composite]] = deque()
        with ThreadPoolExecutor(ahead, thread_name_prefix="canopycube-series") as pool:
            try:
                for period in periods:
                    under_way.append(pool.submit(self.composite, period, window, bands))
                    if len(under_way) > ahead:
                        yield under_way.popleft().result()
                while under_way:
                    yield under_way.popleft().result()
            finally:
                for job in under_way:
                    job.cancel()

    def requests(
        self, periods: tuple[Period, ...], window: GeoBox, bands: tuple[str, ...]
    ) -> Requests:
        """Return what `series` asks for; of the lock file alone, without asking."""
        first, last = periods[0].start.astype("M8[D]"), periods[-1].end.astype("M8[D]")
        whole = Period.of_days(first, last + np.timedelta64(1, "D"))
        starts = (scene.overpass_start for scene in self._scenes_at(whole, window))
        asked = len(looks_by_period(periods, starts))
        names = answer_bands(bands)
        parts = [part.shape for part in request_windows(window, names)]
        pixels = sum(height * width for height, width in parts)
        return Requests(number=asked * len(parts), bytes=asked * pixels * len(names) * PIXEL_BYTES)

    def passes(self, period: Period, window: GeoBox) -> list[tuple[Scene, ...]]:
        """Return the scenes of each look of `period` over `window`, in order; preferred first."""
        epsg = window.crs.epsg if window.crs is not None else None
        return overpasses(self._scenes_at(period, window), epsg=epsg)

    def _scenes_at(self, period: Period, window: GeoBox) -> list[Scene]:
        locked = StacSource(scenes=self.scenes, fingerprint=self.fingerprint)
        return locked.scenes_at(period, window)


def _refuse_lost(passes: list[tuple[Scene, ...]], told: str, lock: Path) -> None:
    """Raise `InputError` where Earth Engine says that it does not have one of the images."""
    lost = [scene.id for scenes in passes for scene in scenes if scene.id in told]
    if lost and "not found" in told:
        raise InputError(
            f"Earth Engine no longer has image {lost[0]!r} of {str(lock)!r}, or its Cloud Score+; "
            "run `canopycube lock RECIPE --update`"
        )
