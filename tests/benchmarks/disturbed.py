"""Samples in, the same as a bad year or a mixed stand would have them out; for the benchmarks."""

from dataclasses import replace

import numpy as np

from model import Samples
from model.features import default_features

DAYS, MONTHS = 15.0, 4
CONIFERS = {"larch_JP", "larch_CN", "ever_coni"}
MIXED = "mix_coni_broad"
"""Half conifers, half broadleaf; never blended further."""


def disturbed(values: np.ndarray, draws: int, seed: int) -> dict[str, np.ndarray]:
    """Return values with the season moved either way, and with `draws` choices of months hidden."""
    random = np.random.default_rng(seed)
    found = {"later": moved(values, -DAYS), "earlier": moved(values, DAYS)}
    for draw in range(draws):
        hidden = values.copy()
        hidden[:, random.choice(values.shape[1], MONTHS, replace=False)] = np.nan
        found[f"gap{draw}"] = hidden
    return found


def moved(values: np.ndarray, days: float) -> np.ndarray:
    """Return monthly values (sample, time, band) as a season so many days earlier has them.

    Each is read between the months around it, December lying before January; a missing one has no
    part, and a month is missing where the nearer of the two is.
    """
    steps = values.shape[1]
    place = np.arange(steps) + days * steps / 365
    below = np.floor(place).astype(int)
    share = (place - below).astype(np.float32)[:, None]
    first, second = values[:, below % steps], values[:, (below + 1) % steps]
    weight_first = np.where(np.isfinite(first), 1 - share, 0)
    weight_second = np.where(np.isfinite(second), share, 0)
    whole = weight_first + weight_second
    total = np.nan_to_num(first) * weight_first + np.nan_to_num(second) * weight_second
    nearer = np.where(share < 0.5, first, second)
    is_there = np.isfinite(nearer) & (whole > 0)
    mean = np.divide(total, whole, out=np.full_like(values, np.nan), where=is_there)
    return mean.astype(np.float32)


def blended(samples: Samples, *, count: int, seed: int) -> Samples:
    """Return mixed plots: each of two samples of different pure classes, with shares of both.

    Months are there where both are. A plot keeps the place and the stand of the larger part.
    """
    random = np.random.default_rng(seed)
    pure = np.flatnonzero([samples.classes[label] != MIXED for label in samples.label])
    first, second = random.choice(pure, (2, 3 * count))
    differs = samples.label[first] != samples.label[second]
    first, second = first[differs][:count], second[differs][:count]
    part = random.uniform(0.1, 0.9, len(first)).astype(np.float32)
    part = np.maximum(part, 1 - part)  # the first is the larger
    share = np.zeros((len(first), len(samples.classes)), np.float32)
    rows = np.arange(len(first))
    share[rows, samples.label[first]] = part
    share[rows, samples.label[second]] = 1 - part
    mix = part[:, None, None]
    values = mix * samples.reflectance[first] + (1 - mix) * samples.reflectance[second]
    made = replace(samples.take(first), reflectance=values.astype(np.float32), share=share)
    return made.with_clear_periods(default_features(samples.bands))


def joined(pure: Samples, plots: Samples) -> Samples:
    """Return both, the pure ones with a share of one."""
    assert plots.share is not None  # `blended` gives it
    ones = np.eye(len(pure.classes), dtype=np.float32)[pure.label]
    everything = np.concatenate([np.arange(len(pure)), np.zeros(len(plots), np.int64)])
    return replace(
        pure.take(everything),
        **{name: np.concatenate([getattr(pure, name), getattr(plots, name)])
           for name in ("reflectance", "label", "group", "block")},
        share=np.concatenate([ones, plots.share]),
    )  # fmt: skip


def share_errors(given: np.ndarray, plots: Samples) -> dict[str, float]:
    """Return mean absolute errors: of both classes of a plot, of all classes, of the conifers."""
    assert plots.share is not None  # `blended` gives it
    error = np.abs(given - plots.share)
    weight = np.array([name in CONIFERS for name in plots.classes], float)
    weight[[name == MIXED for name in plots.classes]] = 0.5
    conifers = plots.share @ weight
    is_both = (conifers > 0.05) & (conifers < 0.95)
    return {
        "": float(error[plots.share > 0].mean()),
        "_of_all": float(error.mean()),
        "_of_leaf_type": float(np.abs(given @ weight - conifers)[is_both].mean()),
    }
