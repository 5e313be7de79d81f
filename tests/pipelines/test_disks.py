"""Disks that are full, read-only, or gone while a run writes: told in a line, and gone on with."""

import errno
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cube.durable
from pipelines.recipe import Recipe

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return an empty disk of 700 kB, on which a part of the cube has room."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1000k", "tmpfs", str(place)]
    try:
        made = subprocess.run(words, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("needs the command mount")
    if made.returncode:
        pytest.skip(f"needs the right to mount a small disk: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def leftovers(store: Path) -> list[Path]:
    return [file for file in store.rglob("*") if file.suffix in (".partial", ".draft")]


def refused(words: tuple[int, str, str], text: str) -> None:
    """Check that a command failed as work does, with one line that has `text`."""
    code, _, complaint = words
    assert code == 1, complaint
    assert text in complaint
    assert complaint.splitlines()[-1].startswith("canopycube: ")
    assert "Traceback" not in complaint


def test_a_full_disk_then_a_read_only_one_then_room(
    forest_recipe: Callable[..., Recipe], command: Command, tmp_path: Path, disk: Path
) -> None:
    recipe = forest_recipe()
    words = ("build", tmp_path / "recipe.toml", "--set", "composite.tile=32")
    there = ("--set", f"outputs.stores='{disk}'")
    refused(command(*words, *there), "No space left on device")
    records = sorted((disk / "cube.zarr" / "ledger").glob("r*.json"))
    assert 0 < len(records) < 16
    remount(disk, "ro")
    refused(command(*words, *there), "ead-only file system")
    remount(disk, "rw,size=40m")
    left = disk / "cube.zarr" / "reflectance" / "c" / f"0.{'0f' * 16}.partial"
    left.write_bytes(b"of a writer that was killed")
    assert command(*words, *there)[0] == 0
    assert leftovers(disk / "cube.zarr") == []
    assert command(*words)[0] == 0
    whole = recipe.outputs.folder / "cube.zarr"
    for file in whole.rglob("*"):
        name = file.relative_to(whole)
        if file.is_file() and name.parts[0] != "ledger":
            assert (disk / "cube.zarr" / name).read_bytes() == file.read_bytes()


def test_a_tile_whose_bytes_do_not_reach_the_disk_is_not_done(
    forest_recipe: Callable[..., Recipe],
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = forest_recipe()
    flush, count = cube.durable._flush, 0

    def flush_until_full(path: Path) -> None:
        nonlocal count
        count += {"reflectance", "c"} <= {*path.parts}
        if count > 6:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        flush(path)

    monkeypatch.setattr(cube.durable, "_flush", flush_until_full)
    words = ("build", tmp_path / "recipe.toml", "--set", "cluster.workers=1")
    refused(command(*words), "No space left on device")
    records = list((recipe.outputs.folder / "cube.zarr" / "ledger").glob("r*.json"))
    assert len(records) < 4
    monkeypatch.undo()
    code, out, _ = command(*words, "--json")
    assert code == 0
    assert f'"built_now": {4 - len(records)}' in out


def test_a_folder_that_vanishes(
    forest_recipe: Callable[..., Recipe],
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forest_recipe()
    stores = tmp_path / "stores"
    flush = cube.durable._flush

    def flush_and_vanish(path: Path) -> None:
        if {"reflectance", "c"} <= {*path.parts} and stores.exists():
            shutil.rmtree(stores, ignore_errors=True)
        flush(path)

    monkeypatch.setattr(cube.durable, "_flush", flush_and_vanish)
    words = (
        "build",
        tmp_path / "recipe.toml",
        "--set",
        f"outputs.stores='{stores}'",
        "--set",
        "cluster.workers=1",
        "--set",
        "cluster.retries=0",
    )
    refused(command(*words), "or its disk is gone")
    monkeypatch.undo()
    assert command(*words)[0] == 0
