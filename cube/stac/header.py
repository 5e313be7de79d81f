"""A file of a scene in, its own geometry and a coarse look at its pixels out: directly, or by GDAL."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Integer

from cube.cog import Cog, FileBrokenError, FileUnreachableError, NotDirectError, read_window
from cube.errors import InputError
from cube.stac.files import READ_ERRORS, file_stamp, lost_scene, raster, read_error
from cube.stac.href import is_remote
from cube.stac.pixels import PixelReader
from cube.stac.remotefile import fetched_raster
from cube.stac.scene import SCL, Asset, Scene
from cube.stac.sensors import SENSORS

_ERRORS: tuple[type[Exception], ...] = (*READ_ERRORS, FileBrokenError, FileUnreachableError)


_LARGEST = 40_000
"""Rows or columns of a band; the largest known, Landsat's panchromatic, has some 16,000."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FileHeader:
    """What one file of a scene says of itself."""

    epsg: int
    """Its CRS."""
    asset: Asset
    """The asset with the file's own geometry, and for a local file its stamp."""
    cog: Cog | None
    """Where its blocks lie; None for a file that GDAL reads."""


def cogs_of(headers: Mapping[str, FileHeader]) -> dict[str, Cog]:
    """Return where the blocks of files lie, by asset; files that GDAL reads are left out."""
    return {name: header.cog for name, header in headers.items() if header.cog is not None}


def read_file_header(reader: PixelReader, scene: Scene, name: str) -> FileHeader:
    """Read and check the header of one file.

    Raises `InputError` for what a product would not have (several bands, another type or nodata
    value, no CRS), `SceneReadError` or `SceneUnreachableError` if it cannot be read.
    """
    asset = scene.assets[name]
    try:
        stamp = file_stamp(asset.href)
        asset = replace(asset, stamp=stamp)
        try:
            cog = reader.header(asset)
        except NotDirectError:
            return _by_gdal(reader, scene, name, asset)
    except _ERRORS as error:
        raise read_error(error, scene_id=scene.id, band=name, href=asset.href) from error
    _check(scene, name, count=1, dtype=cog.dtype.name, nodata=cog.nodata)
    if max(cog.levels[0].shape) > _LARGEST:
        raise lost_scene(
            scene.id,
            f"scene {scene.id!r}, asset {name}: the file claims {cog.levels[0].shape} pixels; a "
            f"band has at most {_LARGEST} rows or columns",
        )
    a, b, c, d, e, f = (float(number) for number in cog.transform[:6])
    placed = replace(asset, transform=(a, b, c, d, e, f), shape=cog.levels[0].shape)
    return FileHeader(epsg=cog.epsg, asset=placed, cog=cog)


def read_coarse(
    reader: PixelReader, scene: Scene, name: str, header: FileHeader, shape: tuple[int, int]
) -> Integer[np.ndarray, "y x"]:
    """Return a file's whole ground in `shape` pixels, from the overview next above in size.

    Raises `SceneReadError` or `SceneUnreachableError`.
    """
    href = header.asset.href
    try:
        if header.cog is not None:
            return _thinned(header.cog, href, shape, reader)
        with _raster(reader, href) as file:
            pixels: Any = file.read(1, out_shape=shape)
    except _ERRORS as error:
        raise read_error(error, scene_id=scene.id, band=name, href=href) from error
    return np.asarray(pixels)


def _thinned(
    cog: Cog, href: str, shape: tuple[int, int], reader: PixelReader
) -> Integer[np.ndarray, "y x"]:
    """Take single pixels, a row of blocks at a time: a band without overviews may be large."""
    enough = [
        number
        for number, level in enumerate(cog.levels)
        if level.shape[0] >= shape[0] and level.shape[1] >= shape[1]
    ]
    number = enough[-1] if enough else 0
    height, width = cog.levels[number].shape
    rows, columns = (
        ((np.arange(wanted) + 0.5) * size / wanted).astype(int)
        for wanted, size in zip(shape, (height, width), strict=True)
    )
    edge = cog.levels[number].block[0]
    parts = []
    for first in np.unique(rows // edge) * edge:
        last = min(first + edge, height)
        here = rows[(rows >= first) & (rows < last)] - first
        block = read_window(
            cog,
            href,
            slice(int(first), int(last)),
            slice(0, width),
            level=number,
            fetcher=reader.fetcher,
        )
        parts.append(block[np.ix_(here, columns)])
    return np.concatenate(parts)


def _raster(reader: PixelReader, href: str) -> AbstractContextManager[Any]:
    """Open a file that only GDAL can decode; what is remote comes through the reader's fetcher."""
    return fetched_raster(href, reader.fetcher) if is_remote(href) else raster(href)


def _by_gdal(reader: PixelReader, scene: Scene, name: str, asset: Asset) -> FileHeader:
    with _raster(reader, asset.href) as file:
        epsg = file.crs.to_epsg() if file.crs else None
        transform, shape = file.transform, file.shape
        _check(scene, name, count=file.count, dtype=file.dtypes[0], nodata=file.nodata)
    if epsg is None:
        raise InputError(f"scene {scene.id!r}, asset {name}: the file has no CRS with an EPSG code")
    a, b, c, d, e, f = (float(number) for number in transform[:6])
    placed = replace(asset, transform=(a, b, c, d, e, f), shape=shape)
    return FileHeader(epsg=epsg, asset=placed, cog=None)


def _check(scene: Scene, name: str, *, count: int, dtype: str, nodata: float | None) -> None:
    owner = f"scene {scene.id!r}, asset {name}"
    sensor = SENSORS[scene.sensor]
    expected = sensor.mask_nodata if name == SCL else sensor.nodata
    kinds = ("uint8", "uint16") if name == SCL else ("uint8", sensor.dtype)
    if count != 1 or dtype not in kinds:
        raise InputError(
            f"{owner}: the file has {count} bands of {dtype}; expected one of {kinds[-1]}"
        )
    if nodata not in (expected, None):
        raise InputError(f"{owner}: the file's nodata is {nodata}; a product has {expected}")
