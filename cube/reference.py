"""Labels in, labelled cells of the cube's grid out: points, polygons or a label raster."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Bool, Float64, Int32, Int64, Shaped
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from cube.cells import cell_centres, cells_of_points, cells_of_polygon
from cube.errors import InputError
from cube.grid import LON_LAT
from cube.labelraster import (
    NETCDF_SUFFIXES,
    RASTER_SUFFIXES,
    labelled_windows,
    open_label_raster,
)
from cube.labels import LabelledShapes, ReferenceOptions, read_shapes

__all__ = ["Reference", "ReferenceOptions", "read_reference"]

_MOST_CELLS = 20_000_000
"""Cells a reference may have: at some 250 bytes each, 5 GB while it is read."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Ground truth on the grid of a cube: one entry a cell, ordered by row, then column."""

    geobox: GeoBox
    """The grid the rows and columns count on."""
    row: Int32[np.ndarray, " cell"]
    """Row of the cell, from the top."""
    column: Int32[np.ndarray, " cell"]
    """Column of the cell, from the left."""
    label: Shaped[np.ndarray, " cell"]
    """Class of the cell, text."""
    group: Shaped[np.ndarray, " cell"]
    """Label unit the cell belongs to, text: the group column's value; else `#n` for the n-th
    point or polygon of the file; for a raster `r<row>c<column>`, the first cell of the connected
    patch (see `cube.labelraster.labelled_windows`)."""
    dropped: dict[str, int]
    """What was left out: reason to count."""

    def __post_init__(self) -> None:
        sizes = {self.row.size, self.column.size, self.label.size, self.group.size}
        if len(sizes) != 1:
            raise ValueError(f"reference arrays differ in length: {sorted(sizes)}")
        height, width = self.geobox.shape
        if self.row.size and not (
            0 <= self.row.min() <= self.row.max() < height
            and 0 <= self.column.min() <= self.column.max() < width
        ):
            raise ValueError(f"reference cells lie outside the grid of {height} x {width} cells")

    def __len__(self) -> int:
        return int(self.row.size)

    @property
    def x(self) -> Float64[np.ndarray, " cell"]:
        """Easting of the cell centres, in the CRS of the grid."""
        return cell_centres(self.geobox, self.row, self.column)[0]

    @property
    def y(self) -> Float64[np.ndarray, " cell"]:
        """Northing of the cell centres, in the CRS of the grid."""
        return cell_centres(self.geobox, self.row, self.column)[1]

    @property
    def counts(self) -> dict[str, int]:
        """Cells of each class, by name."""
        return dict(sorted(Counter(self.label.tolist()).items()))


def read_reference(options: ReferenceOptions, geobox: GeoBox) -> Reference:
    """Read the ground truth of `options` onto the grid of a cube.

    A point labels the cell that contains it (or the `patch` round it), a polygon the cells whose
    centre lies inside it, a raster the cells whose centre lies in one of its labelled pixels.
    A cell claimed twice by one class counts once, for the first shape of the file; a cell claimed
    by different classes is dropped. `Reference.dropped` counts all that was left out.

    Raises `InputError` if the file is missing or unreadable, lacks a column, a layer or a CRS, if
    `classes` or `drop` name a label that no shape has, if no label is left on the grid, or if more
    than 20 million cells are labelled.
    """
    if not options.file.is_file():
        raise InputError(f"reference file {str(options.file)!r} does not exist")
    if options.file.suffix.lower() in (*RASTER_SUFFIXES, *NETCDF_SUFFIXES):
        return _reference_of_raster(options, geobox)
    return _reference_of_shapes(options, geobox)


def _reference_of_shapes(options: ReferenceOptions, geobox: GeoBox) -> Reference:
    read = read_shapes(options)
    _refuse_unknown_labels(options, set(read.labels))
    dropped: Counter[str] = Counter()
    class_of = {label: _class_of(options, label) for label in set(read.labels)}
    types = shapely.get_type_id(read.shapes)
    is_kept = np.ones(len(read.labels), dtype=bool)
    for reason, is_lost in (
        ("blank labels", np.array([label == "" for label in read.labels])),
        ("labels not asked for", np.array([class_of[label] is None for label in read.labels])),
        ("shapes without coordinates", ~np.isfinite(shapely.bounds(read.shapes)).all(axis=1)),
        # shapely's type ids: 0 point, 4 points; 3 polygon, 6 polygons
        ("shapes that are neither points nor polygons", ~np.isin(types, (0, 3, 4, 6))),
    ):
        dropped[reason] += int((is_kept & is_lost).sum())
        is_kept &= ~is_lost
    chosen = np.flatnonzero(is_kept)
    if not chosen.size:
        raise InputError(_nothing_left(options, dropped))
    shapes = _project(read, chosen, geobox)
    cell, owner = _claims(options, geobox, shapes, types[chosen], dropped)
    if not cell.size:
        raise InputError(
            _all_outside(options, geobox, shapely.total_bounds(read.shapes[chosen]), read.crs)
            if not _is_on_grid(geobox, shapes).any()
            else _nothing_left(options, dropped)
        )
    names = np.array([class_of[read.labels[n]] or "" for n in chosen])
    groups = np.array([read.groups[n] for n in chosen])
    return _settle(geobox, cell, names[owner], groups[owner], dropped, options)


