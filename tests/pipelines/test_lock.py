"""The scene lock by command: made, kept, searched anew; and scenes that are lost after it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from cube.forest import Forest
from cube.stac import read_scenes
from pipelines.recipe import Recipe

Command = Callable[..., tuple[int, str, str]]
WriteRecipe = Callable[..., Recipe]
MAY = ("--set", "months.first=2022-05", "--set", "months.last=2022-05")


@pytest.fixture
def catalogue(forest: Forest, tmp_path: Path) -> Path:
    """Return the catalogue of a copy of the forest that a test may change."""
    shutil.copytree(forest.folder, tmp_path / "copy")
    return tmp_path / "copy" / "catalog.json"


@pytest.fixture
def words(forest_recipe: WriteRecipe, tmp_path: Path, catalogue: Path) -> tuple[str | Path, ...]:
    """Return a recipe's path and overrides: May, of the forest that may be changed."""
    forest_recipe()
    return (tmp_path / "recipe.toml", *MAY, "--set", f"source.catalogue={catalogue}")


def _forget_item(catalogue: Path, scene: str) -> None:
    """Take the links to an item out of a static catalogue."""
    for file in catalogue.parent.rglob("*.json"):
        node = json.loads(file.read_text())
        if isinstance(node, dict) and "links" in node:
            links = [
                link
                for link in node["links"]
                if link["rel"] != "item" or Path(link["href"]).stem != scene
            ]
            if links != node["links"]:
                file.write_text(json.dumps(node | {"links": links}))


def test_a_lock_is_made_once_and_then_told(
    command: Command, words: tuple[str | Path, ...], tmp_path: Path
) -> None:
    file = tmp_path / "out" / "scenes.parquet"
    code, printed, _ = command("lock", *words)
    count = len(read_scenes(file).scenes)
    assert code == 0
    assert printed.startswith(f"wrote {file}: {count} scenes used, ")
    written = file.stat().st_mtime_ns
    code, printed, _ = command("lock", *words)
    assert code == 0
    assert f"{file} stands: {count} scenes used" in printed
    assert "--update searches the catalogue anew" in printed
    assert file.stat().st_mtime_ns == written


def test_an_update_tells_what_changed(
    command: Command, words: tuple[str | Path, ...], tmp_path: Path, catalogue: Path
) -> None:
    command("lock", *words)
    gone, changed, *_ = read_scenes(tmp_path / "out" / "scenes.parquet").scenes
    _forget_item(catalogue, gone.id)
    code, printed, _ = command("lock", *words)
    assert code == 0
    assert "stands" in printed
    with Path(changed.assets["B02"].href).open("ab") as file:
        file.write(b"\0")
    code, printed, _ = command("lock", *words, "--update")
    assert code == 0
    assert "0 added, 1 removed, 1 changed\n" in printed
    assert f"  removed {gone.id}\n" in printed
    assert f"  changed {changed.id}: assets.B02.stamp\n" in printed
    code, printed, _ = command("lock", *words, "--update", "--json")
    found = json.loads(printed)
    assert (found["state"], found["added"], found["removed"]) == ("searched", [], [])
    assert found["changed"] == {}


def test_pixels_that_were_replaced_are_built_anew(
    command: Command, words: tuple[str | Path, ...], tmp_path: Path
) -> None:
    assert command("build", *words)[0] == 0
    lock = tmp_path / "out" / "scenes.parquet"
    before, written = read_scenes(lock), lock.stat().st_mtime_ns
    code, printed, _ = command("build", *words, "--json")
    assert (code, json.loads(printed)["built_now"]) == (0, 0)
    assert lock.stat().st_mtime_ns == written
    scene = min(before.scenes, key=lambda scene: scene.cloud_cover or 0)
    image = Path(scene.assets["B02"].href)
    with rasterio.open(image) as file:
        profile, pixels = file.profile, file.read(1)
    image.unlink()
    with rasterio.open(image, "w", **profile) as file:  # on the same grid
        file.write(np.where(pixels == 0, 0, pixels + 200).astype(pixels.dtype), 1)
    code, printed, complaint = command("build", *words, "--json")
    assert (code, complaint) == (0, "")
    assert json.loads(printed)["built_now"] == 4
    after = read_scenes(lock)
    assert [one.id for one in after.scenes] == [one.id for one in before.scenes]
    stamps = {one.id: one.assets["B02"].stamp for one in after.scenes}
    changed = [one.id for one in before.scenes if stamps[one.id] != one.assets["B02"].stamp]
    assert changed == [scene.id]


