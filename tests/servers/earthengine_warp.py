"""Images in, images on other pixels out: what Earth Engine resamples, reprojects and clips.

Assumed where nothing is documented: bilinear weights are shared among the unmasked of the four
neighbours, and the nearest decides whether the result is masked.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from affine import Affine
from earthengine_graph import Function
from earthengine_grids import (
    DEGREES,
    EngineError,
    Grid,
    Place,
    Projection,
    places_in,
    refuse_pyramid,
)
from earthengine_images import changed, update_mask
from earthengine_values import (
    DOUBLE,
    FLOAT,
    MOST_PIXELS,
    Band,
    Element,
    Image,
    Painter,
    Pixels,
    inside_of,
    painted,
)


def _clip(image: Image, where: Any) -> Image:
    place = where.place if isinstance(where, Element) else where
    inside = inside_of(place)
    cut = update_mask(image, Image(bands={"inside": inside}))
    own = (
        place
        if image.place is None
        else Place(shape=image.place.degrees.intersection(place.degrees))
    )
    return replace(cut, place=own, region=place)


def _clip_to_bounds(
    image: Image, where: Place | None, width: Any, height: Any, most: Any, scale: Any
) -> Image:
    if where is None or any(one is not None for one in (width, height, most, scale)):
        raise EngineError("Image.clipToBoundsAndScale: this server wants a geometry and no size.")
    return _clip(image, where)


def lattice(projection: Projection, columns: np.ndarray, rows: np.ndarray) -> tuple[Grid, int, int]:
    """Return the part of a lattice that holds all of the places, and its first column and row.

    Places are whole (column, row) numbers of pixels.
    """
    left, top = int(columns.min()), int(rows.min())
    width, height = int(columns.max()) - left + 1, int(rows.max()) - top + 1
    if width * height > MOST_PIXELS:
        raise EngineError("User memory limit exceeded.")
    whole = Grid(crs=projection.crs, transform=projection.transform, width=1, height=1)
    return whole.part(left, top, width, height), left, top


def _resample(image: Image, mode: str) -> Image:
    if mode != "bilinear":
        raise EngineError(f"Image.resample: mode {mode!r} is not known to this server.")
    return changed(image, _bilinear)


def _bilinear(band: Band) -> Band:
    if band.projection.crs == DEGREES:
        raise EngineError(
            "Image.resample: the image is a composite, whose pixels are degrees wide; resample "
            "what it is made of."
        )

    def paint(painter: Painter) -> Pixels:
        refuse_pyramid(painter.grid, band.projection)
        x, y = places_in(band.projection, painter.grid)
        left, top = np.floor(x - 0.5).astype(np.int64), np.floor(y - 0.5).astype(np.int64)
        right_share, low_share = x - 0.5 - left, y - 0.5 - top
        columns, rows = np.stack([left.min(), left.max() + 1]), np.stack([top.min(), top.max() + 1])
        part, first_column, first_row = lattice(band.projection, columns, rows)
        inner = painted(band, part)
        left, top = left - first_column, top - first_row
        total, weight = 0.0, 0.0
        for down, down_share in ((0, 1 - low_share), (1, low_share)):
            for along, along_share in ((0, 1 - right_share), (1, right_share)):
                is_there = inner.mask[top + down, left + along]
                share = np.where(is_there, down_share * along_share, 0)
                # masked places may hold anything, infinities too
                found = np.where(is_there, inner.values[top + down, left + along], 0)
                total, weight = total + share * found, weight + share
        nearest = inner.mask[top + (low_share >= 0.5), left + (right_share >= 0.5)]
        is_there = nearest & (weight > 0)
        return Pixels((total / np.where(weight > 0, weight, 1)).astype(kind.dtype), is_there)

    kind = DOUBLE if band.kind.precision == "double" else FLOAT
    return replace(band, kind=kind, paint=paint, inputs=())


def _reproject(image: Image, crs: Any, transform: list[float] | None, scale: Any) -> Image:
    projection = _lattice_of(crs, transform, scale)

    def change(band: Band) -> Band:
        def paint(painter: Painter) -> Pixels:
            x, y = places_in(projection, painter.grid)
            columns, rows = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
            part, left, top = lattice(projection, columns, rows)
            inner = painted(band, part)
            at = rows - top, columns - left
            return Pixels(inner.values[at], inner.mask[at])

        return replace(band, projection=projection, paint=paint, inputs=(), shape=None)

    return changed(image, change)


def _set_projection(image: Image, crs: Any, transform: list[float] | None, scale: Any) -> Image:
    projection = _lattice_of(crs, transform, scale)
    return changed(image, lambda band: replace(band, projection=projection))


def _lattice_of(crs: Any, transform: list[float] | None, scale: Any) -> Projection:
    if isinstance(crs, Projection) and transform is None and scale is None:
        return crs
    code = crs.crs if isinstance(crs, Projection) else crs
    if transform is None or scale is not None:
        raise EngineError("This server wants a crsTransform, and no scale.")
    return Projection(crs=code, transform=Affine(*transform))


def _projection(image: Image) -> Projection:
    found = {band.projection for band in image.bands.values()}
    if len(found) != 1:
        raise EngineError("Image.projection: The bands of the image do not have one projection.")
    return found.pop()


WARP_FUNCTIONS: dict[str, Function] = {
    "Image.clip": _clip,
    "Image.clipToBoundsAndScale": _clip_to_bounds,
    "Image.resample": _resample,
    "Image.reproject": _reproject,
    "Image.setDefaultProjection": _set_projection,
    "Image.projection": _projection,
}
