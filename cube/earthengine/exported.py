"""Tiles that Earth Engine wrote into GeoTIFFs in, composites out, as if they had been asked for.

One file a tile holds every period: the bands that an answer to `EarthEngineSource` has, with the
period's number before them (`t003_B02`). A period without a scene over the tile is not in it.
"""

import functools
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import rasterio
from jaxtyping import Int16
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from cube.cog import Fetcher, FileBrokenError, FileUnreachableError
from cube.earthengine.access import Access
from cube.earthengine.composite import composite_from_pixels, composite_without_looks
from cube.earthengine.errors import PassingError, one_line
from cube.earthengine.source import EarthEngineSource
from cube.earthengine.tileimage import exported_bands
from cube.errors import InputError, WorkFailedError
from cube.periods import Period
from cube.source import Composite
from cube.spec import CubeSpec, Region, tile_region

_PIECE = 16 * 2**20
"""Bytes of a file in a bucket that are fetched at once."""

_STORAGE = "https://storage.googleapis.com"


@dataclass(frozen=True, kw_only=True)
class TileFiles:
    """Where the files of tiles lie."""

    name: str
    """What their names begin with; the tile's id and `.tif` follow."""
    folder: Path | None = None
    """Folder of this machine; None for the bucket."""
    bucket: str | None = None
    """Bucket of Google Cloud Storage."""
    prefix: str = ""
    """Folder in the bucket."""

    def stem(self, region: Region) -> str:
        """Return the name of a tile's file without `.tif`."""
        return f"{self.name}-{region.id}"

    def object_name(self, region: Region) -> str:
        """Return the same with the bucket's folder before it."""
        return f"{self.prefix}/{self.stem(region)}" if self.prefix else self.stem(region)


@dataclass(frozen=True, kw_only=True)
class ExportedSource:
    """Composites from exported files; a `SeriesSource`, for whole tiles of its cube only."""

    computed: EarthEngineSource
    """What the files were made by: its scenes say which periods a file has."""
    spec: CubeSpec
    """The cube whose tiles were exported."""
    files: TileFiles
    """Where they lie."""

    def composite(self, period: Period, window: GeoBox, bands: tuple[str, ...]) -> Composite:
        """Return the composite of one period; raises as `series`."""
        with closing(self.series((period,), window, bands)) as found:
            return next(found)

    def series(
        self, periods: tuple[Period, ...], window: GeoBox, bands: tuple[str, ...]
    ) -> Generator[Composite]:
        """Yield the composite of each of `periods` over `window`, which is a tile of the cube.

        Raises `WorkFailedError` for a file that is not there yet or cannot be read, and for one on
        another grid or with other bands than were exported; it says what to do.
        """
        region = self._region(window)
        looks = self.computed.passes_by_period(periods, window)
        if not any(looks.values()):
            for _ in periods:
                yield composite_without_looks((window.shape[0], window.shape[1]), bands)
            return
        with self._opened(region) as file:
            _check_grid(file, window, region)
            for period in periods:
                if not looks[period]:
                    yield composite_without_looks((window.shape[0], window.shape[1]), bands)
                    continue
                names = exported_bands(self.spec.periods.index(period), bands)
                pixels = _read(file, names, region)
                scenes = tuple("+".join(one.id for one in scenes) for scenes in looks[period])
                yield composite_from_pixels(pixels, period, scenes=scenes)

    def _region(self, window: GeoBox) -> Region:
        grid = self.spec.geobox
        row = round((window.transform.f - grid.transform.f) / grid.transform.e) // self.spec.tile
        column = round((window.transform.c - grid.transform.c) / grid.transform.a) // self.spec.tile
        region = tile_region(self.spec.shape[2:], self.spec.tile, row, column)
        if region.window(grid) != window:
            raise InputError(
                f"window {window.shape} is no tile of the cube; exports have whole tiles"
            )
        return region

    def problem(self, region: Region) -> str:
        """Return why a tile's file cannot be taken; empty if it is there and seems whole.

        Of a file in a folder grid, bands and length are looked at, of one in a bucket its first
        bytes; no pixel is. Raises `WorkFailedError` where a bucket does not answer or refuses to.
        """
        if self.files.folder is None:
            return _problem_in_bucket(self.computed.access, self.files, region)
        window = region.window(self.spec.geobox)
        looks = self.computed.passes_by_period(self.spec.periods, window)
        names = [
            name
            for number, period in enumerate(self.spec.periods)
            if looks[period]
            for name in exported_bands(number, self.spec.bands)
        ]
        try:
            with self._opened(region) as file:
                _check_grid(file, window, region)
                _numbers(file, tuple(names), region)
                _check_length(file, region)
        except WorkFailedError as error:
            return str(error)
        return ""

    @contextmanager
    def _opened(self, region: Region) -> Iterator[DatasetReader]:
        stem = self.files.stem(region)
        with tempfile.TemporaryDirectory(prefix="canopycube-") as scratch:
            path = Path(scratch) / "tile.tif"
            if self.files.folder is not None:
                path = self.files.folder / f"{stem}.tif"
            else:
                _fetch(self.computed.access, self.files, region, path)
            if not path.is_file():
                raise WorkFailedError(f"{stem}.tif {_not_there(region)}")
            try:
                with rasterio.open(path, driver="GTiff") as file:
                    yield file
            except RasterioError as error:
                text = one_line(str(error))
                raise WorkFailedError(
                    f"{stem}.tif cannot be read: {text}; {_anew(region)}"
                ) from None


