"""A question in, the Sentinel-2 images that Earth Engine has for it out, as a `SceneList`."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from shapely.geometry import MultiPolygon, Polygon

from cube.earthengine.composite import Mask
from cube.errors import InputError
from cube.periods import Period
from cube.stac.footprint import geojson, meets, unwrapped
from cube.stac.identity import Identity, Label, identity_of
from cube.stac.overpass import without_duplicates
from cube.stac.scene import DroppedScene, Scene, SceneList
from cube.stac.search import SceneQuery

if TYPE_CHECKING:
    from cube.earthengine.session import Session

HARMONIZED = "COPERNICUS/S2_SR_HARMONIZED"
"""Earth Engine's Sentinel-2 L2A collection whose reflectance has no offset."""

OFFSET_REASON = "Earth Engine's harmonised collection has the offset removed"

MOST_LISTED = 2_000
"""Images asked for at once. Earth Engine gives up a list of more than 5,000."""

_NAMES = (
    "system:index",
    "system:time_start",
    "system:footprint",
    "DATATAKE_IDENTIFIER",
    "MGRS_TILE",
    "PROCESSING_BASELINE",
    "GENERATION_TIME",
    "CLOUDY_PIXEL_PERCENTAGE",
    "PRODUCT_ID",
)
"""Properties of https://developers.google.com/earth-engine/datasets/catalog/COPERNICUS_S2_SR_HARMONIZED
in the order in which they are asked for."""

_INDEX = re.compile(r"\w{1,100}", re.ASCII)
_PATTERNS = {
    "DATATAKE_IDENTIFIER": re.compile(r"GS2[A-D]_\d{8}T\d{6}_\d{6}_N\d{2}\.\d{2}"),
    "MGRS_TILE": re.compile(r"(0?[1-9]|[1-5]\d|60)[C-HJ-NP-X][A-HJ-NP-Z]{2}"),
    "PROCESSING_BASELINE": re.compile(r"\d{2}\.\d{2}"),
}

_LATEST = timedelta(days=1)
"""How long after its datatake began a granule can be sensed; less than an hour in truth."""

_SHORTEST = timedelta(minutes=1)
"""Time span that is not halved again where an area has too many images."""

_FIRST_YEAR, _LAST_YEAR = 2015, 2100
_CLOUDY = 20.0
"""Per cent of cloud at which a QA60 that is not empty has bits set."""

_CLOUDIEST = 5
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
        if not self.collection.endswith("_HARMONIZED"):
            raise InputError(
                f"collection {self.collection!r} may have the radiometric offset of 1000 left in "
                f"it; take {HARMONIZED!r}, which has it removed"
            )
        _ = self._as_scenes

    @property
    def area(self) -> Polygon | MultiPolygon:
        """The area in continuous lon/lat."""
        return self._as_scenes.area

    def wants(self, scene: Scene) -> bool:
        """Say whether the pass of `scene` began in one of the periods."""
        return self._as_scenes.wants(scene)

    def why_not(self, scene: Scene) -> str | None:
        """Return why an image that was asked for is not to be used, None for one that is."""
        if scene.id in self.leave_out:
            return "left out by the recipe"
        if scene.cloud_cover is not None and scene.cloud_cover > self.max_cloud_cover:
            return f"cloud cover {scene.cloud_cover:g} % is above {self.max_cloud_cover:g} %"
        return None

    @property
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
        for row in _rows(session, query, query.collection, _NAMES, start, end):
            scene = _scene(row, query.collection)
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
    """Return the months whose QA60 shows no cloud in `area` although images report it, ascending.

    Of each month the cloudiest images that report 20 % and more are looked at, coarsely, in one
    request. Months are as `2022-03`; `area` is GeoJSON in lon/lat. QA60 was empty from 2022 to 2024
    (issue fmemuir/COASTGUARD#13), so that a mask made of it leaves every cloud in.
    """
    from cube.earthengine.listing import greatest_qa60

    months: dict[str, list[Scene]] = {}
    for scene in scenes:
        if scene.cloud_cover is not None and scene.cloud_cover >= _CLOUDY:
            months.setdefault(f"{scene.overpass_start:%Y-%m}", []).append(scene)
    empty = []
    for month, cloudy in sorted(months.items()):
        cloudiest = sorted(cloudy, key=lambda scene: (-(scene.cloud_cover or 0.0), scene.id))
        names = [f"{scene.collection}/{scene.id}" for scene in cloudiest[:_CLOUDIEST]]
        if session.value(greatest_qa60(names, area)) == 0:
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


