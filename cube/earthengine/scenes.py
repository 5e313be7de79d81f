"""A question in, the Sentinel-2 images that Earth Engine has for it out, as a `SceneList`."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from shapely.geometry import MultiPolygon, Polygon

from cube.earthengine.composite import Mask
from cube.earthengine.properties import NAMES, scene_of
from cube.errors import InputError
from cube.periods import Period
from cube.stac.footprint import meets, unwrapped
from cube.stac.overpass import without_duplicates
from cube.stac.scene import DroppedScene, Scene, SceneList
from cube.stac.search import SceneQuery

if TYPE_CHECKING:
    from cube.earthengine.session import Session

HARMONIZED = "COPERNICUS/S2_SR_HARMONIZED"
"""Earth Engine's Sentinel-2 L2A collection whose reflectance has no offset."""

MOST_LISTED = 2_000
"""Images asked for at once. Earth Engine gives up a list of more than 5,000."""

_LATEST = timedelta(days=1)
"""How long after its datatake began a granule can be sensed; less than an hour in truth."""

_SHORTEST = timedelta(minutes=1)
"""Time span that is not halved again where an area has too many images."""

_CLOUDY = 20.0
"""Per cent of cloud at which a QA60 that is not empty has bits set."""

_CLOUDIEST = 10
"""Images of a month whose QA60 is looked at."""


@dataclass(frozen=True, kw_only=True)
class ImageQuery:
    """Which images a cube is made of.

    Raises `InputError` for a collection whose reflectance has an offset left in it, an area that is
    none, no period, and a cloud cover that is no percentage.
    """

    collection: str = HARMONIZED
    """Id of the collection."""
    periods: tuple[Period, ...]
    """Months or other periods in which passes began, ascending; they may have gaps."""
    geometry: Mapping[str, Any]
    """Area as a GeoJSON Polygon or MultiPolygon in lon/lat."""
    max_cloud_cover: float = 100.0
    """Per cent of the image (CLOUDY_PIXEL_PERCENTAGE); one that states none is kept."""
    leave_out: tuple[str, ...] = ()
    """Ids (`system:index`) of images that are not to be used."""
    mask: Mask = "cloud-score-plus"
    """What will tell clear ground: with Cloud Score+, images without a score are dropped."""

    def __post_init__(self) -> None:
        if not self.collection.endswith("_SR_HARMONIZED"):
            raise InputError(
                f"collection {self.collection!r} is not of surface reflectance, or may have the "
                f"radiometric offset of 1000 left in it; take {HARMONIZED!r}"
            )
        _ = self._as_scenes

    @cached_property
    def area(self) -> Polygon | MultiPolygon:
        """The area in continuous lon/lat."""
        return self._as_scenes.area

    def wants(self, scene: Scene) -> bool:
        """Say whether the pass of `scene` began in one of the periods."""
        return self._as_scenes.wants(scene)

    def why_not(self, scene: Scene) -> str | None:
        """Return why an image is too cloudy to be used, None for one that is not."""
        if scene.cloud_cover is not None and scene.cloud_cover > self.max_cloud_cover:
            return f"cloud cover {scene.cloud_cover:g} % is above {self.max_cloud_cover:g} %"
        return None

    @cached_property
    def _as_scenes(self) -> SceneQuery:
        """The same question as catalogues are asked, which has the same rules."""
        return SceneQuery(
            catalogue="earthengine",
            collection=self.collection,
            periods=self.periods,
            geometry=self.geometry,
            max_cloud_cover=self.max_cloud_cover,
            leave_out=self.leave_out,
        )


def find_images(session: "Session", query: ImageQuery) -> SceneList:
    """Return the images Earth Engine has for `query`, and those it has but that are not used.

    Dropped with their reason are images with too much cloud, those left out, older ones of the same
    granule, and with Cloud Score+ those without a score. Images elsewhere and of other periods are
    not listed. Asked month by month, in shorter spans where there are many.

    Raises `InputError` naming the image for one whose properties are missing or make no sense, for
    a `leave_out` that names no image, and if no image is left; what the session raises else.
    """
    found: dict[str, Scene] = {}
    dropped: dict[str, DroppedScene] = {}
    for start, end in _spans(query.periods):
        for row in _rows(session, query, query.collection, NAMES, start, end):
            if row[0] in query.leave_out:  # whatever else is told of it
                dropped[row[0]] = DroppedScene(id=row[0], reason="left out by the recipe")
                continue
            scene = scene_of(row, query.collection)
            if not query.wants(scene) or not meets(unwrapped(scene.footprint), query.area):
                continue
            if (why := query.why_not(scene)) is not None:
                dropped[scene.id] = DroppedScene(id=scene.id, reason=why)
            else:
                found[scene.id] = scene
    if strangers := set(query.leave_out) - {*found, *dropped}:
        raise InputError(
            f"leave_out names {sorted(strangers)}, and no such image was found; take ids as "
            "`canopycube plan` shows them"
        )
    if query.mask == "cloud-score-plus" and found:
        for scene in _without_score(session, query, found.values()):
            del found[scene.id]
            dropped[scene.id] = DroppedScene(id=scene.id, reason="has no Cloud Score+")
    if not found:
        raise InputError(_why_none(query, list(dropped.values())))
    kept = without_duplicates(found.values())
    return SceneList(scenes=kept.scenes, dropped=(*dropped.values(), *kept.dropped))


