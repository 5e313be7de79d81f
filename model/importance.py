"""Trained models and samples they never saw in, which periods and bands they need out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from model.assess import Scores
from model.certainty.checked import parts_of_groups
from model.errors import SampleError
from model.predictor import Predictor
from model.samples import Samples

_MANY_PERIODS = 24
"""Periods above which several are left out at once: half-months of a year still go one by one, and
the days of a year ask the models 1,600 times where one by one would be 67,000."""

_MISSED = 0.01
"""Macro-F1 by which several periods together may be missed more than the most missed of them."""

_TOGETHER = 4096
"""Samples that a model is asked about at once: networks fill up what is no whole batch, which for
five folds of 200 samples was more than half of all they calculated."""

Tried = tuple[Predictor, Samples]
"""A model and samples whose groups it did not learn from, e.g. of one fold."""

Values = list[Float32[np.ndarray, "_ time band"]]
"""Reflectance of each model's samples."""

Watch = Callable[[int, int], None]
"""Told after every prediction: how many are done, how many there will be."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Importance:
    """How much macro-F1 is lost when values are swapped between samples of different groups.

    A loss near 0 says that the model does not need the value, not that it holds nothing: another
    one may say the same. Rows and columns together lose more than their single values do.
    """

    periods: tuple[str, ...]
    """Names of the rows."""
    bands: tuple[str, ...]
    """Names of the columns, as the models need them."""
    macro_f1: float
    """What the models reach with everything in place, 0..1."""
    loss: Float64[np.ndarray, "time band"]
    """Mean loss over the repeats, 0..1; negative by chance."""
    spread: Float64[np.ndarray, "time band"]
    """Standard deviation over the repeats: what a loss must exceed to mean anything."""
    period_loss: Float64[np.ndarray, "time"]
    """Loss when all bands of a period are swapped together."""
    band_loss: Float64[np.ndarray, "band"]
    """Loss when a band is swapped in all periods together."""
    samples: int
    """Number of samples it was measured on."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        arrays = ("loss", "spread", "period_loss", "band_loss")
        return {
            "periods": list(self.periods),
            "bands": list(self.bands),
            "macro_f1": round(self.macro_f1, 6),
            "samples": self.samples,
            **{name: np.round(getattr(self, name), 6).tolist() for name in arrays},
        }


