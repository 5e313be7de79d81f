"""Scenes the user already has in, looks out: NetCDF or Zarr stacks, folders of dated GeoTIFFs."""

import datetime as dt
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pyproj
import rasterio
import xarray as xr
from affine import Affine
from jaxtyping import Bool, Int16, Shaped
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.vrt import WarpedVRT

from cube.bands import NODATA, SCALE, STORED_MAX
from cube.errors import InputError
from cube.grid import parse_crs
from cube.mask import ClearMask
from cube.months import Month
from cube.source import Looks

DIRECTIVES = {"Y": r"\d{4}", "m": r"\d{2}", "d": r"\d{2}", "j": r"\d{3}", "H": r"\d{2}"} | {
    "M": r"\d{2}",
    "S": r"\d{2}",
}


@dataclass(frozen=True, kw_only=True)
class StackSource:
    """Scenes in files, as a `SceneCatalogue`: one look per time step."""

    files: tuple[str, ...]
    """NetCDF files, Zarr stores, or GeoTIFF templates such as `S2_{date:%Y%m%d}_{band}.tif`.
    A band that several files have is taken from the first."""
    bands: Mapping[str, str]
    """Canonical band name to the name it has in the files (variable, template text, or the
    description or number of a band in a multi-band GeoTIFF)."""
    mask: str | None = None
    """Name of the mask layer in the files; None takes every pixel with data as clear."""
    clear: ClearMask = field(default_factory=ClearMask)
    """Which mask values are clear."""
    time: str = "time"
    """Name of the time dimension in NetCDF and Zarr."""
    y: str = "y"
    """Name of the y dimension."""
    x: str = "x"
    """Name of the x dimension."""
    crs: str | None = None
    """CRS of NetCDF and Zarr files where they do not say it themselves."""
    scale: float | None = None
    """Physical value of one count; None takes the file's own scale, or 1e-4 without one."""
    offset: float = 0.0
    """Physical value of count 0 (-0.1 for baseline 04.00 and later left as delivered)."""
    nodata: float | None = None
    """Count that means no data; None takes the file's own fill value, or 0 without one."""
    resampling: str = "bilinear"
    """How bands on another grid are brought onto the cube's; masks always by nearest."""

    def looks(self, month: Month, window: GeoBox, bands: tuple[str, ...]) -> Looks:
        """Read every time step of `month` at `window`, each band from the first file with it.

        Raises `InputError` if a band or the mask is in no file, or files disagree about dates.
        """
        layers = {band: self._band(band) for band in bands}
        times = _common_times(layers, month)
        height, width = window.shape
        reflectance = np.full((len(times), len(bands), height, width), NODATA, np.int16)
        for index, band in enumerate(bands):
            file, name = layers[band]
            counts, fill, scale = file.read(name, times, window, Resampling[self.resampling])
            reflectance[:, index] = self._stored(counts, fill, scale)
        is_clear = (reflectance != NODATA).all(axis=1)  # (look, y, x)
        if self.mask is not None and times:
            file, name = self._layer(self.mask)
            if missing := sorted(set(times) - set(file.times(name))):
                raise InputError(f"mask {name!r} has no layer for {missing[0]}, which bands have")
            is_clear &= self._is_clear(file, name, times, window)
        return Looks(
            reflectance=reflectance,
            is_clear=is_clear,
            ids=tuple(str(time)[:19] for time in times),
        )

    def native_geobox(self, bands: tuple[str, ...]) -> GeoBox:
        """Return the grid of the finest of `bands`, which a cube without an area takes over."""
        grids = [file.geobox(name) for file, name in map(self._band, bands)]
        return min(grids, key=lambda grid: abs(grid.resolution.x))

    def months(self, bands: tuple[str, ...]) -> tuple[Month, ...]:
        """Return the months in which `bands` have at least one time step."""
        layers = map(self._band, bands)
        return tuple(sorted({Month.of(time) for file, name in layers for time in file.times(name)}))

    def _band(self, band: str) -> "tuple[StackFile, str]":
        return self._layer(self.bands.get(band, band))

    def _layer(self, name: str) -> "tuple[StackFile, str]":
        found = [file for file in self._files() if name in file.names()]
        if not found:
            known = sorted({name for file in self._files() for name in file.names()})
            raise InputError(f"layer {name!r} is in none of {list(self.files)}; found {known}")
        return found[0], name

    def _files(self) -> "list[StackFile]":
        return [
            TiffFolder.open(path, nodata=self.nodata)
            if "{date" in path
            else ArrayFile(
                path=path, time=self.time, y=self.y, x=self.x, crs=self.crs, nodata=self.nodata
            )
            for path in self.files
        ]

    def _stored(
        self, counts: Shaped[np.ndarray, "look y x"], fill: float, file_scale: float | None
    ) -> Int16[np.ndarray, "look y x"]:
        """Return counts as stored units, `NODATA` for fill and NaN."""
        scale = self.scale if self.scale is not None else (file_scale or SCALE)
        is_missing = counts == fill
        if counts.dtype.kind == "f":
            is_missing |= ~np.isfinite(counts)
        units = np.where(is_missing, 0, counts) * (scale / SCALE) + self.offset / SCALE
        stored = np.clip(np.rint(units), NODATA + 1, STORED_MAX).astype(np.int16)
        stored[is_missing] = NODATA
        return stored

    def _is_clear(
        self, file: "StackFile", name: str, times: tuple[np.datetime64, ...], window: GeoBox
    ) -> Bool[np.ndarray, "look y x"]:
        """Return the mask, judged on a window wide enough for clouds beyond its edge."""
        pixel = (abs(window.resolution.y), abs(window.resolution.x))
        margin = self.clear.margin(pixel_size=pixel)
        wide = window.pad(margin) if margin else window
        flags, _, _ = file.read(name, times, wide, Resampling.nearest)
        whole = np.where(np.isfinite(flags), flags, 0).astype(np.int64)
        is_clear = self.clear.is_clear(whole, pixel_size=pixel)
        rows, columns = (slice(margin, margin + size) for size in window.shape)
        return is_clear[:, rows, columns]


