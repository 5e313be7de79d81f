"""A NetCDF file or Zarr store in, layers over time out: (time, y, x) variables as stored."""

import contextlib
import functools
import re
import threading
import zlib
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj.exceptions import CRSError

from cube.classicnetcdf import classic_size
from cube.errors import InputError
from cube.grid import parse_crs
from cube.layers import Layers
from cube.warp import place

NETCDF_LIBRARY = threading.RLock()
"""Held around every use of the NetCDF library, which is not safe in threads: two that open files at
once crash the process. xarray locks reads of values, but not opening."""

_OPENED: dict[tuple[str, int], xr.Dataset] = {}
"""Files by path and version, never let go: one that is collected closes itself in whatever thread
that happens, outside the lock. xarray bounds how many are open at a time (128)."""

_STORE_FILES = ("zarr.json", ".zmetadata", ".zgroup")
"""Files of a Zarr store that change when its variables do."""


@dataclass(frozen=True, kw_only=True)
class ArrayFile:
    """A NetCDF file or Zarr store with (time, y, x) variables; a `StackFile`."""

    path: str
    """File or store."""
    time: str
    """Name of the time dimension."""
    y: str
    """Name of the y dimension."""
    x: str
    """Name of the x dimension."""
    crs: str | None
    """CRS where the file does not say it."""
    nodata: float | None
    """Fill value that overrides the file's own."""

    def names(self) -> frozenset[str]:
        """Variables with the three dimensions, in any order; `InputError` if there is none."""
        return _names(self, _stamp(self.path))

    def times(self, name: str) -> tuple[np.datetime64, ...]:
        """Time steps in ascending order; `InputError` unless they are dates."""
        return _times(self, _stamp(self.path))[0]

    def geobox(self, name: str) -> GeoBox:
        """Grid of the variable, north up; `InputError` if it is irregular or has no CRS."""
        return _grid(self, name, _stamp(self.path))

    def read(self, name: str, steps: range, window: GeoBox) -> Iterator[Layers]:
        """Yield the layer at `steps`, as one block, read by plain slicing."""
        stamp = _stamp(self.path)
        variable = open_array_file(self.path).variables[name]
        attributes = variable.attrs
        fill = attributes.get("_FillValue", attributes.get("missing_value", 0))
        placement = place(_grid(self, name, stamp), window)
        counts: np.ndarray = np.empty((len(steps), 0, 0), variable.dtype)
        if placement is not None and len(steps):
            rows, columns = self._as_stored(stamp, placement.rows, placement.columns)
            order = np.array(_times(self, stamp)[1][steps.start : steps.stop])
            part = variable.isel(
                {self.time: slice(order.min(), order.max() + 1), self.y: rows, self.x: columns}
            ).transpose(self.time, self.y, self.x)
            counts = _values(part, self.path, name)[order - order.min()]
            flips = _axes(self, stamp)
            counts = counts[:, :: flips[0][2], :: flips[1][2]]  # (time, row, column)
        if attributes.get("_Unsigned") == "true" and counts.dtype.kind == "i":
            # classic NetCDF has no unsigned types; its fill value is stored signed too
            counts = counts.astype(counts.dtype.newbyteorder("=")).view(f"u{counts.dtype.itemsize}")
            fill = int(fill) % 2 ** (8 * counts.dtype.itemsize)
        yield Layers(
            counts=counts,
            placement=placement,
            fill=float(fill if self.nodata is None else self.nodata),
            scale=_number(attributes, "scale_factor"),
            offset=_number(attributes, "add_offset"),
        )

    def _as_stored(self, stamp: int, rows: slice, columns: slice) -> tuple[slice, slice]:
        """Return the places in the file of a part of the north-up grid."""
        dataset = open_array_file(self.path)
        parts = []
        for part, dim, (_, _, sign) in zip(
            (rows, columns), (self.y, self.x), _axes(self, stamp), strict=True
        ):
            size = dataset.sizes[dim]
            parts.append(part if sign > 0 else slice(size - part.stop, size - part.start))
        return parts[0], parts[1]


def open_array_file(path: str) -> xr.Dataset:
    """Open a NetCDF file or Zarr store lazily, values as stored; once per process and version.

    Raises `InputError` if there is nothing to open.
    """
    key = (path, _stamp(path))
    with NETCDF_LIBRARY:
        if key not in _OPENED:
            _OPENED[key] = _open(path)
        return _OPENED[key]


def _stamp(path: str) -> int:
    """Return what changes when the file is replaced, so that nothing stale is taken for it."""
    place = Path(path)
    try:
        if not place.is_dir():
            return place.stat().st_mtime_ns
        files = [place / name for name in _STORE_FILES]
        return max((file.stat().st_mtime_ns for file in files if file.exists()), default=0)
    except (OSError, ValueError) as error:
        raise InputError(f"source file {path!r} does not exist or cannot be opened") from error


def _open(path: str) -> xr.Dataset:
    try:
        if Path(path).is_dir():
            store: xr.Dataset = xr.open_zarr(
                path, chunks=None, mask_and_scale=False, consolidated=_is_consolidated(Path(path))
            )
            return store
        _refuse_cut_off(Path(path))
        return xr.open_dataset(path, engine="netcdf4", mask_and_scale=False, cache=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"source file {path!r} cannot be read as NetCDF or Zarr: {str(error)[:300]}"
        ) from error


def _refuse_cut_off(path: Path) -> None:
    needed, found = classic_size(path), path.stat().st_size
    if needed is not None and found < needed:
        raise ValueError(f"it has {found} of {needed} bytes, so it was cut off; fetch it again")


