"""Landsat and HLS items become scenes of their sensors, and what is neither is refused."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import rasterio
from stacserver import StacServer

from cube.bands import BANDS
from cube.errors import InputError
from cube.periods import Period
from cube.stac import SceneList, SceneQuery, find_scenes, lock_scenes, scene_from_item
from cube.stac.scene import Scene

API = "https://api.example/collections/c/items/i"


@pytest.fixture
def items(shared_data):
    """Read an item by path."""
    return lambda path: json.loads((shared_data / "stac-items" / path).read_text())


def utc(*numbers):
    return datetime(*numbers, tzinfo=UTC)


LANDSAT = "other/LC08_L2SP_028030_20200114_20200824_02_T1_SR.json"


def test_landsat(items):
    scene = scene_from_item(items(LANDSAT), base=API)
    assert scene.sensor == "landsat-c2-l2"
    assert (scene.tile, scene.baseline, scene.offset) == ("028030", "02", 0)
    assert scene.version == ("2020-08-24T00:00:00+00:00", "")
    assert list(scene.assets) == ["B01", "B02", "B03", "B04", "B8A", "B11", "B12", "SCL"]
    assert scene.assets["B8A"].href.endswith("_SR_B5.TIF")
    assert scene.assets["SCL"].href.endswith("_QA_PIXEL.TIF")
    assert scene.assets["SCL"].transform == (30, 0, 173085, 0, -30, 4904715)
    # path 28 crosses the equator at 106.32 W, where 10:00 is 17:05:16 UTC
    assert scene.overpass_start == utc(2020, 1, 14, 17, 5, 16)
    old = scene_from_item(items("other/LE07_L2SP_044033_20210329_20210424_02_T1_SR.json"), base=API)
    assert "B01" not in old.assets
    assert old.assets["B8A"].href.endswith("_SR_B4.TIF")
    assert old.overpass_start == utc(2021, 3, 29, 18, 44, 9)


def landsat(items, *, path, row, time, longitude):
    """A Landsat item elsewhere."""
    item = items(LANDSAT)
    day = time[:10].replace("-", "")
    item["id"] = f"LC09_L2SP_{path:03d}{row:03d}_{day}_02_T1"
    item["properties"] |= {
        "datetime": time,
        "platform": "landsat-9",
        "landsat:wrs_path": f"{path:03d}",
        "landsat:wrs_row": f"{row:03d}",
    }
    ring = [[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]
    item["geometry"] = {
        "type": "Polygon",
        "coordinates": [[[(longitude + x + 540) % 360 - 180, y] for x, y in ring]],
    }
    return scene_from_item(item, base=API)


def test_rows_of_one_landsat_pass_are_one_overpass(items):
    # path 72 crosses the equator at 174.3 W; by its north it lies beyond the antimeridian
    north = landsat(items, path=72, row=20, time="2022-03-31T21:35:10Z", longitude=-164.5)
    south = landsat(items, path=72, row=66, time="2022-03-31T21:49:30Z", longitude=-176.0)
    far = landsat(items, path=72, row=90, time="2022-03-31T21:58:30Z", longitude=178.0)
    assert north.overpass == south.overpass == far.overpass
    # path 104: its rows are sensed on both sides of midnight UTC, and of a month
    before = landsat(items, path=104, row=60, time="2022-03-31T23:59:40Z", longitude=136.5)
    after = landsat(items, path=104, row=62, time="2022-04-01T00:00:28Z", longitude=136.0)
    assert before.overpass == after.overpass
    assert before.overpass_start == after.overpass_start
    next_time = landsat(items, path=104, row=60, time="2022-04-16T23:59:40Z", longitude=136.5)
    assert (next_time.overpass_start - before.overpass_start).days == 16
    other_path = landsat(items, path=105, row=60, time="2022-03-31T23:59:40Z", longitude=136.5)
    assert other_path.overpass != before.overpass


def hls(kind, name, *, time, longitude, latitude, keys, **properties):
    """An item as the HLS Product User Guide names granules and layers; no real one is at hand."""
    ring = [[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5]]
    folder = f"https://data.example/HLS{kind}.020/{name}"
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": f"HLS{kind}_2.0",
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[longitude + x, latitude + y] for x, y in ring]],
        },
        "properties": {"datetime": time, "eo:cloud_cover": 12, **properties},
        "assets": {key: {"href": f"{folder}/{name}.{key}.tif"} for key in keys},
        "links": [],
    }


S30_KEYS = [*(f"B{n:02d}" for n in range(1, 13)), "B8A", "Fmask", "SAA", "SZA", "VAA", "VZA"]
L30_KEYS = [*(f"B{n:02d}" for n in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11)), "Fmask", "SAA", "VZA"]


def test_hls():
    name = "HLS.S30.T33UWP.2021180T100559.v2.0"
    item = hls(
        "S30",
        name,
        time="2021-06-29T10:08:07.123Z",
        longitude=15.8,
        latitude=48.3,
        keys=S30_KEYS,
        platform="sentinel-2a",
        created="2021-07-02T03:04:05Z",
    )
    scene = scene_from_item(item, base=API)
    assert scene.id == name
    assert scene.sensor == "hls-s30"
    assert scene.time == utc(2021, 6, 29, 10, 8, 7, 123000)
    assert (scene.tile, scene.epsg, scene.baseline) == ("33UWP", 32633, "2.0")
    assert (scene.overpass, scene.overpass_start) == (
        "HLS-S2A_20210629T120000",
        utc(2021, 6, 29, 12),
    )
    assert scene.version == ("2021-07-02T03:04:05+00:00", "")
    assert (scene.offset, scene.offset_reason) == (0, "hls-s30 has no such offset")
    assert list(scene.assets) == [name for name in BANDS if name not in ("AOT", "WVP")] + ["SCL"]
    assert scene.assets["SCL"].href.endswith(".Fmask.tif")
    assert scene.metadata_href == ""

    item = hls(
        "L30",
        "HLS.L30.T60HTE.2021180T220559.v2.0",
        time="2021-06-29T22:05:59Z",  # 30 June by the sun at 171 E
        longitude=171.0,
        latitude=-42.0,
        keys=L30_KEYS,
    )
    item["properties"]["proj:epsg"] = 32660  # HLS counts the south in northern zones
    scene = scene_from_item(item, base=API)
    assert (scene.sensor, scene.tile, scene.epsg) == ("hls-l30", "60HTE", 32660)
    assert scene.overpass == "HLS-L30_20210630T120000"
    assert {band: asset.href[-7:] for band, asset in scene.assets.items() if band != "SCL"} == {
        "B01": "B01.tif",
        "B02": "B02.tif",
        "B03": "B03.tif",
        "B04": "B04.tif",
        "B8A": "B05.tif",
        "B11": "B06.tif",
        "B12": "B07.tif",
    }
    assert Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene
    with pytest.raises(InputError, match="is of sensor 'modis'; known are sentinel-2-l2a, landsat"):
        Scene.from_json(scene.to_json() | {"sensor": "modis"})


def scaled(scale, offset):
    def change(item):
        item["assets"]["red"]["raster:bands"] = [{"scale": scale, "offset": offset}]

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda item: item["properties"].update(platform="sentinel-1a"),
            "of platform 'sentinel-1a",
        ),
        (lambda item: item.update(id="LC08_L1TP_028030_20200114_20200824_02_T1"), "level L1TP"),
        (lambda item: item.update(id="LC08_L2SP_028030_20200114_20200824_01_T1"), "collection 01"),
        (lambda item: item.update(id="LM05_L1TP_028030_19900114_20200824_02_T1"), "only USGS Coll"),
        (lambda item: item["properties"].update({"landsat:wrs_path": "029"}), "states WRS type"),
        (lambda item: item["properties"].update({"landsat:wrs_type": "1"}), "states WRS type"),
        (lambda item: item["properties"].pop("proj:epsg"), "names no CRS"),
        (lambda item: item["assets"].pop("qa_pixel"), "needs QA_PIXEL and bands"),
        (scaled(1e-4, 0.0), "states scale and offset .0.0001, 0.0.; a product of landsat-c2-l2"),
    ],
)
def test_landsat_that_cannot_be_read(items, change, text):
    item = items(LANDSAT)
    change(item)
    with pytest.raises(InputError, match=f"item '.*{text}"):
        scene_from_item(item, base=API)


def test_landsat_states_its_scale(items):
    item = items(LANDSAT)
    scaled(2.75e-05, -0.2)(item)
    assert scene_from_item(item, base=API).offset == 0


def written(path, *, dtype, nodata, value):
    """One file of 200 pixels of 30 m beside 15.8 E, 48.3 N."""
    profile = {
        "driver": "GTiff",
        "count": 1,
        "dtype": dtype,
        "nodata": nodata,
        "crs": "EPSG:32633",
        "transform": rasterio.Affine(30, 0, 556_320, 0, -30, 5_352_000),
        "height": 200,
        "width": 200,
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.full((200, 200), value, dtype), 1)


def local_item(folder, kind, *, nodata=-9999):
    """An HLS item whose files are there."""
    item = hls(
        kind,
        f"HLS.{kind}.T33UWP.2021180T100559.v2.0",
        time="2021-06-29T10:08:07Z",
        longitude=15.8,
        latitude=48.3,
        keys=("B04", "B05", "Fmask"),
    )
    for key, record in item["assets"].items():
        record["href"] = f"{key}.tif"
        dtype, value = ("uint8", 0) if key == "Fmask" else ("int16", -12)
        written(
            folder / f"{key}.tif",
            dtype=dtype,
            value=value,
            nodata=255 if key == "Fmask" else nodata,
        )
    return scene_from_item(item, base=str(folder / "item.json"))


@pytest.mark.parametrize(("kind", "bands"), [("S30", ("B04", "B05")), ("L30", ("B04", "B8A"))])
def test_hls_is_locked_without_asking_its_pixels_for_an_offset(tmp_path, kind, bands):
    found = SceneList(scenes=(local_item(tmp_path, kind),))
    (scene,) = lock_scenes(found, bands=bands).scenes
    assert scene.is_locked
    assert (scene.offset, scene.offset_reason) == (0, f"hls-{kind.lower()} has no such offset")
    assert list(scene.assets) == [*bands, "SCL"]
    assert scene.assets[bands[1]].href.endswith("B05.tif")
    assert scene.assets["SCL"].shape == (200, 200)


def test_files_must_be_what_the_sensor_has(tmp_path):
    found = SceneList(scenes=(local_item(tmp_path, "S30", nodata=0),))
    with pytest.raises(
        InputError, match=r"asset B04: the file's nodata is 0.0; a product has -9999"
    ):
        lock_scenes(found, bands=("B04",))


def test_landsat_is_locked(tmp_path, items):
    item = items(LANDSAT)
    item["geometry"]["coordinates"] = [[[15, 48], [16.5, 48], [16.5, 49], [15, 49], [15, 48]]]
    for key in ("red", "qa_pixel"):
        nodata, value = (1, 21824) if key == "qa_pixel" else (0, 9000)
        written(tmp_path / f"{key}.tif", dtype="uint16", nodata=nodata, value=value)
        item["assets"][key]["href"] = f"{key}.tif"
    scene = scene_from_item(item, base=str(tmp_path / "item.json"))
    (locked,) = lock_scenes(SceneList(scenes=(scene,)), bands=("B04",)).scenes
    assert locked.epsg == 32633  # the file's own, not the item's 32615
    assert locked.assets["SCL"].transform == (30, 0, 556320, 0, -30, 5352000)
    without = SceneList(scenes=(scene,))
    with pytest.raises(InputError, match="none of 1 scenes has all of B05, SCL"):
        lock_scenes(without, bands=("B05",))


def test_an_api_is_asked_for_scenes_sensed_before_the_period_that_names_them(items):
    """Noon of the local solar date, and the nominal crossing, may be in April, the sensing in March."""
    april = Period.of_month(2022, 4)
    time = "2022-03-31T23:30:00Z"
    name = "HLS.S30.T56JKT.2022090T233000.v2.0"
    solar = hls("S30", name, time=time, longitude=150.0, latitude=-30.0, keys=S30_KEYS)
    crossing = items(LANDSAT)
    crossing["id"] = "LC09_L2SP_104060_20220331_02_T1"
    crossing["collection"] = "HLSS30_2.0"
    crossing["geometry"] = solar["geometry"]
    crossing["properties"] |= {
        "datetime": time,
        "platform": "landsat-9",
        "landsat:wrs_path": "104",
        "landsat:wrs_row": "060",
    }
    for item in (solar, crossing):
        with StacServer([item]) as server:
            query = SceneQuery(
                catalogue=server.url,
                collection="HLSS30_2.0",
                periods=(april,),
                bbox=(149.0, -31.0, 151.0, -29.0),
            )
            (scene,) = find_scenes(query).scenes
            assert april.holds(scene.overpass_start)
            assert scene.time < scene.overpass_start
            with pytest.raises(InputError, match="no usable scene"):
                find_scenes(replace(query, periods=(Period.of_month(2022, 3),)))
