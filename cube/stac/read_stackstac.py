"""One scene and a window in, counts out: pixels through stackstac, which needs an adapter.

stackstac 0.5.1 does not know `proj:code` (stackstac#262) and guesses a grid of its own unless told
everything, so it gets plain dicts with `proj:epsg` and an explicit CRS, resolution and extent.
"""

from typing import Any

import numpy as np
import stackstac
from jaxtyping import Integer
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from stackstac.rio_reader import DEFAULT_GDAL_ENV

from cube.errors import InputError
from cube.stac.files import check_format, environment_options, read_twice
from cube.stac.pixels import dtype_of, nodata_of
from cube.stac.scene import Scene


def read_native(
    scene: Scene, name: str, window: GeoBox, more: dict[str, str]
) -> Integer[np.ndarray, "y x"]:
    """Read one asset of a scene at `window`, which lies on its own grid.

    The same contract as `cube.stac.read_odc.read_native`. Raises `InputError` besides for files
    that are not north-up, which stackstac cannot describe.
    """
    href = scene.assets[name].href
    epsg, width, height = _north_up(scene.id, window)
    options = environment_options([href]) | more
    box = window.boundingbox
    stack = stackstac.stack(
        [_item(scene, name)],
        assets=[name],
        epsg=epsg,
        resolution=(width, height),
        bounds=(box.left, box.bottom, box.right, box.top),
        snap_bounds=False,
        resampling=Resampling.nearest,
        chunksize=-1,
        dtype=dtype_of(scene, name),
        fill_value=dtype_of(scene, name).type(nodata_of(scene, name)),
        rescale=False,
        xy_coords="center",
        errors_as_nodata=(),
        gdal_env=DEFAULT_GDAL_ENV.updated(
            always=options, open=options, open_vrt=options, read=options
        ),
    )

    def load() -> Integer[np.ndarray, "y x"]:
        check_format(href, more)
        # said here: Dask's setting is one for all threads, and a cluster whose threads all read
        # would wait for itself
        return np.asarray(stack.data.compute(scheduler="synchronous")[0, 0])

    return _checked(read_twice(load, scene_id=scene.id, band=name, href=href), window)


def _checked(counts: Integer[np.ndarray, "y x"], window: GeoBox) -> Integer[np.ndarray, "y x"]:
    if counts.shape != window.shape:
        raise RuntimeError(f"stackstac gave {counts.shape} pixels for a window {window.shape}")
    return counts


def _north_up(scene_id: str, window: GeoBox) -> tuple[int, float, float]:
    """(EPSG code, pixel width, pixel height) of a window that stackstac can describe."""
    a, b, _, d, e, _ = window.transform[:6]
    epsg = window.crs.epsg if window.crs is not None else None
    if epsg is None or b != 0 or d != 0 or a <= 0 or e >= 0:
        raise InputError(
            f"scene {scene_id!r}: its files are not north-up, which stackstac cannot read; "
            "use reader = 'odc'"
        )
    return epsg, a, -e


def _item(scene: Scene, name: str) -> dict[str, Any]:
    """Return the little of an item that stackstac needs, as the plain dict it understands."""
    asset = scene.assets[name]
    record: dict[str, Any] = {"href": asset.href, "type": "image/tiff"}
    if asset.transform is not None and asset.shape is not None:
        record |= {"proj:transform": list(asset.transform), "proj:shape": list(asset.shape)}
    return {
        "id": scene.id,
        "type": "Feature",
        "geometry": dict(scene.footprint),
        "properties": {
            "datetime": scene.time.isoformat().replace("+00:00", "Z"),
            "proj:epsg": scene.epsg,
        },
        "assets": {name: record},
    }
