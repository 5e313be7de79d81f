"""A question about an archive in, the expression by which Earth Engine answers it out."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from shapely.geometry import shape

from cube.earthengine.library import ee
from cube.earthengine.reduce import each

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


def greatest_qa60(images: Sequence[str], area: Mapping[str, Any]) -> Any:
    """Return an expression of the greatest QA60 that the images have in `area`, at 250,000 places.

    0 where none has a cloud there or a band QA60 at all; None where none has data there.
    """

    def qa60(image: Any) -> Any:
        # a second band of one name gets another name, so what the image itself has is taken
        nothing = ee.Image.constant(0).toUint16().rename(["QA60"])
        return ee.Image(image).addBands(nothing).select(["QA60"])

    loaded = ee.List([ee.Image.load(name) for name in images])
    whole = ee.ImageCollection.fromImages(each(loaded, qa60)).reduce(ee.Reducer.max())
    west, south, east, north = shape(dict(area)).bounds
    step = max(_QA60_STEP, math.sqrt((east - west) * (north - south) / _MOST_SAMPLES))
    found = whole.rename(["QA60"]).reduceRegion(
        reducer=ee.Reducer.max(),
        geometry=_geometry(area),
        crs="EPSG:4326",
        crsTransform=[step, 0, west, 0, -step, north],
        maxPixels=4 * _MOST_SAMPLES,
    )
    return found.get("QA60")


def _geometry(area: Mapping[str, Any]) -> Any:
    return ee.Geometry(dict(area), "EPSG:4326", False)


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)
