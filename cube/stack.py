"""Scenes the user already has in, looks out: NetCDF or Zarr stacks, folders of dated GeoTIFFs."""

import zlib
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int16
from odc.geo.geobox import GeoBox

from cube.arrayfile import ArrayFile
from cube.bands import BANDS, NODATA, SCALE, STORED_MAX
from cube.errors import InputError, sendable_errors
from cube.layers import Layers, StackFile
from cube.mask import ClearMask
from cube.periods import Period
from cube.source import Looks
from cube.tifffolder import TiffFolder, tiff_index

_ATMOSPHERE_SCALE = 1e-3
"""Physical value of one count of aerosol and water vapour in a product (PSD 15; 1 and cm)."""


@dataclass(frozen=True, kw_only=True)
class StackSource:
    """Scenes in files, as a `SceneCatalogue`: one look per date."""

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
    """Reflectance of one count; None takes the file's own scale, or 1e-4 for integers without one
    (floating-point values without one are refused: they may be either). Aerosol and water vapour
    take the file's own, or the product's 1e-3."""
    offset: float | None = None
    """Reflectance of count 0 (-0.1 for baseline 04.00 and later left as delivered); None takes the
    file's own offset, or 0 without one. Aerosol and water vapour take the file's own."""
    nodata: float | None = None
    """Count that means no data; None takes the file's own fill value, or 0 without one."""
    resampling: str = "bilinear"
    """How bands on another grid are brought onto the cube's, "nearest" or "bilinear" (the mean of
    all they cover for pixels more than 1.5 times the file's); masks always by nearest."""

    def __post_init__(self) -> None:
        if self.resampling not in ("nearest", "bilinear"):
            raise InputError(
                f"resampling {self.resampling!r} is unknown; expected 'nearest' or 'bilinear'"
            )

    @sendable_errors
    def looks(self, period: Period, window: GeoBox, bands: tuple[str, ...]) -> Looks:
        """Read every date of `period` at `window`, each band from the first file with it.

        A date that is there twice (two granules of one overpass) is one look: of each pixel the
        first with data in every band counts. Raises `InputError` if a band or the mask is in no
        file, cannot be read, or if files disagree about dates.
        """
        layers = {band: self._band(band) for band in bands}
        times = _common_times(layers, period)
        height, width = window.shape
        reflectance = np.full((len(times), len(bands), height, width), NODATA, np.int16)
        if times:
            for index, (band, (file, name)) in enumerate(layers.items()):
                steps = _steps(file.times(name), period)
                self._read_band(reflectance[:, index], file, name, steps, window, band=band)
        is_clear = (reflectance != NODATA).all(axis=1)  # (look, y, x)
        if self.mask is not None and times:
            is_clear &= self._is_clear(times, period, window)
        return _merged(times, reflectance, is_clear)

    def native_geobox(self, bands: tuple[str, ...]) -> GeoBox:
        """Return the grid of the finest of `bands`, which a cube without an area takes over."""
        grids = [file.geobox(name) for file, name in map(self._band, bands)]
        return min(grids, key=lambda grid: abs(grid.resolution.x))

    def dates(self, bands: tuple[str, ...]) -> tuple[np.datetime64, ...]:
        """Return every different time at which `bands` have a layer, ascending.

        Raises `InputError` if a band, or the mask, is in no file.
        """
        if self.mask is not None:
            self._layer(self.mask)
        layers = map(self._band, bands)
        return tuple(sorted({time for file, name in layers for time in file.times(name)}))

    def _band(self, band: str) -> tuple[StackFile, str]:
        return self._layer(self.bands.get(band, band))

    def _layer(self, name: str) -> tuple[StackFile, str]:
        for file in self._files():
            if name in file.names():
                return file, name
        known = sorted({name for file in self._files() for name in file.names()})
        raise InputError(f"layer {name!r} is in none of {list(self.files)}; found {known}")

    def _files(self) -> list[StackFile]:
        return [
            TiffFolder(template=path, nodata=self.nodata)
            if "{date" in path
            else ArrayFile(
                path=path, time=self.time, y=self.y, x=self.x, crs=self.crs, nodata=self.nodata
            )
            for path in self.files
        ]

    def _read_band(
        self,
        out: Int16[np.ndarray, "look y x"],
        file: StackFile,
        name: str,
        steps: range,
        window: GeoBox,
        *,
        band: str,
    ) -> None:
        """Write one band's stored units into `out`."""
        start = 0
        for layers in file.read(name, steps, window):
            stop = start + len(layers.counts)
            if layers.placement is not None:
                out[start:stop] = layers.placement.bring(
                    self._stored(layers, name, band),
                    nodata=NODATA,
                    is_smooth=self.resampling == "bilinear",
                )
            start = stop

    def _stored(self, layers: Layers, name: str, band: str) -> Int16[np.ndarray, "look row column"]:
        """Return counts as stored units, `NODATA` for fill and NaN."""
        counts = layers.counts
        factor, offset = self._encoding(layers, name, band)
        is_missing = counts == layers.fill
        if counts.dtype.kind == "f":
            is_missing |= ~np.isfinite(counts)
        units = np.where(is_missing, 0, counts) * factor + offset / SCALE
        stored = np.clip(np.rint(units), NODATA + 1, STORED_MAX).astype(np.int16)
        stored[is_missing] = NODATA
        return stored

    def _encoding(self, layers: Layers, name: str, band: str) -> tuple[float, float]:
        """Return stored units of one count, and the offset in physical units."""
        properties = BANDS[band]
        is_reflectance = properties.has_offset
        scale = layers.scale
        if is_reflectance and self.scale is not None:
            scale = self.scale
        if scale is None and layers.counts.dtype.kind == "f":
            raise InputError(
                f"layer {name!r} holds floating-point values and no scale_factor; set source.scale "
                "to 1 if they are reflectance, to 0.0001 if they are counts"
            )
        if not is_reflectance:
            own = _ATMOSPHERE_SCALE if scale is None else scale
            return own / _ATMOSPHERE_SCALE * properties.stored_per_count, layers.offset or 0.0
        offset = self.offset if self.offset is not None else layers.offset or 0.0
        return (SCALE if scale is None else scale) / SCALE, offset

    def _is_clear(
        self, times: tuple[np.datetime64, ...], period: Period, window: GeoBox
    ) -> Bool[np.ndarray, "look y x"]:
        """Return the mask, judged on a window wide enough for clouds beyond its edge."""
        assert self.mask is not None  # asked by the only caller
        file, name = self._layer(self.mask)
        every = file.times(name)
        steps = _steps(every, period)
        if missing := sorted(set(times) - set(every)):
            raise InputError(f"mask {name!r} has no layer for {missing[0]}, which bands have")
        wanted = [step for step in steps if every[step] in set(times)]
        if [every[step] for step in wanted] != list(times):
            raise InputError(f"mask {name!r} and the bands repeat dates differently in {period}")
        pixel = (abs(window.resolution.y), abs(window.resolution.x))
        margin = self.clear.margin(pixel_size=pixel)
        wide = window.pad(margin) if margin else window
        flags = np.zeros((len(steps), *wide.shape), np.int16)
        start = 0
        for layers in file.read(name, steps, wide):
            stop = start + len(layers.counts)
            if layers.placement is not None:
                whole = np.where(np.isfinite(layers.counts), layers.counts, 0)
                # no scene class lies beyond; a count outside int16 must not wrap round into one
                narrow = np.clip(whole, -1, STORED_MAX).astype(np.int16)
                flags[start:stop] = layers.placement.bring(narrow, nodata=0, is_smooth=False)
            start = stop
        is_clear = self.clear.is_clear(
            flags[[step - steps.start for step in wanted]], pixel_size=pixel
        )
        rows, columns = (slice(margin, margin + size) for size in window.shape)
        return is_clear[:, rows, columns]


