"""A store's description in, what of its metadata and coordinates is otherwise out.

The same store is made empty at another place, and the two are compared: no second definition of a
layout. Nothing is decoded by a codec, and no array is read, before its metadata are what we write: a
hostile store could name a codec that runs what it decodes.
"""

import json
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from odc.geo.crs import CRS
from pyproj.exceptions import CRSError

from cube.place import Place, files_below, replace_content, zarr_place
from cube.soundness.store import CheckedStore
from cube.zarrstore import ATTRIBUTES


@dataclass(frozen=True, kw_only=True)
class LayoutFault:
    """An array that is not as the store's description has it."""

    name: str
    """The array."""
    what: str
    """What is wrong with it, as a clause."""


def layout_faults(store: CheckedStore, *, links: Collection[str] = ()) -> list[LayoutFault]:
    """Compare every array's metadata, and the values of coordinates, with what they are to be.

    Coordinates that are `links`, by their names in the store, or have any, are not read.
    """
    with _as_it_should_be(store) as whole:
        return list(_faults(store, whole, links))


def mend_layout(store: CheckedStore, faults: list[LayoutFault]) -> None:
    """Write the metadata of the arrays at fault anew, of coordinates the values, and attributes.

    Pixels are not touched. Raises `OSError`.
    """
    with _as_it_should_be(store) as whole:
        if any(fault.name in ATTRIBUTES for fault in faults):
            _mend_attributes(store.place, whole)
        arrays = [fault for fault in faults if fault.name not in ATTRIBUTES]
        for fault in arrays:
            for name, _ in list(files_below(whole / fault.name)):
                file = f"{fault.name}/{name}"
                replace_content(_within(store.place, file), (whole / file).read_bytes())
        if arrays:
            _mend_consolidated(store.place, whole)


_CHANGING = ("engine",)
"""Our own attributes that come into a store after it was made."""


def foreign_attributes(store: CheckedStore) -> list[LayoutFault]:
    """Return what of the store's own attributes we have not written; it keeps no pixel from being read."""
    with _as_it_should_be(store) as whole:
        found, wanted = (dict(_attributes(place)) for place in (store.place, whole))
    foreign = [f"{key!r}" for key in found if key not in wanted]
    ours, own = found.get("canopycube", {}), wanted["canopycube"]
    foreign += [f"'canopycube.{key}'" for key in ours if key not in (*own, *_CHANGING)]
    changed = [
        f"{key!r}" for key in wanted if key != "canopycube" and found.get(key) != wanted[key]
    ]
    told = [
        f"{'attributes' if len(some) > 1 else 'attribute'} {', '.join(some)[:200]} {what}"
        for some, what in ((foreign, "that we have not written"), (changed, "not as we write it"))
        if some
    ]
    name = ".zattrs" if store.spec.zarr_format == 2 else "zarr.json"
    return [LayoutFault(name=name, what="; ".join(told))] if told else []


def _attributes(place: Place) -> Mapping[str, Any]:
    return zarr.open_group(zarr_place(place), mode="r", use_consolidated=False).attrs.asdict()


def _mend_attributes(place: Place, whole: Path) -> None:
    """Take what is foreign out of the store's own attributes, wherever it keeps them."""
    right = dict(_attributes(whole))
    for name, keys in ATTRIBUTES.items():
        file = _within(place, name)
        if not file.exists():
            continue
        metadata = json.loads(file.read_text(encoding="utf-8"))
        held = metadata
        for key in keys:
            held = held[key]
        ours = held["canopycube"]
        known = (*right["canopycube"], *_CHANGING)
        kept = {**right, "canopycube": {key: ours[key] for key in ours if key in known}}
        held.clear()
        held.update(kept)
        replace_content(file, json.dumps(metadata, indent=2))


@contextmanager
def _as_it_should_be(store: CheckedStore) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="canopycube-") as scratch:
        whole = Path(scratch) / "whole.zarr"
        store.allocate(whole)
        yield whole


