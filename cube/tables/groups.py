"""Labelled pixels in, the points that they were sampled round out: pixels that hang together."""

import numpy as np
from jaxtyping import Int32, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def groups_of(
    row: Int64[np.ndarray, " pixel"], column: Int64[np.ndarray, " pixel"]
) -> Int64[np.ndarray, " pixel"]:
    """Return, of each pixel, the first pixel it hangs together with over edges or corners.

    Pixels come in order of row and column.
    """
    wide = int(column.max()) + 2  # a column of gap, so that no row goes on in the next
    place = row * wide + column
    edges = []
    for step in (1, wide - 1, wide, wide + 1):
        at = np.minimum(np.searchsorted(place, place + step), place.size - 1)
        has = place[at] == place + step
        edges.append(np.stack([np.flatnonzero(has), at[has]]))
    one, other = np.concatenate(edges, axis=1)
    links = coo_array((np.ones(one.size, bool), (one, other)), shape=(place.size, place.size))
    _, member = connected_components(links, directed=False)
    first = np.unique(member, return_index=True)[1]
    return np.asarray(first[member], np.int64)


def count_mixed(member: Int64[np.ndarray, " pixel"], label: Int32[np.ndarray, " pixel"]) -> int:
    """Count groups with several classes."""
    order = np.argsort(member, kind="stable")
    starts = np.flatnonzero(np.diff(member[order], prepend=-1) != 0)
    sorted_label = label[order]
    least = np.minimum.reduceat(sorted_label, starts)
    return int((least != np.maximum.reduceat(sorted_label, starts)).sum())
