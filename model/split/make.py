"""Labels, label units and places in, `Folds` out: by sample, unit, block, region, year, distance."""

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

from model.errors import SplitError
from model.samples import Samples
from model.split.deal import deal_samples, most_typical_first, place_units, spread_classes
from model.split.folds import ALL_SPLITS, HELD_OUT, NEVER_HELD_OUT, SPLITS, Folds, Split
from model.split.knndm import match_distances, places_between

_LEAVE_ONE_OUT = ("region", "year")

_HULL = (
    "nothing says what will be mapped: places all over the convex hull of the samples stand for the "
    "map, and beyond it the score says nothing"
)


def splits_of(samples: Samples) -> tuple[Split, ...]:
    """Return the splits that the samples have what it takes for, `random` first."""
    has = {
        "region": samples.region is not None and len(np.unique(samples.region)) > 1,
        "year": samples.year is not None and len(np.unique(samples.year)) > 1,
        "knndm": samples.place is not None and bool(np.isfinite(samples.place).all()),
    }
    return tuple(split for split in ALL_SPLITS if split in SPLITS or has[split])


def make_folds(
    samples: Samples,
    split: Split,
    *,
    folds: int = 5,
    seed: int = 0,
    buffer: float = 0.0,
    prediction: Float64[np.ndarray, "prediction 2"] | None = None,
) -> Folds:
    """Split samples into `folds` parts of similar size and class shares.

    No unit is in two folds. `random`, `grouped` and `block` hold out samples, groups and blocks;
    units are moved so that a class with two or more is in two folds or more, as far as moving
    single ones can do that. `knndm` holds out clusters of groups (see `model.split.knndm`);
    `region` and `year` leave one out at a time, or are dealt into `folds` where there are more.
    With fewer units than folds there are as many folds as units. A class with one unit is never
    held out (`random`, `grouped`, `block`, `knndm`).

    Where a group lies in several blocks or regions, it does not train while part of it is held
    out; where it lies in several years it does, as the question is another year of the same stand. Samples within `buffer` metres of a held-out one do not train either. What is held out
    while nothing of its class trains is not scored. Each of these leaves a note.

    `prediction` are the places (metres, as `samples.place`) where the map will be read, for
    `knndm`; without them, a grid over the convex hull of the samples.

    Raises `SplitError` if samples lack what the split needs, for places of prediction that are
    none, or if that leaves nothing to score:
    fewer than two units or fewer than two classes.
    """
    _refuse_what_cannot_be(samples, split, folds, buffer)
    if split == "knndm" and prediction is not None:
        _refuse_no_places(prediction)
    units, unit = np.unique(_unit(samples, split), return_inverse=True)
    table = np.zeros((len(units), len(samples.classes)))
    np.add.at(table, (unit, samples.label), 1)  # (unit, class)
    units_of_class = (table > 0).sum(axis=0)  # (class,)
    is_free = _free_units(table, units_of_class, split)
    count = min(folds, int(is_free.sum()))
    notes = _notes(samples.classes, units_of_class, split=split, asked=folds, count=count)
    is_of_hull = split == "knndm" and prediction is None
    if is_of_hull:
        notes.append(_HULL)

    fold_of_unit = np.full(len(units), NEVER_HELD_OUT, np.int64)
    distance = None
    if split == "random":
        fold_of_unit = deal_samples(samples.label, count, np.random.default_rng(seed))
        fold_of_unit[~is_free] = NEVER_HELD_OUT
    elif split == "knndm":
        assert samples.place is not None  # refused above
        number = np.where(is_free, np.cumsum(is_free) - 1, -1)  # of free units, -1 elsewhere
        matched = match_distances(
            table[is_free],
            number[unit],
            samples.place,
            places_between(samples.place) if prediction is None else prediction,
            count=count,
            seed=seed,
        )
        fold_of_unit[is_free], distance = matched.fold, matched.distance
    else:
        placed = place_units(table[is_free], count, np.random.default_rng(seed))
        fold_of_unit[is_free] = spread_classes(table[is_free], placed, count)
    fold = most_typical_first(table, fold_of_unit, count)[unit]
    made = Folds(
        split=split,
        fold=fold,
        count=count,
        notes=(),
        group=_divided_groups(samples, fold) if split in ("block", "region") else None,
        buffer=float(buffer),
        place=samples.place if buffer else None,
        distance=distance,
        is_of_hull=is_of_hull,
    )
    return _scored(made, samples, notes)


