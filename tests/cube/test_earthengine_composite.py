"""What Earth Engine is asked to compute, and what comes of it, against loops over the forest's files."""

import json
from collections import Counter
from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache

import ee
import numpy as np
import pytest
import rasterio
from affine import Affine
from earthengine import EarthEngineServer
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from odc.geo.geobox import GeoBox
from scipy.ndimage import gaussian_filter, map_coordinates

from cube.bands import BANDS, NODATA
from cube.cog.fetch import Patience
from cube.earthengine.access import Access
from cube.earthengine.composite import (
    COUNTS,
    Definition,
    answer_bands,
    composite_from_pixels,
    composite_without_looks,
)
from cube.earthengine.expression import CLOUD_SCORES, period_image
from cube.earthengine.reduce import half_even
from cube.earthengine.scenes import HARMONIZED, ImageQuery, find_images
from cube.earthengine.session import session
from cube.errors import InputError, WorkFailedError
from cube.forest import ForestSpec, scenes_of, true_scene
from cube.forest.catalogue import COLLECTION
from cube.periods import Period, periods_between
from cube.stac import search_area
from cube.stac.overpass import overpasses
from cube.stac.scene import Scene

YEAR = periods_between(Period.of_month(2022, 1), Period.of_month(2022, 12))
READ = ("B02", "B11", "AOT")
MAY, SEPTEMBER, OCTOBER = (Period.of_month(2022, month) for month in (5, 9, 10))


@pytest.fixture(scope="module")
def forest(written):
    return written(ForestSpec(scale=0.25, lying_share=0.0))


@pytest.fixture(scope="module")
def server(forest):
    with EarthEngineServer(forest, qa60="scl") as running:
        yield running


@pytest.fixture(scope="module")
def asked(server):
    return session(access(server))


def access(server):
    return Access(
        endpoint=server.url, project="test-project", patience=Patience(attempts=2, timeout=60.0)
    )


@pytest.fixture(scope="module")
def scenes(forest, asked):
    area = search_area(forest.spec.geobox)
    return find_images(asked, ImageQuery(periods=YEAR, geometry=area)).scenes


def answered(asked, scenes, period, window, bands, **definition):
    """Return reflectance and counts of a period, as the server computes them."""
    here = [scene for scene in scenes if period.holds(scene.overpass_start)]
    image = period_image(
        overpasses(here, epsg=window.crs.epsg),
        definition=Definition(**definition),
        period=period,
        window=window,
        bands=bands,
    )
    pixels = asked.pixels(image, window, answer_bands(bands))
    return pixels[: len(bands)], dict(zip(COUNTS, pixels[len(bands) :], strict=True))


# ---------------------------------------------------------------- the oracle


@cache
def counts(folder, name):
    with rasterio.open(folder / f"{name}.tif") as file:
        return file.read(1)


def measured(forest, scene, name):
    """Return (values in counts without offset, where there are any) of a layer on its own pixels."""
    raw = counts(forest.folder / COLLECTION / scene.id, name).astype(int)
    offset = 1000 if scene.offset_in_pixels and BANDS[name].has_offset else 0
    return np.maximum(raw - offset, 0), raw != 0


def brought(values, has_data, edge):
    """Return (values, where there are any) of a layer at 10 m, bilinear."""
    factor = edge // len(values)
    if factor == 1:
        return values, has_data
    at = (np.mgrid[:edge, :edge] + 0.5) / factor - 0.5
    # grid-constant: outside there is nothing, as where there is no data
    share = map_coordinates(has_data.astype(float), at, order=1, mode="grid-constant")
    total = map_coordinates(values * has_data.astype(float), at, order=1, mode="grid-constant")
    is_there = has_data.repeat(factor, 0).repeat(factor, 1)
    return np.floor(total / np.where(share > 0, share, 1) + 0.5), is_there


