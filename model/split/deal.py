"""Units and the classes they hold in, a fold for each out: even in size and in every class."""

import numpy as np
from jaxtyping import Float64, Int64

from model.split.folds import NEVER_HELD_OUT


def deal_samples(
    label: Int64[np.ndarray, "sample"], count: int, random: np.random.Generator
) -> Int64[np.ndarray, "sample"]:
    """Deal the samples of each class to the folds in turn, like cards."""
    fold = np.empty(len(label), np.int64)
    dealt = 0
    for index in range(int(label.max()) + 1):
        members = random.permutation(np.flatnonzero(label == index))
        fold[members] = (np.arange(len(members)) + dealt) % count
        dealt += len(members)
    return fold


def place_units(
    table: Float64[np.ndarray, "unit class"], count: int, random: np.random.Generator
) -> Int64[np.ndarray, "unit"]:
    """Place units one by one where the classes' shares over the folds stay most even."""
    share = table / np.maximum(table.sum(axis=0), 1)  # (unit, class)
    shuffled = random.permutation(len(table))
    # Units that hold much of a class come first: what comes late can still even things out.
    order = shuffled[np.argsort(-share[shuffled].sum(axis=1), kind="stable")]
    held = np.zeros((count, table.shape[1]))  # (fold, class)
    size = np.zeros(count)
    fold = np.empty(len(table), np.int64)
    for unit in order:
        growth = ((held + share[unit]) ** 2 - held**2).sum(axis=1)  # (fold,)
        best = np.flatnonzero(growth <= growth.min() + 1e-12)
        chosen = best[np.argmin(size[best])]
        fold[unit] = chosen
        held[chosen] += share[unit]
        size[chosen] += table[unit].sum()
    return fold


def spread_classes(
    table: Float64[np.ndarray, "unit class"], fold: Int64[np.ndarray, "unit"], count: int
) -> Int64[np.ndarray, "unit"]:
    """Move single units so that no class with two units or more is in one fold only."""
    fold = fold.copy()
    present = table > 0
    for _ in range(table.shape[1]):
        crowded = crowded_classes(present, fold)
        if not crowded:
            break
        for index in crowded:
            for unit in np.flatnonzero(present[:, index]):
                trial = fold.copy()
                trial[unit] = (fold[unit] + 1) % count
                if len(crowded_classes(present, trial)) < len(crowded_classes(present, fold)):
                    fold = trial
                    break
    return fold


def crowded_classes(present: np.ndarray, fold: np.ndarray) -> list[int]:
    """Classes with two units or more, all of them in one fold."""
    return [
        index
        for index in range(present.shape[1])
        if present[:, index].sum() >= 2 and len(np.unique(fold[present[:, index]])) == 1
    ]


def most_typical_first(
    table: Float64[np.ndarray, "unit class"], fold: Int64[np.ndarray, "unit"], count: int
) -> Int64[np.ndarray, "unit"]:
    """Number the folds so that fold 0 has the most classes, and of each nearest 1/count."""
    held = np.zeros((count, table.shape[1]))
    used = fold >= 0
    np.add.at(held, fold[used], table[used])
    total = np.maximum(held.sum(axis=0), 1)
    away = np.abs(held / total - 1 / count).sum(axis=1)  # (fold,)
    rank = np.lexsort((away, -(held > 0).sum(axis=1)))  # best fold first
    renumbered = np.empty(count, np.int64)
    renumbered[rank] = np.arange(count)
    return np.where(used, renumbered[fold], NEVER_HELD_OUT)
