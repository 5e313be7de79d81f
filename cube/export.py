"""A map store in, cloud-optimised GeoTIFFs and class areas out; streamed, never a whole raster."""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401  (registers .odc)
import rasterio
import rasterio.shutil
import zarr
from jaxtyping import UInt8
from odc.geo.geobox import GeoBox
from rasterio.env import get_gdal_config, set_gdal_config
from rasterio.errors import RasterioError
from rasterio.windows import Window

from cube.errors import InputError, WorkFailedError
from cube.mapstore import (
    QUALITY_NODATA,
    QUALITY_SCALE,
    UNCLASSIFIED,
    MapClass,
    check_legend,
    open_map,
    quality_layers,
)
from cube.place import Place, zarr_place
from cube.sidecar import class_names_xml, rgb
from cube.spec import Region, tile_regions

_BLOCK = 512
_STREAM = 4 * _BLOCK

_CACHE = 64 * 1024**2
"""Bytes of blocks that GDAL keeps while it copies; its default is a share of the machine."""

_SCALES = {"confidence": QUALITY_SCALE, "margin": QUALITY_SCALE}


def write_map_cog(source: Place, target: Path, classes: Sequence[MapClass]) -> None:
    """Write the species layer of the map store `source` as a cloud-optimised GeoTIFF.

    uint8, nodata 0 (unclassified), DEFLATE, blocks of 512, overviews by majority, colour table;
    `target` with `.aux.xml` after it holds class names, colours and pixel counts for GDAL and
    QGIS. Both files appear finished or not at all; older ones are replaced.

    Raises `InputError` if `source` is no map, `target` no `.tif`, or a value or name is twice in
    the legend; `WorkFailedError` if the map holds a value the legend lacks or writing fails.
    """
    check_legend(classes)
    geobox = map_geobox(source)
    counts: Counter[int] = Counter()
    with _draft_beside(target) as folder:
        plain, draft = folder / "plain.tif", folder / target.name
        with _tiled_tiff(
            plain, geobox, layers=1, nodata=UNCLASSIFIED, photometric="palette"
        ) as tiff:
            for region, block in _blocks(source, "species", geobox):
                counts.update(_counts(block))
                tiff.write(block, 1, window=_window(region))
            _refuse_unnamed(source, counts, classes)
            tiff.write_colormap(1, {item.value: (*rgb(item.colour), 255) for item in classes})
            tiff.set_band_description(1, "species")
        _copy_to_cog(plain, draft, overviews="MODE")
        sidecar = folder / f"{target.name}.aux.xml"
        sidecar.write_bytes(class_names_xml(classes, counts))
        sidecar.replace(target.with_name(sidecar.name))
        draft.replace(target)


def write_quality_cog(source: Place, target: Path) -> None:
    """Write the quality layers of a map store as the bands of a GeoTIFF, in their order.

    uint8, nodata 255; confidence and margin carry their scale (`QUALITY_SCALE`); layout and errors
    as in `write_map_cog`, overviews by average.
    """
    geobox, names = map_geobox(source), quality_layers(source)
    with _draft_beside(target) as folder:
        plain, draft = folder / "plain.tif", folder / target.name
        with _tiled_tiff(plain, geobox, layers=len(names), nodata=QUALITY_NODATA) as tiff:
            for band, name in enumerate(names, start=1):
                for region, block in _blocks(source, name, geobox):
                    tiff.write(block, band, window=_window(region))
                tiff.set_band_description(band, name)
            tiff.scales = tuple(_SCALES.get(name, 1.0) for name in names)
        _copy_to_cog(plain, draft, overviews="AVERAGE")
        draft.replace(target)


