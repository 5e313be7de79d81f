"""What has been done, tile by tile: one small JSON record a tile, beside the data it vouches for."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cube.durable import flush_folders
from cube.errors import InputError
from cube.lease import Mark
from cube.place import Place, names_below, read_each, replace_content, zarr_place
from cube.spec import Region


def fingerprint(inputs: Any) -> str:
    """Return a short hash of plain JSON values: two equal ones ask for the same pixels."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest(*blocks: np.ndarray) -> str:
    """Return the SHA-256 of the blocks' shapes, dtypes and bytes, for a record or a check."""
    sha = hashlib.sha256()
    for block in blocks:
        sha.update(f"{block.shape}{block.dtype.str}".encode())
        sha.update(np.ascontiguousarray(block).data)
    return sha.hexdigest()


_SEAL = "record_digest"
"""Key of what is kept in the ledger: the SHA-256 of all its other keys."""


def sealed(content: Mapping[str, Any]) -> str:
    """Return plain JSON values as text that tells whether a byte of it was changed."""
    return json.dumps({**content, _SEAL: _seal(json.loads(json.dumps(content)))}, sort_keys=True)


def unsealed(text: bytes) -> dict[str, Any]:
    """Return what `sealed` was given; `ValueError` for any other text, and for one that was edited."""
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError(f"it is a {type(content).__name__}")
    seal = content.pop(_SEAL, None)
    if seal != _seal(content):
        raise ValueError(
            "it has no checksum of itself" if seal is None else "it is not what was written"
        )
    return content


def _seal(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The records of one step over one store.

    A tile is done when its data and then its record are there. A record counts only for the
    inputs (settings, scenes, classifier) it was made with, so changed inputs redo the tile.
    """

    store: Place
    """The Zarr store the records belong to; they lie inside it, in the group `ledger`."""
    inputs: str | Mapping[str, str] | None
    """`fingerprint` of everything that decides the pixels of a tile: by tile id, or one for all that
    are asked about. None takes records of whatever inputs, for those who only read."""

    mark: Mark | None = None
    """Of the lease under which a task writes; if that is lost, nothing is recorded or forgotten."""

    @property
    def folder(self) -> Place:
        """Where the records lie."""
        return self.store / "ledger"

    def prepare(self) -> None:
        """Make the group that holds the records; a Zarr reader sees it as an empty group."""
        zarr_format = zarr.open_group(zarr_place(self.store), mode="r").metadata.zarr_format
        zarr.open_group(zarr_place(self.folder), mode="a", zarr_format=zarr_format)

    def record(self, region: Region, details: dict[str, Any]) -> None:
        """Store that `region` is done; atomic and durable, after its data was written.

        The data are on the disk before: `write_whole` waits for them. Raises `WorkFailedError` if
        the lease is lost.
        """
        self._refuse_lost()
        inputs = self._wanted(region.id)
        assert inputs is not None  # only readers do without
        text = sealed({"tile": region.id, "inputs": inputs, **details})
        replace_content(self._path(region.id), text)

    def forget_others(self, region: Region) -> None:
        """Remove the record of `region` if it was made with other inputs; before its pixels change.

        Else a run that is cut off while it overwrites them would leave a record that vouches for
        pixels which are gone. Raises `InputError` for a damaged record, `WorkFailedError` if the
        lease is lost.
        """
        self._refuse_lost()
        record = _read(self._path(region.id))
        if record and not self._counts(record):
            self.forget(region)

    def forget(self, region: Region) -> None:
        """Remove the record of `region`, so that it is done again.

        Raises `WorkFailedError` if the lease is lost.
        """
        self._refuse_lost()
        self._path(region.id).unlink(missing_ok=True)
        if isinstance(self.folder, Path):
            flush_folders([self.folder])  # or it might be back after a power cut

    def record_of(self, region: Region) -> dict[str, Any]:
        """Return the record of `region`, empty if there is none made with these inputs."""
        record = _read(self._path(region.id))
        return record if record and self._counts(record) else {}

    def records(self, *keys: str) -> dict[str, dict[str, Any]]:
        """Return every record made with these inputs, by tile id; of each only `keys`, if any are named.

        A whole record with a year's 120 looks takes 20 kB of memory: of a country's, name the keys.
        Raises `InputError` for a record that is not as it was written, or of another tile.
        """
        if not keys:
            return dict(self.each())
        return {
            tile: {key: record[key] for key in keys if key in record}
            for tile, record in self.each()
        }

    def each(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the same one by one, for whoever keeps but a part of each; raises as `records`."""
        names = names_below(self.folder, "r*c*.json")
        for name, text in read_each(self.folder, names):
            path = self.folder / name
            record = _parsed(path, text)
            if self._counts(record):
                yield path.stem, record

    def pending(self, regions: Iterable[Region]) -> list[Region]:
        """Return the regions without a record, in their order."""
        done = {tile for tile, _ in self.each()}
        return [region for region in regions if region.id not in done]

    def _refuse_lost(self) -> None:
        if self.mark is not None:
            self.mark.refuse_lost()

    def _counts(self, record: Mapping[str, Any]) -> bool:
        """Say whether a record is one of the inputs that are asked for."""
        return self.inputs is None or record["inputs"] == self._wanted(record["tile"])

    def _wanted(self, tile: str) -> str | None:
        """Return the inputs of a tile; None if there are none, or any will do."""
        return self.inputs.get(tile) if isinstance(self.inputs, Mapping) else self.inputs

    def _path(self, tile: str) -> Place:
        return self.folder / f"{tile}.json"


def _read(path: Place) -> dict[str, Any]:
    """Return one record, of whatever inputs; empty if there is none."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    return _parsed(path, text)


def _parsed(path: Place, text: bytes) -> dict[str, Any]:
    """Return a record from its text; `InputError` if it is damaged."""
    try:
        record: dict[str, Any] = json.loads(text)
        # earlier versions did not seal theirs; nothing asks for their inputs, so the tile is made anew
        if not isinstance(record, dict) or _SEAL in record or "made_from" in record:
            record = unsealed(text)
        tile, inputs = record["tile"], record["inputs"]
        if tile != path.stem or not isinstance(inputs, str):
            raise ValueError(f"it is of tile {tile!r} with inputs {inputs!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"ledger record {str(path)!r} is damaged ({error!r}); delete it to redo the tile"
        ) from error
    return record