def _common_times(
    layers: "Mapping[str, tuple[StackFile, str]]", month: Month
) -> tuple[np.datetime64, ...]:
    """Return the time steps of `month`, which must be the same for every band."""
    times = {
        band: tuple(t for t in file.times(name) if month.start <= t < month.end)
        for band, (file, name) in layers.items()
    }
    first, *others = times
    for other in others:
        if times[other] != times[first]:
            odd = sorted(set(times[other]) ^ set(times[first]))
            raise InputError(
                f"bands {first} and {other} have different dates in {month} (e.g. {str(odd[0])[:10]})"
                if odd
                else f"bands {first} and {other} repeat dates differently in {month}"
            )
    return times[first]


def file_stamp(path: str) -> list[int]:
    """Return size and modification time of what `path` names, to notice that it was replaced."""
    if "{date" in path:
        files = [Path(file) for dates in _tiff_index(path).values() for file in dates.values()]
    else:
        files = [Path(path)]
    stats = [file.stat() for file in files]
    return [sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)]


class StackFile(Protocol):
    """Layers over time, wherever they are kept."""

    def names(self) -> frozenset[str]:
        """Names of the layers that can be read."""
        ...

    def times(self, name: str) -> tuple[np.datetime64, ...]:
        """Time steps of a layer, ascending."""
        ...

    def geobox(self, name: str) -> GeoBox:
        """Grid on which a layer is stored."""
        ...

    def read(
        self, name: str, times: tuple[np.datetime64, ...], window: GeoBox, resampling: Resampling
    ) -> tuple[Shaped[np.ndarray, "look y x"], float, float | None]:
        """Read a layer at `times` on the grid of `window`: counts, fill value, file's scale."""
        ...


