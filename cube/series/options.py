"""What is said of a table beside the table: its columns, its missing values, its calendar."""

import math
from dataclasses import dataclass
from typing import Literal

from cube.errors import InputError
from cube.periods import Period, Step


@dataclass(frozen=True, kw_only=True)
class SeriesOptions:
    """How a table of labelled sequences is read; what is None is found by the usual names."""

    id: str | None = None
    """Column that says which rows are one series."""
    label: str | None = None
    """Column with the class."""
    date: str | None = None
    """Column with the day of an observation, in long tables."""
    group: str | None = None
    """Column of the label unit (field, stand, plot); None takes neighbours for one."""
    year: str | None = None
    """Column of the year, where ids begin again every year: a series is then an id of a year."""
    region: str | None = None
    """Column of the region that `leave one region out` leaves out."""
    bands: tuple[str, ...] | None = None
    """Columns (or bands of a wide table) that are imported; None takes those that vary in time."""
    wide: str | None = None
    """Name of value columns with `{band}` and `{date}` or `{step}`, e.g. `{band}_ts{step}`."""
    start: str | None = None
    """Day of the first step, or the column with it, where columns are named by steps."""
    step: Step | None = None
    """Common calendar on which series of other lengths or dates are put."""
    first: Period | None = None
    """First month of that calendar; only its place in the year counts."""
    last: Period | None = None
    """Last month of that calendar."""
    nodata: tuple[float, ...] = ()
    """Values that mean "not observed"; NaN among them allows empty cells."""
    finds_nodata: bool = False
    """Whether the usual fill values and empty cells mean "not observed" without being named."""
    scale: float | None = None
    """Factor from stored values to physical ones, of all bands but radar; None takes 1e-4 where
    Sentinel-2 bands are whole counts, and refuses other counts."""
    duplicates: Literal["refuse", "first", "mean"] = "refuse"
    """What is done where a series has a date twice."""
    sorts: bool = False
    """Whether rows of a series may come in any order of dates."""
    crs: str | None = None
    """CRS of the columns x and y; None means longitude and latitude."""
    group_distance: float | None = None
    """Metres within which places share a group; None takes `GROUP_DISTANCE`, and cuts
    chains of places that are long and hold many."""
    block_degrees: float | None = None
    """Edge of the squares of longitude and latitude that are blocks; None takes 1, or less."""
    needs_labels: bool = True
    """Whether a table without labels is refused."""

    def __post_init__(self) -> None:
        if self.scale is not None and not 0 < self.scale <= 1:
            raise InputError(f"--scale {self.scale!r}; expected the value of one count, 0..1")
        if any(math.isinf(value) for value in self.nodata):
            raise InputError("--nodata inf; infinite values are damage, not a sign for no data")
        for name in ("group_distance", "block_degrees"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InputError(f"--{name.replace('_', '-')} {value!r}; expected 0 or more")
        if self.block_degrees == 0:
            raise InputError("--block-degrees 0; expected the edge of a square in degrees")
