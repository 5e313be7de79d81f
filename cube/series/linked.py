"""Places in metres in, who is linked by a chain of short steps out, however many are in one spot."""

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

_TENTHS = 10
"""Places are told apart to 0.1 m: written twice, they may differ in the last digit of a degree."""

_AHEAD = tuple(
    (east, north)
    for east in range(3)
    for north in range(-2, 3)
    if (east, north) > (0, 0) and abs(east * north) < 4
)
"""Cells that may hold a place within reach, of each two only one: two cells away, but no corner."""


def linked(place: Float64[np.ndarray, "series 2"], distance: float) -> Int64[np.ndarray, " series"]:
    """Return a number for each place, equal where a chain of steps within `distance` links two.

    Places of one cell, whose diagonal is that distance, are linked without looking at pairs: of a
    million places in one spot there are too many.
    """
    places, which = np.unique(np.rint(place * _TENTHS), axis=0, return_inverse=True)
    reach = distance * _TENTHS
    if reach < 1:
        return np.asarray(which.ravel(), np.int64)
    index = np.floor(places / (reach / np.sqrt(2))).astype(np.int64)
    cells, first, cell, count = np.unique(
        index, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    cell = cell.ravel()
    pairs = _neighbours(cells)
    steps = places[first[pairs[:, 0]]] - places[first[pairs[:, 1]]]
    is_near = np.hypot(*steps.T) <= reach
    number = _components(pairs[is_near], len(cells))
    # the first places of two cells may be far and others near; single places have been decided
    is_open = (number[pairs[:, 0]] != number[pairs[:, 1]]) & (count[pairs].max(axis=1) > 1)
    members = np.split(places[np.argsort(cell, kind="stable")], np.cumsum(count)[:-1])
    is_near[is_open] = _touch(members, pairs[is_open], reach)
    return np.asarray(_components(pairs[is_near], len(cells))[cell][which.ravel()], np.int64)


def _neighbours(cells: Int64[np.ndarray, "cell 2"]) -> Int64[np.ndarray, "pair 2"]:
    """Return the pairs of occupied cells that may hold places within reach; `cells` are sorted."""
    shifted = cells - cells.min(axis=0) + 2
    width = int(shifted[:, 1].max()) + 3
    code = shifted[:, 0] * width + shifted[:, 1]
    found = []
    for east, north in _AHEAD:
        wanted = code + east * width + north
        at = np.minimum(np.searchsorted(code, wanted), len(code) - 1)
        one = np.flatnonzero(code[at] == wanted)
        found.append(np.column_stack([one, at[one]]))
    return np.asarray(np.concatenate(found), np.int64)


def _touch(
    members: list[np.ndarray], pairs: Int64[np.ndarray, "pair 2"], reach: float
) -> Bool[np.ndarray, " pair"]:
    """Say which pairs of cells hold two places within reach."""
    trees = {cell: cKDTree(members[cell]) for cell in np.unique(pairs[:, 0]).tolist()}
    beyond = np.nextafter(reach, np.inf)  # the bound itself is not within it
    return np.array(
        [
            bool(
                np.isfinite(trees[one].query(members[other], distance_upper_bound=beyond)[0]).any()
            )
            for one, other in pairs.tolist()
        ],
        bool,
    )


def _components(pairs: Int64[np.ndarray, "pair 2"], count: int) -> Int64[np.ndarray, " cell"]:
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)
