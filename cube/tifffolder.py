"""A template of file names in, layers over time out: GeoTIFFs with dates in their names."""

import datetime as dt
import functools
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from cube.errors import InputError
from cube.grid import parse_crs
from cube.layers import Layers
from cube.warp import place

_DIRECTIVES = {"Y": r"\d{4}", "m": r"\d{2}", "d": r"\d{2}", "j": r"\d{3}", "H": r"\d{2}"} | {
    "M": r"\d{2}",
    "S": r"\d{2}",
}
"""Parts of a date that a name can hold, as `strptime` calls them, and what they look like."""

_DRIVERS = ("GTiff", "JP2OpenJPEG")
"""The only formats opened. A VRT or any other format that can name further files is refused."""


@dataclass(frozen=True, kw_only=True)
class TiffFolder:
    """GeoTIFFs whose names carry their date, and their band where each holds only one."""

    template: str
    """Path with `{date:%Y%m%d}` and, for one band a file, `{band}`."""
    nodata: float | None
    """Fill value that overrides the files' own."""

    def names(self) -> frozenset[str]:
        """Bands in the names of the files; else descriptions and numbers in the first file."""
        index = tiff_index(self.template)
        return frozenset(index) if "" not in index else _described(next(iter(index[""].values())))

    def times(self, name: str) -> tuple[np.datetime64, ...]:
        """Dates of the files that hold `name`."""
        return tuple(self._files(name))

    def geobox(self, name: str) -> GeoBox:
        """Grid of the first file that holds `name`."""
        path = next(iter(self._files(name).values()))
        with _environment(), _opened(path) as file:
            return _grid(file, path)

    def read(self, name: str, steps: range, window: GeoBox) -> Iterator[Layers]:
        """Yield the layer at `steps`, one block a file, each from its own grid."""
        files = list(self._files(name).values())
        for path in files[steps.start : steps.stop]:
            with _environment(), _opened(path) as file:
                yield self._layers(file, path, name, window)

    def _files(self, name: str) -> Mapping[np.datetime64, str]:
        index = tiff_index(self.template)
        return index.get(name) or index[""]

    def _layers(self, file: DatasetReader, path: str, name: str, window: GeoBox) -> Layers:
        number = _band_number(file, path, name)
        placement = place(_grid(file, path), window)
        counts = np.empty((1, 0, 0), file.dtypes[number - 1])
        if placement is not None:
            part = Window.from_slices(placement.rows, placement.columns)
            try:
                counts = file.read([number], window=part)  # (1, row, column)
            except RasterioError as error:
                # the reason stands in the cause: rasterio itself says "Read failed"
                raise InputError(f"{path!r} cannot be read: {error.__cause__ or error}") from error
        declared = file.nodatavals[number - 1]
        fill = self.nodata if self.nodata is not None else 0.0 if declared is None else declared
        scale, offset = file.scales[number - 1], file.offsets[number - 1]
        is_stated = (scale, offset) != (1.0, 0.0)  # what GDAL says where a file says nothing
        return Layers(
            counts=counts,
            placement=placement,
            fill=float(fill),
            scale=float(scale) if is_stated else None,
            offset=float(offset) if is_stated else None,
        )


def tiff_index(template: str) -> Mapping[str, Mapping[np.datetime64, str]]:
    """Return files by band name ('' where a file holds all bands) and date, ascending.

    Raises `InputError` for a template that cannot be understood, a folder that does not exist, a
    name that matches without being a date, and if no file matches.
    """
    folder = Path(template).parent
    if "{" in str(folder):
        raise InputError(f"source file {template!r}: date and band must be in the file's name")
    if not folder.is_dir():
        raise InputError(f"source folder {str(folder)!r} does not exist")
    return _index(template, folder.stat().st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _index(template: str, changed: int) -> Mapping[str, Mapping[np.datetime64, str]]:
    """`changed` makes a folder with new files a new entry."""
    folder, pattern = Path(template).parent, Path(template).name
    regex, date_format = template_regex(pattern)
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
    return {band: dict(sorted(files.items())) for band, files in index.items()}


def template_regex(pattern: str) -> tuple[re.Pattern[str], str]:
    """Return the pattern for file names and the date format inside it.

    Raises `InputError` unless there is one `{date:…}` with a year and a month or a day of the
    year, in directives of fixed width, and at most one `{band}`.
    """
    dates = re.findall(r"\{date:([^{}]+)\}", pattern)
    rest = re.sub(r"\{date:[^{}]+\}", "", pattern)
    if len(dates) != 1 or "{date" in rest or rest.count("{band}") > 1:
        raise InputError(
            f"source file {pattern!r} needs one date and at most one band, e.g. "
            "'S2_{date:%Y%m%d}_{band}.tif'"
        )
    directives = re.findall(r"%(.?)", dates[0])
    unknown = [item for item in directives if item not in _DIRECTIVES]
    if unknown or "Y" not in directives or not {"m", "j"} & set(directives):
        raise InputError(
            f"source file {pattern!r}: date {dates[0]!r} is not understood; expected %Y with %m %d "
            f"or %j, and %H %M %S, each once"
        )
    if len(set(directives)) != len(directives):
        raise InputError(f"source file {pattern!r}: date {dates[0]!r} repeats a part")
    inner = re.escape(dates[0])
    for directive, digits in _DIRECTIVES.items():
        inner = inner.replace(f"%{directive}", digits)
    expression = re.escape(pattern)
    expression = expression.replace(re.escape(f"{{date:{dates[0]}}}"), f"(?P<date>{inner})", 1)
    expression = expression.replace(re.escape("{band}"), r"(?P<band>[A-Za-z0-9_-]+)", 1)
    return re.compile(expression, re.ASCII), dates[0]


def _environment() -> rasterio.Env:
    # a GeoTIFF may have its georeferencing in a sidecar; the folder is not listed for it
    return rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE")


def _opened(path: str) -> DatasetReader:
    for driver in _DRIVERS:
        with suppress(RasterioError):
            return rasterio.open(path, driver=driver)
    raise InputError(f"{path!r} cannot be read: it is no GeoTIFF or JPEG 2000, or cut off")


def _grid(file: DatasetReader, path: str) -> GeoBox:
    if file.crs is None:
        raise InputError(f"{path!r} does not say its CRS; write it into the files")
    return GeoBox(file.shape, file.transform, parse_crs(file.crs.to_wkt()))


@functools.lru_cache(maxsize=16)
def _described(path: str) -> frozenset[str]:
    with _environment(), _opened(path) as file:
        return frozenset(map(str, file.indexes)) | {text for text in file.descriptions if text}


def _band_number(file: DatasetReader, path: str, name: str) -> int:
    if name in file.descriptions:
        return int(file.descriptions.index(name)) + 1
    if file.count == 1:
        return 1
    if name.isdecimal() and int(name) in file.indexes:
        return int(name)
    found = [text or str(number) for number, text in enumerate(file.descriptions, start=1)]
    raise InputError(f"{path!r} has no band {name!r}; found {found}")