@dataclass(frozen=True, kw_only=True)
class ArrayFile:
    """A NetCDF file or Zarr store with (time, y, x) variables."""

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
        """Variables with the three dimensions."""
        dims = {self.time, self.y, self.x}
        dataset = open_array_file(self.path)
        found = [str(name) for name, array in dataset.data_vars.items() if set(array.dims) == dims]
        if not found:
            shapes = {str(name): array.dims for name, array in dataset.data_vars.items()}
            raise InputError(
                f"{self.path!r} has no variable with dims {sorted(dims)}; found {shapes}"
            )
        return frozenset(found)

    def times(self, name: str) -> tuple[np.datetime64, ...]:
        """Time steps, as the file orders them; `InputError` unless they are ascending dates."""
        values = open_array_file(self.path)[self.time].values
        if values.dtype.kind != "M":
            raise InputError(f"dimension {self.time!r} of {self.path!r} holds no dates")
        if (np.diff(values) < np.timedelta64(0)).any():
            raise InputError(
                f"dates of {self.path!r} are not in order; sort the file by {self.time!r}"
            )
        return tuple(values.astype("datetime64[ns]"))

    def geobox(self, name: str) -> GeoBox:
        """Grid of the variable; `InputError` if it is irregular or has no CRS."""
        dataset = open_array_file(self.path)
        crs = self.crs or _declared_crs(dataset, name)
        if crs is None:
            raise InputError(f"{self.path!r} does not say its CRS; set source.crs")
        steps = [_regular_step(self.path, dim, dataset[dim].values) for dim in (self.y, self.x)]
        (top, row_step), (left, column_step) = steps
        transform = Affine(column_step, 0, left, 0, row_step, top)
        shape = (dataset.sizes[self.y], dataset.sizes[self.x])
        return GeoBox(shape, transform, parse_crs(_plain_crs(crs)))

    def read(
        self, name: str, times: tuple[np.datetime64, ...], window: GeoBox, resampling: Resampling
    ) -> tuple[Shaped[np.ndarray, "look y x"], float, float | None]:
        """Read by plain slicing where the grids coincide, by warping elsewhere."""
        array = open_array_file(self.path)[name].transpose(self.time, self.y, self.x)
        fill = self.nodata if self.nodata is not None else array.attrs.get("_FillValue", 0)
        every = self.times(name)
        steps = [index for index, time in enumerate(every) if time in set(times)]
        grid = self.geobox(name)
        rows, columns = _source_window(grid, window)
        counts = array.isel({self.time: steps, self.y: rows, self.x: columns}).values
        if counts.dtype == np.int64 or counts.dtype == np.uint64:
            counts = counts.astype(np.float64)  # GDAL's warper takes no 64-bit integers
        part = grid[rows, columns]
        return (
            _on_grid(counts, part, window, float(fill), resampling),
            float(fill),
            array.attrs.get("scale_factor"),
        )


@functools.lru_cache(maxsize=16)
def open_array_file(path: str) -> xr.Dataset:
    """Open a NetCDF file or Zarr store lazily, values as stored; once per process.

    Raises `InputError` if there is nothing to open.
    """
    if not Path(path).exists():
        raise InputError(f"source file {path!r} does not exist")
    try:
        if Path(path).is_dir():
            store: xr.Dataset = xr.open_zarr(path, chunks=None, mask_and_scale=False)
            return store
        return xr.open_dataset(path, engine="netcdf4", mask_and_scale=False, cache=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"source file {path!r} cannot be read as NetCDF or Zarr: {error}"
        ) from error


