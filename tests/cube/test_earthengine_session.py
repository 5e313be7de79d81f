import importlib.resources
import io
import json
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import ee
import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback import Answer, Fault, LoopbackServer
from odc.geo.geobox import GeoBox

from cube.cog import TRAFFIC, Patience, allow_fetching, stop_fetching
from cube.earthengine import Access
from cube.earthengine import client as router
from cube.earthengine.exports import CloudStorage, Drive, operation_state
from cube.earthengine.giveup import tried_until
from cube.earthengine.requests import REQUEST_BYTES
from cube.earthengine.session import Session, session
from cube.earthengine.sizes import RUN as SIZES_RUN
from cube.earthengine.sizes import Sizes
from cube.earthengine.throttle import RUN, Throttle
from cube.errors import InputError, WorkFailedError

SHIPPED = importlib.resources.files("ee") / "tests"
DISCOVERY = json.loads((SHIPPED / "cloud_api_discovery_document.json").read_text())
ALGORITHMS = json.loads((SHIPPED / "algorithms.json").read_text())

WINDOW = GeoBox((48, 70), Affine(10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32633")
BANDS = ("B02", "B08", "clear_count")
FAST = Patience(attempts=8, first_pause=0.001, longest_pause=0.002, longest_wait=0.05, timeout=5.0)
PIXELS = "computePixels"


class CannedEarthEngine:
    """Answers as Earth Engine does, with pixels that follow from where they lie."""

    def __init__(self):
        self.asked = []
        self.exports = {}
        self.refuse = None
        self.spoil = None

    def __call__(self, asked):
        if asked.path.endswith("$discovery/rest"):
            return Answer.of_json(DISCOVERY)
        if asked.path.endswith("/algorithms"):
            return Answer.of_json(ALGORITHMS)
        body = json.loads(asked.body) if asked.body else {}
        self.asked.append(body)
        if self.refuse and (refusal := self.refuse(asked, body)):
            return refusal
        if asked.path.endswith("/value:compute"):
            return Answer.of_json({"result": [1, {"a": "b"}]})
        if asked.path.endswith("/image:computePixels"):
            return Answer(body=self.pixels(body))
        if asked.path.endswith("/image:export"):
            number = len(self.exports) + 1
            name = f"projects/test-project/operations/NUMBER{number}"
            return Answer.of_json({"name": self.exports.setdefault(body["requestId"], name)})
        if "/operations/" in asked.path:
            name = asked.path.split("/", 2)[2].removesuffix(":cancel")
            return Answer.of_json({"name": name, "metadata": {"state": "RUNNING"}})
        return Answer(status=404)

    def pixels(self, body):
        grid, transform = body["grid"]["dimensions"], body["grid"]["affineTransform"]
        values = truth_at(
            transform["translateX"], transform["translateY"], grid["height"], grid["width"]
        )
        kinds = [(name, "<i2") for name in body["bandIds"]]
        found = np.empty((grid["height"], grid["width"]), kinds)
        for number, (name, _) in enumerate(kinds):
            found[name] = values + number
        if self.spoil:
            found = self.spoil(found)
        file = io.BytesIO()
        np.save(file, found)
        return file.getvalue()


def truth_at(left, top, height, width):
    y, x = np.mgrid[0:height, 0:width]
    column, row = (left - 500_000) / 10 + x, (5_000_000 - top) / 10 + y
    return (column * 7 + row * 131).astype(np.int16)


TRUTH = np.stack([truth_at(500_000, 5_000_000, 48, 70) + number for number in range(3)])


def error(status, message, *, kind="INVALID_ARGUMENT", **headers):
    content = {"error": {"code": status, "message": message, "status": kind}}
    answer = Answer.of_json(content, status)
    return replace(answer, headers={**answer.headers, **headers})


def too_large_above(pixels, message="User memory limit exceeded."):
    def refuse(asked, body):
        grid = body.get("grid", {"dimensions": {"width": 0, "height": 0}})["dimensions"]
        return error(400, message) if grid["width"] * grid["height"] > pixels else None

    return refuse


@pytest.fixture
def earth_engine():
    return CannedEarthEngine()


@pytest.fixture
def server(earth_engine):
    with LoopbackServer(earth_engine) as running:
        yield running


def opened(server, **changes):
    access = {"endpoint": server.url, "project": "test-project", "patience": FAST} | changes
    return session(Access(**access))


@pytest.fixture
def ours(server):
    found = opened(server)
    server.clear()
    return found


def image():
    return ee.Image.constant(1)


def grids(earth_engine):
    return [body["grid"]["dimensions"] for body in earth_engine.asked if "grid" in body]


# what is asked, and what comes of it


def test_pixels_come_as_they_lie(ours, earth_engine):
    found = ours.pixels(image(), WINDOW, BANDS)
    np.testing.assert_array_equal(found, TRUTH)
    assert found.dtype == np.int16
    assert found.flags.c_contiguous
    assert len(earth_engine.asked) == 1


def test_a_request_leaves_nothing_to_defaults(ours, earth_engine, server):
    ours.pixels(image(), WINDOW, BANDS)
    (asked,) = earth_engine.asked
    assert asked["fileFormat"] == "NPY"
    assert asked["bandIds"] == list(BANDS)
    assert asked["grid"] == {
        "dimensions": {"width": 70, "height": 48},
        "affineTransform": {
            "scaleX": 10,
            "shearX": 0,
            "translateX": 500_000,
            "shearY": 0,
            "scaleY": -10,
            "translateY": 5_000_000,
        },
        "crsCode": "EPSG:32633",
    }
    assert asked["expression"]["values"]["0"]["functionInvocationValue"]["functionName"] == (
        "Image.constant"
    )
    (line,) = server.requests
    assert line.target.endswith("/projects/test-project/image:computePixels")
    assert line.headers["x-goog-user-project"] == "test-project"
    assert "authorization" not in line.headers


def test_a_large_window_is_cut_beforehand(ours, server, earth_engine):
    window = GeoBox((1_500, 1_300), WINDOW.transform, WINDOW.crs)
    bands = tuple(f"B{number}" for number in range(15))
    found = ours.pixels(image(), window, bands)
    assert len(earth_engine.asked) == 2
    assert all(line.sent < REQUEST_BYTES for line in server.requests)
    expected = truth_at(500_000, 5_000_000, 1_500, 1_300)
    for number in (0, 14):
        np.testing.assert_array_equal(found[number], expected + np.int16(number))


def test_a_value_comes_as_json(ours):
    assert ours.value(ee.Number(1).add(2)) == [1, {"a": "b"}]


def test_sessions_are_one_per_access(server):
    assert opened(server) is opened(server)
    assert opened(server, requests_at_once=3) is not opened(server)


def test_two_endpoints_work_side_by_side(server, ours):
    other = CannedEarthEngine()
    with LoopbackServer(other) as second:
        theirs = opened(second, project="other-project")
        with ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(one.pixels, image(), WINDOW, BANDS) for one in (ours, theirs) * 10]
            for job in jobs:
                np.testing.assert_array_equal(job.result(), TRUTH)
        assert {line.headers["x-goog-user-project"] for line in second.requests} == {
            "other-project"
        }
        assert sum(PIXELS in line.target for line in second.requests) == 10
    assert {line.headers["x-goog-user-project"] for line in server.requests} == {"test-project"}


def test_other_code_may_initialise_the_client_meanwhile(ours, server):
    ee.Initialize(credentials=None, url=server.url, project="of-the-user")
    np.testing.assert_array_equal(ours.pixels(image(), WINDOW, BANDS), TRUTH)
    assert server.requests[-1].headers["x-goog-user-project"] == "test-project"


def test_the_client_outside_a_session_goes_the_same_way(ours, server, monkeypatch):
    monkeypatch.setattr(router, "_others", [])
    ours.value(ee.Number(1))
    assert ee.Number(1).getInfo() == [1, {"a": "b"}]
    assert server.requests[-1].headers["x-goog-user-project"] == "test-project"


def test_a_session_travels_as_its_access(ours):
    travelled = pickle.dumps(ours)
    assert pickle.loads(travelled) is ours
    assert len(travelled) < 1_000


# what fails for a while


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_status_is_asked_again(ours, server, status):
    server.set_faults(Fault(kind="status", status=status, path=PIXELS, first=3))
    np.testing.assert_array_equal(ours.pixels(image(), WINDOW, BANDS), TRUTH)
    assert server.statuses == {status: 3, 200: 1}


@pytest.mark.parametrize("kind", ["reset", "truncate", "html"])
def test_a_broken_answer_is_asked_for_again(ours, server, kind):
    server.set_faults(Fault(kind=kind, path=PIXELS, first=3))
    np.testing.assert_array_equal(ours.pixels(image(), WINDOW, BANDS), TRUTH)
    assert server.faults == {kind: 3, "": 1}
    server.set_faults(Fault(kind=kind, path="value", first=3))
    assert ours.value(ee.Number(1)) == [1, {"a": "b"}]


def test_an_answer_that_does_not_come_is_asked_for_again(server):
    hasty = opened(server, patience=replace(FAST, timeout=0.1))
    server.set_faults(Fault(kind="hang", seconds=0.5, path=PIXELS, first=1))
    np.testing.assert_array_equal(hasty.pixels(image(), WINDOW, BANDS), TRUTH)


def test_the_client_is_started_in_spite_of_faults(server, monkeypatch):
    monkeypatch.setattr(router, "_others", [])  # as in a process that begins
    monkeypatch.setattr(ee.apifunction.ApiFunction, "_api", {})
    kinds = ("reset", "truncate", "html", "status")
    server.set_faults(*(Fault(kind=kind, share=0.2) for kind in kinds), seed=4)
    assert opened(server).value(ee.Number(1)) == [1, {"a": "b"}]
    assert len(server.faults) > 2


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_waited_for(server, monkeypatch, status):
    ours = opened(server, patience=replace(FAST, longest_wait=500.0))
    pauses = []
    monkeypatch.setattr(ours._transport, "_sleep", pauses.append)
    server.set_faults(
        Fault(kind="status", status=status, retry_after="123", path=PIXELS, first=2),
        Fault(kind="status", status=status, path=PIXELS, first=1),
    )
    np.testing.assert_array_equal(ours.pixels(image(), WINDOW, BANDS), TRUTH)
    assert pauses[:2] == [123.0, 123.0]
    assert pauses[2] <= FAST.longest_pause
    assert len(pauses) == 3


def test_a_wait_that_is_too_long_ends_the_tries(ours, server):
    server.set_faults(Fault(kind="status", status=429, retry_after="600", path=PIXELS))
    with pytest.raises(WorkFailedError, match=r"HTTP 429, and asks to wait 600 s, longer than"):
        ours.pixels(image(), WINDOW, BANDS)
    assert len(server.requests) == 1


SPOILT = {
    "shape": (lambda found: found[:-1], "has shape (47, 70) instead of (48, 70)"),
    "turned": (lambda found: found.T.copy(), "has shape (70, 48) instead of (48, 70)"),
    "kind": (
        lambda found: found.astype([(name, "<f8") for name in BANDS]),
        "has numbers of float64 instead of int16",
    ),
    "bands": (lambda found: found[list(BANDS[:2])], "has bands ('B02', 'B08') instead of"),
}


@pytest.mark.parametrize("way", SPOILT)
def test_another_array_is_asked_for_again(ours, earth_engine, way):
    spoil, text = SPOILT[way]
    left = iter([spoil, spoil, None])

    def spoil_twice(found):
        now = next(left)
        return now(found) if now else found

    earth_engine.spoil = spoil_twice
    np.testing.assert_array_equal(ours.pixels(image(), WINDOW, BANDS), TRUTH)
    earth_engine.spoil = spoil
    with pytest.raises(WorkFailedError) as told:
        ours.pixels(image(), WINDOW, BANDS)
    assert text in str(told.value)


def test_pixels_are_the_same_with_every_fault_at_once(ours, server, earth_engine):
    earth_engine.refuse = too_large_above(250)
    kinds = ("reset", "truncate", "html")
    server.set_faults(
        *(Fault(kind=kind, share=0.06) for kind in kinds),
        *(Fault(kind="status", status=status, share=0.06) for status in (429, 500, 503)),
        seed=11,
    )
    np.testing.assert_array_equal(ours.pixels(image(), WINDOW, BANDS), TRUTH)
    assert sum(server.faults.values()) - server.faults[""] > 2


def test_every_try_is_counted(ours, server):
    before = TRAFFIC.requests
    server.set_faults(Fault(kind="status", status=503, path=PIXELS, first=2))
    ours.pixels(image(), WINDOW, BANDS)
    assert TRAFFIC.requests - before == 3


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault(kind="status", status=503), "HTTP 503"),
        (Fault(kind="status", status=429), "HTTP 429"),
        (Fault(kind="reset"), "connection broken"),
        (Fault(kind="truncate"), "body cut short|connection broken"),
        (Fault(kind="html"), "the answer is no array: '<!DOCTYPE html>"),
    ],
)
def test_what_always_fails_ends(ours, server, fault, text):
    server.set_faults(fault)
    with pytest.raises(WorkFailedError, match=f"tried 8 times, the last time.*({text})") as told:
        ours.pixels(image(), WINDOW, BANDS)
    assert str(told.value).startswith(
        "Earth Engine does not answer 70 x 48 pixels at 500000, 5000000 in EPSG:32633: "
    )
    assert "\n" not in str(told.value)
    assert len(server.requests) == 8


