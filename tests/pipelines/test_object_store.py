"""The whole chain with its cube and map on an object store: the same bytes, and nothing half."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bucketserver import BucketServer
from loopback import Fault

from cube.errors import InputError, WorkFailedError
from cube.place import files_below
from pipelines.progress import Reporter
from pipelines.recipe import Recipe
from pipelines.run import open_run

KEYS = {"AKIATESTS": "the-secret-of-the-tests"}
STORES = "outputs.stores='s3://forest/year'"


@pytest.fixture(scope="module")
def server() -> Iterator[BucketServer]:
    with BucketServer(["forest"], keys=KEYS) as running:
        yield running


@pytest.fixture(autouse=True)
def _asked(server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    name, secret = next(iter(KEYS.items()))
    for key, value in {
        "AWS_ACCESS_KEY_ID": name,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server.url,
    }.items():
        monkeypatch.setenv(key, value)
    server.objects["forest"].clear()
    yield
    server.set_faults()
    server.clear()


def pixels(store: Path) -> dict[str, bytes]:
    return {
        name: (store / name).read_bytes()
        for name, _ in files_below(store)
        if not name.startswith("ledger/")
    }


def stored(server: BucketServer, name: str) -> dict[str, bytes]:
    start = f"year/{name}/"
    return {
        key.removeprefix(start): content
        for key, content in server.objects["forest"].items()
        if key.startswith(start) and not key.startswith(f"{start}ledger/")
    }


def test_the_whole_chain(
    finished: tuple[Recipe, dict[str, Any]],
    forest_recipe: Callable[..., Recipe],
    reporter: Reporter,
    server: BucketServer,
) -> None:
    done, report = finished
    recipe = forest_recipe("cluster.workers=2", STORES)
    with open_run(recipe, reporter) as run:
        found = json.loads(json.dumps(run.all()))
    folder = done.outputs.folder
    for name in ("cube.zarr", "map.zarr"):
        assert stored(server, name) == pixels(folder / name)
        assert not (recipe.outputs.folder / name).exists()
    assert (recipe.outputs.folder / "map.tif").read_bytes() == (folder / "map.tif").read_bytes()
    for section in ("cube", "map"):
        assert found[section]["digest"] == report[section]["digest"]
        assert found[section]["path"].startswith("s3://forest/year/")
    kept = [file for file in recipe.outputs.folder.rglob("*") if file.is_file()]
    assert not [file for file in kept if KEYS["AKIATESTS"].encode() in file.read_bytes()]
    assert not [text for text in server.objects["forest"].values() if b"AKIATESTS" in text]
    server.clear()
    with open_run(recipe, reporter) as run:
        assert run.build()["built_now"] == 0
        assert run.map()["mapped_now"] == 0
    for name in ("cube.zarr", "map.zarr"):
        assert stored(server, name) == pixels(folder / name)
    written = [line.target for line in server.requests if line.method == "PUT"]
    assert all("/.lease/" in target for target in written)


def refused(words: tuple[int, str, str], code: int, text: str) -> None:
    """Check that a command ended with `code` and one line that has `text` and nothing secret."""
    found, _, complaint = words
    assert found == code, complaint
    assert text in complaint
    assert complaint.startswith("canopycube: ")
    assert complaint.count("\n") == 1
    for secret in ("secret", "Signature=", "AKIA"):
        assert secret not in complaint


def test_what_the_store_refuses_is_told_in_a_line(
    forest_recipe: Callable[..., Recipe],
    command: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forest_recipe()
    file = tmp_path / "recipe.toml"
    words = ("build", file, "--set", "outputs.stores='s3://desert/year'")
    refused(command(*words), 2, "NoSuchBucket; make the bucket, or name another")
    words = ("build", file, "--set", STORES)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret")
    refused(command(*words), 2, "403 Forbidden, SignatureDoesNotMatch; look at the credentials")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANOBODY")
    refused(command(*words), 2, "403 Forbidden, InvalidAccessKeyId; look at the credentials")
    words = ("build", file, "--set", "outputs.stores='s3://key:secret@forest/year'")
    refused(command(*words), 2, "credentials in the environment")
    assert not (tmp_path / "out").exists(), "a run that could not begin leaves no trace"


def test_a_store_whose_server_is_gone_is_failed_work(
    forest_recipe: Callable[..., Recipe],
    command: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import cube.bucket

    forest_recipe()
    monkeypatch.setitem(cube.bucket._PATIENCE, "max_retries", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    words = ("build", tmp_path / "recipe.toml", "--set", STORES)
    refused(command(*words), 1, "the server of 's3://forest/year' does not answer")


def test_a_build_through_a_server_that_stumbles(
    finished: tuple[Recipe, dict[str, Any]],
    forest_recipe: Callable[..., Recipe],
    reporter: Reporter,
    server: BucketServer,
) -> None:
    faults = [
        Fault(kind=kind, share=0.05) for kind in ("status", "reset", "late reset", "truncate")
    ]
    server.set_faults(*faults, seed=8)
    with open_run(forest_recipe("cluster.workers=2", STORES), reporter) as run:
        assert run.build()["tiles"] == "4 of 4"
    assert all(server.faults[kind] for kind in ("status", "reset", "late reset", "truncate"))
    assert stored(server, "cube.zarr") == pixels(finished[0].outputs.folder / "cube.zarr")


def test_a_lost_or_damaged_object_is_made_again(
    finished: tuple[Recipe, dict[str, Any]],
    forest_recipe: Callable[..., Recipe],
    reporter: Reporter,
    server: BucketServer,
) -> None:
    recipe = forest_recipe(STORES)
    with open_run(recipe, reporter) as run:
        run.build()
        objects = server.objects["forest"]
        del objects["year/cube.zarr/reflectance/c/0/0/0/1"]
        assert run.build()["built_now"] == 1
        shutil.copytree(finished[0].outputs.folder / "classifier", run.layout.classifier)
        key = "year/cube.zarr/reflectance/c/0/0/1/0"
        objects[key] = objects[key][: len(objects[key]) // 2]
        with pytest.raises(WorkFailedError, match=r"r0001c0000 of 's3://.*' cannot be read"):
            run.map()
        assert run.build()["built_now"] == 1
        assert run.map()["tiles"] == "4 of 4, 0 failed"
    for name in ("cube.zarr", "map.zarr"):
        assert stored(server, name) == pixels(finished[0].outputs.folder / name)


_COMMAND = """
import sys
import cube.lease
cube.lease.HOLDS = 2.0  # a lease is lost after as many seconds, not after a minute
from pipelines.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def begin(file: Path, *words: str) -> subprocess.Popen[str]:
    """Begin the real command in a process of its own, small tiles in one thread."""
    small = ("--set", "composite.tile=32", "--set", "cluster.workers=1", "--set", STORES)
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", _COMMAND, "build", str(file), *small, *words],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        stderr=subprocess.PIPE,
        text=True,
    )