def _unit(samples: Samples, split: Split) -> Int64[np.ndarray, "sample"]:
    if split == "random":
        return np.arange(len(samples), dtype=np.int64)
    if split == "region":
        assert samples.region is not None  # refused before
        return samples.region
    if split == "year":
        assert samples.year is not None  # refused before
        return samples.year
    return samples.block if split == "block" else samples.group


def _refuse_what_cannot_be(samples: Samples, split: Split, folds: int, buffer: float) -> None:
    if folds < 2:
        raise SplitError(f"{folds} folds were asked for; two are the least")
    if not (math.isfinite(buffer) and buffer >= 0):
        raise SplitError(f"a buffer of {buffer!r} m was asked for; expected 0 or more")
    if split in _LEAVE_ONE_OUT and getattr(samples, split) is None:
        raise SplitError(f"the {split} split needs a {split} of every sample; these have none")
    if split in _LEAVE_ONE_OUT and len(of := np.unique(getattr(samples, split))) == 1:
        which = str(of[0]) if split == "year" else f"one {split}"
        raise SplitError(
            f"all samples are of {which}; two {split}s are the least for the {split} split"
        )
    if split != "knndm" and not buffer:
        return
    asker = "the knndm split" if split == "knndm" else f"a buffer of {buffer:g} m"
    if samples.place is None:
        raise SplitError(f"{asker} needs the places of samples; these have none")
    if lost := int((~np.isfinite(samples.place)).any(axis=1).sum()):
        raise SplitError(
            f"{asker} needs the places of samples; {lost} of {len(samples)} lack theirs"
        )


def _refuse_no_places(prediction: Float64[np.ndarray, "prediction 2"]) -> None:
    if not len(prediction):
        raise SplitError("no place of prediction was given; leave them out or give the map's")
    if lost := int((~np.isfinite(prediction)).any(axis=1).sum()):
        raise SplitError(
            f"{lost} of {len(prediction)} places of prediction have no finite coordinates"
        )


def _free_units(
    table: Float64[np.ndarray, "unit class"],
    units_of_class: Int64[np.ndarray, "class"],
    split: Split,
) -> Bool[np.ndarray, "unit"]:
    """Return which units can be held out; raise `SplitError` if there is nothing to score."""
    word = HELD_OUT[split]
    scored = int((units_of_class >= 2).sum())
    if scored < 2:
        raise SplitError(
            f"the {split} split finds {scored} classes in two {word}s or more among "
            f"{len(table)} {word}s; two classes are the least. Draw more samples or use smaller units"
        )
    if split in _LEAVE_ONE_OUT:
        return np.ones(len(table), dtype=bool)
    # A unit that holds anything of a class with no second unit must always train.
    is_free = ~(table[:, units_of_class == 1] > 0).any(axis=1)
    if is_free.sum() < 2:
        raise SplitError(
            f"the {split} split finds {int(is_free.sum())} {word}s that can be held out; "
            "two are the least"
        )
    return np.asarray(is_free)


