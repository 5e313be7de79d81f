"""Items of every provider become the same kind of scene; broken and hostile ones are refused."""

import copy
import json
from datetime import UTC, datetime

import pystac
import pytest
import shapely

from cube.bands import BANDS
from cube.errors import InputError
from cube.stac import scene_from_item
from cube.stac.footprint import bbox_outline, meets, unwrapped
from cube.stac.scene import Scene

API = "https://api.example/collections/c/items/i"

EARTH_SEARCH = "earth-search-v1/S2A_12RWT_20240106_0_L2A.json"
OLD_EARTH_SEARCH = "earth-search-v0/S2A_28QCH_20200714_0_L2A.json"
PLANETARY = "planetary-computer/S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531.json"
CDSE = "cdse/cdse_stac110_item_ABRIDGED.json"
ANTIMERIDIAN = "antimeridian/S2A_OPER_MSI_L2A_TL_2APS_20230603T031757_A041497_T01WCQ.json"


@pytest.fixture
def items(shared_data):
    """Read an item, or the features of a collection, by path."""

    def read(path):
        found = json.loads((shared_data / "stac-items" / path).read_text())
        if isinstance(found, list):
            return found
        return found.get("features", found)

    return read


def utc(*numbers):
    return datetime(*numbers, tzinfo=UTC)


def test_earth_search_v1(items):
    scene = scene_from_item(items(EARTH_SEARCH), base=API)
    assert scene.id == "S2A_12RWT_20240106_0_L2A"
    assert scene.collection == "sentinel-2-l2a"
    assert scene.time == utc(2024, 1, 6, 18, 6, 1, 22000)
    assert scene.overpass == "S2A_20240106T175731"
    assert scene.overpass_start == utc(2024, 1, 6, 17, 57, 31)
    assert (scene.tile, scene.epsg, scene.baseline) == ("12RWT", 32612, "05.10")
    assert scene.version == ("2024-01-06T20:55:50+00:00", "0")
    assert scene.cloud_cover == 1.051041
    assert (scene.offset, scene.offset_reason) == (0, "baseline 05.10, boa_offset_applied is true")
    assert list(scene.assets) == ([*BANDS, "SCL"])
    blue = scene.assets["B02"]
    assert blue.href == "https://api.example/collections/c/items/B02.tif"
    assert blue.transform == (10, 0, 499980, 0, -10, 3300000)
    assert blue.shape == (10980, 10980)
    assert scene.assets["SCL"].shape == (5490, 5490)
    assert scene.assets["B8A"].href.endswith("B8A.tif")
    assert not scene.is_locked


def test_every_baseline_of_earth_search_v1(shared_data):
    paths = sorted((shared_data / "stac-items" / "earth-search-v1-33TWN").glob("*_L2A.json"))
    scenes = [scene_from_item(json.loads(path.read_text()), base=API) for path in paths]
    assert len(scenes) == 15
    assert {scene.offset for scene in scenes} == {0}
    by_baseline = {scene.baseline: scene.offset_reason for scene in scenes}
    assert by_baseline["03.01"] == "baseline 03.01 is before 04.00"
    assert by_baseline["05.09"] == "baseline 05.09, boa_offset_applied is true"
    split = next(scene for scene in scenes if scene.id == "S2B_33TWN_20180521_1_L2A")
    assert split.overpass == "S2B_20180521T100029"
    assert split.version == ("2018-05-21T13:01:59+00:00", "1")


def test_item_collection(items):
    scenes = [
        scene_from_item(item, base=API)
        for item in items("earth-search-v1/items_39Q_2023-06.itemcollection.json")
    ]
    assert len(scenes) == 3
    assert {scene.overpass for scene in scenes if scene.time.day == 28} == {"S2A_20230628T070631"}


def test_earth_search_v0(items):
    scene = scene_from_item(items(OLD_EARTH_SEARCH), base=API)
    assert (scene.tile, scene.epsg, scene.baseline, scene.offset) == ("28QCH", 32628, "02.14", 0)
    assert scene.overpass == "S2A_20200714T115221"
    assert scene.version == ("2020-07-14T19:13:10+00:00", "0")
    assert scene.assets["AOT"].shape == (1830, 1830)