def _steps(times: tuple[np.datetime64, ...], period: Period) -> range:
    """Return which of the ascending `times` lie in `period`."""
    return range(bisect_left(times, period.start), bisect_left(times, period.end))


def _common_times(
    layers: Mapping[str, tuple[StackFile, str]], period: Period
) -> tuple[np.datetime64, ...]:
    """Return the time steps of `period`, which must be the same for every band."""
    times = {}
    for band, (file, name) in layers.items():
        every = file.times(name)
        steps = _steps(every, period)
        times[band] = every[steps.start : steps.stop]
    first, *others = times
    for other in others:
        if times[other] != times[first]:
            odd = sorted(set(times[other]) ^ set(times[first]))
            raise InputError(
                f"bands {first} and {other} have different dates in {period} (e.g. {str(odd[0])[:10]})"
                if odd
                else f"bands {first} and {other} repeat dates differently in {period}"
            )
    return times[first]


def _merged(
    times: tuple[np.datetime64, ...],
    reflectance: Int16[np.ndarray, "look band y x"],
    is_clear: Bool[np.ndarray, "look y x"],
) -> Looks:
    """Make one look of every date: later steps of a date fill what earlier ones did not see."""
    kept: list[int] = []
    for step, time in enumerate(times):
        if not kept or times[kept[-1]] != time:
            kept.append(step)
            continue
        first = kept[-1]
        is_seen = (reflectance[first] != NODATA).all(axis=0)  # (y, x)
        np.copyto(reflectance[first], reflectance[step], where=~is_seen)
        np.copyto(is_clear[first], is_clear[step], where=~is_seen)
    is_single = len(kept) == len(times)
    seen_count = np.zeros(is_clear.shape[1:], np.uint16)
    for step in kept:
        seen_count += (reflectance[step] != NODATA).all(axis=0)
    return Looks(
        reflectance=reflectance if is_single else reflectance[kept],
        is_clear=is_clear if is_single else is_clear[kept],
        days=np.array([times[step] for step in kept], "M8[D]").astype(np.int32),
        seen_count=seen_count,
        ids=tuple(str(times[step])[:19] for step in kept),
    )


def file_stamp(path: str) -> list[int]:
    """Return what changes when the files named by `path` do: bytes, newest time, number, listing.

    A Zarr store counts with every file in it. Raises `InputError` if nothing is there.
    """
    if "{date" in path:
        files = sorted(Path(file) for dates in tiff_index(path).values() for file in dates.values())
    else:
        place = Path(path)
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
    try:
        stats = [(file, file.stat()) for file in files]
    except (OSError, ValueError) as error:
        raise InputError(f"source file {path!r} does not exist or cannot be opened") from error
    listing = "\n".join(f"{file}:{stat.st_size}:{stat.st_mtime_ns}" for file, stat in stats)
    return [
        sum(stat.st_size for _, stat in stats),
        max((stat.st_mtime_ns for _, stat in stats), default=0),
        len(stats),
        zlib.crc32(listing.encode("utf-8", "surrogateescape")),
    ]
