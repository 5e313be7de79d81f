"""Earth Engine as a source: the whole chain against the loopback server, beside STAC."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import shapely
from earthengine import EarthEngineServer, EngineFault
from loopback import Fault
from pyproj import CRS

from cube.bands import NODATA
from cube.earthengine.source import EarthEngineSource
from cube.errors import WorkFailedError
from cube.store import open_stored_cube, read_spec
from pipelines import build_cube as building
from pipelines.plan_earthengine import access_of
from pipelines.recipe import read_recipe
from pipelines.run import open_run

RECIPE = """
name = "Small forest"
bands = ["B02", "B04", "B05", "B08", "B11"]
[area]
file = "{forest}/area.geojson"
[months]
first = "2022-01"
last = "2022-12"
[source]
kind = "earthengine"
project = "test-project"
endpoint = "{url}"
mask = "scl"
timeout = 20.0
[composite]
tile = 64
chunk = 32
[outputs]
folder = "{out}"
"""


@pytest.fixture(scope="module")
def server(honest):
    with EarthEngineServer(honest) as running:
        yield running


@pytest.fixture(autouse=True)
def _without_faults(server, monkeypatch):
    monkeypatch.setattr(building, "_TILE_PAUSE", 0.01)
    yield
    server.set_faults()
    server.pixel_limit = None
    server.clear()


@pytest.fixture
def recipe(honest, server, tmp_path):
    """Write the recipe for an output folder; return its path."""

    def write(name="out", extra=""):
        path = tmp_path / f"{name}.toml"
        path.write_text(RECIPE.format(forest=honest.folder, url=server.url, out=name) + extra)
        return path

    return write


@pytest.fixture
def build(recipe, reporter):
    """Build a cube in a folder of its own: (folder, what the report says of it)."""

    def run(name, *overrides, extra=""):
        read = read_recipe(recipe(name, extra), overrides)
        with open_run(read, reporter) as opened:
            return read.outputs.folder, opened.build()

    return run


@pytest.fixture(scope="module")
def calm(honest, server, reporter, tmp_path_factory):
    """A cube built while nothing failed, not to be changed: (folder, bodies of what was asked)."""
    folder = tmp_path_factory.mktemp("calm")
    path = folder / "calm.toml"
    path.write_text(RECIPE.format(forest=honest.folder, url=server.url, out="calm"))
    server.clear()
    with open_run(read_recipe(path), reporter) as opened:
        opened.build()
    asked = server.pixel_requests
    server.clear()
    return folder / "calm", asked


def hashes(folder):
    """Hash every file of a cube but its ledger, which has times of day."""
    store = folder / "cube.zarr"
    return {
        str(file.relative_to(store)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(store.rglob("*"))
        if file.is_file() and "ledger" not in file.relative_to(store).parts
    }


def test_plan_tells_what_a_build_then_asks(recipe, build, server, command):
    code, out, err = command("plan", recipe("told"), "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["provider"] == "Earth Engine, COPERNICUS/S2_SR_HARMONIZED"
    assert told["requests_at_once"] <= 20
    assert told["seconds_at_least"] == -(-told["requests"] // told["requests_at_once"]) * 5
    assert "2022-01" in told["periods_without_scenes"]
    server.clear()
    _, found = build("told")
    assert len(server.pixel_requests) == told["requests"]
    # bodies: what was told, and a header each
    assert told["bytes_to_read"] < found["bytes_read"] < 1.2 * told["bytes_to_read"] + 2e6
    code, out, _ = command("plan", recipe("told"))
    assert code == 0
    assert f"{told['requests']:,} requests for" in out
    assert "at least" in out


def test_only_plan_counts_requests(recipe, monkeypatch):
    """Over the tiles of a country that takes half a minute."""
    counted, requests = [], EarthEngineSource.requests

    def counting(self, *args):
        counted.append(args)
        return requests(self, *args)

    monkeypatch.setattr(EarthEngineSource, "requests", counting)
    with open_run(read_recipe(recipe("opened"))) as run:
        assert "requests" not in run.plan.facts
        assert not counted
        run.describe()
        assert len(counted) == len(run.plan.spec.regions())


@pytest.mark.parametrize(
    ("cluster", "each", "at_once"),
    [
        (("cluster.workers=2",), 20, 16),  # two tiles, eight months each
        (("cluster.workers=3",), 20, 20),
        (("cluster.kind=local",), 4, 20),  # five cores
        (("cluster.kind=local", "cluster.workers=2"), 10, 16),
        (("cluster.kind=local", "cluster.workers=40"), 1, 40),  # none has less than one
        (("cluster.kind=scheduler", "cluster.address='tcp://a:1'", "cluster.workers=4"), 5, 20),
        (("cluster.kind=scheduler", "cluster.address='tcp://a:1'"), 1, None),  # who knows
    ],
)
def test_requests_at_once_are_shared_among_processes(recipe, monkeypatch, cluster, each, at_once):
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    with open_run(read_recipe(recipe("shared"), cluster)) as run:
        told = run.describe()
        assert run.plan.source.access.requests_at_once == each
    assert told.get("requests_at_once") == at_once
    assert ("seconds_at_least" in told) == (at_once is not None)
    assert told["requests"] > 0


def test_a_short_timeout_does_not_refuse_a_wait_that_is_asked_for(recipe):
    read = read_recipe(recipe("patient"), ("source.timeout=20", "source.attempts=3"))
    patience = access_of(read, read.source).patience
    assert (patience.timeout, patience.attempts) == (20, 3)
    assert patience.longest_wait >= 300


def test_every_request_is_on_a_tile_of_the_cube(calm):
    folder, requests = calm
    spec = read_spec(folder / "cube.zarr")
    windows = [region.window(spec.geobox) for region in spec.regions()]
    tiles = {(tuple(window.transform)[:6], tuple(window.shape)) for window in windows}
    assert requests
    for asked in requests:
        grid, affine = asked["grid"], asked["grid"]["affineTransform"]
        found = tuple(
            affine.get(name, 0)
            for name in ("scaleX", "shearX", "translateX", "shearY", "scaleY", "translateY")
        )
        shape = (grid["dimensions"]["height"], grid["dimensions"]["width"])
        assert (found, shape) in tiles
        assert CRS(grid["crsCode"]) == CRS("EPSG:32648")
        assert asked["bandIds"] == [*spec.bands, "clear_count", "seen_count", "day_offset"]


def test_the_cube_and_the_map_are_those_of_stac(
    build, honest, finished, reporter, command, tmp_path
):
    folder, _ = build("beside")
    here, _, rest = RECIPE.format(forest=honest.folder, url="", out="stac").partition("[source]")
    source = f'[source]\nkind = "stac"\ncatalogue = "{honest.catalogue}"\n'
    path = tmp_path / "stac.toml"
    path.write_text(here + source + rest[rest.index("[composite]") :])
    with open_run(read_recipe(path), reporter) as run:
        run.build()
    ours = open_stored_cube(folder / "cube.zarr")
    theirs = open_stored_cube(tmp_path / "stac" / "cube.zarr")
    one, other = (cube.reflectance.values.astype(int) for cube in (ours, theirs))
    assert np.array_equal(one == NODATA, other == NODATA)
    both = one != NODATA
    assert both.mean() > 0.5
    # reflectance below 0, which dark pixels of the forest have, is 0 in the harmonised collection
    difference = np.abs(one - np.maximum(other, 0))[both]
    assert difference.max() <= 1
    for name in ("clear_count", "clear_share", "mean_day"):
        assert np.array_equal(ours[name].values, theirs[name].values), name
    classifier = finished[0].outputs.folder / "classifier"
    code, out, err = command(
        "compare", path, folder, "--classifier", classifier, "--json",
        "--max-rmse", "0.0001", "--min-agreement", "0.999", "--max-clear-difference", "0",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["labels"]["agreement"] >= 0.999


KINDS = (
    Fault(kind="status", status=503, share=0.02),
    Fault(kind="status", status=429, retry_after="0", share=0.02),
    Fault(kind="status", status=500, share=0.02),
    Fault(kind="reset", share=0.02),
    Fault(kind="truncate", share=0.02),
    Fault(kind="html", share=0.02),
    EngineFault(kind="busy", share=0.02),
    EngineFault(kind="internal", share=0.02),
    EngineFault(kind="memory", share=0.02),
    EngineFault(kind="timeout", share=0.02),
    EngineFault(kind="shape", share=0.02),
    EngineFault(kind="dtype", share=0.02),
)


@pytest.mark.slow
def test_a_fifth_of_all_requests_failing_changes_no_byte(build, calm, server):
    whole, asked = calm
    # each kind once for certain, and every request with the given chance
    once = [replace(kind, share=1.0, first=1, path="computePixels") for kind in KINDS]
    server.set_faults(*once, *KINDS, seed=6)
    stormy, _ = build("stormy")
    assert hashes(stormy) == hashes(whole)
    assert (whole / "scenes.parquet").read_bytes() == (stormy / "scenes.parquet").read_bytes()
    assert len(server.pixel_requests) > 1.1 * len(asked)
    assert {kind.kind for kind in KINDS} <= set(server.faults)


@pytest.mark.slow
def test_a_server_that_stays_down_ends_the_build_and_a_later_one_goes_on(
    recipe, calm, server, command, tmp_path
):
    path = recipe("down")
    assert command("plan", path)[0] == 0
    server.set_faults(Fault(kind="status", status=503))
    code, _, err = command("build", path, "--set", "source.attempts=2")
    assert code == 1
    assert "4 of 4 tiles failed" in err
    assert "503" in err
    assert err.count("\n") <= 2
    server.set_faults()
    assert command("build", path)[0] == 0
    assert hashes(tmp_path / "down") == hashes(calm[0])


def windows(requests, *, most=None):
    """Distinct (left, top, right, bottom) in metres that were asked for, of at most so many pixels."""
    found = set()
    for body in requests:
        size, place = body["grid"]["dimensions"], body["grid"]["affineTransform"]
        if most is None or size["width"] * size["height"] <= most:
            left, top = place["translateX"], place["translateY"]
            right = left + size["width"] * place["scaleX"]
            found.add((left, top, right, top + size["height"] * place["scaleY"]))
    return found


@pytest.mark.slow
def test_a_tile_too_large_for_the_server_is_cut_in_four(build, calm, server):
    """Windows are looked at, not requests: on a slow machine some are sent again, or cut further."""
    whole, requests = calm
    tiles = windows(requests)
    server.pixel_limit = 40 * 40
    cut, _ = build("cut", "source.attempts=7")  # a session of its own, for it ends up wary
    assert hashes(cut) == hashes(whole)
    answered = [
        shapely.box(*window) for window in windows(server.pixel_requests, most=server.pixel_limit)
    ]
    for tile in (shapely.box(*window) for window in tiles):
        parts = [part for part in answered if tile.covers(part)]
        assert shapely.union_all(parts).equals(tile)
        assert len(parts) >= (4 if tile.area > 100 * server.pixel_limit else 1)


@pytest.mark.slow
def test_a_server_that_can_compute_nothing_is_told(build, server):
    server.pixel_limit = 10
    with pytest.raises(WorkFailedError, match="User memory limit exceeded"):
        build("nothing", "source.attempts=6")


def test_months_without_qa60_are_told(recipe, server, command):
    code, out, err = command("plan", recipe("empty"), "--set", "source.mask=qa60")
    assert code == 0, err
    assert out.count("QA60 is empty in 2022-0") == 1
    assert "QA60" not in err
    # and again from what was kept
    server.clear()
    out = command("plan", recipe("empty"), "--set", "source.mask=qa60")[1]
    assert out.count("QA60 is empty in 2022-0") == 1
    assert not server.value_requests


def test_a_mask_that_is_not_asked_is_told_and_changes_nothing(recipe, command, tmp_path):
    words = ("plan", recipe("unused"), "--set", "source.mask=cloud-score-plus")
    assert "mask.classes" not in command(*words)[1]
    out = command(*words, "--set", "mask.classes=[4, 5]")[1]
    assert "mask.classes goes with source.mask = 'scl'; 'cloud-score-plus' decides here" in out

    def inputs(*overrides):
        path = recipe("unused")
        with open_run(read_recipe(path, ("source.mask=cloud-score-plus", *overrides))) as run:
            return run.plan.inputs

    assert inputs() == inputs("mask.classes=[4, 5]") != inputs("source.clear_threshold=0.7")


def test_the_reference_preset_takes_qa60(recipe):
    from pipelines.plan_earthengine import definition_of

    read = read_recipe(recipe("preset"), ("training.preset=reference",))
    assert definition_of(read, read.source.model_copy(update={"mask": None})).mask == "qa60"
    assert definition_of(read, read.source).mask == "scl"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("composite.method=geomedian", "'geomedian' is not computed on Earth Engine"),
        ("composite.outliers=true", "composite.outliers needs the single looks"),
        ("mask.buffer=60", "mask.buffer needs the single looks"),
        ("mask.model=omnicloudmask", "mask.model goes with source.kind = 'stac'"),
        ("source.collection=COPERNICUS/S2_SR", "may have the radiometric offset"),
        ("source.collection=COPERNICUS/S2_HARMONIZED", "is not of surface reflectance"),
        ("source.endpoint='https://example.org'", "is none that credentials may be sent to"),
        ("source.export.to=drive", "source.export.files is missing"),
        ("source.export.to=cloud-storage", "bucket goes with to = 'cloud-storage'"),
        ("source.reader=odc", "it belongs to kind = 'stac'"),
        ("source.leave_out=['nobody']", "leave_out names ['nobody']"),
    ],
)
def test_wrong_settings_are_told(recipe, command, change, message):
    code, _, err = command("plan", recipe("wrong"), "--set", change)
    assert code == 2
    assert message in err
    assert err.count("\n") <= 2
