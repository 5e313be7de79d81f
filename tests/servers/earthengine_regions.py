"""Images in; the means of coarser pixels, the statistics of a region or of columns out."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from affine import Affine
from earthengine_composites import refuse_columns
from earthengine_graph import Function
from earthengine_grids import DEGREES, EngineError, Grid, Place, Projection, pixel_size, places_in
from earthengine_reducers import MEAN, Reducer
from earthengine_values import DOUBLE, Band, Collection, Image, Painter, Pixels, painted
from earthengine_warp import lattice


def _reduce_resolution(image: Image, reducer: Reducer, best_effort: bool, most: int) -> Image:
    if reducer is not MEAN or best_effort:
        raise EngineError("Image.reduceResolution: this server knows the mean, and no bestEffort.")

    def change(band: Band) -> Band:
        if band.projection.crs == DEGREES:
            raise EngineError("Image.reduceResolution: a composite has no pixels to reduce.")
        return replace(band, kind=DOUBLE, paint=_coarser(band, int(most)), inputs=())

    return replace(image, bands={name: change(band) for name, band in image.bands.items()})


def _coarser(band: Band, most: int) -> Callable[[Painter], Pixels]:
    """Return the mean of a band's pixels under each of the grid's, by the share that lies there."""

    def paint(painter: Painter) -> Pixels:
        grid, own = painter.grid, band.projection.transform
        steps = pixel_size(grid, band.projection)
        if steps <= 1:
            return painted(band, grid)
        if np.ceil(steps) ** 2 > most:
            raise EngineError("Image.reduceResolution: Too many input pixels per output pixel.")
        if grid.crs != band.projection.crs:
            return _mean_of_centres(band, grid)
        steps_x, steps_y = abs(grid.transform.a / own.a), abs(grid.transform.e / own.e)
        x, y = places_in(band.projection, grid)
        edges_x, edges_y = _edges(x.ravel(), steps_x), _edges(y.ravel(), steps_y)
        columns = np.array([np.floor(edges_x.min()), np.ceil(edges_x.max()) - 1], np.int64)
        rows = np.array([np.floor(edges_y.min()), np.ceil(edges_y.max()) - 1], np.int64)
        part, left, top = lattice(band.projection, columns, rows)
        inner = painted(band, part)
        across = _shares(edges_x - left, part.width)
        down = _shares(edges_y - top, part.height)
        values = np.where(inner.mask, inner.values, 0).astype(np.float64)
        weight = down @ inner.mask.astype(np.float64) @ across.T
        return Pixels(down @ values @ across.T / np.where(weight > 0, weight, 1), weight > 0)

    return paint


def _mean_of_centres(band: Band, grid: Grid) -> Pixels:
    """Return the mean of a band's pixels whose centres lie in each pixel of another CRS."""
    x, y = places_in(band.projection, grid)
    margin = int(np.ceil(pixel_size(grid, band.projection))) + 1
    columns = np.array([np.floor(x.min()) - margin, np.floor(x.max()) + margin], np.int64)
    rows = np.array([np.floor(y.min()) - margin, np.floor(y.max()) + margin], np.int64)
    part, _, _ = lattice(band.projection, columns, rows)
    inner = painted(band, part)
    x, y = places_in(Projection(crs=grid.crs, transform=grid.transform), part)
    columns, rows = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    is_used = (columns >= 0) & (columns < grid.width) & (rows >= 0) & (rows < grid.height)
    is_used &= inner.mask
    at = (rows * grid.width + columns)[is_used]
    shape = grid.height, grid.width
    count = np.bincount(at, minlength=grid.pixels).reshape(shape)
    total = np.bincount(at, inner.values[is_used], minlength=grid.pixels).reshape(shape)
    return Pixels(total / np.maximum(count, 1), count > 0)


def _edges(middles: np.ndarray, step: float) -> np.ndarray:
    """Return (pixel, 2): first and last edge of each pixel."""
    return np.stack([middles - step / 2, middles + step / 2], axis=1).round(9)


def _shares(edges: np.ndarray, size: int) -> np.ndarray:
    """Return (pixel, source pixel): how much of each source pixel each pixel covers."""
    first = np.arange(size)
    low = np.maximum(edges[:, :1], first)
    high = np.minimum(edges[:, 1:], first + 1)
    return np.maximum(high - low, 0)


