"""Points and polygons in, cells of the cube's grid out: which pixel is meant, exactly."""

import numpy as np
import shapely
from affine import Affine
from jaxtyping import Bool, Float64, Int64, Num
from odc.geo.geobox import GeoBox

_STRIP_CENTRES = 2_000_000


def pixel_coordinates(
    transform: Affine, x: Float64[np.ndarray, "..."], y: Float64[np.ndarray, "..."]
) -> tuple[Float64[np.ndarray, "..."], Float64[np.ndarray, "..."]]:
    """Return fractional (column, row): cell (0, 0) covers 0..1, its centre is (0.5, 0.5).

    The origin is taken off before the division, so that a coordinate on a line of the grid comes
    out as a whole number; multiplying by the inverted transform misses it by a rounding error.
    """
    right, down = x - transform.c, y - transform.f
    if transform.b == 0 and transform.d == 0:
        return right / transform.a, down / transform.e
    determinant = transform.determinant
    return (
        (right * transform.e - down * transform.b) / determinant,
        (down * transform.a - right * transform.d) / determinant,
    )


def cell_centres(
    geobox: GeoBox, row: Num[np.ndarray, "..."], column: Num[np.ndarray, "..."]
) -> tuple[Float64[np.ndarray, "..."], Float64[np.ndarray, "..."]]:
    """Return x and y of the centres of cells, in the CRS of the grid."""
    transform = geobox.transform
    across, down = column + 0.5, row + 0.5
    return (
        transform.c + transform.a * across + transform.b * down,
        transform.f + transform.d * across + transform.e * down,
    )


def cells_of_points(
    geobox: GeoBox,
    x: Float64[np.ndarray, " point"],
    y: Float64[np.ndarray, " point"],
    *,
    patch: int = 1,
) -> tuple[
    Int64[np.ndarray, " claim"], Int64[np.ndarray, " claim"], Bool[np.ndarray, " point"], int
]:
    """Return the cells round each point: (cell, point, whether the point is on the grid, lost).

    `cell` is row * width + column, `point` the index of the point that claims it. `patch` = 1
    takes the cell that contains the point, n the n x n cells whose centres are nearest. A point
    on a line between cells belongs to the cell right of or below it; a point off the grid claims
    nothing (it is never moved to the edge), and `lost` counts the patch cells off the grid.
    """
    height, width = geobox.shape
    across, down = pixel_coordinates(geobox.transform, x, y)
    is_on_grid = (across >= 0) & (across < width) & (down >= 0) & (down < height)
    point = np.flatnonzero(is_on_grid)
    reach = (patch - 1) / 2
    left = np.floor(across[point] - reach).astype(np.int64)
    top = np.floor(down[point] - reach).astype(np.int64)
    step = np.arange(patch)
    row = np.broadcast_to(top[:, None, None] + step[:, None], (point.size, patch, patch))
    column = np.broadcast_to(left[:, None, None] + step, (point.size, patch, patch))
    is_kept = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    owner = np.broadcast_to(point[:, None, None], is_kept.shape)
    cell = (row * width + column)[is_kept]
    return cell, owner[is_kept], is_on_grid, int((~is_kept).sum())


def cells_of_polygon(
    geobox: GeoBox, polygon: shapely.Polygon | shapely.MultiPolygon
) -> Int64[np.ndarray, " cell"]:
    """Return the cells (row * width + column, ascending) whose centre lies inside `polygon`.

    `polygon` is in the CRS of the grid. A centre exactly on the boundary is outside, so two
    polygons that share an edge never claim the same cell.
    """
    height, width = geobox.shape

    def to_pixels(points: Float64[np.ndarray, "point 2"]) -> Float64[np.ndarray, "point 2"]:
        return np.column_stack(pixel_coordinates(geobox.transform, points[:, 0], points[:, 1]))

    shape = shapely.transform(polygon, to_pixels)
    left, top, right, bottom = shapely.bounds(shape)
    columns = np.arange(max(0, np.floor(left)), min(width, np.ceil(right)), dtype=np.int64)
    rows = np.arange(max(0, np.floor(top)), min(height, np.ceil(bottom)), dtype=np.int64)
    if not columns.size or not rows.size:
        return np.empty(0, dtype=np.int64)
    shapely.prepare(shape)
    found = []
    step = max(1, _STRIP_CENTRES // columns.size)
    for start in range(0, rows.size, step):
        row, column = np.meshgrid(rows[start : start + step], columns, indexing="ij")
        is_inside = shapely.contains_xy(shape, column + 0.5, row + 0.5)
        found.append((row * width + column)[is_inside])
    return np.concatenate(found)
