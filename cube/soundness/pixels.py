"""A tile and its record in, whether its pixels are what was recorded out."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import zarr

from cube.errors import InputError
from cube.ledger import Ledger, digest
from cube.place import Place, count_there, zarr_place
from cube.shard import decode_shard
from cube.soundness.objects import any_above
from cube.soundness.store import CheckedStore
from cube.spec import Region
from cube.storedfiles import stored_files
from cube.zarrstore import stored_array

State = Literal["whole", "damaged", "unrecorded", "missing", "unread"]


@dataclass(frozen=True, kw_only=True)
class TileState:
    """What was found of a tile."""

    tile: str
    """Its id."""
    state: State
    """`whole`: pixels and record are there and agree; `missing`: neither is; `unrecorded`: pixels
    that nothing vouches for; `damaged`; `unread`: only its record was looked at, which is whole."""
    what: str = ""
    """What is wrong, as a clause."""
    record: dict[str, Any] | None = None
    """Its record, where it could be read."""
    bytes: int = 0
    """Bytes of pixels that were read."""


def tile_state(store: CheckedStore, region: Region, *, links: Collection[str] = ()) -> TileState:
    """Read a tile whole and compare it with its record, in the memory of that tile.

    Objects whose names lie among `links` or behind them are not read. What keeps any tile from being
    read (no memory, no open files) is raised.
    """
    noted = record_state(store, region, links=links)
    if noted.state == "damaged":
        return noted
    record = noted.record
    group = zarr.open_group(zarr_place(store.place), mode="r")
    files = {name: stored_files(stored_array(group, name), region) for name in store.layers}
    number = count_there(file for some in files.values() for file in some)
    if not record:
        state: State = "unrecorded" if number else "missing"
        what = f"{number} objects with pixels and no record" if number else "not made yet"
        return TileState(tile=region.id, state=state, what=what)
    what, read = _difference(store, region, record, files, number, list(links))
    return TileState(
        tile=region.id,
        state="damaged" if what else "whole",
        what=what,
        record=record,
        bytes=read,
    )


def record_state(store: CheckedStore, region: Region, *, links: Collection[str] = ()) -> TileState:
    """Look at a tile's record alone: `unread`, `missing` or `damaged`."""
    if any_above(f"ledger/{region.id}.json", list(links)):
        what = "its record is or lies behind a link, which is not followed"
        return TileState(tile=region.id, state="damaged", what=what)
    try:
        record = Ledger(store=store.place, inputs=None).record_of(region)
    except InputError as error:
        what = f"its record is damaged{_cause(error)}"
        return TileState(tile=region.id, state="damaged", what=what)
    if not record:
        return TileState(tile=region.id, state="missing", what="it has no record")
    return TileState(tile=region.id, state="unread", record=record)


def _cause(error: InputError) -> str:
    return "" if error.__cause__ is None else f" ({_told(error.__cause__)})"


def _difference(
    store: CheckedStore,
    region: Region,
    record: dict[str, Any],
    files: dict[str, list[Place]],
    number: int,
    links: list[str],
) -> tuple[str, int]:
    """(what is wrong with a tile's pixels, bytes that were read)."""
    prefix = len(str(store.place)) + 1
    for file in (file for some in files.values() for file in some):
        if any_above(str(file)[prefix:], links):
            return f"{str(file)[prefix:]} is or lies behind a link, which is not followed", 0
    counted = record.get("files")
    if isinstance(counted, int) and counted != number:
        return f"{number} objects are there, its record counts {counted}", 0
    blocks: dict[str, np.ndarray] = {}
    for name in store.layers:
        try:
            blocks[name] = _read(store, name, region)
        except Exception as error:
            if not is_damage(error):
                raise
            return f"{name} cannot be decoded: {_told(error)}", 0
    read = sum(block.nbytes for block in blocks.values())
    for key, found in _digests(store, blocks).items():
        if record.get(key) != found:
            what = "reflectance is" if key == "reflectance_digest" else "pixels are"
            return f"its {what} not what was recorded", read
    return "", read


def _digests(store: CheckedStore, blocks: dict[str, np.ndarray]) -> dict[str, str]:
    """Return the digests that a tile's record is to have, by their keys."""
    if store.kind == "map":
        return {"digest": digest(np.stack(list(blocks.values())))}
    return {
        "reflectance_digest": digest(blocks["reflectance"]),
        "digest": digest(*blocks.values()),
    }


def is_damage(error: Exception) -> bool:
    """Return whether an error says that stored bytes are wrong: a checksum's, or a codec's."""
    if isinstance(error, RuntimeError):  # as Blosc's; other ones are of threads and the like
        return "decompress" in str(error)
    if isinstance(error, OSError):
        return isinstance(error, PermissionError | IsADirectoryError | NotADirectoryError)
    return isinstance(error, ValueError | EOFError) and not isinstance(error, InputError)


def _read(store: CheckedStore, name: str, region: Region) -> np.ndarray:
    array = stored_array(zarr.open_group(zarr_place(store.place), mode="r"), name)
    files = stored_files(array, region)
    if len(files) == 1:
        pixels = decode_shard(array, files[0], region)
        if pixels is not None:
            return pixels
    return np.asarray(array[..., region.rows, region.columns])


def _told(error: BaseException) -> str:
    return f"{str(error) or type(error).__name__}".split("\n")[0][:160]
