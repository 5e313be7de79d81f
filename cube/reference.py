"""Labels in, labelled cells of the cube's grid out: points, polygons or a label raster."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import shapely
from jaxtyping import Float32, Float64, Int32, Int64, Shaped
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from cube.cells import cell_centres
from cube.claims import find_claims, is_on_grid, refuse_too_many
from cube.errors import InputError
from cube.grid import LON_LAT
from cube.labelraster import (
    NETCDF_SUFFIXES,
    RASTER_SUFFIXES,
    labelled_windows,
    open_label_raster,
)
from cube.labels import LabelledShapes, ReferenceOptions, read_shapes
from cube.series.classes import refuse_unlike

__all__ = ["NoLabelsError", "Reference", "ReferenceOptions", "read_reference"]


class NoLabelsError(InputError):
    """No label is left on a grid; that of another zone may have some."""


_MOST_NAMED = 5
"""Polygons that are named among those left out for one reason."""


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
    dropped_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The first few groups of those polygons that were left out: reason to names."""
    region: Shaped[np.ndarray, " cell"] | None = None
    """Region of the cell, text; None where no column was asked for."""
    share: Float32[np.ndarray, "cell class"] | None = None
    """Share of each of `share_classes`, rows sum to 1 and `label` is the largest; None where labels
    are whole."""
    share_classes: tuple[str, ...] = ()
    """Classes of `share`, sorted."""

    def __post_init__(self) -> None:
        parts = (self.row, self.column, self.label, self.group, self.region, self.share)
        sizes = {len(part) for part in parts if part is not None}
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
    by different classes is dropped. `Reference.dropped` counts all that was left out; polygons
    smaller than a cell and those that erosion leaves nothing of are counted apart, and the first
    few named.

    Raises `InputError` if the file is missing or unreadable, lacks a column, a layer or a CRS, if
    `classes` or `drop` name a label that no shape has, if no label is left on the grid, or if more
    than 20 million cells are labelled.
    """
    if not options.file.is_file():
        raise InputError(f"reference file {str(options.file)!r} does not exist")
    if options.file.suffix.lower() in (*RASTER_SUFFIXES, *NETCDF_SUFFIXES):
        if options.region_column is not None or options.share_columns:
            raise InputError(
                f"reference file {str(options.file)!r} is a label raster, which has no columns; "
                "region_column and share_columns go with tables and vector files"
            )
        return _reference_of_raster(options, geobox)
    return _reference_of_shapes(options, geobox)


def _reference_of_shapes(options: ReferenceOptions, geobox: GeoBox) -> Reference:
    read = read_shapes(options)
    _refuse_unknown_labels(options, set(read.labels))
    dropped: Counter[str] = Counter()
    class_of = {label: _class_of(options, label) for label in set(read.labels)}
    # what the recipe renames to one class may be written in several ways
    refuse_unlike(
        sorted({name for name in class_of.values() if name}),
        options.class_column,
        file=options.file.name,
    )
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
        raise NoLabelsError(_nothing_left(options, dropped))
    _refuse_blank_regions(options, read, chosen)
    shapes = _project(read, chosen, geobox)
    claims = find_claims(options, geobox, shapes)
    cell, owner = claims.cell, claims.owner
    dropped.update(claims.dropped)
    if not cell.size:
        raise NoLabelsError(
            _all_outside(options, geobox, shapely.total_bounds(read.shapes[chosen]), read.crs)
            if not is_on_grid(geobox, shapes).any()
            else _nothing_left(options, dropped)
        )
    label = np.array([class_of[read.labels[n]] or "" for n in chosen])[owner]
    first = _settle(cell, label, dropped, options)
    shape = owner[first]
    groups = np.array([read.groups[n] for n in chosen])
    width = geobox.shape[1]
    return Reference(
        geobox=geobox,
        row=(cell[first] // width).astype(np.int32),
        column=(cell[first] % width).astype(np.int32),
        label=label[first],
        group=groups[shape],
        dropped=_counted(dropped),
        dropped_names={
            reason: tuple(groups[lost[:_MOST_NAMED]].tolist())
            for reason, lost in claims.lost.items()
        },
        region=None if read.regions is None else np.array([read.regions[n] for n in chosen])[shape],
        share=None if read.shares is None else read.shares[chosen][shape],
        share_classes=options.share_classes,
    )


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
        refuse_too_many(options, sum(part.size for part in cells))
        labels.append(np.array([name or "" for name in names], dtype=str)[which[is_kept]])
        first, at = np.unique(group[is_kept], return_inverse=True)
        groups.append(
            np.array([f"r{n // width}c{n % width}" for n in first.tolist()], dtype=str)[at]
        )
    if not inside:
        with open_label_raster(options) as (source, crs):
            raise NoLabelsError(_all_outside(options, geobox, np.array(source.bounds), crs))
    if not sum(part.size for part in cells):
        raise NoLabelsError(_nothing_left(options, dropped))
    cell, label, group = (np.concatenate(parts) for parts in (cells, labels, groups))
    first = _settle(cell, label, dropped, options)
    return Reference(
        geobox=geobox,
        row=(cell[first] // width).astype(np.int32),
        column=(cell[first] % width).astype(np.int32),
        label=label[first],
        group=group[first],
        dropped=_counted(dropped),
    )


def _counted(dropped: Counter[str]) -> dict[str, int]:
    return {reason: count for reason, count in dropped.items() if count}


def _refuse_blank_regions(
    options: ReferenceOptions, read: LabelledShapes, chosen: Int64[np.ndarray, " shape"]
) -> None:
    if read.regions is None:
        return
    if blank := [n for n in chosen.tolist() if not read.regions[n]]:
        raise InputError(
            f"reference file {str(options.file)!r}: column {options.region_column!r} is blank for "
            f"{len(blank)} of {chosen.size} labelled shapes, first shape {blank[0] + 1}; "
            "give every shape a region"
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


def _settle(
    cell: Int64[np.ndarray, " claim"],
    label: Shaped[np.ndarray, " claim"],
    dropped: Counter[str],
    options: ReferenceOptions,
) -> Int64[np.ndarray, " cell"]:
    """Let each cell be claimed by one class; return its first claim, in order of row and column."""
    order = np.argsort(cell, kind="stable")  # the first shape of the file stays first
    cell, label = cell[order], label[order]
    start = np.flatnonzero(np.diff(cell, prepend=-1))
    code = np.unique(label, return_inverse=True)[1]
    is_agreed = np.minimum.reduceat(code, start) == np.maximum.reduceat(code, start)
    size = np.diff(start, append=cell.size)
    dropped["cells claimed by different classes"] += int((~is_agreed).sum())
    dropped["repeated claims of one cell by one class"] += int((size - 1)[is_agreed].sum())
    first = start[is_agreed]
    if not first.size:
        raise NoLabelsError(_nothing_left(options, dropped))
    return np.asarray(order[first])


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
