"""A spec in, the year's scenes out: which days, sensors, grids, baselines, flags and lies.

The year is made to hold every trap of a real archive: January has no scene, July only overcast
ones, August little clear ground; one granule comes twice, one in two halves, three come again on
the grid of the neighbouring UTM zone; old baselines stand beside new ones in no order.
"""

import datetime
from dataclasses import dataclass, replace
from typing import Literal

from cube.errors import InputError
from cube.forest.sensor import Platform
from cube.forest.spec import NATIVE_EPSG, NEIGHBOUR_EPSG, ForestSpec

OFFSET_BASELINE = "04.00"
"""First baseline whose products carry BOA_ADD_OFFSET = -1000."""

Part = Literal["whole", "north", "south"]

_TILE = {NATIVE_EPSG: "48SYC", NEIGHBOUR_EPSG: "49SAT"}

# Day of the year, least and greatest cloud cover. Days 3 after a multiple of five belong to one
# orbit, days 1 after to a second one, whose swath ends inside the forest.
_OVERPASSES: tuple[tuple[int, float, float], ...] = (
    (38, 0.00, 0.05),
    (48, 0.10, 0.30),
    (63, 0.00, 0.10),
    (76, 0.10, 0.30),
    (83, 0.20, 0.50),
    (93, 0.30, 0.60),
    (103, 0.00, 0.10),
    (111, 0.05, 0.25),
    (118, 0.00, 0.15),
    (123, 0.05, 0.25),
    (133, 0.30, 0.50),
    (141, 0.10, 0.30),
    (148, 0.00, 0.10),
    (153, 0.10, 0.30),
    (166, 0.20, 0.50),
    (173, 0.02, 0.10),
    (188, 0.98, 1.00),
    (203, 0.98, 1.00),
    (218, 0.60, 0.75),
    (228, 0.75, 0.90),
    (241, 0.40, 0.60),
    (248, 0.10, 0.30),
    (258, 0.05, 0.20),
    (271, 0.30, 0.50),
    (278, 0.00, 0.10),
    (286, 0.10, 0.30),
    (293, 0.00, 0.08),
    (303, 0.15, 0.40),
    (308, 0.05, 0.25),
    (318, 0.10, 0.30),
    (331, 0.10, 0.25),
    (338, 0.00, 0.15),
    (353, 0.10, 0.30),
)
_DUPLICATED_DAY = 148
_SPLIT_DAY = 258
_NEIGHBOUR_DAYS = (103, 173, 293)
_OLD_BASELINE_DAYS = (278,)
_NEW_BASELINE_DAYS = (48, 173)
_LAST_OLD_DAY = 100


@dataclass(frozen=True, kw_only=True)
class ForestScene:
    """One granule of the catalogue."""

    id: str
    """Name of the item, e.g. `S2A_48SYC_20220412_0_L2A`."""
    day: int
    """Day of the year; also the name of the overpass in random streams."""
    time: datetime.datetime
    """Sensing time, UTC."""
    overpass_time: datetime.datetime
    """Start of the datatake, UTC: the same for every granule of one overpass."""
    platform: Platform
    epsg: int
    """UTM zone of its grid: 32648 (native) or 32649 (neighbour)."""
    sequence: int
    """0, or 1 for a duplicate and for the second half of a split granule."""
    baseline: str
    """Processing baseline, e.g. `04.00`."""
    boa_offset_applied: bool
    """What the item says: the offset of -1000 has been taken out of the pixels."""
    offset_in_pixels: bool
    """What the pixels hold: counts are reflectance x 10000 + 1000."""
    part: Part
    """Which half of the granule it has."""
    has_swath_edge: bool
    """Whether the swath ends inside the forest."""
    cloud_cover: float
    """Share of the ground under cloud, 0..1, of the whole overpass."""
    haze: float
    """Factor on the haze that processing has left in (reprocessing leaves less)."""
    created: datetime.datetime
    """When the product was made, UTC."""

    @property
    def is_lying(self) -> bool:
        """Whether the item says that an offset is to be taken out which is out already."""
        modern = self.baseline >= OFFSET_BASELINE
        return modern and not self.boa_offset_applied and not self.offset_in_pixels

    @property
    def tile(self) -> str:
        """MGRS tile, e.g. `48SYC`."""
        return _TILE[self.epsg]