def _scene(row: list[Any], collection: str) -> Scene:
    told = dict(zip(_NAMES, row, strict=True))
    name = told["system:index"]
    if not isinstance(name, str) or not _INDEX.fullmatch(name):
        raise InputError(f"{collection!r} has an image whose system:index is {str(name)[:80]!r}")
    identity = _identity(name, told)
    scene = Scene(
        id=name,
        collection=collection,
        time=_time(name, "system:time_start", told["system:time_start"]),
        overpass=identity.overpass,
        tile=identity.tile,
        baseline=identity.baseline,
        version=identity.version,
        epsg=_utm_zone(identity.tile),
        footprint=_footprint(name, told["system:footprint"]),
        cloud_cover=_percentage(name, told["CLOUDY_PIXEL_PERCENTAGE"]),
        assets={},
        offset=0,
        offset_reason=OFFSET_REASON,
        is_locked=True,
    )
    try:
        _ = scene.overpass_start
    except ValueError:
        raise InputError(
            f"image {name!r} has DATATAKE_IDENTIFIER {told['DATATAKE_IDENTIFIER']!r}, whose time "
            "does not exist"
        ) from None
    return scene


def _identity(name: str, told: Mapping[str, Any]) -> Identity:
    """Return what the granule is, by the rules for every provider."""
    for key, pattern in _PATTERNS.items():
        if not isinstance(told[key], str) or not pattern.fullmatch(told[key]):
            raise InputError(
                f"image {name!r} has {key} {str(told[key])[:80]!r}; expected {pattern.pattern}"
            )
    made = _time(name, "GENERATION_TIME", told["GENERATION_TIME"])
    properties = {
        "platform": "sentinel-2",
        "s2:datatake_id": told["DATATAKE_IDENTIFIER"],
        "s2:mgrs_tile": told["MGRS_TILE"],
        "s2:processing_baseline": told["PROCESSING_BASELINE"],
        "s2:generation_time": made.isoformat(),
        "s2:product_uri": str(told["PRODUCT_ID"] or ""),
    }
    return identity_of(Label(id=name, properties=properties), longitude=0.0)


def _utm_zone(tile: str) -> int:
    """Return the EPSG code of a tile's zone; bands from N on are north of the equator."""
    return (32600 if tile[2] >= "N" else 32700) + int(tile[:2])


def _time(name: str, key: str, value: Any) -> datetime:
    if _is_number(value):
        time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=float(value))
        if _FIRST_YEAR <= time.year < _LAST_YEAR:
            return time
    raise InputError(f"image {name!r} has {key} {str(value)[:80]!r}, no time in milliseconds")


def _percentage(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if _is_number(value) and 0 <= value <= 100:
        return float(value)
    raise InputError(
        f"image {name!r} has CLOUDY_PIXEL_PERCENTAGE {str(value)[:80]!r}; expected 0..100"
    )


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and abs(value) < 1e14


def _footprint(name: str, value: Any) -> dict[str, Any]:
    """Return the footprint as a polygon: Earth Engine keeps Sentinel-2's as a ring."""
    try:
        if not isinstance(value, Mapping):
            raise ValueError(f"{str(value)[:80]!r}")
        if value.get("type") == "LinearRing":
            value = {"type": "Polygon", "coordinates": [value.get("coordinates")]}
        return geojson(unwrapped(value))
    except ValueError as error:
        raise InputError(f"image {name!r} has a system:footprint that is none: {error}") from error


def _why_none(query: ImageQuery, dropped: list[DroppedScene]) -> str:
    text = (
        f"Earth Engine has no usable image of {query.collection!r} in the area from "
        f"{query.periods[0]} to {query.periods[-1]}"
    )
    if dropped:
        return f"{text}; {len(dropped)} dropped, e.g. {dropped[0].reason}"
    return f"{text}; ask for another area or other months"
