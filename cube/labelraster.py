"""A label raster in, labelled cells of the cube's grid out: GeoTIFF or NetCDF, read window by window."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import rasterio
import xarray as xr
from affine import Affine
from jaxtyping import Bool, Float64, Int64
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.windows import Window
from rioxarray.exceptions import RioXarrayError  # importing rioxarray registers .rio
from scipy import ndimage

from cube.arrayfile import NETCDF_LIBRARY
from cube.cells import cell_centres, pixel_coordinates
from cube.errors import InputError
from cube.labels import ReferenceOptions, file_crs

RASTER_SUFFIXES = (".tif", ".tiff", ".vrt", ".img")
"""Files read as a label raster through GDAL."""

NETCDF_SUFFIXES = (".nc", ".nc4", ".h5")
"""Files read as a label raster through xarray."""

PATCH_BLOCK = 1000.0
"""Metres. Connected patches are cut at multiples of this in the cube's CRS, see `labelled_windows`."""

_WINDOW_BLOCKS = 8
_SOURCE_PIXELS = 32_000_000
_MAX_VALUES = 1000


@contextmanager
def open_label_raster(options: ReferenceOptions) -> Iterator[tuple[DatasetReader, CRS]]:
    """Open the label raster of `options` and yield it with its CRS.

    Raises `InputError` if it cannot be read, has no such band or variable, or has no CRS.
    """
    path = options.file
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # said below, by its CRS
            if path.suffix.lower() in NETCDF_SUFFIXES:
                with _netcdf_in_memory(options) as memory, memory.open() as source:
                    yield source, file_crs(options, source.crs and source.crs.to_wkt())
                return
            with rasterio.open(path) as source:
                if options.band > source.count:
                    raise InputError(
                        f"label raster {str(path)!r} has {source.count} bands; asked was band {options.band}"
                    )
                yield source, file_crs(options, source.crs and source.crs.to_wkt())
    except RasterioError as error:
        raise InputError(f"label raster {str(path)!r} cannot be read: {error}") from error


def _netcdf_in_memory(options: ReferenceOptions) -> MemoryFile:
    """Copy one (y, x) variable of a NetCDF file into a GeoTIFF in memory."""
    with NETCDF_LIBRARY:
        return _copy_netcdf(options)


def _copy_netcdf(options: ReferenceOptions) -> MemoryFile:
    path = options.file
    try:
        dataset = xr.open_dataset(path, engine="netcdf4", mask_and_scale=False, decode_times=False)
    except (OSError, ValueError) as error:
        raise InputError(f"label raster {str(path)!r} cannot be read as NetCDF: {error}") from error
    with dataset:
        # decode_coords="all" would do this, but trips over a foreign attribute called `bounds`
        grid_mappings = [name for name, array in dataset.data_vars.items() if array.ndim == 0]
        dataset = dataset.set_coords(grid_mappings)
        rasters = [str(name) for name, array in dataset.data_vars.items() if array.ndim == 2]
        name = options.variable or (rasters[0] if len(rasters) == 1 else None)
        if name is None or name not in rasters:
            asked = f"no raster {name!r}" if name else f"{len(rasters)} rasters and none is chosen"
            raise InputError(
                f"label raster {str(path)!r} has {asked}; set variable to one of {', '.join(rasters)}"
            )
        array = dataset[name]
        values = array.values
        if values.dtype.kind not in "iuf":
            raise InputError(
                f"label raster {str(path)!r}: {name} holds {values.dtype}, not numbers"
            )
        values = values.astype(np.float64) if values.dtype.itemsize > 4 else values
        transform = _coordinate_transform(options, array)
        memory = MemoryFile()
        with memory.open(
            driver="GTiff",
            height=values.shape[0],
            width=values.shape[1],
            count=1,
            dtype=values.dtype,
            crs=array.rio.crs,
            transform=transform,
            nodata=array.attrs.get("_FillValue", array.attrs.get("missing_value")),
        ) as target:
            target.write(values, 1)
        return memory


def _coordinate_transform(options: ReferenceOptions, array: xr.DataArray) -> Affine:
    """Return the transform of a NetCDF raster; its coordinates must be evenly spaced centres."""
    try:
        axes = [array[str(dim)].values.astype(float) for dim in (array.rio.x_dim, array.rio.y_dim)]
        transform: Affine = array.rio.transform()
    except (RioXarrayError, KeyError, ValueError) as error:
        raise InputError(
            f"label raster {str(options.file)!r}: {array.name} has no x and y coordinates: {error}"
        ) from error
    for axis, step in zip(axes, (transform.a, transform.e), strict=True):
        if not np.allclose(np.diff(axis), step, rtol=0, atol=abs(step) * 1e-3):
            raise InputError(
                f"label raster {str(options.file)!r}: the coordinates of {array.name} are unevenly spaced"
            )
    return transform