def _values(variable: xr.Variable, path: str, name: str) -> np.ndarray:
    """Read a variable; `InputError` where the file is damaged, which shows only now."""
    # Zarr's chunks are read side by side
    lock = contextlib.nullcontext() if Path(path).is_dir() else NETCDF_LIBRARY
    try:
        with lock:
            return np.asarray(variable.values)
    except (OSError, RuntimeError, ValueError, zlib.error) as error:
        raise InputError(
            f"variable {name!r} of {path!r} cannot be read: {str(error)[:300]}"
        ) from error


def _is_consolidated(store: Path) -> bool:
    if (store / ".zmetadata").exists():
        return True
    described = store / "zarr.json"
    return described.exists() and '"consolidated_metadata"' in described.read_text(encoding="utf-8")


@functools.lru_cache(maxsize=64)
def _names(file: ArrayFile, stamp: int) -> frozenset[str]:
    dims = {file.time, file.y, file.x}
    dataset = open_array_file(file.path)
    found = [str(name) for name, array in dataset.data_vars.items() if set(array.dims) == dims]
    if not found:
        shapes = {str(name): array.dims for name, array in dataset.data_vars.items()}
        raise InputError(
            f"{file.path!r} has no variable with dims {sorted(dims)}; found {str(shapes)[:300]}"
        )
    return frozenset(found)


@functools.lru_cache(maxsize=64)
def _times(
    file: ArrayFile, stamp: int
) -> tuple[tuple[np.datetime64, ...], tuple[np.signedinteger[Any], ...]]:
    """Return the time steps in ascending order, and their places in the file."""
    dataset = open_array_file(file.path)
    if file.time not in dataset.variables:
        raise InputError(f"{file.path!r} has no coordinates along {file.time!r}; dates are needed")
    values = _values(dataset.variables[file.time], file.path, file.time)
    if values.dtype.kind != "M" or np.isnat(values).any():
        raise InputError(f"dimension {file.time!r} of {file.path!r} holds no dates, or gaps")
    order = np.argsort(values, kind="stable")
    return tuple(values[order].astype("datetime64[ns]")), tuple(order)


@functools.lru_cache(maxsize=64)
def _axes(file: ArrayFile, stamp: int) -> tuple[tuple[float, float, int], tuple[float, float, int]]:
    """Return edge and step of rows and columns on the north-up grid, and -1 if stored reversed."""
    dataset = open_array_file(file.path)
    top, down = _regular_step(dataset, file.path, file.y)
    left, right = _regular_step(dataset, file.path, file.x)
    height, width = dataset.sizes[file.y], dataset.sizes[file.x]
    rows = (top, down, 1) if down < 0 else (top + height * down, -down, -1)
    columns = (left, right, 1) if right > 0 else (left + width * right, -right, -1)
    return rows, columns


@functools.lru_cache(maxsize=256)
def _grid(file: ArrayFile, name: str, stamp: int) -> GeoBox:
    dataset = open_array_file(file.path)
    crs = file.crs or _declared_crs(dataset, file.path, name)
    if crs is None:
        raise InputError(f"{file.path!r} does not say its CRS; set source.crs")
    (top, row_step, _), (left, column_step, _) = _axes(file, stamp)
    transform = Affine(column_step, 0, left, 0, row_step, top)
    shape = (dataset.sizes[file.y], dataset.sizes[file.x])
    return GeoBox(shape, transform, parse_crs(_plain_crs(crs)))


def _regular_step(dataset: xr.Dataset, path: str, dim: str) -> tuple[float, float]:
    """Return the outer edge and the step of pixel-centre coordinates along one dimension."""
    is_there = dim in dataset.variables
    centres = _values(dataset.variables[dim], path, dim) if is_there else np.empty(0)
    if centres.ndim != 1 or centres.dtype.kind not in "fiu" or len(centres) < 2:
        raise InputError(f"{path!r} has no coordinates along {dim!r}, at least two are needed")
    centres = centres.astype(np.float64)
    step = (centres[-1] - centres[0]) / (len(centres) - 1)
    if not step or not np.allclose(np.diff(centres), step, rtol=1e-3, atol=0):
        raise InputError(f"{path!r} is not on a regular grid along {dim!r}")
    return float(centres[0] - step / 2), float(step)


def _declared_crs(dataset: xr.Dataset, path: str, name: str) -> str | None:
    """Return the CRS of a variable as its CF grid mapping, or the file as a whole, states it."""
    variable = dataset[name]
    mapping = variable.attrs.get("grid_mapping", variable.encoding.get("grid_mapping"))
    for candidate in (_first_mapping(mapping), "spatial_ref", "crs"):
        attributes = dataset[candidate].attrs if candidate in dataset.variables else {}
        for key in ("crs_wkt", "spatial_ref"):
            if key in attributes:
                return str(attributes[key])
        if "grid_mapping_name" in attributes:
            try:
                return pyproj.CRS.from_cf(attributes).to_wkt()
            except (CRSError, KeyError, TypeError) as error:
                raise InputError(
                    f"{path!r}: grid mapping {candidate!r} is no CRS; set source.crs"
                ) from error
    return str(dataset.attrs["crs"]) if "crs" in dataset.attrs else None


def _first_mapping(mapping: object) -> Hashable:
    # CF 1.7 also allows "utm: x y lonlat: lon lat", the horizontal one first
    return str(mapping).split(":", maxsplit=1)[0].strip() if mapping is not None else None


def _plain_crs(text: str) -> str:
    # "+init=epsg:32631" is what older writers stored; PROJ warns about it at every use
    found = re.fullmatch(r"\+?init=(epsg:\d+).*", text.strip(), flags=re.IGNORECASE | re.DOTALL)
    return found[1].upper() if found else text


def _number(attributes: dict[Any, Any], key: str) -> float | None:
    return float(attributes[key]) if key in attributes else None