def test_a_server_that_is_gone_ends_the_run():
    with LoopbackServer(CannedEarthEngine()) as server:
        ours = opened(server)
    with pytest.raises(WorkFailedError, match="tried 8 times, the last time connection refused"):
        ours.value(ee.Number(1))


def test_a_proxy_of_the_environment_is_asked(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    elsewhere = Access(endpoint="http://127.0.0.1:9", project="test-project", patience=FAST)
    monkeypatch.setattr(router, "_others", [])
    assert session(elsewhere).value(ee.Number(1)) == [1, {"a": "b"}]
    assert server.requests[-1].target.startswith("http://127.0.0.1:9/v1")


def test_a_stop_ends_waits_and_requests(server):
    ours = opened(server, patience=replace(FAST, first_pause=60.0, longest_pause=60.0))
    for fault in (Fault(kind="status", status=503), Fault(kind="hang", seconds=20.0)):
        server.clear()
        server.set_faults(replace(fault, path=PIXELS))
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(ours.pixels, image(), WINDOW, BANDS)
            while not server.requests and not server.most_at_once:
                time.sleep(0.01)
            try:
                stop_fetching()
                with pytest.raises(WorkFailedError, match="the run was stopped"):
                    job.result(timeout=20)
            finally:
                allow_fetching()


# what was too large once


def sizes_of(earth_engine):
    found = [(one["height"], one["width"]) for one in grids(earth_engine)]
    earth_engine.asked.clear()
    return found


def test_what_was_too_large_is_not_asked_of_later_windows(ours, earth_engine, server):
    earth_engine.refuse = too_large_above(1_000)
    for _ in range(3):
        np.testing.assert_array_equal(ours.pixels(image(), WINDOW, BANDS), TRUTH)
    assert sizes_of(earth_engine) == [(48, 70), *[(24, 35)] * 12]
    assert server.statuses == {400: 1, 200: 12}
    wider = GeoBox((70, 80), WINDOW.transform, WINDOW.crs)
    np.testing.assert_array_equal(
        ours.pixels(image(), wider, BANDS)[0], truth_at(500_000, 5_000_000, 70, 80)
    )
    assert max(height * width for height, width in sizes_of(earth_engine)) <= 24 * 35


def test_each_kind_of_request_has_its_own_size(ours, earth_engine):
    earth_engine.refuse = too_large_above(1_000)
    ours.pixels(image(), WINDOW, BANDS, kind="many looks")
    earth_engine.refuse = None
    sizes_of(earth_engine)
    ours.pixels(image(), WINDOW, BANDS, kind="few looks")
    ours.pixels(image(), WINDOW, BANDS[:2], kind="many looks")
    assert sizes_of(earth_engine) == [(48, 70)] * 2
    ours.pixels(image(), WINDOW, BANDS, kind="many looks")
    assert sizes_of(earth_engine) == [(24, 35)] * 4


def test_larger_requests_are_tried_now_and_then(ours, earth_engine, monkeypatch):
    monkeypatch.setattr("cube.earthengine.sizes.RUN", 6)
    earth_engine.refuse = too_large_above(1_000)
    asked = []
    for _ in range(8):
        np.testing.assert_array_equal(ours.pixels(image(), WINDOW, BANDS), TRUTH)
        asked += [sizes_of(earth_engine)]
    whole = [number for number, sizes in enumerate(asked) if (48, 70) in sizes]
    assert whole == [0, 2, 5]  # each failure doubles the answers that are waited for
    earth_engine.refuse = None
    for _ in range(20):
        np.testing.assert_array_equal(ours.pixels(image(), WINDOW, BANDS), TRUTH)
    assert sizes_of(earth_engine)[-10:] == [(48, 70)] * 10


@given(st.lists(st.tuples(st.integers(16, 90), st.integers(16, 90), st.integers(300, 9000))))
@settings(max_examples=20, deadline=None)
def test_pixels_are_the_same_whatever_was_too_large_before(shared, windows):
    ours, earth_engine = shared
    for height, width, bearable in windows:
        earth_engine.refuse = too_large_above(bearable)
        found = ours.pixels(image(), GeoBox((height, width), WINDOW.transform, WINDOW.crs), BANDS)
        np.testing.assert_array_equal(found[0], truth_at(500_000, 5_000_000, height, width))


@pytest.fixture(scope="module")
def shared():
    earth_engine = CannedEarthEngine()
    with LoopbackServer(earth_engine) as running:
        yield opened(running), earth_engine


def test_a_size_that_was_under_way_when_it_was_lowered_counts_once():
    sizes = Sizes()
    assert sizes.allows("a", 1_000)
    for _ in range(8):
        sizes.was_too_large("a", 1_000, piece=250)
    assert [sizes.allows("a", pixels) for pixels in (250, 251, 1_000)] == [True, False, False]
    for _ in range(SIZES_RUN):
        assert not sizes.allows("a", 1_000)
        sizes.has_worked("a", 250)
    assert not sizes.allows("a", 1_001)  # more than four times as many
    assert [sizes.allows("a", 1_000), sizes.allows("a", 1_000)] == [True, False]  # one, not all
    sizes.was_too_large("a", 1_000, piece=250)
    for _ in range(2 * SIZES_RUN):
        assert not sizes.allows("a", 1_000)
        sizes.has_worked("a", 250)
        sizes.has_worked("a", 60)  # tells nothing of larger ones
    assert sizes.allows("a", 1_000)
    sizes.has_worked("a", 1_000)
    assert [sizes.allows("a", pixels) for pixels in (1_000, 1_001)] == [True, False]


# what is given up


def test_what_is_given_up_waits_for_no_turn_and_no_pause(server):
    ours = opened(server, patience=replace(FAST, longest_wait=500.0), requests_at_once=1)
    server.clear()
    server.set_faults(Fault(kind="status", status=503, retry_after="400", path=PIXELS))
    given_up = threading.Event()

    def ask():
        with tried_until(given_up):
            ours.pixels(image(), WINDOW, BANDS)

    with ThreadPoolExecutor(2) as pool, ours._transport.throttle.slot() as _:
        queued = pool.submit(ask)
        while not ours._transport.throttle._waiting:
            time.sleep(0.001)
        given_up.set()
        with pytest.raises(WorkFailedError, match="it was given up, because something else failed"):
            queued.result(timeout=20)
    given_up.clear()
    with ThreadPoolExecutor(1) as pool:
        pausing = pool.submit(ask)
        while not server.requests:
            time.sleep(0.001)
        given_up.set()
        with pytest.raises(WorkFailedError, match="it was given up"):
            pausing.result(timeout=20)
    assert len(server.requests) == 1
    server.set_faults()
    np.testing.assert_array_equal(ours.pixels(image(), WINDOW, BANDS), TRUTH)


# what will not change


@pytest.mark.parametrize(
    "message",
    [
        "User memory limit exceeded.",
        "Computation timed out.",
        "Total request size (60480000 bytes) must be less than or equal to 50331648 bytes.",
        "Output of image computation is too large (18 bands for 3360 pixels = 1.0 MiB > 0.5 MiB).",
    ],
)
def test_what_is_too_large_is_cut_in_four(ours, earth_engine, server, message):
    earth_engine.refuse = too_large_above(1_000, message)
    np.testing.assert_array_equal(ours.pixels(image(), WINDOW, BANDS), TRUTH)
    assert [(one["height"], one["width"]) for one in grids(earth_engine)] == [
        (48, 70), *[(24, 35)] * 4
    ]  # fmt: skip
    assert server.statuses == {400: 1, 200: 4}


def test_cutting_ends_at_a_floor(ours, earth_engine):
    earth_engine.refuse = too_large_above(0)
    with pytest.raises(WorkFailedError) as told:
        ours.pixels(image(), WINDOW, BANDS)
    assert str(told.value) == (
        "Earth Engine cannot compute even 9 x 12 pixels at 500000, 5000000 in EPSG:32633: User "
        "memory limit exceeded.; it was cut down to 16 pixels a side: ask for fewer scenes or "
        "shorter periods"
    )
    assert [(one["height"], one["width"]) for one in grids(earth_engine)] == [
        (48, 70), (24, 35), (12, 18), *[(12, 9)] * 3
    ]  # fmt: skip


def test_a_value_that_is_too_large_cannot_be_cut(ours, earth_engine):
    earth_engine.refuse = lambda asked, body: error(400, "Computation timed out.")
    with pytest.raises(WorkFailedError, match=r"cannot answer a value: Computation timed out\."):
        ours.value(ee.Number(1))
    assert len(earth_engine.asked) == 3


def test_what_cannot_be_cut_is_asked_again(ours, earth_engine):
    answers = iter([error(400, "User memory limit exceeded.")] * 2)
    earth_engine.refuse = lambda asked, body: next(answers, None)
    assert ours.value(ee.Number(1)) == [1, {"a": "b"}]


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (
            error(403, "Project 'test-project' is not registered to use Earth Engine."),
            InputError,
            "Earth Engine refuses .* for project 'test-project': HTTP 403 .*not registered .*\n"
            "register the project .*EARTHENGINE_PROJECT",
        ),
        (
            error(400, "Image.load: Image asset 'A' not found (does not exist or caller does not have access)."),
            InputError,
            "does not find .*Image asset 'A' not found .*\ncheck its name",
        ),
        (error(404, "Not found."), InputError, r"HTTP 404 \(Not found.\)\ncheck its name"),
        (error(401, "Request had invalid authentication credentials."), InputError, "wants cred"),
        (
            error(400, "Image.select: Band pattern 'B99' did\n\u202enot match any bands."),
            WorkFailedError,
            "HTTP 400 .*'B99' did not match any bands",
        ),
        (Answer(status=400, body=b"<html>" * 99), WorkFailedError, "HTTP 400$"),
        (Answer(status=302, headers={"Location": "/x"}), WorkFailedError, "HTTP 302$"),
    ],
)  # fmt: skip
def test_a_refusal_is_not_asked_again(ours, earth_engine, answer, kind, text):
    earth_engine.refuse = lambda asked, body: answer
    with pytest.raises(kind, match=text) as told:
        ours.pixels(image(), WINDOW, BANDS)
    assert len(earth_engine.asked) == 1
    assert str(told.value).count("\n") <= 1
    assert told.value.__cause__ is None


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "Too many concurrent aggregations."),
        (403, "Quota exceeded for quota metric 'Requests' of service 'earthengine'."),
        (400, "An internal error has occurred (request: 1234)."),
    ],
)
def test_trouble_that_passes_is_known_by_its_message_too(ours, earth_engine, status, message):
    answers = iter([error(status, message)] * 2)
    earth_engine.refuse = lambda asked, body: next(answers, None)
    np.testing.assert_array_equal(ours.pixels(image(), WINDOW, BANDS), TRUTH)
    assert len(earth_engine.asked) == 3


