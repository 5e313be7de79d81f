"""What has been done, tile by tile: one small JSON record a tile, beside the data it vouches for."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cube.durable import flush_folders, replace_text
from cube.errors import InputError
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


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The records of one step over one store.

    A tile is done when its data and then its record are there. A record counts only for the
    inputs (settings, scenes, classifier) it was made with, so changed inputs redo the tile.
    """

    store: Path
    """The Zarr store the records belong to; they lie inside it, in the group `ledger`."""
    inputs: str
    """`fingerprint` of everything that decides the pixels of a tile."""

    @property
    def folder(self) -> Path:
        """Where the records lie."""
        return self.store / "ledger"

    def prepare(self) -> None:
        """Make the group that holds the records; a Zarr reader sees it as an empty group."""
        zarr_format = zarr.open_group(self.store, mode="r").metadata.zarr_format
        zarr.open_group(self.folder, mode="a", zarr_format=zarr_format)

    def record(self, region: Region, details: dict[str, Any]) -> None:
        """Store that `region` is done; atomic and durable, after its data was written.

        The data are on the disk before: `write_whole` waits for them.
        """
        text = json.dumps({"tile": region.id, "inputs": self.inputs, **details}, sort_keys=True)
        replace_text(self._path(region.id), text)

    def forget_others(self, region: Region) -> None:
        """Remove the record of `region` if it was made with other inputs; before its pixels change.

        Else a run that is cut off while it overwrites them would leave a record that vouches for
        pixels which are gone. Raises `InputError` for a damaged record.
        """
        path = self._path(region.id)
        if path.exists() and _read(path)["inputs"] != self.inputs:
            path.unlink(missing_ok=True)
            flush_folders([self.folder])  # or it might be back after a power cut

    def forget(self, region: Region) -> None:
        """Remove the record of `region`, so that it is done again."""
        self._path(region.id).unlink(missing_ok=True)
        flush_folders([self.folder])

    def record_of(self, region: Region) -> dict[str, Any]:
        """Return the record of `region`, empty if there is none made with these inputs."""
        path = self._path(region.id)
        record = _read(path) if path.exists() else {}
        return record if record.get("inputs") == self.inputs else {}

    def records(self) -> dict[str, dict[str, Any]]:
        """Return every record made with these inputs, by tile id.

        Raises `InputError` for a record that is not readable JSON, or of another tile.
        """
        found = {}
        for path in sorted(self.folder.glob("r*c*.json")):
            record = _read(path)
            if record["inputs"] == self.inputs:
                found[path.stem] = record
        return found

    def pending(self, regions: Iterable[Region]) -> list[Region]:
        """Return the regions without a record, in their order."""
        done = self.records()
        return [region for region in regions if region.id not in done]

    def _path(self, tile: str) -> Path:
        return self.folder / f"{tile}.json"


def _read(path: Path) -> dict[str, Any]:
    """Return one record, of whatever inputs; `InputError` if it is damaged."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        tile, _ = record["tile"], record["inputs"]
        if tile != path.stem:
            raise ValueError(f"it is of tile {tile!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"ledger record {str(path)!r} is damaged ({error!r}); delete it to redo the tile"
        ) from error
    return record
