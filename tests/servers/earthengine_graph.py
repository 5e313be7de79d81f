"""An expression graph as the Earth Engine client sends it in, what it is worth out.

Which functions there are, what their arguments are called and what they default to is read from the
list of algorithms that the client's own package ships; how they compute is told by a table of
Python functions, which get the arguments in the list's order. A function that the table lacks is an
error that names it, so that a change of what the project sends is noticed.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

from earthengine_grids import EngineError
from earthengine_values import Collection, Image, Instant, as_image

Function = Callable[..., Any]


@cache
def packaged(name: str) -> Any:
    """Return a JSON document that the client's package ships for its own tests."""
    return json.loads((resources.files("ee") / "tests" / name).read_text(encoding="utf-8"))


@dataclass(frozen=True, kw_only=True)
class Argument:
    """One argument of an algorithm."""

    name: str
    type: str
    is_optional: bool
    default: Any


@cache
def algorithms() -> Mapping[str, tuple[Argument, ...]]:
    """Return the arguments of every algorithm that Earth Engine has, by its name."""
    return {
        one["name"].removeprefix("algorithms/"): tuple(
            Argument(
                name=argument["argumentName"],
                type=argument["type"],
                is_optional=argument.get("optional", False),
                default=argument.get("defaultValue"),
            )
            for argument in one.get("arguments", [])
        )
        for one in packaged("algorithms.json")["algorithms"]
    }


@dataclass(kw_only=True)
class _Scope:
    """The arguments of the function that is being evaluated, and what is known within it."""

    arguments: Mapping[str, Any]
    known: dict[str, Any]


class Graph:
    """One expression: `{"result": name, "values": {name: node}}`."""

    def __init__(self, expression: Mapping[str, Any], functions: Mapping[str, Function]) -> None:
        self._nodes: Mapping[str, Any] = expression["values"]
        self._result: str = expression["result"]
        self._functions = functions
        self._free: dict[str, frozenset[str]] = {}
        self._known: dict[str, Any] = {}

    def value(self) -> Any:
        """Return what the expression is worth."""
        return self._named(self._result, _Scope(arguments={}, known=self._known))

    def _named(self, name: str, scope: _Scope) -> Any:
        known = scope.known if self._free_of(name) else self._known
        if name not in known:
            known[name] = self._node(self._nodes[name], scope)
        return known[name]

    def _node(self, node: Mapping[str, Any], scope: _Scope) -> Any:
        ((kind, content),) = node.items()
        match kind:
            case "constantValue":
                return content
            case "valueReference":
                return self._named(content, scope)
            case "argumentReference":
                return scope.arguments[content]
            case "arrayValue":
                return [self._node(one, scope) for one in content["values"]]
            case "dictionaryValue":
                return {key: self._node(one, scope) for key, one in content["values"].items()}
            case "functionDefinitionValue":
                return self._defined(content, scope)
            case "functionInvocationValue":
                return self._called(content, scope)
        raise EngineError(f"This server does not know nodes of kind {kind!r}.")

    def _defined(self, content: Mapping[str, Any], outer: _Scope) -> Function:
        names = content["argumentNames"]

        def function(*values: Any) -> Any:
            arguments = {**outer.arguments, **dict(zip(names, values, strict=True))}
            return self._named(content["body"], _Scope(arguments=arguments, known={}))

        return function

    def _called(self, content: Mapping[str, Any], scope: _Scope) -> Any:
        name = content.get("functionName")
        if name is None:
            raise EngineError("This server does not know functions that are computed.")
        if name not in algorithms():
            raise EngineError(f"Algorithm {name!r} does not exist.")
        if name not in self._functions:
            raise EngineError(f"This server does not know the function {name!r}.")
        given = {key: self._node(one, scope) for key, one in content.get("arguments", {}).items()}
        arguments = [_argument(name, argument, given) for argument in algorithms()[name]]
        if given:
            raise EngineError(f"{name}: unrecognized arguments {sorted(given)}.")
        try:
            return self._functions[name](*arguments)
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            raise EngineError(f"{name}: {error!r}") from error

    def _free_of(self, name: str) -> frozenset[str]:
        """Return the arguments of outer functions that a node's value depends on."""
        if name not in self._free:
            self._free[name] = frozenset(self._free_in(self._nodes[name]))
        return self._free[name]

    def _free_in(self, node: Mapping[str, Any]) -> Iterator[str]:
        ((kind, content),) = node.items()
        if kind == "valueReference":
            yield from self._free_of(content)
        elif kind == "argumentReference":
            yield content
        elif kind == "arrayValue":
            for one in content["values"]:
                yield from self._free_in(one)
        elif kind == "dictionaryValue":
            for one in content["values"].values():
                yield from self._free_in(one)
        elif kind == "functionDefinitionValue":
            yield from self._free_of(content["body"]) - set(content["argumentNames"])
        elif kind == "functionInvocationValue":
            for one in content.get("arguments", {}).values():
                yield from self._free_in(one)


def _argument(function: str, argument: Argument, given: dict[str, Any]) -> Any:
    """Take one argument out of `given`, as the type that the algorithm wants."""
    value = given.pop(argument.name, None)
    if value is None:
        if not argument.is_optional:
            raise EngineError(f"{function}: required argument ({argument.name}) missing or null.")
        return argument.default
    if argument.type.startswith("Image<"):
        return as_image(value)
    if argument.type == "Date":
        return instant(value)
    if argument.type in ("FeatureCollection", "ImageCollection") and not isinstance(
        value, Collection
    ):
        raise EngineError(f"{function}: {argument.name} is no collection.")
    return value


def instant(value: Any) -> Instant:
    """Return a date given as one, as milliseconds or as ISO text (UTC)."""
    if isinstance(value, Instant):
        return value
    if isinstance(value, int | float):
        return Instant(milliseconds=value)
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise EngineError(f"Date: Bad date/time {value!r}.") from None
    return Instant(milliseconds=time.replace(tzinfo=time.tzinfo or UTC).timestamp() * 1000)


def shown(value: Any) -> Any:
    """Return a value as the JSON that `value:compute` answers with."""
    if isinstance(value, Image):
        return _shown_image(value)
    if isinstance(value, Collection):
        return {
            "type": "ImageCollection",
            "id": value.properties.get("system:id"),
            "bands": [],
            "properties": shown({k: v for k, v in value.properties.items() if k != "system:id"}),
            "features": [shown(item) for item in value.items],
        }
    if isinstance(value, Instant):
        return {"type": "Date", "value": value.milliseconds}
    if isinstance(value, Mapping):
        return {key: shown(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [shown(one) for one in value]
    if hasattr(value, "described"):
        return value.described()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise EngineError(f"This server cannot show a {type(value).__name__}.")


def _shown_image(image: Image) -> dict[str, Any]:
    bands = []
    for name, band in image.bands.items():
        told: dict[str, Any] = {
            "id": name,
            "data_type": band.kind.described(),
            "crs": band.projection.crs,
            "crs_transform": list(band.projection.transform)[:6],
        }
        if band.shape:
            told["dimensions"] = list(reversed(band.shape))
        bands.append(told)
    properties = {k: v for k, v in image.properties.items() if k != "system:id"}
    told = {"type": "Image", "bands": bands, "properties": shown(properties)}
    if "system:id" in image.properties:
        told["id"] = image.properties["system:id"]
    return told