def _reduce_region(
    image: Image,
    reducer: Reducer,
    where: Place | None,
    scale: float | None,
    crs: Any,
    transform: list[float] | None,
    best_effort: bool,
    most: float,
    _: float,
) -> dict[str, Any]:
    """Reduce the pixels whose centre lies in a region."""
    refuse_columns(reducer)
    if where is None or best_effort or reducer.inputs != 1:
        raise EngineError("Image.reduceRegion: this server wants a geometry and no bestEffort.")
    if not image.bands:
        return {}
    grid = _grid_of(image, where, scale, crs, transform)
    if grid.pixels > most:
        raise EngineError(
            f"Image.reduceRegion: Too many pixels in the region. Found {grid.pixels}, but "
            f"maxPixels allows only {int(most)}."
        )
    inside, found = _chosen(grid, where), {}
    painter = Painter(grid, image.bands.values())
    for name, band in image.bands.items():
        values, mask = painter.pixels(band)
        stack = (
            values[mask & inside][:, None, None],
            np.ones((int((mask & inside).sum()), 1, 1), bool),
        )
        for output in reducer.outputs:
            key = name if len(reducer.outputs) == 1 else f"{name}_{output.name}"
            if len(stack[0]):
                found[key] = output.compute([stack]).values[0, 0].item()
            else:
                found[key] = 0 if output.name == "count" else None
    return found


def _chosen(grid: Grid, where: Place) -> np.ndarray:
    """Return the pixels whose centre lies inside; of what has no area those it lies in."""
    if not where.shape.area:
        return np.ones((grid.height, grid.width), bool)
    return where.covers(grid)


def _grid_of(
    image: Image, where: Place, scale: float | None, crs: Any, transform: list[float] | None
) -> Grid:
    own = next(iter(image.bands.values())).projection
    if scale is None and transform is None:
        raise EngineError("Image.reduceRegion: this server wants a scale or a crsTransform.")
    code = own.crs if crs is None else crs.crs if isinstance(crs, Projection) else crs
    lattice_at = Affine(*transform) if transform is not None else Affine.scale(scale, -scale)
    return covering(Projection(crs=code, transform=lattice_at), where)


def covering(projection: Projection, where: Place) -> Grid:
    """Return the window of a lattice that holds a place."""
    left, bottom, right, top = where.seen_in(projection.crs).bounds
    inverse = ~projection.transform
    corners = np.array([inverse @ corner for corner in ((left, top), (right, bottom))]).round(6)
    low = np.floor(corners.min(axis=0)).astype(int)
    high = np.maximum(np.ceil(corners.max(axis=0)).astype(int), low + 1)
    whole = Grid(crs=projection.crs, transform=projection.transform, width=1, height=1)
    return whole.part(int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1]))


def _reduce_columns(
    collection: Collection, reducer: Reducer, names: list[str], weights: Any
) -> dict[str, Any]:
    if weights is not None or not reducer.column:
        raise EngineError("Collection.reduceColumns: this server does not know this reducer.")
    names = names if isinstance(names, list) else [names]
    rows = [tuple(item.properties.get(name) for name in names) for item in collection.items]
    if reducer.repeats is not None:
        return {
            reducer.column: [_told([(row[i],) for row in rows], reducer) for i in range(len(names))]
        }
    return {reducer.column: _told(rows, reducer)}


def _told(rows: list[tuple[Any, ...]], reducer: Reducer) -> Any:
    full = [row for row in rows if all(value is not None for value in row)]
    if reducer.column == "list":
        return [row[0] if len(row) == 1 else list(row) for row in full]
    values = [row[0] for row in full]
    if reducer.column == "count":
        return len(values)
    if not values:
        return None
    tell = {"min": min, "max": max, "sum": sum, "mean": lambda v: sum(v) / len(v)}
    return tell[reducer.column](values)


REGION_FUNCTIONS: dict[str, Function] = {
    "Image.reduceResolution": _reduce_resolution,
    "Image.reduceRegion": _reduce_region,
    "Collection.reduceColumns": _reduce_columns,
}