def _check_grid(file: DatasetReader, window: GeoBox, region: Region) -> None:
    crs = CRS(file.crs.to_wkt()) if file.crs is not None else None
    found = GeoBox((file.height, file.width), file.transform, crs)
    is_there = found.transform.almost_equals(window.transform, precision=1e-6)
    if crs != window.crs or found.shape != window.shape or not is_there:
        raise WorkFailedError(
            f"{_name(file)} has another grid than the tile: {_shown(found)}, expected "
            f"{_shown(window)}; {_anew(region)}"
        )


def _shown(grid: GeoBox) -> str:
    height, width = grid.shape
    size, _, left, _, _, top = tuple(grid.transform)[:6]
    return f"{width} x {height} of {size:g} at {left:.9g}, {top:.9g} in {str(grid.crs)[:20]}"


def _read(
    file: DatasetReader, names: tuple[str, ...], region: Region
) -> Int16[np.ndarray, "answer y x"]:
    return np.asarray(file.read(_numbers(file, names, region)))


def _numbers(file: DatasetReader, names: tuple[str, ...], region: Region) -> list[int]:
    """Return the numbers that bands have in a file; `WorkFailedError` if any is not as exported."""
    described = {name: number for number, name in enumerate(file.descriptions, 1)}
    if missing := [name for name in names if name not in described]:
        raise WorkFailedError(f"{_name(file)} has no band {missing[0]!r}; {_anew(region)}")
    numbers = [described[name] for name in names]
    kinds = {file.dtypes[number - 1] for number in numbers}
    if kinds - {"int16"}:
        raise WorkFailedError(
            f"{_name(file)} holds {', '.join(sorted(kinds))}, not int16; {_anew(region)}"
        )
    return numbers


def _check_length(file: DatasetReader, region: Region) -> None:
    """Refuse a file that ends before its pixels do."""
    length = Path(file.name).stat().st_size
    for band in file.indexes:
        height, width = file.block_shapes[band - 1]
        for row in range(-(-file.height // height)):
            for column in range(-(-file.width // width)):
                start, size = (
                    int(file.get_tag_item(f"BLOCK_{word}_{column}_{row}", "TIFF", bidx=band) or 0)
                    for word in ("OFFSET", "SIZE")
                )
                if start + size > length:
                    raise WorkFailedError(
                        f"{_name(file)} ends after {length} bytes, before its pixels do; "
                        f"{_anew(region)}"
                    )


def _name(file: DatasetReader) -> str:
    return Path(file.name).name


def _anew(region: Region) -> str:
    return f"`canopycube export RECIPE --again {region.id}` exports it anew"


def _not_there(region: Region) -> str:
    return (
        f"is not there: run `canopycube export RECIPE`, with `--again {region.id}` if that has "
        "exported it already; files of a Drive go into source.export.files"
    )


@dataclass(frozen=True, kw_only=True)
class _StorageSigner:
    """Asks for files of a bucket in the name in which Earth Engine is asked."""

    access: Access
    """Whose credentials, found in this process."""

    def url(self, href: str, *, is_retry: bool) -> tuple[str, dict[str, str]]:
        """Return the address and a header that is used at once.

        Raises `FileUnreachableError` where no token can be had now.
        """
        try:
            return href, _account(self.access).headers(href, is_denied=is_retry)
        except PassingError as error:
            raise FileUnreachableError(str(error)) from None


@functools.lru_cache(maxsize=4)
def _account(access: Access) -> Any:
    from cube.earthengine.credentials import identity

    return identity(access)


def _fetch(access: Access, files: TileFiles, region: Region, target: Path) -> None:
    """Bring a file of a bucket to `target`, piece by piece; raises `WorkFailedError`."""
    href, fetcher = _address(access, files, region)
    shown = f"gs://{files.bucket}/{files.object_name(region)}.tif"
    try:
        first, length = fetcher.head(href, _PIECE)
        with target.open("wb") as out:
            out.write(first)
            for start in range(len(first), length, _PIECE):
                stop = min(start + _PIECE, length)
                out.write(fetcher.fetch(href, start, stop, length=length))
    except FileBrokenError as error:
        if _MISSING in str(error):
            raise WorkFailedError(f"{shown} ({error}) {_not_there(region)}") from None
        raise WorkFailedError(f"{shown} cannot be read: {error}; {_anew(region)}") from None
    except FileUnreachableError as error:
        raise WorkFailedError(f"{shown} cannot be fetched: {error}; try again later") from None


def _problem_in_bucket(access: Access, files: TileFiles, region: Region) -> str:
    href, fetcher = _address(access, files, region)
    try:
        first, _ = fetcher.head(href, len(_TIFF[0]))
    except (FileBrokenError, FileUnreachableError) as error:
        if any(word in str(error) for word in (_MISSING, _NO_BYTES)):
            return str(error)
        raise WorkFailedError(
            f"gs://{files.bucket}/{files.object_name(region)}.tif cannot be looked at: {error}"
        ) from None
    return "" if first in _TIFF else f"it begins with {first!r}"


_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How GeoTIFFs begin, small ones and large ones, in either order of bytes."""

_MISSING, _NO_BYTES = "HTTP 404", "HTTP 416"
"""What a bucket answers for a file that is not there, and for one of length 0."""


def _address(access: Access, files: TileFiles, region: Region) -> tuple[str, Fetcher]:
    base = f"{access.endpoint}/storage" if access.is_local else _STORAGE
    name = f"{files.object_name(region)}.tif"
    fetcher = Fetcher(patience=access.patience, signer=_StorageSigner(access=access))
    return f"{base}/{files.bucket}/{quote(name)}", fetcher
