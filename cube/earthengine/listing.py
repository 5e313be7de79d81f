"""A question about an archive in, the expression by which Earth Engine answers it out."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from shapely.geometry import shape

from cube.earthengine.installed import ee
from cube.earthengine.reduce import each, own_pixels

_MOST_SAMPLES = 250_000
"""Places of an area at which a band is looked at."""

_QA60_STEP = 0.0006
"""Degrees: about a pixel of QA60."""


def listed(
    collection: str,
    area: Mapping[str, Any],
    *,
    start: datetime,
    end: datetime,
    names: Sequence[str],
    most: int,
) -> Any:
    """Return an expression of a list: the properties `names` of each image, None where missing.

    Of images sensed from `start` until before `end` whose footprint meets `area` (GeoJSON, lon/lat,
    edges straight in these), `most` at most.
    """
    found = (
        ee.ImageCollection(collection)
        .filterDate(_milliseconds(start), _milliseconds(end))
        .filterBounds(_geometry(area))
    )

    def told(image: Any) -> Any:
        return ee.List([ee.Image(image).get(name) for name in names])

    return each(found.toList(most), told)


def cloud_told(images: Sequence[str], area: Mapping[str, Any]) -> Any:
    """Return an expression of [greatest QA60, share of cloud by the SCL] of each image in `area`.

    Looked at on 250,000 places. QA60 counts as 0 where it is masked or there is no such band; both
    are None for an image without data in the area.
    """
    west, south, east, north = shape(dict(area)).bounds
    step = max(_QA60_STEP, math.sqrt((east - west) * (north - south) / _MOST_SAMPLES))
    where = {
        "geometry": _geometry(area),
        "crs": "EPSG:4326",
        "crsTransform": [step, 0, west, 0, -step, north],
        "maxPixels": 4 * _MOST_SAMPLES,
    }

    def told(image: Any) -> Any:
        image = ee.Image(image)
        scl = own_pixels(image.select(["SCL"]))
        is_seen = scl.gt(0)
        is_cloud = scl.eq(8).Or(scl.eq(9)).updateMask(is_seen).rename(["cloud"])
        # a second band of one name gets another name, so what the image itself has is taken
        nothing = ee.Image.constant(0).toUint16().rename(["QA60"])
        whole = image.addBands(nothing).select(["QA60"]).unmask(0, False)
        qa60 = own_pixels(whole).updateMask(is_seen)
        greatest = qa60.reduceRegion(reducer=ee.Reducer.max(), **where).get("QA60")
        share = is_cloud.reduceRegion(reducer=ee.Reducer.mean(), **where).get("cloud")
        return ee.List([greatest, share])

    return each(ee.List([ee.Image.load(name) for name in images]), told)


def _geometry(area: Mapping[str, Any]) -> Any:
    return ee.Geometry(dict(area), "EPSG:4326", False)


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)
