"""A `CubeSpec` in, a Zarr store out: allocate it whole, write tiles into it, open it again."""

from pathlib import Path

import numpy as np
import rioxarray  # noqa: F401 - gives what `open_cube` returns its `.rio`
import xarray as xr
import zarr
from jaxtyping import Float32, Int16, UInt16

from cube.bands import BANDS, NODATA, SCALE
from cube.errors import InputError
from cube.spec import CubeSpec, Region
from cube.zarrstore import (
    SCHEMA,
    StoredVariable,
    create_store,
    open_physical,
    read_attributes,
    stored_array,
    stored_files,
    write_whole,
)


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


def read_spec(path: Path) -> CubeSpec:
    """Return the spec of the cube at `path`; `InputError` if there is none or it is too new."""
    described = read_attributes(path, kind="cube").get("spec")
    if not isinstance(described, dict):
        raise InputError(f"the cube at {str(path)!r} is damaged: its description is missing")
    return CubeSpec.from_json(described)


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
        write_whole(stored_array(group, name), region, block)


def read_region(path: Path, region: Region) -> Int16[np.ndarray, "time band y x"]:
    """Read the reflectance of one tile as it is stored."""
    array = stored_array(zarr.open_group(path, mode="r"), "reflectance")
    return np.asarray(array[:, :, region.rows, region.columns])


def count_files(path: Path, region: Region) -> int:
    """Return how many files of a cube hold pixels of a tile; a tile all nodata has none.

    What a record of the tile keeps, to notice a file that was lost, which reads as nodata.
    """
    group = zarr.open_group(path, mode="r")
    files = [
        stored_files(stored_array(group, name), region) for name in ("reflectance", "clear_count")
    ]
    return sum(file.exists() for part in files for file in part or [])


def open_cube(path: str | Path) -> xr.Dataset:
    """Open a cube lazily, ready for `.sel(time=…, band=…)`, `.rio` and `.odc`.

    `reflectance (time, band, y, x)` is float32, physical (0..1 for reflectance), NaN where no
    look was clear; `clear_count (time, y, x)` is the number of clear looks. Both are dask arrays
    with one chunk per tile and month. `ds.attrs["canopycube"]` describes the cube.

    Raises `InputError` if there is no cube at `path`.
    """
    spec = read_spec(Path(path))
    chunks = {"time": 1, "band": -1, "y": spec.tile, "x": spec.tile}
    cube = open_physical(Path(path), chunks=chunks)
    return cube.assign_coords(band=np.array(spec.bands))


def open_stored_cube(path: str | Path) -> xr.Dataset:
    """Open a cube lazily with `reflectance` as stored: int16 units of 1e-4, nodata -32768.

    One dask chunk per tile with all its months: what a task that classifies a tile reads.
    """
    spec = read_spec(Path(path))
    chunks = {"time": -1, "band": -1, "y": spec.tile, "x": spec.tile}
    cube = open_physical(Path(path), chunks=chunks, keep_stored=("reflectance",))
    return cube.assign_coords(band=np.array(spec.bands))


def decode(stored: Int16[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Return stored units as float32 physical values, NaN for nodata."""
    values = stored * np.float32(SCALE)
    values[stored == NODATA] = np.nan
    return values