def labelled_windows(
    options: ReferenceOptions, geobox: GeoBox
) -> Iterator[
    tuple[Int64[np.ndarray, " cell"], Int64[np.ndarray, " cell"], Int64[np.ndarray, " cell"], int]
]:
    """Yield (cell, value, group, cells inside the raster) for one window of the grid after another.

    A cell takes the raster pixel that contains the cell's centre (nearest neighbour, exact: the
    centre is transformed on its own, without GDAL's approximated warp). `cell` is row * width +
    column. `group` is the first cell of the connected patch (equal value, shared edges) that
    holds the cell.

    Patches are cut at lines every `PATCH_BLOCK` metres of the cube's CRS. A patch is what a
    polygon would be, a field or a stand; uncut, one forest over the whole raster would be a single
    group, which no grouped split can divide, and could only be found with the raster in memory.

    Raises `InputError` if the raster cannot be read or its values are no class numbers.
    """
    width = geobox.shape[1]
    seen: set[int] = set()
    with open_label_raster(options) as (source, crs):
        transformer = Transformer.from_crs(geobox.crs, crs, always_xy=True)
        row_edges, column_edges = patch_edges(geobox)
        for top, bottom in pairwise(row_edges):
            for first in range(0, len(column_edges) - 1, _WINDOW_BLOCKS):
                edges = column_edges[first : first + _WINDOW_BLOCKS + 1]
                rows, columns = np.meshgrid(
                    np.arange(top, bottom), np.arange(edges[0], edges[-1]), indexing="ij"
                )
                x, y = transformer.transform(*cell_centres(geobox, rows, columns))
                values, is_labelled, inside = _values_at(source, options, x, y)
                if not inside:
                    continue
                values = _as_class_numbers(options, values, is_labelled)
                seen.update(np.unique(values[is_labelled]).tolist())
                if len(seen) > _MAX_VALUES:
                    raise InputError(
                        f"label raster {str(options.file)!r} holds more than {_MAX_VALUES} different "
                        "values; that is no raster of classes, choose another band or variable"
                    )
                groups = np.empty_like(rows)
                for left, right in pairwise(edges - edges[0]):
                    part = np.s_[:, left:right]
                    cells = rows[part] * width + columns[part]
                    groups[part] = connected_patches(values[part], is_labelled[part], cells)
                chosen = is_labelled & (rows % options.every == 0) & (columns % options.every == 0)
                cell = (rows * width + columns)[chosen]
                yield cell, values[chosen], groups[chosen], inside


def patch_edges(
    geobox: GeoBox,
) -> tuple[Int64[np.ndarray, " row_edge"], Int64[np.ndarray, " column_edge"]]:
    """Return the row and column edges of the blocks of `PATCH_BLOCK` metres over a grid."""
    height, width = geobox.shape
    x, _ = cell_centres(geobox, np.zeros(width), np.arange(width))
    _, y = cell_centres(geobox, np.arange(height), np.zeros(height))

    def edges(centres: Float64[np.ndarray, " cell"]) -> Int64[np.ndarray, " edge"]:
        inner = np.flatnonzero(np.diff(np.floor(centres / PATCH_BLOCK))) + 1
        return np.array([0, *inner, centres.size])

    return edges(y), edges(x)


def connected_patches(
    values: Int64[np.ndarray, "y x"],
    is_labelled: Bool[np.ndarray, "y x"],
    cells: Int64[np.ndarray, "y x"],
) -> Int64[np.ndarray, "y x"]:
    """Return for each labelled cell the first of `cells` in its connected patch; -1 elsewhere."""
    first = np.full(values.shape, -1, dtype=np.int64)
    for value in np.unique(values[is_labelled]):
        numbered, count = ndimage.label((values == value) & is_labelled)
        if count:
            least = ndimage.minimum(cells, numbered, np.arange(1, count + 1))
            is_here = numbered > 0
            first[is_here] = np.asarray(least, dtype=np.int64)[numbered[is_here] - 1]
    return first


def _values_at(
    source: DatasetReader,
    options: ReferenceOptions,
    x: Float64[np.ndarray, "y x"],
    y: Float64[np.ndarray, "y x"],
) -> tuple[np.ndarray, Bool[np.ndarray, "y x"], int]:
    """Return values, whether they are labels, and how many of the places lie in the raster."""
    transform: Affine = source.transform
    column, row = (np.floor(part) for part in pixel_coordinates(transform, x, y))
    inside = (column >= 0) & (column < source.width) & (row >= 0) & (row < source.height)
    values = np.zeros(x.shape, dtype=source.dtypes[options.band - 1])
    if not inside.any():
        return values, inside, 0
    top, left = int(row[inside].min()), int(column[inside].min())
    height = int(row[inside].max()) - top + 1
    width = int(column[inside].max()) - left + 1
    if height * width > _SOURCE_PIXELS and x.size > 1:
        # a raster much finer than the cube: halve the window until the read fits in memory
        axis = int(x.shape[1] > x.shape[0])
        halves = [
            _values_at(source, options, *pair)
            for pair in zip(np.array_split(x, 2, axis), np.array_split(y, 2, axis), strict=True)
        ]
        return (
            np.concatenate([half[0] for half in halves], axis),
            np.concatenate([half[1] for half in halves], axis),
            sum(half[2] for half in halves),
        )
    window = Window(left, top, width, height)
    block = source.read(options.band, window=window)
    mask = source.read_masks(options.band, window=window)
    at = (row[inside].astype(np.int64) - top, column[inside].astype(np.int64) - left)
    values[inside] = block[at]
    is_labelled = np.zeros(x.shape, dtype=bool)
    is_labelled[inside] = mask[at] != 0
    if options.nodata is not None:
        is_labelled &= values != options.nodata
    return values, is_labelled, int(inside.sum())


def _as_class_numbers(
    options: ReferenceOptions, values: np.ndarray, is_labelled: Bool[np.ndarray, "y x"]
) -> Int64[np.ndarray, "y x"]:
    if values.dtype.kind == "f":
        is_labelled &= ~np.isnan(values)
        found = values[is_labelled]
        if odd := found[~(np.isfinite(found) & (found == np.floor(found)))][:1].tolist():
            raise InputError(
                f"label raster {str(options.file)!r} holds {odd[0]:g}; classes must be whole numbers"
            )
        values = np.where(is_labelled, values, 0)
    return values.astype(np.int64)
