"""A store in, every object in it that has no place there out; nothing is followed out of the store."""

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from cube.place import Place, files_below, zarr_place
from cube.soundness.store import CheckedStore
from cube.storedfiles import is_leftover
from cube.zarrstore import stored_array

Kind = Literal["outside", "leftover", "link", "record", "stranger"]

_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")

_RECORD = re.compile(r"r\d+c\d+\.json", re.ASCII)

_NOTES = re.compile(r"(settings|scenes|classifier)-[0-9a-f]{16}\.json", re.ASCII)
"""What the ledger keeps beside records."""


@dataclass(frozen=True, kw_only=True)
class Stray:
    """Something that has no place in a store."""

    name: str
    """Its name as seen from the store."""
    kind: Kind
    """`outside` the grid or the area; `leftover` of a writer that was killed; `link`, which leads
    elsewhere; `record` of a tile that the store has not; or a `stranger`."""


@dataclass(kw_only=True)
class StoredObjects:
    """Goes through all objects of a store once; what it counts is there when `strays` has ended."""

    store: CheckedStore
    """Which store."""
    number: int = 0
    """Objects that were found."""
    bytes: int = 0
    """Their bytes."""
    links: list[str] = field(default_factory=list)
    """Names of links: what lies behind them is not looked at."""

    def strays(self) -> Iterator[Stray]:
        """Yield what has no place in the store, as it is found."""
        belongs = _belonging(self.store)
        arrays = _keys_of(self.store)
        coordinates = {"time", "period", "band", "x", "y", "spatial_ref"}
        for name, size, is_link in _walk(self.store.place):
            self.number += 1
            self.bytes += size
            if is_link:
                self.links.append(name)
                yield Stray(name=name, kind="link")
            elif kind := _kind(name, arrays, coordinates, belongs):
                yield Stray(name=name, kind=kind)


def _walk(place: Place) -> Iterator[tuple[str, int, bool]]:
    """Yield (name, bytes, whether it is a link) of everything below a place."""
    if not isinstance(place, Path):
        for name, size in files_below(place):
            yield name, size, False
        return
    pending = [(place, "")]
    while pending:
        folder, prefix = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                name = f"{prefix}{entry.name}"
                if entry.is_symlink():
                    yield name, 0, True
                elif entry.is_dir(follow_symlinks=False):
                    pending.append((Path(entry.path), f"{name}/"))
                else:
                    yield name, entry.stat(follow_symlinks=False).st_size, False


@dataclass(frozen=True, kw_only=True)
class _Keys:
    """How the objects of an array are called, and where they lie."""

    array: zarr.Array[Any]
    """The array."""
    counts: tuple[int, ...]
    """Objects along each dimension."""
    step: int
    """Pixels along an edge of an object."""

    def place(self, key: str) -> tuple[int, ...] | None:
        """Return the place of an object among all of the array; None if it is none of them."""
        numbers = re.findall(r"\d+", key, re.ASCII)
        if len(numbers) != len(self.counts) or any(len(one) > 12 for one in numbers):
            return None
        place = tuple(map(int, numbers))
        is_within = all(one < count for one, count in zip(place, self.counts, strict=True))
        return place if is_within and self.array.metadata.encode_chunk_key(place) == key else None


def _keys_of(store: CheckedStore) -> dict[str, _Keys]:
    """Return how objects of arrays of pixels are called; none of arrays that cannot be opened."""
    group = zarr.open_group(zarr_place(store.place), mode="r", use_consolidated=False)
    found = {}
    for name in store.layers:
        try:
            array = stored_array(group, name)
        except (OSError, ValueError, TypeError, KeyError, AssertionError):
            continue
        steps = array.shards or array.chunks
        counts = tuple(-(-size // step) for size, step in zip(array.shape, steps, strict=True))
        found[name] = _Keys(array=array, counts=counts, step=steps[-1])
    return found


def _belonging(store: CheckedStore) -> "_Belonging":
    spec = store.spec
    rows, columns = (-(-size // spec.tile) for size in spec.shape[2:])
    is_touched = np.zeros((rows, columns), np.bool_)
    for region in spec.regions():
        is_touched[region.row, region.column] = True
    return _Belonging(is_touched=is_touched, tile=spec.tile)


@dataclass(frozen=True, kw_only=True)
class _Belonging:
    """Which tiles a store has."""

    is_touched: np.ndarray  # (row, column)
    tile: int

    def has_object(self, keys: _Keys, place: tuple[int, ...]) -> bool:
        # of an array that is larger than the store says, some places are beyond its tiles
        row, column = (number * keys.step // self.tile for number in place[-2:])
        rows, columns = self.is_touched.shape
        return row < rows and column < columns and bool(self.is_touched[row, column])

    def has_record(self, name: str) -> bool:
        row, column = (int(part) for part in re.findall(r"\d+", name, re.ASCII)[:2])
        rows, columns = self.is_touched.shape
        is_named_so = name == f"r{row:04d}c{column:04d}.json"
        return (
            is_named_so and row < rows and column < columns and bool(self.is_touched[row, column])
        )


def _kind(
    name: str, arrays: dict[str, _Keys], coordinates: set[str], belongs: _Belonging
) -> Kind | None:
    """Return what is wrong with an object's being there; None if it has a place."""
    *above, last = name.split("/")
    if is_leftover(name):
        return "leftover"
    if last in _METADATA and (
        not above or above in ([one] for one in (*arrays, *coordinates, "ledger"))
    ):
        return None
    if not above:
        return "stranger"
    first = above[0]
    if first == "ledger" and len(above) == 1:
        if _RECORD.fullmatch(last):
            return None if belongs.has_record(last) else "record"
        return None if _NOTES.fullmatch(last) else "stranger"
    if first in coordinates:
        return None if re.fullmatch(r"c(/0)*|0(\.0)*", "/".join((*above[1:], last))) else "stranger"
    if first not in arrays:
        return "stranger"
    place = arrays[first].place("/".join((*above[1:], last)))
    if place is None:
        is_key = re.fullmatch(r"c?[/.\d]+", "/".join((*above[1:], last)), re.ASCII)
        return "outside" if is_key else "stranger"
    return None if belongs.has_object(arrays[first], place) else "outside"


def any_above(name: str, links: list[str]) -> bool:
    """Say whether a name is one of the links, or lies behind one."""
    parents = itertools.accumulate(name.split("/"), lambda one, other: f"{one}/{other}")
    return not set(parents).isdisjoint(links)
