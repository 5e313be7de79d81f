"""`EarthEngineSource`: a scene list and a window in, composites made on Earth Engine's servers out."""

import threading
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
from cube.earthengine.giveup import tried_until
from cube.earthengine.requests import PIXEL_BYTES, parts_of
from cube.errors import InputError, WorkFailedError, sendable_errors
from cube.periods import Period
from cube.source import Composite
from cube.stac.kept import kept_scenes
from cube.stac.overpass import overpasses
from cube.stac.scene import Scene

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
        return self._made(self.passes(period, window), period, window, bands)

    @sendable_errors
    def _made(
        self,
        passes: list[tuple[Scene, ...]],
        period: Period,
        window: GeoBox,
        bands: tuple[str, ...],
    ) -> Composite:
        from cube.earthengine.expression import period_image
        from cube.earthengine.session import session

        if not passes:
            return composite_without_looks((window.shape[0], window.shape[1]), bands)
        asked = session(self.access)
        image = period_image(
            passes, definition=self.definition, period=period, window=window, bands=bands
        )
        try:
            kind = (self.definition, len(passes), window.transform.a)
            pixels = asked.pixels(image, window, answer_bands(bands), kind=kind)
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
        taken. Raises what `composite` raises, of several periods that fail for the first that did;
        what is under way then, or when the series is closed, ends at its next try.
        """
        ahead = min(self.access.requests_at_once, LOOK_AHEAD)
        under_way: deque[Future[Composite]] = deque()
        given_up = threading.Event()
        failures: list[BaseException] = []

        def made(period: Period) -> Composite:
            try:
                with tried_until(given_up):
                    return self._made(passes[period], period, window, bands)
            except BaseException as error:
                failures.append(error)  # before the others fail, because they are given up
                given_up.set()
                raise

        def taken() -> Composite:
            job = under_way.popleft()
            if (error := job.exception()) is not None:
                raise failures[0] if failures else error
            return job.result()

        passes = self.passes_by_period(periods, window)
        with ThreadPoolExecutor(ahead, thread_name_prefix="canopycube-series") as pool:
            try:
                for period in periods:
                    under_way.append(pool.submit(made, period))
                    if len(under_way) > ahead:
                        yield taken()
                while under_way:
                    yield taken()
            finally:
                given_up.set()
                for job in under_way:
                    job.cancel()

    def requests(
        self, periods: tuple[Period, ...], window: GeoBox, bands: tuple[str, ...]
    ) -> Requests:
        """Return what `series` asks for; of the lock file alone, without asking."""
        kept = kept_scenes(self.scenes, fingerprint=self.fingerprint)
        _, numbers = kept.over(window, periods)
        asked = len(np.unique(numbers))
        names = answer_bands(bands)
        height, width = window.shape
        return Requests(
            number=asked * len(parts_of(window, names)),
            bytes=asked * height * width * len(names) * PIXEL_BYTES,
        )

    def passes(self, period: Period, window: GeoBox) -> list[tuple[Scene, ...]]:
        """Return the scenes of each look of `period` over `window`, in order; preferred first."""
        return self.passes_by_period((period,), window)[period]

    def passes_by_period(
        self, periods: tuple[Period, ...], window: GeoBox
    ) -> dict[Period, list[tuple[Scene, ...]]]:
        """Return what `passes` does of each of the ascending `periods`, looked up at once."""
        epsg = window.crs.epsg if window.crs is not None else None
        kept = kept_scenes(self.scenes, fingerprint=self.fingerprint)
        found = kept.by_period(window, periods)
        return {period: overpasses(scenes, epsg=epsg) for period, scenes in found.items()}


def _refuse_lost(passes: list[tuple[Scene, ...]], told: str, lock: Path) -> None:
    """Raise `InputError` where Earth Engine says that it does not have one of the images."""
    lost = [scene.id for scenes in passes for scene in scenes if scene.id in told]
    if lost and "not found" in told:
        raise InputError(
            f"Earth Engine no longer has image {lost[0]!r} of {str(lock)!r}, or its Cloud Score+; "
            "run `canopycube lock RECIPE --update`"
        )
