"""Many images in, one out: reducers, mosaics, and the statistics of a region or of columns.

Assumed where nothing is documented: what has no unmasked input is masked, a count too; several
inputs of one reducer count only where all of them are unmasked; of equal values the first wins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from earthengine_graph import Function
from earthengine_grids import EngineError
from earthengine_values import DOUBLE, TRUTH, Pixels, PixelType

_COUNT = PixelType.of("uint32")


Stack = tuple[np.ndarray, np.ndarray]
"""Values and masks, (image, y, x)."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """One thing that a reducer tells."""

    name: str
    compute: Callable[[Sequence[Stack]], Pixels]
    """Of one stack for each input."""
    kind: PixelType | None = None
    """None is that of the input number `of`."""
    of: int = 0


@dataclass(frozen=True, kw_only=True)
class Reducer:
    """How many values become one."""

    outputs: tuple[Output, ...] = ()
    """For pixels; empty if it is one of columns only."""
    inputs: int = 1
    """How many bands it takes together."""
    column: str = ""
    """What it makes of columns: `list`, `min`, `max`, `count`, `sum`, `mean`; else empty."""
    repeats: int | None = None
    """How many columns it is applied to one by one; None is as one."""


def _median(stacks: Sequence[Stack]) -> Pixels:
    values, mask = stacks[0]
    last = np.inf if values.dtype.kind == "f" else np.iinfo(values.dtype).max
    ordered = np.sort(np.where(mask, values, values.dtype.type(last)), axis=0)
    count = mask.sum(axis=0)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(values) - 1)
    both = [np.take_along_axis(ordered, one[None], axis=0)[0] for one in (low, high)]
    return Pixels((both[0].astype(np.float64) + both[1].astype(np.float64)) / 2, count > 0)


def _sum(stacks: Sequence[Stack]) -> Pixels:
    values, mask = stacks[0]
    return Pixels(np.sum(values, axis=0, where=mask, dtype=np.float64), mask.any(axis=0))


def _mean(stacks: Sequence[Stack]) -> Pixels:
    total, mask = _sum(stacks)
    return Pixels(total / np.maximum(stacks[0][1].sum(axis=0), 1), mask)


def _count(stacks: Sequence[Stack]) -> Pixels:
    mask = stacks[0][1]
    return Pixels(mask.sum(axis=0), mask.any(axis=0))


def _non_zero(test: Callable[..., np.ndarray]) -> Callable[[Sequence[Stack]], Pixels]:
    def compute(stacks: Sequence[Stack]) -> Pixels:
        values, mask = stacks[0]
        neutral = test is np.all
        return Pixels(test(np.where(mask, values != 0, neutral), axis=0), mask.any(axis=0))

    return compute


def _extreme(sign: int, of: int) -> Callable[[Sequence[Stack]], Pixels]:
    """Take input `of` from where the first input is greatest (`sign` 1) or least (-1)."""

    def compute(stacks: Sequence[Stack]) -> Pixels:
        mask = np.logical_and.reduce([stack[1] for stack in stacks])
        # as doubles: whole numbers have no infinity, and the least has no negative
        first = np.where(mask, sign * stacks[0][0].astype(np.float64), -np.inf)
        at = np.argmax(first, axis=0)[None]
        return Pixels(np.take_along_axis(stacks[of][0], at, axis=0)[0], mask.any(axis=0))

    return compute


def first(stacks: Sequence[Stack]) -> Pixels:
    """Return the first unmasked value."""
    values, mask = stacks[0]
    at = np.argmax(mask, axis=0)[None]
    return Pixels(np.take_along_axis(values, at, axis=0)[0], mask.any(axis=0))


def extremes(name: str, sign: int) -> Callable[..., Reducer]:
    """Return the maker of `max` (`sign` 1) or `min` (-1), which carry further inputs along."""

    def make(inputs: int | None = None) -> Reducer:
        number = int(inputs or 1)
        outputs = tuple(
            Output(name=f"{name}{i or ''}", compute=_extreme(sign, i), of=i) for i in range(number)
        )
        return Reducer(outputs=outputs, inputs=number, column=name)

    return make


def _simple(
    name: str,
    compute: Callable[[Sequence[Stack]], Pixels],
    kind: PixelType | None,
    column: str = "",
) -> Reducer:
    return Reducer(outputs=(Output(name=name, compute=compute, kind=kind),), column=column)


MEDIAN = _simple("median", _median, DOUBLE)


MEAN = _simple("mean", _mean, DOUBLE, "mean")


SUM = _simple("sum", _sum, DOUBLE, "sum")


NUMBER = _simple("count", _count, _COUNT, "count")


ALL = _simple("all", _non_zero(np.all), TRUTH)


ANY = _simple("any", _non_zero(np.any), TRUTH)


def _combine(one: Reducer, two: Reducer, prefix: str, is_shared: bool) -> Reducer:
    if not is_shared or one.inputs != two.inputs:
        raise EngineError("Reducer.combine: this server knows shared inputs only.")
    outputs = list(one.outputs)
    for output in two.outputs:
        name, number = prefix + output.name, 1
        while name in {other.name for other in outputs}:
            name, number = f"{prefix}{output.name}_{number}", number + 1
        outputs.append(replace(output, name=name))
    return Reducer(outputs=tuple(outputs), inputs=one.inputs)


def _median_reducer(buckets: int | None, width: float | None, most: int | None) -> Reducer:
    if buckets is not None or width is not None:
        raise EngineError("Reducer.median: this server knows the exact median only.")

    def compute(stacks: Sequence[Stack]) -> Pixels:
        if most is not None and len(stacks[0][0]) > most:
            raise EngineError(f"Reducer.median: a histogram of more than {most} values.")
        return _median(stacks)

    return _simple("median", compute, DOUBLE)


def _to_list(size: int | None, optional: int) -> Reducer:
    if optional:
        raise EngineError("Reducer.toList: this server knows no optional inputs.")
    return Reducer(inputs=int(size or 1), column="list")


REDUCER_FUNCTIONS: dict[str, Function] = {
    "Reducer.median": _median_reducer,
    "Reducer.mean": lambda: MEAN,
    "Reducer.sum": lambda: SUM,
    "Reducer.count": lambda: NUMBER,
    "Reducer.max": extremes("max", 1),
    "Reducer.min": extremes("min", -1),
    "Reducer.first": lambda: _simple("first", first, None),
    "Reducer.allNonZero": lambda: ALL,
    "Reducer.anyNonZero": lambda: ANY,
    "Reducer.toList": _to_list,
    "Reducer.combine": _combine,
    "Reducer.repeat": lambda reducer, count: replace(reducer, repeats=int(count)),
}
