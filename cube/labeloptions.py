"""What a recipe says of its ground truth in, options that hang together out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cube.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ReferenceOptions:
    """Where the ground truth lies and how it is read."""

    file: Path
    """Points (CSV, GeoPackage, GeoJSON, Shapefile, …), polygons, or a label raster."""
    class_column: str = "class"
    """Column that holds the class (tables and vector files)."""
    group_column: str | None = None
    """Column that holds the label unit (stand, plot, …); without it each shape is a group."""
    region_column: str | None = None
    """Column that holds the region (tables and vector files), to leave one out at a time."""
    share_columns: Mapping[str, str] = field(default_factory=dict)
    """Column to class: mixed plots, with the share of each class in a column of its own (any unit,
    blank is 0). They take the place of `class_column`; the label is the largest."""
    x_column: str | None = None
    """CSV column of the easting or longitude; without it lon, longitude or x."""
    y_column: str | None = None
    """CSV column of the northing or latitude; without it lat, latitude or y."""
    crs: str | None = None
    """CRS of a CSV (default EPSG:4326) or of a file that carries none."""
    layer: str | None = None
    """Layer of a vector file that has several."""
    classes: Mapping[str, str] = field(default_factory=dict)
    """Label to class, to keep, rename and merge; if given, labels not in it are dropped."""
    drop: frozenset[str] = frozenset()
    """Labels to leave out (as the file spells them)."""
    patch: int = 1
    """Cells along the edge of the square taken round a point; 2 takes the four nearest cells."""
    erode: int | float = 0
    """Metres (units of the cube's CRS) taken off a polygon's edge, where pixels are mixed."""
    band: int = 1
    """Band of a label raster, from 1."""
    variable: str | None = None
    """Variable of a NetCDF label raster that has several."""
    class_names: Mapping[int, str] = field(default_factory=dict)
    """Raster value to label; a value not in it is labelled by its number."""
    nodata: int | float | None = None
    """Raster value that means "no label", beside the one the file declares."""
    every: int = 1
    """Take every n-th row and column of the cells in polygons or a label raster: a systematic
    sample."""

    def __post_init__(self) -> None:
        for name in ("patch", "band", "every"):
            if getattr(self, name) < 1:
                raise InputError(f"reference {name} = {getattr(self, name)!r}; expected 1 or more")
        if not (math.isfinite(self.erode) and self.erode >= 0):
            raise InputError(f"reference erode = {self.erode!r}; expected 0 or more metres")
        if blank := [label for label, name in self.classes.items() if not name.strip()]:
            raise InputError(f"reference classes gives {blank[0]!r} a blank name; use drop for it")
        if (self.x_column is None) != (self.y_column is None):
            raise InputError("reference x_column and y_column go together; give both or neither")
        if blank := [column for column, name in self.share_columns.items() if not name.strip()]:
            raise InputError(f"reference share_columns gives {blank[0]!r} a blank class")
        if self.share_columns and len(set(self.share_columns.values())) < 2:
            raise InputError("reference share_columns name one class; shares need two or more")
        if self.share_columns and (self.classes or self.drop):
            raise InputError(
                "reference classes and drop go with class_column; choose and merge classes of "
                "shares in share_columns"
            )

    @property
    def share_classes(self) -> tuple[str, ...]:
        """The classes of `share_columns`, sorted; none where labels are whole."""
        return tuple(sorted(set(self.share_columns.values())))

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns that say what a shape is."""
        return tuple(self.share_columns) or (self.class_column,)

    @property
    def unit_columns(self) -> tuple[str, ...]:
        """The columns asked for that say what a shape belongs to."""
        return tuple(name for name in (self.group_column, self.region_column) if name is not None)
