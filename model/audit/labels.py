"""Labelled sequences in; labels without data, far from their class, or of too few groups, out."""

import numpy as np
from jaxtyping import Float64
from scipy.spatial import cKDTree

from model.audit.audited import Audited
from model.audit.finding import Finding, rows_of, some
from model.audit.robust import median_known, spread_known
from model.classunits import classes_of_few, groups_by_class

_FAR = 6.0
"""Spreads beyond the median of its class's distances at which a sample lies outside."""

_LEAST_SPREAD = 0.005
"""Reflectance below which a spread is noise: else a class of few alike samples has no width."""

_FEWEST_OF_CLASS = 10
_FEW_GROUPS = 5

_NEIGHBOUR = 30.0
"""Metres within which two samples are of one place."""


def find_labels(audited: Audited) -> list[Finding]:
    """Return findings of labels: outside, empty, far from their class, of too few groups, mixed."""
    return [
        *_outside(audited),
        *_contested(audited),
        *_empty(audited),
        *_far(audited),
        *_few_groups(audited),
        *_mixed_groups(audited),
        *_groups_too_fine(audited),
    ]


def _outside(audited: Audited) -> list[Finding]:
    if not (count := sum(audited.outside.values())):
        return []
    named = "; ".join(f"{number:,} {reason}" for reason, number in audited.outside.items())
    return [
        Finding(
            code="label-outside",
            severity="warning",
            what=f"labels gave no sample: {named}",
            count=count,
            rows=(),
            advice="See whether the labels' coordinates, their CRS and the area are right",
        )
    ]


def _contested(audited: Audited) -> list[Finding]:
    if not audited.contested:
        return []
    return [
        Finding(
            code="label-conflict",
            severity="warning",
            what=f"{audited.contested:,} cells gave no sample, for labels of different classes "
            "claimed them",
            count=audited.contested,
            rows=(),
            advice="See whether shapes overlap, or the CRS or a column is wrong",
        )
    ]


def _empty(audited: Audited) -> list[Finding]:
    is_empty = np.asarray(~audited.is_seen.any(axis=1))
    if not is_empty.any():
        return []
    return [
        Finding(
            code="empty-sequence",
            severity="warning",
            what=f"{int(is_empty.sum()):,} samples have no value at any time",
            count=int(is_empty.sum()),
            rows=rows_of(is_empty),
            advice="Drop them; a label on nothing teaches nothing",
        )
    ]


def _far(audited: Audited) -> list[Finding]:
    away = envelope_distance(audited)
    is_far = away > _FAR
    if not is_far.any():
        return []
    rows = np.argsort(-np.nan_to_num(away))[: int(is_far.sum())]  # farthest first
    per_class = np.bincount(audited.label[is_far], minlength=len(audited.classes))
    named = [
        f"{audited.classes[at]} {per_class[at]:,}" for at in np.argsort(-per_class) if per_class[at]
    ]
    return [
        Finding(
            code="label-envelope",
            severity="warning",
            what=f"{int(is_far.sum()):,} samples lie far outside the series of their class "
            f"({some(named)})",
            count=int(is_far.sum()),
            rows=rows_of(rows),
            advice="Look at them: a wrong label, a wrong place, or a class of two kinds",
        )
    ]


def envelope_distance(audited: Audited) -> Float64[np.ndarray, "sample"]:
    """Return how far each sample is from its class, in spreads of the class's own distances.

    A sample's distance is the median over its known values of their distance from the class's
    median series, in spreads of the class at that step and band. Of all distances of a class the
    median is taken away and the rest is divided by their spread, 0.1 at least. NaN for classes of
    fewer than ten samples.
    """
    away = np.full(len(audited), np.nan)
    table = audited.known.reshape(len(audited), -1)
    for at in range(len(audited.classes)):
        members = np.flatnonzero(audited.label == at)
        if len(members) < _FEWEST_OF_CLASS:
            continue
        values = table[members]
        spread = np.maximum(spread_known(values), _LEAST_SPREAD)
        distance = median_known((np.abs(values - median_known(values)) / spread).T)
        width = max(float(spread_known(distance)), 0.1)
        away[members] = (distance - median_known(distance)) / width
    return away


def _few_groups(audited: Audited) -> list[Finding]:
    needed = max((split.count for split in audited.folds), default=_FEW_GROUPS)
    label = np.array(audited.classes)[audited.label]
    groups = dict.fromkeys(audited.classes, 0) | groups_by_class(label, audited.group)
    few = classes_of_few(groups, needed)
    if not few:
        return []
    named = [f"{name} {count}" for name, count in few.items()]
    return [
        Finding(
            code="few-groups",
            severity="warning",
            what=f"classes have fewer groups than there are folds ({needed}): {some(named)}",
            count=len(few),
            rows=rows_of(np.isin(label, list(few))),
            advice="Their scores mean little: label more places, or merge or drop the class",
        )
    ]


def _mixed_groups(audited: Audited) -> list[Finding]:
    groups, member = np.unique(audited.group, return_inverse=True)
    present = np.zeros((len(groups), len(audited.classes)), bool)
    present[member, audited.label] = True
    is_mixed = present.sum(axis=1) > 1
    if not is_mixed.any():
        return []
    return [
        Finding(
            code="mixed-group",
            severity="warning",
            what=f"{int(is_mixed.sum()):,} of {len(groups):,} groups have samples of several "
            "classes",
            count=int(is_mixed.sum()),
            rows=rows_of(is_mixed[member]),
            advice="See whether labels contradict each other, or groups hang together that are not "
            "one",
        )
    ]


def _groups_too_fine(audited: Audited) -> list[Finding]:
    """Find groups of a single sample, where most groups are that beside another of their class."""
    if audited.place is None:
        return []
    _, member, size = np.unique(audited.group, return_inverse=True, return_counts=True)
    known = np.flatnonzero(np.isfinite(audited.place).all(axis=1))
    if len(known) < 2:
        return []
    away, other = cKDTree(audited.place[known]).query(audited.place[known], k=2)
    is_near = (away[:, 1] > 0) & (away[:, 1] <= _NEIGHBOUR)
    is_near &= audited.label[known] == audited.label[known[other[:, 1]]]
    is_near &= size[member[known]] == 1
    if 2 * is_near.sum() <= len(size):
        return []
    return [
        Finding(
            code="groups-too-fine",
            severity="severe",
            what=f"{int((size == 1).sum()):,} of {len(size):,} groups have a single sample, and "
            f"{int(is_near.sum()):,} of these have one of their class within {_NEIGHBOUR:g} m: the "
            "grouped split is much like a random one",
            count=int(is_near.sum()),
            rows=rows_of(known[is_near]),
            advice="Give the point, polygon or stand as group, or believe the block split only",
        )
    ]
