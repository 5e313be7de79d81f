"""Addresses of rasters in, how to open them and what went wrong out: GDAL settings and errors."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import RasterioError, RasterioIOError

from cube.cog import FileBrokenError, FileUnreachableError
from cube.errors import SceneLostError, WorkFailedError
from cube.stac.href import is_remote, without_query

_DRIVERS = ("GTiff", "JP2OpenJPEG")
"""The only formats opened. A VRT or any other format that can name further files is refused."""

_HTTP_OPTIONS: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_CONNECTTIMEOUT": "15",
    "GDAL_HTTP_TIMEOUT": "60",
}
"""A broken server costs five tries of at most a minute, not GDAL's own default of for ever."""

_FILE_OPTIONS: dict[str, Any] = {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"}
"""A local raster may have its geometry in a sidecar; its folder is not listed for it."""

_STAMPED_BYTES = 64 * 1024
"""Read from each end of a file for its stamp. GDAL puts the directory of a TIFF at its head, and at
its end if the file was changed later; that of 484 tiles with overviews takes about 10 KB."""

_TRANSIENT = re.compile(
    r"HTTP (?:response|error) code ?:? ?(?:429|5\d\d)|timed? ?out|resolve host|CURL error"
    r"|connection|Connection|Recv failure|SSL",
)


class SceneReadError(SceneLostError):
    """A file of a scene is missing, corrupt, or no raster: reading it again would not help."""


class SceneUnreachableError(WorkFailedError):
    """A file of a scene could not be fetched now: the server fails, limits, or does not answer."""


def environment_options(hrefs: Iterable[str]) -> dict[str, Any]:
    """Return the GDAL options for reading `hrefs`."""
    return dict(_HTTP_OPTIONS if any(is_remote(href) for href in hrefs) else _FILE_OPTIONS)


def raster_environment(
    hrefs: Iterable[str], options: Mapping[str, str] | None = None
) -> rasterio.Env:
    """Return the GDAL environment for reading `hrefs`, to be entered with `with`."""
    return rasterio.Env(**environment_options(hrefs), **(options or {}))


@contextmanager
def raster(href: str, options: Mapping[str, str] | None = None) -> Iterator[rasterio.DatasetReader]:
    """Open one file, if it is of a format we accept; raises what rasterio raises."""
    with raster_environment([href], options), _opened(href) as file:
        yield file


def _opened(href: str) -> rasterio.DatasetReader:
    try:
        return rasterio.open(href, driver=_DRIVERS[0], sharing=False)
    except RasterioIOError as error:
        try:  # the name does not tell: JPEG 2000 goes by .jp2 and by .tif
            return rasterio.open(href, driver=_DRIVERS[1], sharing=False)
        except RasterioIOError:
            raise error from None


def file_stamp(href: str) -> str | None:
    """Return what changes when a local file's pixels do: its size and a hash of its two ends.

    The head of a compressed raster holds the byte count of every tile, so that other pixels give
    another head. It is not noticed if pixels of an uncompressed file are changed in place, far from
    its ends. None for files of the network; raises `OSError` for one that cannot be read.
    """
    if is_remote(href):
        return None
    with Path(href).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        sha = hashlib.sha256(file.read(_STAMPED_BYTES))
        file.seek(max(file.tell(), size - _STAMPED_BYTES))
        sha.update(file.read(_STAMPED_BYTES))
    return f"{size}-{sha.hexdigest()[:32]}"


def read_error(
    error: Exception, *, scene_id: str, band: str, href: str
) -> SceneReadError | SceneUnreachableError:
    """Return the named error for `error`, with item, asset and address without its signature."""
    cause = f"{error} {error.__cause__ or ''}".replace(href, without_query(href))
    text = (
        f"scene {scene_id!r}, asset {band}: {without_query(href)} cannot be read: "
        f"{cause.strip()[:300]}"
    )
    if isinstance(error, FileUnreachableError):
        return SceneUnreachableError(text)
    if not isinstance(error, FileBrokenError) and is_remote(href) and _TRANSIENT.search(cause):
        return SceneUnreachableError(text)
    broken = SceneReadError(text)
    broken.scene = scene_id
    return broken


READ_ERRORS: tuple[type[Exception], ...] = (RasterioError, RuntimeError, OSError)
"""What rasterio, odc-stac and stackstac raise when a file cannot be read."""
