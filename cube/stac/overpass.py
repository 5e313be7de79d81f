"""Scenes in, overpasses out: duplicates dropped, granules of one pass put in order of preference."""

from collections.abc import Iterable
from itertools import groupby

from cube.stac.footprint import covered_share, unwrapped
from cube.stac.scene import DroppedScene, Scene, SceneList

_SAME_INSTANT = 1.0
"""Seconds: reprocessing states the same sensing time to the millisecond, halves of a split granule
lie several seconds apart."""

_COVERED = 0.9
"""A product replaces another where it covers this share of its footprint. Two halves of a split
granule, which some providers give one time, cover far less of each other."""


def without_duplicates(scenes: Iterable[Scene]) -> SceneList:
    """Keep the newest product of each granule, and record the others.

    Two scenes are one granule if tile, overpass and sensing time are the same and the newer covers
    the older. Newer is: higher baseline, then later generation, then higher sequence number.
    """
    kept: dict[tuple[str, str], list[Scene]] = {}
    dropped: list[DroppedScene] = []
    for scene in sorted(scenes, key=_age, reverse=True):
        rivals = kept.setdefault((scene.tile, scene.overpass), [])
        newer = next((other for other in rivals if _replaces(other, scene)), None)
        if newer is None:
            rivals.append(scene)
        else:
            reason = f"duplicate of {newer.id} (baseline {newer.baseline}, made {newer.version[0]})"
            dropped.append(DroppedScene(id=scene.id, reason=reason))
    every = (scene for rivals in kept.values() for scene in rivals)
    return SceneList(scenes=in_order(every), dropped=tuple(dropped))


def in_order(scenes: Iterable[Scene]) -> tuple[Scene, ...]:
    """Return scenes in order of overpass, tile and id."""
    return tuple(sorted(scenes, key=lambda s: (s.overpass_start, s.overpass, s.tile, s.id)))


def overpasses(scenes: Iterable[Scene], *, epsg: int | None) -> list[tuple[Scene, ...]]:
    """Group scenes by overpass, in order of time; within one, those to prefer come first.

    Scenes in the CRS `epsg` first, because they need no warping, then newer products first.
    """
    grouped = groupby(in_order(scenes), key=lambda scene: scene.overpass)
    return [tuple(_by_preference(group, epsg)) for _, group in grouped]


def _by_preference(group: Iterable[Scene], epsg: int | None) -> list[Scene]:
    newest_first = sorted(sorted(group, key=lambda s: s.id), key=_age, reverse=True)
    return sorted(newest_first, key=lambda scene: scene.epsg != epsg)


def _age(scene: Scene) -> tuple[str, str, int, str]:
    generated, sequence = scene.version
    return scene.baseline, generated, int(sequence) if sequence.isdecimal() else 0, scene.id


def _replaces(newer: Scene, older: Scene) -> bool:
    """Say whether `newer` makes `older`, of the same tile and overpass, superfluous."""
    return (
        abs((newer.time - older.time).total_seconds()) <= _SAME_INSTANT
        and covered_share(unwrapped(older.footprint), unwrapped(newer.footprint)) >= _COVERED
    )
