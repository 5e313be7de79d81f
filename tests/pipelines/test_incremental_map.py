"""A map whose cube, classifier, legend or area changes in part: only what changed is mapped anew."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_archive import SmallArchive
from small_recipe import small_recipe, train_on_first_tile, two_overpasses_a_month

from cube.ledger import Ledger
from cube.mapstore import map_classes, open_map
from pipelines.earlier import earlier_stores
from pipelines.progress import Reporter
from pipelines.run import open_run

Map = Callable[..., dict[str, Any]]
COLUMNS = (64, 192)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, reporter: Reporter) -> tuple[Path, SmallArchive]:
    """Return a folder with the finished run of a recipe over a part of an archive, which is in it."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANOPYCUBE_CACHE", str(folder / "cache"))
        archive = two_overpasses_a_month(folder / "archive")
        recipe = small_recipe(folder / "run", archive, columns=COLUMNS)
        with open_run(recipe, reporter) as run:
            run.build()
            train_on_first_tile(run)
            run.map()
    return folder, archive


@pytest.fixture
def folder(
    made: tuple[Path, SmallArchive], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return a copy of that folder."""
    shutil.copytree(made[0], tmp_path / "made")
    monkeypatch.setenv("CANOPYCUBE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "made"


@pytest.fixture
def archive(folder: Path, made: tuple[Path, SmallArchive]) -> SmallArchive:
    """Return the copy's archive."""
    return SmallArchive.copied(folder / "archive", made[1])


@pytest.fixture
def remap(folder: Path, archive: SmallArchive, reporter: Reporter) -> Map:
    """Return a function that builds and maps what is missing; what the report says of the map."""

    def run(*overrides: str, trains: int | None = None, **what: Any) -> dict[str, Any]:
        recipe = small_recipe(folder / "run", archive, *overrides, **{"columns": COLUMNS, **what})
        with open_run(recipe, reporter) as opened:
            opened.lock(update=True)
            opened.build()
            if trains is not None:
                shutil.rmtree(opened.layout.classifier)
                train_on_first_tile(opened, seed=trains)
            return opened.map()

    return run


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    return Ledger(store=folder / "run" / "out" / "map.zarr", inputs=None).records()


def _same_as_from_nothing(folder: Path, remap: Map, *overrides: str, **what: Any) -> None:
    store = folder / "run" / "out" / "map.zarr"
    kept, digests = open_map(store).load(), _records(folder)
    assert earlier_stores(store) == []
    shutil.rmtree(store)
    remap(*overrides, **what)
    assert open_map(store).load().equals(kept)
    assert {tile: (one["digest"], one["inputs"]) for tile, one in _records(folder).items()} == {
        tile: (one["digest"], one["inputs"]) for tile, one in digests.items()
    }


def test_a_corrected_scene_remaps_the_tiles_that_it_changed(
    folder: Path, archive: SmallArchive, remap: Map
) -> None:
    assert remap()["mapped_now"] == 0
    before = _records(folder)
    archive.correct("S2A_48SYC_20220513_0_L2A")
    found = remap()
    changed = {tile for tile, record in _records(folder).items() if record != before[tile]}
    # the granule's last column is 127, that of the second of four tiles
    assert changed == {tile for tile in before if int(tile[-4:]) < 2}
    assert found["mapped_now"] == 4
    _same_as_from_nothing(folder, remap)


def test_another_classifier_remaps_all_and_builds_nothing(folder: Path, remap: Map) -> None:
    built = (folder / "run" / "out" / "cube.zarr" / "ledger" / "r0000c0000.json").stat().st_mtime_ns
    assert remap(trains=5)["mapped_now"] == 8
    record = folder / "run" / "out" / "cube.zarr" / "ledger" / "r0000c0000.json"
    assert record.stat().st_mtime_ns == built
    marks = {one["made_from"]["classifier"][:16] for one in _records(folder).values()}
    (mark,) = marks
    notes = folder / "run" / "out" / "map.zarr" / "ledger"
    note = json.loads((notes / f"classifier-{mark}.json").read_text())
    assert note["classes"] == [one.name for one in map_classes(notes.parent)]


def test_a_larger_area_maps_what_is_new(folder: Path, remap: Map) -> None:
    found = remap(columns=(32, 224))
    assert found["mapped_now"] == 12 - 8
    assert found["tiles"] == "12 of 12, 0 failed"
    _same_as_from_nothing(folder, remap, columns=(32, 224))


def test_other_tiles_are_all_mapped(folder: Path, remap: Map) -> None:
    found = remap(columns=(50, 210))
    assert found["mapped_now"] == 10
    _same_as_from_nothing(folder, remap, columns=(50, 210))


def test_a_damaged_tile_is_not_carried_over(folder: Path, remap: Map) -> None:
    (shard,) = (folder / "run" / "out" / "map.zarr" / "species" / "c").glob("1/1")
    shard.write_bytes(shard.read_bytes()[:-3])
    assert remap(columns=(32, 224))["mapped_now"] == 5
    _same_as_from_nothing(folder, remap, columns=(32, 224))


def test_a_map_of_an_earlier_version_is_made_anew(folder: Path, remap: Map) -> None:
    file = folder / "run" / "out" / "map.zarr" / "zarr.json"
    root = json.loads(file.read_text())
    del root["attributes"]["canopycube"]["spec"]
    file.write_text(json.dumps(root))
    assert remap()["mapped_now"] == 8
    assert earlier_stores(file.parent) == []
