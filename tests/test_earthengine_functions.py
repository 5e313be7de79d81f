"""What the Earth Engine of the tests computes: against NumPy, SciPy and loops over pixels."""

import json
import math
import warnings

import ee
import numpy as np
import pytest
import shapely
from earthengine import EarthEngineServer
from earthengine_catalogue import CLOUD_SCORE, SENTINEL, index_of
from earthengine_client import (
    LEFT,
    NATIVE,
    NEIGHBOUR,
    SCENES,
    SPEC,
    TOP,
    grid,
    one,
    open_client,
    pixels,
    scene_image,
    stored,
)
from google.auth.credentials import AnonymousCredentials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from scipy.ndimage import map_coordinates
from shapely.geometry import shape


@pytest.fixture(scope="module")
def forest(written):
    return written(SPEC)


@pytest.fixture(scope="module")
def running(forest):
    with EarthEngineServer(forest) as server:
        yield server


@pytest.fixture
def server(running):
    open_client(running)
    running.clear()
    yield running
    running.set_faults()
    running.pixel_limit = None
    ee.Reset()


def kind_of(image):
    return one(image, grid(2, 2)).dtype


# ---------------------------------------------------------------- what is computed


def looks(forest, name="B02", *, classes=(4, 5)):
    """Every look of the native zone, (look, y, x), NaN where the SCL has none of `classes`."""
    found = []
    for _, scene in sorted(SCENES.items()):
        if scene.epsg != 32648:
            continue
        counts, scl = stored(forest, scene, name)[0], stored(forest, scene, "SCL")[0]
        is_clear = np.isin(scl, classes).repeat(2, 0).repeat(2, 1) & (counts != 0)
        offset = 1000 if scene.offset_in_pixels else 0
        found.append(np.where(is_clear, np.maximum(counts.astype(float) - offset, 0), np.nan))
    return np.stack(found)


def masked_looks(name="B2"):
    def clear(image):
        scl = image.select("SCL")
        return image.select([name]).updateMask(scl.eq(4).Or(scl.eq(5)))

    return ee.ImageCollection(SENTINEL).filter(ee.Filter.eq("MGRS_TILE", "48SYC")).map(clear)


@pytest.mark.parametrize("method", ["median", "mean", "min", "max", "sum", "count"])
def test_reductions(server, forest, method):
    every = looks(forest)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a pixel that no look saw
        expected = (
            np.isfinite(every).sum(axis=0)
            if method == "count"
            else getattr(np, f"nan{method}")(every, axis=0)
        )
    image = getattr(masked_looks(), method)()
    found = pixels(image)
    assert found.dtype.names == ("B2",)
    np.testing.assert_allclose(found["B2"], np.nan_to_num(expected), rtol=1e-12)
    reduced = masked_looks().reduce(getattr(ee.Reducer, method)())
    np.testing.assert_array_equal(pixels(reduced)[f"B2_{method}"], found["B2"])
    kinds = {"median": "f8", "mean": "f8", "sum": "f8", "count": "u4"}
    assert found["B2"].dtype == kinds.get(method, "u2")


def test_mosaic_shows_the_last_and_quality_mosaic_the_best(server, forest):
    every = looks(forest)
    last, best = np.zeros((120, 120)), np.zeros((120, 120))
    quality = looks(forest, "B08")
    for row in range(120):
        for column in range(120):
            seen = every[:, row, column][np.isfinite(every[:, row, column])]
            last[row, column] = seen[-1] if len(seen) else 0
            score = quality[:, row, column]
            if np.isfinite(score).any():
                best[row, column] = every[np.nanargmax(score), row, column]
    np.testing.assert_array_equal(one(masked_looks().mosaic()), last)

    def both(image):
        scl = image.select("SCL")
        return image.select(["B2", "B8"]).updateMask(scl.eq(4).Or(scl.eq(5)))

    images = ee.ImageCollection(SENTINEL).filter(ee.Filter.eq("MGRS_TILE", "48SYC")).map(both)
    np.testing.assert_array_equal(pixels(images.qualityMosaic("B8"))["B2"], best)


