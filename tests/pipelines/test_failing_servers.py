"""A cube over HTTP from servers that fail: the same bytes, or every loss told."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from loopback import Fault
from rangeserver import RangeServer
from stacserver import StacServer, served

from cube.cog import PIECES
from cube.errors import WorkFailedError
from cube.stac.pixels import HEADERS
from cube.store import LOOKS_LOST, NO_LOOK, open_cube
from pipelines import build_cube as building
from pipelines.progress import Reporter
from pipelines.recipe import read_recipe
from pipelines.run import open_run

RECIPE = """
name = "Served forest"
bands = ["B02", "B04", "B05", "B08", "B11"]
[area]
file = "{area}"
[months]
first = "2022-01"
last = "2022-12"
[source]
kind = "stac"
catalogue = "{api}"
max_cloud_cover = 100
offset = "verify"
attempts = {attempts}
timeout = 5.0
lost_scenes = {allowed}
[composite]
tile = 64
chunk = 32
[outputs]
folder = "out"
"""


def forget_files():
    """Let this process know of no file, as if it had just begun."""
    HEADERS.forget()
    PIECES.forget()


@pytest.fixture
def archive(forest):
    """A forest's files and items on two servers."""
    items = []
    for path in sorted(forest.folder.glob("sentinel-2-l2a/*/*.json")):
        item = json.loads(path.read_text(encoding="utf-8"))
        for asset in item["assets"].values():
            asset["href"] = str(path.parent / asset["href"])
        items.append(item)
    with RangeServer(forest.folder) as files:
        addressed = served(items, files.url, root=str(forest.folder))
        with StacServer(addressed) as api:
            yield forest, files, api


@pytest.fixture
def build(archive, tmp_path, reporter, monkeypatch):
    """Lock and build a cube in a folder of its own; (folder, what the report says of the cube)."""
    forest, _, api = archive
    monkeypatch.setattr(building, "_TILE_PAUSE", 0.01)

    def run(name, *, attempts=8, allowed=0):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        path = folder / "recipe.toml"
        path.write_text(
            RECIPE.format(area=forest.area, api=api.url, attempts=attempts, allowed=allowed)
        )
        forget_files()
        with open_run(read_recipe(path), reporter) as opened:
            return folder / "out", opened.build()

    return run


def pixels(folder):
    """Hash every file of a cube but its ledger, which has times of day."""
    store = folder / "cube.zarr"
    return {
        str(file.relative_to(store)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(store.rglob("*"))
        if file.is_file() and "ledger" not in file.relative_to(store).parts
    }


def test_a_fifth_of_all_requests_failing_changes_no_byte(archive, build):
    _, files, api = archive
    calm, _ = build("calm")
    calm_requests = len(files.requests)
    kinds = [
        Fault(kind="status", status=503, share=0.04),
        Fault(kind="status", status=429, retry_after="0", share=0.04),
        Fault(kind="reset", share=0.04),
        Fault(kind="truncate", share=0.04),
        Fault(kind="html", share=0.04),
    ]
    files.clear()
    files.set_faults(*kinds, seed=3)
    api.set_faults(*kinds, seed=4)
    stormy, told = build("stormy")
    failed = sum(count for kind, count in files.faults.items() if kind)
    assert failed / len(files.requests) == pytest.approx(0.185, abs=0.06)
    assert len(files.requests) - failed == calm_requests
    assert set(files.faults) == {"", "status", "reset", "truncate", "html"}
    assert told["lost_scenes"] == []
    assert pixels(stormy) == pixels(calm)
    locks = [(folder / "scenes.parquet").read_bytes() for folder in (calm, stormy)]
    assert locks[0] == locks[1]


def test_plan_foretells_requests_and_bytes(archive, tmp_path, reporter):
    forest, files, api = archive
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(area=forest.area, api=api.url, attempts=8, allowed=0))
    with open_run(read_recipe(path), reporter) as opened:
        told = opened.describe()
    forget_files()
    files.clear()
    with open_run(read_recipe(path), reporter) as opened:
        report = opened.build()
    assert told["requests"] == pytest.approx(len(files.requests), rel=0.1)
    assert told["bytes_to_read"] == pytest.approx(files.sent, rel=0.1)
    assert report["requests"] == len(files.requests)
    assert report["bytes_read"] == files.sent
    assert report["tiles"] == f"{told['tiles']} of {told['tiles']}"
    scenes = _scenes(tmp_path / "out")
    assert 0 < len(scenes) <= told["scenes"]