def _reference_of_raster(options: ReferenceOptions, geobox: GeoBox) -> Reference:
    width = geobox.shape[1]
    dropped: Counter[str] = Counter()
    cells, labels, groups, inside = [], [], [], 0
    for cell, value, group, count in labelled_windows(options, geobox):
        inside += count
        numbers, which = np.unique(value, return_inverse=True)
        names = [
            _class_of(options, str(options.class_names.get(int(number), number)).strip())
            for number in numbers
        ]
        is_kept = np.array([bool(name) for name in names], dtype=bool)[which]
        dropped["cells with labels not asked for"] += int((~is_kept).sum())
        cells.append(cell[is_kept])
        _refuse_too_many(options, sum(part.size for part in cells))
        labels.append(np.array([name or "" for name in names], dtype=str)[which[is_kept]])
        first, at = np.unique(group[is_kept], return_inverse=True)
        groups.append(
            np.array([f"r{n // width}c{n % width}" for n in first.tolist()], dtype=str)[at]
        )
    if not inside:
        with open_label_raster(options) as (source, crs):
            raise InputError(_all_outside(options, geobox, np.array(source.bounds), crs))
    if not sum(part.size for part in cells):
        raise InputError(_nothing_left(options, dropped))
    return _settle(
        geobox,
        np.concatenate(cells),
        np.concatenate(labels),
        np.concatenate(groups),
        dropped,
        options,
    )


def _class_of(options: ReferenceOptions, label: str) -> str | None:
    """Return the class a label stands for; None if it is not wanted."""
    if label in options.drop:
        return None
    return options.classes.get(label) if options.classes else label


def _refuse_unknown_labels(options: ReferenceOptions, found: set[str]) -> None:
    if unknown := sorted({*options.classes, *options.drop} - found):
        known = ", ".join(repr(label) for label in sorted(found - {""})[:30])
        raise InputError(
            f"reference classes or drop name {unknown[0]!r}, a label that "
            f"{str(options.file)!r} does not have; it has {known or 'only blank ones'}"
        )


def _project(
    read: LabelledShapes, chosen: Int64[np.ndarray, " shape"], geobox: GeoBox
) -> Shaped[np.ndarray, " shape"]:
    """Return the chosen shapes in the CRS of the grid, vertex by vertex."""
    transformer = Transformer.from_crs(read.crs, geobox.crs, always_xy=True)

    def to_grid(points: Float64[np.ndarray, "point 2"]) -> Float64[np.ndarray, "point 2"]:
        return np.column_stack(transformer.transform(points[:, 0], points[:, 1]))

    return np.asarray(shapely.transform(read.shapes[chosen], to_grid), dtype=object)


def _claims(
    options: ReferenceOptions,
    geobox: GeoBox,
    shapes: Shaped[np.ndarray, " shape"],
    types: Int32[np.ndarray, " shape"],
    dropped: Counter[str],
) -> tuple[Int64[np.ndarray, " claim"], Int64[np.ndarray, " claim"]]:
    """Return (cell, index of the shape that claims it), counting the shapes that claim none."""
    is_point = np.isin(types, (0, 4))
    places, owner = shapely.get_coordinates(shapes[is_point], return_index=True)
    owner = np.flatnonzero(is_point)[owner]
    # a coordinate the projection cannot reach comes out infinite: off the grid like any other
    cell, point, is_on_grid, lost = cells_of_points(
        geobox, places[:, 0], places[:, 1], patch=options.patch
    )
    dropped["points outside the cube"] += int((~is_on_grid).sum())
    dropped["patch cells outside the cube"] += lost
    cells, owners = [cell], [owner[point].astype(np.int64)]
    claimed = cell.size
    is_near = ~is_point & _is_on_grid(geobox, shapes)
    dropped["polygons outside the cube"] += int((~is_point & ~is_near).sum())
    for index in np.flatnonzero(is_near):
        polygon = shapes[index]
        polygon = polygon if polygon.is_valid else shapely.make_valid(polygon)
        polygon = polygon.buffer(-options.erode) if options.erode else polygon
        inside = (
            cells_of_polygon(geobox, polygon) if not polygon.is_empty else np.empty(0, np.int64)
        )
        dropped["polygons without a cell centre inside"] += not inside.size
        row, column = np.divmod(inside, geobox.shape[1])
        inside = inside[(row % options.every == 0) & (column % options.every == 0)]
        cells.append(inside)
        owners.append(np.full(inside.size, index, dtype=np.int64))
        claimed += inside.size
        _refuse_too_many(options, claimed)
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")  # as in the file, points and polygons mixed
    return np.concatenate(cells)[order], owner[order]