def test_reducers_of_several_inputs_and_outputs(server, forest):
    every, quality = looks(forest), looks(forest, "B08")
    names = ["B8", "B2"]

    def both(image):
        scl = image.select("SCL")
        return image.select(names).updateMask(scl.eq(4).Or(scl.eq(5)))

    images = ee.ImageCollection(SENTINEL).filter(ee.Filter.eq("MGRS_TILE", "48SYC")).map(both)
    found = pixels(images.reduce(ee.Reducer.max(2)))
    assert found.dtype.names == ("max", "max1")
    is_seen = np.isfinite(quality).any(axis=0)
    at = np.argmax(np.nan_to_num(quality, nan=-1), axis=0)[None]
    expected = np.take_along_axis(every, at, axis=0)[0]
    np.testing.assert_array_equal(found["max1"][is_seen], expected[is_seen])
    combined = ee.Reducer.median().combine(ee.Reducer.count(), sharedInputs=True)
    found = pixels(images.reduce(combined))
    assert found.dtype.names == ("B8_median", "B8_count", "B2_median", "B2_count")
    np.testing.assert_array_equal(found["B2_count"], np.isfinite(every).sum(axis=0))


def test_an_empty_collection_has_no_bands(server):
    empty = ee.ImageCollection(SENTINEL).filterDate("2022-01-01", "2022-02-01")
    assert empty.size().getInfo() == 0
    assert empty.median().bandNames().getInfo() == []
    assert empty.mosaic().bandNames().getInfo() == []
    with pytest.raises(ee.EEException, match="no bands"):
        pixels(empty.median())
    with pytest.raises(ee.EEException, match=r"Band pattern 'B2' did not match.*bands: \[\]"):
        pixels(empty.median().select("B2"))
    with pytest.raises(ee.EEException, match=r"names \(1\) must match the number of bands \(0\)"):
        pixels(empty.median().rename(["a"]))
    with pytest.raises(ee.EEException, match=r"Image\.add: If one image has no bands.*1 and 0"):
        pixels(ee.Image(1).add(empty.median()))


def test_types_of_pixels(server):
    red, blue = (scene_image(NATIVE).select([name]) for name in ("B4", "B2"))
    scl = scene_image(NATIVE).select("SCL")
    for image, kind in {
        red: "u2",
        scl: "u1",
        red.add(1): "u4",
        red.subtract(blue): "i4",
        scl.add(1): "u2",
        scl.subtract(300): "i2",
        red.divide(10_000): "f4",
        red.divide(ee.Image(2.5)): "f8",
        red.multiply(0.5): "f8",
        red.multiply(2.0): "u4",  # JSON has no 2.0
        red.toFloat().add(1): "f4",
        red.gt(5): "u1",
        red.gt(5).And(scl.eq(4)): "u1",
        red.mask(): "f4",
        red.toInt16(): "i2",
        red.unmask(-32768): "i4",
        red.toInt16().unmask(-32768): "i2",
        ee.Image(7): "u1",
        red.toFloat().resample("bilinear"): "f4",
        red.bitwiseAnd(3): "u2",
        red.sqrt(): "f8",
        red.toFloat().round(): "f4",
    }.items():
        assert kind_of(image) == kind, image.serialize()
    assert pixels(ee.Image([1, -2, 0.5])).dtype == [
        ("constant", "u1"),
        ("constant_1", "i1"),
        ("constant_2", "f8"),
    ]


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (lambda: ee.Image(7).divide(2), 3.5),
        (lambda: ee.Image(7).divide(0), 0),
        (lambda: ee.Image(-7).mod(3), -1),
        (lambda: ee.Image(7.5).mod(2), 1.5),
        (lambda: ee.Image(2.5).round(), 3),
        (lambda: ee.Image(-2.5).round(), -2),
        (lambda: ee.Image(-2.5).floor(), -3),
        (lambda: ee.Image(40_000).toInt16(), 32_767),
        (lambda: ee.Image(-40_000.7).toInt16(), -32_768),
        (lambda: ee.Image(-1).toUint8(), 0),
        (lambda: ee.Image(2.9).toInt16(), 2),
        (lambda: ee.Image(-2.9).toInt16(), -2),
        (lambda: ee.Image(200).toUint8().add(100), 300),
        (lambda: ee.Image(3072).bitwiseAnd(1024), 1024),
        (lambda: ee.Image(-5).abs(), 5),
        (lambda: ee.Image(3).max(5).min(4), 4),
        (lambda: ee.Image(3).Not(), 0),
        (lambda: ee.Image(3).where(ee.Image(3).gt(2), 9), 9),
        (lambda: ee.Image([3, 4, 8]).reduce(ee.Reducer.mean()), 5),
        (lambda: ee.Image([3, 0]).reduce(ee.Reducer.allNonZero()), 0),
        (lambda: ee.Image([3, 4, 8, 9]).reduce(ee.Reducer.median()), 6),
        (lambda: ee.Image(ee.Number(3).add(4).divide(2)), 3.5),
        (lambda: ee.Image.constant(ee.List.sequence(1, 3)).reduce("sum"), 6),
    ],
)
def test_arithmetic(server, compute, expected):
    image = compute()
    assert (one(image, grid(2, 3)) == expected).all(), image.serialize()


