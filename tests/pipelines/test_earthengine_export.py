"""Exports of Earth Engine: tasks that are started, followed, lost, stopped; and what they write."""

import hashlib
import json

import pytest
from earthengine import EarthEngineServer, EngineFault
from loopback import Fault

from cube.errors import InputError
from pipelines import build_cube as building
from pipelines import export_composites as exporting
from pipelines import plan as planning
from pipelines.export_tasks import ExportTasks, Task
from pipelines.recipe import read_recipe
from pipelines.run import open_run

RECIPE = """
name = "Small forest"
bands = ["B02", "B04", "B08"]
[area]
file = "{forest}/area.geojson"
[months]
first = "2022-05"
last = "2022-08"
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

DRIVE = """
[source.export]
to = "drive"
folder = "forest"
files = "downloaded"
"""


@pytest.fixture(scope="module")
def server(honest, tmp_path_factory):
    with EarthEngineServer(honest, exports=tmp_path_factory.mktemp("exports")) as running:
        yield running


@pytest.fixture(autouse=True)
def _anew(server, monkeypatch):
    """No faults, tasks or pauses are left of another test; its files are."""
    monkeypatch.setattr(building, "_TILE_PAUSE", 0.01)
    monkeypatch.setattr(exporting, "_PAUSE", 0.01)
    yield
    server.set_faults()
    server.export_error = ""
    server.operations.most_waiting, server.operations.page = 3_000, 500
    server.operations.forget()
    server.clear()


@pytest.fixture
def recipe(honest, server, tmp_path):
    """Write the recipe for an output folder; return its path."""

    def write(name="out", extra=EXPORT):
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


def operations_asked(server):
    """What was asked about operations: `list`, or the end of a path."""
    paths = [asked.target.partition("?")[0] for asked in server.requests]
    ends = [path.partition("/operations")[2] for path in paths if "/operations" in path]
    return [end.strip("/") or "list" for end in ends]


def tasks_of(folder):
    return json.loads((folder / "exports.json").read_text())["tiles"]


def files_of(server):
    return sorted((server.exports / "forest-bucket" / "cubes").glob("*.tif"))


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


@pytest.mark.slow
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


def test_export_without_a_place_is_told(recipe, reporter):
    with (
        open_run(read_recipe(recipe("none", "")), reporter) as run,
        pytest.raises(InputError, match=r"no \[source.export\]"),
    ):
        run.export()


@pytest.mark.slow
def test_only_what_decides_the_files_starts_tasks(recipe, server, command, monkeypatch):
    path = recipe("named")

    def started(*overrides):
        server.clear()
        words = [word for one in overrides for word in ("--set", one)]
        code, _, err = command("export", path, "--no-wait", *words)
        assert code == 0, err
        return len(server.export_requests)

    assert started() == 4
    assert started() == 0
    for change in (
        "gaps.method=linear", "composite.chunk=16", "composite.sharded=false",
        "composite.outliers=false", "source.clear_threshold=0.7", "source.attempts=3",
    ):  # fmt: skip
        assert started(change) == 0, change
    assert started("source.resampling=nearest") == 4
    assert started("composite.tile=128") == 1
    monkeypatch.setattr(planning, "ALGORITHM", planning.ALGORITHM + 1)
    assert started() == 4
    names = {one["fileExportOptions"]["cloudStorageDestination"]["filenamePrefix"] for one in
             server.export_requests}  # fmt: skip
    assert all("-r000" in name for name in names)


@pytest.mark.slow
def test_files_are_the_same_for_a_cube_stored_otherwise(recipe, server, command, tmp_path):
    path = recipe("stored")
    assert command("export", path)[0] == 0
    code, _, err = command(
        "build", path, "--set", "composite.chunk=16", "--set", "gaps.method=linear"
    )
    assert code == 0, err


@pytest.mark.slow
def test_another_place_begins_anew_and_tells_what_runs_on(recipe, server, command, monkeypatch):
    path = recipe("moving")
    monkeypatch.setattr(server.operations, "_advanced", lambda one: one)
    assert command("export", path, "--no-wait")[0] == 0
    elsewhere = ("--set", "source.export.folder=elsewhere")
    code, out, err = command("export", path, "--no-wait", *elsewhere)
    assert code == 0, err
    assert "4 tasks of earlier settings run on" in out
    assert "--cancel" in out
    assert len(server.export_requests) == 8
    code, out, err = command("export", path, "--cancel")
    assert code == 0, err
    assert "cancelled 8 tasks; 0 tiles are exported" in out
    assert {one.state for one in server.operations._known.values()} == {"CANCELLED"}
    assert command("export", path, "--cancel")[1].startswith("cancelled 0 tasks")
    # what was stopped is handed in anew
    monkeypatch.undo()
    monkeypatch.setattr(exporting, "_PAUSE", 0.01)
    code, out, _ = command("export", path, *elsewhere)
    assert code == 0
    assert "exported  4 of 4 tiles" in out
    assert "earlier" not in out
    assert len(server.export_requests) == 12


def test_what_has_ended_is_not_cancelled(recipe, server, command, tmp_path):
    path = recipe("ended")
    assert command("export", path, "--no-wait")[0] == 0
    server.operations.listed()
    found = json.loads(command("export", path, "--cancel", "--json")[1])
    assert found == {"cancelled": 0, "exported": 4}
    assert {one["state"] for one in tasks_of(tmp_path / "ended").values()} == {"done"}


@pytest.mark.slow
def test_lost_and_damaged_files_come_again(recipe, build, server, command, tmp_path):
    computed, _ = build("computed")
    path = recipe("lost")
    assert command("export", path)[0] == 0
    first, second, third, fourth = files_of(server)[-4:]
    kept = fourth.stat().st_mtime_ns
    first.unlink()
    second.write_bytes(b"")
    third.write_bytes(third.read_bytes()[:-900])
    code, _, err = command("build", path)
    assert code == 1
    assert "--again r000" in err
    assert command("export", path)[0] == 0  # by itself it looks at no file
    server.clear()
    code, _, err = command("export", path, "--again")
    assert code == 0, err
    assert "2 of the exported tiles are exported anew" in err
    assert len(server.export_requests) == 2
    code, _, err = command("build", path)
    assert code == 1  # the beginning of the third is whole
    tile = third.stem.rpartition("-")[2]
    assert f"--again {tile}` exports it anew" in err
    assert command("export", path, "--again", tile, tile)[0] == 0
    assert len(server.export_requests) == 3
    code, _, err = command("build", path)
    assert code == 0, err
    assert fourth.stat().st_mtime_ns == kept
    assert hashes(tmp_path / "lost") == hashes(computed)


@pytest.mark.slow
def test_files_in_a_folder_are_looked_at_as_a_whole(recipe, server, command, tmp_path):
    path = recipe("folder", DRIVE)
    assert command("export", path)[0] == 0
    (tmp_path / "downloaded").symlink_to(server.exports / "forest")
    server.clear()
    assert command("export", path, "--again")[0] == 0
    assert not server.export_requests
    first, second, third, _ = sorted((server.exports / "forest").glob("*.tif"))[-4:]
    first.unlink()
    second.write_bytes(second.read_bytes()[:-900])
    third.write_bytes(_.read_bytes())
    assert command("export", path, "--again")[0] == 0
    assert len(server.export_requests) == 3
    assert command("build", path)[0] == 0


def test_a_bucket_that_refuses_is_no_loss(recipe, server, command, monkeypatch):
    path = recipe("refusing")
    assert command("export", path)[0] == 0
    server.clear()
    server.set_faults(Fault(kind="status", status=403, path="/storage/"))
    code, _, err = command("export", path, "--again", "--set", "source.attempts=2")
    assert code == 1
    assert "cannot be looked at: HTTP 403" in err
    assert not server.export_requests
    server.set_faults()
    code, _, err = command("export", path, "--again", "r0007c0000")
    assert code == 2
    assert "'r0007c0000' is no tile of this cube; they go from r0000c0000 to r0001c0001" in err


@pytest.mark.slow
def test_an_operation_that_is_forgotten_is_judged_by_its_file(recipe, server, command, tmp_path):
    path = recipe("forgotten")
    assert command("export", path)[0] == 0
    one, other = files_of(server)[-4:-2]
    record = tmp_path / "forgotten" / "exports.json"
    states = json.loads(record.read_text())
    for task in states["tiles"].values():
        task["state"] = "running"
    record.write_text(json.dumps(states))
    one.unlink()
    server.operations.forget()
    server.clear()
    code, out, err = command("export", path)
    assert code == 0, err
    assert "exported  4 of 4 tiles" in out
    assert len(server.export_requests) == 1
    assert one.is_file()
    assert other.is_file()


def test_a_project_that_is_refused_forgets_no_task(recipe, server, command, tmp_path):
    path = recipe("denied")
    assert command("export", path, "--no-wait")[0] == 0
    before = tasks_of(tmp_path / "denied")
    server.set_faults(EngineFault(kind="unregistered", path="/operations"))
    code, _, err = command("export", path)
    assert code == 2
    assert "is not registered" in err
    assert tasks_of(tmp_path / "denied") == before


OPERATION = "projects/test-project/operations/ABC"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('{"settings": 3, "tiles": [1]}', "AttributeError"),
        ("[" * 100_000, "RecursionError"),
        ('{"settings": {}, "earlier": [], "tiles": ' + '{"a":' * 900 + "1" + "}" * 901, "no text"),
        ('{"settings": {}, "earlier": [], "tiles": {"r0000c0000": {"state": "flying"}}}', "'flying'"),
        ('{"settings": {}, "earlier": [], "tiles": {"r0000c0000": {"state": ["done"]}}}', "no text"),
        ('{"settings": {}, "earlier": [], "tiles": {"r0000c0000": {"state": "running"}}}', "operation"),
        ('{"settings": {}, "earlier": [], "tiles": {"r0000c0000": {"state": "asked"}}}', "request id"),
        ('{"settings": {}, "earlier": ["../x"], "tiles": {}}', "'../x' is no operation"),
        ('{"settings": {}, "earlier": [], "tiles": {"r0000c0000": {"odd": "1"}}}', "odd"),
        ("\xff", "JSONDecodeError"),
    ],
)  # fmt: skip
def test_a_list_of_exports_that_cannot_be_is_told(recipe, command, server, tmp_path, content, text):
    path = recipe("damaged")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "exports.json").write_text(content)
    for words in ((), ("--cancel",)):
        code, _, err = command("export", path, *words)
        assert code == 2, err
        assert "exports.json' is damaged" in err
        assert text in err
        assert "delete it" in err
        assert err.count("\n") == 1
    assert not server.export_requests


def test_a_list_of_other_tiles_is_told(recipe, command, server, tmp_path):
    path = recipe("foreign")
    assert command("export", path, "--no-wait")[0] == 0
    record = tmp_path / "foreign" / "exports.json"
    states = json.loads(record.read_text())
    states["tiles"] |= {f"r{number:04d}c0099": {"state": "done"} for number in range(9)}
    record.write_text(json.dumps(states))
    code, _, err = command("export", path)
    assert code == 2
    assert "'r0000c0099' is no tile of this cube" in err


def test_a_list_of_exports_that_is_too_long_is_not_read(tmp_path):
    record = tmp_path / "exports.json"
    with record.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(InputError, match=r"is damaged \(it has 1073741824 bytes\); delete it"):
        ExportTasks.read_any(record)


def test_tasks_are_remembered_as_they_were(tmp_path):
    record, settings = tmp_path / "exports.json", {"files": "x", "to": "drive"}
    tasks = ExportTasks(record, settings, {}, [OPERATION])
    for tile in ("a", "b", "c"):
        tasks.ask(tile)
    request = tasks.tiles["a"].request
    tasks.tiles["b"] = Task(state="running", operation=OPERATION)
    tasks.tiles["c"] = Task(state="failed", error="out of memory")
    tasks.write()
    again = ExportTasks.read(record, settings, "abc")
    assert again.tiles == tasks.tiles
    assert again.earlier == [OPERATION]
    again.ask("a")
    assert again.tiles["a"].request == request
    other = ExportTasks.read(record, settings | {"to": "cloud-storage"}, "abc")
    assert (other.tiles, other.earlier) == ({}, [OPERATION, OPERATION])


def test_states_are_asked_for_in_one_list(recipe, server, command):
    path = recipe("listed")
    assert command("export", path)[0] == 0
    assert set(operations_asked(server)) == {"list"}
    assert len(operations_asked(server)) == 3  # nothing yet, running, done
    server.clear()
    assert command("export", path)[0] == 0
    assert not operations_asked(server)


def test_a_list_has_pages_and_what_it_lacks_is_asked_for(recipe, server, command, monkeypatch):
    path = recipe("pages")
    server.operations.page = 2
    assert command("export", path, "--no-wait")[0] == 0
    server.clear()
    assert command("export", path, "--no-wait")[0] == 0
    assert operations_asked(server) == ["list", "list"]
    whole = server.operations.listed
    monkeypatch.setattr(
        server.operations, "listed", lambda **page: {"operations": whole(**page)["operations"][:1]}
    )
    server.clear()
    assert command("export", path)[0] == 0
    asked = operations_asked(server)
    assert asked[0] == "list"
    assert len(asked) == 4
    assert all(name in server.operations._known for name in asked[1:])


def test_no_wait_hands_in_as_many_as_there_is_room(recipe, server, command, monkeypatch):
    path = recipe("room")
    monkeypatch.setattr(exporting, "MOST_WAITING", 3)
    code, out, _ = command("export", path, "--no-wait")
    assert code == 0
    assert "3 tasks under way, 1 not handed in" in out
    assert "3 tasks under way, 1 not handed in" in command("export", path, "--no-wait")[1]
    assert len(server.export_requests) == 3
    # the three have ended: there is room at once
    assert "0 tasks under way, 0" not in (out := command("export", path, "--no-wait")[1])
    assert "exported  3 of 4 tiles" in out
    assert "1 tasks under way, 0 not handed in" in out


def test_a_queue_that_others_have_filled_is_waited_for(recipe, server, command):
    path = recipe("queue")
    server.operations.most_waiting = 1
    code, out, _ = command("export", path, "--no-wait")
    assert code == 0
    assert "1 tasks under way, 3 not handed in" in out
    assert command("export", path)[0] == 0
    assert len(server.operations._known) == 4


def test_the_list_is_written_once_a_round_and_a_batch(recipe, server, command, monkeypatch):
    from pipelines import export_tasks

    written = []
    keep = export_tasks.replace_text
    monkeypatch.setattr(
        export_tasks, "replace_text", lambda file, text: (written.append(text), keep(file, text))
    )
    assert command("export", recipe("writes"), "--no-wait")[0] == 0
    states = [[one["state"] for one in json.loads(text)["tiles"].values()] for text in written]
    assert states == [[], ["asked"] * 4, ["waiting"] * 4]


def test_a_start_whose_answer_was_lost_is_not_repeated(recipe, server, command, tmp_path):
    path = recipe("answer")
    server.set_faults(Fault(kind="status", status=503, path="image:export", first=3))
    assert command("export", path, "--set", "source.attempts=1")[0] == 1
    states = tasks_of(tmp_path / "answer")
    assert [one["state"] for one in states.values()] == ["asked"] * 4
    server.set_faults()
    server.clear()
    assert command("export", path)[0] == 0
    ids = [one["requestId"] for one in server.export_requests]
    assert ids == [one["request"] for one in states.values()]


def test_more_bands_than_a_file_has_are_refused_before_any_task(
    recipe, server, command, monkeypatch
):
    from cube.earthengine import tileimage

    monkeypatch.setattr(tileimage, "MOST_BANDS", 17)  # of months with 3 + 3 each
    code, _, err = command("export", recipe("bands"))
    assert code == 2
    assert "tile r0000c0000 would be exported with 18 bands, of 3 periods" in err
    assert not server.export_requests
    monkeypatch.setattr(tileimage, "MOST_BANDS", 18)
    assert command("export", recipe("bands"), "--no-wait")[0] == 0


@pytest.mark.slow
def test_run_exports_first_and_goes_on(recipe, build, server, command, tmp_path):
    computed, _ = build("computed")
    path = recipe("whole")
    server.set_faults(Fault(kind="status", status=503, path="/operations"))
    assert command("run", path, "--set", "source.attempts=2")[0] == 1
    server.set_faults()
    code, _, err = command("run", path)
    assert code == 0, err
    assert hashes(tmp_path / "whole") == hashes(computed)
    server.clear()
    # a cube that is there needs no files, nor a list of tasks
    (tmp_path / "whole" / "exports.json").unlink()
    assert command("run", path)[0] == 0
    assert not server.export_requests


def test_run_says_that_files_of_a_drive_are_not_fetched(recipe, server, command, tmp_path):
    path = recipe("own", DRIVE)
    code, _, err = command("run", path)
    assert code == 1
    assert "files of a Drive are not fetched: `canopycube export RECIPE` writes them there" in err
    assert not server.export_requests
    assert command("export", path)[0] == 0
    (tmp_path / "downloaded").symlink_to(server.exports / "forest")
    assert command("run", path)[0] == 0


FAULTS = (
    Fault(kind="status", status=503, share=0.03),
    Fault(kind="status", status=429, retry_after="0", share=0.03),
    Fault(kind="status", status=500, share=0.03),
    Fault(kind="reset", share=0.03),
    Fault(kind="truncate", share=0.02),
    Fault(kind="html", share=0.02),
    EngineFault(kind="busy", share=0.02),
    EngineFault(kind="internal", share=0.02),
)


@pytest.mark.slow
def test_a_fifth_of_all_requests_failing_changes_no_file(recipe, server, command, tmp_path):
    calm, stormy = recipe("calm"), recipe("stormy")
    server.operations.page = 1  # more requests that can fail
    assert command("run", calm)[0] == 0
    before = {file.name: file.read_bytes() for file in files_of(server)}
    for file in files_of(server):
        file.unlink()
    server.operations.forget()
    for seed in range(3):
        server.set_faults(*FAULTS, seed=seed)
        assert command("export", stormy, "--no-wait")[0] == 0
    code, _, err = command("run", stormy)
    assert code == 0, err
    assert {"status", "reset"} <= set(server.faults)
    after = {file.name: file.read_bytes() for file in files_of(server)}
    assert {name: before[name] for name in after} == after
    assert len(after) == 4
    assert len(server.operations._known) == 4  # no task was started twice
    assert hashes(tmp_path / "stormy") == hashes(tmp_path / "calm")


def test_a_list_without_end_is_told(recipe, server, command, monkeypatch):
    from cube.earthengine import session

    monkeypatch.setattr(session, "_MOST_PAGES", 5)
    monkeypatch.setattr(server.operations, "listed", lambda **page: {"nextPageToken": "again"})
    code, _, err = command("export", recipe("endless"))
    assert code == 1
    assert "lists operations on 5 pages and on" in err
    monkeypatch.setattr(server.operations, "listed", lambda **page: {"operations": [3]})
    code, _, err = command("export", recipe("endless"), "--set", "source.attempts=1")
    assert code == 1
    assert "the answer is no list of operations" in err


def test_a_word_of_export_that_goes_with_none_other(recipe, capsys):
    from pipelines.__main__ import main

    with pytest.raises(SystemExit, match="2"):
        main(["export", str(recipe("both")), "--cancel", "--again"])
    assert "not allowed with" in capsys.readouterr().err
