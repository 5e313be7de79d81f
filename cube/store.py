"""A `CubeSpec` in, a Zarr store out: allocate it whole, write tiles into it, open it again."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import rioxarray  # noqa: F401 - gives what `open_cube` returns its `.rio`
import xarray as xr
import zarr
from jaxtyping import Float32, Int16, UInt8, UInt16

from cube.bands import BANDS, NODATA, SCALE
from cube.errors import InputError
from cube.periods import stored_times
from cube.place import Place, as_place, count_there, zarr_place
from cube.shard import decode_shard
from cube.spec import CubeSpec, Region
from cube.storedfiles import count_objects, stored_files, write_whole
from cube.zarrstore import (
    SCHEMA,
    StoredVariable,
    create_store,
    open_physical,
    read_attributes,
    stored_array,
)

NO_LOOK = 255
"""Clear share of a pixel at which no look of the period had data."""

LOOKS_LOST = 254
"""Clear share of a pixel whose looks could not be read, so that nobody knows."""

_LAYERS: dict[str, dict[str, Any]] = {
    "clear_count": {
        "dtype": "uint16",
        "fill_value": 0,
        "has_nodata": False,
        "attributes": {"long_name": "clear looks behind each composite value", "units": "1"},
    },
    "clear_share": {
        "dtype": "uint8",
        "fill_value": NO_LOOK,
        "attributes": {
            "long_name": "share of the looks with data that were clear",
            "units": "%",
            "valid_range": [0, 100],
            "flag_values": [LOOKS_LOST, NO_LOOK],
            "flag_meanings": "looks_lost no_look",
        },
    },
    "mean_day": {
        "dtype": "uint16",
        "fill_value": 0,
        "attributes": {
            "long_name": "day of the year of the mean date of the clear looks (UTC)",
            "units": "1",
            "flag_values": [0],
            "flag_meanings": "no_clear_look",
        },
    },
    "is_filled": {
        "dtype": "uint8",
        "fill_value": 0,
        "has_nodata": False,
        "attributes": {
            "long_name": "whether the value was filled in from other dates of the pixel",
            "units": "1",
            "flag_values": [0, 1],
            "flag_meanings": "seen_or_missing filled",
        },
    },
}
"""What a cube says of each pixel and period, beside its reflectance."""

_AS_STORED = ("clear_share", "mean_day")
"""Layers whose flags would be lost as NaN."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CubeBlocks:
    """The pixels of one tile, as they are stored."""

    reflectance: Int16[np.ndarray, "time band y x"]
    """Units of 1e-4; `NODATA` where no look was clear."""
    clear_count: UInt16[np.ndarray, "time y x"]
    """Number of clear looks."""
    clear_share: UInt8[np.ndarray, "time y x"]
    """Per cent of the looks with data that were clear; else `NO_LOOK` or `LOOKS_LOST`."""
    mean_day: UInt16[np.ndarray, "time y x"]
    """Day of the year, 1..366, of the mean date of the clear looks; 0 where there is none."""
    is_filled: UInt8[np.ndarray, "time y x"]
    """1 where the reflectance was filled in from other dates of the pixel, else 0."""

    @classmethod
    def empty(cls, times: int, bands: int, height: int, width: int) -> "CubeBlocks":
        """Return blocks to be filled: as a cube reads where nothing was written."""
        size = (times, height, width)
        return cls(
            reflectance=np.full((times, bands, height, width), NODATA, np.int16),
            clear_count=np.zeros(size, np.uint16),
            clear_share=np.full(size, NO_LOOK, np.uint8),
            mean_day=np.zeros(size, np.uint16),
            is_filled=np.zeros(size, np.uint8),
        )

    @property
    def layers(self) -> dict[str, np.ndarray]:
        """Every block by the name of its variable."""
        return dict(vars(self))


