"""Composites through Earth Engine: the same as through files, in order, bounded, sent to workers."""

import pickle
import re
import threading
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from affine import Affine
from earthengine import EarthEngineServer
from loopback import Answer
from odc.geo.geobox import GeoBox

from cube.bands import NODATA
from cube.cog.fetch import Patience
from cube.composite import SceneComposites
from cube.earthengine.access import Access
from cube.earthengine.composite import Definition, composite_without_looks
from cube.earthengine.scenes import ImageQuery, find_images
from cube.earthengine.session import session
from cube.earthengine.source import LOOK_AHEAD, EarthEngineSource, Requests
from cube.errors import InputError, WorkFailedError
from cube.forest import ForestSpec
from cube.periods import Period, periods_between
from cube.source import PeriodSource, SeriesSource
from cube.stac import (
    SceneList,
    SceneQuery,
    StacSource,
    find_scenes,
    lock_scenes,
    read_scenes,
    search_area,
    write_scenes,
)
from cube.stac.kept import KeptScenes

YEAR = periods_between(Period.of_month(2022, 1), Period.of_month(2022, 12))
JANUARY, MAY, JUNE, SEPTEMBER = (YEAR[number - 1] for number in (1, 5, 6, 9))
BANDS = ("B02", "B03", "B04", "B05", "B08", "B8A", "B11", "B12", "AOT", "WVP")


@pytest.fixture(scope="module")
def forest(written):
    return written(ForestSpec(scale=0.25, lying_share=0.0))


@pytest.fixture(scope="module")
def running(forest):
    with EarthEngineServer(forest) as server:
        yield server


@pytest.fixture
def server(running):
    """The server, its log empty and without limits."""
    running.clear()
    yield running
    running.pixel_limit = None
    running.set_faults()


@pytest.fixture(scope="module")
def lock(forest, running, tmp_path_factory):
    path = tmp_path_factory.mktemp("lock") / "scenes.parquet"
    query = ImageQuery(periods=YEAR, geometry=search_area(forest.spec.geobox))
    write_scenes(path, find_images(session(access(running)), query))
    return path


@pytest.fixture(scope="module")
def files(forest, tmp_path_factory):
    """The same year through the forest's STAC catalogue, offsets settled by the pixels."""
    found = find_scenes(
        SceneQuery(
            catalogue=str(forest.catalogue),
            collection="sentinel-2-l2a",
            periods=YEAR,
            geometry=search_area(forest.spec.geobox),
            bands=(*BANDS, "B01"),
        )
    )
    path = tmp_path_factory.mktemp("stac") / "scenes.parquet"
    write_scenes(path, lock_scenes(found, bands=(*BANDS, "B01"), offset="verify"))
    return path


def access(server, **changes):
    patience = Patience(attempts=2, first_pause=0.01, timeout=60.0)
    return Access(
        **{"endpoint": server.url, "project": "test-project", "patience": patience} | changes
    )


def source(server, lock, **definition):
    return EarthEngineSource(
        scenes=lock, access=access(server), definition=Definition(**{"mask": "scl"} | definition)
    )