def records(server: BucketServer) -> int:
    return sum("/ledger/r" in key for key in list(server.objects["forest"]))


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while not what() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    assert what()


def test_a_run_that_is_killed_goes_on_at_once(
    forest_recipe: Callable[..., Recipe], reporter: Reporter, server: BucketServer, tmp_path: Path
) -> None:
    recipe = forest_recipe("composite.tile=32", STORES)
    with begin(tmp_path / "recipe.toml") as process:
        wait_for(lambda: records(server) >= 2, process)
        other = open_run(forest_recipe(STORES, "outputs.folder='other'"), reporter)
        refusal = f"another run \\(process {process.pid} on "
        with pytest.raises(InputError, match=refusal), other:
            pass
        process.kill()
    done = records(server)
    started = time.monotonic()
    with open_run(recipe, reporter) as run:
        assert time.monotonic() - started < 30, "its owner is known to be dead"
        assert run.build()["built_now"] == 16 - done
    killed = stored(server, "cube.zarr")
    server.objects["forest"].clear()
    with open_run(recipe, reporter) as run:
        run.build()
    assert stored(server, "cube.zarr") == killed


def test_a_run_that_slept_too_long_writes_no_more(
    forest_recipe: Callable[..., Recipe], server: BucketServer, tmp_path: Path
) -> None:
    forest_recipe()
    with begin(tmp_path / "recipe.toml") as process:
        wait_for(lambda: records(server) >= 2, process)
        process.send_signal(signal.SIGSTOP)
        last = max(key for key in server.objects["forest"] if "/.lease/" in key)
        # as another host does that has seen no sign for long enough
        server.objects["forest"][last.replace("00000001", "00000002")] = b"{}"
        done = records(server)
        time.sleep(1.5)
        process.send_signal(signal.SIGCONT)
        complaint = process.communicate(timeout=120)[1]
        assert process.returncode == 1, complaint
    assert "another run has taken over 's3://forest/year'" in complaint
    assert records(server) <= done + 2, "what was under way, and nothing more"
