"""Values and the cell each belongs to in, the median of every cell out."""

import numpy as np
from jaxtyping import Float32, Int64


def median_of_cells(
    value: Float32[np.ndarray, "row band"], cell: Int64[np.ndarray, " row"], cells: int
) -> Float32[np.ndarray, "cell band"]:
    """Return the median of the values of each cell and band, NaN where a cell has none.

    `cell` is -1 for rows that belong to none. Missing values (NaN) are no values.
    """
    found = np.full((cells, value.shape[1]), np.nan, np.float32)
    for band in range(value.shape[1]):
        is_used = (cell >= 0) & np.isfinite(value[:, band])
        order = np.lexsort((value[is_used, band], cell[is_used]))
        ordered = value[is_used, band][order]
        count = np.bincount(cell[is_used], minlength=cells)
        start = np.cumsum(count) - count
        there = np.flatnonzero(count)
        low = ordered[(start + (count - 1) // 2)[there]]
        high = ordered[(start + count // 2)[there]]
        found[there, band] = low + (high - low) / 2
    return found