def test_an_expression_that_cannot_be_written_is_told(ours):
    with pytest.raises(WorkFailedError, match="Earth Engine's client cannot ask for this: "):
        ours.value(lambda: None)


def test_an_error_reaches_whoever_waits_for_a_worker(ours, earth_engine, sent):
    earth_engine.refuse = lambda asked, body: error(403, "Not registered.")
    with pytest.raises(InputError) as told:
        ours.value(ee.Number(1))
    arrived = sent(told.value)
    assert type(arrived) is InputError
    assert str(arrived) == str(told.value)


# how many at once


def test_requests_at_once_are_limited(server):
    ours = opened(server, requests_at_once=3)
    server.clear()
    server.set_faults(Fault(kind="delay", seconds=0.05, path=PIXELS))
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda _: ours.pixels(image(), WINDOW, BANDS), range(24)))
    assert server.most_at_once == 3


def test_a_refusal_halves_the_requests_at_once(server):
    ours = opened(server, requests_at_once=16)
    throttle = ours._transport.throttle
    server.set_faults(Fault(kind="status", status=429, path=PIXELS, first=1))
    ours.pixels(image(), WINDOW, BANDS)
    assert throttle.limit == 8
    for _ in range(RUN):
        ours.value(ee.Number(1))
    assert throttle.limit == 9
    server.set_faults(Fault(kind="status", status=503, path=PIXELS, first=1))
    ours.pixels(image(), WINDOW, BANDS)
    assert throttle.limit == 9


