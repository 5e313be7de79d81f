"""Coordinates as Earth Engine gives them in, geometries and projections out."""

from typing import Any

import numpy as np
import shapely
from affine import Affine
from earthengine_graph import Function
from earthengine_grids import DEGREES, EngineError, Place, Projection
from earthengine_values import Element

# ---------------------------------------------------------------- geometry


def _crs(projection: Any) -> str:
    if projection is None:
        return DEGREES
    return projection.crs if isinstance(projection, Projection) else str(projection)


def _in_crs(shape: shapely.Geometry, projection: Any) -> Place:
    """Return a place; coordinates of a projection with a lattice are pixels of it."""
    transform = projection.transform if isinstance(projection, Projection) else Affine.identity()
    if not transform.is_identity and _crs(projection) != DEGREES:
        shape = shapely.transform(shape, lambda xy: _moved(transform, xy))
    return Place(shape=shape, crs=_crs(projection))


def _moved(transform: Affine, xy: Any) -> Any:
    x, y = transform @ (xy[:, 0], xy[:, 1])
    return shapely.get_coordinates(shapely.points(x, y))


def _polygon(coordinates: Any, crs: Any, *_: Any) -> Place:
    rings = coordinates if isinstance(coordinates[0][0], list) else [coordinates]
    return _in_crs(shapely.Polygon(rings[0], rings[1:]), crs)


def _multi_polygon(coordinates: Any, crs: Any, *_: Any) -> Place:
    parts = [shapely.Polygon(rings[0], rings[1:]) for rings in coordinates]
    return _in_crs(shapely.MultiPolygon(parts), crs)


def _rectangle(coordinates: Any, crs: Any, *_: Any) -> Place:
    sides = shapely.MultiPoint(np.reshape(coordinates, (2, 2))).bounds
    return _in_crs(shapely.box(*sides), crs)


def _projected(crs: Any, transform: list[float] | None, wkt: Any) -> Projection:
    if wkt is not None:
        raise EngineError("Projection: this server does not know transformWkt.")
    return Projection(crs=crs, transform=Affine(*transform) if transform else Affine.identity())


def _place_of(element: Any, *_: Any) -> Place:
    place = element.place if isinstance(element, Element) else element
    if place is None:
        raise EngineError("Element.geometry: the footprint is unbounded.")
    return place


PLACE_FUNCTIONS: dict[str, Function] = {
    "GeometryConstructors.Polygon": _polygon,
    "GeometryConstructors.MultiPolygon": _multi_polygon,
    "GeometryConstructors.Rectangle": _rectangle,
    "GeometryConstructors.BBox": lambda *sides: Place(shape=shapely.box(*sides)),
    "GeometryConstructors.Point": lambda xy, crs: _in_crs(shapely.Point(xy), crs),
    "Geometry.bounds": lambda place, *_: Place(
        shape=shapely.box(*place.shape.bounds), crs=place.crs
    ),
    "Projection": _projected,
    "Element.geometry": _place_of,
    "Feature.geometry": _place_of,
    "Image.geometry": _place_of,
}