def test_masks(server):
    image = ee.Image(5).updateMask(ee.Image(0))
    assert (one(image) == 0).all()
    assert (one(image.unmask(-3)) == -3).all()
    assert (one(image.add(1).unmask(4)) == 4).all()
    assert (one(ee.Image(5).updateMask(ee.Image(1)).mask()) == 1).all()
    assert (one(image.mask(ee.Image(1)).add(3)) == 3).all()  # what was masked becomes 0
    two = ee.Image([1, 2]).updateMask(ee.Image([1, 0]))
    found = pixels(two.unmask(9))
    assert (found["constant"] == 1).all()
    assert (found["constant_1"] == 9).all()
    with pytest.raises(ee.EEException, match="between 0 and 1"):
        pixels(ee.Image(5).updateMask(ee.Image(0.5)))


def test_unmask_stays_within_the_footprint_unless_told(server):
    away = grid(4, 4, column=-100)
    image = scene_image(NATIVE).select("B2")
    assert (one(image.unmask(6), away) == 0).all()
    assert (one(image.unmask(6, False), away) == 6).all()
    assert (one(image.unmask(6).unmask(8, False), away) == 8).all()


def test_bilinear(server, forest):
    counts, _ = stored(forest, NATIVE, "B11")
    offset = 1000 if NATIVE.offset_in_pixels else 0
    values = np.maximum(counts.astype(float) - offset, 0)
    image = scene_image(NATIVE).select("B11").toFloat().resample("bilinear")
    found = one(image, grid(100, 100, column=10, row=10))
    rows, columns = np.mgrid[10:110, 10:110]
    expected = map_coordinates(values, [(rows + 0.5) / 2 - 0.5, (columns + 0.5) / 2 - 0.5], order=1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    own = one(image, grid(60, 60, size=20))
    np.testing.assert_array_equal(own, values)


def test_bilinear_beside_masked_pixels(server, forest):
    """Nearest decides what is masked, weights are shared among the rest: pixel by pixel."""
    values = stored(forest, NATIVE, "B11")[0].astype(float)
    values -= 1000 if NATIVE.offset_in_pixels else 0
    values = np.maximum(values, 0)
    is_there = np.isin(stored(forest, NATIVE, "SCL")[0], (4, 5))
    scl = scene_image(NATIVE).select("SCL")
    image = scene_image(NATIVE).select("B11").updateMask(scl.eq(4).Or(scl.eq(5)))
    found = one(image.toFloat().resample("bilinear").unmask(-1, False))
    for row in range(0, 120, 3):
        for column in range(120):
            y, x = (row + 0.5) / 2 - 0.5, (column + 0.5) / 2 - 0.5
            total = weight = 0.0
            for i in (math.floor(y), math.floor(y) + 1):
                for j in (math.floor(x), math.floor(x) + 1):
                    if 0 <= i < 60 and 0 <= j < 60 and is_there[i, j]:
                        share = (1 - abs(y - i)) * (1 - abs(x - j))
                        total, weight = total + share * values[i, j], weight + share
            expected = total / weight if is_there[row // 2, column // 2] else -1
            assert found[row, column] == pytest.approx(expected, rel=1e-6)


def test_coarser_pixels(server, forest):
    counts, _ = stored(forest, NATIVE, "B08")
    offset = 1000 if NATIVE.offset_in_pixels else 0
    values = np.maximum(counts.astype(float) - offset, 0)
    image = scene_image(NATIVE).select("B8").toFloat()
    reduced = image.reduceResolution(ee.Reducer.mean(), False, 64)
    found = one(reduced, grid(40, 40, size=30))
    np.testing.assert_allclose(found, values.reshape(40, 3, 40, 3).mean(axis=(1, 3)), rtol=1e-6)
    found = one(reduced, grid(48, 48, size=25))  # pixels in parts
    fine = values.repeat(2, 0).repeat(2, 1)  # of 5 m
    np.testing.assert_allclose(found, fine.reshape(48, 5, 48, 5).mean(axis=(1, 3)), rtol=1e-6)
    with pytest.raises(ee.EEException, match="Too many input pixels"):
        pixels(image.reduceResolution(ee.Reducer.mean()), grid(12, 12, size=100))
    with pytest.raises(ee.EEException, match=r"3 times as long as they are.*pyramid"):
        pixels(image, grid(40, 40, size=30))
    own = image.reproject(image.projection())
    np.testing.assert_array_equal(one(own, grid(40, 40, size=30)), values[1::3, 1::3])


def test_coarser_pixels_of_another_zone(server, forest):
    counts, transform = stored(forest, NEIGHBOUR, "B08")
    offset = 1000 if NEIGHBOUR.offset_in_pixels else 0
    found = one(
        scene_image(NEIGHBOUR)
        .select("B8")
        .toFloat()
        .reduceResolution(ee.Reducer.mean(), False, 64)
        .unmask(-1, False),
        grid(30, 30, size=40),
    )
    rows, columns = np.nonzero(counts)
    there = Transformer.from_crs(32649, 32648, always_xy=True)
    x, y = there.transform(transform.c + 10 * columns + 5, transform.f - 10 * rows - 5)
    sums = {}
    for i, j, count in zip((TOP - y) // 40, (x - LEFT) // 40, counts[rows, columns], strict=True):
        if 0 <= i < 30 and 0 <= j < 30:
            sums.setdefault((int(i), int(j)), []).append(max(int(count) - offset, 0))
    for row in range(30):
        for column in range(30):
            inside = sums.get((row, column), [-1])
            assert found[row, column] == pytest.approx(np.mean(inside), rel=1e-6)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    column=st.integers(-30, 110),
    row=st.integers(-30, 110),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
)
def test_a_window_is_a_part_of_the_whole(server, column, row, width, height):
    scenes = [scene_image(scene).select(["B2", "B5"]) for scene in (NEIGHBOUR, NATIVE)]
    image = ee.ImageCollection(scenes).mosaic().toFloat().unmask(-1, False)
    whole = pixels(image, grid(220, 220, column=-40, row=-40))
    part = pixels(image, grid(width, height, column=column, row=row))
    rows, columns = slice(row + 40, row + 40 + height), slice(column + 40, column + 40 + width)
    np.testing.assert_array_equal(part, whole[rows, columns])


def test_strips_of_a_large_request_fit_together(server):
    image = masked_looks().median().unmask(-1)
    whole = one(image, grid(700, 300, column=-100, row=-100))
    np.testing.assert_array_equal(whole[100:220, 100:220], one(image))


# ---------------------------------------------------------------- collections and values


def indices(collection):
    return collection.aggregate_array("system:index").getInfo()


def test_filters(server, forest):
    every = ee.ImageCollection(SENTINEL)
    april = sorted(i for i, s in SCENES.items() if s.time.month == 4)
    assert indices(every.filterDate("2022-04-01", "2022-05-01")) == april
    assert indices(every.filter(ee.Filter.calendarRange(4, 4, "month"))) == april
    assert indices(every.filter(ee.Filter.inList("system:index", april))) == april
    old = sorted(i for i, s in SCENES.items() if s.baseline == "03.01" and s.tile == "48SYC")
    is_old = ee.Filter.And(
        ee.Filter.lt("PROCESSING_BASELINE", "04.00"), ee.Filter.eq("MGRS_TILE", "48SYC")
    )
    assert indices(every.filter(is_old)) == old
    others = sorted(set(SCENES) - set(old))
    assert indices(every.filter(is_old.Not())) == others
    assert every.filterBounds(ee.Geometry.Point([10, 50])).size().getInfo() == 0
    point = shapely.Point(107.625, 33.702)
    outlines = {
        index: shape(json.loads(path.read_text())["geometry"])
        for index, scene in SCENES.items()
        for path in forest.folder.glob(f"sentinel-2-l2a/*/{scene.id}.json")
    }
    meeting = sorted(index for index, one in outlines.items() if one.intersects(point))
    assert indices(every.filterBounds(ee.Geometry.Point([point.x, point.y]))) == meeting
    assert 0 < len(meeting) < 38  # one half of a granule does not
    there = Transformer.from_crs(4326, 32648, always_xy=True)
    x, y = there.transform(point.x, point.y)
    here = ee.Geometry.Rectangle([x - 1, y - 1, x + 1, y + 1], "EPSG:32648", False)
    assert indices(every.filterBounds(here)) == meeting
    clouds = every.sort("CLOUDY_PIXEL_PERCENTAGE").aggregate_array("CLOUDY_PIXEL_PERCENTAGE")
    assert clouds.getInfo() == sorted(clouds.getInfo())
    both = every.limit(2).merge(every.limit(1))
    first, second = sorted(SCENES)[:2]
    assert indices(both) == [f"1_{first}", f"1_{second}", f"2_{first}"]


def test_columns(server):
    every = ee.ImageCollection(SENTINEL).limit(3)
    names = ["system:index", "MGRS_TILE"]
    rows = every.reduceColumns(ee.Reducer.toList(2), names).getInfo()["list"]
    assert rows == [[i, SCENES[i].tile] for i in sorted(SCENES)[:3]]
    columns = every.reduceColumns(ee.Reducer.toList().repeat(2), names).getInfo()["list"]
    assert columns == [list(column) for column in zip(*rows, strict=True)]
    assert every.toList(3).map(lambda i: ee.Image(i).get("MGRS_TILE")).getInfo() == columns[1]
    numbered = every.map(lambda i: i.select([]).set("day", i.date().format("YYYY-MM-dd")))
    days = [f"{SCENES[i].time:%Y-%m-%d}" for i in columns[0]]
    assert numbered.aggregate_array("day").getInfo() == days
    assert indices(numbered) == columns[0]


def test_linked_collections(server):
    scores = ee.ImageCollection(CLOUD_SCORE)
    linked = ee.ImageCollection(SENTINEL).linkCollection(scores, ["cs_cdf"])
    image = ee.Image(linked.filter(ee.Filter.eq("system:index", index_of(NATIVE))).first())
    own = one(ee.Image(f"{CLOUD_SCORE}/{index_of(NATIVE)}").select("cs_cdf"))
    np.testing.assert_array_equal(one(image.select("cs_cdf")), own)
    others = scores.filter(ee.Filter.neq("system:index", index_of(NATIVE)))
    alone = scene_image(NATIVE).linkCollection(others, ["cs"])
    assert (one(alone.select("cs").mask()) == 0).all()


def test_joined_collections(server):
    condition = ee.Filter.equals(leftField="system:index", rightField="system:index")
    some = ee.ImageCollection(CLOUD_SCORE).limit(5)
    joined = ee.Join.saveFirst("score").apply(ee.ImageCollection(SENTINEL), some, condition)
    assert joined.size().getInfo() == 5
    found = ee.ImageCollection(joined).map(lambda i: i.addBands(ee.Image(i.get("score"))))
    assert "cs_cdf" in ee.Image(found.first()).bandNames().getInfo()


def test_dates(server):
    date = ee.Date("2022-01-31")
    assert date.advance(12, "hour").format().getInfo() == "2022-01-31T12:00:00"
    assert ee.Date("2022-12-01").advance(1, "month").format("YYYY-MM-dd").getInfo() == "2023-01-01"
    assert date.difference(ee.Date("2022-01-01"), "day").getInfo() == 30
    assert date.get("month").getInfo() == 1
    assert date.getInfo() == {"type": "Date", "value": 1643587200000}


def test_what_it_does_not_know_is_an_error_that_names_it(server):
    with pytest.raises(ee.EEException, match=r"does not know the function 'Image\.entropy'"):
        pixels(scene_image(NATIVE).select("B2").entropy(ee.Kernel.square(2)))
    with pytest.raises(ee.EEException, match=r"ImageCollection asset 'a/b' not found"):
        ee.ImageCollection("a/b").size().getInfo()
    with pytest.raises(ee.EEException, match="Image asset 'a/b' not found"):
        ee.Image("a/b").getInfo()
    with pytest.raises(ee.EEException, match="mode 'bicubic'"):
        pixels(scene_image(NATIVE).select("B2").resample("bicubic"))
    with pytest.raises(ee.EEException, match=r"composite.*resample what it is made of"):
        pixels(masked_looks().median().resample("bilinear"))


def test_another_project_is_not_registered(forest):
    told = "'projects/other' is not registered"
    with EarthEngineServer(forest) as server, pytest.raises(ee.EEException, match=told):
        ee.Initialize(credentials=AnonymousCredentials(), url=server.url, project="other")
    ee.Reset()
