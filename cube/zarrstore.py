"""A description in, a georeferenced Zarr store out: what cubes and maps have in common."""

import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
import zarr
from numcodecs import Blosc
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from zarr.codecs import BloscCodec, BloscShuffle
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from cube.durable import DISK_FAULTS, flush_files, flush_folders
from cube.errors import InputError, PlaceError, WorkFailedError
from cube.place import (
    Place,
    RemoteFolder,
    put_store,
    replace_content,
    zarr_place,
)

SCHEMA = 2
"""Version of the cube's layout; a store of another version is refused.

2: periods instead of months; clear share and mean day beside the clear count."""

GRID_MAPPING = "spatial_ref"
"""Name of the CF grid-mapping variable, the one rioxarray, odc-geo and GDAL look for."""


@dataclass(frozen=True, kw_only=True)
class StoredVariable:
    """How one variable lies in a store."""

    dims: tuple[str, ...]
    """Names of the dimensions."""
    shape: tuple[int, ...]
    """Size of each dimension."""
    dtype: str
    """Stored type, e.g. `int16`."""
    fill_value: int | float
    """What unwritten chunks read as."""
    has_nodata: bool = True
    """Whether `fill_value` means "no data"; else it is a value like any other."""
    chunks: tuple[int, ...]
    """Size of a chunk; cut to the raster where it is larger and there are no shards."""
    shards: tuple[int, ...] | None = None
    """Size of a shard; None where each chunk is an object."""
    attributes: Mapping[str, Any]
    """CF attributes."""

    @property
    def stored_chunks(self) -> tuple[int, ...]:
        """The chunks as they are allocated: shards need them whole."""
        if self.shards:
            return self.chunks
        return tuple(map(min, self.chunks, (max(size, 1) for size in self.shape)))


def create_store(
    path: Place,
    *,
    geobox: GeoBox,
    variables: Mapping[str, StoredVariable],
    coordinates: Mapping[str, tuple[str, np.ndarray, dict[str, Any]]],
    attributes: Mapping[str, Any],
    zarr_format: Literal[2, 3],
) -> None:
    """Allocate a georeferenced Zarr store; it appears at `path` whole or not at all.

    `coordinates` are (dimension, values, CF attributes) by name.

    Raises `InputError` if `path` cannot be written or something lies there, `WorkFailedError` if
    the disk is full or broken.
    """

    def write(draft: Path | MemoryStore) -> None:
        _write_store(
            draft,
            geobox=geobox,
            variables=variables,
            coordinates=coordinates,
            attributes=attributes,
            zarr_format=zarr_format,
        )

    try:
        if isinstance(path, Path):
            _appear(path, write)
        else:
            _put(path, write)
    except PlaceError:
        raise
    except OSError as error:
        kind = WorkFailedError if error.errno in DISK_FAULTS else InputError
        raise kind(f"{str(path)!r} cannot be made: {error}") from error


def _appear(path: Path, write: Callable[[Path | MemoryStore], None]) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(draft, ignore_errors=True)
        write(draft)
        # a power cut must not leave records of tiles in a store without its description
        for above, _, names in os.walk(draft):
            flush_files(Path(above) / name for name in names)
            flush_folders([Path(above)])
        draft.rename(path)
        flush_folders([path.parent])
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _put(path: RemoteFolder, write: Callable[[Path | MemoryStore], None]) -> None:
    """Make a store in memory, where it has no pixels yet, and put its objects in their place."""
    held: dict[str, Buffer] = {}
    write(MemoryStore(held))
    put_store(path, ((name, held[name].to_bytes()) for name in sorted(held, reverse=True)))


def _write_store(
    draft: Path | MemoryStore,
    *,
    geobox: GeoBox,
    variables: Mapping[str, StoredVariable],
    coordinates: Mapping[str, tuple[str, np.ndarray, dict[str, Any]]],
    attributes: Mapping[str, Any],
    zarr_format: Literal[2, 3],
) -> None:
    group = zarr.create_group(draft, zarr_format=zarr_format, attributes=dict(attributes))
    for name, coordinate in xr_coords(geobox, crs_coord_name=GRID_MAPPING).items():
        attrs = {key: _plain(value) for key, value in coordinate.attrs.items()}
        _write_coordinate(group, str(name), coordinate.dims, coordinate.values, attrs)
    for name, (dim, values, attrs) in coordinates.items():
        _write_coordinate(group, name, (dim,), values, attrs)
    for name, variable in variables.items():
        _allocate(group, name, variable)
    with warnings.catch_warnings():
        # Consolidated metadata is an extension in format 3; without it xr.open_zarr warns instead.
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(draft, zarr_format=zarr_format)


ATTRIBUTES = {"zarr.json": ("attributes",), ".zattrs": (), ".zmetadata": ("metadata", ".zattrs")}
"""Files of a store that have its own attributes, and under which keys."""


