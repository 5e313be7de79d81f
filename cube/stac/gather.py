"""The overpasses of a period in, its looks at one window out: read side by side, merged one by one.

First the scene classes of every granule are read, then the bands of those overpasses of which the
mask can call anything clear. Bands of an overpass's first granule are read straight into the block
that is handed on, so that reading takes no memory beyond it but for what is under way.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Int16, UInt8, UInt16
from odc.geo.geobox import GeoBox

from cube.cloudmodels import CloudModel, with_opinion
from cube.errors import InputError
from cube.mask import ClearMask
from cube.source import Looks
from cube.spec import METRES
from cube.stac.merge import merge_granule
from cube.stac.pixels import PixelReader, nodata_of
from cube.stac.scene import SCL, Scene
from cube.stac.sensors import SENSORS
from cube.store import decode

IN_FLIGHT = 8
"""Files read at once by one process, whatever the number of its tiles: enough to hide 50 ms of a
server's delay behind the decoding of two cores, few enough for any server."""

_EPOCH = date(1970, 1, 1)

T = TypeVar("T")


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="canopycube-read")


@dataclass(kw_only=True)
class _Pass:
    """One overpass under way to a look."""

    granules: tuple[Scene, ...]
    """By preference."""
    classes: list[UInt8[np.ndarray, "y x"]]
    """Scene classes of each granule."""
    may_be_clear: Bool[np.ndarray, "y x"]
    """Where the mask calls the merged classes clear."""
    is_seen: Bool[np.ndarray, "y x"]
    """Where some granule has given a pixel."""
    is_clear: Bool[np.ndarray, "y x"]
    """Where that pixel is clear."""
    chosen: UInt8[np.ndarray, "y x"]
    """Scene class of that pixel, 0 where there is none."""
    used: list[str] = field(default_factory=list)
    """Granules that gave a pixel."""

    @property
    def is_covered(self) -> Bool[np.ndarray, "y x"]:
        """Where the classification of some granule has data: what counts as seen.

        The bands are not asked: of an overpass in which nothing is clear they are not read, and what
        is clear in a window depends on how large it is.
        """
        return np.asarray(np.any([scl > 1 for scl in self.classes], axis=0))

    @property
    def day(self) -> int:
        """Days since 1970-01-01."""
        return (self.granules[0].overpass_start.date() - _EPOCH).days


def gather(
    reader: PixelReader,
    mask: ClearMask,
    overpasses: Sequence[tuple[Scene, ...]],
    window: GeoBox,
    bands: tuple[str, ...],
    *,
    model: CloudModel | None = None,
) -> Looks:
    """Return the looks of the overpasses that saw clear ground; see `StacSource.looks`."""
    if model is not None:
        return _judged(reader, mask, overpasses, window, bands, model)
    passes, reflectance, seen_count = _gathered(reader, mask, overpasses, window, bands)
    return _looks(passes, reflectance, seen_count)


def _judged(
    reader: PixelReader,
    mask: ClearMask,
    overpasses: Sequence[tuple[Scene, ...]],
    window: GeoBox,
    bands: tuple[str, ...],
    model: CloudModel,
) -> Looks:
    """Gather a wider window, let the model look at it, and cut it to the one that was asked for."""
    step = _metres(window)
    margin = model.margin + mask.margin(pixel_size=step)
    wide = window.pad(margin)
    every = tuple(dict.fromkeys((*bands, *model.bands)))
    seeing = ClearMask(classes=mask.possible_classes)
    passes, reflectance, seen_count = _gathered(reader, seeing, overpasses, wide, every)
    places = [every.index(name) for name in model.bands]
    for one, look in zip(passes, reflectance, strict=True):
        classes = with_opinion(
            one.chosen, model, decode(look[places]), mask=mask, pixel_size=step[0]
        )
        one.is_clear = mask.is_clear(classes, pixel_size=step) & one.is_seen
    inner = tuple(slice(margin, size - margin) for size in wide.shape)
    for one in passes:
        one.is_clear = one.is_clear[inner]
    return _looks(passes, reflectance[:, : len(bands), *inner], seen_count[inner])


def _gathered(
    reader: PixelReader,
    mask: ClearMask,
    overpasses: Sequence[tuple[Scene, ...]],
    window: GeoBox,
    bands: tuple[str, ...],
) -> tuple[list["_Pass"], Int16[np.ndarray, "look band y x"], UInt16[np.ndarray, "y x"]]:
    """(overpasses in which something may be clear, their reflectance, looks with scene classes)."""
    passes = _classified(reader, mask, overpasses, window)
    seen_count = np.zeros(window.shape, np.uint16)
    for one in passes:
        seen_count += one.is_covered
    worth = [one for one in passes if one.may_be_clear.any()]
    reflectance = np.empty((len(worth), len(bands), *window.shape), np.int16)
    _read_first(reader, worth, reflectance, window, bands, mask)
    for one, look in zip(worth, reflectance, strict=True):
        _read_others(reader, one, look, window, bands, mask)
    return worth, reflectance, seen_count