def test_earth_search_v0_cannot_tell_after_baseline_4(items):
    item = items(OLD_EARTH_SEARCH)
    item["properties"]["sentinel:product_id"] = (
        "S2A_MSIL2A_20220714T115221_N0400_R123_T28QCH_20220714T191310"
    )
    with pytest.raises(InputError, match=r"04\.00 of sentinel-s2-l2a-cogs without"):
        scene_from_item(item, base=API)
    item["properties"]["sentinel:boa_offset_applied"] = True
    assert scene_from_item(item, base=API).offset == 0


def test_planetary_computer(items):
    scene = scene_from_item(items(PLANETARY), base=API)
    assert scene.time == utc(2019, 6, 29, 21, 25, 29, 24000)
    assert scene.overpass == "S2B_20190629T212529"
    assert (scene.tile, scene.epsg, scene.baseline, scene.offset) == ("06VVN", 32606, "02.12", 0)
    assert scene.version[0] == "2020-10-06T08:05:31+00:00"
    assert scene.cloud_cover == 0.314306
    assert len(scene.assets) == 15
    assert scene.assets["B02"].shape == (10980, 10980)


def test_planetary_computer_delivers_products_as_esa_made_them(items):
    scenes = [
        scene_from_item(item, base=API)
        for item in items("planetary-computer/sentinel-2-l2a-pc_4items_2024-04-19.json")
    ]
    assert len(scenes) == 4
    assert {(s.baseline, s.offset, s.offset_reason) for s in scenes} == {
        ("05.10", -1000, "baseline 05.10, as ESA delivers it")
    }


def test_planetary_computer_series(items):
    scenes = [
        scene_from_item(item, base=API)
        for item in items("planetary-computer/site2-2020_jun_jul-35MNM.geojson")
    ]
    assert len({scene.overpass for scene in scenes}) == 13
    assert {(scene.tile, scene.epsg) for scene in scenes} == {("35MNM", 32735)}


def test_cdse(items):
    scene = scene_from_item(items(CDSE), base=API)
    assert (scene.tile, scene.epsg, scene.baseline) == ("33UWP", 32633, "05.11")
    assert scene.overpass == "S2C_20250330T100051"
    assert scene.version == ("2025-03-30T14:59:14+00:00", "")
    assert scene.offset == -1000  # although the item states it for AOT and WVP too
    assert sorted(scene.assets) == ["AOT", "B01", "B02", "SCL", "WVP"]
    assert scene.assets["B01"].href.endswith("_B01_60m.jp2")  # native, not the upsampled 20 m
    assert scene.assets["B02"].href.startswith("s3://eodata/")
    assert scene.assets["B02"].href.endswith("_B02_10m.jp2")
    assert scene.assets["AOT"].href.endswith("_AOT_10m.jp2")  # the 20 m file is not in the item


def test_pystac_items_read_as_dicts_do(items):
    for path in (EARTH_SEARCH, PLANETARY, CDSE):
        item = items(path)
        by_dict = scene_from_item(item, base=API)
        parsed = pystac.Item.from_dict(copy.deepcopy(item))  # turns proj:epsg into proj:code
        assert scene_from_item(parsed, base=API) == by_dict


def test_scenes_survive_json(items):
    for path in (EARTH_SEARCH, OLD_EARTH_SEARCH, PLANETARY, CDSE, ANTIMERIDIAN):
        scene = scene_from_item(items(path), base=API)
        assert Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"time": "yesterday"}, "damaged.*yesterday"),
        ({"time": "2024-01-06T18:06:01"}, "time has no zone"),
        ({"overpass": "S2A"}, "damaged"),
        ({"offset": -7000}, "offset -7000"),
        ({"assets": {"B02": {}}}, "damaged.*transform"),
        ({"version": ["one"]}, "damaged"),
    ],
)
def test_damaged_records(items, change, text):
    record = scene_from_item(items(EARTH_SEARCH), base=API).to_json()
    with pytest.raises(InputError, match=text):
        Scene.from_json(record | change)


def test_antimeridian_footprints(shared_data):
    paths = sorted((shared_data / "stac-items" / "antimeridian").glob("*.json"))
    assert len(paths) == 6
    for path in paths:
        scene = scene_from_item(json.loads(path.read_text()), base=API)
        outline = unwrapped(scene.footprint)
        west, south, east, north = outline.bounds
        assert east - west < 6, path  # a tile is 110 km wide, not once round the globe
        assert outline.is_valid
        assert not meets(outline, bbox_outline((-10.0, south, 10.0, north)))
        inside = outline.representative_point()
        for turn in (-360, 0, 360):
            assert meets(outline, shapely.affinity.translate(inside.buffer(0.01), xoff=turn))
    zone_1 = scene_from_item(json.loads(paths[0].read_text()), base=API)
    assert (zone_1.tile, zone_1.epsg, zone_1.offset) == ("01WCQ", 32601, -1000)
    assert meets(unwrapped(zone_1.footprint), bbox_outline((179.9, 66.0, -179.5, 68.0)))