def change_attributes(path: Place, changes: Mapping[str, Any]) -> None:
    """Replace some of our own attributes of the store at `path`, which `create_store` has made.

    In its metadata files, not through Zarr: consolidating again, it would look into every record
    of the ledger.
    """
    for name, keys in ATTRIBUTES.items():
        file = path / name
        try:
            metadata = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        held = metadata
        for key in keys:
            held = held[key]
        held["canopycube"] |= changes
        replace_content(file, json.dumps(metadata, indent=2))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _named_dims(
    group: zarr.Group, dims: tuple[Any, ...], attributes: dict[str, Any]
) -> dict[str, Any]:
    """Return how this format stores dimension names: a field of its own, or xarray's attribute."""
    if group.metadata.zarr_format == 3:
        return {"dimension_names": dims, "attributes": attributes}
    return {"attributes": {**attributes, "_ARRAY_DIMENSIONS": list(dims)}}


def _write_coordinate(
    group: zarr.Group,
    name: str,
    dims: tuple[Any, ...],
    values: np.ndarray,
    attributes: dict[str, Any],
) -> None:
    # one chunk whatever the length: a coordinate is read whole
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=str if values.dtype == object else values.dtype,
        chunks=values.shape or "auto",
        **_named_dims(group, dims, attributes),
    )
    array[...] = values


def _allocate(group: zarr.Group, name: str, variable: StoredVariable) -> None:
    attributes = {"grid_mapping": GRID_MAPPING, **variable.attributes}
    if variable.has_nodata and group.metadata.zarr_format == 3:
        # format 2 readers take fill_value for it; format 3 keeps the two apart
        attributes["_FillValue"] = variable.fill_value
    # … so a layer of which every value counts must have none there; unwritten chunks then read as 0
    is_never_nodata = not variable.has_nodata and group.metadata.zarr_format == 2
    assert not is_never_nodata or variable.fill_value == 0
    # lz4 with bit shuffling decodes fastest at about zstd's size (measured: FACTS, Zarr)
    if group.metadata.zarr_format == 3:
        compressor: Any = BloscCodec(cname="lz4", clevel=5, shuffle=BloscShuffle.bitshuffle)
    else:
        # format 2 knows codecs by numcodecs' own classes
        compressor = Blosc(cname="lz4", clevel=5, shuffle=Blosc.BITSHUFFLE)
    group.create_array(
        name,
        shape=variable.shape,
        dtype=variable.dtype,
        chunks=variable.stored_chunks,
        shards=variable.shards,
        fill_value=None if is_never_nodata else variable.fill_value,
        compressors=compressor,
        **_named_dims(group, variable.dims, attributes),
    )


def read_attributes(path: Place, *, kind: str) -> dict[str, Any]:
    """Return our own attributes of the store at `path`.

    Raises `InputError` if nothing is there, it is no Zarr store, none of ours, of another `kind`
    ("cube", "samples", "map"), or of another schema version.
    """
    try:
        is_there = path.exists()
    except PlaceError:
        raise
    except OSError:  # a name longer than the file system allows
        is_there = False
    if not is_there:
        raise InputError(f"there is no {kind} at {str(path)!r}; make it first")
    try:
        group = zarr.open_group(zarr_place(path), mode="r")
    except PlaceError:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{str(path)!r} exists and is no Zarr store; expected a canopycube {kind}"
        ) from error
    ours = group.attrs.get("canopycube")
    if not isinstance(ours, dict) or ours.get("kind") != kind:
        found = (
            ours.get("kind", "another Zarr store")
            if isinstance(ours, dict)
            else "a foreign Zarr store"
        )
        raise InputError(f"{str(path)!r} exists and is {found}; expected a canopycube {kind}")
    if ours.get("schema") != SCHEMA:
        raise InputError(
            f"{str(path)!r} has layout version {ours.get('schema')!r}; this version reads {SCHEMA}; "
            "make it again in another output folder"
        )
    return ours


def open_physical(
    path: Place, *, chunks: Mapping[str, int], keep_stored: Sequence[str] = ()
) -> xr.Dataset:
    """Open a store lazily as dask arrays of `chunks`, scaled layers as float32 with NaN.

    Layers named in `keep_stored` stay as they are stored. A slice of the result reads only the
    chunks it needs: decoding lies below dask, where slices reach it.
    """
    stored: xr.Dataset = xr.open_zarr(
        zarr_place(path), chunks=None, mask_and_scale=False, decode_coords="all"
    )
    for name, layer in stored.data_vars.items():
        if name in keep_stored:
            layer.attrs = {k: v for k, v in layer.attrs.items() if k not in _CODING}
        elif "scale_factor" in layer.attrs:
            # as a float32, or xarray decodes to float64: twice the memory for five digits
            layer.attrs["scale_factor"] = np.float32(layer.attrs["scale_factor"])
            layer.attrs.pop("add_offset", None)
    return xr.decode_cf(stored, decode_coords=False).chunk(chunks)


_CODING = ("scale_factor", "add_offset", "_FillValue")
"""Attributes that say how stored values become physical ones."""


def stored_array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """Return an array of a group that we have allocated."""
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array
