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
from cube.earthengine.composite import (
    answer_bands,
    composite_from_pixels,
    composite_without_looks,
)
from cube.earthengine.errors import PassingError
from cube.earthengine.requests import MOST_BANDS
from cube.earthengine.source import EarthEngineSource
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
        another grid or with other bands than were exported.
        """
        region = self._region(window)
        looks = {period: self.computed.passes(period, window) for period in periods}
        if not any(looks.values()):
            for _ in periods:
                yield composite_without_looks((window.shape[0], window.shape[1]), bands)
            return
        with self._opened(region) as file:
            _check_grid(file, window, self.files.stem(region))
            for period in periods:
                if not looks[period]:
                    yield composite_without_looks((window.shape[0], window.shape[1]), bands)
                    continue
                names = exported_bands(self.spec.periods.index(period), bands)
                pixels = _read(file, names, self.files.stem(region))
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
                raise WorkFailedError(f"{stem}.tif {_NOT_THERE}")
            try:
                with rasterio.open(path, driver="GTiff") as file:
                    yield file
            except RasterioError as error:
                raise WorkFailedError(f"{stem}.tif cannot be read: {error}") from None


_NOT_THERE = (
    "is not there: run `canopycube export` until it says that all tiles are exported, and put files "
    "of a Drive into source.export.files"
)


def exported_bands(number: int, bands: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that the bands of the cube's period `number` have in an exported file."""
    return tuple(f"t{number:03d}_{name}" for name in answer_bands(bands))


def tile_image(
    source: EarthEngineSource, spec: CubeSpec, region: Region
) -> tuple[Any, tuple[str, ...]] | None:
    """Return the image that a tile's file is exported from, and its bands; None without a scene.

    Raises `InputError` for more periods and bands than one file may have.
    """
    from cube.earthengine.expression import period_image
    from cube.earthengine.session import session

    session(source.access)  # the client builds no expression before it knows its functions
    window = region.window(spec.geobox)
    whole: Any = None
    names: list[str] = []
    for number, period in enumerate(spec.periods):
        passes = source.passes(period, window)
        if not passes:
            continue
        image = period_image(
            passes, definition=source.definition, period=period, window=window, bands=spec.bands
        )
        named = exported_bands(number, spec.bands)
        image = image.rename(list(named))
        whole = image if whole is None else whole.addBands(image)
        names += named
    if len(names) > MOST_BANDS:
        raise InputError(
            f"a tile would be exported with {len(names)} bands, of {len(spec.periods)} periods; "
            f"Earth Engine writes {MOST_BANDS}: take fewer bands or longer periods"
        )
    return (whole, tuple(names)) if names else None


def _check_grid(file: DatasetReader, window: GeoBox, stem: str) -> None:
    found = CRS(file.crs.to_wkt()) if file.crs is not None else None
    shape = (file.height, file.width)
    is_there = file.transform.almost_equals(window.transform, precision=1e-6)
    if found != window.crs or shape != tuple(window.shape) or not is_there:
        raise WorkFailedError(
            f"{stem}.tif has another grid than the tile: {shape} pixels from "
            f"{tuple(file.transform)[:6]}, expected {tuple(window.shape)} from "
            f"{tuple(window.transform)[:6]} in {window.crs}; export it anew"
        )


def _read(
    file: DatasetReader, names: tuple[str, ...], stem: str
) -> Int16[np.ndarray, "answer y x"]:
    described = {name: number for number, name in enumerate(file.descriptions, 1)}
    if missing := [name for name in names if name not in described]:
        raise WorkFailedError(f"{stem}.tif has no band {missing[0]!r}; export it anew")
    numbers = [described[name] for name in names]
    kinds = {file.dtypes[number - 1] for number in numbers}
    if kinds != {"int16"}:
        raise WorkFailedError(f"{stem}.tif holds {', '.join(sorted(kinds))}, not int16")
    return np.asarray(file.read(numbers))


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
    base = f"{access.endpoint}/storage" if access.is_local else _STORAGE
    name = f"{files.object_name(region)}.tif"
    href = f"{base}/{files.bucket}/{quote(name)}"
    fetcher = Fetcher(patience=access.patience, signer=_StorageSigner(access=access))
    try:
        first, length = fetcher.head(href, _PIECE)
        with target.open("wb") as out:
            out.write(first)
            for start in range(len(first), length, _PIECE):
                stop = min(start + _PIECE, length)
                out.write(fetcher.fetch(href, start, stop, length=length))
    except FileBrokenError as error:
        raise WorkFailedError(f"gs://{files.bucket}/{name}: {error}; it {_NOT_THERE}") from None
    except FileUnreachableError as error:
        raise WorkFailedError(f"gs://{files.bucket}/{name} cannot be fetched: {error}") from None
