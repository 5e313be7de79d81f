"""Numbers, texts, lists and dictionaries in, the same out."""

import math
import operator
from collections.abc import Callable
from typing import Any

from earthengine_graph import Function
from earthengine_grids import EngineError


def _sequence(start: float, end: float | None, step: float, count: int | None) -> list[float]:
    if count is not None:
        if end is not None:
            step = (end - start) / (count - 1) if count > 1 else 0
        return [start + i * step for i in range(int(count))]
    assert end is not None
    return [start + i * step for i in range(math.floor((end - start) / step) + 1)]


def _item(values: list[Any], index: int) -> Any:
    if not -len(values) <= index < len(values):
        raise EngineError(f"List.get: List index must be between 0 and {len(values)}, or -1.")
    return values[int(index)]


def _looked_up(values: dict[str, Any], key: str, default: Any) -> Any:
    if key not in values and default is None:
        raise EngineError(f"Dictionary.get: Dictionary does not contain key: '{key}'.")
    return values.get(key, default)


def _chosen(condition: Any, yes: Any, no: Any) -> Any:
    return yes if condition else no


def folded(items: Callable[[Any], Any]) -> Function:
    """Return the function that goes through `items` with what came out so far."""

    def function(of: Any, step: Function, first: Any) -> Any:
        for item in items(of):
            first = step(item, first)
        return first

    return function


_NUMBERS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": lambda a, b: a / b if b else 0,
    "mod": math.fmod,
    "max": max,
    "min": min,
    "eq": lambda a, b: int(a == b),
    "neq": lambda a, b: int(a != b),
    "gt": lambda a, b: int(a > b),
    "gte": lambda a, b: int(a >= b),
    "lt": lambda a, b: int(a < b),
    "lte": lambda a, b: int(a <= b),
    "and": lambda a, b: int(bool(a) and bool(b)),
    "or": lambda a, b: int(bool(a) or bool(b)),
    "not": lambda a: int(not a),
    "floor": math.floor,
    "round": lambda a: math.floor(a + 0.5),
    "abs": abs,
    "toInt": int,
}


PLAIN_FUNCTIONS: dict[str, Function] = {
    **{f"Number.{name}": compute for name, compute in _NUMBERS.items()},
    "List.get": _item,
    "List.getNumber": _item,
    "List.getString": _item,
    "List.size": len,
    "List.length": len,
    "List.map": lambda values, f, drop: [
        made for made in map(f, values) if not (drop and made is None)
    ],
    "List.iterate": folded(lambda values: values),
    "List.sequence": _sequence,
    "List.slice": lambda v, start, end, step: v[
        int(start) : None if end is None else int(end) : int(step or 1)
    ],
    "List.contains": lambda values, one: one in values,
    "List.add": lambda values, one: [*values, one],
    "List.cat": lambda values, more: [*values, *more],
    "List.zip": lambda values, more: [list(pair) for pair in zip(values, more, strict=False)],
    "List.flatten": lambda values: [
        v for one in values for v in (one if isinstance(one, list) else [one])
    ],
    "List.reverse": lambda values: values[::-1],
    "List.distinct": lambda values: list(dict.fromkeys(values)),
    "List.sort": lambda values, keys: (
        sorted(values)
        if keys is None
        else [v for _, v in sorted(zip(keys, values, strict=True), key=operator.itemgetter(0))]
    ),
    "List.repeat": lambda value, count: [value] * int(count),
    "List.indexOf": lambda values, one: values.index(one) if one in values else -1,
    "List.remove": lambda values, one: [v for v in values if v != one],
    "Dictionary.get": _looked_up,
    "Dictionary.getNumber": lambda values, key: _looked_up(values, key, None),
    "Dictionary.keys": lambda values: sorted(values),
    "Dictionary.values": lambda values, keys: [values[k] for k in (keys or sorted(values))],
    "Dictionary.set": lambda values, key, value: {**values, key: value},
    "Dictionary.contains": lambda values, key: key in values,
    "Dictionary.size": len,
    "Dictionary.fromLists": lambda keys, values: dict(zip(keys, values, strict=True)),
    "Dictionary.combine": lambda one, two, over: {**one, **two} if over else {**two, **one},
    "String.cat": lambda one, two: one + two,
    "String.slice": lambda text, start, end: text[int(start) : None if end is None else int(end)],
    "String.length": len,
    "If": _chosen,
}