def test_refusals_of_one_moment_count_once():
    throttle = Throttle(20)
    with throttle.slot() as first, throttle.slot() as second:
        first.is_refused()
        second.is_refused()
    assert throttle.limit == 10
    for expected in (5, 2, 1, 1):
        with throttle.slot() as slot:
            slot.is_refused()
        assert throttle.limit == expected


def test_requests_at_once_grow_to_what_is_allowed():
    throttle = Throttle(3)
    with throttle.slot() as slot:
        slot.is_refused()
    limits = []
    for _ in range(4 * RUN):
        with throttle.slot() as slot:
            slot.has_succeeded()
        limits.append(throttle.limit)
    assert limits == [1] * (RUN - 1) + [2] * RUN + [3] * (2 * RUN + 1)


def test_who_comes_first_goes_first():
    throttle = Throttle(1)
    order = []

    def take(number):
        with throttle.slot():
            order.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    with throttle.slot():
        for number, thread in enumerate(threads):
            thread.start()
            while len(throttle._waiting) <= number:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == list(range(8))


def test_a_stop_ends_the_wait_for_a_turn():
    throttle = Throttle(1)
    with ThreadPoolExecutor(1) as pool, throttle.slot():
        job = pool.submit(lambda: throttle.slot().__enter__())
        while not throttle._waiting:
            time.sleep(0.001)
        try:
            stop_fetching()
            with pytest.raises(WorkFailedError, match="the run was stopped"):
                job.result(timeout=20)
        finally:
            allow_fetching()
    with throttle.slot():
        assert not throttle._waiting


