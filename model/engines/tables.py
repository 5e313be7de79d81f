"""A piecewise encoding and the weights that read it in, tables of what they add to the gates out.

What a feature, its pieces and the mask give the gates of the first layer is a piecewise linear
function of the feature's value. It is kept at the points where its slope changes, so that two
entries and their shares replace a product with all pieces.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from model.networks.encoding import NARROWEST


@dataclass(frozen=True, kw_only=True, eq=False)
class Points:
    """Where the tables of a network's features have entries."""

    values: Float32[np.ndarray, "feature point"]
    """Rising; infinite behind a feature's last."""
    counts: Int64[np.ndarray, "feature"]
    """Points of each feature, two or more."""
    firsts: Int64[np.ndarray, "feature"]
    """Entry of each feature's first point, among those of all features one after another."""
    inverse: Float32[np.ndarray, "feature point"]
    """1 over the distance to the next point; 0 at the last."""

    @property
    def entries(self) -> int:
        """Points of all features together."""
        return int(self.counts.sum())


def points_of(edges: Float64[np.ndarray, "feature edge"], limit: float) -> Points:
    """Return where pieces begin and end within +-`limit`, and those two ends.

    Pieces that are narrower than `NARROWEST` reach into the next ones.
    """
    low, high = _ends(edges)
    listed = []
    for starts, stops in zip(low, high, strict=True):
        inside = np.concatenate([starts, stops]).astype(np.float32)
        inside = inside[(inside > -limit) & (inside < limit)]
        listed.append(np.unique(np.append(inside, np.array([-limit, limit], np.float32))))
    counts = np.array([len(found) for found in listed])
    values = np.full((len(listed), counts.max()), np.inf, np.float32)
    inverse = np.zeros_like(values)
    for feature, found in enumerate(listed):
        values[feature, : len(found)] = found
        inverse[feature, : len(found) - 1] = 1 / np.diff(found.astype(np.float64))
    return Points(
        values=values,
        counts=counts.astype(np.int64),
        firsts=(np.cumsum(counts) - counts).astype(np.int64),
        inverse=inverse,
    )


def tabulate(
    points: Points,
    edges: Float64[np.ndarray, "feature edge"],
    weights: Float64[np.ndarray, "channel gate"],
) -> Float64[np.ndarray, "entry gate"]:
    """Return what each feature gives the gates at each of its points, in a clear step.

    `weights` are of the features, then of their pieces (feature by feature), then of the mask,
    which counts with the first feature.
    """
    features, pieces = len(edges), edges.shape[1] - 1
    of_pieces = weights[features:-1].reshape(features, pieces, -1)  # (feature, piece, gate)
    low, high = _ends(edges)
    table = np.empty((points.entries, weights.shape[1]))
    for feature in range(features):
        at = points.values[feature, : points.counts[feature]].astype(np.float64)
        passed = (at[:, None] - low[feature]) / (high[feature] - low[feature])
        given = at[:, None] * weights[feature]
        given += (np.clip(passed, 0, 1) * 2 - 1) @ of_pieces[feature]
        first = points.firsts[feature]
        table[first : first + len(at)] = given
    table[: points.counts[0]] += weights[-1]
    return table


def paired_table(
    points: Points, table: Float64[np.ndarray, "entry gate"]
) -> tuple[Float64[np.ndarray, "entry gate"], Float64[np.ndarray, "entry gate"]]:
    """Return, for each point and the next, the value at the one nearer to 0 and what leads away.

    Behind a feature's last point there is none, and nothing reads what is told of it.
    """
    at = np.concatenate(
        [line[:count] for line, count in zip(points.values, points.counts, strict=True)]
    )
    following = np.concatenate([table[1:], table[-1:]])
    is_below = (at < 0)[:, None]
    near, far = np.where(is_below, following, table), np.where(is_below, table, following)
    return near, far - near


def _ends(
    edges: Float64[np.ndarray, "feature edge"],
) -> tuple[Float64[np.ndarray, "feature piece"], Float64[np.ndarray, "feature piece"]]:
    """Return where each piece begins and ends."""
    low = edges[:, :-1]
    return low, low + np.maximum(edges[:, 1:] - low, NARROWEST)
