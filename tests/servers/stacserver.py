"""STAC items in, a STAC API on loopback out: pages by token, the usual questions, faults as wished."""

import copy
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import shapely
from loopback import Answer, Asked, Fault, LoopbackServer
from shapely.geometry import shape

_CORE = "https://api.stacspec.org/v1.0.0"
_CONFORMS = [
    f"{_CORE}/{part}"
    for part in ("core", "collections", "ogcapi-features", "item-search", "item-search#query")
]
_TESTS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b,
    "neq": lambda a, b: a != b,
    "lt": lambda a, b: a is not None and a < b,
    "lte": lambda a, b: a is not None and a <= b,
    "gt": lambda a, b: a is not None and a > b,
    "gte": lambda a, b: a is not None and a >= b,
    "in": lambda a, b: a in b,
}


class StacServer(LoopbackServer):
    """An API over `items`, newest first, `page` of them at once unless a search asks for fewer.

    `methods` are those its search link offers. Items without a geometry are in every area, those
    without a datetime in every time. `searches` are the bodies or queries asked so far.
    """

    def __init__(
        self,
        items: Iterable[Mapping[str, Any]],
        *,
        collections: Iterable[str] = (),
        page: int = 10,
        methods: tuple[str, ...] = ("GET", "POST"),
        faults: Iterable[Fault] = (),
        seed: int = 0,
        port: int = 0,
    ) -> None:
        super().__init__(self._page, faults=faults, seed=seed, port=port)
        self.items = sorted(items, key=_order, reverse=True)
        named = {str(item.get("collection")) for item in self.items}
        self.collections = sorted(named | set(collections))
        self.page = page
        self.methods = methods
        self.searches: list[dict[str, Any]] = []

    def _page(self, asked: Asked) -> Answer:
        parts = asked.path.strip("/").split("/")
        if parts == [""]:
            return Answer.of_json(front(self.url, self.methods))
        if parts == ["search"]:
            return self._search(asked)
        if parts[0] == "collections" and len(parts) == 2 and parts[1] in self.collections:
            return Answer.of_json(self._collection(parts[1]))
        return Answer.of_json({"code": "NotFound", "description": asked.path}, 404)

    def _collection(self, name: str) -> dict[str, Any]:
        return {
            "type": "Collection",
            "id": name,
            "stac_version": "1.0.0",
            "description": name,
            "license": "other",
            "extent": {
                "spatial": {"bbox": [[-180, -90, 180, 90]]},
                "temporal": {"interval": [[None, None]]},
            },
            "links": [{"rel": "self", "href": f"{self.url}/collections/{name}"}],
        }

    def _search(self, asked: Asked) -> Answer:
        if asked.method not in self.methods:
            return Answer(status=405)
        question = json.loads(asked.body) if asked.method == "POST" else _of_query(asked.query)
        self.searches.append(question)
        found = [item for item in self.items if _fits(item, question)]
        start = int(question.get("token", 0))
        stop = start + min(int(question.get("limit", self.page)), self.page)
        page = {
            "type": "FeatureCollection",
            "features": [self._linked(item) for item in found[start:stop]],
            "links": [self._next(asked, question, stop)] if stop < len(found) else [],
        }
        return Answer.of_json(page, kind="application/geo+json")

    def _linked(self, item: Mapping[str, Any]) -> dict[str, Any]:
        place = f"{self.url}/collections/{item.get('collection')}/items/{item.get('id')}"
        return {**item, "links": [{"rel": "self", "href": place}]}

    def _next(self, asked: Asked, question: dict[str, Any], stop: int) -> dict[str, Any]:
        link = {"rel": "next", "method": asked.method, "href": f"{self.url}/search"}
        if asked.method == "POST":
            return link | {"body": question | {"token": str(stop)}}
        return link | {"href": f"{link['href']}?{urlencode(asked.query | {'token': str(stop)})}"}


def front(url: str, methods: Iterable[str] = ("GET", "POST")) -> dict[str, Any]:
    """Return the first page of an API at `url`."""
    search = {"rel": "search", "href": f"{url}/search", "type": "application/geo+json"}
    return {
        "type": "Catalog",
        "id": "loopback",
        "stac_version": "1.0.0",
        "description": "items of a test",
        "conformsTo": _CONFORMS,
        "links": [
            {"rel": "self", "href": f"{url}/"},
            {"rel": "root", "href": f"{url}/"},
            {"rel": "data", "href": f"{url}/collections"},
            *(search | {"method": method} for method in methods),
        ],
    }


def served(
    items: Iterable[Mapping[str, Any]], base: str, *, root: str = ""
) -> list[dict[str, Any]]:
    """Return copies of items whose local hrefs lie under `base`, the address of a `RangeServer`.

    `root` is the path that `base` serves: it is cut off the front of absolute hrefs. Relative ones
    are taken as below `base`.
    """
    copies = [copy.deepcopy(dict(item)) for item in items]
    for item in copies:
        for asset in item["assets"].values():
            href = asset["href"]
            if "://" not in href:
                asset["href"] = f"{base}/{href.removeprefix(root).removeprefix('./').lstrip('/')}"
    return copies


def _order(item: Mapping[str, Any]) -> tuple[str, str]:
    return str(item.get("properties", {}).get("datetime")), str(item.get("id"))


def _of_query(query: Mapping[str, str]) -> dict[str, Any]:
    """Return a GET's query as the body of the same POST."""
    question: dict[str, Any] = dict(query)
    for name in ("collections", "ids"):
        if name in query:
            question[name] = query[name].split(",")
    if "bbox" in query:
        question["bbox"] = [float(number) for number in query["bbox"].split(",")]
    for name in ("intersects", "query"):
        if name in query:
            question[name] = json.loads(query[name])
    return question


def _fits(item: Mapping[str, Any], question: Mapping[str, Any]) -> bool:
    wanted = question.get("collections")
    if wanted and item.get("collection") not in wanted:
        return False
    if question.get("ids") and item.get("id") not in question["ids"]:
        return False
    properties = item.get("properties", {})
    tests = [
        _TESTS[name](properties.get(key), value)
        for key, conditions in (question.get("query") or {}).items()
        for name, value in conditions.items()
    ]
    return all(tests) and _is_then(item, question.get("datetime")) and _is_there(item, question)


def _is_then(item: Mapping[str, Any], interval: str | None) -> bool:
    told = item.get("properties", {}).get("datetime")
    if not interval or not told:
        return True
    first, _, last = interval.partition("/")
    return all(
        [
            first in ("", "..") or _instant(first) <= _instant(told),
            last in ("", "..") or _instant(told) <= _instant(last or first),
        ]
    )


def _is_there(item: Mapping[str, Any], question: Mapping[str, Any]) -> bool:
    if not item.get("geometry"):
        return True
    if question.get("bbox"):
        area = shapely.box(*question["bbox"])
    elif question.get("intersects"):
        area = shape(question["intersects"])
    else:
        return True
    return bool(shapely.intersects(area, shape(item["geometry"])))


def _instant(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)
