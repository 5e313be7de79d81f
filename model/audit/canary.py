"""Sequences and a split in; how well a model scores that can only recognise the group, out."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from model.audit.audited import NO_DAY, Audited
from model.audit.finding import Finding, rows_of
from model.audit.robust import median_known, spread_known
from model.split import Folds

MOST_SAMPLES = 20_000
"""Samples that are looked at: distances grow with the square."""

SIGMAS = 3.0

_FEWEST_OF_GROUP = 4
"""Samples of a group that stay in at least (of fewer all): one alone cannot be recognised."""

_FEWEST_LABELS = 5
"""Labels that are shuffled at least, so that few groups are enough to tell."""

_PERMUTATIONS = 100
_ROWS_AT_ONCE = 1024
_MOST_DATES = 40
"""Dates up to which sequences are compared by date; beyond it by month of the year."""

_LEAST_WITHIN = 0.2
"""Least spread within groups, in that of all: else AOT, which has none, would be all that counts."""

_FARTHEST = 4.0
"""Standard deviations at which values are cut off, or a few wild ones decide every distance."""


@dataclass(frozen=True, kw_only=True)
class Canary:
    """What a nearest neighbour scores when as many groups have each label, at random."""

    accuracy: float
    """Mean over the permutations."""
    majority: float
    """Share of the most frequent label among what is held out, mean over the permutations."""
    sigma: float
    """Standard deviation of one permutation's share: binomial over the effective number of groups,
    which is how many equal ones would vary as much."""
    groups: float
    """That number."""
    recognised: tuple[int, ...]
    """Held-out samples whose nearest neighbour in training is of their own group."""

    @property
    def sigmas(self) -> float:
        """How far the score lies above the majority's share; it should lie below."""
        return (self.accuracy - self.majority) / max(self.sigma, 1e-9)

    @property
    def is_dead(self) -> bool:
        """Whether the split lets a model score by recognising places."""
        return self.sigmas > SIGMAS


def find_leaks(audited: Audited) -> list[Finding]:
    """Return findings of splits in which places can be recognised."""
    found = []
    for split, canary in zip(audited.folds, canaries(audited), strict=True):
        if canary is None or not canary.is_dead:
            continue
        is_believed = split.split in audited.believed
        found.append(
            Finding(
                code="split-canary",
                severity="severe" if is_believed else "note",
                what=f"the {split.split} split: with balanced labels shuffled between groups a "
                f"nearest neighbour still scores {canary.accuracy:.3f} where the majority has "
                f"{canary.majority:.3f} ({canary.sigmas:.1f} sigma over {canary.groups:.0f} "
                "groups), so it recognises places",
                count=len(canary.recognised),
                rows=canary.recognised,
                advice="Split by group or block, so that no pixel of a place is on both sides"
                if is_believed
                else f"Never believe the score of the {split.split} split; it is shown beside the "
                "others only",
            )
        )
    return found


def canaries(audited: Audited) -> list[Canary | None]:
    """Return the canary of every split; None where too little is held out to say.

    With labels shuffled between groups nothing but the group itself, or a place that both sides
    share, tells a label. As many groups have each label, whatever the classes: of a frequent class
    the majority scores so much that nothing could beat it. The model is the nearest neighbour over the dates that two sequences
    share, each value in standard deviations within groups: a metric that is made to recognise
    groups, for a network learns one, too. Of more than `MOST_SAMPLES` samples large groups are
    thinned at random, and only where that is not enough groups are left out.
    """
    if not audited.folds or not len(audited):
        return [None] * len(audited.folds)
    chosen = thinned(audited.group, MOST_SAMPLES)
    nearest = nearest_in_training(_laid_out(audited.take(chosen)), audited.folds, chosen)
    return [_canary(audited, chosen, one) for one in nearest]