# exports


def start(ours, *, window=WINDOW, destination=None, **changes):
    given = {"description": "tile-0-0", "request_id": "a-1"} | changes
    place = destination or CloudStorage(bucket="forest", prefix="cube/tile-0-0")
    return ours.start_export(image(), window=window, bands=BANDS, destination=place, **given)


def test_an_export_leaves_nothing_to_defaults(ours, earth_engine):
    assert start(ours) == "projects/test-project/operations/NUMBER1"
    (asked,) = earth_engine.asked
    ours.pixels(image(), WINDOW, BANDS)
    assert asked["grid"] == earth_engine.asked[1]["grid"]
    assert asked["maxPixels"] == "3360"
    assert asked["requestId"] == "a-1"
    assert asked["description"] == "tile-0-0"
    assert asked["fileExportOptions"] == {
        "fileFormat": "GEO_TIFF",
        "cloudStorageDestination": {"bucket": "forest", "filenamePrefix": "cube/tile-0-0"},
        "geoTiffOptions": {
            "cloudOptimized": True,
            "tileDimensions": {"width": 256, "height": 256},
            "noData": {"floatValue": -32768},
        },
    }
    select = asked["expression"]["values"][asked["expression"]["result"]]
    assert select["functionInvocationValue"]["functionName"] == "Image.select"