def test_footprint_split_at_the_antimeridian():
    halves = {
        "type": "MultiPolygon",
        "coordinates": [
            [[[179, 60], [180, 60], [180, 61], [179, 61], [179, 60]]],
            [[[-180, 60], [-179, 60], [-179, 61], [-180, 61], [-180, 60]]],
        ],
    }
    outline = unwrapped(halves)
    assert meets(outline, bbox_outline((-179.9, 60.1, -179.8, 60.2)))
    assert meets(outline, bbox_outline((179.8, 60.1, -179.8, 60.2)))
    assert not meets(outline, bbox_outline((-178.5, 60.1, 178.5, 60.2)))


def test_address_of_the_product_metadata(items, shared_data):
    scene = scene_from_item(items(PLANETARY), base=API)
    assert scene.metadata_href == (
        "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/06/V/VN/2019/06/29/"
        "S2B_MSIL2A_20190629T212529_N0212_R043_T06VVN_20201006T080531.SAFE/MTD_MSIL2A.xml"
    )
    assert Scene.from_json(scene.to_json()).metadata_href == scene.metadata_href
    for path in (EARTH_SEARCH, OLD_EARTH_SEARCH, CDSE):  # of tiles, or none
        assert scene_from_item(items(path), base=API).metadata_href == ""

    item = items(EARTH_SEARCH)
    item["assets"]["product_metadata"] = {"href": "s3://bucket/products/p/metadata.xml"}
    assert scene_from_item(item, base=API).metadata_href == "s3://bucket/products/p/metadata.xml"
    item["assets"]["product_metadata"] = {"href": "https://a.example/MTD_MSIL2a.xml?sig=secret"}
    assert scene_from_item(item, base=API).metadata_href == "https://a.example/MTD_MSIL2a.xml"
    item["assets"]["product_metadata"] = {"href": "file:///etc/MTD_MSIL2A.xml"}
    with pytest.raises(InputError, match="asset 'product_metadata' points to"):
        scene_from_item(item, base=API)

    folder = "S2A_MSIL2A_20190212T192651_N0212_R013_T07HFE_20201007T160857.SAFE"
    path = shared_data / "safe-metadata" / folder / "expected_output.json"
    local = scene_from_item(json.loads(path.read_text()), base=str(path))
    assert local.metadata_href == str(path.parent / "MTD_MSIL2A.xml")


def without(*path):
    def change(item):
        for key in path[:-1]:
            item = item[key]
        del item[path[-1]]

    return change


def having(*path, value):
    def change(item):
        for key in path[:-1]:
            item = item[key]
        item[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (having("geometry", value=None), "has no geometry"),
        (having("geometry", value={"type": "Point", "coordinates": [0, 0]}), "not a GeoJSON Poly"),
        (having("geometry", value={"type": "Polygon", "coordinates": []}), "empty"),
        (having("geometry", "coordinates", value="here"), "cannot be read|could not"),
        (
            having(
                "geometry", "coordinates", value=[[[5e5, 4e6], [6e5, 4e6], [6e5, 5e6], [5e5, 4e6]]]
            ),
            "not lon/lat",
        ),
        (without("properties", "datetime"), "has no datetime"),
        (having("properties", "datetime", value="soon"), "cannot be read.*soon"),
        (
            having("properties", "s2:processing_baseline", value="99.99"),
            "contradict|product name|unknown",
        ),
        (
            having("properties", "s2:processing_baseline", value="02.14"),
            "states baseline 02.14 but",
        ),
        (having("properties", "s2:product_type", value="S2MSI1C"), "expected level 2A"),
        (having("properties", "earthsearch:boa_offset_applied", value="yes"), "expected true or"),
        (having("properties", "eo:cloud_cover", value="clear"), "cannot be read"),
        (without("assets", "scl"), "needs SCL and bands"),
        (having("assets", value={}), "needs SCL and bands"),
        (having("assets", "blue", value="B02.tif"), "cannot be read"),
        (without("assets", "blue", "href"), "cannot be read.*href"),
        (having("assets", "blue", "proj:transform", value=[10, 0]), "six finite numbers"),
        (having("assets", "blue", "proj:shape", value=[0, 10]), "two positive whole numbers"),
        (having("assets", "blue", "proj:epsg", value=32613), r"several CRS: \[32612, 32613\]"),
        (without("assets"), "cannot be read.*assets"),
        (having("properties", value=[]), "no object"),
    ],
)
def test_broken_items_are_named(items, change, text):
    item = items(EARTH_SEARCH)
    change(item)
    with pytest.raises(InputError, match=f"S2A_12RWT_20240106_0_L2A.*(?:{text})"):
        scene_from_item(item, base=API)