@dataclass(frozen=True, kw_only=True)
class TiffFolder:
    """GeoTIFFs whose names carry their date, and their band where each holds only one."""

    template: str
    """Path with `{date:%Y%m%d}` and, for one band a file, `{band}`."""
    index: Mapping[str, Mapping[np.datetime64, str]]
    """Files by band name ('' where a file holds all bands) and date."""
    nodata: float | None
    """Fill value that overrides the files' own."""

    @classmethod
    def open(cls, template: str, *, nodata: float | None) -> "TiffFolder":
        """List the files that match `template`; `InputError` if none does."""
        return cls(template=template, index=_tiff_index(template), nodata=nodata)

    def names(self) -> frozenset[str]:
        """Bands in the names of the files, or in the first file."""
        if "" not in self.index:
            return frozenset(self.index)
        with rasterio.open(next(iter(self.index[""].values()))) as file:
            numbers = [str(number) for number in file.indexes]
            return frozenset(numbers) | {text for text in file.descriptions if text}

    def times(self, name: str) -> tuple[np.datetime64, ...]:
        """Dates of the files that hold `name`."""
        return tuple(sorted(self.index.get(name) or self.index[""]))

    def geobox(self, name: str) -> GeoBox:
        """Grid of the first file that holds `name`."""
        path = next(iter((self.index.get(name) or self.index[""]).values()))
        with rasterio.open(path) as file:
            if file.crs is None:
                raise InputError(f"{path!r} does not say its CRS; write it into the files")
            return GeoBox(file.shape, file.transform, parse_crs(file.crs.to_wkt()))

    def read(
        self, name: str, times: tuple[np.datetime64, ...], window: GeoBox, resampling: Resampling
    ) -> tuple[Shaped[np.ndarray, "look y x"], float, float | None]:
        """Read one file per date through a warped view on the grid of `window`."""
        files = self.index.get(name) or self.index[""]
        looks, fill, scale = [], 0.0 if self.nodata is None else self.nodata, None
        for time in times:
            try:
                with rasterio.open(files[time]) as file:
                    band = _band_number(file, name)
                    if self.nodata is None and file.nodata is not None:
                        fill = file.nodata
                    if file.scales[band - 1] != 1.0:
                        scale = file.scales[band - 1]
                    with _warped(file, window, fill, resampling) as view:
                        looks.append(view.read(band))
            except RasterioError as error:
                raise InputError(f"{files[time]!r} cannot be read: {error}") from error
        if not looks:
            return np.empty((0, *window.shape), np.uint16), fill, scale
        return np.stack(looks), fill, scale  # (look, y, x)


def _band_number(file: DatasetReader, name: str) -> int:
    if file.count == 1:
        return 1
    if name in file.descriptions:
        return int(file.descriptions.index(name)) + 1
    return int(name)


@functools.lru_cache(maxsize=16)
def _tiff_index(template: str) -> dict[str, dict[np.datetime64, str]]:
    folder, pattern = Path(template).parent, Path(template).name
    if "{" in str(folder):
        raise InputError(f"source file {template!r}: date and band must be in the file's name")
    if not folder.is_dir():
        raise InputError(f"source folder {str(folder)!r} does not exist")
    regex, date_format = _template_regex(pattern)
    index: dict[str, dict[np.datetime64, str]] = {}
    for path in sorted(folder.iterdir()):
        if found := regex.fullmatch(path.name):
            named = found.groupdict()
            try:
                time = np.datetime64(dt.datetime.strptime(named["date"], date_format), "ns")
            except ValueError as error:
                raise InputError(
                    f"{path.name!r} matches {pattern!r} but has no date: {error}"
                ) from error
            index.setdefault(named.get("band", ""), {})[time] = str(path)
    if not index:
        raise InputError(f"no file in {str(folder)!r} matches {pattern!r}")
    return index


def _template_regex(pattern: str) -> tuple[re.Pattern[str], str]:
    """Return the pattern for file names and the date format inside it."""
    date = re.search(r"\{date:([^}]+)\}", pattern)
    if not date:
        raise InputError(
            f"source file {pattern!r} needs a date, e.g. 'S2_{{date:%Y%m%d}}_{{band}}.tif'"
        )
    expression = re.escape(pattern)
    inner = re.escape(date[1])
    for directive, digits in DIRECTIVES.items():
        inner = inner.replace(f"%{directive}", digits)
    expression = expression.replace(re.escape(date[0]), f"(?P<date>{inner})", 1)
    expression = expression.replace(re.escape("{band}"), r"(?P<band>[A-Za-z0-9]+)", 1)
    return re.compile(expression), date[1]


def _regular_step(path: str, dim: str, centres: np.ndarray) -> tuple[float, float]:
    """Return the outer edge and the step of pixel-centre coordinates along one dimension."""
    if centres.dtype.kind not in "fiu" or len(centres) < 2:
        raise InputError(f"{path!r} has no coordinates along {dim!r}, at least two are needed")
    centres = centres.astype(np.float64)
    step = (centres[-1] - centres[0]) / (len(centres) - 1)
    if not np.allclose(np.diff(centres), step, rtol=1e-3, atol=0):
        raise InputError(f"{path!r} is not on a regular grid along {dim!r}")
    return float(centres[0] - step / 2), float(step)


