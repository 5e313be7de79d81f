"""A `CubeSpec` in, a Zarr store out: allocate it whole, write tiles into it, open it again."""

import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from jaxtyping import Float32, Int16, UInt16
from numcodecs import Blosc
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from zarr.codecs import BloscCodec, BloscShuffle

from cube.bands import BANDS, NODATA, SCALE
from cube.errors import InputError
from cube.spec import CubeSpec, Region

SCHEMA = 1
"""Version of the cube's layout; a store of another version is refused."""

GRID_MAPPING = "spatial_ref"
"""Name of the CF grid-mapping variable, the one rioxarray, odc-geo and GDAL look for."""


def create_cube(path: Path, spec: CubeSpec, *, title: str = "canopycube") -> None:
    """Allocate an empty cube at `path`: every month, band and coordinate, all pixels nodata.

    A cube that is there already with the same spec is left as it is, so that a run can resume.
    Raises `InputError` if `path` holds anything else.
    """
    if path.exists() or path.is_symlink():
        _refuse_other_cube(path, spec)
        return
    variables = {
        "reflectance": StoredVariable(
            dims=("time", "band", "y", "x"),
            shape=spec.shape,
            dtype="int16",
            fill_value=NODATA,
            chunks=spec.chunks,
            shards=spec.shards,
            attributes={
                "long_name": "Sentinel-2 L2A surface reflectance, monthly median of clear looks",
                "scale_factor": SCALE,
                "add_offset": 0.0,
                "units": "1",
                "band_units": {band: BANDS[band].unit for band in spec.bands},
            },
        ),
        "clear_count": StoredVariable(
            dims=("time", "y", "x"),
            shape=(spec.shape[0], *spec.shape[2:]),
            dtype="uint16",
            fill_value=0,
            has_nodata=False,
            chunks=(1, spec.chunk, spec.chunk),
            shards=(spec.shape[0], spec.tile, spec.tile) if spec.sharded else None,
            attributes={"long_name": "clear looks behind each composite value", "units": "1"},
        ),
    }
    months = np.array([month.start for month in spec.months]).astype("datetime64[D]")
    create_store(
        path,
        geobox=spec.geobox,
        variables=variables,
        coordinates={
            "time": (
                months.astype(np.int64),
                {
                    "standard_name": "time",
                    "axis": "T",
                    "units": "days since 1970-01-01",
                    "calendar": "proleptic_gregorian",
                    "long_name": "first day of the calendar month (UTC)",
                },
            ),
            "band": (np.array(spec.bands, dtype=object), {"long_name": "Sentinel-2 band"}),
        },
        attributes={
            "Conventions": "CF-1.11",
            "title": title,
            "canopycube": {"schema": SCHEMA, "kind": "cube", "spec": spec.to_json()},
        },
        zarr_format=spec.zarr_format,
    )


class StoredVariable:
    """How one variable lies in a store: dims, shape, dtype, nodata, chunks, attributes."""

    def __init__(
        self,
        *,
        dims: tuple[str, ...],
        shape: tuple[int, ...],
        dtype: str,
        fill_value: int | float,
        chunks: tuple[int, ...],
        shards: tuple[int, ...] | None = None,
        has_nodata: bool = True,
        attributes: Mapping[str, Any],
    ) -> None:
        self.dims, self.shape, self.dtype = dims, shape, dtype
        self.fill_value, self.has_nodata = fill_value, has_nodata
        self.shards = shards
        # A chunk larger than the raster is cut to it, unless shards need it whole.
        self.chunks = chunks if shards else tuple(map(min, chunks, (max(n, 1) for n in shape)))
        self.attributes = dict(attributes)