def thinned(group: Int64[np.ndarray, "sample"], most: int) -> Int64[np.ndarray, "chosen"]:
    """Return at most `most` samples of as many groups as can be, rising.

    Each group keeps as many samples, drawn at random, as leave room for all groups, four at least;
    if that is still too many, groups are drawn at random.
    """
    if len(group) <= most:
        return np.arange(len(group), dtype=np.int64)
    random = np.random.default_rng(0)
    _, member, size = np.unique(group, return_inverse=True, return_counts=True)
    order = np.lexsort((random.random(len(group)), member))
    rank = np.arange(len(group)) - np.repeat(np.cumsum(size) - size, size)
    ordered = np.sort(size)
    below = np.concatenate([[0], np.cumsum(ordered)[:-1]])  # samples of all smaller groups
    limit = (most - below) // np.arange(len(size), 0, -1)  # what is left for each of the others
    full = np.flatnonzero(ordered > limit)
    kept = max(int(limit[full[0]]), _FEWEST_OF_GROUP)
    drawn = random.permutation(len(size))
    drawn = drawn[np.cumsum(np.minimum(size[drawn], kept)) <= most]
    is_kept = (rank < kept) & np.isin(member[order], drawn)
    return np.sort(order[is_kept]).astype(np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sheet:
    """Sequences laid out so that they can be compared."""

    values: Float32[np.ndarray, "chosen column"]
    """Every date and band in standard deviations within groups, 0 where missing."""
    squares: Float32[np.ndarray, "chosen time"]
    """Sum of the squares of each date's values."""
    is_seen: Float32[np.ndarray, "chosen time"]
    """1 where a date has values, else 0."""


def _laid_out(audited: Audited) -> _Sheet:
    known, is_seen = _by_date(audited)
    count, steps, bands = known.shape
    table = known.reshape(count, -1)
    spread = spread_known(table)
    table = (table - median_known(table)) / np.where(spread > 0, spread, np.inf)
    table = np.clip(table, -_FARTHEST, _FARTHEST)
    table = np.nan_to_num(table / _within_groups(table, audited.group)).astype(np.float32)
    values = table.reshape(count, steps, bands) * is_seen[..., np.newaxis]
    return _Sheet(
        values=values.reshape(count, -1).astype(np.float32),
        squares=(values**2).sum(axis=2).astype(np.float32),
        is_seen=is_seen.astype(np.float32),
    )


def _by_date(
    audited: Audited,
) -> tuple[Float32[np.ndarray, "sample date band"], Bool[np.ndarray, "sample date"]]:
    """Return sequences with one step a date (or month, of many dates) instead of dates of their own."""
    if audited.day is None:
        return audited.known, audited.is_seen
    day, is_there = audited.day.astype(np.int64), audited.day != NO_DAY
    if len(np.unique(day[is_there])) > _MOST_DATES:
        day = np.where(is_there, day, 0).astype("datetime64[D]").astype("datetime64[M]")
        day = day.astype(np.int64) % 12
    dates = np.unique(day[is_there])
    shape = (len(audited), len(dates), len(audited.bands))
    laid = np.full(shape, np.nan, np.float32)
    sample, step = np.nonzero(is_there)
    laid[sample, np.searchsorted(dates, day[sample, step])] = audited.known[sample, step]
    return laid, np.asarray(np.isfinite(laid).any(axis=2))


def _within_groups(
    table: Float64[np.ndarray, "sample column"], group: Int64[np.ndarray, "sample"]
) -> Float64[np.ndarray, " column"]:
    """Return the standard deviation of each column within groups, a fifth at least."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=group.min(initial=0) - 1))
    is_known = np.isfinite(table[order])
    values = np.where(is_known, table[order], 0)
    number = np.add.reduceat(is_known.astype(np.int64), starts, axis=0)
    total, square = (np.add.reduceat(part, starts, axis=0) for part in (values, values**2))
    inside = square - np.divide(total**2, number, out=np.zeros_like(total), where=number > 0)
    freedom = np.maximum(number - 1, 0).sum(axis=0)
    spread = np.sqrt(np.maximum(inside.sum(axis=0), 0) / np.maximum(freedom, 1))
    # a column without pairs in groups, or without any spread in them, weighs no more than others
    return np.asarray(np.where(freedom > 0, np.maximum(spread, _LEAST_WITHIN), 1.0))


def nearest_in_training(
    sheet: _Sheet, folds: tuple[Folds, ...], chosen: Int64[np.ndarray, "chosen"]
) -> list[Int64[np.ndarray, "chosen"]]:
    """Return, for each split, the nearest of the samples that train when a sample is held out.

    `chosen` are the samples that the rows of `sheet` are of; places in it are returned, -1 for
    samples that are never held out. Distances are means over the dates that both have, with one
    date of an average distance added, so that few shared dates prove little. They are computed
    once for all splits.
    """
    place = np.full(max(int(chosen.max()) + 1, *(len(split.fold) for split in folds)), -1)
    place[chosen] = np.arange(len(chosen))
    penalties, fold_of = [], []
    for split in folds:
        penalty = np.full((split.count, len(chosen)), np.inf, np.float32)
        fold = np.full(len(chosen), -1, np.int64)
        for number in range(split.count):
            trained, held = place[split.trained_on(number)], place[split.held_out(number)]
            penalty[number, trained[trained >= 0]] = 0
            fold[held[held >= 0]] = number
        is_idle = np.asarray(np.isinf(penalty).all(axis=1))  # (fold,): nothing trains
        fold[is_idle[fold] & (fold >= 0)] = -1
        penalties.append(penalty)
        fold_of.append(fold)
    nearest = [np.full(len(chosen), -1, np.int64) for _ in folds]
    average = 2 * sheet.squares.sum() / max(float(sheet.is_seen.sum()), 1)
    left = np.hstack([sheet.values * -2, sheet.squares, sheet.is_seen])
    right = np.hstack([sheet.values, sheet.is_seen, sheet.squares])
    for start in range(0, len(chosen), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        away = left[rows] @ right.T  # (row, chosen), summed over the dates that both have
        away += average
        away /= sheet.is_seen[rows] @ sheet.is_seen.T + 1
        for penalty, fold, best in zip(penalties, fold_of, nearest, strict=True):
            for number in np.unique(fold[rows]):
                if number < 0:
                    continue
                held = np.flatnonzero(fold[rows] == number)
                best[start + held] = (away[held] + penalty[number]).argmin(axis=1)
    return nearest


def _canary(
    audited: Audited, chosen: Int64[np.ndarray, "chosen"], nearest: Int64[np.ndarray, "chosen"]
) -> Canary | None:
    held = np.flatnonzero(nearest >= 0)
    if not len(held):
        return None
    groups, member = np.unique(audited.group[chosen], return_inverse=True)
    tested, trained = member[held], member[nearest[held]]
    size = np.bincount(tested)
    effective = float(size.sum() ** 2 / (size.astype(float) ** 2).sum())
    if effective < 2:
        return None
    labels = max(len(audited.classes), _FEWEST_LABELS)
    label_of_group = np.arange(len(groups)) % labels
    random = np.random.default_rng(0)
    hits, majorities = [], []
    for _ in range(_PERMUTATIONS):
        label = random.permutation(label_of_group)
        hits.append((label[tested] == label[trained]).mean())
        majorities.append(np.bincount(label[tested]).max() / len(held))
    majority = float(np.mean(majorities))
    recognised = chosen[held[tested == trained]]
    return Canary(
        accuracy=float(np.mean(hits)),
        majority=majority,
        sigma=float(np.sqrt(majority * (1 - majority) / effective)),
        groups=effective,
        recognised=rows_of(recognised),
    )