def _faults(store: CheckedStore, whole: Path, links: Collection[str]) -> Iterator[LayoutFault]:
    expected = zarr.open_group(whole, mode="r", use_consolidated=False)
    found = _opened(store.place, is_consolidated=False)
    kept = _opened(store.place, is_consolidated=None)
    for name, array in sorted(expected.arrays()):
        if name not in store.layers and name in {link.partition("/")[0] for link in links}:
            yield LayoutFault(name=name, what="it is or has a link, which is not followed")
            continue
        wanted = _plain(array, store.spec.crs)
        texts = [_metadata(group, name, store.spec.crs) for group in (found, kept)]
        if None in texts:
            yield LayoutFault(name=name, what="its metadata are missing or cannot be read")
        elif different := [
            key for text in texts for key in wanted if (text or {}).get(key) != wanted[key]
        ]:
            yield LayoutFault(name=name, what=f"its metadata have another {different[0]}")
        elif name not in store.layers and (why := _wrong_values(found, name, array)):
            yield LayoutFault(name=name, what=why)


def _opened(place: Place, *, is_consolidated: bool | None) -> zarr.Group | None:
    try:
        return zarr.open_group(zarr_place(place), mode="r", use_consolidated=is_consolidated)
    except (ValueError, TypeError, KeyError):  # no consolidated metadata, or none that can be read
        return None


def _metadata(group: zarr.Group | None, name: str, crs: CRS) -> Mapping[str, Any] | None:
    """Return an array's metadata as plain values; None if there are none that can be read."""
    if group is None:
        return None
    try:
        return _plain(group[name], crs)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _plain(array: Any, crs: CRS) -> dict[str, Any]:
    """Return an array's metadata as they would be written; names of one CRS count as the same."""
    described: dict[str, Any] = array.metadata.to_dict()
    attributes = described.get("attributes")
    if isinstance(attributes, dict) and _means(attributes.get("crs"), crs):
        described["attributes"] = {**attributes, "crs": "the store's"}
    return {key: repr(value) for key, value in described.items()}


def _means(text: Any, crs: CRS) -> bool:
    try:
        return isinstance(text, str) and CRS(text) == crs
    except CRSError:
        return False


def _wrong_values(group: zarr.Group | None, name: str, expected: Any) -> str:
    """Return what is wrong with the values of a coordinate; empty if nothing is."""
    assert group is not None  # its metadata were read
    try:
        found = np.asarray(group[name][...])  # type: ignore[index]
    except Exception as error:  # noqa: BLE001 - whatever a codec makes of broken bytes
        return f"its values cannot be read ({type(error).__name__}: {str(error)[:80]})"
    wanted = np.asarray(expected[...])
    if found.shape != wanted.shape or found.dtype != wanted.dtype or not (found == wanted).all():
        return "its values are not those of the store's grid and periods"
    return ""


def _mend_consolidated(place: Place, whole: Path) -> None:
    """Put the metadata of all arrays, as they are to be, where readers find them together."""
    for name, keys in {
        "zarr.json": ("consolidated_metadata",),
        ".zmetadata": ("metadata",),
    }.items():
        if not (whole / name).exists():
            continue
        right = json.loads((whole / name).read_text(encoding="utf-8"))
        file = _within(place, name)
        here = json.loads(file.read_text(encoding="utf-8")) if file.exists() else right
        (key,) = keys
        own = (
            {".zattrs": here[key].get(".zattrs", right[key][".zattrs"])}
            if key == "metadata"
            else {}
        )
        here[key] = {**right[key], **own}
        replace_content(file, json.dumps(here, indent=2))


def _within(place: Place, name: str) -> Place:
    """Return a file of a store by its name, part by part."""
    found = place
    for part in name.split("/"):
        found = found / part
    if isinstance(found, Path):
        found.parent.mkdir(parents=True, exist_ok=True)
    return found