def test_a_description_is_made_one_that_earth_engine_takes(ours, earth_engine):
    start(ours, description="Wald (Süd) " + "x" * 100)
    assert earth_engine.asked[0]["description"] == "Wald__S_d__" + "x" * 89


def test_an_export_may_go_to_a_drive(ours, earth_engine):
    start(ours, destination=Drive(folder="maps", prefix="tile"))
    options = earth_engine.asked[0]["fileExportOptions"]
    assert options["driveDestination"] == {"folder": "maps", "filenamePrefix": "tile"}


def test_an_export_whose_answer_is_lost_starts_once(ours, server, earth_engine):
    server.set_faults(Fault(kind="truncate", path="export", first=2))
    assert start(ours) == start(ours)
    assert len(earth_engine.exports) == 1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"request_id": "tile_0"}, "request id 'tile_0' of an export; expected 1 to 60 letters"),
        (
            {"window": GeoBox((10, 40_000), WINDOW.transform, WINDOW.crs)},
            "an export of 40000 x 10 pixels would be several files",
        ),
    ],
)
def test_an_export_that_earth_engine_would_refuse_is_not_asked_for(ours, server, changes, text):
    with pytest.raises(InputError, match=text):
        start(ours, **changes)
    assert not server.requests


def test_an_operation_is_followed_and_stopped(ours, server):
    name = start(ours)
    assert operation_state(ours.operation(name)).progress == "running"
    ours.cancel(name)
    assert server.requests[-1].target.partition("?")[0].endswith(f"/{name}:cancel")