def clear_share(
    clear_count: UInt16[np.ndarray, "y x"],
    seen_count: UInt16[np.ndarray, "y x"],
    *,
    has_lost: bool = False,
) -> UInt8[np.ndarray, "y x"]:
    """Return the per cent of looks with data that were clear, `NO_LOOK` where none had data.

    Rounded, but 1 to 99 wherever some looks were clear and some were not. If the period `has_lost`
    looks, a pixel without any is `LOOKS_LOST`: nobody knows what they would have shown.
    """
    share = np.rint(clear_count * np.float32(100) / np.maximum(seen_count, 1))
    is_mixed = (clear_count > 0) & (clear_count < seen_count)
    share = np.where(is_mixed, np.clip(share, 1, 99), share)
    return np.where(seen_count > 0, share, LOOKS_LOST if has_lost else NO_LOOK).astype(np.uint8)


def create_cube(path: Place, spec: CubeSpec, *, title: str = "canopycube") -> None:
    """Allocate an empty cube at `path`: every period, band and coordinate, all pixels nodata.

    A cube that is there already with the same spec is left as it is, so that a run can resume.
    Raises `InputError` if `path` holds anything else.
    """
    if path.exists() or path.is_symlink():
        refuse_other_cube(path, spec)
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
                "long_name": "surface reflectance, composite of the clear looks of each period",
                "scale_factor": SCALE,
                "add_offset": 0.0,
                "units": "1",
                "coordinates": "period",
                "band_units": {band: BANDS[band].unit for band in spec.bands},
            },
        ),
    }
    for name, layer in _LAYERS.items():
        variables[name] = StoredVariable(
            dims=("time", "y", "x"),
            shape=(spec.shape[0], *spec.shape[2:]),
            chunks=(1, spec.chunk, spec.chunk),
            shards=(spec.shape[0], spec.tile, spec.tile) if spec.sharded else None,
            **{**layer, "attributes": {**layer["attributes"], "coordinates": "period"}},
        )
    times, encoding = stored_times([period.start for period in spec.periods])
    create_store(
        path,
        geobox=spec.geobox,
        variables=variables,
        coordinates={
            "time": (
                "time",
                times,
                {
                    "standard_name": "time",
                    "axis": "T",
                    "long_name": "start of the period (UTC)",
                    **encoding,
                },
            ),
            "period": (
                "time",
                np.array([str(period) for period in spec.periods], dtype=object),
                {"long_name": "month, days (both included) or instant of the period (UTC)"},
            ),
            "band": ("band", np.array(spec.bands, dtype=object), {"long_name": "band"}),
        },
        attributes={
            "Conventions": "CF-1.11",
            "title": title,
            "canopycube": {"schema": SCHEMA, "kind": "cube", "spec": spec.to_json()},
        },
        zarr_format=spec.zarr_format,
    )


def read_spec(path: Place) -> CubeSpec:
    """Return the spec of the cube at `path`; `InputError` if there is none or it is too new."""
    described = read_attributes(path, kind="cube").get("spec")
    if not isinstance(described, dict):
        raise InputError(f"the cube at {str(path)!r} is damaged: its description is missing")
    return CubeSpec.from_json(described)


def refuse_other_cube(path: Place, spec: CubeSpec, *, ignoring: tuple[str, ...] = ()) -> None:
    """Raise `InputError` if what lies at `path` is no cube of this spec, but for parts `ignoring`."""
    stored, wanted = read_spec(path).to_json(), spec.to_json()
    if different := [
        key for key, value in wanted.items() if key not in ignoring and stored.get(key) != value
    ]:
        key = different[0]
        raise InputError(
            f"{str(path)!r} is a cube with other {', '.join(different)} "
            f"(stored {key}={str(stored.get(key))[:60]!r}, asked {str(wanted[key])[:60]!r}); "
            "remove it or choose another output folder"
        )


def write_region(path: Place, region: Region, blocks: CubeBlocks) -> None:
    """Write one tile of a cube, whole shards or chunks; writing it twice changes nothing.

    Raises `ValueError` for a region that cuts a stored object, or blocks of another shape: such a
    write would lose what a neighbour writes at the same time, or be stretched over the tile.
    """
    group = zarr.open_group(zarr_place(path), mode="r+")
    for name, block in blocks.layers.items():
        write_whole(stored_array(group, name), region, block)


