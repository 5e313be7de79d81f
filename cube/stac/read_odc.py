"""One scene and a window in, counts out: pixels through odc-stac."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC
from typing import Any

import numpy as np
import odc.stac
import pystac
from jaxtyping import UInt16
from odc.geo.geobox import GeoBox

from cube.stac.files import READ_ERRORS, raster_environment, read_error
from cube.stac.scene import Scene

_PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
_RASTER = "https://stac-extensions.github.io/raster/v1.1.0/schema.json"


def read_native(
    scene: Scene, names: Sequence[str], window: GeoBox
) -> UInt16[np.ndarray, "band y x"]:
    """Read assets of one scene at `window`, which lies on their own grid; 0 is nodata.

    A file that cannot be read raises `SceneReadError` or `SceneUnreachableError`; it never becomes
    nodata.
    """
    with suppress(*READ_ERRORS):
        return _load(scene, names, window)
    # odc-stac does not say which file failed: read one by one, which is also a second try
    return np.concatenate([_load_one(scene, name, window) for name in names])


def _load_one(scene: Scene, name: str, window: GeoBox) -> UInt16[np.ndarray, "1 y x"]:
    try:
        return _load(scene, [name], window)
    except READ_ERRORS as error:
        href = scene.assets[name].href
        raise read_error(error, scene_id=scene.id, band=name, href=href) from error


def _load(scene: Scene, names: Sequence[str], window: GeoBox) -> UInt16[np.ndarray, "band y x"]:
    with raster_environment(scene.assets[name].href for name in names):
        loaded = odc.stac.load(
            [_item(scene, names)],
            bands=list(names),
            geobox=window,
            chunks=None,
            dtype="uint16",
            nodata=0,
            resampling="nearest",
            fail_on_error=True,
        )
    return np.stack([loaded[name].values[0] for name in names])  # (band, y, x)


def _item(scene: Scene, names: Sequence[str]) -> pystac.Item:
    """Return the little of an item that odc-stac needs, with the file's own geometry in it."""
    item = pystac.Item(
        id=scene.id,
        geometry=dict(scene.footprint),
        bbox=None,
        datetime=scene.time.astimezone(UTC),
        properties={"proj:code": f"EPSG:{scene.epsg}"},
        stac_extensions=[_PROJECTION, _RASTER],
    )
    for name in names:
        asset = scene.assets[name]
        fields: dict[str, Any] = {"raster:bands": [{"data_type": "uint16", "nodata": 0}]}
        if asset.transform is not None and asset.shape is not None:
            fields |= {"proj:transform": list(asset.transform), "proj:shape": list(asset.shape)}
        item.add_asset(name, pystac.Asset(href=asset.href, roles=["data"], extra_fields=fields))
    return item
