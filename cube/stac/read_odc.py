"""One scene and a window in, counts out: pixels through odc-stac."""

from datetime import UTC
from typing import Any

import numpy as np
import odc.stac
import pystac
from jaxtyping import Integer
from odc.geo.geobox import GeoBox

from cube.stac.files import check_format, raster_environment, read_twice
from cube.stac.pixels import dtype_of, nodata_of
from cube.stac.scene import Scene

_PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
_RASTER = "https://stac-extensions.github.io/raster/v1.1.0/schema.json"


def read_native(
    scene: Scene, name: str, window: GeoBox, options: dict[str, str]
) -> Integer[np.ndarray, "y x"]:
    """Read one asset of a scene at `window`, which lies on its own grid.

    What GDAL could not get is asked for once more. A file that cannot be read, or is of a format
    that we do not accept, raises `SceneReadError` or `SceneUnreachableError`; it never becomes
    nodata.
    """
    href = scene.assets[name].href

    def load() -> Integer[np.ndarray, "y x"]:
        check_format(href, options)
        return _load(scene, name, window, options)

    return read_twice(load, scene_id=scene.id, band=name, href=href)


def _load(
    scene: Scene, name: str, window: GeoBox, options: dict[str, str]
) -> Integer[np.ndarray, "y x"]:
    with raster_environment([scene.assets[name].href], options):
        loaded = odc.stac.load(
            [_item(scene, name)],
            bands=[name],
            geobox=window,
            chunks=None,
            dtype=dtype_of(scene, name),
            nodata=nodata_of(scene, name),
            resampling="nearest",
            fail_on_error=True,
        )
    return np.asarray(loaded[name].values[0])


def _item(scene: Scene, name: str) -> pystac.Item:
    """Return the little of an item that odc-stac needs, with the file's own geometry in it."""
    item = pystac.Item(
        id=scene.id,
        geometry=dict(scene.footprint),
        bbox=None,
        datetime=scene.time.astimezone(UTC),
        properties={"proj:code": f"EPSG:{scene.epsg}"},
        stac_extensions=[_PROJECTION, _RASTER],
    )
    asset = scene.assets[name]
    kind = {"data_type": dtype_of(scene, name).name, "nodata": nodata_of(scene, name)}
    fields: dict[str, Any] = {"raster:bands": [kind]}
    if asset.transform is not None and asset.shape is not None:
        fields |= {"proj:transform": list(asset.transform), "proj:shape": list(asset.shape)}
    item.add_asset(name, pystac.Asset(href=asset.href, roles=["data"], extra_fields=fields))
    return item
