"""`StacSource`: a scene list and a window in, every look of a month out."""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int16, UInt16
from odc.geo.geobox import GeoBox
from shapely.geometry import MultiPolygon, Polygon

from cube.bands import BANDS, NODATA, STORED_MAX
from cube.errors import InputError, sendable_errors
from cube.mask import ClearMask
from cube.months import Month
from cube.source import Looks
from cube.stac import read_odc
from cube.stac.footprint import meets, unwrapped, window_outline
from cube.stac.lock import read_scenes
from cube.stac.overpass import overpasses
from cube.stac.scene import SCL, Scene
from cube.stac.warp import NativeReader, read_on_grid

ReaderName = Literal["odc", "stackstac"]
Resampling = Literal["nearest", "bilinear"]


@dataclass(frozen=True, kw_only=True)
class StacSource:
    """Scenes of a lock file as looks on the cube's grid; a `SceneCatalogue`.

    Small to pickle: it carries the path of the lock file, which every worker reads once.
    """

    scenes: Path
    """The lock file that `write_scenes` wrote; its scenes must be locked (`lock_scenes`)."""
    fingerprint: str | None = None
    """`SceneList.fingerprint` of the list that was planned with, so that no tile is made of another
    one that has come into its place; None takes whatever lies there."""
    mask: ClearMask = field(default_factory=ClearMask)
    """What counts as clear."""
    reader: ReaderName = "odc"
    """Library the pixels come through; both give the same looks."""
    resampling: Resampling = "bilinear"
    """For reflectance whose grid is not the cube's: between zones, 20 and 60 m bands on a 10 m
    grid. Where a cube's pixel is more than 1.5 times a file's, `bilinear` is the mean of all the
    pixels it covers. Where pixels coincide they are copied. Scene classes always take the nearest
    pixel, for the mean of two classes is a third one."""

    def __post_init__(self) -> None:
        if self.reader not in ("odc", "stackstac"):
            raise InputError(f"reader {self.reader!r} is unknown; expected 'odc' or 'stackstac'")
        if self.resampling not in ("nearest", "bilinear"):
            raise InputError(
                f"resampling {self.resampling!r} is unknown; expected 'nearest' or 'bilinear'"
            )

    @sendable_errors
    def looks(self, month: Month, window: GeoBox, bands: tuple[str, ...]) -> Looks:
        """Read every look of `month` at `window`: one per overpass that saw clear ground there.

        An overpass belongs to the month in which its datatake began (UTC). Its granules are merged
        pixel by pixel: the first with data in every band and in the classification wins, scenes of
        the window's own CRS before others, newer products before older. An overpass without one
        clear pixel in the window is left out before its bands are read. Raises `SceneReadError` or
        `SceneUnreachableError` with scene, asset and address for a file that cannot be read, and
        `InputError` if the lock file is another than the one of `fingerprint`.
        """
        found = [
            look
            for granules in self._overpasses(month, window, bands)
            if (look := _Overpass(source=self, granules=granules, window=window).look(bands))
        ]
        height, width = window.shape
        return Looks(
            reflectance=np.stack([look.reflectance for look in found])
            if found
            else np.empty((0, len(bands), height, width), np.int16),  # (look, band, y, x)
            is_clear=np.stack([look.is_clear for look in found])
            if found
            else np.empty((0, height, width), np.bool_),  # (look, y, x)
            ids=tuple(look.ids for look in found),
        )

    def _overpasses(
        self, month: Month, window: GeoBox, bands: tuple[str, ...]
    ) -> list[tuple[Scene, ...]]:
        kept, scenes = _scenes_of(str(self.scenes), _version(self.scenes))
        if self.fingerprint not in (None, kept):
            raise InputError(
                f"scene lock {str(self.scenes)!r} was replaced while this run read it; run again"
            )
        outline = window_outline(window)
        here = [
            scene
            for scene, footprint in scenes
            if scene.month == month and meets(footprint, outline)
        ]
        for scene in here:
            missing = [name for name in (*bands, SCL) if name not in scene.assets]
            if missing or not scene.is_locked:
                why = f"has no {', '.join(missing)}" if missing else "was not checked"
                raise InputError(
                    f"scene {scene.id!r} in {str(self.scenes)!r} {why}; run "
                    "`canopycube lock RECIPE`"
                )
        epsg = window.crs.epsg if window.crs is not None else None
        return overpasses(here, epsg=epsg)

    def read(
        self, scene: Scene, names: tuple[str, ...], window: GeoBox
    ) -> UInt16[np.ndarray, "band y x"]:
        """Read counts of one scene on the grid of `window`; 0 is nodata (see `read_on_grid`)."""
        is_smooth = self.resampling == "bilinear" and SCL not in names
        return read_on_grid(_native_reader(self.reader), scene, names, window, is_smooth=is_smooth)


