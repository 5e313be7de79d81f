"""A description in, a georeferenced Zarr store out: what cubes and maps have in common."""

import itertools
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
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
from zarr.storage import LocalStore

from cube.durable import flush_files, flush_folders, replace_text
from cube.errors import InputError
from cube.spec import Region

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
    path: Path,
    *,
    geobox: GeoBox,
    variables: Mapping[str, StoredVariable],
    coordinates: Mapping[str, tuple[str, np.ndarray, dict[str, Any]]],
    attributes: Mapping[str, Any],
    zarr_format: Literal[2, 3],
) -> None:
    """Allocate a georeferenced Zarr store; it appears at `path` whole or not at all.

    `coordinates` are (dimension, values, CF attributes) by name.

    Raises `InputError` if `path` cannot be written or something lies there.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(draft, ignore_errors=True)
        _write_store(
            draft,
            geobox=geobox,
            variables=variables,
            coordinates=coordinates,
            attributes=attributes,
            zarr_format=zarr_format,
        )
        draft.rename(path)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be made: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_store(
    draft: Path,
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


def change_attributes(path: Path, changes: Mapping[str, Any]) -> None:
    """Replace some of our own attributes of the store at `path`, which `create_store` has made.

    In its metadata files, not through Zarr: consolidating again, it would look into every record
    of the ledger.
    """
    places = {"zarr.json": ("attributes",), ".zattrs": (), ".zmetadata": ("metadata", ".zattrs")}
    for name, keys in places.items():
        file = path / name
        if file.exists():
            metadata = json.loads(file.read_text(encoding="utf-8"))
            held = metadata
            for key in keys:
                held = held[key]
            held["canopycube"] |= changes
            replace_text(file, json.dumps(metadata, indent=2))


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


def read_attributes(path: Path, *, kind: str) -> dict[str, Any]:
    """Return our own attributes of the store at `path`.

    Raises `InputError` if nothing is there, it is no Zarr store, none of ours, of another `kind`
    ("cube", "samples", "map"), or of another schema version.
    """
    try:
        is_there = path.exists()
    except OSError:  # a name longer than the file system allows
        is_there = False
    if not is_there:
        raise InputError(f"there is no {kind} at {str(path)!r}; make it first")
    try:
        group = zarr.open_group(path, mode="r")
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


def write_whole(array: zarr.Array[Any], region: Region, block: np.ndarray) -> None:
    """Write `block` (…, y, x) at `region` of a stored array, which must be whole stored objects.

    On a local disk the bytes are there for good when this returns, so that a record that follows
    cannot survive a power cut that the pixels do not. Raises `ValueError` for a region that cuts an
    object, and for a block of another shape.
    """
    stored = (array.shards or array.chunks)[-2:]
    for start, length, step, size in zip(
        (region.top, region.left),
        (region.height, region.width),
        stored,
        array.shape[-2:],
        strict=True,
    ):
        if start % step or (length % step and start + length != size) or start + length > size:
            raise ValueError(
                f"tile {region.id} covers {start}..{start + length} of {size} pixels and would cut "
                f"the stored objects of {step}"
            )
    expected = (*array.shape[:-2], region.height, region.width)
    if block.shape != expected:
        raise ValueError(f"tile {region.id} has shape {block.shape}, the store expects {expected}")
    files = stored_files(array, region)
    if files is None:
        array[..., region.rows, region.columns] = block
        return
    for file in files:
        # zarr reads an old shard before it writes a new one, and fails if the old one is damaged
        file.unlink(missing_ok=True)
    array[..., region.rows, region.columns] = block
    # Measured on ext4 for a tile of 12 months, 10 bands and 1024² pixels (175 MB): 0.1 s on top of
    # 0.5 s for its two shards, 0.3 to 0.4 s for 390 chunks; making it takes far longer.
    flush_files(file for file in files if file.exists())  # what is all nodata has none
    folder = _folder(array)
    above = {place for file in files for place in file.parents if place.is_relative_to(folder)}
    flush_folders(place for place in above if place.exists())


def stored_files(array: zarr.Array[Any], region: Region) -> list[Path] | None:
    """Return the files that `region` is made of, there or not; None where it is no local store."""
    if not isinstance(array.store_path.store, LocalStore):
        return None
    return [_folder(array) / key for key in _stored_keys(array, region)]


def _folder(array: zarr.Array[Any]) -> Path:
    store = array.store_path.store
    assert isinstance(store, LocalStore)  # `stored_files` has looked
    return Path(store.root) / array.store_path.path


def _stored_keys(array: zarr.Array[Any], region: Region) -> Iterator[str]:
    """Yield the names, within the array, of the objects that `region` is made of."""
    sizes, steps = array.shape, array.shards or array.chunks
    starts = (0,) * (array.ndim - 2) + (region.top, region.left)
    stops = (*sizes[:-2], region.top + region.height, region.left + region.width)
    ranges = (
        range(start // step, -(-stop // step))
        for start, stop, step in zip(starts, stops, steps, strict=True)
    )
    for place in itertools.product(*ranges):
        yield array.metadata.encode_chunk_key(place)


def open_physical(
    path: Path, *, chunks: Mapping[str, int], keep_stored: Sequence[str] = ()
) -> xr.Dataset:
    """Open a store lazily as dask arrays of `chunks`, scaled layers as float32 with NaN.

    Layers named in `keep_stored` stay as they are stored. A slice of the result reads only the
    chunks it needs: decoding lies below dask, where slices reach it.
    """
    stored: xr.Dataset = xr.open_zarr(path, chunks=None, mask_and_scale=False, decode_coords="all")
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