@pytest.mark.parametrize("name", ["", "ABC", "projects/p/operations/", "projects/p/operations/a b"])
def test_an_operation_that_cannot_be_is_not_asked_for(ours, server, name):
    for ask in (ours.operation, ours.cancel):
        with pytest.raises(InputError, match="is no operation of Earth Engine; expected one like"):
            ask(name)
    assert not server.requests


@pytest.mark.parametrize(
    ("told", "progress", "text"),
    [
        ({"metadata": {"state": "PENDING"}}, "waiting", ""),
        ({"metadata": {"state": "SUCCEEDED"}, "done": True}, "done", ""),
        ({"metadata": {"state": "CANCELLED"}}, "cancelled", ""),
        (
            {"metadata": {"state": "FAILED"}, "error": {"message": "no\nbucket"}},
            "failed",
            "no bucket",
        ),
        ({"metadata": {"state": "SUCCEEDED"}, "error": {"message": "x"}}, "failed", "x"),
    ],
)
def test_states_of_an_operation(told, progress, text):
    found = operation_state(told)
    assert (found.progress, found.error) == (progress, text)


@pytest.mark.parametrize("told", [{}, {"metadata": None}, {"metadata": {"state": "STRANGE"}}])
def test_an_unknown_state_is_an_error(told):
    with pytest.raises(WorkFailedError, match="of an export; expected one of PENDING"):
        operation_state(told)


# the optional library


def test_the_package_does_not_import_the_client():
    code = "import sys, cube.earthengine; sys.exit('ee' in sys.modules or 'google' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_the_client_it_is_said_what_to_install():
    code = (
        "import sys; sys.modules['ee'] = None\n"
        "from cube.errors import InputError\n"
        "try:\n    import cube.earthengine.session\n"
        "except InputError as error:\n    print(error)"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout == (
        "source.kind = 'earthengine' needs Earth Engine's client library, which is not installed\n"
        'run `pip install "canopycube[earthengine]"`\n'
    )


def test_a_session_shows_no_secret(ours):
    assert isinstance(ours, Session)
    assert "credentials" not in repr(vars(ours))
