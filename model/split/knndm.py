"""Places of units in, folds out whose distances are those of prediction: k-fold NNDM.

Cross-validation scores a map as it will be used if a held-out sample is as far from what trains as
a pixel of the map is from its nearest sample. Places are clustered, clusters are merged into folds,
and of all numbers of clusters the one is taken whose distances are nearest to those of prediction
(Linnenbrink, Milà, Ludwig & Meyer 2024, Geoscientific Model Development 17, 5897-5912,
doi:10.5194/gmd-17-5897-2024). Where samples are as dense as the map needs, that is a grouped split;
where they lie in clusters far apart, whole clusters are held out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial import ConvexHull, Delaunay, QhullError, cKDTree
from scipy.stats import wasserstein_distance

from model.split.deal import place_units, spread_classes

_MOST_PLACES = 2000
"""Places that are clustered: Ward's method takes the square of this in memory (16 MB) and time."""

_MOST_DISTANCES = 2000
"""Samples and prediction places whose distances are measured, each to all that train."""

_CANDIDATES = 24
"""Numbers of clusters that are tried, evenly spaced in their logarithm."""

_LARGEST_FOLD = 0.5
"""Share of the samples that a fold may hold, as the paper's authors set it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Matched:
    """The folds of units whose distances match best."""

    fold: Int64[np.ndarray, "unit"]
    """0 .. count-1."""
    distance: float
    """Wasserstein distance in metres between the distances of cross-validation and prediction."""
    clusters: int
    """Number of clusters that were merged into the folds."""


def match_distances(
    table: Float64[np.ndarray, "unit class"],
    unit: Int64[np.ndarray, "sample"],
    places: Float64[np.ndarray, "sample 2"],
    prediction: Float64[np.ndarray, "prediction 2"],
    *,
    count: int,
    seed: int,
) -> Matched:
    """Return folds of whole units, as even in every class as their clusters allow.

    `table` holds the samples of each unit and class, `unit` says which unit a sample is of, -1
    for samples that always train. `prediction` are places where the map will be read, in the
    metres of `places`. One seed gives one result.
    """
    random = np.random.default_rng(seed)
    wanted = prediction_distances(places, _at_most(prediction, random))
    is_free = np.flatnonzero(unit >= 0)
    asked = is_free[np.sort(random.permutation(is_free.size)[:_MOST_DISTANCES])]
    size = table.sum(axis=1)
    best: Matched | None = None
    smallest = np.inf
    for clusters, fold in _foldings(table, unit, places, count=count, seed=seed):
        largest = np.bincount(fold, weights=size).max() / size.sum()
        fold_of_sample = np.where(unit >= 0, fold[unit], -1)
        found = fold_distances(places, fold_of_sample, asked)
        distance = float(wasserstein_distance(found, wanted))
        # a fold of more than half is taken only where every clustering makes one
        rank = distance if largest <= _LARGEST_FOLD else 1e12 + distance
        if rank < smallest:
            smallest = rank
            best = Matched(fold=fold, distance=distance, clusters=clusters)
    assert best is not None  # there are two units or more, so there is a clustering
    return best


def prediction_distances(
    places: Float64[np.ndarray, "sample 2"], prediction: Float64[np.ndarray, "prediction 2"]
) -> Float64[np.ndarray, "prediction"]:
    """Return metres from each place of prediction to the nearest sample."""
    away, _ = cKDTree(places).query(prediction)
    return np.asarray(away, dtype=np.float64)


def fold_distances(
    places: Float64[np.ndarray, "sample 2"],
    fold: Int64[np.ndarray, "sample"],
    asked: Int64[np.ndarray, "chosen"],
) -> Float64[np.ndarray, "chosen"]:
    """Return metres from each of the `asked` samples to the nearest sample of another fold."""
    away = np.empty(asked.size)
    for one in np.unique(fold[asked]):
        is_held = fold[asked] == one
        away[is_held], _ = cKDTree(places[fold != one]).query(places[asked[is_held]])
    return away


def places_between(places: Float64[np.ndarray, "sample 2"]) -> Float64[np.ndarray, "prediction 2"]:
    """Return a regular grid of some 2,000 places over the convex hull of the samples.

    It stands for the map where nobody says what will be mapped. Samples (almost) in a line have no
    hull; theirs are spaced evenly along it.
    """
    low, high = places.min(axis=0), places.max(axis=0)
    span = high - low
    try:
        hull = ConvexHull(places)
    except (QhullError, ValueError):
        return _line_between(places)
    step = float(np.sqrt(hull.volume / _MOST_DISTANCES))  # of a plane figure, `volume` is the area
    if step < span.max() / _MOST_DISTANCES:
        return _line_between(places)  # the box of a hull so thin has places without number
    x, y = (np.arange(low[axis] + step / 2, high[axis], step) for axis in (0, 1))
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)  # (place, 2)
    is_inside = Delaunay(places[hull.vertices]).find_simplex(grid) >= 0
    return np.asarray(grid[is_inside] if is_inside.any() else places.mean(axis=0)[None])


def _line_between(places: Float64[np.ndarray, "sample 2"]) -> Float64[np.ndarray, "prediction 2"]:
    """Return places at equal distances from one end of a line of samples to the other."""
    away = places - places.mean(axis=0)
    along = away @ np.linalg.svd(away, full_matrices=False)[2][0]  # (sample,)
    first, last = places[along.argmin()], places[along.argmax()]
    return np.asarray(first + np.linspace(0, 1, _MOST_DISTANCES)[:, None] * (last - first))


def _at_most(
    prediction: Float64[np.ndarray, "prediction 2"], random: np.random.Generator
) -> Float64[np.ndarray, "chosen 2"]:
    chosen = np.sort(random.permutation(len(prediction))[:_MOST_DISTANCES])
    return np.asarray(prediction[chosen])


def _foldings(
    table: Float64[np.ndarray, "unit class"],
    unit: Int64[np.ndarray, "sample"],
    places: Float64[np.ndarray, "sample 2"],
    *,
    count: int,
    seed: int,
) -> Iterator[tuple[int, Int64[np.ndarray, "unit"]]]:
    """Yield (number of clusters, fold of each unit): every clustering, merged into folds."""
    for cluster in _clusterings(unit, places, count):
        clusters = int(cluster.max()) + 1
        held = np.zeros((clusters, table.shape[1]))
        np.add.at(held, cluster, table)  # (cluster, class)
        dealt = place_units(held, count, np.random.default_rng(seed))
        yield clusters, spread_classes(held, dealt, count)[cluster]


def _clusterings(
    unit: Int64[np.ndarray, "sample"], places: Float64[np.ndarray, "sample 2"], count: int
) -> list[Int64[np.ndarray, "unit"]]:
    """Return units by cluster, from as many clusters as folds to each unit on its own."""
    units = int(unit.max()) + 1
    is_free = unit >= 0
    members = np.bincount(unit[is_free], minlength=units)
    centre = np.column_stack(
        [np.bincount(unit[is_free], weights=places[is_free, axis]) / members for axis in (0, 1)]
    )
    alone = np.arange(units)
    cell = _cells(centre)
    cells = int(cell.max()) + 1
    if cells <= count:
        return [alone]
    weight = np.bincount(cell)
    middle = np.column_stack(
        [np.bincount(cell, weights=centre[:, axis]) / weight for axis in (0, 1)]
    )
    tree = linkage(middle, method="ward")
    numbers = np.unique(np.geomspace(count, cells, _CANDIDATES).round().astype(int))
    found = []
    for number in numbers.tolist():
        cluster = np.unique(fcluster(tree, number, criterion="maxclust"), return_inverse=True)[1]
        if cluster.max() + 1 >= count:
            found.append(cluster[cell].astype(np.int64))
    return [*found, alone]


def _cells(centre: Float64[np.ndarray, "unit 2"]) -> Int64[np.ndarray, "unit"]:
    """Number the places, those that are near each other as one where there are too many."""
    step = 0.0
    low, span = centre.min(axis=0), float(np.ptp(centre, axis=0).max())
    while True:
        at = np.floor((centre - low) / step) if step else centre
        cell = np.unique(at, axis=0, return_inverse=True)[1].reshape(-1)
        if cell.max() < _MOST_PLACES:
            return cell.astype(np.int64)
        step = step * 1.25 if step else span / _MOST_PLACES
