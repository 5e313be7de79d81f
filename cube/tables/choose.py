"""Imported samples and what a recipe wants of them in, the samples that are trained on out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Int64, Shaped

from cube.blocks import spatial_blocks
from cube.errors import InputError
from cube.periods import Period
from cube.sample import SampleOptions, refuse_too_few, thinned
from cube.samplestore import open_samples


@dataclass(frozen=True, kw_only=True)
class SampleChoice:
    """What is taken of stored samples."""

    path: Path
    """The store."""
    bands: tuple[str, ...] | None = None
    """Bands, in the order in which they are wanted; None takes all."""
    periods: tuple[Period, ...] | None = None
    """Periods that the samples must have, no more and no fewer; None takes them as they are."""
    classes: Mapping[str, str] = field(default_factory=dict)
    """Class as stored to class as trained: keeps, renames, merges; others are dropped if given."""
    drop: frozenset[str] = frozenset()
    """Classes, as stored, that are left out."""
    options: SampleOptions = field(default_factory=SampleOptions)
    """How many samples are taken, and how large blocks are."""

    def __post_init__(self) -> None:
        if blank := [label for label, name in self.classes.items() if not name.strip()]:
            raise InputError(
                f"reference classes give {blank[0]!r} a blank name; to leave it out name it in drop"
            )


def classes_of(choice: SampleChoice) -> tuple[str, ...]:
    """Return the classes that will be trained on, sorted.

    Raises `InputError` if there are no samples, they lack a band or have other periods, or if
    classes are named that they do not have. Reads no sequence.
    """
    stored = open_samples(choice.path)
    _refuse_other(stored, choice)
    names = _renamed(_classes_stored(stored), choice)
    return tuple(sorted({name for name in names.tolist() if name}))


def choose_samples(choice: SampleChoice) -> xr.Dataset:
    """Return the chosen samples as `cube.sample.draw_samples` returns those of a cube.

    Order, values and groups stay as stored; blocks are made anew where samples lie on a grid. What is left out is added to
    `attrs["canopycube"]["dropped"]`. Raises `InputError` as `classes_of`, and if no sample or only
    one class is left.
    """
    stored = open_samples(choice.path)
    _refuse_other(stored, choice)
    options = choice.options
    if "share" in stored and (choice.classes or choice.drop):
        stored = _renamed_shares(stored, choice)
        label = stored["label"].values
    else:
        label = _renamed(stored["label"].values, choice)
    is_wanted = label != ""
    is_seen = _clear_periods(stored) >= options.min_clear_months
    is_candidate = is_wanted & is_seen
    blocks = stored["block"].values
    if "row" in stored:  # series without a grid keep the blocks that they were imported with
        blocks = spatial_blocks(stored["x"].values, stored["y"].values, options.block_size)
    is_chosen = thinned(label, stored["group"].values, is_candidate, options, block=blocks)
    ours = stored.attrs["canopycube"]
    dropped = Counter(ours["dropped"])
    dropped["samples of classes not asked for"] += int((~is_wanted).sum())
    dropped["samples with too few clear periods"] += int((is_wanted & ~is_seen).sum())
    dropped["samples beyond the most per group or class"] += int((is_candidate & ~is_chosen).sum())
    dropped = Counter({reason: count for reason, count in dropped.items() if count})
    refuse_too_few(label[is_chosen], dropped, options)
    bands = list(choice.bands or ours["bands"])
    chosen = stored.isel(sample=np.flatnonzero(is_chosen)).sel(band=bands)
    attributes: dict[str, Any] = {
        **ours,
        "bands": bands,
        "dropped": dict(dropped),
        "options": asdict(options),
    }
    chosen = chosen.assign(
        label=("sample", label[is_chosen], stored["label"].attrs),
        block=("sample", blocks[is_chosen]),
    )
    return chosen.assign_attrs(canopycube=attributes)


def _classes_stored(stored: xr.Dataset) -> Shaped[np.ndarray, " class"]:
    """Return the classes of samples; in mixed plots one may be nowhere the largest."""
    return np.unique((stored["class"] if "share" in stored else stored["label"]).values)


def _renamed_shares(stored: xr.Dataset, choice: SampleChoice) -> xr.Dataset:
    """Return samples of mixed plots with the shares of the classes that are trained.

    Shares of merged classes add up, those of classes left out go, and the rest is brought back to a
    sum of 1; the label is the largest one, "" where nothing is left.
    """
    names = _renamed(stored["class"].values, choice)
    kept = np.unique(names[names != ""])
    shares = stored["share"].transpose("sample", "class").values
    summed = np.zeros((len(shares), len(kept)))  # (sample, class)
    for at, name in enumerate(kept.tolist()):
        summed[:, at] = shares[:, names == name].sum(axis=1)
    total = summed.sum(axis=1, keepdims=True)
    share = (summed / np.where(total > 0, total, 1)).astype(np.float32)  # (sample, class)
    label = np.full(len(shares), "", dtype=names.dtype)
    if len(kept):
        label = np.where(total[:, 0] > 0, kept[share.argmax(axis=1)], "")
    return (
        stored.drop_dims("class")
        .assign(
            label=("sample", label, stored["label"].attrs),
            share=(("sample", "class"), share, stored["share"].attrs),
        )
        .assign_coords({"class": kept})
    )


def _clear_periods(stored: xr.Dataset) -> Int64[np.ndarray, " sample"]:
    """Return how many periods of each sample have a clear look, or any value at all."""
    if "clear_count" in stored:
        return np.asarray((stored["clear_count"].values > 0).sum(axis=1), np.int64)
    is_seen = np.isfinite(stored["reflectance"].transpose("sample", "time", "band").values)
    return np.asarray(is_seen.any(axis=2).sum(axis=1), np.int64)


def _refuse_other(stored: xr.Dataset, choice: SampleChoice) -> None:
    """Refuse samples without a band, with other periods, or without a class that is named."""
    name = choice.path.name
    ours = stored.attrs["canopycube"]
    if missing := [band for band in choice.bands or () if band not in ours["bands"]]:
        raise InputError(
            f"samples {name!r} lack {', '.join(missing)}, which the recipe's bands name; they have "
            f"{', '.join(ours['bands'])}"
        )
    wanted = ours["periods"]
    if choice.periods is not None:
        wanted = [str(period) for period in choice.periods]
    if wanted != ours["periods"]:
        raise InputError(
            f"samples {name!r} have other periods than the recipe: "
            f"{_difference(ours['periods'], wanted)}; set months as they are in the samples, or "
            "import the tables again with --first and --last"
        )
    found = set(_classes_stored(stored).tolist())
    if unknown := sorted({*choice.classes, *choice.drop} - found):
        raise InputError(
            f"reference classes or drop name {unknown[0]!r}, a class that samples {name!r} do not "
            f"have; they have {', '.join(sorted(found))}"
        )


def _difference(stored: Sequence[str], wanted: Sequence[str]) -> str:
    """Say which periods only the one and only the other has."""
    parts = []
    for who, one, other in (("the samples", stored, wanted), ("the recipe", wanted, stored)):
        if only := [period for period in one if period not in set(other)]:
            more = f" and {len(only) - 3} more" if len(only) > 3 else ""
            parts.append(
                f"only {who} have {', '.join(only[:3])}{more}".replace("recipe have", "recipe has")
            )
    return "; ".join(parts) or "the same in another order"


def _renamed(
    label: Shaped[np.ndarray, " sample"], choice: SampleChoice
) -> Shaped[np.ndarray, " sample"]:
    """Return the class each sample is trained as; "" where it is left out."""
    names, which = np.unique(label, return_inverse=True)
    kept = [
        "" if name in choice.drop else (choice.classes.get(name, "") if choice.classes else name)
        for name in names.tolist()
    ]
    return np.asarray(np.array(kept, dtype=str)[which])
