"""The labelled rows of tables as an audit sees them: values as they are, in the order of their file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, Shaped

from cube.bands import BANDS, SCALE

_COUNTS_FROM = 2.0
"""Median above which reflectance must be counts."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlainRows:
    """The labelled rows of one or more tables, in their order."""

    is_export: bool
    """Whether they have the form of Earth Engine's exports, which the reference workflow trains on."""
    values: Float32[np.ndarray, "row band"]
    """Counts times their scale, so physical units where they are no fill value; NaN where blank."""
    bands: tuple[str, ...]
    """Canonical names of Sentinel-2's bands, others as they are."""
    columns: Mapping[str, Float32[np.ndarray, " row"]]
    """Columns of indices and colours, as they are."""
    key: Shaped[np.ndarray, " row"]
    """What tells sequences apart: the text of the coordinates, or the id."""
    place: Float64[np.ndarray, "row 2"] | None
    """Longitude and latitude; None where a table has none."""
    day: Int32[np.ndarray, " row"]
    """Days since 1970."""
    label: Shaped[np.ndarray, " row"]
    """Class, text."""
    written: Shaped[np.ndarray, " row"]
    """Class as the table has it, with the blanks round it."""
    number: Shaped[np.ndarray, " row"]
    """Number of the row as text, with its file where there are several; a CSV's header is row 1."""

    def __len__(self) -> int:
        return len(self.day)


def count_scales(
    values: Float64[np.ndarray, "row band"], bands: tuple[str, ...], *, is_export: bool
) -> Float64[np.ndarray, " band"]:
    """Return the physical value of one count of each band; 1 where values are physical already."""
    is_known = np.array([band in BANDS for band in bands])
    reflectance = values[:, [band in BANDS and BANDS[band].has_offset for band in bands]]
    real = reflectance[np.isfinite(reflectance) & (reflectance > 0) & (reflectance != 65535)]
    is_counts = bool(real.size and np.median(real) > _COUNTS_FROM) or (is_export and not real.size)
    factors = [BANDS[band].stored_per_count * SCALE if band in BANDS else 1.0 for band in bands]
    return np.where(is_known & is_counts, factors, 1.0)


def joined_rows(parts: list[PlainRows]) -> PlainRows:
    """Return all rows, one table after the other; bands in the order of the first."""
    first = parts[0]
    if len(parts) == 1:
        return first
    orders = [[part.bands.index(band) for band in first.bands] for part in parts]
    whole: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("key", "day", "label", "written", "number")
    }
    shared = [name for name in first.columns if all(name in part.columns for part in parts)]
    places = [part.place for part in parts if part.place is not None]
    return PlainRows(
        is_export=first.is_export,
        bands=first.bands,
        values=np.concatenate(
            [part.values[:, order] for part, order in zip(parts, orders, strict=True)]
        ),
        columns={name: np.concatenate([part.columns[name] for part in parts]) for name in shared},
        place=np.concatenate(places) if len(places) == len(parts) else None,
        **whole,
    )


def order_by_date(
    rows: PlainRows,
) -> tuple[Int64[np.ndarray, " row"], Int64[np.ndarray, " row"]]:
    """Return the order of the rows by sequence and date, and of each row in it its sequence.

    A sequence is the rows of one key and one class. Equal dates stay in the order of the table.
    """
    names = np.char.add(np.char.add(rows.key, "\x1f"), rows.label)
    number = np.unique(names, return_inverse=True)[1].astype(np.int64)
    order = np.lexsort((rows.day, number))
    return order.astype(np.int64), number[order]
