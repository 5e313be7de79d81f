"""A stored cube or map in, its certificate out: everything in it was read and agrees, or what does not.

Tiles are read by threads, each in the memory of one tile; nothing outside the store is followed.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import zarr

from cube.errors import InputError
from cube.ledger import Ledger, fingerprint
from cube.place import Place, zarr_place
from cube.soundness import (
    CheckedStore,
    StoredObjects,
    TileState,
    checked_cube,
    checked_map,
    foreign_attributes,
    layout_faults,
    record_state,
    tile_state,
)
from cube.spec import Region
from pipelines import stop
from pipelines.ledger_notes import damaged_notes
from pipelines.progress import Reporter
from pipelines.tile_inputs import looks_of

FaultKind = Literal[
    "layout",
    "link",
    "damaged",
    "missing",
    "unrecorded",
    "stale",
    "record",
    "outside",
    "ledger",
    "note",
]

_MOST_TOLD = 1000
"""Things of no consequence that are named; of more only the number is told."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing for which a store is not whole."""

    place: str
    """Tile, array or object."""
    kind: FaultKind
    """What it is: `stale` is a tile made from what is no longer so."""
    what: str
    """What is wrong, as a clause."""


@dataclass(kw_only=True)
class Certificate:
    """What was found of a store."""

    store: CheckedStore
    """Which."""
    faults: list[Fault] = field(default_factory=list)
    """All for which it is not whole."""
    leftovers: list[str] = field(default_factory=list)
    """Files of writers that were killed, and others that nobody reads."""
    is_mended: bool = False
    """Whether faults were mended before this was found."""
    is_unread: bool = False
    """Whether only its records were looked at, for its metadata are at fault."""
    states: Counter[str] = field(default_factory=Counter)
    """Tiles by what was found of them."""
    objects: int = 0
    """Objects that it has."""
    bytes: int = 0
    """Their bytes."""
    read: int = 0
    """Bytes of pixels that were decoded and compared."""
    digests: dict[str, str] = field(default_factory=dict)
    """Digest of each tile that is whole, by tile id."""
    made: tuple[str, str] | None = None
    """When its first and its last tile were made."""
    made_by: Counter[str] = field(default_factory=Counter)
    """Tiles by the version that made them."""
    scenes: set[str] = field(default_factory=set)
    """Ids of the scenes of which any tile was made."""
    lost: set[str] = field(default_factory=set)
    """Ids of scenes that were lost to any tile."""
    classifiers: set[str] = field(default_factory=set)
    """Fingerprints of the classifiers of a map's tiles."""
    settings: set[str] = field(default_factory=set)
    """Fingerprints of the settings with which its tiles were made."""

    @property
    def tiles(self) -> int:
        """How many tiles it is to have."""
        return self.store.spec.tile_count

    @property
    def whole(self) -> int:
        """How many of them are whole."""
        return self.states["whole"]

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong or missing."""
        return not self.faults and self.whole == self.tiles

    @property
    def unread(self) -> int:
        """How many were not looked at, but for their records: the metadata are to be mended first."""
        return self.tiles if self.is_unread else 0

    @property
    def digest(self) -> str | None:
        """Hash over all tiles' pixels, as the report of a run has it; None of none."""
        return fingerprint(self.digests) if self.digests else None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        spec = self.store.spec
        times, bands, height, width = spec.shape
        is_cube = self.store.kind == "cube"
        return {
            "store": str(self.store.place),
            "kind": self.store.kind,
            "is_whole": self.is_whole,
            "tiles": self.tiles,
            "whole": self.whole,
            "failed": self.tiles - self.whole - self.unread,
            "not_looked_at": self.unread,
            "shape": {"time": times, "band": bands, "y": height, "x": width}
            if is_cube
            else {"y": height, "x": width},
            "digest": self.digest,
            "made": None if self.made is None else list(self.made),
            "made_by": dict(self.made_by),
            "scenes": len(self.scenes),
            "lost_scenes": sorted(self.lost),
            "classifiers": sorted(self.classifiers),
            "objects": self.objects,
            "bytes": self.bytes,
            "bytes_checked": self.read,
            "faults": [vars(fault) for fault in self.faults],
            "leftovers": self.leftovers,
        }


IsStale = Callable[[Region, Mapping[str, Any]], str]
"""Of a tile and its record: why it is no longer what it would be made as; empty if it is."""


def checked_store(place: Place) -> CheckedStore:
    """Return the cube or map at `place`; `InputError` if it is neither."""
    if not place.exists():
        raise InputError(f"there is no store at {str(place)!r}")
    try:
        ours: Any = zarr.open_group(zarr_place(place), mode="r").attrs.get("canopycube")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{str(place)!r} is no Zarr store that can be opened ({type(error).__name__}: "
            f"{str(error)[:100]}); expected a cube.zarr or a map.zarr"
        ) from error
    kind = ours.get("kind") if isinstance(ours, dict) else None
    if kind not in ("cube", "map"):
        found = "a Zarr store from elsewhere" if kind is None else f"a store of {str(kind)[:40]!r}"
        raise InputError(f"{str(place)!r} is {found}; expected a cube.zarr or a map.zarr")
    return checked_cube(place) if kind == "cube" else checked_map(place)


