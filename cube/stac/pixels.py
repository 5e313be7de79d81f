"""One locked scene and a window in, counts on the grid of the window out, through any reader."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from affine import Affine
from jaxtyping import Integer
from odc.geo.geobox import GeoBox

from cube.cog import (
    Cog,
    Fetcher,
    FileBrokenError,
    FileUnreachableError,
    Headers,
    NotDirectError,
    read_window,
)
from cube.errors import InputError
from cube.stac.access import Access, PlainAccess
from cube.stac.files import READ_ERRORS, read_error
from cube.stac.href import is_remote
from cube.stac.remotefile import fetched_raster
from cube.stac.scene import SCL, Asset, Scene
from cube.stac.sensors import SENSORS
from cube.warp import Placement, place

ReaderName = Literal["direct", "odc", "stackstac"]
Resampling = Literal["nearest", "bilinear"]

READERS: tuple[ReaderName, ...] = ("direct", "odc", "stackstac")

_ERRORS: tuple[type[Exception], ...] = (*READ_ERRORS, FileBrokenError, FileUnreachableError)

NativeReader = Callable[[Scene, str, GeoBox, dict[str, str]], Integer[np.ndarray, "y x"]]
"""Reads an asset of a scene at a window of its own grid, with more GDAL options: pixels are copied."""

HEADERS = Headers()
"""What this process knows of files it has read."""


@dataclass(frozen=True, kw_only=True)
class PixelReader:
    """How pixels of locked scenes come onto a window."""

    reader: ReaderName = "direct"
    """`direct` fetches the blocks of GeoTIFFs itself, and for GDAL the bytes of other remote files;
    it leaves other local ones to `odc`."""
    resampling: Resampling = "bilinear"
    """As `StacSource.resampling`."""
    overviews: bool = False
    """As `StacSource.overviews`."""
    fetcher: Fetcher = field(default_factory=Fetcher)
    """For `direct`."""
    access: Access = field(default_factory=PlainAccess)
    """For files that GDAL fetches; `fetcher` has its own signer."""

    def read(self, scene: Scene, name: str, window: GeoBox) -> Integer[np.ndarray, "y x"]:
        """Return counts of one asset on the grid of `window`, the sensor's nodata where is nothing.

        Raises `SceneReadError`, `SceneUnreachableError` or `SceneDeniedError` with scene, asset and
        address.
        """
        if self.reader != "direct":
            return self._native(scene, name, window)
        href = scene.assets[name].href
        try:
            try:
                return self._direct(scene, name, window)
            except NotDirectError:  # JPEG 2000, strips
                if is_remote(href):
                    return self._decoded(scene, name, window)
        except _ERRORS as error:
            raise read_error(error, scene_id=scene.id, band=name, href=href) from error
        return self._native(scene, name, window)

    def header(self, asset: Asset) -> Cog:
        """Return the header of a file that is read directly; raises the errors of `cube.cog`."""
        return HEADERS.get(asset.href, self.fetcher, stamp=asset.stamp or "")

    def level(self, cog: Cog, scene: Scene, name: str, window: GeoBox) -> int:
        """Return the level of a file that a window is made of: an overview if they are wanted.

        Only where means are wanted, the grid is in metres of UTM as the file is, and the file
        declares its nodata value: an overview that was made without mixes nodata into the pixels
        beside it.
        """
        if not self.overviews or not self.is_smooth(name) or not _is_utm(window):
            return 0
        if cog.nodata != SENSORS[scene.sensor].nodata:
            return 0
        return cog.level_for(abs(window.resolution.x))

    def is_smooth(self, name: str) -> bool:
        """Say whether the asset's pixels are averaged; the mean of two classes is a third one."""
        return self.resampling == "bilinear" and name != SCL

    def _direct(self, scene: Scene, name: str, window: GeoBox) -> Integer[np.ndarray, "y x"]:
        asset = scene.assets[name]
        cog = self.header(asset)
        _refuse_another((cog.epsg, cog.transform, cog.levels[0].shape), asset, scene.epsg)
        level = self.level(cog, scene, name, window)
        placement = place(cog.grid(level), window)
        if placement is None:
            return self._nothing(scene, name, window)
        counts = read_window(
            cog, asset.href, placement.rows, placement.columns, level=level, fetcher=self.fetcher
        )
        return self._brought(scene, name, placement, counts)

    def _decoded(self, scene: Scene, name: str, window: GeoBox) -> Integer[np.ndarray, "y x"]:
        asset = scene.assets[name]
        placement = place(native_grid(asset, scene.epsg), window)
        if placement is None:
            return self._nothing(scene, name, window)
        part = tuple((piece.start, piece.stop) for piece in (placement.rows, placement.columns))
        with fetched_raster(asset.href, self.fetcher) as file:
            epsg = file.crs.to_epsg() if file.crs else None
            _refuse_another((epsg, file.transform, file.shape), asset, scene.epsg)
            counts = np.asarray(file.read(1, window=part)).astype(dtype_of(scene, name))
        return self._brought(scene, name, placement, counts)

    def _native(self, scene: Scene, name: str, window: GeoBox) -> Integer[np.ndarray, "y x"]:
        grid = native_grid(scene.assets[name], scene.epsg)
        placement = place(grid, window)
        if placement is None:
            return self._nothing(scene, name, window)
        read = _native_reader("odc" if self.reader == "direct" else self.reader)
        part = grid[placement.rows, placement.columns]
        asset = scene.assets[name]
        address, options = self.access.for_gdal(asset.href)
        assets = {**scene.assets, name: replace(asset, href=address)}  # signed: kept nowhere
        counts = read(replace(scene, assets=assets), name, part, options)
        return self._brought(scene, name, placement, counts)

    def _brought(
        self,
        scene: Scene,
        name: str,
        placement: Placement,
        counts: Integer[np.ndarray, "row column"],
    ) -> Integer[np.ndarray, "y x"]:
        nodata = nodata_of(scene, name)
        found = placement.bring(counts[None], nodata=nodata, is_smooth=self.is_smooth(name))
        return np.asarray(found[0])

    def _nothing(self, scene: Scene, name: str, window: GeoBox) -> Integer[np.ndarray, "y x"]:
        return np.full(window.shape, nodata_of(scene, name), dtype_of(scene, name))


