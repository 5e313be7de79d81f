"""A cube's settings and scenes in, what each of its tiles is made from out: the part that decides it.

A tile is made again when its own inputs change, and only then: another scene far away, a larger area
or a further month leave the others as they are.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np

from cube.ledger import fingerprint
from cube.periods import period_numbers
from cube.spec import CubeSpec, Region
from cube.stac import Scene
from cube.stac.touching import TouchingScenes

MADE_BY = version("canopycube")
"""Which version makes tiles, for their records."""

_AT_ONCE = 4096
"""Tiles that are looked up together."""


@dataclass(frozen=True, kw_only=True)
class TileInputs:
    """What one tile is made from, part by part, as its record keeps it."""

    code: int
    """Version of the step's code (`ALGORITHM`)."""
    settings: str
    """Fingerprint of the bands and of all settings that decide pixels."""
    grid: str
    """Fingerprint of the tile's place: CRS, transform and shape."""
    scenes: Mapping[str, str]
    """By period the fingerprint of the scenes that can have a part in the tile."""
    scene_list: str = ""
    """Mark of the note that has all of the cube's scenes; decides nothing."""

    @cached_property
    def fingerprint(self) -> str:
        """What the tile's record is known by: two equal ones ask for the same pixels."""
        return fingerprint(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return the parts as plain JSON."""
        return {
            "code": self.code,
            "settings": self.settings,
            "grid": self.grid,
            "scenes": dict(self.scenes),
        }


@dataclass(frozen=True, kw_only=True)
class CubeInputs:
    """What a cube is made from, to be asked for each tile's share of it."""

    code: int
    """Version of the step's code."""
    spec: CubeSpec
    """What the cube will be."""
    settings: Mapping[str, Any]
    """All settings that decide pixels, as plain JSON; neither grid nor periods nor scenes."""
    scenes: tuple[Scene, ...] = field(default=(), repr=False)
    """The scenes, where they are known one by one."""
    files: Any = None
    """What changes when the user's own files do, where scenes are not known: every tile's."""
    margin: int = 0
    """Pixels around a tile whose scenes can change it."""

    def of(self, region: Region) -> TileInputs:
        """Return what one tile is made from."""
        return next(self.of_all([region]))

    def of_all(self, regions: Iterable[Region]) -> Iterator[TileInputs]:
        """Yield what each tile is made from, in their order."""
        found = list(regions)
        for start in range(0, len(found), _AT_ONCE):
            part = found[start : start + _AT_ONCE]
            scenes = self._touching.of_tiles(part, self.spec.geobox, margin=self.margin)
            for region, numbers in zip(part, scenes, strict=True):
                yield TileInputs(
                    code=self.code,
                    settings=self.mark,
                    grid=self._grid(region),
                    scenes=self._by_period(numbers),
                    scene_list=self.scene_list,
                )

    def fingerprints(self, regions: Iterable[Region]) -> dict[str, str]:
        """Return what each tile's record is known by, by tile id."""
        found = list(regions)
        pairs = zip(found, self.of_all(found), strict=True)
        return {region.id: inputs.fingerprint for region, inputs in pairs}

    def scenes_of(self, region: Region) -> dict[str, list[Scene]]:
        """Return by period the scenes that can have a part in a tile."""
        (numbers,) = self._touching.of_tiles([region], self.spec.geobox, margin=self.margin)
        found: dict[str, list[Scene]] = {str(period): [] for period in self.spec.periods}
        for number in numbers:
            if (period := self._periods[number]) >= 0:
                found[self._names[period]].append(self.scenes[number])
        return found

    def notes(self) -> dict[str, dict[str, str]]:
        """Return by id each scene's `stamp`, which changes when its pixels do, and its `time`."""
        return {
            scene.id: {"stamp": stamp, "time": scene.time.isoformat(timespec="seconds")}
            for scene, stamp in zip(self.scenes, self._stamps, strict=True)
        }

    @cached_property
    def scene_list(self) -> str:
        """Mark of the list of all scenes, `notes`."""
        return fingerprint(self.notes())

    def _by_period(self, numbers: np.ndarray) -> dict[str, str]:
        """Return the fingerprint of each period's scenes; neighbours mostly have the same."""
        key = numbers.tobytes()
        if key not in self._known:
            parts: list[list[str]] = [[] for _ in self._names]
            for number in numbers:
                if (period := self._periods[number]) >= 0:
                    parts[period].append(self._stamps[number])
            made = [fingerprint([self._files, sorted(part)]) for part in parts]
            self._known[key] = dict(zip(self._names, made, strict=True))
        return self._known[key]

    def _grid(self, region: Region) -> str:
        window = region.window(self.spec.geobox)
        transform = [round(float(number), 6) for number in list(window.transform)[:6]]
        return fingerprint([self._crs, transform, list(window.shape)])

    @cached_property
    def _known(self) -> dict[bytes, dict[str, str]]:
        return {}

    @cached_property
    def mark(self) -> str:
        """Fingerprint of the bands and settings, as every tile's inputs have it."""
        return fingerprint([list(self.spec.bands), dict(self.settings)])

    @cached_property
    def _files(self) -> str:
        return fingerprint(self.files)

    @cached_property
    def _crs(self) -> str:
        return fingerprint(self.spec.crs.to_wkt())

    @cached_property
    def _names(self) -> list[str]:
        return [str(period) for period in self.spec.periods]

    @cached_property
    def _stamps(self) -> list[str]:
        return [fingerprint(scene.identity) for scene in self.scenes]

    @cached_property
    def _periods(self) -> np.ndarray:
        starts = [scene.overpass_start.replace(tzinfo=None) for scene in self.scenes]
        return period_numbers(self.spec.periods, np.array(starts, "M8[s]").astype("M8[ns]"))

    @cached_property
    def _touching(self) -> TouchingScenes:
        return TouchingScenes(self.scenes)


def looks_of(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the ids of the looks that a cube's record names, of whichever version it is.

    A look of several scenes has their ids with "+" in between.
    """
    scenes = record.get("scenes")
    parts: Iterable[Any] = scenes.values() if isinstance(scenes, dict) else [scenes]
    for part in parts:
        if isinstance(part, list):
            yield from (one for one in part if isinstance(one, str))


def changed_parts(before: Mapping[str, Any], now: TileInputs) -> list[str]:
    """Return what differs between the inputs that a record keeps and those of now, in words.

    `before` is what `TileInputs.to_json` gave, or anything else that a foreign record holds.
    """
    wanted = now.to_json()
    if not before:
        return ["its record does not say what it was made from (an earlier version's)"]
    found = [words for part, words in _PARTS.items() if before.get(part) != wanted[part]]
    scenes = before.get("scenes")
    had = scenes if isinstance(scenes, dict) else {}
    has = wanted["scenes"]
    different = [period for period in has if period in had and had[period] != has[period]]
    for periods, words in (
        ([period for period in has if period not in had], "new periods"),
        ([period for period in had if period not in has], "periods that are gone"),
        (different, "other scenes in"),
    ):
        if periods:
            found.append(f"{words} {_some([str(period) for period in periods])}")
    return found


_PARTS = {
    "code": "another version of the code that makes it",
    "settings": "other settings",
    "grid": "another place or size",
}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