def _refuse_too_many(options: ReferenceOptions, cells: int) -> None:
    if cells > _MOST_CELLS:
        raise InputError(
            f"reference file {str(options.file)!r} labels more than {_MOST_CELLS:,} cells of the cube; "
            f"take a systematic sample of them with every = {options.every * 10} (now {options.every})"
        )


def _is_on_grid(geobox: GeoBox, shapes: Shaped[np.ndarray, " shape"]) -> Bool[np.ndarray, " shape"]:
    """Return which shapes touch the grid; one that could not be projected has infinite bounds."""
    is_finite = np.isfinite(shapely.bounds(shapes)).all(axis=1)
    is_on_grid: Bool[np.ndarray, " shape"] = np.zeros(len(shapes), dtype=bool)
    is_on_grid[is_finite] = shapely.intersects(geobox.extent.geom, shapes[is_finite])
    return is_on_grid


def _settle(
    geobox: GeoBox,
    cell: Int64[np.ndarray, " claim"],
    label: Shaped[np.ndarray, " claim"],
    group: Shaped[np.ndarray, " claim"],
    dropped: Counter[str],
    options: ReferenceOptions,
) -> Reference:
    """Let each cell be claimed by one class: one entry a cell, in order of row and column."""
    order = np.argsort(cell, kind="stable")  # the first shape of the file stays first
    cell, label, group = cell[order], label[order], group[order]
    start = np.flatnonzero(np.diff(cell, prepend=-1))
    code = np.unique(label, return_inverse=True)[1]
    is_agreed = np.minimum.reduceat(code, start) == np.maximum.reduceat(code, start)
    size = np.diff(start, append=cell.size)
    dropped["cells claimed by different classes"] += int((~is_agreed).sum())
    dropped["repeated claims of one cell by one class"] += int((size - 1)[is_agreed].sum())
    first = start[is_agreed]
    if not first.size:
        raise InputError(_nothing_left(options, dropped))
    width = geobox.shape[1]
    return Reference(
        geobox=geobox,
        row=(cell[first] // width).astype(np.int32),
        column=(cell[first] % width).astype(np.int32),
        label=label[first],
        group=group[first],
        dropped={reason: count for reason, count in dropped.items() if count},
    )


def _nothing_left(options: ReferenceOptions, dropped: Counter[str]) -> str:
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items() if count)
    return f"reference file {str(options.file)!r} leaves no label: {reasons or 'it labels no cell'}"


def _all_outside(
    options: ReferenceOptions, geobox: GeoBox, bounds: Float64[np.ndarray, " 4"], crs: CRS
) -> str:
    return (
        f"reference file {str(options.file)!r} lies wholly outside the cube: labels at "
        f"{_lon_lat_range(bounds, crs)}; cube at {_lon_lat_range(_grid_bounds(geobox), geobox.crs)}"
    )


def _grid_bounds(geobox: GeoBox) -> Float64[np.ndarray, " 4"]:
    return np.array(geobox.boundingbox.bbox, dtype=np.float64)


def _lon_lat_range(bounds: Float64[np.ndarray, " 4"], crs: CRS | None) -> str:
    transformer = Transformer.from_crs(crs, LON_LAT, always_xy=True)
    left, bottom, right, top = transformer.transform_bounds(*bounds.tolist())
    if not np.isfinite([left, bottom, right, top]).all():
        return f"{bounds.tolist()} in {crs}, which is nowhere on Earth"
    return f"lon {left:.4f}..{right:.4f}, lat {bottom:.4f}..{top:.4f}"
