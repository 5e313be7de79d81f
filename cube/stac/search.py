"""A catalogue and a question in, `SceneList` out: a STAC API, or a static catalogue anywhere."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pystac
import pystac_client
from pystac.link import Link
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from shapely.geometry import MultiPolygon, Polygon

from cube.errors import InputError, WorkFailedError
from cube.months import Month
from cube.stac.footprint import bbox_outline, meets, unwrapped
from cube.stac.href import is_remote, resolved_href, without_query
from cube.stac.item import scene_from_item
from cube.stac.overpass import without_duplicates
from cube.stac.scene import DroppedScene, Scene, SceneList

_TIMEOUT = 60
"""Seconds a catalogue may take for one answer."""

_RETRIES = 5
"""Times a refused or broken request is repeated, with growing pauses."""

_PAGE = 250
"""Items per page of an API; it may give fewer."""

_PASS = timedelta(hours=1)
"""Longer than any datatake: a scene sensed this long after a month may belong to a pass begun in it."""


@dataclass(frozen=True, kw_only=True)
class SceneQuery:
    """Which scenes of which catalogue a cube is made of."""

    catalogue: str
    """Root of a STAC API, or a static catalogue: address or path of its `catalog.json`."""
    collection: str
    """Id of the collection, e.g. `sentinel-2-l2a`."""
    months: tuple[Month, ...]
    """The cube's months; they may have gaps."""
    bbox: tuple[float, float, float, float] | None = None
    """Area as (west, south, east, north) in degrees; west > east crosses the antimeridian."""
    geometry: Mapping[str, Any] | None = None
    """Area as a GeoJSON Polygon or MultiPolygon in lon/lat. Exactly one of the two areas."""
    max_cloud_cover: float = 100.0
    """Per cent of the scene, by the provider; a scene that states none is kept."""
    query: Mapping[str, Any] | None = None
    """More conditions for the API, in its query extension; a static catalogue knows none."""

    def __post_init__(self) -> None:
        if (self.bbox is None) == (self.geometry is None):
            raise InputError("give the area either as bbox or as geometry")
        if not self.months:
            raise InputError("no month is asked for, so no scene can be found")
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


def find_scenes(query: SceneQuery) -> SceneList:
    """Return the scenes a catalogue has for `query`, and those it has but that are not used.

    An item that cannot be made a scene is dropped with its reason, and so are scenes with too much
    cloud and duplicates of newer products. Scenes elsewhere and of other months are not listed.
    Raises `InputError` if the catalogue cannot be read, has no such collection, or holds no usable
    scene; `WorkFailedError` if it does not answer.
    """
    area, months = query.area, set(query.months)
    found: dict[str, Scene] = {}
    dropped: list[DroppedScene] = []
    for item, base in _items(query):
        try:
            scene = scene_from_item(item, base=base)
        except InputError as error:
            dropped.append(DroppedScene(id=str(item.get("id")), reason=str(error)))
            continue
        if scene.month not in months or not meets(unwrapped(scene.footprint), area):
            continue
        if scene.cloud_cover is not None and scene.cloud_cover > query.max_cloud_cover:
            reason = f"cloud cover {scene.cloud_cover:g} % is above {query.max_cloud_cover:g} %"
            dropped.append(DroppedScene(id=scene.id, reason=reason))
            continue
        found[scene.id] = scene
    if not found:
        why = f"; {len(dropped)} dropped, e.g. {dropped[0].reason}" if dropped else ""
        raise InputError(
            f"{without_query(query.catalogue)} has no usable scene of {query.collection!r} in the "
            f"area from {min(months)} to {max(months)}{why}"
        )
    kept = without_duplicates(found.values())
    return SceneList(scenes=kept.scenes, dropped=(*dropped, *kept.dropped))


class _CatalogueIO(StacApiIO):
    """Reads a catalogue; one from the network may not lead to files of this machine."""

    def __init__(self, root: str) -> None:
        super().__init__(timeout=_TIMEOUT, max_retries=_RETRIES)
        self._root = root

    def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
        href = source.absolute_href if isinstance(source, Link) else str(source)
        if is_remote(self._root) and not is_remote(href):
            raise InputError(f"the catalogue leads to {href!r}, which is not of the network")
        return str(super().read_text(source, *args, **kwargs))


def _items(query: SceneQuery) -> Iterator[tuple[Mapping[str, Any], str | None]]:
    """Yield (item, address it was read from), as plain dicts that no library has rewritten."""
    root = query.catalogue if is_remote(query.catalogue) else str(Path(query.catalogue).resolve())
    reader = _CatalogueIO(root)
    try:
        front = reader.read_json(root)
        if _is_api(front):
            yield from _api_items(query, root, reader)
        else:
            yield from _static_items(query.collection, root, front, reader)
    except FileNotFoundError as error:
        raise InputError(f"catalogue {without_query(root)}: no file {error.filename!r}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"catalogue {without_query(root)} answers something that is no JSON"
        ) from error
    except (pystac.errors.STACError, KeyError, TypeError) as error:
        raise InputError(f"catalogue {without_query(root)} is no STAC: {error!r}") from error
    except (APIError, OSError) as error:
        raise WorkFailedError(
            f"catalogue {without_query(root)} does not answer: {str(error)[:300]}"
        ) from error


def _is_api(front: Mapping[str, Any]) -> bool:
    return any(link.get("rel") == "search" for link in front.get("links", []))


def _api_items(
    query: SceneQuery, root: str, reader: _CatalogueIO
) -> Iterator[tuple[Mapping[str, Any], str | None]]:
    client = pystac_client.Client.open(root, stac_io=reader)
    first, last = min(query.months), max(query.months)
    search = client.search(
        collections=[query.collection],
        bbox=query.bbox,
        intersects=None if query.geometry is None else dict(query.geometry),
        datetime=f"{first}-01T00:00:00Z/{_stamp(last)}",
        query=None if query.query is None else dict(query.query),
        limit=_PAGE,
    )
    for item in search.items_as_dicts():
        own = next((ln["href"] for ln in item.get("links", []) if ln.get("rel") == "self"), root)
        yield item, own if is_remote(own) else root


def _stamp(last: Month) -> str:
    end = datetime.fromisoformat(f"{last.next()}-01").replace(tzinfo=UTC) + _PASS
    return end.isoformat().replace("+00:00", "Z")


def _static_items(
    collection: str, address: str, node: Mapping[str, Any], reader: _CatalogueIO
) -> Iterator[tuple[Mapping[str, Any], str | None]]:
    """Walk a static catalogue depth first; other collections are not entered."""
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