def _looks(
    passes: list["_Pass"],
    reflectance: Int16[np.ndarray, "look band y x"],
    seen_count: UInt16[np.ndarray, "y x"],
) -> Looks:
    """Leave out what turned out to be nowhere clear; the rest moves up, for a copy is as much again."""
    kept: list[_Pass] = []
    for number, one in enumerate(passes):
        if one.is_clear.any():
            if len(kept) < number:
                reflectance[len(kept)] = reflectance[number]
            kept.append(one)
    return Looks(
        reflectance=np.ascontiguousarray(reflectance[: len(kept)]),
        is_clear=np.stack([one.is_clear for one in kept])
        if kept
        else np.empty((0, *seen_count.shape), np.bool_),  # (look, y, x)
        days=np.array([one.day for one in kept], np.int32),
        seen_count=np.ascontiguousarray(seen_count),
        ids=tuple("+".join(one.used) for one in kept),
    )


def _classified(
    reader: PixelReader,
    mask: ClearMask,
    overpasses: Sequence[tuple[Scene, ...]],
    window: GeoBox,
) -> list[_Pass]:
    """Read the classes of every granule, with a margin: a cloud beyond the edge keeps its distance."""
    step = _metres(window) if mask.is_spatial else (1.0, 1.0)
    margin = mask.margin(pixel_size=step)
    wide = window.pad(margin) if margin else window

    def classes(scene: Scene) -> UInt8[np.ndarray, "y x"]:
        return SENSORS[scene.sensor].classes_of(reader.read(scene, SCL, wide))

    scenes = [scene for granules in overpasses for scene in granules]
    found = iter(_all([_pool().submit(classes, scene) for scene in scenes]))
    inner = tuple(slice(margin, size - margin) for size in wide.shape)
    passes = []
    for granules in overpasses:
        every = [next(found) for _ in granules]
        merged = np.zeros(wide.shape, np.uint8)
        for scl in every:
            np.copyto(merged, scl, where=merged <= 1)
        passes.append(
            _Pass(
                granules=granules,
                classes=[scl[inner] for scl in every],
                may_be_clear=mask.is_clear(merged, pixel_size=step)[inner],
                is_seen=np.zeros(window.shape, np.bool_),
                is_clear=np.zeros(window.shape, np.bool_),
                chosen=np.zeros(window.shape, np.uint8),
            )
        )
    return passes


def _read_first(
    reader: PixelReader,
    passes: Sequence[_Pass],
    reflectance: Int16[np.ndarray, "look band y x"],
    window: GeoBox,
    bands: tuple[str, ...],
    mask: ClearMask,
) -> None:
    """Read the first useful granule of every overpass into its look, all side by side."""

    def put(scene: Scene, name: str, layer: np.ndarray) -> None:
        layer[:] = reader.read(scene, name, window)

    under_way = []
    for one, look in zip(passes, reflectance, strict=True):
        number = next(n for n, scl in enumerate(one.classes) if (scl > 1).any())
        scene = one.granules[number]
        counts = look.view(SENSORS[scene.sensor].dtype)
        jobs = [_pool().submit(put, scene, name, counts[index]) for index, name in enumerate(bands)]
        under_way.append((one, number, counts, look, jobs))
    try:
        for one, number, counts, look, jobs in under_way:
            _all(jobs)
            _merge(one, number, counts, look, bands, mask, is_first=True)
    except BaseException:
        _stop(job for *_, jobs in under_way for job in jobs)
        raise


def _read_others(
    reader: PixelReader,
    one: _Pass,
    look: Int16[np.ndarray, "band y x"],
    window: GeoBox,
    bands: tuple[str, ...],
    mask: ClearMask,
) -> None:
    """Read further granules of an overpass as long as they have pixels that are missing."""
    first = next(n for n, scl in enumerate(one.classes) if (scl > 1).any())
    for number in range(first + 1, len(one.granules)):
        if not ((one.classes[number] > 1) & ~one.is_seen).any():
            continue
        scene = one.granules[number]
        jobs: list[Future[Any]] = [
            _pool().submit(reader.read, scene, name, window) for name in bands
        ]
        _merge(one, number, np.stack(_all(jobs)), look, bands, mask, is_first=False)


def _merge(
    one: _Pass,
    number: int,
    counts: np.ndarray,
    look: Int16[np.ndarray, "band y x"],
    bands: tuple[str, ...],
    mask: ClearMask,
    *,
    is_first: bool,
) -> None:
    scene, scl = one.granules[number], one.classes[number]
    sensor = SENSORS[scene.sensor]
    calibration = np.array([sensor.calibration(name, offset=scene.offset) for name in bands])
    before = one.is_seen.copy()
    if merge_granule(
        counts,
        scl,
        calibration[:, 0],
        calibration[:, 1],
        nodata_of(scene, bands[0]),
        look,
        one.is_seen,
        is_first,
    ):
        one.used.append(scene.id)
        is_new = one.is_seen & ~before
        np.copyto(one.chosen, scl, where=is_new)
        one.is_clear |= is_new & one.may_be_clear & np.isin(scl, mask.possible_classes)


def _all(jobs: Sequence["Future[T]"]) -> list[T]:
    """Return the results in order; the first error stops the rest and is raised."""
    try:
        return [job.result() for job in jobs]
    except BaseException:
        _stop(jobs)
        raise


def _stop(jobs: Iterable["Future[Any]"]) -> None:
    """Cancel what has not begun and wait for what has: it may still write into our block."""
    wait([job for job in jobs if not job.cancel()])


def _metres(window: GeoBox) -> tuple[float, float]:
    """Pixel size (y, x) of a window in metres."""
    if window.crs is None or not window.crs.projected or window.crs.units[0] not in METRES:
        raise InputError("a mask with distances needs a grid in metres; set buffer and opening = 0")
    return abs(window.resolution.y), abs(window.resolution.x)
