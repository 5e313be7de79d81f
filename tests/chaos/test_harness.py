"""What the chaos tests stand on: hosts that can be cut off, comparisons that see everything."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.hosts import NEEDS, Host, can_make_networks, hosts
from tests.chaos.processes import TooLateError, start, wait_until
from tests.chaos.stores import (
    chunk_files,
    damage,
    differences,
    left_over,
    tiles_recorded,
)


@pytest.mark.skipif(not can_make_networks(), reason=NEEDS)
def test_a_host_that_is_cut_off_is_not_reached(tmp_path: Path) -> None:
    with hosts(2) as (home, away):
        words = ["http.server", "8000", "--bind", away.address, "--directory", str(tmp_path)]
        served = start("served", words, host=away, folder=tmp_path)
        try:
            wait_until(lambda: _reaches(home, away), seconds=20, what="served", processes=[served])
            away.cut()
            assert not _reaches(home, away)
            away.mend()
            wait_until(lambda: _reaches(home, away), seconds=20, what="reached again")
        finally:
            served.kill()
    assert (
        home.namespace
        not in subprocess.run(
            ["ip", "netns", "list"], capture_output=True, text=True, check=True
        ).stdout
    )


def test_a_machine_for_all_has_no_cable() -> None:
    with pytest.raises(ValueError, match=r"host 127\.0\.0\.1 has no cable to cut"):
        Host(address="127.0.0.1").cut()


def test_what_does_not_come_is_told_with_the_last_words_of_who_should_have(tmp_path: Path) -> None:
    here = Host(address="127.0.0.1")
    process = start("speaker", ["this"], host=here, folder=tmp_path)  # prints a poem and ends
    process.wait(20)
    with pytest.raises(TooLateError, match=r"(?s)not within 0 s: never.*speaker.*Zen of Python"):
        wait_until(lambda: False, seconds=0, what="never", processes=[process])


@pytest.fixture(name="stores")
def _stores(tmp_path: Path) -> tuple[Path, Path]:
    """Return a store of two tiles with two layers, one of four dimensions, and its copy."""
    store = tmp_path / "one.zarr"
    for tile, (row, column) in {"r0000c0000": (0, 0), "r0000c0012": (0, 12)}.items():
        for chunk in (f"reflectance/c/0/0/{row}/{column}", f"species/c/{row}/{column}"):
            (store / chunk).parent.mkdir(parents=True, exist_ok=True)
            (store / chunk).write_bytes(chunk.encode())
        (store / "ledger").mkdir(exist_ok=True)
        record = {"tile": tile, "seconds": 1.0, "made_at": "then", "digest": "d"}
        (store / "ledger" / f"{tile}.json").write_text(json.dumps(record))
    (store / "x" / "c").mkdir(parents=True)
    (store / "x" / "c" / "0").write_bytes(b"coordinates")
    (store / "zarr.json").write_text("{}")
    return store, Path(shutil.copytree(store, tmp_path / "two.zarr"))


def test_files_of_a_tile(stores: tuple[Path, Path]) -> None:
    assert chunk_files(stores[0], "r0000c0012") == ["reflectance/c/0/0/0/12", "species/c/0/12"]
    assert chunk_files(stores[0], "r0000c0000") == ["reflectance/c/0/0/0/0", "species/c/0/0"]
    assert tiles_recorded(stores[0]) == {"r0000c0000", "r0000c0012"}


def test_every_difference_is_told(stores: tuple[Path, Path]) -> None:
    one, two = stores
    record = two / "ledger" / "r0000c0000.json"
    later = {**json.loads(record.read_text()), "seconds": 2.0, "made_at": "now"}
    record.write_text(json.dumps(later))
    assert differences(one, two) == [], "times may differ"
    record.write_text(json.dumps({**later, "digest": "other"}))
    (two / "zarr.json").write_text("{ }")
    (two / "x" / "c" / "0").unlink()
    (two / "species" / "c" / "0" / "13").write_bytes(b"")
    assert differences(one, two) == [
        "x/c/0 is missing",
        "species/c/0/13 is too many",
        "ledger/r0000c0000.json differs",
        "zarr.json differs",
    ]


def test_a_tile_without_a_record_may_be_anything(stores: tuple[Path, Path]) -> None:
    one, two = stores
    (two / "species/c/0/12").write_bytes(b"half")
    (two / "reflectance/c/0/0/0/12").unlink()
    assert damage(one, two) == [
        "r0000c0012 is recorded and reflectance/c/0/0/0/12 is missing",
        "r0000c0012 is recorded and species/c/0/12 differs",
    ]
    (two / "ledger" / "r0000c0012.json").unlink()
    assert damage(one, two) == []


def test_what_killed_writers_leave_is_counted_apart(stores: tuple[Path, Path]) -> None:
    one, two = stores
    (two / "species/c/0/12.0f1e.partial").write_bytes(b"half")
    (two / "ledger" / ".r0000c0000.json.0f1e.draft").write_bytes(b"half")
    assert differences(one, two) == damage(one, two) == []
    assert left_over(two) == ["ledger/.r0000c0000.json.0f1e.draft", "species/c/0/12.0f1e.partial"]


def _reaches(home: Host, away: Host) -> bool:
    connect = f"import socket; socket.create_connection(({away.address!r}, 8000), 2)"
    words = home.words([sys.executable, "-c", connect])
    return subprocess.run(words, capture_output=True, check=False).returncode == 0