def test_another_question_is_searched_without_being_told_to(
    command: Command, words: tuple[str | Path, ...]
) -> None:
    command("lock", *words)
    _, printed, _ = command("lock", *words, "--set", "source.max_cloud_cover=30", "--json")
    found = json.loads(printed)
    assert found["state"] == "searched"
    assert found["removed"]
    assert found["dropped"] >= len(found["removed"])


def test_a_damaged_lock_is_made_anew_by_lock_alone(
    command: Command, words: tuple[str | Path, ...], tmp_path: Path
) -> None:
    command("lock", *words)
    file = tmp_path / "out" / "scenes.parquet"
    whole = read_scenes(file)
    file.write_bytes(file.read_bytes()[:-100])
    code, _, complaint = command("plan", *words)
    assert code == 2
    assert "run `canopycube lock" in complaint
    code, printed, complaint = command("lock", *words)
    assert code == 0
    assert printed.startswith("wrote ")
    assert "it is made anew" in complaint
    assert read_scenes(file) == whole


def test_files_of_ones_own_have_no_lock(command: Command, tmp_path: Path) -> None:
    (tmp_path / "scenes.nc").write_bytes(b"")
    (tmp_path / "stack.toml").write_text(
        'name = "s"\n[months]\nfirst = "2022-01"\nlast = "2022-02"\n'
        '[source]\nkind = "stack"\nfiles = ["scenes.nc"]\n[outputs]\nfolder = "out"\n'
    )
    code, _, complaint = command("lock", tmp_path / "stack.toml")
    assert code == 2
    assert "source.kind = 'stack' has no catalogue to search" in complaint


def test_plan_tells_people_what_will_be_read(
    command: Command, words: tuple[str | Path, ...]
) -> None:
    code, printed, _ = command("plan", *words, "--set", "composite.buffer=1")
    assert code == 0
    assert "reading   " in printed
    assert "overpasses, from " in printed
    code, printed, _ = command("plan", *words, "--set", "source.reader=stackstac")
    assert code == 0
    assert "requests and bytes are not known for this reader" in printed


def test_lost_scenes_fail_a_run_unless_they_are_allowed(
    command: Command, words: tuple[str | Path, ...], tmp_path: Path
) -> None:
    command("lock", *words)
    scene = next(
        scene
        for scene in read_scenes(tmp_path / "out" / "scenes.parquet").scenes
        if (scene.cloud_cover or 0) < 60
    )
    image = Path(scene.assets["B08"].href)
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    code, _, complaint = command("build", *words)
    assert code == 1
    assert "1 scene was lost" in complaint
    assert scene.id in complaint
    code, _, complaint = command("sample", *words)
    assert code == 2
    assert "0 of 4 tiles" in complaint  # what lost a scene is not stored
    code, _, complaint = command("run", *words)
    assert code == 1
    assert scene.id in complaint
    code, printed, complaint = command("build", *words, "--set", "source.lost_scenes=1")
    assert (code, complaint) == (0, "")
    assert "4 of 4 tiles, 1 scene lost\n" in printed
    assert f"lost in 4 tiles: scene '{scene.id}'" in printed
    assert command("sample", *words, "--set", "source.lost_scenes=1")[0] == 0


def test_a_file_that_broke_does_not_stop_a_plan_for_other_tiles(
    command: Command, words: tuple[str | Path, ...], tmp_path: Path
) -> None:
    command("lock", *words)
    scene = read_scenes(tmp_path / "out" / "scenes.parquet").scenes[0]
    Path(scene.assets["B08"].href).write_bytes(b"")
    assert command("plan", *words, "--set", "composite.tile=128")[0] == 0