def _records(folder):
    return [json.loads(path.read_text()) for path in (folder / "cube.zarr/ledger").glob("r*.json")]


def _scenes(folder):
    """Scenes of any period of any tile."""
    periods = (period for record in _records(folder) for period in record["scenes"].values())
    return {scene for period in periods for scene in period}


def test_a_file_that_is_gone_after_the_lock_is_a_loss_that_is_told(archive, build):
    _, files, _ = archive
    with pytest.raises(WorkFailedError) as stopped:
        build_after_lock(build, files, Fault(kind="status", status=404, path=r"_20220\w+/B05"))
    text = str(stopped.value)
    assert "scenes were lost to broken files, 0 are allowed" in text
    assert "asset B05" in text
    assert "HTTP 404" in text
    assert files.url in text


def build_after_lock(build, files, fault, **options):
    """Lock while all is well, then let a fault loose and build."""
    files.set_faults()
    out, _ = build("kept", **options)
    shutil.rmtree(out / "cube.zarr")
    files.set_faults(fault)
    return build("kept", **options)


def test_allowed_losses_are_in_the_cube_and_the_certificate(archive, build):
    _, files, _ = archive
    fault = Fault(kind="status", status=404, path=r"202202\d\d_0_L2A/B05")
    out, told = build_after_lock(build, files, fault, allowed=3)
    assert [one["scene"][:5] for one in told["lost_scenes"]] != []
    assert all("202202" in one["scene"] for one in told["lost_scenes"])
    cube = open_cube(out / "cube.zarr")
    share = cube["clear_share"]
    assert (share.sel(time="2022-02-01") == LOOKS_LOST).all()  # both its scenes are lost
    assert (share.sel(time="2022-01-01") == NO_LOOK).all()  # it never had one
    assert np.isnan(cube["reflectance"].sel(time="2022-02-01")).all()
    files.set_faults()
    _, told_again = build("kept", allowed=3)
    assert told_again["built_now"] == 0  # what was allowed is done
    whole, told_whole = build("kept", allowed=0)
    assert told_whole["built_now"] == 4
    assert told_whole["lost_scenes"] == []
    assert (open_cube(whole / "cube.zarr")["clear_share"].sel(time="2022-02-01") <= 100).any()


def test_a_server_that_is_down_fails_the_tiles_and_loses_nothing(archive, build):
    _, files, _ = archive
    files.set_faults()
    calm, _ = build("kept", attempts=1)
    before = pixels(calm)
    shutil.rmtree(calm / "cube.zarr")
    files.set_faults(Fault(kind="status", status=503))
    with pytest.raises(WorkFailedError, match="tiles failed"):
        build("kept", attempts=1)
    assert _records(calm) == []
    files.set_faults()
    after, _ = build("kept", attempts=1)
    assert pixels(after) == before


def test_a_file_that_is_gone_before_the_lock_counts_as_lost_too(archive, build, tmp_path):
    _, files, _ = archive
    files.set_faults(Fault(kind="status", status=404, path=r"202202\d\d_0_L2A/B05"))
    with pytest.raises(
        WorkFailedError, match=r"2 scenes were lost.*B05.*canopycube lock RECIPE --up"
    ):
        build("early")
    assert _records(tmp_path / "early" / "out") == []  # nothing of a lossy tile is stored
    out, told = build("early", allowed=2)
    assert told["built_now"] == 4
    assert len(told["lost_scenes"]) == 2
    share = open_cube(out / "cube.zarr")["clear_share"]
    assert (share.sel(time="2022-02-01") == LOOKS_LOST).all()
    assert (share.sel(time="2022-01-01") == NO_LOOK).all()


def test_a_scene_can_be_left_out(archive, build, tmp_path):
    _, files, _ = archive
    files.set_faults()
    out, _ = build("whole")
    used = _scenes(out)
    gone = sorted(used)[0]
    recipe = tmp_path / "whole" / "recipe.toml"
    recipe.write_text(
        recipe.read_text().replace("lost_scenes", f'leave_out = ["{gone}"]\nlost_scenes')
    )
    with open_run(read_recipe(recipe), Reporter(is_quiet=True)) as opened:
        told = opened.lock()
        opened.build()
    assert told["removed"] == [gone]
    assert _scenes(out) == used - {gone}