@dataclass(frozen=True, kw_only=True)
class _Look:
    """One overpass, merged."""

    reflectance: Int16[np.ndarray, "band y x"]
    """As in `Looks`."""
    is_clear: Bool[np.ndarray, "y x"]
    """As in `Looks`."""
    ids: str
    """Scenes that gave a pixel, joined by '+'."""


@dataclass(frozen=True, kw_only=True)
class _Overpass:
    """The granules of one overpass, under way to one look."""

    source: StacSource
    """Reader and mask."""
    granules: tuple[Scene, ...]
    """By preference."""
    window: GeoBox
    """Where."""

    def look(self, bands: tuple[str, ...]) -> _Look | None:
        """Merge the granules, or return None if no pixel is clear."""
        classes, may_be_clear = self._classes()
        if not may_be_clear.any():
            return None
        reflectance = np.full((len(bands), *self.window.shape), NODATA, np.int16)
        is_seen = np.zeros(self.window.shape, np.bool_)
        is_clear = np.zeros(self.window.shape, np.bool_)
        used = []
        for scene, scl in zip(self.granules, classes, strict=True):
            if not ((scl > 0) & ~is_seen).any():
                continue
            counts = self.source.read(scene, bands, self.window)
            is_new = (counts > 0).all(axis=0) & (scl > 0) & ~is_seen
            if not is_new.any():
                continue
            used.append(scene.id)
            is_seen |= is_new
            is_clear |= is_new & may_be_clear & np.isin(scl, self.source.mask.classes)
            for index, name in enumerate(bands):
                reflectance[index][is_new] = stored(counts[index], name, scene.offset)[is_new]
        if not is_clear.any():
            return None
        return _Look(reflectance=reflectance, is_clear=is_clear, ids="+".join(used))

    def _classes(self) -> tuple[list[UInt16[np.ndarray, "y x"]], Bool[np.ndarray, "y x"]]:
        """(scene classes of each granule, where the mask may call the merged classes clear).

        Read with a margin, so that a cloud beyond the window's edge keeps its distance.
        """
        step = _metres(self.window) if self.source.mask.buffer else (1.0, 1.0)
        margin = self.source.mask.margin(pixel_size=step)
        wide = self.window.pad(margin) if margin else self.window
        merged = np.zeros(wide.shape, np.uint16)
        inner = (slice(margin, wide.shape[0] - margin), slice(margin, wide.shape[1] - margin))
        classes = []
        for scene in self.granules:
            scl = self.source.read(scene, (SCL,), wide)[0]  # (y, x)
            np.copyto(merged, scl, where=merged == 0)
            classes.append(scl[inner])
        return classes, self.source.mask.is_clear(merged, pixel_size=step)[inner]


def stored(counts: UInt16[np.ndarray, "y x"], band: str, offset: int) -> Int16[np.ndarray, "y x"]:
    """Return counts of one band as stored units (1e-4), `NODATA` where the count is 0.

    The offset is added where the band has one; negative reflectance stays negative, and what is
    brighter than `STORED_MAX` is clipped to it.
    """
    properties = BANDS[band]
    units = counts.astype(np.int32) * properties.stored_per_count
    if properties.has_offset:
        units += offset
    clipped = np.clip(units, NODATA + 1, STORED_MAX).astype(np.int16)
    return np.where(counts == 0, np.int16(NODATA), clipped)


def _metres(window: GeoBox) -> tuple[float, float]:
    """Pixel size (y, x) of a window in metres."""
    if window.crs is None or not window.crs.projected or window.crs.units[0] not in _METRES:
        raise InputError("a mask buffer in metres needs a grid in metres; set buffer = 0")
    return abs(window.resolution.y), abs(window.resolution.x)


_METRES = ("metre", "meter", "m")


def _native_reader(name: ReaderName) -> NativeReader:
    if name == "odc":
        return read_odc.read_native
    from cube.stac import read_stackstac  # half a second, and only where it is asked for

    return read_stackstac.read_native


def _version(path: Path) -> tuple[int, ...]:
    """Return what tells a lock file from another that has come into its place."""
    if not path.exists():
        return ()
    stat = path.stat()  # the clock of a file system may stand still for milliseconds
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


@lru_cache(maxsize=4)
def _scenes_of(
    path: str, version: tuple[int, ...]
) -> tuple[str, tuple[tuple[Scene, Polygon | MultiPolygon], ...]]:
    """(fingerprint, scenes and their outlines) of a lock file; a new `version` is a new entry."""
    found = read_scenes(Path(path))
    return found.fingerprint, tuple((scene, unwrapped(scene.footprint)) for scene in found.scenes)