@dataclass(frozen=True, kw_only=True)
class PeriodsKept:
    """What the models reach with some periods only."""

    periods: tuple[str, ...]
    """Those that are left, in the order of the year."""
    macro_f1: float
    """Macro-F1 without the others, 0..1; on groups that had no say in which to leave out."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        return {"periods": list(self.periods), "macro_f1": round(self.macro_f1, 6)}


def permutation_importance(
    tried: Sequence[Tried],
    *,
    repeats: int = 3,
    most: int = 1000,
    seed: int = 0,
    watch: Watch | None = None,
) -> Importance:
    """Swap one period of one band at a time between samples, and see what is lost.

    Breiman 2001, Random Forests, section 10. Clear values are swapped with clear ones of other
    groups, so that gaps stay where they are. Predicts (periods + 1) x (bands + 1) x `repeats`
    times at most `most` samples. Raises `SampleError` for no samples or models of other bands.
    """
    parts = _thinned(tried, most, seed)
    bands = parts[0][0].features.required_bands
    if any(predictor.features.required_bands != bands for predictor, _ in parts):
        raise SampleError("the models need different bands; importance compares equal ones")
    periods = parts[0][1].periods
    whole = _macro_f1(parts, _untouched(parts))
    cells = [(time, band) for time in range(len(periods)) for band in range(len(bands))]
    rows = [(time, slice(None)) for time in range(len(periods))]
    columns = [(slice(None), band) for band in range(len(bands))]
    swaps: list[tuple[Any, Any]] = [*cells, *rows, *columns]
    random = np.random.default_rng(seed)
    losses = np.empty((repeats, len(swaps)))
    for repeat in range(repeats):
        donors = [_donors(samples.group, random) for _, samples in parts]
        swapped = (
            [
                _swapped(samples, bands, time, band, donor)
                for (_, samples), donor in zip(parts, donors, strict=True)
            ]
            for time, band in swaps
        )
        for number, score in enumerate(_macro_f1_of_each(parts, swapped)):
            losses[repeat, number] = whole - score
            if watch is not None:
                watch(repeat * len(swaps) + number + 1, repeats * len(swaps))
    shape = (len(periods), len(bands))
    mean = losses.mean(axis=0)
    return Importance(
        periods=periods,
        bands=bands,
        macro_f1=whole,
        loss=mean[: len(cells)].reshape(shape),
        spread=losses.std(axis=0)[: len(cells)].reshape(shape),
        period_loss=mean[len(cells) : len(cells) + len(rows)],
        band_loss=mean[len(cells) + len(rows) :],
        samples=sum(len(samples) for _, samples in parts),
    )


def periods_needed(
    tried: Sequence[Tried], *, most: int = 1000, seed: int = 0, watch: Watch | None = None
) -> tuple[PeriodsKept, ...]:
    """Leave out one period after the other, the one that is missed least first.

    Returns what is reached with all periods, with one less, … with one; as long as there are more
    than 24, up to a quarter of them is left out at once. The models are asked again, not trained
    again: they must have learned to live with gaps. One half of the groups chooses what to leave
    out, the other half is scored, for the best of many tries flatters itself; groups of all
    `tried` are numbered alike, and one that lies in several does one of the two. Raises `SampleError` for fewer than two groups.
    """
    parts = _thinned(tried, most, seed)
    groups = np.concatenate([samples.group for _, samples in parts])
    chooses = parts_of_groups(groups, 2, seed=seed)
    names = parts[0][1].periods
    kept = list(range(len(names)))
    random = np.random.default_rng(seed)
    done = 0
    found = [_scored(parts, names, kept, chooses == 1)]
    while len(kept) > 1:
        scores: list[float] = []
        hidden = (_hidden(parts, [time for time in kept if time != leave]) for leave in kept)
        for score in _macro_f1_of_each(parts, hidden, chooses == 0):
            scores.append(score)
            done += 1
            if watch is not None:
                to_do = len(kept) - len(scores) + _predictions(len(kept) - _several(len(kept)))
                watch(done, done + to_do)
        kept = _without_least_missed(parts, kept, scores, chooses == 0, random)
        found.append(_scored(parts, names, kept, chooses == 1))
    return tuple(found)


def _without_least_missed(
    parts: Sequence[Tried],
    kept: Sequence[int],
    scores: Sequence[float],
    counted: Bool[np.ndarray, "sample"],
    random: np.random.Generator,
) -> list[int]:
    """Leave out what is missed least, given the score without each of the periods `kept`.

    Where several go at once, of those missed as little any may go, so that they are not side by
    side; and fewer go where all of them together are missed though each is not: one stood in for
    another.
    """
    several = _several(len(kept))
    if several == 1:
        return [time for time in kept if time != kept[int(np.argmax(scores))]]
    order = np.lexsort((random.permutation(len(kept)), -np.array(scores)))
    while True:
        out = set(order[:several].tolist())
        rest = [time for place, time in enumerate(kept) if place not in out]
        least = min(scores[place] for place in out) - _MISSED
        if several == 1 or _macro_f1(parts, _hidden(parts, rest), counted) >= least:
            return rest
        several //= 2


def _several(periods: int) -> int:
    """Return how many of so many periods are left out at once."""
    return max(1, min(periods // 4, periods - _MANY_PERIODS))


def _predictions(periods: int) -> int:
    """Return how often the models are asked until one period is left."""
    total = 0
    while periods > 1:
        total += periods
        periods -= _several(periods)
    return total


def fewest_periods(kept: Sequence[PeriodsKept], *, within: float = 0.01) -> PeriodsKept:
    """Return the fewest periods that reach the score of all of them less `within` (0..1)."""
    enough = [one for one in kept if one.macro_f1 >= kept[0].macro_f1 - within]
    return min(enough, key=lambda one: len(one.periods))


def _thinned(tried: Sequence[Tried], most: int, seed: int) -> list[Tried]:
    """Leave out samples at random beyond `most`, of every model the same share."""
    total = sum(len(samples) for _, samples in tried)
    if not total:
        raise SampleError("there is no held-out sample to measure importance on")
    random = np.random.default_rng(seed)
    parts = []
    for predictor, samples in tried:
        count = min(len(samples), -(-len(samples) * most // total))
        chosen = np.sort(random.permutation(len(samples))[:count]).astype(np.int64)
        if count:
            parts.append((predictor, samples.take(chosen)))
    return parts


def _untouched(parts: Sequence[Tried]) -> Values:
    return [samples.reflectance for _, samples in parts]


def _macro_f1(
    parts: Sequence[Tried], values: Values, counted: Bool[np.ndarray, "sample"] | None = None
) -> float:
    return next(_macro_f1_of_each(parts, [values], counted))


def _macro_f1_of_each(
    parts: Sequence[Tried],
    changed: Iterable[Values],
    counted: Bool[np.ndarray, "sample"] | None = None,
) -> Iterator[float]:
    """Yield what the models reach with each of the `changed` values in place of the samples'."""
    true = np.concatenate([samples.label for _, samples in parts])
    chosen = slice(None) if counted is None else counted
    several = max(1, _TOGETHER // max(len(samples) for _, samples in parts))
    rest = iter(changed)
    while some := list(islice(rest, several)):
        answers = [
            predictor.probability(np.concatenate([values[part] for values in some]), samples.bands)
            .argmax(axis=1)
            .reshape(len(some), len(samples))
            for part, (predictor, samples) in enumerate(parts)
        ]
        for predicted in np.concatenate(answers, axis=1).astype(np.int64):  # (sample,)
            found = Scores.from_labels(true[chosen], predicted[chosen], parts[0][1].classes)
            yield found.macro_f1


def _donors(
    group: Int64[np.ndarray, "sample"], random: np.random.Generator
) -> Int64[np.ndarray, "sample"]:
    """Return for each sample another one, none twice, of another group.

    A group with more than half of the samples has to give to itself.
    """
    number = np.unique(group, return_inverse=True)[1]
    shuffled = random.permutation(len(group))
    place = random.permutation(int(number.max()) + 1)[number[shuffled]]
    ring = shuffled[np.argsort(place, kind="stable")]  # groups side by side
    largest = min(int(np.bincount(number).max()), len(group) // 2)
    # so far along the ring that no group reaches itself, from either side
    shift = int(random.integers(largest, len(group) - largest + 1))
    donor = np.empty(len(group), np.int64)
    donor[ring] = np.roll(ring, -shift)
    return donor


def _swapped(
    samples: Samples,
    bands: tuple[str, ...],
    time: Any,
    band: Any,
    donor: Int64[np.ndarray, "sample"],
) -> Float32[np.ndarray, "sample time band"]:
    """Return the samples' values with those of their donors, where both are clear."""
    names = bands[band] if isinstance(band, slice) else (bands[band],)
    columns = np.array([samples.bands.index(name) for name in names])
    times = np.arange(len(samples.periods))[
        time if isinstance(time, slice) else slice(time, time + 1)
    ]
    reflectance: Float32[np.ndarray, "sample time band"] = samples.reflectance.copy()
    here = np.ix_(np.arange(len(samples)), times, columns)
    theirs = samples.reflectance[np.ix_(donor, times, columns)]
    both = np.isfinite(reflectance[here]) & np.isfinite(theirs)
    reflectance[here] = np.where(both, theirs, reflectance[here])
    return reflectance


def _hidden(parts: Sequence[Tried], kept: Sequence[int]) -> Values:
    """Return the samples' values with all periods but `kept` hidden."""
    hidden = []
    for _, samples in parts:
        reflectance = np.full_like(samples.reflectance, np.nan)
        reflectance[:, kept] = samples.reflectance[:, kept]
        hidden.append(reflectance)
    return hidden


def _scored(
    parts: Sequence[Tried],
    names: tuple[str, ...],
    kept: Sequence[int],
    counted: Bool[np.ndarray, "sample"],
) -> PeriodsKept:
    score = _macro_f1(parts, _hidden(parts, kept), counted)
    return PeriodsKept(periods=tuple(names[time] for time in kept), macro_f1=score)
