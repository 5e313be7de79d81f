"""Properties and values in, filters of Earth Engine out: whether an element is wanted."""

import operator
from collections.abc import Callable
from typing import Any

from earthengine_dates import utc
from earthengine_graph import Function, instant
from earthengine_grids import EngineError, Place
from earthengine_values import Element, Instant

Test = Callable[[Element, Element], bool]
"""Whether a pair is wanted; a filter of one collection gets each element twice."""


def plain(value: Any) -> Any:
    """Return a value that can be compared: of a date its milliseconds."""
    return value.milliseconds if isinstance(value, Instant) else value


def _property(element: Element, name: str) -> Any:
    if name in (".all", ".geo"):
        return element.place
    return plain(element.properties.get(name))


def _compared(test: Callable[[Any, Any], bool]) -> Function:
    """Return a filter of two operands; where one is missing it is false."""

    def make(
        left_field: str | None,
        right_value: Any,
        right_field: str | None,
        left_value: Any,
        _: Any = None,
    ) -> Test:
        def wanted(left: Element, right: Element) -> bool:
            a = _property(left, left_field) if left_field else plain(left_value)
            b = _property(right, right_field) if right_field else plain(right_value)
            return a is not None and b is not None and bool(test(a, b))

        return wanted

    return make


def _meets(a: Any, b: Any) -> bool:
    shapes = [one.place if isinstance(one, Element) else one for one in (a, b)]
    return all(one is None or isinstance(one, Place) for one in shapes) and (
        None in shapes or bool(shapes[0].degrees.intersects(shapes[1].degrees))
    )


def _intersects(
    left_field: str | None, right_value: Any, right_field: str | None, left_value: Any, _: Any
) -> Test:
    make = _compared(_meets)
    field, value = left_field or right_field, right_value if left_field else left_value
    test = make(field, value, None, None)
    # what has no footprint is everywhere
    return lambda left, right: left.place is None or test(left, right)


def _calendar(start: int, end: int | None, field: str) -> Test:
    parts = {"year": "year", "month": "month", "hour": "hour", "day_of_month": "day"}
    if field not in parts:
        raise EngineError(f"Filter.calendarRange: field {field!r} is not known to this server.")

    def wanted(left: Element, _: Element) -> bool:
        if left.properties.get("system:time_start") is None:
            return False
        time = utc(instant(left.properties["system:time_start"]))
        value, last = getattr(time, parts[field]), start if end is None else end
        return start <= value <= last if start <= last else value >= start or value <= last

    return wanted


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "equals": operator.eq,
    "notEquals": operator.ne,
    "lessThan": operator.lt,
    "lessThanOrEquals": operator.le,
    "greaterThan": operator.gt,
    "greaterThanOrEquals": operator.ge,
    "listContains": lambda a, b: b in a,
    "inList": lambda a, b: a in b,
    "stringStartsWith": lambda a, b: a.startswith(b),
    "stringEndsWith": lambda a, b: a.endswith(b),
    "stringContains": lambda a, b: b in a,
    "dateRangeContains": lambda a, b: a.start <= b < a.end,
}


_SHORT = {
    "eq": "equals",
    "neq": "notEquals",
    "lt": "lessThan",
    "lte": "lessThanOrEquals",
    "gt": "greaterThan",
    "gte": "greaterThanOrEquals",
}


FILTER_FUNCTIONS: dict[str, Function] = {
    **{f"Filter.{name}": _compared(test) for name, test in _COMPARISONS.items()},
    **{f"Filter.{short}": _compared(_COMPARISONS[name]) for short, name in _SHORT.items()},
    "Filter.intersects": _intersects,
    "Filter.and": lambda tests: lambda a, b: all(test(a, b) for test in tests),
    "Filter.or": lambda tests: lambda a, b: any(test(a, b) for test in tests),
    "Filter.not": lambda test: lambda a, b: not test(a, b),
    "Filter.notNull": lambda names: (
        lambda a, _: all(a.properties.get(n) is not None for n in names)
    ),
    "Filter.calendarRange": _calendar,
}
