"""The scene list that Earth Engine gives: against the forest's own schedule, and with odd answers."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from earthengine import EarthEngineServer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cube.earthengine.access import Access
from cube.earthengine.properties import OFFSET_REASON, scene_of
from cube.earthengine.scenes import (
    HARMONIZED,
    MOST_LISTED,
    ImageQuery,
    empty_qa60,
    find_images,
)
from cube.earthengine.session import session
from cube.errors import InputError
from cube.forest import ForestSpec, scenes_of
from cube.periods import Period, periods_between
from cube.stac import read_scenes, search_area, write_scenes
from cube.stac.scene import Scene

APRIL = Period.of_month(2022, 4)
AREA = {
    "type": "Polygon",
    "coordinates": [[[107.0, 34.0], [107.1, 34.0], [107.1, 34.1], [107.0, 34.1], [107.0, 34.0]]],
}
ROW = {
    "system:index": "20220412T032541_20220412T033914_T48SYC",
    "system:time_start": 1649734754000.0,
    "system:footprint": {
        "type": "LinearRing",
        "coordinates": [[107.0, 34.0], [107.5, 34.0], [107.5, 34.5], [107.0, 34.5], [107.0, 34.0]],
    },
    "DATATAKE_IDENTIFIER": "GS2A_20220412T032541_035560_N04.00",
    "MGRS_TILE": "48SYC",
    "PROCESSING_BASELINE": "04.00",
    "GENERATION_TIME": 1649750583000.0,
    "CLOUDY_PIXEL_PERCENTAGE": 12.5,
    "PRODUCT_ID": "S2A_MSIL2A_20220412T032541_N0400_R018_T48SYC_20220412T080303",
}


@pytest.fixture(scope="module")
def forest(written):
    return written(ForestSpec(scale=0.25, lying_share=0.0))


@pytest.fixture(scope="module", autouse=True)
def server(forest):
    """Earth Engine over the forest; the client can make expressions only once it is initialised."""
    with EarthEngineServer(forest) as running:
        session(Access(endpoint=running.url, project="test-project"))
        yield running


class Archive:
    """Answers what it is told, in the place of a session; `asked` are the expressions."""

    def __init__(self, *rows, scored=None):
        self.rows = [list(row.values()) for row in rows]
        self.scored = scored
        self.asked = []

    def value(self, thing):
        text = thing.serialize()
        self.asked.append(text)
        if "CLOUD_SCORE_PLUS" in text:
            indices = [row[0] for row in self.rows] if self.scored is None else self.scored
            return [[index] for index in indices]
        return self.rows


def span_of(expression):
    """Return (start, end) in milliseconds of what a listing asks for."""
    start, end = sorted(map(int, re.findall(r'"constantValue": (\d{13})', expression)))
    return start, end


def query(**changes):
    return ImageQuery(**{"periods": (APRIL,), "geometry": AREA, "mask": "scl"} | changes)


def test_an_image_becomes_a_scene_that_survives_the_lock_file(tmp_path):
    found = find_images(Archive(ROW), query())
    (scene,) = found.scenes
    assert scene.id == ROW["system:index"]
    assert scene.collection == HARMONIZED
    assert scene.time == datetime(2022, 4, 12, 3, 39, 14, tzinfo=UTC)
    assert scene.overpass == "S2A_20220412T032541"
    assert (scene.tile, scene.epsg, scene.baseline) == ("48SYC", 32648, "04.00")
    assert scene.version == ("2022-04-12T08:03:03+00:00", "")
    assert scene.cloud_cover == 12.5
    assert (scene.offset, scene.offset_reason) == (0, OFFSET_REASON)
    assert scene.footprint["type"] == "Polygon"
    assert scene.footprint["coordinates"][0] == [
        list(xy) for xy in ROW["system:footprint"]["coordinates"]
    ]
    write_scenes(tmp_path / "scenes.parquet", found, question="asked")
    assert read_scenes(tmp_path / "scenes.parquet") == replace(found, question="asked")


@pytest.mark.parametrize(
    ("tile", "epsg"), [("48SYC", 32648), ("1CCV", 32701), ("31NAA", 32631), ("60MXX", 32760)]
)
def test_the_zone_follows_from_the_tile(tile, epsg):
    (scene,) = find_images(Archive(ROW | {"MGRS_TILE": tile}), query()).scenes
    assert scene.epsg == epsg


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"system:index": None}, "has an image whose system:index is 'None'"),
        ({"system:index": "a b"}, "has an image whose system:index is 'a b'"),
        ({"system:index": "../x"}, "has an image whose system:index is '../x'"),
        ({"system:time_start": None}, "has system:time_start 'None', no time in milliseconds"),
        ({"system:time_start": float("nan")}, "has system:time_start 'nan', no time"),
        ({"system:time_start": 1e300}, "has system:time_start '1e+300', no time"),
        ({"system:time_start": True}, "has system:time_start 'True', no time"),
        ({"GENERATION_TIME": "soon"}, "has GENERATION_TIME 'soon', no time"),
        ({"DATATAKE_IDENTIFIER": None}, "has DATATAKE_IDENTIFIER 'None'; expected GS2"),
        (
            {"DATATAKE_IDENTIFIER": "GS2A_20229912T032541_035560_N04.00"},
            "whose time does not exist",
        ),
        ({"MGRS_TILE": "48IYC"}, "has MGRS_TILE '48IYC'; expected"),
        ({"MGRS_TILE": "99SYC"}, "has MGRS_TILE '99SYC'"),
        ({"PROCESSING_BASELINE": 4}, "has PROCESSING_BASELINE '4'; expected"),
        ({"PROCESSING_BASELINE": "02.11"}, "states baseline 02.11 but its product name says 04.00"),
        ({"CLOUDY_PIXEL_PERCENTAGE": 120}, "has CLOUDY_PIXEL_PERCENTAGE '120'; expected 0..100"),
        ({"CLOUDY_PIXEL_PERCENTAGE": float("nan")}, "CLOUDY_PIXEL_PERCENTAGE 'nan'; expected"),
        ({"system:footprint": None}, "has a system:footprint that is none"),
        ({"system:footprint": {"type": "Point", "coordinates": [0, 0]}}, "footprint that is none"),
        (
            {"system:footprint": {"type": "LinearRing", "coordinates": [[0, 0], [1, 1]]}},
            "footprint that is none",
        ),
    ],
)
def test_odd_properties_are_one_line_that_names_the_image(change, text):
    with pytest.raises(InputError) as raised:
        find_images(Archive(ROW | change), query())
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)
    if "system:index" not in change:
        assert ROW["system:index"] in str(raised.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(list(ROW)), value=JSON)
@example(name="system:footprint", value={"type": "LinearRing", "coordinates": [[[0]]]})
@example(name="system:footprint", value={"type": "Polygon", "coordinates": [["a", None]]})
@example(name="system:time_start", value=1 << 2000)
@example(name="PRODUCT_ID", value=["S2A_MSIL2A_20220412T032541_N0200_R018_T48SYC_20220412T080303"])
def test_whatever_a_property_is_it_is_a_scene_or_one_line(name, value):
    told = "fine"
    try:
        scene = scene_of(list((ROW | {name: value}).values()), HARMONIZED)
    except InputError as error:
        told = str(error)
    else:
        assert Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene
    assert "\n" not in told
    assert len(told) < 500


def test_an_image_without_cloud_cover_or_product_name_is_kept():
    told = ROW | {"CLOUDY_PIXEL_PERCENTAGE": None, "PRODUCT_ID": None}
    (scene,) = find_images(Archive(told), query(max_cloud_cover=5.0)).scenes
    assert scene.cloud_cover is None


@pytest.mark.parametrize("answer", [None, {"a": 1}, [1], [[1, 2]], "text"])
def test_an_answer_that_is_no_list_of_images_is_told(answer):
    archive = Archive()
    archive.rows = answer
    with pytest.raises(InputError, match=f"Earth Engine lists '{HARMONIZED}' as .*, no images"):
        find_images(archive, query())


def test_reasons_for_dropping():
    newer = ROW | {
        "system:index": "20220412T032541_20230817T010203_T48SYC",
        "PROCESSING_BASELINE": "05.10",
        "GENERATION_TIME": 1692234123000.0,
        "PRODUCT_ID": "S2A_MSIL2A_20220412T032541_N0510_R018_T48SYC_20230817T010203",
    }
    cloudy = ROW | _other_pass(15) | {"CLOUDY_PIXEL_PERCENTAGE": 91.0}
    unwanted, unscored = ROW | _other_pass(17), ROW | _other_pass(20)
    archive = Archive(
        ROW, newer, cloudy, unwanted, unscored, scored=[ROW["system:index"], newer["system:index"]]
    )
    found = find_images(
        archive,
        query(max_cloud_cover=80.0, leave_out=(unwanted["system:index"],), mask="cloud-score-plus"),
    )
    assert [scene.id for scene in found.scenes] == [newer["system:index"]]
    assert {one.id: one.reason for one in found.dropped} == {
        cloudy["system:index"]: "cloud cover 91 % is above 80 %",
        unwanted["system:index"]: "left out by the recipe",
        unscored["system:index"]: "has no Cloud Score+",
        ROW["system:index"]: f"duplicate of {newer['system:index']} (baseline 05.10, made "
        "2023-08-17T01:02:03+00:00)",
    }


def test_an_odd_image_can_be_left_out():
    odd = ROW | _other_pass(15) | {"GENERATION_TIME": None, "system:footprint": "?"}
    found = find_images(Archive(ROW, odd), query(leave_out=(odd["system:index"],)))
    assert [scene.id for scene in found.scenes] == [ROW["system:index"]]
    assert [one.reason for one in found.dropped] == ["left out by the recipe"]


def test_other_periods_and_places_are_not_listed():
    away = ROW | _other_pass(14)
    away["system:footprint"] = {
        "type": "Polygon",
        "coordinates": [[[10, 34], [11, 34], [11, 35], [10, 35], [10, 34]]],
    }
    found = find_images(Archive(ROW, ROW | _other_pass(1, month=5), away), query())
    assert [scene.id for scene in found.scenes] == [ROW["system:index"]]
    assert found.dropped == ()


def test_nothing_usable_says_where_and_why():
    where = (
        f"Earth Engine has no usable image of '{HARMONIZED}' in the area from 2022-04 to 2022-04"
    )
    with pytest.raises(InputError, match=f"^{where}; ask for another area or other months$"):
        find_images(Archive(), query())
    with pytest.raises(
        InputError, match=f"^{where}; 1 dropped, e.g. cloud cover 12.5 % is above 3 %$"
    ):
        find_images(Archive(ROW), query(max_cloud_cover=3.0))
    with pytest.raises(InputError, match=r"leave_out names \['nobody'\], and no such image"):
        find_images(Archive(ROW), query(leave_out=("nobody",)))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"collection": "COPERNICUS/S2_SR"}, "may have the radiometric offset of 1000 left in it"),
        ({"periods": ()}, "no period is asked for"),
        ({"max_cloud_cover": 101.0}, "max_cloud_cover is 101.0"),
        ({"geometry": {"type": "Point", "coordinates": [1, 2]}}, "the area: geometry is not"),
    ],
)
def test_questions_that_cannot_be_asked(change, text):
    with pytest.raises(InputError, match=re.escape(text)):
        query(**change)


def test_every_month_is_asked_once_and_no_longer_than_needed():
    archive = Archive(ROW)
    periods = (*periods_between(Period.of_month(2021, 12), Period.of_month(2022, 1)), APRIL)
    find_images(archive, query(periods=periods))
    spans = map(span_of, archive.asked)
    days = [[f"{datetime.fromtimestamp(t / 1000, UTC):%m-%d}" for t in span] for span in spans]
    assert days == [
        ["12-01", "01-01"],
        ["01-01", "02-01"],
        ["02-01", "03-01"],  # a pass that began in January may be sensed on 1 February
        ["04-01", "05-01"],
        ["05-01", "05-02"],
    ]


def test_a_month_with_too_many_images_is_halved():
    class Crowded(Archive):
        def value(self, thing):
            found = super().value(thing)
            start, end = span_of(self.asked[-1])
            return found * MOST_LISTED if end - start > 8 * 86_400_000 else found

    archive = Crowded(ROW)
    assert len(find_images(archive, query()).scenes) == 1
    kept = sorted((a, b) for a, b in map(span_of, archive.asked) if b - a <= 8 * 86_400_000)
    assert all(one[1] == two[0] for one, two in pairwise(kept))  # without a gap
    assert (kept[0][0], kept[-1][1]) == (1648771200000, 1651449600000)

    class Full(Archive):
        def value(self, thing):
            return super().value(thing) * MOST_LISTED

    with pytest.raises(InputError, match=rf"has {MOST_LISTED} images of '{HARMONIZED}' and more"):
        find_images(Full(ROW), query())


def test_only_the_properties_that_are_needed_are_asked_for():
    archive = Archive(ROW)
    find_images(archive, query())
    assert archive.asked[0].count('"Element.get"') == len(ROW)
    assert all(f'"constantValue": "{name}"' in archive.asked[0] for name in ROW)


def test_the_months_with_an_empty_qa60_are_told():
    cloudy = [
        ROW | _other_pass(day) | {"CLOUDY_PIXEL_PERCENTAGE": 40.0 + day} for day in range(1, 13)
    ]
    may = ROW | _other_pass(3, month=5) | {"CLOUDY_PIXEL_PERCENTAGE": 50.0}
    bright = ROW | _other_pass(3, month=6) | {"CLOUDY_PIXEL_PERCENTAGE": 5.0}
    periods = periods_between(APRIL, Period.of_month(2022, 6))
    scenes = find_images(Archive(*cloudy, may, bright), query(periods=periods)).scenes
    # of one image in April QA60 has nothing where the SCL sees cloud; in May there is little cloud
    answers = {"202204": [[1024, 0.6]] * 9 + [[0, 0.3]], "202205": [[0, 0.1]]}
    asked = []

    class Sky:
        def value(self, thing):
            names = re.findall(rf"{HARMONIZED}/(\w+)", thing.serialize())
            asked.append(sorted(names))
            return answers[names[0][:6]]

    assert empty_qa60(Sky(), scenes, AREA) == ("2022-04",)
    # of April the ten cloudiest, of May its one, of June none: it reports no cloud
    assert asked == [[row["system:index"] for row in cloudy[2:]], [may["system:index"]]]
    answers["202204"][-1] = [None, None]  # an image without data in the area
    assert empty_qa60(Sky(), scenes, AREA) == ()


def _other_pass(day, month=4):
    """Return the properties that a pass of another day has."""
    start = datetime(2022, month, day, 3, 25, 41, tzinfo=UTC)
    time, made = start.replace(minute=39), start.replace(hour=9)
    stamp = f"{start:%Y%m%dT%H%M%S}"
    return {
        "system:index": f"{stamp}_{time:%Y%m%dT%H%M%S}_T48SYC",
        "system:time_start": time.timestamp() * 1000,
        "DATATAKE_IDENTIFIER": f"GS2A_{stamp}_035560_N04.00",
        "GENERATION_TIME": made.timestamp() * 1000,
        "PRODUCT_ID": f"S2A_MSIL2A_{stamp}_N0400_R018_T48SYC_{made:%Y%m%dT%H%M%S}",
    }


# ---------------------------------------------------------------- over the loopback server


YEAR = periods_between(Period.of_month(2022, 1), Period.of_month(2022, 12))


@pytest.mark.parametrize("mask", ["cloud-score-plus", "scl"])
def test_a_year_is_the_schedule_of_the_forest(forest, server, mask):
    asked = session(Access(endpoint=server.url, project="test-project"))
    area = search_area(forest.spec.geobox)
    server.clear()
    found = find_images(asked, ImageQuery(periods=YEAR, geometry=area, mask=mask))
    truth = {(s.tile, s.time.replace(tzinfo=UTC)): s for s in scenes_of(forest.spec)}
    twice = [s for s in truth.values() if s.day == 148 and s.tile == "48SYC"]
    assert len(twice) == 1  # two products of one granule have one key; the newer one came last
    assert len(found.scenes) == len(truth) == len(scenes_of(forest.spec)) - 1
    for scene in found.scenes:
        true = truth[scene.tile, scene.time]
        assert scene.overpass == f"{true.platform}_{true.overpass_time:%Y%m%dT%H%M%S}"
        assert (scene.epsg, scene.baseline) == (true.epsg, true.baseline)
        assert scene.offset == 0
    ((dropped),) = found.dropped
    assert re.search(r"^duplicate of 20220528T\w+ \(baseline 05.10", dropped.reason)
    assert len(server.value_requests) == 13 * (2 if mask == "cloud-score-plus" else 1)


def test_a_search_that_is_cut_into_spans_finds_the_same(forest, server, monkeypatch):
    asked = session(Access(endpoint=server.url, project="test-project"))
    one = ImageQuery(periods=YEAR, geometry=search_area(forest.spec.geobox), mask="scl")
    whole = find_images(asked, one)
    monkeypatch.setattr("cube.earthengine.scenes.MOST_LISTED", 3)
    assert find_images(asked, one) == whole


@pytest.mark.parametrize(
    ("qa60", "is_empty"), [("empty", True), ("masked", True), ("absent", True), ("scl", False)]
)
def test_an_empty_qa60_is_found_out(forest, qa60, is_empty):
    area = search_area(forest.spec.geobox)
    with EarthEngineServer(forest, qa60=qa60) as running:
        asked = session(Access(endpoint=running.url, project="test-project"))
        found = find_images(asked, ImageQuery(periods=YEAR, geometry=area, mask="qa60"))
        running.clear()
        empty = empty_qa60(asked, found.scenes, area)
        months = {f"{s.overpass_start:%Y-%m}" for s in found.scenes if (s.cloud_cover or 0) >= 20}
        assert len(running.value_requests) == len(months) > 5
    assert empty == (tuple(sorted(months)) if is_empty else ())