def scenes_of(spec: ForestSpec) -> tuple[ForestScene, ...]:
    """Return every scene of the year, by overpass, native grid first."""
    drafts: list[ForestScene] = []
    for day, least, most in _OVERPASSES:
        cover = float(spec.generator("cloud cover", day).uniform(least, most))
        if day == _SPLIT_DAY:
            drafts.append(_draft(spec, day=day, cover=cover, part="north"))
            drafts.append(_draft(spec, day=day, cover=cover, part="south", sequence=1))
            continue
        drafts.append(_draft(spec, day=day, cover=cover))
        if day == _DUPLICATED_DAY:
            drafts.append(_draft(spec, day=day, cover=cover, sequence=1, again=True))
        if day in _NEIGHBOUR_DAYS:
            drafts.append(_draft(spec, day=day, cover=cover, epsg=NEIGHBOUR_EPSG))
    return _flagged(spec, drafts)


def scene_of(spec: ForestSpec, scene_id: str) -> ForestScene:
    """Return the scene called `scene_id`; raise `InputError` if the forest has none."""
    scenes = scenes_of(spec)
    for scene in scenes:
        if scene.id == scene_id:
            return scene
    raise InputError(
        f"the forest has no scene {scene_id!r}; it has {len(scenes)}, the first is {scenes[0].id!r}"
    )


def _baseline(day: int, *, again: bool) -> str:
    if again or day in _NEW_BASELINE_DAYS:
        return "05.10"
    old = day <= _LAST_OLD_DAY or day in _OLD_BASELINE_DAYS
    return "03.01" if old else "04.00"


def _draft(
    spec: ForestSpec,
    *,
    day: int,
    cover: float,
    epsg: int = NATIVE_EPSG,
    part: Part = "whole",
    sequence: int = 0,
    again: bool = False,
) -> ForestScene:
    """Return a scene whose offset is still in the pixels if its baseline has one."""
    second_orbit = day % 5 == 1
    platform: Platform = "S2A" if (day // 5) % 2 else "S2B"
    start = datetime.datetime(spec.year, 1, 1) + datetime.timedelta(
        days=day - 1, hours=3, minutes=27 if second_orbit else 37, seconds=49 - day % 11
    )
    delay = {"whole": 0, "north": 0, "south": 6}[part] + (4 if epsg == NEIGHBOUR_EPSG else 0)
    time = start + datetime.timedelta(minutes=11, seconds=14 + delay)
    tile = _TILE[epsg]
    baseline = _baseline(day, again=again)
    modern = baseline >= OFFSET_BASELINE
    late = datetime.timedelta(days=400 if baseline == "05.10" else 0, hours=5, minutes=day % 60)
    return ForestScene(
        id=f"{platform}_{tile}_{start:%Y%m%d}_{sequence}_L2A",
        day=day,
        time=time,
        overpass_time=start,
        platform=platform,
        epsg=epsg,
        sequence=sequence,
        baseline=baseline,
        boa_offset_applied=False,
        offset_in_pixels=modern,
        part=part,
        has_swath_edge=second_orbit,
        cloud_cover=cover,
        haze=0.8 if again else 1.0,
        created=time + late,
    )


def _flagged(spec: ForestSpec, drafts: list[ForestScene]) -> tuple[ForestScene, ...]:
    """Take the offset out of some modern scenes, and let some of those deny it."""
    modern = [i for i, scene in enumerate(drafts) if scene.baseline >= OFFSET_BASELINE]
    # An overcast scene has no dark pixel that could convict a liar, so it lies last.
    generator = spec.generator("flags")
    luck = {i: generator.random() + (drafts[i].cloud_cover > 0.6) for i in modern}
    order = sorted(modern, key=luck.__getitem__)
    lies = round(spec.lying_share * len(modern))
    for place, i in enumerate(order):
        if place < lies:
            drafts[i] = replace(drafts[i], offset_in_pixels=False)
        elif place % 2:
            drafts[i] = replace(drafts[i], offset_in_pixels=False, boa_offset_applied=True)
    return tuple(drafts)
