"""Columns of indices and of bands in, how far the ones are from the others out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Shaped

from cube.bands import SCALE
from cube.tables.columns import TableColumns

_NEEDED = {"EVI": ("B02", "B04", "B08"), "NDVI": ("B04", "B08")}
_NEAR = 1e-3

_LARGEST = 1e6
"""No index is larger, whatever the counts: half a count is the least that one divides by."""


@dataclass(frozen=True, kw_only=True)
class IndexCheck:
    """How a column of an index compares with the index of the table's own bands."""

    rows: int
    """Rows that were compared."""
    impossible: int
    """Rows that were not, for their value is infinite or larger than any index."""
    mean_difference: float
    """Mean absolute difference from the index on reflectance."""
    near_share: float
    """Share of rows that agree with the index on reflectance to 0.001."""
    near_share_on_counts: float
    """Share of rows that agree with the index on counts (reflectance x 10000) to 0.001."""

    @property
    def is_on_counts(self) -> bool:
        """Whether the column was computed on counts, which gives a formula with constants other
        values."""
        return self.near_share_on_counts > 0.5 > self.near_share


def compare_indices(
    table: pa.RecordBatch, columns: TableColumns, *, scale: float | None = None
) -> Mapping[str, IndexCheck]:
    """Return how far the table's columns of indices are from what its bands give, by index.

    `scale` is the reflectance of one count. Rows without data, and those where the index has no
    value, are not compared; nor are values that are infinite or beyond a million, which are counted.
    An index without its bands, or without such rows, is left out.
    """
    one = SCALE if scale is None else scale
    found = {}
    for name, column in columns.checks.items():
        if column not in table.schema.names or not set(_NEEDED[name]) <= set(columns.bands):
            continue
        counts = {band: _numbers(table[columns.bands[band]]) for band in _NEEDED[name]}
        given = _numbers(table[column])
        is_data = ~np.isnan(given) & (given != -999)
        for values in counts.values():
            is_data &= np.isfinite(values) & (values >= 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            right = _index(name, {band: values * one for band, values in counts.items()})
            wrong = _index(name, {band: values * one / SCALE for band, values in counts.items()})
        is_data &= np.isfinite(right) & np.isfinite(wrong)
        is_impossible = is_data & (np.abs(given) > _LARGEST)
        is_data &= ~is_impossible
        if is_data.any() or is_impossible.any():
            given, right, wrong = given[is_data], right[is_data], wrong[is_data]
            apart = np.abs(given - right)
            found[name] = IndexCheck(
                rows=len(given),
                impossible=int(is_impossible.sum()),
                mean_difference=_mean(apart),
                near_share=_mean(apart < _NEAR),
                near_share_on_counts=_mean(np.abs(given - wrong) < _NEAR),
            )
    return found


def _mean(values: Shaped[np.ndarray, " row"]) -> float:
    return float(values.mean()) if len(values) else 0.0


def _numbers(column: pa.Array) -> Float64[np.ndarray, " row"]:
    return np.asarray(column.cast(pa.float64()).fill_null(np.nan)).astype(np.float64)


def _index(name: str, of: Mapping[str, Float64[np.ndarray, " row"]]) -> Float64[np.ndarray, " row"]:
    over: Float64[np.ndarray, " row"] = of["B08"] - of["B04"]
    if name == "NDVI":
        under = of["B08"] + of["B04"]
    else:
        over = 2.5 * over
        under = of["B08"] + 6 * of["B04"] - 7.5 * of["B02"] + 1
    return np.asarray(np.divide(over, under))