def verify_store(
    store: CheckedStore,
    reporter: Reporter,
    *,
    is_stale: IsStale | None = None,
    workers: int | None = None,
) -> Certificate:
    """Read all of a store and return its certificate.

    `is_stale` is asked of each whole tile. Raises `OSError` where the machine cannot read.
    """
    made = Certificate(store=store)
    objects = StoredObjects(store=store)
    for stray in objects.strays():
        if stray.kind == "leftover" or stray.kind == "stranger":
            if len(made.leftovers) < _MOST_TOLD:
                made.leftovers.append(stray.name)
        else:
            what = _STRAYS[stray.kind]
            made.faults.append(Fault(place=stray.name, kind=stray.kind, what=what))
    made.objects, made.bytes = objects.number, objects.bytes
    for wrong in layout_faults(store, links=objects.links):
        made.faults.append(Fault(place=wrong.name, kind="layout", what=wrong.what))
    is_readable = not any(fault.kind == "layout" for fault in made.faults)
    for wrong in foreign_attributes(store):
        made.faults.append(Fault(place=wrong.name, kind="layout", what=wrong.what))
    if "ledger" not in objects.links:
        for name in damaged_notes(store.place, links=objects.links):
            what = "not as it was written; tiles do not depend on it"
            made.faults.append(Fault(place=f"ledger/{name}", kind="note", what=what))
    if not is_readable:  # what would decode the tiles is not what we write
        _note_records(made, links=objects.links)
        return made
    if not (store.place / "ledger").exists():
        what = "there is no ledger: it was built elsewhere, and nothing vouches for its pixels"
        made.faults.append(Fault(place="ledger", kind="ledger", what=what))
    regions = store.spec.regions()
    with reporter.bar(f"verify {store.kind}", len(regions)) as advance:

        def check(region: Region) -> TileState:
            return tile_state(store, region, links=objects.links)

        for region, state in _in_threads(check, regions, workers or os.cpu_count() or 1):
            _note(made, region, state, is_stale)
            advance(note=region.id)
    if len(made.settings) > 1 and is_stale is None:
        what = f"its tiles were made with {len(made.settings)} different settings"
        made.faults.append(Fault(place="ledger", kind="stale", what=what))
    return made


def _note_records(made: Certificate, *, links: list[str]) -> None:
    """Look at the records alone of a store whose tiles cannot be read."""
    made.is_unread = True
    has_ledger = "ledger" not in links and (made.store.place / "ledger").exists()
    for region in made.store.spec.regions():
        state = TileState(tile=region.id, state="unread")
        if has_ledger:
            stop.raise_if_asked()
            state = record_state(made.store, region, links=links)
        _note(made, region, state, None)


_STRAYS: dict[str, str] = {
    "link": "a link; what it leads to is not read",
    "outside": "an object outside of the grid or the area",
    "record": "a record of a tile that the store does not have",
}


def _in_threads(
    check: Callable[[Region], TileState], regions: Sequence[Region], workers: int
) -> Iterator[tuple[Region, TileState]]:
    """Yield each region with what is found of it, as it is found; few are under way at once."""
    pending: dict[Future[TileState], Region] = {}
    waiting = iter(regions)
    with ThreadPoolExecutor(workers) as pool:
        try:
            while True:
                for region in waiting:
                    pending[pool.submit(check, region)] = region
                    if len(pending) >= 2 * workers:
                        break
                if not pending:
                    return
                stop.raise_if_asked()
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    yield pending.pop(future), future.result()
        finally:
            for future in pending:
                future.cancel()


def _note(made: Certificate, region: Region, state: TileState, is_stale: IsStale | None) -> None:
    """Add what was found of one tile."""
    made.states[state.state] += 1
    made.read += state.bytes
    record = state.record
    if record is not None and state.state in ("whole", "unread"):
        _note_record(made, record)
    if state.state == "whole" and record is not None:
        made.digests[region.id] = str(record.get("digest"))
        why = is_stale(region, record) if is_stale else ""
        if why:
            made.faults.append(Fault(place=f"tile {region.id}", kind="stale", what=why))
    elif state.state != "whole" and state.state != "unread":
        kind = state.state
        made.faults.append(Fault(place=f"tile {region.id}", kind=kind, what=state.what))


def _note_record(made: Certificate, record: Mapping[str, Any]) -> None:
    when = record.get("made_at")
    if isinstance(when, str):
        first, last = made.made or (when, when)
        made.made = min(first, when), max(last, when)
    made.made_by[str(record.get("made_by", "an earlier version"))] += 1
    made.scenes.update(scene for look in looks_of(record) for scene in look.split("+"))
    lost = record.get("lost")
    if isinstance(lost, list):
        made.lost.update(str(one.get("scene")) for one in lost if isinstance(one, dict))
    parts = record.get("made_from")
    if isinstance(parts, dict):
        made.settings.add(str(parts.get("settings")))
        if "classifier" in parts:
            made.classifiers.add(str(parts["classifier"]))


def stale_against_cube(cube: Place) -> IsStale | None:
    """Return what says whether a map's tile was made of the cube as it is; None without a cube.

    Raises `InputError` for what is no cube.
    """
    if not cube.exists():
        return None
    ledger = Ledger(store=cube, inputs=None)

    def is_stale(region: Region, record: Mapping[str, Any]) -> str:
        parts = record.get("made_from")
        if not isinstance(parts, dict):
            return "its record does not say of which pixels it was made"
        if not (pixels := parts.get("pixels")):
            return ""  # outside the clip, where the cube is not read
        try:
            now = ledger.record_of(region).get("reflectance_digest")
        except InputError:
            return "the cube's record of it is damaged"
        if now is None:
            return "the cube does not have it any more"
        return "" if now == pixels else "the cube has other pixels there by now"

    return is_stale


def sibling_cube(place: Place) -> Place:
    """Return where the cube of a map lies, as runs lay them out."""
    return (place.resolve() if isinstance(place, Path) else place).with_name("cube.zarr")
