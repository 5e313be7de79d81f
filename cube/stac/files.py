"""Addresses of rasters in, how to open them and what went wrong out: GDAL settings and errors."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import rasterio
from rasterio.errors import RasterioError, RasterioIOError

from cube.cog import FileBrokenError, FileUnreachableError
from cube.errors import InputError, SceneLostError, WorkFailedError
from cube.stac.access import is_protected
from cube.stac.href import is_remote, without_queries, without_query
from cube.stac.s3 import SCHEME

T = TypeVar("T")

_DRIVERS = ("GTiff", "JP2OpenJPEG")
"""The only formats opened. A VRT or any other format that can name further files is refused."""

_HTTP_OPTIONS: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_CONNECTTIMEOUT": "15",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_NUM_THREADS": "1",
    "CPL_VSIL_CURL_NON_CACHED": "/vsis3/",
}
"""A broken server costs five tries of at most a minute, not GDAL's own default of for ever. What
JPEG 2000 cannot decode in a thread of its own is no error to GDAL. A refusal is kept as a file that
is not there, so that nothing of a store is kept (OSGeo/gdal#2294)."""

_FILE_OPTIONS: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
    "GDAL_NUM_THREADS": "1",
}
"""A local raster may have its geometry in a sidecar; its folder is not listed for it."""

_STORE = "/vsis3/"
"""How GDAL's names of files in an S3 store begin."""

_STAMPED_BYTES = 64 * 1024
"""Read from each end of a file for its stamp. GDAL puts the directory of a TIFF at its head, and at
its end if the file was changed later; that of 484 tiles with overviews takes about 10 KB."""

_TRANSIENT = re.compile(
    r"HTTP (?:response|error) code ?:? ?(?:429|5\d\d)|timed? ?out|resolve host|CURL error"
    r"|connection|Connection|Recv failure|SSL",
)


_REFUSAL = re.compile(r"HTTP (?:30\d|400|401|403)")
_STORE_REFUSAL = re.compile(
    r"HTTP response code ?: ?(?:400|401|403)|Access Denied|Access Key Id|signature we calculated"
    r"|token"
)
_MISSING = re.compile(r"code ?: ?404|specified (?:key|bucket) does not exist|not recognized as")

_MOST_ACCEPTED = 10_000
"""Files whose format is remembered: some megabytes."""

_accepted: set[tuple[str, tuple[int, ...]]] = set()


class SceneReadError(SceneLostError):
    """A file of a scene is missing, corrupt, or no raster: reading it again would not help."""


class SceneUnreachableError(WorkFailedError):
    """A file of a scene could not be fetched now: the server fails, limits, or does not answer."""


class SceneDeniedError(InputError):
    """A store refused a file of a scene to these credentials: the file may be fine."""


def environment_options(hrefs: Iterable[str]) -> dict[str, Any]:
    """Return the GDAL options for reading `hrefs`."""
    is_fetched = any(is_remote(href) or href.startswith(_STORE) for href in hrefs)
    return dict(_HTTP_OPTIONS if is_fetched else _FILE_OPTIONS)


def raster_environment(
    hrefs: Iterable[str], options: Mapping[str, str] | None = None
) -> rasterio.Env:
    """Return the GDAL environment for reading `hrefs`, to be entered with `with`."""
    return rasterio.Env(**(environment_options(hrefs) | dict(options or {})))


@contextmanager
def raster(path: str) -> Iterator[rasterio.DatasetReader]:
    """Open a local file, if it is of a format we accept; raises what rasterio raises."""
    with raster_environment([path]), opened(path) as file:
        yield file


def opened(path: str, *, opener: Any = None) -> rasterio.DatasetReader:
    """Return a raster of a format we accept, opened; `opener` gives GDAL its bytes."""
    try:
        return rasterio.open(path, driver=_DRIVERS[0], sharing=False, opener=opener)
    except RasterioIOError as error:
        try:  # the name does not tell: JPEG 2000 goes by .jp2 and by .tif
            return rasterio.open(path, driver=_DRIVERS[1], sharing=False, opener=opener)
        except RasterioIOError as other:
            if _MISSING.search(str(other)):
                raise error from None
            raise  # it is JPEG 2000, and could not be read now


def check_format(href: str, options: Mapping[str, str] | None = None) -> None:
    """Open a file as `opened` does, before a library that would open any format gets it.

    A VRT, by whatever name, can have the library read other files of this machine. Each file is
    opened once by a process, a local one again if it was changed. Raises what rasterio raises.
    """
    key = (without_query(href), _version(href))
    if key in _accepted:
        return
    with raster_environment([href], options), opened(href):
        pass
    if len(_accepted) >= _MOST_ACCEPTED:
        _accepted.clear()
    _accepted.add(key)


def _version(href: str) -> tuple[int, ...]:
    """Return what tells a local file from another in its place, nothing for one of the network."""
    if is_remote(href) or href.startswith(_STORE):
        return ()
    stat = Path(href).stat()
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def _is_permanent(error: Exception, href: str) -> bool:
    """Say whether reading again cannot help: a local file, one that is not there, or no raster."""
    is_local = not (is_remote(href) or href.startswith(_STORE))
    return is_local or _MISSING.search(f"{error} {error.__cause__ or ''}") is not None


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
) -> SceneReadError | SceneUnreachableError | SceneDeniedError:
    """Return the named error for `error`, with item, asset and address without its signature.

    Only what is certainly the file's own fault is a `SceneReadError`: such a scene is left out.
    """
    shown = without_query(href.replace(_STORE, SCHEME, 1) if href.startswith(_STORE) else href)
    cause = f"{error} {error.__cause__ or ''}".replace(href, shown)
    cause = without_queries(cause)  # of other addresses too: where a redirect led
    text = f"scene {scene_id!r}, asset {band}: {shown} cannot be read: {cause.strip()[:300]}"
    if isinstance(error, FileUnreachableError | WorkFailedError):
        return SceneUnreachableError(text)
    if is_protected(shown) and _is_denied(error, cause):
        return SceneDeniedError(f"{text}; check the credentials in the environment")
    if not isinstance(error, FileBrokenError):
        is_of_store = href.startswith(_STORE) and not _MISSING.search(cause)
        if is_of_store or (is_remote(href) and _TRANSIENT.search(cause)):
            return SceneUnreachableError(text)
    return lost_scene(scene_id, text)


def lost_scene(scene_id: str, text: str) -> SceneReadError:
    """Return the error that tells of a scene with a broken file."""
    broken = SceneReadError(text)
    broken.scene = scene_id
    return broken


def _is_denied(error: Exception, cause: str) -> bool:
    """Say whether a server refused; a store says so by 400 and 301 too (another region, a token)."""
    if isinstance(error, FileBrokenError):
        return bool(_REFUSAL.match(cause))
    return bool(_STORE_REFUSAL.search(cause))


def read_twice(load: Callable[[], T], *, scene_id: str, band: str, href: str) -> T:
    """Return what `load` reads of a file; what GDAL could not get now is asked for once more.

    Raises what `read_error` makes of the errors.
    """
    try:
        return load()
    except READ_ERRORS as error:
        if _is_permanent(error, href):
            raise read_error(error, scene_id=scene_id, band=band, href=href) from error
    try:
        return load()
    except READ_ERRORS as error:
        raise read_error(error, scene_id=scene_id, band=band, href=href) from error


READ_ERRORS: tuple[type[Exception], ...] = (RasterioError, RuntimeError, OSError)
"""What rasterio, odc-stac and stackstac raise when a file cannot be read."""
