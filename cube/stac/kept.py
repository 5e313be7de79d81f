"""A lock file and a window in, its scenes by period out: what each tile asks for is made once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import shapely
from jaxtyping import Int64, Shaped
from odc.geo.geobox import GeoBox
from shapely.affinity import translate

from cube.errors import InputError
from cube.periods import Period, period_numbers
from cube.stac.footprint import FOOTPRINT_SLACK, unwrapped, window_outline
from cube.stac.lockfile import read_scenes
from cube.stac.scene import Scene


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptScenes:
    """The scenes of a lock file, ready to be looked up for many windows; shared by threads."""

    fingerprint: str
    """`SceneList.fingerprint`."""
    scenes: tuple[Scene, ...]
    """Its scenes."""
    starts: Shaped[np.ndarray, " scene"]
    """Start of each scene's overpass, datetime64 in nanoseconds, UTC."""
    footprints: shapely.STRtree
    """Outline of each, in continuous lon/lat."""

    def over(
        self, window: GeoBox, periods: Sequence[Period]
    ) -> tuple[Int64[np.ndarray, " found"], Int64[np.ndarray, " found"]]:
        """Return the numbers of the scenes near a window (`meets_window`), and of their periods.

        Scenes come in the order of the list; one whose overpass began in none of the ascending
        `periods` is left out. Raises `InputError` for a window without a CRS.
        """
        near = window_outline(window).buffer(FOOTPRINT_SLACK)
        grounds = [translate(near, xoff=turn) for turn in (0.0, -360.0, 360.0)]
        here = np.unique(self.footprints.query(grounds, predicate="intersects")[1])
        numbers = period_numbers(periods, self.starts[here])
        return here[numbers >= 0], numbers[numbers >= 0]

    def by_period(self, window: GeoBox, periods: Sequence[Period]) -> dict[Period, list[Scene]]:
        """Return the scenes near a window of each of the ascending `periods`, of some none."""
        found: dict[Period, list[Scene]] = {period: [] for period in periods}
        for scene, period in zip(*self.over(window, periods), strict=True):
            found[periods[period]].append(self.scenes[scene])
        return found


def kept_scenes(path: Path, *, fingerprint: str | None = None) -> KeptScenes:
    """Return what a lock file holds; this process reads it once for each version of it.

    Raises `InputError` for no file, for one that is damaged, and if its scenes are not those of
    `fingerprint`; None takes whatever lies there.
    """
    kept = _kept_scenes(str(path), _version(path))
    if fingerprint not in (None, kept.fingerprint):
        raise InputError(f"scene lock {str(path)!r} was replaced while this run read it; run again")
    return kept


def _version(path: Path) -> tuple[int, ...]:
    """Return what tells a lock file from another that has come into its place."""
    if not path.exists():
        return ()
    stat = path.stat()  # the clock of a file system may stand still for milliseconds
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


@lru_cache(maxsize=4)
def _kept_scenes(path: str, version: tuple[int, ...]) -> KeptScenes:
    """Return what a lock file holds; a new `version` is a new entry."""
    found = read_scenes(Path(path))
    starts = [scene.overpass_start.replace(tzinfo=None) for scene in found.scenes]
    return KeptScenes(
        fingerprint=found.fingerprint,
        scenes=found.scenes,
        starts=np.array(starts, "M8[s]").astype("M8[ns]"),
        footprints=shapely.STRtree([unwrapped(scene.footprint) for scene in found.scenes]),
    )
