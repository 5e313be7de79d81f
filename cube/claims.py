"""Points and polygons on a grid in, out which cells each of them claims, and which claim none."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from jaxtyping import Bool, Int64, Shaped
from odc.geo.geobox import GeoBox

from cube.cells import cells_of_points, cells_of_polygon
from cube.errors import InputError
from cube.labeloptions import ReferenceOptions

_MOST_CELLS = 20_000_000
"""Cells a reference may have: at some 250 bytes each, 5 GB while it is read."""

_POINTS = (0, 4)
"""shapely's type ids of a point and of points."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Claims:
    """What shapes claim of a grid; a cell may be claimed several times."""

    cell: Int64[np.ndarray, " claim"]
    """row * width + column."""
    owner: Int64[np.ndarray, " claim"]
    """Index of the shape, rising."""
    dropped: Counter[str]
    """Shapes, and cells of patches, that are left out: reason to count."""
    lost: dict[str, list[int]]
    """Polygons on the grid that claim no cell: reason to their indices."""


def find_claims(
    options: ReferenceOptions, geobox: GeoBox, shapes: Shaped[np.ndarray, " shape"]
) -> Claims:
    """Return the cells of points and polygons that are in the CRS of the grid.

    Raises `InputError` for more than 20 million.
    """
    dropped: Counter[str] = Counter()
    lost: dict[str, list[int]] = defaultdict(list)
    is_point = np.isin(shapely.get_type_id(shapes), _POINTS)
    places, owner = shapely.get_coordinates(shapes[is_point], return_index=True)
    owner = np.flatnonzero(is_point)[owner]
    # a coordinate the projection cannot reach comes out infinite: off the grid like any other
    cell, point, is_inside, cut = cells_of_points(
        geobox, places[:, 0], places[:, 1], patch=options.patch
    )
    dropped["points outside the cube"] += int((~is_inside).sum())
    dropped["patch cells outside the cube"] += cut
    cells, owners = [cell], [owner[point].astype(np.int64)]
    claimed = cell.size
    is_near = ~is_point & is_on_grid(geobox, shapes)
    dropped["polygons outside the cube"] += int((~is_point & ~is_near).sum())
    for index in np.flatnonzero(is_near).tolist():
        inside, reason = _cells_inside(options, geobox, shapes[index])
        if reason is not None:
            dropped[reason] += 1
            lost[reason].append(index)
        row, column = np.divmod(inside, geobox.shape[1])
        taken = inside[(row % options.every == 0) & (column % options.every == 0)]
        if inside.size and not taken.size:
            reason = f"polygons between the cells that every = {options.every} takes"
            dropped[reason] += 1
            lost[reason].append(index)
        inside = taken
        cells.append(inside)
        owners.append(np.full(inside.size, index, dtype=np.int64))
        claimed += inside.size
        refuse_too_many(options, claimed)
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")  # as in the file, points and polygons mixed
    return Claims(
        cell=np.concatenate(cells)[order], owner=owner[order], dropped=dropped, lost=dict(lost)
    )


def _cells_inside(
    options: ReferenceOptions, geobox: GeoBox, shape: Any
) -> tuple[Int64[np.ndarray, " cell"], str | None]:
    """Return the cells of an eroded polygon and, if there are none, why."""
    whole = shape if shape.is_valid else shapely.make_valid(shape)
    polygon = whole.buffer(-options.erode) if options.erode else whole
    nothing = np.empty(0, np.int64)
    inside = nothing if polygon.is_empty else cells_of_polygon(geobox, polygon)
    if inside.size:
        return inside, None
    if options.erode and cells_of_polygon(geobox, whole).size:
        return nothing, "polygons that erosion leaves empty"
    return nothing, "polygons without a cell centre inside"


def refuse_too_many(options: ReferenceOptions, cells: int) -> None:
    """Raise `InputError` where a reference labels more cells than memory is meant for."""
    if cells > _MOST_CELLS:
        raise InputError(
            f"reference file {str(options.file)!r} labels more than {_MOST_CELLS:,} cells of the "
            f"cube; take a systematic sample of them with every = {options.every * 10} "
            f"(now {options.every})"
        )


def is_on_grid(geobox: GeoBox, shapes: Shaped[np.ndarray, " shape"]) -> Bool[np.ndarray, " shape"]:
    """Return which shapes touch the grid; one that could not be projected has infinite bounds."""
    is_finite = np.isfinite(shapely.bounds(shapes)).all(axis=1)
    is_there: Bool[np.ndarray, " shape"] = np.zeros(len(shapes), dtype=bool)
    is_there[is_finite] = shapely.intersects(geobox.extent.geom, shapes[is_finite])
    return is_there