def nodata_of(scene: Scene, name: str) -> int:
    """Return the count of an asset that means nothing was measured."""
    sensor = SENSORS[scene.sensor]
    return sensor.mask_nodata if name == SCL else sensor.nodata


def dtype_of(scene: Scene, name: str) -> np.dtype[np.integer]:
    """Return the type of an asset's counts."""
    sensor = SENSORS[scene.sensor]
    return np.dtype(sensor.mask_dtype if name == SCL else sensor.dtype)


def _is_utm(window: GeoBox) -> bool:
    epsg = window.crs.epsg if window.crs is not None else None
    return epsg is not None and epsg // 100 in (326, 327)


def native_grid(asset: Asset, epsg: int) -> GeoBox:
    """Return the grid of a locked scene's file."""
    assert asset.transform is not None
    assert asset.shape is not None
    return GeoBox(asset.shape, Affine(*asset.transform), f"EPSG:{epsg}")


def _refuse_another(
    found: tuple[int | None, Affine, tuple[int, int]], asset: Asset, epsg: int
) -> None:
    code, transform, shape = found
    if (code, tuple(transform[:6]), shape) != (epsg, asset.transform, asset.shape):
        raise FileBrokenError(
            "the file is not the one that was locked (its grid is another); run "
            "`canopycube lock RECIPE`"
        )


def _native_reader(name: ReaderName) -> NativeReader:
    if name == "odc":
        from cube.stac import read_odc  # two seconds, and only for files that need it

        return read_odc.read_native
    if name == "stackstac":
        from cube.stac import read_stackstac

        return read_stackstac.read_native
    raise InputError(f"reader {name!r} is unknown; expected one of {', '.join(READERS)}")
