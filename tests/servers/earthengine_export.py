"""An image and a grid in, GeoTIFFs out: what `computePixels` sends and what exports write."""

import io
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from earthengine_grids import EngineError, Grid
from earthengine_regions import covering
from earthengine_values import Image, Painter

STRIP_PIXELS = 1 << 15
"""Pixels computed at once: forty looks of a dozen bands then take one or two hundred megabytes."""

_SHARD = 256
_MOST_EXPORTED = 100_000_000


def grid_asked(grid: Mapping[str, Any] | None) -> Grid:
    """Return the grid of a request; raise `EngineError` if any of it is left to defaults."""
    if not grid:
        raise EngineError("This server wants a grid; the request leaves it to defaults.")
    size, affine = grid.get("dimensions", {}), grid.get("affineTransform", {})
    crs = grid.get("crsCode") or grid.get("crsWkt")
    missing = [n for n in ("width", "height") if n not in size]
    missing += [n for n in ("scaleX", "scaleY", "translateX", "translateY") if n not in affine]
    missing += [] if crs else ["crsCode"]
    if missing:
        raise EngineError(f"This server wants a whole grid; {', '.join(missing)} is missing.")
    numbers = ("scaleX", "shearX", "translateX", "shearY", "scaleY", "translateY")
    transform = Affine(*(float(affine.get(n, 0)) for n in numbers))
    width, height = int(size["width"]), int(size["height"])
    if min(width, height) < 1 or transform.is_degenerate:
        raise EngineError(f"The grid has no pixels: {dict(grid)}.")
    return Grid(crs=crs, transform=transform, width=width, height=height)


def computed(image: Image, grid: Grid, names: list[str]) -> dict[str, np.ndarray]:
    """Return bands on a grid, (y, x) in their own types; 0 where masked."""
    return {name: np.where(mask, values, 0) for name, (values, mask) in _pixels(image, grid, names)}


def _pixels(image: Image, grid: Grid, names: list[str]) -> Iterator[tuple[str, Any]]:
    bands = [image.bands[name] for name in names]
    strips = []
    for strip in grid.strips(STRIP_PIXELS):
        painter = Painter(strip, bands)
        strips.append([painter.pixels(band) for band in bands])
    for name, parts in zip(names, zip(*strips, strict=True), strict=True):
        values, masks = zip(*parts, strict=True)
        yield name, (np.concatenate(values), np.concatenate(masks))


def structured(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return bands as one `.npy` file: a structured array with a field for each."""
    first = next(iter(arrays.values()))
    every = np.zeros(first.shape, [(name, array.dtype) for name, array in arrays.items()])
    for name, array in arrays.items():
        every[name] = array
    buffer = io.BytesIO()
    np.save(buffer, every)
    return buffer.getvalue()


def geotiff(
    image: Image,
    grid: Grid,
    names: list[str],
    *,
    nodata: float | None = None,
    driver: str = "GTiff",
) -> bytes:
    """Return bands as a GeoTIFF, band names as descriptions; masked is `nodata`, else 0.

    Raises `EngineError` where the bands' types differ.
    """
    kinds = list(dict.fromkeys(image.bands[name].kind.dtype for name in names))
    if len(kinds) > 1:
        raise EngineError(
            "Exported bands must have compatible data types; found inconsistent types: "
            f"{' and '.join(kind.name for kind in kinds)}."
        )
    fill = 0 if nodata is None else nodata
    found = [np.where(mask, values, fill) for _, (values, mask) in _pixels(image, grid, names)]
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver=driver,
            width=grid.width,
            height=grid.height,
            count=len(names),
            dtype=kinds[0],
            crs=grid.crs,
            transform=grid.transform,
            nodata=nodata,
            compress="deflate",
        ) as raster:
            for number, (name, values) in enumerate(zip(names, found, strict=True), 1):
                raster.write(values.astype(kinds[0]), number)
                raster.set_band_description(number, name)
        return memory.read()


@dataclass(frozen=True, kw_only=True)
class Export:
    """What an export is to write, and where."""

    image: Image
    grid: Grid
    place: str
    """Bucket or folder."""
    prefix: str
    """Name without `.tif`."""
    part: tuple[int, int] | None
    """Width and height of each file; None is one file."""
    nodata: float | None
    is_cloud_optimised: bool

    def write(self, folder: Path) -> list[Path]:
        """Write the files below `folder` and return where they are."""
        names, paths = list(self.image.bands), []
        width, height = self.part or (self.grid.width, self.grid.height)
        corners = itertools.product(
            range(0, self.grid.height, height), range(0, self.grid.width, width)
        )
        is_one = width >= self.grid.width and height >= self.grid.height
        for row, column in corners:
            end = "" if is_one else f"-{row:010d}-{column:010d}"
            path = folder / self.place / f"{self.prefix}{end}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            part = self.grid.part(
                column,
                row,
                min(width, self.grid.width - column),
                min(height, self.grid.height - row),
            )
            driver = "COG" if self.is_cloud_optimised else "GTiff"
            content = geotiff(self.image, part, names, nodata=self.nodata, driver=driver)
            path.write_bytes(content)
            paths.append(path)
        return paths


def export_asked(image: Image, body: Mapping[str, Any]) -> Export:
    """Return what a request to export asks for; raise `EngineError` for what cannot be."""
    options = body.get("fileExportOptions", {})
    where = options.get("cloudStorageDestination", {}) or options.get("driveDestination", {})
    place, prefix = where.get("bucket") or where.get("folder"), where.get("filenamePrefix")
    if not place or not prefix or ".." in f"{place}/{prefix}".split("/") or "/" in place:
        raise EngineError(f"This server wants a bucket or folder and a prefix, not {where}.")
    if options.get("fileFormat") != "GEO_TIFF":
        raise EngineError("This server exports GEO_TIFF only.")
    if not image.bands:
        raise EngineError("Export: the image has no bands.")
    told = options.get("geoTiffOptions", {})
    grid = grid_asked(body["grid"]) if body.get("grid") else _own_grid(image)
    most = int(_number(body.get("maxPixels"), _MOST_EXPORTED))
    if grid.pixels > most:
        raise EngineError(
            f"Export too large: specified {grid.pixels} pixels (max: {most}). Specify higher "
            "maxPixels value if you intend to export a large area."
        )
    part, shard = told.get("tileDimensions"), int(told.get("tileSize") or _SHARD)
    if part and (int(part["width"]) % shard or int(part["height"]) % shard):
        raise EngineError(f"fileDimensions must be a multiple of shardSize ({shard}).")
    nodata = told.get("noData", {}).get("floatValue")
    return Export(
        image=image,
        grid=grid,
        place=place,
        prefix=prefix,
        part=(int(part["width"]), int(part["height"])) if part else None,
        nodata=None if nodata is None else float(nodata),
        is_cloud_optimised=bool(told.get("cloudOptimized")),
    )


def _number(value: Any, default: int) -> Any:
    """Return a wrapped number of the REST interface."""
    return (value["value"] if isinstance(value, Mapping) else value) or default


def _own_grid(image: Image) -> Grid:
    """Return the grid that an image says it has, as the client's `Export` puts it there."""
    projections = {band.projection for band in image.bands.values()}
    if image.region is None or len(projections) != 1:
        raise EngineError("This server wants a grid; the request leaves it to defaults.")
    return covering(projections.pop(), image.region)
