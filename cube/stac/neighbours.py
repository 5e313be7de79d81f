"""Scenes whose pixels could not tell their offset in, what their neighbours in time say out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from jaxtyping import Int64

from cube.radiometry import (
    ADDED,
    NeighbourReading,
    OffsetDecision,
    OffsetReading,
    OffsetSetting,
    compare_with_neighbour,
    settle_offset,
    weigh_neighbours,
)
from cube.stac.overview import CoarseLook
from cube.stac.scene import Scene

_MOST_NEIGHBOURS = 4
_FURTHEST = timedelta(days=100)
"""Beyond a season the ground itself is another."""


@dataclass(frozen=True, kw_only=True)
class LookedAt:
    """A scene, what its pixels say of its offset, and the look it was read from."""

    scene: Scene
    """With the offset settled as far as its own pixels go."""
    reading: OffsetReading
    """What its own pixels say."""
    look: CoarseLook | None
    """None where there is none: another sensor, a setting that asks no pixels."""


def beside_neighbours(
    scenes: Sequence[LookedAt], *, setting: OffsetSetting
) -> list[tuple[int, str]]:
    """Return (offset, reason) of every scene, the undecided ones as their neighbours say.

    A neighbour is a scene of the same tile and grid whose own pixels told its offset; the nearest
    four within 100 days are asked (`compare_with_neighbour`). Where they contradict each other, or
    say nothing, the metadata stay and the reason says so. Nothing follows from the order of
    `scenes`. Raises `InputError` where neighbours deny the metadata and `setting` is `check`.
    """
    return [_settled(scene, scenes, setting) for scene in scenes]


def _settled(ours: LookedAt, scenes: Sequence[LookedAt], setting: OffsetSetting) -> tuple[int, str]:
    before = OffsetDecision(offset=ours.scene.offset, reason=ours.scene.offset_reason)
    if ours.look is None or ours.reading != "undecided":
        return before.offset, before.reason
    neighbours = _nearest(ours, scenes)
    said = weigh_neighbours([_compared(ours, other) for other in neighbours])
    after = settle_offset(
        before,
        _as_offset(said, ours.scene.offset),
        setting=setting,
        scene_id=ours.scene.id,
        witness="neighbours in time",
    )
    return after.offset, after.reason


def _nearest(ours: LookedAt, scenes: Sequence[LookedAt]) -> list[LookedAt]:
    assert ours.look is not None
    kin = [
        other
        for other in scenes
        if other.reading != "undecided"
        and other.look is not None
        and other.scene.tile == ours.scene.tile
        and (other.look.ground, other.look.bands, other.look.scl.shape)
        == (ours.look.ground, ours.look.bands, ours.look.scl.shape)
        and _gap(ours, other) <= _FURTHEST
    ]
    return sorted(kin, key=lambda other: (_gap(ours, other), other.scene.id))[:_MOST_NEIGHBOURS]


def _gap(ours: LookedAt, other: LookedAt) -> timedelta:
    return abs(other.scene.time - ours.scene.time)


def _compared(ours: LookedAt, other: LookedAt) -> NeighbourReading:
    assert ours.look is not None
    assert other.look is not None
    return compare_with_neighbour(
        _reflectance(ours.look, ours.scene.offset),
        _reflectance(other.look, other.scene.offset),
        bands=ours.look.bands,
        our_offset=ours.scene.offset,
        our_scl=ours.look.scl.ravel(),
        their_scl=other.look.scl.ravel(),
    )


def _reflectance(look: CoarseLook, offset: int) -> Int64[np.ndarray, "band pixel"]:
    return look.counts.reshape(len(look.bands), -1).astype(np.int64) + offset  # (band, pixel)


def _as_offset(said: NeighbourReading, offset: int) -> OffsetReading:
    """Return what neighbours say of the offset that was decided as a reading of the counts."""
    if said == "undecided":
        return "undecided"
    is_in = (offset == -ADDED) == (said == "agrees")
    return "present" if is_in else "applied"
