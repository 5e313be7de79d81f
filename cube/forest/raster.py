"""An array and its grid in, a cloud-optimised GeoTIFF out, the same bytes every time."""

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from jaxtyping import Shaped
from rasterio.enums import ColorInterp

_BLOCK = 256


def write_cog(
    path: Path,
    array: Shaped[np.ndarray, "y x"],
    *,
    epsg: int,
    transform: Affine,
    is_categorical: bool,
    tags: dict[str, str] | None = None,
    colours: dict[int, tuple[int, int, int, int]] | None = None,
) -> None:
    """Write one band with nodata 0, tiles of 256 and overviews (mode or average of 2 x 2)."""
    rows, columns = array.shape
    with rasterio.open(
        path,
        "w",
        driver="COG",
        height=rows,
        width=columns,
        count=1,
        dtype=array.dtype,
        crs=f"EPSG:{epsg}",
        transform=transform,
        nodata=0,
        compress="DEFLATE",
        predictor="NO" if is_categorical else "STANDARD",
        blocksize=_BLOCK,
        level=6,
        num_threads="1",
        overview_resampling="MODE" if is_categorical else "AVERAGE",
    ) as raster:
        if tags:
            raster.update_tags(**tags)
        if colours:
            raster.write_colormap(1, colours)
            raster.colorinterp = [ColorInterp.palette]
        raster.write(array, 1)