def read_region(
    path: Place, region: Region, *, out: Int16[np.ndarray, "time band y x"] | None = None
) -> Int16[np.ndarray, "time band y x"]:
    """Read the reflectance of one tile, or of any other rectangle, as it is stored.

    Into `out` where that is given: memory that a caller has for one tile after the other.
    """
    array = stored_array(zarr.open_group(zarr_place(path), mode="r"), "reflectance")
    return _pixels(array, region, out=out)


def _pixels(array: zarr.Array[Any], region: Region, *, out: np.ndarray | None = None) -> np.ndarray:
    """Read (…, y, x) of a region as it is stored; one shard is decoded without Zarr, which is faster."""
    files = stored_files(array, region)
    pixels = decode_shard(array, files[0], region, out=out) if len(files) == 1 else None
    if pixels is not None:
        return pixels
    read = np.asarray(array[..., region.rows, region.columns])
    if out is None:
        return read
    out[...] = read
    return out


def read_blocks(path: Place, region: Region) -> CubeBlocks:
    """Read every layer of one tile as it is stored: what `write_region` was given."""
    group = zarr.open_group(zarr_place(path), mode="r")
    names = ("reflectance", *_LAYERS)
    return CubeBlocks(**{name: _pixels(stored_array(group, name), region) for name in names})


def count_files(path: Place, region: Region) -> int:
    """Return how many files or objects of a cube hold pixels of a tile; one all nodata has none.

    What a record of the tile keeps, to notice a file that was lost, which reads as nodata.
    """
    group = zarr.open_group(zarr_place(path), mode="r")
    arrays = (stored_array(group, name) for name in ("reflectance", *_LAYERS))
    return count_there(file for array in arrays for file in stored_files(array, region))


def count_files_by_tile(path: Place) -> Counter[tuple[int, int]]:
    """Return what `count_files` says of each tile that has files, by the tile's row and column.

    Lists the cube once instead of asking for each file: what a run does before it begins.
    """
    group, tile = zarr.open_group(zarr_place(path), mode="r"), read_spec(path).tile
    arrays = (stored_array(group, name) for name in ("reflectance", *_LAYERS))
    return sum((count_objects(array, tile) for array in arrays), Counter[tuple[int, int]]())


def open_cube(path: str | Place) -> xr.Dataset:
    """Open a cube lazily, ready for `.sel(time=…, band=…)`, `.rio` and `.odc`.

    `path` may be an address of an object store, as `s3://bucket/folder/cube.zarr`.

    `reflectance (time, band, y, x)` is float32, physical (0..1 for reflectance), NaN where no
    look was clear. Of each (time, y, x), `clear_count` is the number of clear looks, `clear_share`
    their per cent of the looks with data (uint8; 255 where no look had data, 254 where looks were
    lost) and `mean_day` the day of the year of their mean date (uint16; 0 without any). All are
    dask arrays with one chunk per tile and period. `time` is the start of each period, `period
    (time)` its name. `ds.attrs["canopycube"]` describes the cube.

    Raises `InputError` if there is no cube at `path`.
    """
    return _opened(as_place(path), periods_at_once=1, keep_stored=_AS_STORED)


def open_stored_cube(path: str | Place) -> xr.Dataset:
    """Open a cube lazily with `reflectance` as stored: int16 units of 1e-4, nodata -32768.

    One dask chunk per tile with all its periods: what a task that classifies a tile reads.
    """
    return _opened(as_place(path), periods_at_once=-1, keep_stored=("reflectance", *_AS_STORED))


def _opened(path: Place, *, periods_at_once: int, keep_stored: tuple[str, ...]) -> xr.Dataset:
    spec = read_spec(path)
    chunks = {"time": periods_at_once, "band": -1, "y": spec.tile, "x": spec.tile}
    cube = open_physical(path, chunks=chunks, keep_stored=keep_stored)
    names = np.array([str(period) for period in spec.periods])
    return cube.assign_coords(band=np.array(spec.bands), period=("time", names))


def decode(stored: Int16[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Return stored units as float32 physical values, NaN for nodata."""
    values = stored * np.float32(SCALE)
    values[stored == NODATA] = np.nan
    return values