def empty_qa60(
    session: "Session", scenes: Iterable[Scene], area: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return the months in which an image has no bit of QA60 set though its SCL sees cloud.

    Looked at, coarsely and one request a month, are the ten cloudiest images that report 20 % and
    more; one counts if a fifth of what it sees in `area` (GeoJSON, lon/lat) is cloud. Months are as
    `2022-03`, ascending. QA60 was masked or 0 from January 2022 to February 2024 (issue
    fmemuir/COASTGUARD#13), so that a mask made of it leaves every cloud in.
    """
    from cube.earthengine.listing import cloud_told

    months: dict[str, list[Scene]] = {}
    for scene in scenes:
        if scene.cloud_cover is not None and scene.cloud_cover >= _CLOUDY:
            months.setdefault(f"{scene.overpass_start:%Y-%m}", []).append(scene)
    empty = []
    for month, cloudy in sorted(months.items()):
        cloudiest = sorted(cloudy, key=lambda scene: (-(scene.cloud_cover or 0.0), scene.id))
        names = [f"{scene.collection}/{scene.id}" for scene in cloudiest[:_CLOUDIEST]]
        told = session.value(cloud_told(names, area))
        if any(not greatest and (share or 0.0) * 100 >= _CLOUDY for greatest, share in told):
            empty.append(month)
    return tuple(empty)


def _without_score(session: "Session", query: ImageQuery, scenes: Iterable[Scene]) -> list[Scene]:
    from cube.earthengine.expression import CLOUD_SCORES

    scored = {
        row[0]
        for start, end in _spans(query.periods)
        for row in _rows(session, query, CLOUD_SCORES, ("system:index",), start, end)
    }
    return [scene for scene in scenes if scene.id not in scored]


def _spans(periods: tuple[Period, ...]) -> Iterator[tuple[datetime, datetime]]:
    """Yield (start, end) of each calendar month in which images of the periods can be sensed."""
    months: set[np.datetime64] = set()
    for period in periods:
        last = period.end + np.timedelta64(_LATEST) - np.timedelta64(1, "ns")
        months.update(np.arange(period.start.astype("M8[M]"), last.astype("M8[M]") + 1))
    first = _moment(periods[0].start)
    final = _moment(periods[-1].end) + _LATEST
    for month in sorted(months):
        start, end = _moment(month), _moment(month + np.timedelta64(1, "M"))
        yield max(start, first), min(end, final)


def _moment(time: np.datetime64) -> datetime:
    moment: datetime = time.astype("M8[us]").item()
    return moment.replace(tzinfo=UTC)


def _rows(
    session: "Session",
    query: ImageQuery,
    collection: str,
    names: tuple[str, ...],
    start: datetime,
    end: datetime,
) -> Iterator[list[Any]]:
    """Yield the properties `names` of each image; a span with too many is halved."""
    from cube.earthengine.listing import listed

    answer = session.value(
        listed(
            collection,
            query.geometry,
            start=start,
            end=end,
            names=names,
            most=MOST_LISTED,
        )
    )
    if not isinstance(answer, list) or not all(
        isinstance(row, list) and len(row) == len(names) for row in answer
    ):
        raise InputError(f"Earth Engine lists {collection!r} as {str(answer)[:80]!r}, no images")
    if len(answer) < MOST_LISTED:
        yield from answer
        return
    if end - start <= _SHORTEST:
        raise InputError(
            f"Earth Engine has {MOST_LISTED} images of {collection!r} and more from {start} to "
            f"{end} in the area; take a smaller one"
        )
    middle = start + (end - start) / 2
    yield from _rows(session, query, collection, names, start, middle)
    yield from _rows(session, query, collection, names, middle, end)


def _why_none(query: ImageQuery, dropped: list[DroppedScene]) -> str:
    text = (
        f"Earth Engine has no usable image of {query.collection!r} in the area from "
        f"{query.periods[0]} to {query.periods[-1]}"
    )
    if dropped:
        return f"{text}; {len(dropped)} dropped, e.g. {dropped[0].reason}"
    return f"{text}; ask for another area or other months"