def test_an_item_without_an_id():
    with pytest.raises(InputError, match="without an id"):
        scene_from_item({"type": "Feature"}, base=API)


@pytest.mark.parametrize(
    "keys", [("s2:datatake_id", "s2:product_uri"), ("s2:processing_baseline", "s2:product_uri")]
)
def test_what_cannot_be_told(items, keys):
    item = items(EARTH_SEARCH)
    for key in keys:
        del item["properties"][key]
    with pytest.raises(InputError, match=r"states no processing baseline|no datatake id"):
        scene_from_item(item, base=API)


def test_crs_from_the_asset_or_the_tile(items):
    item = items(EARTH_SEARCH)
    del item["properties"]["proj:epsg"]
    item["assets"]["blue"]["proj:code"] = "EPSG:32612"
    assert scene_from_item(item, base=API).epsg == 32612
    del item["assets"]["blue"]["proj:code"]
    item["properties"]["proj:epsg"] = None
    assert scene_from_item(item, base=API).epsg == 32612  # zone 12, north, from the tile 12RWT


@pytest.mark.parametrize(
    "href",
    [
        "file:///etc/passwd",
        "/vsicurl/https://example.com/a.tif",
        "/vsizip//tmp/a.zip/b.tif",
        "ftp://example.com/a.tif",
        "gs://bucket/a.tif",
        "https://user:secret@example.com/a.tif",
        "<VRTDataset/>",
        "",
        "https://example.com/a\n.tif",
        "\\\\server\\share",
        "javascript:alert(1)",
    ],
)
def test_hostile_hrefs_from_the_network(items, href):
    item = items(EARTH_SEARCH)
    item["assets"]["blue"]["href"] = href
    with pytest.raises(InputError, match="S2A_12RWT_20240106_0_L2A', asset 'blue'") as caught:
        scene_from_item(item, base=API)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "href", ["/vsizip//tmp/a.zip/b.tif", "../../../../../vsimem/x", "gs://b/a.tif", "<VRTDataset/>"]
)
def test_hostile_hrefs_from_a_local_catalogue(items, href):
    item = items(EARTH_SEARCH)
    item["assets"]["blue"]["href"] = href
    with pytest.raises(InputError, match="only https, s3 and plain files"):
        scene_from_item(item, base="/data/catalogue/item.json")


def test_hrefs_are_resolved_and_unsigned(items):
    def blue(href, base):
        item = items(EARTH_SEARCH)
        item["assets"]["blue"]["href"] = href
        return scene_from_item(item, base=base).assets["B02"].href

    assert blue("./B02.tif", API) == "https://api.example/collections/c/items/B02.tif"
    assert blue("../B02.tif", "/data/items/i.json") == "/data/B02.tif"
    assert blue("file:///data/B%2002.tif", "/data/items/i.json") == "/data/B 02.tif"
    assert blue("/etc/passwd", API) == "https://api.example/etc/passwd"  # on their machine
    signed = "https://store.example/B02.tif?st=2024&sig=abc%3D"
    assert blue(signed, API) == "https://store.example/B02.tif"
    assert blue("https://store.example/B02.tif?X-Amz-Signature=1&versionId=2", API).endswith(
        "B02.tif"
    )
    kept = "https://store.example/B02.tif?versionId=2"
    assert blue(kept, API) == kept


def test_local_files_need_a_local_catalogue(items):
    item = items(EARTH_SEARCH)
    item["assets"]["blue"]["href"] = "B02.tif"
    with pytest.raises(InputError, match="may not name local files"):
        scene_from_item(item)
