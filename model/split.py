"""Labels and label units in, a fold per sample out: what is trained on and what is scored."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64

from model.errors import SplitError
from model.samples import Samples

Split = Literal["random", "grouped", "block"]
SPLITS: tuple[Split, ...] = ("random", "grouped", "block")
"""Every way to split, from the one that flatters most to the strictest."""

NEVER_HELD_OUT = -1
"""Fold of samples that always train: their class has a single unit, which cannot be both."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Folds:
    """Which samples are held out together."""

    split: Split
    """`random` by sample, `grouped` by label unit, `block` by square of the spatial grid."""
    fold: Int64[np.ndarray, "sample"]
    """0 .. count-1, or `NEVER_HELD_OUT`; fold 0 holds the most typical share of the classes."""
    count: int
    """Number of folds."""
    notes: tuple[str, ...]
    """What could not be done as asked, one sentence each."""

    def held_out(self, fold: int) -> Int64[np.ndarray, "test"]:
        """Samples that are scored in `fold`."""
        return np.flatnonzero(self.fold == fold).astype(np.int64)

    def trained_on(self, fold: int) -> Int64[np.ndarray, "train"]:
        """Samples that train when `fold` is held out."""
        return np.flatnonzero(self.fold != fold).astype(np.int64)


def make_folds(samples: Samples, split: Split, *, folds: int = 5, seed: int = 0) -> Folds:
    """Split samples into `folds` parts of similar size and class shares.

    No unit of `grouped` and `block` is in two folds, and a class with two units or more is in
    two folds or more. With fewer units than folds there are as many folds as units. A class with
    one unit is never held out. Each of these leaves a note. Raises `SplitError` if that leaves
    nothing to score: fewer than two units or fewer than two classes.
    """
    if folds < 2:
        raise SplitError(f"{folds} folds were asked for; two are the least")
    if split == "random":
        unit = np.arange(len(samples), dtype=np.int64)
    else:
        unit = samples.group if split == "grouped" else samples.block
    word = {"random": "sample", "grouped": "group", "block": "block"}[split]

    units, unit_of_sample = np.unique(unit, return_inverse=True)
    table = np.zeros((len(units), len(samples.classes)))
    np.add.at(table, (unit_of_sample, samples.label), 1)  # (unit, class)
    units_of_class = (table > 0).sum(axis=0)  # (class,)
    scored = np.flatnonzero(units_of_class >= 2)
    if len(scored) < 2:
        raise SplitError(
            f"the {split} split finds {len(scored)} classes in two {word}s or more among "
            f"{len(units)} {word}s; two classes are the least. Draw more samples or use smaller units"
        )
    # A unit that holds anything of a class with no second unit must always train.
    lonely = (table[:, units_of_class == 1] > 0).any(axis=1)
    free = np.flatnonzero(~lonely)
    if len(free) < 2:
        raise SplitError(
            f"the {split} split finds {len(free)} {word}s that can be held out; two are the least"
        )
    count = min(folds, len(free))
    notes = _notes(samples.classes, units_of_class, asked=folds, count=count, word=word)

    random = np.random.default_rng(seed)
    if split == "random":
        fold_of_unit = _deal(samples.label, count, random)
        fold_of_unit[lonely] = NEVER_HELD_OUT
    else:
        fold_of_unit = np.full(len(units), NEVER_HELD_OUT, np.int64)
        placed = _place(table[free], count, random)
        fold_of_unit[free] = _spread(table[free], placed, count)
    fold_of_unit = _most_typical_first(table, fold_of_unit, count)
    return Folds(split=split, fold=fold_of_unit[unit_of_sample], count=count, notes=notes)


def _notes(
    classes: tuple[str, ...],
    units: Int64[np.ndarray, "class"],
    *,
    asked: int,
    count: int,
    word: str,
) -> tuple[str, ...]:
    notes = []
    if count < asked:
        notes.append(f"{count} folds instead of {asked}: there are no more {word}s to hold out")
    for name, number in zip(classes, units, strict=True):
        if number == 1:
            notes.append(f"class {name!r} lies in one {word}: it always trains and is never scored")
        elif 1 < number < count:
            notes.append(
                f"class {name!r} lies in {number} {word}s: it is scored in some folds only"
            )
    return tuple(notes)


def _deal(
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


def _place(
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


def _spread(
    table: Float64[np.ndarray, "unit class"], fold: Int64[np.ndarray, "unit"], count: int
) -> Int64[np.ndarray, "unit"]:
    """Move single units so that no class with two units or more is in one fold only."""
    fold = fold.copy()
    present = table > 0
    for _ in range(table.shape[1]):
        crowded = _crowded(present, fold)
        if not crowded:
            break
        for index in crowded:
            for unit in np.flatnonzero(present[:, index]):
                trial = fold.copy()
                trial[unit] = (fold[unit] + 1) % count
                if len(_crowded(present, trial)) < len(_crowded(present, fold)):
                    fold = trial
                    break
    return fold


def _crowded(present: np.ndarray, fold: np.ndarray) -> list[int]:
    """Classes with two units or more, all of them in one fold."""
    return [
        index
        for index in range(present.shape[1])
        if present[:, index].sum() >= 2 and len(np.unique(fold[present[:, index]])) == 1
    ]


def _most_typical_first(
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