def create_store(
    path: Path,
    *,
    geobox: GeoBox,
    variables: Mapping[str, StoredVariable],
    coordinates: Mapping[str, tuple[np.ndarray, dict[str, Any]]],
    attributes: Mapping[str, Any],
    zarr_format: Literal[2, 3],
) -> None:
    """Allocate a georeferenced Zarr store; it appears at `path` whole or not at all.

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
    coordinates: Mapping[str, tuple[np.ndarray, dict[str, Any]]],
    attributes: Mapping[str, Any],
    zarr_format: Literal[2, 3],
) -> None:
    group = zarr.create_group(draft, zarr_format=zarr_format, attributes=dict(attributes))
    for name, coordinate in xr_coords(geobox, crs_coord_name=GRID_MAPPING).items():
        attrs = {key: _plain(value) for key, value in coordinate.attrs.items()}
        _write_coordinate(group, str(name), coordinate.dims, coordinate.values, attrs)
    for name, (values, attrs) in coordinates.items():
        _write_coordinate(group, name, (name,), values, attrs)
    for name, variable in variables.items():
        _allocate(group, name, variable)
    with warnings.catch_warnings():
        # Consolidated metadata is an extension in format 3; without it xr.open_zarr warns instead.
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(draft, zarr_format=zarr_format)


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
        chunks=variable.chunks,
        shards=variable.shards,
        fill_value=None if is_never_nodata else variable.fill_value,
        compressors=compressor,
        **_named_dims(group, variable.dims, attributes),
    )


def read_spec(path: Path) -> CubeSpec:
    """Return the spec of the cube at `path`; `InputError` if there is none or it is too new."""
    described = read_attributes(path, kind="cube").get("spec")
    if not isinstance(described, dict):
        raise InputError(f"the cube at {str(path)!r} is damaged: its description is missing")
    return CubeSpec.from_json(described)


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
            f"{str(path)!r} has layout version {ours.get('schema')!r}; this version reads {SCHEMA}"
        )
    return ours


def _refuse_other_cube(path: Path, spec: CubeSpec) -> None:
    stored, wanted = read_spec(path).to_json(), spec.to_json()
    if different := [key for key, value in wanted.items() if stored.get(key) != value]:
        key = different[0]
        raise InputError(
            f"{str(path)!r} is a cube with other {', '.join(different)} "
            f"(stored {key}={str(stored.get(key))[:60]!r}, asked {str(wanted[key])[:60]!r}); "
            "remove it or choose another output folder"
        )


def write_region(
    path: Path,
    region: Region,
    reflectance: Int16[np.ndarray, "time band y x"],
    clear_count: UInt16[np.ndarray, "time y x"],
) -> None:
    """Write one tile of a cube, whole shards or chunks; writing it twice changes nothing.

    Raises `ValueError` for a region that cuts a stored object, or blocks of another shape: such a
    write would lose what a neighbour writes at the same time, or be stretched over the tile.
    """
    group = zarr.open_group(path, mode="r+")
    for name, block in (("reflectance", reflectance), ("clear_count", clear_count)):
        write_whole(_array(group, name), region, block)


def write_whole(array: zarr.Array[Any], region: Region, block: np.ndarray) -> None:
    """Write `block` (…, y, x) at `region` of a stored array, which must be whole stored objects.

    Raises `ValueError` for a region that cuts an object, and for a block of another shape.
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
    array[..., region.rows, region.columns] = block


def read_region(
    path: Path, region: Region, *, months: slice = slice(None)
) -> tuple[Int16[np.ndarray, "time band y x"], UInt16[np.ndarray, "time y x"]]:
    """Read one tile of a cube as it is stored."""
    group = zarr.open_group(path, mode="r")
    reflectance = _array(group, "reflectance")[months, :, region.rows, region.columns]
    clear_count = _array(group, "clear_count")[months, region.rows, region.columns]
    return np.asarray(reflectance), np.asarray(clear_count)


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)  # we allocated it
    return array


def open_cube(path: str | Path) -> xr.Dataset:
    """Open a cube lazily, ready for `.sel(time=…, band=…)`, `.rio` and `.odc`.

    `reflectance (time, band, y, x)` is float32, physical (0..1 for reflectance), NaN where no
    look was clear; `clear_count (time, y, x)` is the number of clear looks. Both are dask arrays
    with one chunk per tile and month. `ds.attrs["canopycube"]` describes the cube.

    Raises `InputError` if there is no cube at `path`.
    """
    path = Path(path)
    read_spec(path)
    stored = open_stored_cube(path)
    reflectance = stored["reflectance"]
    decoded = reflectance.copy(data=decode(reflectance.data))
    for key in ("scale_factor", "add_offset", "_FillValue"):
        decoded.attrs.pop(key, None)
    return stored.assign(reflectance=decoded)


def open_stored_cube(path: str | Path, *, whole_series: bool = False) -> xr.Dataset:
    """Open a cube lazily with `reflectance` as stored: int16 units of 1e-4, nodata -32768.

    One dask chunk per tile and month, or with `whole_series` one per tile with all months.
    """
    path = Path(path)
    spec = read_spec(path)
    chunks = {"time": -1 if whole_series else 1, "band": -1, "y": spec.tile, "x": spec.tile}
    # xarray alone would decode to float64: twice the memory for values of five digits
    stored: xr.Dataset = xr.open_zarr(
        path, chunks=chunks, mask_and_scale=False, decode_coords="all"
    )
    stored = stored.assign_coords(band=np.array(spec.bands))
    for name in ("reflectance", "clear_count"):
        stored[name].encoding.pop("chunks", None)  # the tile's chunks, not the store's, are ours
    return stored


def decode(stored: Any) -> Any:
    """Return stored int16 units as float32 physical values, NaN for nodata; lazy if `stored` is."""
    if isinstance(stored, da.Array):
        return da.map_blocks(decode_block, stored, dtype=np.float32)
    return decode_block(stored)


def decode_block(stored: Int16[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Return stored units as float32 physical values, NaN for nodata."""
    values = stored * np.float32(SCALE)
    values[stored == NODATA] = np.nan
    return values