def class_areas(source: Place, classes: Sequence[MapClass]) -> dict[str, float]:
    """Return hectares by class name: pixels counted, times the area of a pixel on the map's grid.

    This is the *pixel-count area* of the map. A map's errors do not cancel out, so it is no
    unbiased estimate of the area on the ground; that takes a probability sample (Olofsson et al.
    2014, https://doi.org/10.1016/j.rse.2014.02.015). Classes the map has no pixel of are there
    with 0. Raises as `write_map_cog`.
    """
    check_legend(classes)
    geobox = map_geobox(source)
    counts: Counter[int] = Counter()
    for _, block in _blocks(source, "species", geobox):
        counts.update(_counts(block))
    _refuse_unnamed(source, counts, classes)
    hectares = abs(geobox.transform.determinant) / 10_000
    return {item.name: counts[item.value] * hectares for item in classes}


def map_geobox(source: Place) -> GeoBox:
    """Return the grid of the map store at `source`; `InputError` if there is no map."""
    with open_map(source) as dataset:
        geobox = dataset["species"].odc.geobox
    if not isinstance(geobox, GeoBox):
        raise InputError(f"map {str(source)!r} has lost its grid; make it again")
    return geobox


def _refuse_unnamed(source: Place, counts: Counter[int], classes: Sequence[MapClass]) -> None:
    if unnamed := sorted(set(counts) - {UNCLASSIFIED, *(item.value for item in classes)}):
        raise WorkFailedError(
            f"map {str(source)!r} holds value {unnamed[0]} in {counts[unnamed[0]]:,} pixels, which "
            "its legend does not name; map again with the classifier of the legend"
        )


def _counts(block: UInt8[np.ndarray, "y x"]) -> dict[int, int]:
    counts = np.bincount(block.ravel(), minlength=256)
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def _blocks(
    source: Place, name: str, geobox: GeoBox
) -> Iterator[tuple[Region, UInt8[np.ndarray, "y x"]]]:
    array = zarr.open_group(zarr_place(source), mode="r")[name]
    assert isinstance(array, zarr.Array)  # open_map has vouched for the store
    for region in tile_regions((geobox.shape.y, geobox.shape.x), _STREAM):
        yield region, np.asarray(array[region.rows, region.columns])


def _window(region: Region) -> Window:
    return Window(region.left, region.top, region.width, region.height)


@contextmanager
def _draft_beside(target: Path) -> Iterator[Path]:
    """Yield an empty folder on the disk of `target`, removed at the end; name the target in errors."""
    if target.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(
            f"a GeoTIFF is asked for at {str(target)!r}; give it a name that ends in .tif"
        )
    folder = target.with_name(f".{target.name}.draft")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    except RasterioError as error:
        raise WorkFailedError(f"{str(target)!r} could not be written: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _tiled_tiff(path: Path, geobox: GeoBox, *, layers: int, nodata: int, **options: Any) -> Any:
    """Open a plain tiled GeoTIFF for writing by window: what the COG driver copies from."""
    height, width = geobox.shape
    assert geobox.crs is not None  # create_map refuses a grid without one
    return rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="uint8",
        count=layers,
        height=height,
        width=width,
        crs=geobox.crs.to_wkt(),
        transform=geobox.transform,
        nodata=nodata,
        tiled=True,
        blockxsize=_BLOCK,
        blockysize=_BLOCK,
        compress="DEFLATE",
        zlevel=1,
        interleave="band",
        bigtiff="IF_SAFER",
        **options,
    )


def _copy_to_cog(plain: Path, draft: Path, *, overviews: str) -> None:
    with _small_cache():
        rasterio.shutil.copy(
            plain,
            draft,
            driver="COG",
            compress="DEFLATE",
            level=9,
            blocksize=_BLOCK,
            overview_resampling=overviews,
            bigtiff="IF_SAFER",
        )


@contextmanager
def _small_cache() -> Iterator[None]:
    """Hold GDAL's cache, which the whole process has, to `_CACHE`; rasterio does not put it back."""
    with rasterio.Env():
        before = get_gdal_config("GDAL_CACHEMAX")
        set_gdal_config("GDAL_CACHEMAX", _CACHE)
        try:
            yield
        finally:
            set_gdal_config("GDAL_CACHEMAX", before)
