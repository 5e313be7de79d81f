"""Earth Engine as a source: the whole chain against the loopback server, beside STAC."""

import hashlib
import json

import numpy as np
import pytest
from earthengine import EarthEngineServer, EngineFault
from loopback import Fault
from pyproj import CRS

from cube.bands import NODATA
from cube.errors import InputError, WorkFailedError
from cube.forest import ForestSpec, write_forest
from cube.store import open_stored_cube, read_spec
from pipelines import build_cube as building
from pipelines import export_composites as exporting
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

EXPORT = """
[source.export]
to = "cloud-storage"
bucket = "forest-bucket"
folder = "cubes"
"""


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A forest whose items tell the truth: of liars, STAC may believe one that haze hides."""
    folder = tmp_path_factory.mktemp("honest")
    return write_forest(folder / "forest", ForestSpec(scale=0.25, lying_share=0.0))


@pytest.fixture(scope="module")
def server(honest, tmp_path_factory):
    with EarthEngineServer(honest, exports=tmp_path_factory.mktemp("exports")) as running:
        yield running


@pytest.fixture(autouse=True)
def _without_faults(server, monkeypatch):
    monkeypatch.setattr(building, "_TILE_PAUSE", 0.01)
    monkeypatch.setattr(exporting, "_PAUSE", 0.01)
    yield
    server.set_faults()
    server.pixel_limit = None
    server.export_error = ""
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


def test_every_request_is_on_a_tile_of_the_cube(build, server):
    folder, _ = build("grids")
    spec = read_spec(folder / "cube.zarr")
    windows = [region.window(spec.geobox) for region in spec.regions()]
    tiles = {(tuple(window.transform)[:6], tuple(window.shape)) for window in windows}
    assert server.pixel_requests
    for asked in server.pixel_requests:
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
def test_a_fifth_of_all_requests_failing_changes_no_byte(build, server):
    calm, _ = build("calm")
    asked = len(server.pixel_requests)
    server.clear()
    server.set_faults(*KINDS, seed=5)
    stormy, _ = build("stormy")
    assert hashes(stormy) == hashes(calm)
    assert (calm / "scenes.parquet").read_bytes() == (stormy / "scenes.parquet").read_bytes()
    assert len(server.pixel_requests) > 1.1 * asked
    assert {"status", "reset", "truncate", "html", "busy"} <= set(server.faults)


@pytest.mark.slow
def test_a_server_that_stays_down_ends_the_build_and_a_later_one_goes_on(
    recipe, build, server, command, tmp_path
):
    calm, _ = build("calm")
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
    assert hashes(tmp_path / "down") == hashes(calm)


@pytest.mark.slow
def test_a_tile_too_large_for_the_server_is_cut_in_four(build, server):
    whole, _ = build("whole")
    asked = len(server.pixel_requests)
    server.clear()
    server.pixel_limit = 40 * 40
    cut, _ = build("cut")
    assert hashes(cut) == hashes(whole)
    assert len(server.pixel_requests) > 3 * asked


@pytest.mark.slow
def test_a_server_that_can_compute_nothing_is_told(build, server):
    server.pixel_limit = 10
    with pytest.raises(WorkFailedError, match="User memory limit exceeded"):
        build("nothing")


def test_exported_tiles_give_the_same_cube(build, recipe, server, command, tmp_path):
    computed, _ = build("computed")
    path = recipe("exported", EXPORT)
    code, _, err = command("build", path)
    assert code == 1
    assert "canopycube export" in err
    code, out, err = command("export", path)
    assert code == 0, err
    assert "exported  4 of 4 tiles" in out
    asked = len(server.pixel_requests)
    assert command("build", path)[0] == 0
    assert len(server.pixel_requests) == asked  # nothing is computed on request
    assert hashes(tmp_path / "exported") == hashes(computed)
    # nothing is left to do
    tasks = len(server.export_requests)
    assert command("export", path)[0] == 0
    assert len(server.export_requests) == tasks == 4


def test_exports_are_on_the_tiles_of_the_cube(recipe, server, command, tmp_path):
    path = recipe("grids", EXPORT)
    assert command("export", path, "--no-wait")[0] == 0
    assert command("export", path)[0] == 0
    with open_run(read_recipe(path)) as run:
        spec = run.plan.spec
    windows = [region.window(spec.geobox) for region in spec.regions()]
    assert len(server.export_requests) == len(windows)
    for asked, window in zip(server.export_requests, windows, strict=True):
        assert asked["grid"]["affineTransform"]["translateX"] == window.transform.c
        assert asked["grid"]["affineTransform"]["translateY"] == window.transform.f
        assert asked["grid"]["dimensions"] == {"width": window.shape[1], "height": window.shape[0]}
        assert asked["grid"]["crsCode"] == "EPSG:32648"


def test_exports_that_fail_are_told_and_started_anew(recipe, server, command, tmp_path):
    path = recipe("failing", EXPORT)
    server.export_error = "Execution failed; out of memory."
    code, _, err = command("export", path)
    assert code == 1
    assert "4 of 4 tiles failed" in err
    assert "Execution failed; out of memory." in err
    server.export_error = ""
    assert command("export", path)[0] == 0
    states = json.loads((tmp_path / "failing" / "exports.json").read_text())["tiles"]
    assert {one["state"] for one in states.values()} == {"done"}
    assert len(server.export_requests) == 8


@pytest.mark.slow
def test_files_from_a_drive_are_read_where_the_user_put_them(
    build, recipe, server, command, tmp_path
):
    computed, _ = build("computed")
    extra = '[source.export]\nto = "drive"\nfolder = "forest"\nfiles = "downloaded"\n'
    path = recipe("drive", extra)
    assert command("export", path)[0] == 0
    (tmp_path / "downloaded").symlink_to(server.exports / "forest")
    assert command("build", path)[0] == 0
    assert hashes(tmp_path / "drive") == hashes(computed)


def test_a_damaged_list_of_exports_is_told(recipe, command, tmp_path):
    path = recipe("damaged", EXPORT)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "exports.json").write_text('{"inputs": 3, "tiles": [1]}')
    code, _, err = command("export", path)
    assert code == 2
    assert "exports.json" in err
    assert "delete it" in err


def test_a_file_of_another_grid_is_refused(recipe, server, command, tmp_path):
    path = recipe("moved", EXPORT)
    assert command("export", path)[0] == 0
    files = sorted((server.exports / "forest-bucket" / "cubes").glob("*-r0000c000?.tif"))
    one, other = files[-2:]
    one.write_bytes(other.read_bytes())
    code, _, err = command("build", path)
    assert code == 1
    assert "has another grid than the tile" in err
    one.unlink()
    code, _, err = command("build", path)
    assert code == 1
    assert "404" in err


def test_months_without_qa60_are_told(recipe, server, command):
    code, out, err = command("plan", recipe("empty"), "--set", "source.mask=qa60")
    assert code == 0, err
    assert "QA60 is empty in 2022-0" in err or "QA60 is empty in 2022-0" in out
    # and again from what was kept
    server.clear()
    assert "QA60 is empty" in command("plan", recipe("empty"), "--set", "source.mask=qa60")[1]
    assert not server.value_requests


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


def test_export_without_a_place_is_told(recipe, reporter):
    with (
        open_run(read_recipe(recipe("none")), reporter) as run,
        pytest.raises(InputError, match=r"no \[source.export\]"),
    ):
        run.export()
