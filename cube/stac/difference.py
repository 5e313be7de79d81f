"""Two scene lists in, what a new search changed out: for whoever runs `canopycube lock` again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cube.stac.scene import SceneList


@dataclass(frozen=True, kw_only=True)
class SceneDifference:
    """What a new search changed."""

    added: tuple[str, ...]
    """Ids that are new, sorted."""
    removed: tuple[str, ...]
    """Ids that are gone, sorted."""
    changed: Mapping[str, tuple[str, ...]]
    """Ids whose pixels may be others (`Scene.identity`), sorted, and the fields that differ, e.g.
    `baseline` or `assets.B02.stamp`."""


def difference(old: SceneList | None, new: SceneList) -> SceneDifference:
    """Compare the scenes to use of two lists; None is an empty one."""
    before = {} if old is None else {scene.id: scene for scene in old.scenes}
    after = {scene.id: scene for scene in new.scenes}
    return SceneDifference(
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        changed={
            name: _differing(before[name].to_json(), after[name].to_json())
            for name in sorted(before.keys() & after.keys())
            if before[name].identity != after[name].identity
        },
    )


def _differing(old: Any, new: Any, place: str = "") -> tuple[str, ...]:
    """Return the fields in which two records differ; where files lie is none of them."""
    if isinstance(old, Mapping) and isinstance(new, Mapping) and place != "footprint":
        names = [name for name in (*old, *(new.keys() - old.keys())) if name != "href"]
        return tuple(
            field
            for name in names
            for field in _differing(old.get(name), new.get(name), f"{place}.{name}".lstrip("."))
        )
    return () if old == new else (place,)