def _notes(
    classes: tuple[str, ...],
    units: Int64[np.ndarray, "class"],
    *,
    split: Split,
    asked: int,
    count: int,
) -> list[str]:
    word, notes = HELD_OUT[split], []
    if count < asked and split not in _LEAVE_ONE_OUT:
        notes.append(f"{count} folds instead of {asked}: there are no more {word}s to hold out")
    for name, number in zip(classes, units.tolist(), strict=True):
        if number == 1 and split not in _LEAVE_ONE_OUT:
            notes.append(f"class {name!r} lies in one {word}: it always trains and is never scored")
        elif 1 < number < count:
            notes.append(
                f"class {name!r} lies in {number} {word}s: it is scored in some folds only"
            )
    return notes


def _divided_groups(
    samples: Samples, fold: Int64[np.ndarray, "sample"]
) -> Int64[np.ndarray, "sample"] | None:
    """Return the groups if one of them is in two folds."""
    return samples.group if _groups_in_several(samples.group, fold) else None


def _groups_in_several(
    group: Int64[np.ndarray, "sample"], fold: Int64[np.ndarray, "sample"]
) -> int:
    """Return how many groups lie in two folds or more."""
    pairs = np.unique(np.column_stack([group, fold]), axis=0)[:, 0]
    return int((np.unique(pairs, return_counts=True)[1] > 1).sum())


def _scored(made: Folds, samples: Samples, notes: list[str]) -> Folds:
    """Say which samples are scored, and what else there is to know of the folds."""
    is_scored = np.ones(len(samples), dtype=bool)
    left_out = []
    for one in range(made.count):
        is_held, train = made.fold == one, made.trained_on(one)
        if not train.size:
            raise SplitError(
                f"the {made.split} split with a buffer of {made.buffer:g} m leaves no sample to "
                f"train on when {int(is_held.sum())} are held out; use a smaller buffer"
            )
        is_scored[is_held] = np.isin(samples.label[is_held], samples.label[train])
        left_out.append(len(samples) - int(is_held.sum()) - train.size)
    fold, count = _without_unscored(made, is_scored, notes)
    is_held = fold != NEVER_HELD_OUT
    word = HELD_OUT[made.split]
    for index in np.unique(samples.label[~is_scored & is_held]).tolist():
        lost = int((~is_scored & is_held & (samples.label == index)).sum())
        notes.append(
            f"class {samples.classes[index]!r}: {lost} samples are held out while none of the class "
            "trains; they are not scored"
        )
    scored = np.unique(samples.label[is_scored & is_held])
    if len(scored) < 2:
        raise SplitError(
            f"the {made.split} split can score {len(scored)} classes; two are the least. Use a "
            f"smaller buffer, more folds or more {word}s"
        )
    if made.group is not None:
        notes.append(
            f"{_groups_in_several(made.group, made.fold)} groups lie in several folds: none trains while part of it is "
            "held out"
        )
    if made.split == "year" and (same := _groups_in_several(samples.group, made.fold)):
        notes.append(
            f"{same} groups lie in several years: the same stand is on both sides, so this is a "
            "score of another year, not of another place"
        )
    if made.buffer:
        notes.append(
            f"the buffer of {made.buffer:g} m and divided groups leave {min(left_out)} to "
            f"{max(left_out)} samples out of training"
            if made.group is not None
            else f"the buffer of {made.buffer:g} m leaves {min(left_out)} to {max(left_out)} "
            "samples out of training"
        )
    is_scored |= ~is_held
    return replace(
        made,
        fold=fold,
        count=count,
        notes=tuple(notes),
        is_scored=None if is_scored.all() else is_scored,
    )


def _without_unscored(
    made: Folds, is_scored: Bool[np.ndarray, "sample"], notes: list[str]
) -> tuple[Int64[np.ndarray, "sample"], int]:
    """Return folds and their number without those of which nothing can be scored."""
    kept = [one for one in range(made.count) if is_scored[made.fold == one].any()]
    if lost := made.count - len(kept):
        notes.append(f"{lost} folds always train, for nothing of them could be scored")
    number = np.full(made.count + 1, NEVER_HELD_OUT, np.int64)  # the last is that of the fold -1
    number[kept] = np.arange(len(kept))
    return number[made.fold], len(kept)
