"""A plan and the cube that is there in, how many tiles will be made, taken over or left, and why, out."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cube.errors import InputError
from cube.ledger import Ledger
from cube.place import Place
from cube.spec import Region
from cube.store import read_spec
from pipelines.carry_cube import carried_by_tile, earlier_cubes
from pipelines.ledger_notes import read_note
from pipelines.plan import CubePlan
from pipelines.tile_inputs import TileInputs, changed_parts, looks_of

_AT_ONCE = 4096
"""Tiles that are looked at together."""


@dataclass(kw_only=True)
class TileChanges:
    """What a build will find to do."""

    ready: int = 0
    """Tiles that are there as they are to be."""
    taken_over: int = 0
    """Tiles of which all is there, in an earlier cube."""
    in_part: int = 0
    """Tiles of which some periods are there."""
    anew: int = 0
    """Tiles of which nothing is."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Why tiles that were made are made again, with the number of tiles."""
    scenes: dict[str, list[str]] = field(default_factory=dict)
    """Ids of scenes that were `changed`, `added` or `gone` since any tile was made."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "tiles_ready": self.ready,
            "tiles_to_take_over": self.taken_over,
            "tiles_to_make_in_part": self.in_part,
            "tiles_to_make": self.anew,
            "tiles_changed_for": dict(self.reasons),
            "scenes_changed": self.scenes,
        }


def tile_changes(plan: CubePlan, path: Place) -> TileChanges:
    """Return what building `plan` at `path` will find to do, without reading a pixel."""
    found = TileChanges()
    has_same_grid = path.exists() and read_spec(path).to_json() == plan.spec.to_json()
    before = _parts_before(path) if has_same_grid else {}
    earlier = earlier_cubes(path, plan.spec, plan.made_from)
    for regions in _batches(plan.spec.regions()):
        inputs = list(plan.made_from.of_all(regions))
        missing = _note_ready(found, regions, inputs, before)
        taken = carried_by_tile(
            earlier,
            [region for region, _ in missing],
            [of for _, of in missing],
            is_finished=plan.is_finished,
        )
        for one in taken:
            if one is None:
                found.anew += 1
            elif len(one.periods) == len(plan.spec.periods):
                found.taken_over += 1
            else:
                found.in_part += 1
    if found.reasons:
        found.scenes = scenes_changed(path, plan.made_from.notes(), before.values())
    return found


def reasons_again(plan: CubePlan, path: Place, regions: Sequence[Region]) -> Counter[str]:
    """Return why those of some tiles that have a record are made again, with the number of tiles."""
    found, before = TileChanges(), _parts_before(path)
    again = [region for region in regions if region.id in before]
    for some in _batches(again):
        _note_ready(found, some, list(plan.made_from.of_all(some)), before)
    return found.reasons


@dataclass(frozen=True, kw_only=True)
class _Before:
    """What is kept of a tile's record."""

    inputs: str
    parts: Mapping[str, Any]
    scene_list: str


def _parts_before(path: Place) -> dict[str, _Before]:
    found: dict[str, _Before] = {}
    shared: dict[str, Any] = {}  # neighbours are made from the same scenes
    try:
        for tile, record in Ledger(store=path, inputs=None).each():
            parts = record.get("made_from")
            parts = parts if isinstance(parts, dict) else {}
            scenes = shared.setdefault(repr(parts.get("scenes")), parts.get("scenes"))
            found[tile] = _Before(
                inputs=record["inputs"],
                parts={**parts, "scenes": scenes} if parts else {},
                scene_list=str(record.get("scene_list", "")),
            )
    except InputError:
        return found  # the build says which record is damaged
    return found


def _note_ready(
    found: TileChanges,
    regions: Sequence[Region],
    inputs: Sequence[TileInputs],
    before: Mapping[str, _Before],
) -> list[tuple[Region, TileInputs]]:
    """Count tiles that are ready, and why others are not; return those."""
    missing = []
    for region, of in zip(regions, inputs, strict=True):
        record = before.get(region.id)
        if record is not None and record.inputs == of.fingerprint:
            found.ready += 1
            continue
        missing.append((region, of))
        if record is not None:
            found.reasons.update(changed_parts(record.parts, of))
    return missing


def tile_reasons(plan: CubePlan, path: Place, tile: str) -> list[str]:
    """Return why building `plan` would make a tile of the cube at `path` again; nothing if not.

    Raises `InputError` for a tile that the cube does not have, and for a damaged record.
    """
    stored = read_spec(path)
    if stored.to_json() != plan.spec.to_json():
        wanted, had = plan.spec.to_json(), stored.to_json()
        other = [key for key in wanted if wanted[key] != had.get(key)]
        return [f"the recipe's cube has other {', '.join(other)}"]
    region = stored.region(tile)
    record = Ledger(store=path, inputs=None).record_of(region)
    now = plan.made_from.of(region)
    if not record or record["inputs"] == now.fingerprint:
        return [] if record else ["it has no record"]
    parts = record.get("made_from")
    before = parts if isinstance(parts, dict) else {}
    return [*changed_parts(before, now), *_details(plan, path, region, record)]


def _details(
    plan: CubePlan, path: Place, region: Region, record: Mapping[str, Any]
) -> Iterator[str]:
    """Yield which settings and which of a tile's scenes have changed, where notes tell."""
    parts = record.get("made_from")
    mark = parts.get("settings") if isinstance(parts, dict) else None
    if mark != plan.made_from.mark and (had := read_note(path, "settings", mark)):
        has = plan.made_from.settings
        for key in sorted(had.keys() | has.keys()):
            if had.get(key) != has.get(key):
                yield f"{key} was {_short(had.get(key))}, is {_short(has.get(key))}"
    then = read_note(path, "scenes", record.get("scene_list"))
    if not then:
        return
    now = plan.made_from.notes()
    for scenes in plan.made_from.scenes_of(region).values():
        for scene in scenes:
            if scene.id not in then:
                yield f"scene {scene.id} has come"
            elif _stamp(then[scene.id]) != _stamp(now[scene.id]):
                yield f"scene {scene.id} was changed"
    seen = {name for look in looks_of(record) for name in look.split("+")}
    for name in sorted(seen - now.keys()):
        yield f"scene {name} is gone"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


_LONGEST = 60
"""Characters of a setting that are told."""


def _stamp(note: Any) -> Any:
    return note.get("stamp") if isinstance(note, dict) else None


def scenes_changed(
    path: Place, now: Mapping[str, Mapping[str, str]], before: Any
) -> dict[str, list[str]]:
    """Return which scenes are not as they were when any of the tiles `before` was made."""
    changed: set[str] = set()
    added: set[str] = set()
    gone: set[str] = set()
    for mark in {one.scene_list for one in before}:
        if not (then := read_note(path, "scenes", mark)):
            continue
        changed |= {
            name
            for name, note in now.items()
            if name in then and _stamp(then[name]) != _stamp(note)
        }
        added |= now.keys() - then.keys()
        gone |= then.keys() - now.keys()
    sets = {"changed": changed, "added": added, "gone": gone}
    return {name: sorted(some) for name, some in sets.items() if some}


def _batches(regions: Sequence[Region]) -> Iterator[Sequence[Region]]:
    for start in range(0, len(regions), _AT_ONCE):
        yield regions[start : start + _AT_ONCE]