def assert_equal(one, other):
    for name in ("reflectance", "clear_count", "seen_count", "mean_day"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.scenes == other.scenes


def grid_in(epsg, size, spec):
    """Return a grid over the middle of the forest in another CRS."""
    edges = spec.geobox.pad(-15).extent.to_crs(f"EPSG:{epsg}").boundingbox
    width, height = (int(span / size) for span in (edges.span_x, edges.span_y))
    return GeoBox((height, width), Affine(size, 0, edges.left, 0, -size, edges.top), f"EPSG:{epsg}")


# ---------------------------------------------------------------- the same as from files


@pytest.mark.parametrize(
    ("method", "periods"), [("median", YEAR), ("mean", YEAR[3:6]), ("medoid", YEAR[8:10])]
)
def test_on_the_scenes_own_grid_it_is_what_files_give(server, forest, lock, files, method, periods):
    here = source(server, lock, method=method)
    there = SceneComposites(catalogue=StacSource(scenes=files), method=method)
    for period in periods:
        found = here.composite(period, forest.spec.geobox, BANDS)
        expected = there.composite(period, forest.spec.geobox, BANDS)
        for name in ("clear_count", "seen_count", "mean_day"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        # Earth Engine's harmonised collection has no negative reflectance, files have some
        is_other = found.reflectance != expected.reflectance
        assert is_other.sum() <= 1
        assert (expected.reflectance[is_other] < 10).all()


# On other grids and at 60 m, means differ by one where they lie on the edge of a rounding: we round
# positions to 1/1024 pixel, so that no tile sees another than its neighbour, Earth Engine does not.


def test_bands_of_sixty_metres_differ_by_roundings(server, forest, lock, files):
    here, there = source(server, lock), SceneComposites(catalogue=StacSource(scenes=files))
    differences = [
        here.composite(period, forest.spec.geobox, ("B01",)).reflectance.astype(int)
        - there.composite(period, forest.spec.geobox, ("B01",)).reflectance
        for period in YEAR
    ]
    assert np.mean(np.array(differences) == 0) >= 0.97
    assert np.mean(np.abs(differences) <= 1) >= 0.999
    assert np.max(np.abs(differences)) <= 2


@pytest.mark.parametrize(
    ("epsg", "size", "period"),
    [
        (32649, 10, JUNE),  # two zones see this grid in one pass
        (32649, 10, SEPTEMBER),
        (32649, 15, JUNE),
        (4326, 0.0001, JUNE),
        (4326, 0.0001, SEPTEMBER),
    ],
)
def test_other_grids_differ_by_roundings(server, forest, lock, files, epsg, size, period):
    window = grid_in(epsg, size, forest.spec)
    here, there = source(server, lock), SceneComposites(catalogue=StacSource(scenes=files))
    found = here.composite(period, window, ("B02", "B8A"))
    expected = there.composite(period, window, ("B02", "B8A"))
    for name in ("clear_count", "seen_count", "mean_day"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    difference = np.abs(found.reflectance.astype(int) - expected.reflectance)
    assert np.mean(difference == 0) >= 0.96
    assert np.mean(difference <= 1) >= 0.999


@pytest.mark.parametrize("size", [20, 30, 60])
def test_coarse_grids_are_the_same_means(server, forest, lock, files, size):
    window = forest.spec.geobox.zoom_out(size / 10)
    here, there = source(server, lock), SceneComposites(catalogue=StacSource(scenes=files))
    found = here.composite(SEPTEMBER, window, ("B02", "B8A"))
    expected = there.composite(SEPTEMBER, window, ("B02", "B8A"))
    for name in ("reflectance", "clear_count", "seen_count", "mean_day"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_the_scenes_of_each_look_are_told(server, forest, lock):
    found = source(server, lock).composite(SEPTEMBER, forest.spec.geobox, ("B02",))
    days = [[name[:8] for name in look.split("+")] for look in found.scenes]
    assert days == [["20220905"], ["20220915", "20220915"], ["20220928"]]  # the 15th is split
    window = grid_in(32649, 10, forest.spec)
    (_, neighbours) = source(server, lock).composite(JUNE, window, ("B02",)).scenes[-2:]
    assert [name[-5:] for name in neighbours.split("+")] == ["49SAT", "48SYC"]  # own zone first


# ---------------------------------------------------------------- requests


def test_it_is_a_series_source(server, lock):
    assert isinstance(source(server, lock), PeriodSource)
    assert isinstance(source(server, lock), SeriesSource)


def test_a_series_is_its_composites_in_order(server, forest, lock):
    window = forest.spec.geobox[10:50, 20:90]
    here = source(server, lock)
    for found, period in zip(here.series(YEAR, window, ("B02", "B11")), YEAR, strict=True):
        assert_equal(found, here.composite(period, window, ("B02", "B11")))


def test_every_request_is_the_cubes_grid(server, forest, lock):
    window = forest.spec.geobox[8:40, 16:80]
    list(source(server, lock).series(YEAR, window, ("B02", "AOT")))
    assert len(server.pixel_requests) == 11  # of January there is no scene, so nothing is asked
    for body in server.pixel_requests:
        assert body["grid"] == {
            "dimensions": {"width": 64, "height": 32},
            "affineTransform": {
                "scaleX": 10,
                "shearX": 0,
                "translateX": window.transform.c,
                "shearY": 0,
                "scaleY": -10,
                "translateY": window.transform.f,
            },
            "crsCode": "EPSG:32648",
        }
        assert body["bandIds"] == ["B02", "AOT", "clear_count", "seen_count", "day_offset"]
        assert body["fileFormat"] == "NPY"


def test_a_period_without_a_scene_asks_nothing(server, forest, lock):
    found = source(server, lock).composite(JANUARY, forest.spec.geobox, ("B02", "B03"))
    assert (found.reflectance == NODATA).all()
    assert found.reflectance.shape == (2, *forest.spec.geobox.shape)
    assert found.scenes == ()
    far = GeoBox((8, 8), Affine(10, 0, 500000, 0, -10, 0), "EPSG:32648")
    assert not source(server, lock).composite(MAY, far, ("B02",)).seen_count.any()
    assert server.pixel_requests == ()


def test_the_requests_that_are_told_are_those_that_are_sent(server, forest, lock, monkeypatch):
    monkeypatch.setattr("cube.earthengine.requests.REQUEST_BYTES", 40_000)
    window = forest.spec.geobox
    here = source(server, lock)
    told = here.requests(YEAR, window, ("B02", "B03"))
    assert server.pixel_requests == ()
    list(here.series(YEAR, window, ("B02", "B03")))
    sizes = [body["grid"]["dimensions"] for body in server.pixel_requests]
    assert told == Requests(
        number=len(sizes), bytes=sum(size["width"] * size["height"] for size in sizes) * 5 * 2
    )
    assert told.number > 22
    assert here.requests((JANUARY,), window, ("B02",)) == Requests(number=0, bytes=0)


def test_a_window_that_is_cut_is_the_same(server, forest, lock):
    window = forest.spec.geobox[:64, :80]
    here = source(server, lock, method="mean")
    here = replace(here, access=access(server, requests_at_once=19))  # whose session ends up wary
    whole = here.composite(MAY, window, BANDS)
    server.clear()
    server.pixel_limit = 1500
    assert_equal(here.composite(MAY, window, BANDS), whole)
    assert len(server.pixel_requests) > 4


def test_tiles_are_parts_of_the_whole(server, forest, lock):
    here = source(server, lock, mask="cloud-score-plus")
    grid = grid_in(32649, 10, forest.spec)
    whole = here.composite(JUNE, grid, ("B02", "B05"))
    part = here.composite(JUNE, grid[13:50, 21:77], ("B02", "B05"))
    np.testing.assert_array_equal(part.reflectance, whole.reflectance[:, 13:50, 21:77])
    np.testing.assert_array_equal(part.clear_count, whole.clear_count[13:50, 21:77])


# ---------------------------------------------------------------- side by side


class Slow(EarthEngineSource):
    """Counts the composites that are under way or wait to be taken; `ready` lets them end."""

    def _made(self, passes, period, window, bands):
        STARTED.append(period)
        assert READY.wait(20)
        if period == FAILING:
            raise WorkFailedError(f"no {period}")
        return replace(composite_without_looks((1, 1), bands), scenes=(str(period),))


STARTED, READY, FAILING = [], threading.Event(), None


@pytest.fixture
def slow(running, lock, monkeypatch):
    monkeypatch.setattr(f"{__name__}.STARTED", [])
    monkeypatch.setattr(f"{__name__}.READY", threading.Event())
    return Slow(scenes=lock, access=access(running))


def wait_for(number):
    for _ in range(1000):
        if len(STARTED) >= number:
            break
        threading.Event().wait(0.01)
    threading.Event().wait(0.05)  # for one too many
    return len(STARTED)


@pytest.mark.parametrize(("at_once", "expected"), [(40, LOOK_AHEAD), (2, 2), (1, 1)])
def test_periods_are_asked_for_side_by_side_but_not_all(slow, forest, at_once, expected):
    slow = replace(slow, access=replace(slow.access, requests_at_once=at_once))
    series = slow.series(YEAR, forest.spec.geobox, ("B02",))
    first = threading.Thread(target=lambda: taken.extend(next(series).scenes))
    taken = []
    first.start()
    assert wait_for(expected) == expected
    READY.set()
    first.join()
    assert taken == [str(JANUARY)]
    assert wait_for(expected + 1) == expected + 1
    assert [one.scenes for one in series] == [(str(period),) for period in YEAR[1:]]
    assert sorted(STARTED) == list(YEAR)


def test_the_first_error_ends_a_series(slow, forest, monkeypatch):
    monkeypatch.setattr(f"{__name__}.FAILING", MAY)
    READY.set()
    series, taken = slow.series(YEAR, forest.spec.geobox, ("B02",)), []
    with pytest.raises(WorkFailedError, match="no 2022-05"):
        taken.extend(series)
    assert [one.scenes for one in taken] == [(str(period),) for period in YEAR[:4]]
    assert len(STARTED) <= 5 + LOOK_AHEAD


def test_a_series_that_is_closed_asks_no_more(slow, forest):
    READY.set()
    series = slow.series(YEAR, forest.spec.geobox, ("B02",))
    assert next(series).scenes == (str(JANUARY),)
    series.close()
    number = len(STARTED)
    assert number <= 1 + LOOK_AHEAD
    assert wait_for(number) == number


@pytest.fixture
def failing(server, monkeypatch):
    """Answer for May that it never can be; for the others as told: a header, or a slow failure."""
    tries = Counter()

    def fail(others):
        def answer(asked):
            (month,) = set(re.findall(rb"/2022(\d\d)\d\dT", asked.body))
            tries[month.decode()] += 1
            if month == b"05":
                told = {"code": 400, "message": "Band pattern 'B99' did not match any bands."}
                return Answer.of_json({"error": told}, 400)
            if others == "hang":
                time.sleep(0.3)
            return Answer(status=503, headers={"Retry-After": "200"} if others == "wait" else {})

        right = server.answer
        monkeypatch.setattr(
            server, "answer", lambda one: (answer if "computePixels" in one.path else right)(one)
        )
        return tries

    return fail


@pytest.mark.parametrize("others", ["fail", "hang", "wait"])
def test_a_period_that_fails_for_good_ends_the_others_at_their_next_try(
    failing, server, forest, lock, others
):
    tries = failing(others)
    patience = Patience(attempts=400, first_pause=0.005, longest_pause=0.01, longest_wait=300.0)
    here = replace(source(server, lock), access=access(server, patience=patience))
    with pytest.raises(WorkFailedError, match="'B99' did not match any bands"):
        list(here.series(YEAR, forest.spec.geobox[:8, :8], ("B02",)))
    assert tries.pop("05") == 1
    assert max(tries.values()) < (400 if others == "fail" else 5)


def test_a_series_that_is_closed_tries_no_more(failing, server, forest, lock):
    tries = failing("wait")
    patience = Patience(attempts=400, longest_wait=300.0)
    here = replace(source(server, lock), access=access(server, patience=patience))
    series = here.series(YEAR[:4], forest.spec.geobox[:8, :8], ("B02",))
    assert not next(series).seen_count.any()  # January, of which nothing is asked
    while len(tries) < 3:
        time.sleep(0.01)
    series.close()
    assert set(tries.values()) == {1}


def test_a_tile_is_looked_up_once_for_all_periods(server, forest, lock, monkeypatch):
    lookups, over = [], KeptScenes.over

    def counted(self, window, periods):
        lookups.append(len(periods))
        return over(self, window, periods)

    monkeypatch.setattr(KeptScenes, "over", counted)
    here, window = source(server, lock), forest.spec.geobox[:8, :8]
    list(here.series(YEAR, window, ("B02",)))
    here.requests(YEAR, window, ("B02",))
    assert lookups == [12, 12]
    by_period = here.passes_by_period(YEAR, window)
    assert by_period == {period: here.passes(period, window) for period in YEAR}
    assert sum(map(bool, by_period.values())) == 11


# ---------------------------------------------------------------- workers, and what goes wrong


def test_it_is_small_and_comes_back_from_a_pickle(server, forest, lock):
    here = source(server, lock, mask="qa60")
    packed = pickle.dumps(here)
    assert len(packed) < 2000
    assert pickle.loads(packed) == here
    window = forest.spec.geobox[:16, :16]
    assert_equal(
        pickle.loads(packed).composite(MAY, window, ("B02",)), here.composite(MAY, window, ("B02",))
    )


def test_another_scene_list_in_its_place_is_refused(server, forest, lock):
    here = replace(source(server, lock), fingerprint=read_scenes(lock).fingerprint)
    assert here.composite(MAY, forest.spec.geobox[:8, :8], ("B02",)).clear_count.any()
    other = replace(here, fingerprint="0" * 16)
    with pytest.raises(InputError, match="was replaced while this run read it; run again"):
        other.composite(MAY, forest.spec.geobox, ("B02",))
    with pytest.raises(InputError, match="was replaced while this run read it"):
        list(other.series(YEAR, forest.spec.geobox, ("B02",)))
    with pytest.raises(InputError, match="does not exist; run `canopycube lock RECIPE`"):
        replace(here, scenes=lock.with_name("none")).composite(MAY, forest.spec.geobox, ("B02",))


def test_a_scene_that_is_gone_is_an_error_that_travels(server, forest, lock, tmp_path, sent):
    scenes = read_scenes(lock).scenes
    gone = replace(scenes[0], id="20220207T000000_20220207T000000_T48SYC")
    write_scenes(tmp_path / "scenes.parquet", SceneList(scenes=(gone,)))
    here = source(server, tmp_path / "scenes.parquet")
    with pytest.raises(InputError, match=f"no longer has image '{gone.id}' of .*; run") as raised:
        here.composite(YEAR[1], forest.spec.geobox, ("B02",))
    assert len(server.pixel_requests) == 1  # asking again would not bring it back
    arrived = sent(raised.value)
    assert (type(arrived), str(arrived)) == (type(raised.value), str(raised.value))