def is_open(forest, scene, mask, scl):
    """Return where a granule's sky is open by a mask, at 10 m."""
    if mask == "all":
        return scl > 1
    if mask == "scl":
        return np.isin(scl, (4, 5, 6, 7))
    if mask == "qa60":
        six = scl.reshape(len(scl) // 6, 6, -1, 6)
        return ~np.isin(six, (8, 9, 10)).any(axis=(1, 3)).repeat(6, 0).repeat(6, 1)
    truth = true_scene(forest.spec, scene.id)
    score = np.clip(gaussian_filter(1 - np.maximum(truth.cloud, truth.shadow), sigma=2), 0, 1)
    return score * score * (3 - 2 * score) >= 0.6


def looks_of(forest, period, mask):
    """Yield (day, values, is clear, is seen) of each overpass of a month on the native grid."""
    edge = forest.spec.edge
    passes = {}
    for scene in scenes_of(forest.spec):
        is_old = (scene.day, scene.sequence) == (148, 0)  # comes again as a newer product
        # what the other zone's tile has, the native one has too
        if (
            not is_old
            and scene.tile == "48SYC"
            and period.holds(scene.overpass_time.replace(tzinfo=UTC))
        ):
            passes.setdefault(scene.overpass_time, []).append(scene)
    for start, granules in sorted(passes.items()):
        values = np.zeros((len(READ), edge, edge))
        is_there, is_clear, is_seen = (np.zeros((edge, edge), bool) for _ in range(3))
        for scene in sorted(granules, key=lambda s: s.created, reverse=True):
            scl = counts(forest.folder / COLLECTION / scene.id, "SCL").repeat(2, 0).repeat(2, 1)
            layers = [brought(*measured(forest, scene, name), edge) for name in READ]
            is_new = (scl > 1) & ~is_there
            for _, has_data in layers:
                is_new &= has_data
            for index, (layer, _) in enumerate(layers):
                values[index][is_new] = (layer * BANDS[READ[index]].stored_per_count)[is_new]
            is_clear |= is_new & is_open(forest, scene, mask, scl)
            is_there |= is_new
            is_seen |= scl > 1
        yield (start.date() - date(1970, 1, 1)).days, values, is_clear, is_seen


def reduced(method, values, is_clear):
    """Return the composite of (look, band, y, x) values by a loop over numbers of clear looks."""
    out = np.full(values.shape[1:], NODATA)
    count = is_clear.sum(axis=0)
    for y, x in np.argwhere(count > 0):
        clear = values[is_clear[:, y, x], :, y, x]  # (look, band)
        if method == "median":
            out[:, y, x] = np.rint(np.median(clear, axis=0))
        elif method == "mean":
            out[:, y, x] = np.rint(clear.mean(axis=0))
        else:
            cost = [np.abs(clear - one).sum() for one in clear]
            out[:, y, x] = clear[cost.index(min(cost))]
    return out, count


# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize("mask", ["cloud-score-plus", "scl", "qa60"])
@pytest.mark.parametrize("period", [MAY, SEPTEMBER, OCTOBER], ids=str)
def test_composites_equal_a_loop_over_looks(forest, asked, scenes, period, mask):
    days, values, is_clear, is_seen = map(
        np.array, zip(*looks_of(forest, period, mask), strict=True)
    )
    first = period.start.astype("M8[D]").astype(int)
    window = forest.spec.geobox[20:90, 10:110]  # the swath's edge and the split lie inside
    part = np.s_[..., 20:90, 10:110]
    for method in ("median", "mean", "medoid"):
        found, told = answered(asked, scenes, period, window, READ, mask=mask, method=method)
        expected, count = reduced(method, values[part], is_clear[part])
        np.testing.assert_array_equal(told["clear_count"], count)
        np.testing.assert_array_equal(told["seen_count"], is_seen[part].sum(axis=0))
        np.testing.assert_array_equal(found, expected)
        mean = (days[:, None, None] * is_clear[part]).sum(axis=0) / np.maximum(count, 1)
        offset = np.where(count > 0, np.rint(mean) - first, 0)
        np.testing.assert_array_equal(told["day_offset"], offset)
    assert {0, 1} <= set(np.unique(count % 2))  # medians of even and odd numbers


def test_the_threshold_and_the_classes_decide(asked, scenes, forest):
    window = forest.spec.geobox
    strict, lax = (
        answered(asked, scenes, MAY, window, ("B04",), threshold=value)[1]["clear_count"]
        for value in (0.95, 0.3)
    )
    assert (strict <= lax).all()
    assert strict.sum() < lax.sum()
    few, all_ground = (
        answered(asked, scenes, MAY, window, ("B04",), mask="scl", classes=classes)[1]
        for classes in ((4,), tuple(range(2, 12)))
    )
    assert (few["clear_count"] <= all_ground["clear_count"]).all()
    np.testing.assert_array_equal(all_ground["clear_count"], all_ground["seen_count"])


def test_an_image_without_qa60_has_no_cloud(forest, scenes):
    for kind in ("absent", "empty"):
        with EarthEngineServer(forest, qa60=kind) as running:
            here = session(access(running))
            _, told = answered(here, scenes, MAY, forest.spec.geobox, ("B04",), mask="qa60")
        np.testing.assert_array_equal(told["clear_count"], told["seen_count"])


@pytest.mark.parametrize("size", [20, 30, 60, 120])
def test_coarse_pixels_are_means_of_all_they_cover(forest, asked, scenes, size):
    window = forest.spec.geobox.zoom_out(size / 10)
    (one,) = [scene for scene in scenes if scene.overpass_start.timetuple().tm_yday == 278]
    found, told = answered(
        asked, [one], OCTOBER, window, ("B04", "B8A"), mask="scl", classes=tuple(range(2, 12))
    )
    (true,) = [scene for scene in scenes_of(forest.spec) if scene.day == 278]
    for index, (name, native) in enumerate((("B04", 10), ("B8A", 20))):
        values, has_data = measured(forest, true, name)
        assert has_data.all()
        if size == 1.5 * native:
            continue  # bilinear, as files are read
        step = size // native
        rows = values.reshape(len(values) // step, step, -1, step)
        np.testing.assert_array_equal(found[index], np.floor(rows.mean(axis=(1, 3)) + 0.5))
    scl = counts(forest.folder / COLLECTION / true.id, "SCL")
    at = (np.arange(window.shape[0]) + 0.5) * size // 20
    assert (told["seen_count"] == (scl[np.ix_(at.astype(int), at.astype(int))] > 1)).all()


def test_nearest_copies_pixels(forest, asked, scenes):
    (one,) = [scene for scene in scenes if scene.overpass_start.timetuple().tm_yday == 278]
    (true,) = [scene for scene in scenes_of(forest.spec) if scene.day == 278]
    values, _ = measured(forest, true, "B11")
    fine = answered(
        asked, [one], OCTOBER, forest.spec.geobox, ("B11",), mask="qa60", resampling="nearest"
    )[0][0]
    is_clear = fine != NODATA
    assert is_clear.any()
    np.testing.assert_array_equal(fine[is_clear], values.repeat(2, 0).repeat(2, 1)[is_clear])
    coarse = answered(
        asked,
        [one],
        OCTOBER,
        forest.spec.geobox.zoom_out(6),
        ("B11",),
        mask="qa60",
        resampling="nearest",
    )[0][0]
    is_clear = coarse != NODATA
    np.testing.assert_array_equal(coarse[is_clear], values[1::3, 1::3][is_clear])


# ---------------------------------------------------------------- the expression


SCENES = tuple(
    Scene(
        id=f"2022040{day}T032541_2022040{day}T033914_T{tile}",
        collection=HARMONIZED,
        time=datetime(2022, 4, day, 3, 39, 14, tzinfo=UTC),
        overpass=f"S2A_2022040{day}T032541",
        tile=tile,
        baseline="04.00",
        version=("", ""),
        epsg=epsg,
        footprint={},
        cloud_cover=None,
        assets={},
        offset=0,
        offset_reason="",
    )
    for day, tile, epsg in ((2, "48SYC", 32648), (2, "49SAT", 32649), (7, "48SYC", 32648))
)
GRID = GeoBox((512, 512), Affine(10, 0, 699960, 0, -10, 3500040), "EPSG:32648")
APRIL = Period.of_month(2022, 4)


def readable(expression):
    """Return an expression as lines from the inside to the outside, a long part used twice once."""
    values = expression["values"]
    uses = Counter()

    def count(node):
        if isinstance(node, dict):
            if set(node) == {"valueReference"}:
                uses[node["valueReference"]] += 1
                if uses[node["valueReference"]] == 1:
                    count(values[node["valueReference"]])
            else:
                if "functionDefinitionValue" in node:
                    count({"valueReference": node["functionDefinitionValue"]["body"]})
                for one in node.values():
                    count(one)
        elif isinstance(node, list):
            for one in node:
                count(one)

    count({"valueReference": expression["result"]})
    lines, names = [], {}

    def shown(node):
        ((kind, content),) = node.items()
        match kind:
            case "constantValue":
                return json.dumps(content)
            case "argumentReference":
                return content.removeprefix("_MAPPING_VAR_")
            case "arrayValue":
                return f"[{', '.join(map(shown, content['values']))}]"
            case "functionDefinitionValue":
                (name,) = content["argumentNames"]
                body = shown({"valueReference": content["body"]})
                return f"{name.removeprefix('_MAPPING_VAR_')} -> {body}"
            case "functionInvocationValue":
                given = content.get("arguments", {})
                short = content["functionName"].removeprefix("Image.")
                return f"{short}({', '.join(shown(given[key]) for key in sorted(given))})"
        name = content
        if uses[name] == 1 or "constantValue" in values[name]:
            return shown(values[name])
        if name not in names:
            text = shown(values[name])
            if len(text) > 28:
                lines.append(f"v{len(lines) + 1} = {text}")
                text = f"v{len(lines)}"
            names[name] = text
        return names[name]

    lines.append(shown({"valueReference": expression["result"]}))
    return lines


def lines_of(size=10, **definition):
    """Return the expression for two passes of April, the first in two zones, as lines."""
    image = period_image(
        overpasses(SCENES, epsg=32648),
        definition=Definition(**definition),
        period=APRIL,
        window=GRID.zoom_to(resolution=size),
        bands=("B02", "B8A", "AOT"),
    )
    text = "\n".join(readable(json.loads(image.serialize())))
    for scene, short in zip(SCENES, ("native", "neighbour", "later"), strict=True):
        text = text.replace(f'"{HARMONIZED}/{scene.id}"', short)
        text = text.replace(f'"{CLOUD_SCORES}/{scene.id}"', f"score of {short}")
    return text.splitlines()


MEDIAN_BY_SCORE = """
v1 = select(["B2", "B8A", "AOT"], 0_0, ["B02", "B8A", "AOT"])
v2 = min(
    multiply(floor(add(resample(toFloat(v1), "bilinear"), constant(0.5))), constant([1, 1, 10])),
    constant(32767))
v3 = gt(unmask(select(["SCL"], 0_0), false, constant(0)), constant(1))
v4 = ImageCollection.mosaic(ImageCollection.fromImages(List.map(
    0_0 -> addBands(
        updateMask(
            addBands(
                unmask(v2, false, constant(0)),
                rename(
                    gte(unmask(select(["cs_cdf"], 0_0), false, constant(0)), constant(0.6)),
                    ["clear"])),
            and(reduce(addBands(mask(v1), mask(v2)), Reducer.allNonZero()), v3)),
        rename(updateMask(v3, v3), ["seen"])),
    false,
    List.get(1, 1_0))))
v5 = unmask(select(["clear", "seen"], v4), false, constant(0))
v6 = toInt16(rename(constant(List.get(0, 1_0)), ["day", "rank"]))
v7 = ImageCollection.fromImages(List.map(
    1_0 -> addBands(
        addBands(
            addBands(
                updateMask(select(["B02", "B8A", "AOT"], v4), select(["clear"], v5)),
                v5),
            multiply(select(["day"], v6), select(["clear"], v5))),
        select(["rank"], v6)),
    false,
    [[[2, 0], [
        addBands(load(neighbour), ["cs_cdf"], load(score of neighbour)),
        addBands(load(native), ["cs_cdf"], load(score of native))]],
     [[7, 1], [
        addBands(load(later), ["cs_cdf"], load(score of later))]]]))
v8 = unmask(
    toDouble(ImageCollection.reduce(
        Collection.map(0_0 -> select(["B02", "B8A", "AOT"], 0_0), v7),
        Reducer.median(3))),
    false,
    constant(-32768))
v9 = floor(add(v8, constant(0.5)))
v10 = unmask(
    ImageCollection.reduce(
        Collection.map(0_0 -> select(["clear", "seen", "day"], 0_0), v7), Reducer.sum()),
    false,
    constant(0))
v11 = divide(toDouble(select([2], v10)), max(select([0], v10), constant(1)))
v12 = floor(add(v11, constant(0.5)))
toInt16(rename(
    addBands(
        addBands(
            addBands(
                subtract(v9, and(
                    eq(subtract(v9, v8), constant(0.5)),
                    neq(mod(v9, constant(2)), constant(0)))),
                select([0], v10)),
            select([1], v10)),
        multiply(
            subtract(
                subtract(v12, and(
                    eq(subtract(v12, v11), constant(0.5)),
                    neq(mod(v12, constant(2)), constant(0)))),
                constant(1)),
            gt(select([0], v10), constant(0)))),
    ["B02", "B8A", "AOT", "clear_count", "seen_count", "day_offset"]))
"""


def packed(text):
    return "".join(text.split())


def test_the_expression_of_a_median_by_cloud_score(asked):
    assert packed("".join(lines_of())) == packed(MEDIAN_BY_SCORE)


@pytest.mark.parametrize(
    ("definition", "wanted", "unwanted"),
    [
        (
            {"mask": "scl"},
            """v3 = unmask(select(["SCL"], 0_0), false, constant(0))
            | and(reduce(addBands(mask(v1), mask(v2)), Reducer.allNonZero()), gt(v3, constant(1)))
            | rename(or(or(or(eq(v3, constant(4)), eq(v3, constant(5))), eq(v3, constant(6))),
                eq(v3, constant(7))), ["clear"])
            | [[[2, 0], [load(neighbour), load(native)]], [[7, 1], [load(later)]]]""",
            "cs_cdf",
        ),
        (
            {"mask": "qa60"},
            """rename(eq(bitwiseAnd(toInt(unmask(select(["QA60"],
                addBands(0_0, rename(toUint16(constant(0)), ["QA60"]))), false, constant(0))),
                constant(3072)), constant(0)), ["clear"])""",
            "cs_cdf",
        ),
        ({"threshold": 0.65}, "constant(0.65)", "constant(0.6)"),
        (
            {"method": "mean"},
            """unmask(toDouble(divide(toDouble(ImageCollection.reduce(Collection.map(
                0_0 -> select(["B02", "B8A", "AOT"], 0_0), v7), Reducer.sum())), v9)), false,
                constant(-32768))
            | v9 = max(select([0], v8), constant(1))""",
            "Reducer.median",
        ),
        (
            {"method": "medoid"},
            """v1 = select(["B02", "B8A", "AOT"], 4_0)
            | select(["B02", "B8A", "AOT"], ImageCollection.qualityMosaic(Collection.map(
                4_0 -> addBands(v1, rename(subtract(multiply(toDouble(ImageCollection.reduce(
                Collection.map(0_0 -> reduce(abs(subtract(0_0, v1)), Reducer.sum()),
                Collection.map(0_0 -> select(["B02", "B8A", "AOT"], 0_0), v8)), Reducer.sum())),
                constant(-2)), select(["rank"], 4_0)), ["nearness"])), v8), "nearness"))""",
            "Reducer.median",
        ),
        (
            {"size": 30},
            """reproject(Projection("EPSG:32648"), [30.0, 0.0, 699960.0, 0.0, -30.0, 3500040.0],
                reduceResolution(false, toFloat(select(["B2"], 0_0, ["B02"])), 25, Reducer.mean()))
            | resample(toFloat(v1), "bilinear")
            | unmask(reproject(projection(select(["SCL"], 0_0)), select(["SCL"], 0_0)), false,
                constant(0))
            | unmask(reproject(projection(select(["cs_cdf"], 0_0)), select(["cs_cdf"], 0_0)), false,
                constant(0))""",
            """select(["SCL"],0_0),false""",
        ),
        (
            {"resampling": "nearest"},
            "min(multiply(toFloat(v1), constant([1, 1, 10])), constant(32767))",
            "resample",
        ),
        ({"resampling": "nearest", "size": 30}, "reproject(projection(", "reduceResolution"),
    ],
    ids=str,
)
def test_what_a_definition_changes_in_the_expression(asked, definition, wanted, unwanted):
    text = packed("".join(lines_of(**definition)))
    for part in wanted.split("|"):
        assert packed(part) in text
    assert unwanted not in text


@pytest.mark.parametrize("method", ["median", "mean", "medoid"])
def test_an_expression_grows_with_its_images_alone(asked, method):
    bands = tuple(name for name in BANDS if name not in ("B01", "B09", "AOT", "WVP"))

    def size(number):
        many = [(replace(SCENES[0], id=f"{SCENES[0].id}_{i:03}"),) for i in range(number)]
        image = period_image(
            many, definition=Definition(method=method), period=APRIL, window=GRID, bands=bands
        )
        return len(image.serialize())

    few, more, most = size(10), size(20), size(40)
    assert len(bands) == 10
    assert most < 50_000
    assert most - more == pytest.approx(2 * (more - few), rel=0.01)


@pytest.mark.parametrize("first", ["2022-04-27", "2022-04-28"])
def test_halves_go_to_even_dates_whatever_day_a_period_begins(asked, scenes, forest, first):
    period = Period.of_days(np.datetime64(first), np.datetime64("2022-05-06"))
    _, told = answered(
        asked, scenes, period, forest.spec.geobox, ("B02",), mask="scl", classes=tuple(range(2, 12))
    )
    days, _, is_clear, _ = map(np.array, zip(*looks_of(forest, period, "all"), strict=True))
    mean = (days[:, None, None] * is_clear).sum(axis=0) / is_clear.sum(axis=0)
    assert (mean % 1 == 0.5).any()
    np.testing.assert_array_equal(
        told["day_offset"], np.rint(mean) - np.datetime64(first, "D").astype(int)
    )


@settings(max_examples=20, deadline=None)
@given(halves=st.lists(st.integers(-60_000, 60_000), min_size=1, max_size=40))
def test_halves_go_to_the_even_number(asked, halves):
    values = [half / 2 for half in halves]
    names = tuple(f"b{number}" for number in range(len(values)))
    image = half_even(ee.Image.constant(values).toDouble()).toInt16().rename(list(names))
    found = asked.pixels(image, GRID[:1, :1], names)[:, 0, 0]
    np.testing.assert_array_equal(found, np.rint(values))


# ---------------------------------------------------------------- what cannot be asked


@pytest.mark.parametrize(
    ("definition", "text"),
    [
        ({"mask": "s2cloudless"}, "mask 's2cloudless' cannot be had from Earth Engine; expected"),
        ({"method": "best"}, "composite 'best' cannot be had from Earth Engine; expected one of"),
        ({"resampling": "cubic"}, "resampling 'cubic' cannot be had from Earth Engine"),
        ({"threshold": 1.2}, "mask threshold is 1.2; cs_cdf goes from 0 to 1"),
        ({"threshold": float("nan")}, "mask threshold is nan; cs_cdf goes from 0 to 1"),
        ({"classes": (0, 4)}, r"mask classes \[0\] can never be clear"),
        ({"classes": ()}, "mask classes are empty"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_definitions_that_cannot_be(definition, text):
    with pytest.raises(InputError, match=text):
        unchecked(Definition)(**definition)


def unchecked(kind):
    """Return what makes a dataclass without the types being checked, as a caller of no test does."""

    def make(**values):
        made = object.__new__(kind)
        for field in fields(kind):
            object.__setattr__(made, field.name, values.get(field.name, field.default))
        made.__post_init__()
        return made

    return make


def test_grids_that_cannot_be_asked_for(asked):
    feet = GeoBox((8, 8), Affine(30, 0, 0, 0, -30, 0), "EPSG:2263")
    nowhere = GeoBox((8, 8), Affine(10, 0, 0, 0, -10, 0), None)
    for window, text in (
        (feet, "the grid is in 'US survey foot'; Earth Engine is asked for grids in metres or"),
        (nowhere, "the window has no CRS"),
    ):
        with pytest.raises(InputError, match=text):
            period_image(
                [SCENES[:1]],
                definition=Definition(),
                period=APRIL,
                window=window,
                bands=("B02",),
            )
    with pytest.raises(InputError, match="no scene is given for 2022-04"):
        period_image([], definition=Definition(), period=APRIL, window=GRID, bands=("B02",))


# ---------------------------------------------------------------- the answer


@settings(max_examples=40, deadline=None)
@given(
    clear=arrays(np.int16, (3, 4), elements=st.integers(0, 5)),
    offset=arrays(np.int16, (3, 4), elements=st.integers(0, 30)),
    period=st.sampled_from(
        [
            Period.of_month(2024, 12),
            Period.parse("2023-12-17/2024-01-20"),
            Period.parse("2024-02-20/2024-03-25"),
        ]
    ),
)
def test_an_answer_becomes_a_composite(clear, offset, period):
    offset = np.where(clear > 0, offset, 0).astype(np.int16)
    values = np.where(clear > 0, 7, NODATA).astype(np.int16)
    pixels = np.stack([values, values, clear, clear, offset])
    made = composite_from_pixels(pixels, period, scenes=("a", "b+c", "d", "e", "f"))
    assert made.scenes == ("a", "b+c", "d", "e", "f")
    np.testing.assert_array_equal(made.reflectance, pixels[:2])
    np.testing.assert_array_equal(made.clear_count, clear)
    np.testing.assert_array_equal(made.seen_count, clear)
    for at in np.ndindex(clear.shape):
        day = period.start.astype("M8[D]").item() + timedelta(days=int(offset[at]))
        assert made.mean_day[at] == (day.timetuple().tm_yday if clear[at] else 0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({0: 5}, "has values where it counts no clear look, or none where it counts some"),
        ({1: 1}, "has values where it counts no clear look, or none where it counts some"),
        ({1: 3, 0: 5}, "counts 3..3 clear looks of 2, which cannot be"),
        ({1: -1}, "counts -1..-1 clear looks of 2, which cannot be"),
        ({2: 3}, "counts 3..3 seen looks of 2, which cannot be"),
        ({1: 1, 0: 5, 3: 30}, "has looks of 30..30 days after 2022-04-01; the period has 30"),
        ({3: -1}, "has looks of -1..-1 days after 2022-04-01; the period has 30"),
    ],
)
def test_an_answer_that_contradicts_itself_is_refused(change, text):
    pixels = np.array([NODATA, 0, 2, 0], np.int16)[:, None, None] * np.ones((1, 2, 2), np.int16)
    assert composite_from_pixels(pixels, APRIL, scenes=("a", "b")).clear_count.max() == 0
    for layer, value in change.items():
        pixels[layer] = value
    with pytest.raises(WorkFailedError, match=f"composite of 2022-04 {text}"):
        composite_from_pixels(pixels, APRIL, scenes=("a", "b"))


def test_a_period_without_looks_is_nothing_everywhere():
    made = composite_without_looks((2, 3), ("B02", "B03"))
    assert made.reflectance.shape == (2, 2, 3)
    assert (made.reflectance == NODATA).all()
    for count in (made.clear_count, made.seen_count, made.mean_day):
        assert (count.shape, count.dtype) == ((2, 3), np.uint16)
        assert not count.any()
