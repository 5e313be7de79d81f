"""Elements and collections in, the same with other properties, members or order out."""

from dataclasses import dataclass, replace
from typing import Any

from earthengine_filters import Test, plain
from earthengine_graph import Function
from earthengine_grids import EngineError
from earthengine_plain import folded
from earthengine_values import Collection, Element, as_image

# ---------------------------------------------------------------- elements and collections


def _set(element: Element, key: str, value: Any) -> Element:
    return replace(element, properties={**element.properties, key: value})


def _copied(
    to: Element, of: Element, names: list[str] | None, without: list[str] | None
) -> Element:
    if names is None:
        names = [n for n in of.properties if not n.startswith("system:")]
    chosen = [n for n in names if n in of.properties and n not in (without or ())]
    return replace(to, properties={**to.properties, **{n: of.properties[n] for n in chosen}})


def _mapped(collection: Collection, function: Function, drop: bool) -> Collection:
    items = []
    for item in collection.items:
        made = function(item)
        if made is None:
            if not drop:
                raise EngineError("Collection.map: A mapped algorithm must return an element.")
            continue
        if not isinstance(made, Element):
            raise EngineError(
                "Collection.map: A mapped function's return value must be a Feature or an Image."
            )
        index = item.properties.get("system:index")
        if index is not None and "system:index" not in made.properties:
            made = _set(made, "system:index", index)
        items.append(made)
    return replace(collection, items=tuple(items))


def _filtered(collection: Collection, test: Test) -> Collection:
    return replace(collection, items=tuple(i for i in collection.items if test(i, i)))


def _limited(collection: Collection, most: int | None, key: str | None, rising: bool) -> Collection:
    items = list(collection.items)
    if key is not None:
        # elements without the property come last, and equal ones keep their order
        there = [i for i in items if i.properties.get(key) is not None]
        there.sort(key=lambda i: plain(i.properties[key]), reverse=not rising)
        items = there + [i for i in items if i.properties.get(key) is None]
    return replace(collection, items=tuple(items if most is None else items[: int(most)]))


def _merged(one: Collection, two: Collection) -> Collection:
    def numbered(number: int, items: tuple[Element, ...]) -> list[Element]:
        return [_set(i, "system:index", f"{number}_{i.properties['system:index']}") for i in items]

    return replace(one, items=(*numbered(1, one.items), *numbered(2, two.items)))


def _from_images(images: list[Any]) -> Collection:
    items = []
    for number, value in enumerate(images):
        image = as_image(value)
        has_index = "system:index" in image.properties
        items.append(image if has_index else _set(image, "system:index", str(number)))
    return Collection(items=tuple(items))


def _first_of(collection: Collection) -> Element | None:
    return collection.items[0] if collection.items else None


def _told(element: Element, names: list[str] | None) -> dict[str, Any]:
    kept = element.properties if names is None else names
    return {n: element.properties.get(n) for n in kept if names or not n.startswith("system:")}


@dataclass(frozen=True, kw_only=True)
class _SaveFirst:
    key: str
    order: str | None
    rising: bool
    is_outer: bool


def _save_first(key: str, order: Any, rising: bool, measure: Any, is_outer: bool) -> _SaveFirst:
    if measure is not None:
        raise EngineError("Join.saveFirst: this server does not know measureKey.")
    return _SaveFirst(key=key, order=order, rising=rising, is_outer=is_outer)


def _joined(join: _SaveFirst, one: Collection, two: Collection, test: Test) -> Collection:
    second = _limited(two, None, join.order, join.rising).items
    items = []
    for item in one.items:
        found = next((other for other in second if test(item, other)), None)
        if found is not None:
            items.append(_set(item, join.key, found))
        elif join.is_outer:
            items.append(item)
    return replace(one, items=tuple(items))


ELEMENT_FUNCTIONS: dict[str, Function] = {
    "Feature": lambda place, properties, _: Element(place=place, properties=properties or {}),
    "Element.get": lambda element, key: element.properties.get(key),
    "Element.getNumber": lambda element, key: element.properties.get(key),
    "Element.getString": lambda element, key: element.properties.get(key),
    "Element.set": _set,
    "Element.setMulti": lambda element, more: replace(
        element, properties={**element.properties, **more}
    ),
    "Element.copyProperties": _copied,
    "Element.propertyNames": lambda element: list(element.properties),
    "Element.toDictionary": _told,
    "Collection.filter": _filtered,
    "Collection.map": _mapped,
    "Collection.limit": _limited,
    "Collection.merge": _merged,
    "Collection.size": lambda collection: len(collection.items),
    "Collection.first": _first_of,
    "Collection.toList": lambda c, count, offset: list(c.items[int(offset) :][: int(count)]),
    "Collection.iterate": folded(lambda collection: collection.items),
    "ImageCollection.fromImages": _from_images,
    "ImageCollection.merge": _merged,
    "AggregateFeatureCollection.array": lambda c, key: [
        i.properties[key] for i in c.items if i.properties.get(key) is not None
    ],
    "Join.saveFirst": _save_first,
    "Join.apply": _joined,
}