def _declared_crs(dataset: xr.Dataset, name: str) -> str | None:
    """Return the CRS of a variable as its CF grid mapping, or the file as a whole, states it."""
    mapping = dataset[name].attrs.get("grid_mapping", dataset[name].encoding.get("grid_mapping"))
    attributes = dataset[mapping].attrs if mapping in dataset.variables else {}
    for key in ("crs_wkt", "spatial_ref"):
        if key in attributes:
            return str(attributes[key])
    if "grid_mapping_name" in attributes:
        return pyproj.CRS.from_cf(attributes).to_wkt()
    return str(dataset.attrs["crs"]) if "crs" in dataset.attrs else None


def _plain_crs(text: str) -> str:
    # "+init=epsg:32631" is what older writers stored; PROJ warns about it at every use
    found = re.fullmatch(r"\+?init=(epsg:\d+).*", text.strip(), flags=re.IGNORECASE)
    return found[1].upper() if found else text


def _source_window(source: GeoBox, window: GeoBox) -> tuple[slice, slice]:
    """Return the part of `source` under `window`, with two pixels' margin for resampling."""
    assert source.crs is not None  # StackFile.geobox refuses a file without one
    box = window.extent.to_crs(source.crs, resolution="auto").boundingbox
    inverse = ~source.transform
    corners = [inverse * (x, y) for x in (box.left, box.right) for y in (box.bottom, box.top)]
    bounds = []
    for axis, size in ((1, source.shape[0]), (0, source.shape[1])):
        values = [corner[axis] for corner in corners]
        start = int(np.clip(np.floor(min(values)) - 2, 0, size - 1))
        stop = int(np.clip(np.ceil(max(values)) + 2, start + 1, size))
        bounds.append(slice(start, stop))
    return bounds[0], bounds[1]


def _on_grid(
    counts: Shaped[np.ndarray, "look y x"],
    source: GeoBox,
    window: GeoBox,
    fill: float,
    resampling: Resampling,
) -> Shaped[np.ndarray, "look height width"]:
    target = np.full((len(counts), *window.shape), fill, counts.dtype)
    if not len(counts):
        return target
    shift = ~source.transform * (window.transform.c, window.transform.f)
    same_size = np.allclose(
        (source.transform.a, source.transform.b, source.transform.d, source.transform.e),
        (window.transform.a, window.transform.b, window.transform.d, window.transform.e),
    )
    if source.crs == window.crs and same_size and np.allclose(shift, np.rint(shift), atol=1e-6):
        left, top = (round(value) for value in shift)
        rows = slice(max(0, -top), min(window.shape[0], source.shape[0] - top))
        columns = slice(max(0, -left), min(window.shape[1], source.shape[1] - left))
        if rows.start < rows.stop and columns.start < columns.stop:
            target[:, rows, columns] = counts[
                :,
                rows.start + top : rows.stop + top,
                columns.start + left : columns.stop + left,
            ]
        return target
    assert source.crs is not None  # ArrayFile.geobox refuses a file without one
    # Through a file in memory: warping bare arrays warns of missing georeferencing, from rasterio's
    # own inside, whenever two threads do it at once.
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            dtype=counts.dtype,
            count=len(counts),
            height=source.shape[0],
            width=source.shape[1],
            crs=source.crs.to_wkt(),
            transform=source.transform,
        ) as file:
            file.write(counts)
        with memory.open() as file, _warped(file, window, fill, resampling) as view:
            return np.asarray(view.read())  # (look, y, x)


def _warped(file: DatasetReader, window: GeoBox, fill: float, resampling: Resampling) -> WarpedVRT:
    assert window.crs is not None  # CubeSpec refuses a grid without one
    return WarpedVRT(
        file,
        crs=window.crs.to_wkt(),
        transform=window.transform,
        height=window.shape[0],
        width=window.shape[1],
        src_nodata=fill,
        nodata=fill,
        resampling=resampling,
    )
