"""A catalogue and a question in, `SceneList` out: a STAC API, or a static catalogue anywhere."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import numpy as np
import pystac
import pystac_client
from pystac_client.exceptions import APIError
from shapely.geometry import MultiPolygon, Polygon

from cube.errors import InputError, WorkFailedError
from cube.periods import Period
from cube.stac.cache import FoundItem, SearchCache, clean_item
from cube.stac.catalogueio import CatalogueIO, NotJsonError, SearchPatience
from cube.stac.footprint import bbox_outline, meets, unwrapped
from cube.stac.href import is_remote, resolved_href, without_query
from cube.stac.item import scene_from_item
from cube.stac.overpass import without_duplicates
from cube.stac.providers import provider_of
from cube.stac.scene import SCL, DroppedScene, Scene, SceneList

_LONGEST_REASON = 300
"""Letters kept of why a scene was dropped: an item may hold a property of any length."""

_LARGEST_SCENE = 1_000_000
"""Letters of a scene as JSON; one with a thousand points and all bands has some 50,000."""

_NOMINAL = np.timedelta64(1, "D")
"""How far `Scene.overpass_start` may lie from when a scene was sensed: the noon that names a pass of
HLS, or the crossing of the equator that names one of Landsat, may be in the period's first or last
day when the scene is not. A datatake of Sentinel-2 takes less than an hour."""


@dataclass(frozen=True, kw_only=True)
class SceneQuery:
    """Which scenes of which catalogue a cube is made of."""

    catalogue: str
    """Root of a STAC API, or a static catalogue: address or path of its `catalog.json`."""
    collection: str
    """Id of the collection, e.g. `sentinel-2-l2a`."""
    periods: tuple[Period, ...]
    """Months or other periods in which passes began, ascending; they may have gaps."""
    bbox: tuple[float, float, float, float] | None = None
    """Area as (west, south, east, north) in degrees; west > east crosses the antimeridian."""
    geometry: Mapping[str, Any] | None = None
    """Area as a GeoJSON Polygon or MultiPolygon in lon/lat. Exactly one of the two areas."""
    max_cloud_cover: float = 100.0
    """Per cent of the scene, by the provider; a scene that states none is kept."""
    leave_out: tuple[str, ...] = ()
    """Ids of scenes that are not to be used."""
    bands: tuple[str, ...] = ()
    """Bands that a scene must have to be used, besides its mask."""
    query: Mapping[str, Any] | None = None
    """More conditions for the API, in its query extension; a static catalogue knows none."""

    def __post_init__(self) -> None:
        if (self.bbox is None) == (self.geometry is None):
            raise InputError("give the area either as bbox or as geometry")
        if not self.periods:
            raise InputError("no period is asked for, so no scene can be found")
        if not 0 <= self.max_cloud_cover <= 100:
            raise InputError(
                f"max_cloud_cover is {self.max_cloud_cover!r}; expected 0..100 per cent"
            )
        _ = self.area

    @property
    def area(self) -> Polygon | MultiPolygon:
        """The area in continuous lon/lat."""
        if self.bbox is not None:
            return bbox_outline(self.bbox)
        assert self.geometry is not None
        try:
            return unwrapped(self.geometry)
        except ValueError as error:
            raise InputError(f"the area: {error}") from error

    def wants(self, scene: Scene) -> bool:
        """Say whether the pass of `scene` began in one of the periods."""
        return any(period.holds(scene.overpass_start) for period in self.periods)

    def why_not(self, scene: Scene) -> str | None:
        """Return why a scene that was asked for is not to be used, None for one that is."""
        if scene.id in self.leave_out:
            return "left out by the recipe"
        if scene.cloud_cover is not None and scene.cloud_cover > self.max_cloud_cover:
            return f"cloud cover {scene.cloud_cover:g} % is above {self.max_cloud_cover:g} %"
        missing = [name for name in (*self.bands, SCL) if name not in scene.assets]
        return f"has no asset for {', '.join(missing)}" if missing else None


def find_scenes(
    query: SceneQuery, *, cache: SearchCache | None = None, patience: SearchPatience | None = None
) -> SceneList:
    """Return the scenes a catalogue has for `query`, and those it has but that are not used.

    An item that cannot be made a scene is dropped with its reason, and so are scenes with too much
    cloud, without one of the bands, and duplicates of newer products that stay. Scenes elsewhere and of other periods are not listed.

    An API is asked at the pace of its `Provider`, and again as `patience` (None: its defaults)
    allows, page by page. With a `cache`, a question that was answered within a day is not asked
    again; static catalogues are always read, and an answer without a usable scene is not kept.

    Raises `InputError` if the catalogue cannot be read, has no such collection, or holds no usable
    scene; `WorkFailedError` if it does not answer, asks to wait too long, or pages for ever.
    """
    patience = patience or SearchPatience()
    area = query.area
    found: dict[str, Scene] = {}
    dropped: list[DroppedScene] = []
    seen: set[str] = set()
    for item, base in _items(query, cache, patience):
        seen.add(_shown(item))
        try:
            scene = _scene(item, base, query.collection)
        except InputError as error:
            reason = _unicode(str(error))
            if len(reason) > _LONGEST_REASON:
                reason = f"{reason[:_LONGEST_REASON]}…"
            dropped.append(DroppedScene(id=_shown(item), reason=reason))
            continue
        if not query.wants(scene) or not meets(unwrapped(scene.footprint), area):
            continue
        if (why := query.why_not(scene)) is not None:
            dropped.append(DroppedScene(id=scene.id, reason=why))
            continue
        same = found.get(scene.id, scene)
        if same.to_json() != scene.to_json():  # a page that came twice is no second item
            dropped.append(DroppedScene(id=scene.id, reason="another item has this id too"))
            scene = max(same, scene, key=_order_of_one_id)  # whichever came first
        found[scene.id] = scene
    if strangers := set(query.leave_out) - seen:
        raise InputError(
            f"leave_out names {sorted(strangers)}, and no such scene was found; take ids as `canopycube plan` shows them"
        )
    if not found:
        if cache is not None:
            forget_answer(query, cache)
        raise InputError(
            f"{without_query(query.catalogue)} has no usable scene of {query.collection!r} in the "
            f"area from {query.periods[0]} to {query.periods[-1]}{_why_none(query, dropped)}"
        )
    kept = without_duplicates(found.values())
    return SceneList(scenes=kept.scenes, dropped=(*dropped, *kept.dropped))


def forget_answer(query: SceneQuery, cache: SearchCache) -> None:
    """Take the answer to `query` out of the cache, so that a mended catalogue is asked anew."""
    cache.forget(_question(query))


def _order_of_one_id(scene: Scene) -> tuple[str, str]:
    return scene.updated, json.dumps(scene.to_json(), sort_keys=True)


def _scene(item: Any, base: str | None, collection: str) -> Scene:
    if not isinstance(item, Mapping):
        raise InputError(f"an item is {type(item).__name__}, no object")
    told = item.get("collection")
    if told not in (None, collection):  # an API that ignores what it is asked
        raise InputError(f"item is of collection {told!r:.80}, not {collection!r}")
    scene = scene_from_item(item, base=base)
    try:
        text = json.dumps(scene.to_json(), ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which no file can hold
        raise InputError(f"item {scene.id!r} holds text that is no Unicode") from None
    except ValueError:
        raise InputError(f"item {scene.id!r} holds a number that is none") from None
    if len(text) > _LARGEST_SCENE:
        raise InputError(
            f"item {scene.id!r:.80} is {len(text)} letters of what a scene needs; no scene has "
            f"more than {_LARGEST_SCENE}"
        )
    return scene


def _shown(item: Any) -> str:
    return _unicode(str(item.get("id") if isinstance(item, Mapping) else item))[:200]


def _unicode(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _why_none(query: SceneQuery, dropped: list[DroppedScene]) -> str:
    if dropped:
        return f"; {len(dropped)} dropped, e.g. {dropped[0].reason}"
    if query.periods[-1].start > np.datetime64("now"):
        return f"; {query.periods[-1]} is still to come"
    edges = np.array([part.bounds for part in getattr(query.area, "geoms", [query.area])])
    if np.ptp(edges[:, ::2]) > 180:  # on both sides of the antimeridian
        edges[edges[:, 0] < 0] += (360, 0, 360, 0)
    west, south = edges[:, :2].min(axis=0)
    east, north = edges[:, 2:].max(axis=0)
    return (
        f"; look whether it has any at lon {west:.2f}..{east:.2f}, lat {south:.2f}..{north:.2f} "
        "then, or ask for another area or other months"
    )


def _items(
    query: SceneQuery, cache: SearchCache | None, patience: SearchPatience
) -> Iterator[tuple[Any, str | None]]:
    """Yield (item, address it was read from), as plain dicts that no library has rewritten."""
    root = query.catalogue if is_remote(query.catalogue) else str(Path(query.catalogue).resolve())
    pace = provider_of(root).requests_per_second
    reader = CatalogueIO(root, requests_per_second=pace, patience=patience)
    question = _question(query)
    kept = cache.find(question) if cache is not None and is_remote(root) else None
    if kept is not None:
        yield from kept
        return
    try:
        front = reader.read_json(root)
        if not _is_api(front):
            yield from _static_items(query.collection, root, front, reader)
            return
        answered = list(_api_items(query, root, _search_method(front), reader))
        if not answered:
            _refuse_unknown_collection(query.collection, root, reader)
    except FileNotFoundError as error:
        raise InputError(f"catalogue {without_query(root)}: no file {error.filename!r}") from error
    except IsADirectoryError as error:
        raise InputError(
            f"catalogue {without_query(root)} is a folder; name the catalog.json in it"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, NotJsonError) as error:
        raise InputError(
            f"catalogue {without_query(root)} answers something that is no JSON"
        ) from error
    except (pystac.errors.STACError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"catalogue {without_query(root)} is no STAC: {error!r}") from error
    except (APIError, OSError) as error:
        raise WorkFailedError(
            f"catalogue {without_query(root)} does not answer: {str(error)[:300]}"
        ) from error
    if cache is not None:
        cache.keep(question, answered)
    yield from answered


def _question(query: SceneQuery) -> dict[str, Any]:
    """Return all that an API is asked, as plain JSON: what decides its answer."""
    start, end = query.periods[0].start, query.periods[-1].end
    return {
        "catalogue": query.catalogue,
        "collections": [query.collection],
        "bbox": None if query.bbox is None else list(query.bbox),
        "intersects": None if query.geometry is None else dict(query.geometry),
        "datetime": f"{_stamp(start - _NOMINAL)}/{_stamp(end + _NOMINAL)}",
        "query": None if query.query is None else dict(query.query),
    }


def _is_api(front: Mapping[str, Any]) -> bool:
    return any(link.get("rel") == "search" for link in front.get("links", []))


def _search_method(front: Mapping[str, Any]) -> str:
    """Return POST if the API offers it: an area may be too long for an address."""
    offers = [link.get("method") for link in front["links"] if link.get("rel") == "search"]
    return "POST" if "POST" in offers else "GET"


def _api_items(
    query: SceneQuery, root: str, method: str, reader: CatalogueIO
) -> Iterator[FoundItem]:
    """Yield (item, its address), cleaned so that they are the same from a cache."""
    client = pystac_client.Client.open(root, stac_io=reader)
    asked = {name: value for name, value in _question(query).items() if name != "catalogue"}
    search = client.search(**asked, limit=provider_of(root).page, method=method)
    for item in search.items_as_dicts():
        links = item.get("links")
        own = next(
            (
                link["href"]
                for link in (links if isinstance(links, list) else [])
                if isinstance(link, dict) and link.get("rel") == "self" and "href" in link
            ),
            root,
        )
        yield clean_item(item, own if isinstance(own, str) and is_remote(own) else root)


def _refuse_unknown_collection(collection: str, root: str, reader: CatalogueIO) -> None:
    """Tell a collection without items from one that is not there."""
    address = urlsplit(root)
    path = f"{address.path.rstrip('/')}/collections/{quote(collection, safe='')}"
    try:
        reader.read_json(urlunsplit(address._replace(path=path)))
    except APIError as error:
        if getattr(error, "status_code", None) != 404:
            raise
        raise InputError(
            f"catalogue {without_query(root)} has no collection {collection!r}"
        ) from error


def _stamp(time: np.datetime64) -> str:
    return f"{time.astype('M8[s]')}Z"


def _static_items(
    collection: str, address: str, node: Mapping[str, Any], reader: CatalogueIO
) -> Iterator[tuple[Mapping[str, Any], str | None]]:
    """Walk a static catalogue depth first; other collections are not entered."""
    if node["type"] not in ("Catalog", "Collection"):
        raise InputError(
            f"catalogue {without_query(address)} is a {str(node['type'])[:40]!r}; expected the "
            "catalog.json of a static catalogue, or the address of an API"
        )
    seen, others = {address}, set()
    waiting = [(address, node, False)]
    has_collection = False
    while waiting:
        address, node, is_inside = waiting.pop()
        if node["type"] == "Collection":
            is_inside = node["id"] == collection
            if not is_inside:
                others.add(str(node["id"]))
        has_collection |= is_inside
        for link in node.get("links", []):
            if link.get("rel") not in ("child", "item"):
                continue
            owner = f"catalogue {without_query(address)}"
            target = resolved_href(str(link["href"]), base=address, owner=owner)
            if target in seen:
                continue
            seen.add(target)
            if link["rel"] == "child":
                waiting.append((target, reader.read_json(target), is_inside))
            elif is_inside or node["type"] == "Catalog":
                item = reader.read_json(target)
                if item.get("collection", collection) == collection:
                    has_collection = True
                    yield item, target
                else:
                    others.add(str(item.get("collection")))
    if not has_collection:
        names = ", ".join(sorted(others)) or "none"
        raise InputError(f"the catalogue has no collection {collection!r}; it has: {names}")
