"""Cubes and maps that are whole, and every way in which they are not: named, and mended."""

import json
import pickle
import re
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from small_recipe import small_recipe, train_on_first_tile, two_overpasses_a_month

from cube.ledger import Ledger, sealed
from cube.place import Place
from cube.store import read_spec
from pipelines.progress import Reporter
from pipelines.run import open_run

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, reporter: Reporter) -> Path:
    """Return the folder of a recipe with a cube of 8 tiles and its map."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANOPYCUBE_CACHE", str(folder / "cache"))
        archive = two_overpasses_a_month(folder / "archive")
        with open_run(small_recipe(folder / "run", archive, columns=(0, 120)), reporter) as run:
            run.build()
            train_on_first_tile(run)
            run.map()
    return folder / "run"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """Return a copy of that folder."""
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def verify(command: Command) -> Callable[..., tuple[int, list[dict[str, Any]], str]]:
    """Return a function that verifies: exit code, what was found of each store, what it complained."""

    def words(*given: str | Path) -> tuple[int, list[dict[str, Any]], str]:
        code, printed, complaint = command("verify", *given, "--json")
        return code, json.loads(printed).get("stores", []), complaint

    return words


Verify = Callable[..., tuple[int, list[dict[str, Any]], str]]


def _shard(store: Path, layer: str, row: int, column: int) -> Path:
    (found,) = (one for one in (store / layer / "c").glob(f"**/{row}/{column}") if one.is_file())
    return found


def _digests(store: Path) -> dict[str, str]:
    """Read every tile by Zarr itself, and hash it as its record was."""
    group = zarr.open_group(store, mode="r")
    found = {}
    for region in read_spec(store).regions():
        sha = sha256()
        for name in ("reflectance", "clear_count", "clear_share", "mean_day", "is_filled"):
            array = group[name]
            assert isinstance(array, zarr.Array)
            block = np.ascontiguousarray(array[..., region.rows, region.columns])
            sha.update(f"{block.shape}{block.dtype.str}".encode() + block.tobytes())
        found[region.id] = sha.hexdigest()
    return found


def _objects(store: Path) -> dict[str, bytes]:
    """Return every file of a store but the records, which have times of day."""
    return {
        str(file.relative_to(store)): file.read_bytes()
        for file in sorted(store.rglob("*"))
        if file.is_file() and file.parent.name != "ledger"
    }


def test_what_is_whole_gets_a_certificate(run: Path, verify: Verify, command: Command) -> None:
    code, (cube, mapped), complaint = verify(run / "out")
    assert (code, complaint) == (0, "")
    assert cube["is_whole"]
    assert mapped["is_whole"]
    assert (cube["tiles"], cube["whole"], cube["failed"], cube["faults"]) == (8, 8, 0, [])
    report = json.loads((run / "out" / "report.json").read_text())
    assert cube["digest"] == report["cube"]["digest"]
    assert mapped["digest"] == report["map"]["digest"]
    assert cube["scenes"] == 4  # two overpasses a month, and the granule that lies there
    files = [file for file in (run / "out" / "cube.zarr").rglob("*") if file.is_file()]
    assert cube["objects"] == len(files)
    assert cube["bytes"] == sum(file.stat().st_size for file in files)
    records = Ledger(store=run / "out" / "cube.zarr", inputs=None).records()
    assert {tile: one["digest"] for tile, one in records.items()} == _digests(
        run / "out" / "cube.zarr"
    )
    code, printed, _ = command("verify", run / "out" / "cube.zarr")
    assert code == 0
    assert "8 of 8 tiles, 0 failed" in printed
    assert re.search(r"made \S+( … \S+)? by canopycube \S+ from 4 scenes", printed)
    assert f"digest {cube['digest']}" in printed


def _other_bytes(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 0xFF
    file.write_bytes(content)


def _longer(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def _shorter(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("layer", ["reflectance", "clear_count", "mean_day"])
@pytest.mark.parametrize("harm", [_other_bytes, _shorter, _longer, Path.unlink])
def test_a_damaged_object_is_named_and_forgotten(
    run: Path, verify: Verify, layer: str, harm: Callable[[Path], None]
) -> None:
    store = run / "out" / "cube.zarr"
    harm(_shard(store, layer, 1, 2))
    code, (cube,), complaint = verify(store)
    assert code == 1
    assert f"{str(store)!r} is not whole: 7 of 8 tiles, 1 fault." in complaint
    assert [(fault["place"], fault["kind"]) for fault in cube["faults"]] == [
        ("tile r0001c0002", "damaged")
    ]
    code, (cube,), _ = verify(store, "--repair")
    assert code == 1
    assert [(fault["place"], fault["kind"]) for fault in cube["faults"]] == [
        ("tile r0001c0002", "missing")
    ]


def test_with_its_recipe_what_is_damaged_is_made_anew(run: Path, verify: Verify) -> None:
    stores = [run / "out" / name for name in ("cube.zarr", "map.zarr")]
    before = [_objects(store) for store in stores]
    _other_bytes(_shard(stores[0], "reflectance", 1, 2))
    _shorter(_shard(stores[0], "clear_count", 0, 3))
    _shard(stores[0], "mean_day", 0, 0).unlink()
    (stores[0] / "ledger" / "r0000c0001.json").write_text("{")
    (stores[0] / "ledger" / "r0001c0000.json").unlink()
    _longer(_shard(stores[1], "species", 0, 1))
    assert [found["whole"] for found in verify(run / "out")[1]] == [3, 7]
    code, found, complaint = verify(run / "recipe.toml", "--repair")
    assert (code, complaint) == (0, "")
    assert [one["whole"] for one in found] == [8, 8]
    assert [_objects(store) for store in stores] == before


def test_a_damaged_map_is_named_and_forgotten(run: Path, verify: Verify) -> None:
    store = run / "out" / "map.zarr"
    _other_bytes(_shard(store, "confidence", 0, 1))
    code, (found,), _ = verify(store)
    assert code == 1
    assert [fault["place"] for fault in found["faults"]] == ["tile r0000c0001"]
    code, (found,), complaint = verify(store, "--repair")
    assert code == 1
    assert "run the recipe again, which makes it anew" in complaint
    assert [(one["place"], one["kind"]) for one in found["faults"]] == [
        ("tile r0000c0001", "missing")
    ]


def test_a_map_of_other_pixels_than_the_cube_has_now_is_stale(run: Path, verify: Verify) -> None:
    record = run / "out" / "cube.zarr" / "ledger" / "r0001c0001.json"
    changed = json.loads(record.read_text()) | {"reflectance_digest": "0" * 64}
    del changed["record_digest"]
    record.write_text(sealed(changed))
    code, (cube, mapped), _ = verify(run / "out")
    assert code == 1
    assert cube["faults"][0]["what"] == "its reflectance is not what was recorded"
    assert mapped["faults"] == [
        {
            "place": "tile r0001c0001",
            "kind": "stale",
            "what": "the cube has other pixels there by now",
        }
    ]


def test_what_a_recipe_would_make_otherwise_is_stale(run: Path, verify: Verify) -> None:
    code, (cube, _), _ = verify(run / "recipe.toml", "--set", "mask.buffer=150")
    assert code == 1
    assert {(fault["kind"], fault["what"]) for fault in cube["faults"]} == {
        ("stale", "other settings")
    }
    assert verify(run / "recipe.toml")[0] == 0


@pytest.mark.parametrize(
    ("record", "kind", "said"),
    [
        ("{", "damaged", "is damaged"),
        (sealed({"tile": "r0000c0000", "inputs": "x"}), "damaged", "it is of tile"),
        (sealed({"tile": "r0000c0001", "inputs": 5}), "damaged", "with inputs 5"),
        (sealed({"tile": "r0000c0001", "inputs": "x"}), "damaged", "not what was recorded"),
        ('{"tile": "r0000c0001", "inputs": "x"}', "damaged", "not what was recorded"),
        (
            '{"tile": "r0000c0001", "inputs": "x", "made_from": {}}',
            "damaged",
            "it has no checksum of itself",
        ),
        (None, "unrecorded", "4 objects with pixels and no record"),
    ],
)
def test_records_that_vouch_for_nothing(
    run: Path, verify: Verify, record: str | None, kind: str, said: str
) -> None:
    path = run / "out" / "cube.zarr" / "ledger" / "r0000c0001.json"
    path.unlink() if record is None else path.write_text(record)
    code, (cube,), _ = verify(run / "out" / "cube.zarr")
    assert code == 1
    ((place, found, what),) = [(f["place"], f["kind"], f["what"]) for f in cube["faults"]]
    assert (place, found) == ("tile r0000c0001", kind)
    assert said in what


def test_a_record_without_data_is_damage(run: Path, verify: Verify) -> None:
    store = run / "out" / "cube.zarr"
    for layer in ("reflectance", "clear_count", "clear_share", "mean_day"):
        _shard(store, layer, 0, 0).unlink()
    _, (cube,), _ = verify(store)
    assert re.fullmatch(
        r"\d objects are there, its record counts 4|.* counts 5", cube["faults"][0]["what"]
    )


def test_strays_are_named_and_removed(run: Path, verify: Verify) -> None:
    store = run / "out" / "cube.zarr"
    shard = _shard(store, "mean_day", 0, 0)
    outside = shard.parents[1] / "7" / "0"
    outside.parent.mkdir()
    shutil.copy(shard, outside)
    record = store / "ledger" / "r0009c0000.json"
    record.write_text('{"tile": "r0009c0000", "inputs": "x"}')
    draft = store / "ledger" / ".r0000c0000.json.0123456789ab.draft"
    draft.write_text("{")
    partial = shard.with_name("0." + "a" * 32 + ".partial")
    partial.write_bytes(b"half")
    notes = store / "NOTES.txt"
    notes.write_text("mine")
    code, (cube,), _ = verify(store)
    assert code == 1
    assert {(fault["place"], fault["kind"]) for fault in cube["faults"]} == {
        (str(outside.relative_to(store)), "outside"),
        ("ledger/r0009c0000.json", "record"),
    }
    left = {str(path.relative_to(store)) for path in (draft, partial, notes)}
    assert set(cube["leftovers"]) == left
    code, (cube,), _ = verify(store, "--repair")
    assert (code, cube["leftovers"]) == (0, ["NOTES.txt"])
    assert [path.exists() for path in (outside, record, draft, partial, notes)] == [
        False,
        False,
        False,
        False,
        True,
    ]


def _edit_metadata(store: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    file = store / name / "zarr.json"
    metadata = json.loads(file.read_text())
    change(metadata)
    file.write_text(json.dumps(metadata))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("reflectance", lambda m: m.update(shape=[2, 2, 64, 121]), "another shape"),
        ("clear_count", lambda m: m.update(fill_value=7), "another fill_value"),
        ("mean_day", lambda m: m["attributes"].update(units="d"), "another attributes"),
        ("reflectance", lambda m: m.update(zarr_format=9), "missing or cannot be read"),
        ("is_filled", lambda m: m.clear(), "missing or cannot be read"),
    ],
)
def test_metadata_that_are_not_the_spec_are_named_and_mended(
    run: Path, verify: Verify, name: str, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    store = run / "out" / "cube.zarr"
    before = _digests(store)
    _edit_metadata(store, name, change)
    code, (cube,), _ = verify(store)
    assert code == 1
    assert [(fault["place"], fault["kind"]) for fault in cube["faults"]] == [(name, "layout")]
    assert said in cube["faults"][0]["what"]
    assert cube["bytes_checked"] == 0  # nothing is decoded by what we did not write
    assert verify(store, "--repair")[0] == 0
    assert _digests(store) == before


def _harm_array(store: Path) -> None:
    _edit_metadata(store, "reflectance", lambda m: m.update(fill_value=7))


def _harm_root(store: Path) -> None:
    _edit_metadata(store, "", lambda m: m["attributes"].update(hello=1))


def _harm_note(store: Path) -> None:
    note = next((store / "ledger").glob("settings-*.json"))
    note.write_text(note.read_text().replace("median", "medoid"))


def _harm_record(store: Path) -> None:
    record = store / "ledger" / "r0001c0001.json"
    record.write_text(record.read_text().replace("S2A_48SYC", "S2B_48SYC", 1))


@pytest.mark.parametrize(
    ("harm", "place", "kind", "said"),
    [
        (_harm_array, "reflectance", "layout", "fill_value"),
        (_harm_root, "zarr.json", "layout", "attribute 'hello' that we have not written"),
        (_harm_note, "ledger/settings-", "note", "not as it was written"),
        (_harm_record, "tile r0001c0001", "damaged", "its record is damaged"),
    ],
)
def test_after_repair_every_file_is_as_it_was(
    run: Path, verify: Verify, harm: Callable[[Path], None], place: str, kind: str, said: str
) -> None:
    store = run / "out" / "cube.zarr"
    before = _objects(store)
    notes = {file: file.read_bytes() for file in (store / "ledger").glob("*-*.json")}
    harm(store)
    code, (cube,), _ = verify(store)
    assert (code, len(cube["faults"])) == (1, 1)
    assert cube["faults"][0]["place"].startswith(place)
    assert cube["faults"][0]["kind"] == kind
    assert said in cube["faults"][0]["what"]
    assert cube["not_looked_at"] == (8 if harm is _harm_array else 0)
    assert verify(run / "recipe.toml", "--repair")[0] == 0
    assert _objects(store) == before
    assert {file: file.read_bytes() for file in (store / "ledger").glob("*-*.json")} == notes


@pytest.mark.parametrize("name", ["x", "y", "time", "period", "band"])
def test_coordinates_that_are_not_the_grids_are_named_and_mended(
    run: Path, verify: Verify, name: str
) -> None:
    store = run / "out" / "cube.zarr"
    array = zarr.open_group(store, mode="r+")[name]
    assert isinstance(array, zarr.Array)
    values = np.asarray(array[...])
    array[...] = np.roll(values, 1)
    code, (cube,), _ = verify(store)
    assert (code, [fault["place"] for fault in cube["faults"]]) == (1, [name])
    assert verify(store, "--repair")[0] == 0
    mended = zarr.open_group(store, mode="r")[name]
    assert isinstance(mended, zarr.Array)
    np.testing.assert_array_equal(np.asarray(mended[...]), values)


def test_links_are_not_followed(run: Path, verify: Verify, tmp_path: Path) -> None:
    store = run / "out" / "cube.zarr"
    secret = tmp_path / "elsewhere"
    shard = _shard(store, "reflectance", 0, 0)
    shard.rename(secret)
    shard.symlink_to(secret)
    folder = _shard(store, "clear_count", 1, 0).parent
    folder.rename(tmp_path / "folder")
    folder.symlink_to(tmp_path / "folder")
    code, (cube,), _ = verify(store)
    assert code == 1
    kinds = {(fault["place"], fault["kind"]) for fault in cube["faults"]}
    assert (str(shard.relative_to(store)), "link") in kinds
    assert {place for place, kind in kinds if kind == "damaged"} == {
        "tile r0000c0000",
        *(f"tile r0001c000{column}" for column in range(4)),
    }
    verify(store, "--repair")
    assert secret.exists()
    assert len(list((tmp_path / "folder").iterdir())) == 4
    _, (cube,), _ = verify(store)
    assert {fault["kind"] for fault in cube["faults"]} == {"missing"}


def test_links_of_coordinates_and_records_lead_nowhere(
    run: Path, verify: Verify, tmp_path: Path
) -> None:
    store = run / "out" / "cube.zarr"
    before = _digests(store)
    elsewhere = tmp_path / "elsewhere"
    for name in ("band", "ledger"):
        (store / name).rename(elsewhere.with_name(name))
        (store / name).symlink_to(elsewhere.with_name(name))
    kept = {
        path: path.read_bytes()
        for name in ("band", "ledger")
        for path in elsewhere.with_name(name).rglob("*")
        if path.is_file()
    }
    code, (cube,), _ = verify(store)
    assert code == 1
    assert {(fault["place"], fault["kind"]) for fault in cube["faults"]} == {
        ("band", "link"),
        ("band", "layout"),
        ("ledger", "link"),
    }
    verify(store, "--repair")
    assert {path: path.read_bytes() for path in kept} == kept
    assert not (store / "ledger").exists()
    assert not (store / "band").is_symlink()
    assert before
    code, _, complaint = verify(store, "--workers", "0")
    assert (code, complaint.count("--workers 0; expected 1 or more")) == (2, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shape": [10**7, 10**7], "tile": 1, "chunk": 1}, "tiles"),
        ({"tile": 64.0}, "damaged|says"),
        ({"periods": [1]}, "damaged|says"),
        ({"bands": [{}]}, "damaged|says"),
        ({"transform": [10, 0, 0, 0, float("nan"), 0]}, "damaged|says|north up"),
    ],
)
def test_a_description_that_cannot_be_is_refused(
    run: Path, verify: Verify, change: dict[str, Any], said: str
) -> None:
    file = run / "out" / "cube.zarr" / "zarr.json"
    root = json.loads(file.read_text())
    root["attributes"]["canopycube"]["spec"] |= change
    file.write_text(json.dumps(root))
    code, _, complaint = verify(run / "out" / "cube.zarr")
    assert code == 2
    assert re.search(said, complaint)


def test_arrays_larger_than_the_description_are_named(run: Path, verify: Verify) -> None:
    file = run / "out" / "cube.zarr" / "zarr.json"
    root = json.loads(file.read_text())
    root["attributes"]["canopycube"]["spec"]["shape"] = [10, 10]
    file.write_text(json.dumps(root))
    code, (cube,), _ = verify(run / "out" / "cube.zarr")
    assert code == 1
    assert {fault["kind"] for fault in cube["faults"]} == {"outside", "record", "layout"}
    assert cube["bytes_checked"] == 0


def test_a_hostile_store_runs_nothing_and_fills_no_memory(
    run: Path, verify: Verify, tmp_path: Path
) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    store = run / "out" / "cube.zarr"
    shutil.rmtree(store / "band")
    (store / "band").mkdir()
    array = {
        "zarr_format": 2,
        "shape": [1],
        "chunks": [1],
        "dtype": "|O",
        "compressor": None,
        "fill_value": None,
        "order": "C",
        "filters": [{"id": "pickle", "protocol": 5}],
    }
    (store / "band" / ".zarray").write_text(json.dumps(array))
    (store / "band" / "0").write_bytes(pickle.dumps(np.array([Bomb()], object)))
    code, (cube,), _ = verify(store)
    assert code == 1
    assert {fault["place"] for fault in cube["faults"] if fault["kind"] == "layout"} == {"band"}
    assert not (tmp_path / "ran").exists()
    file = store / "zarr.json"
    root = json.loads(file.read_text())
    root["attributes"]["canopycube"]["spec"]["shape"] = [10**12, 10**12]
    file.write_text(json.dumps(root))
    code, _, complaint = verify(store)
    assert code == 2
    assert "says that it has" in complaint


def test_a_store_from_elsewhere_is_told_as_such(run: Path, verify: Verify) -> None:
    store = run / "out" / "cube.zarr"
    shutil.rmtree(store / "ledger")
    code, (cube,), _ = verify(store)
    assert code == 1
    assert cube["faults"][0] == {
        "place": "ledger",
        "kind": "ledger",
        "what": "there is no ledger: it was built elsewhere, and nothing vouches for its pixels",
    }


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "there is no store at"),
        (lambda path: path.mkdir(), "is no Zarr store that can be opened"),
        (lambda path: zarr.create_group(path), "is a Zarr store from elsewhere"),
        (
            lambda path: zarr.create_group(path, attributes={"canopycube": {"kind": "samples"}}),
            "is a store of 'samples'",
        ),
    ],
)
def test_what_is_no_store_is_refused(
    tmp_path: Path, verify: Verify, make: Callable[[Path], object], said: str
) -> None:
    make(tmp_path / "store")
    code, found, complaint = verify(tmp_path / "store")
    assert (code, found) == (2, [])
    assert said in complaint
    assert complaint.count("\n") == 1


def test_threads_find_the_same(run: Path, verify: Verify) -> None:
    _other_bytes(_shard(run / "out" / "cube.zarr", "reflectance", 0, 3))
    one, many = (verify(run / "out", "--workers", str(number)) for number in (1, 8))
    for found in (one, many):
        for store in found[1]:
            store["faults"].sort(key=lambda fault: fault["place"])
    assert one == many


def test_a_place_may_be_a_path_object(made: Path, reporter: Reporter) -> None:
    from pipelines.verify_store import checked_store, verify_store

    place: Place = made / "out" / "cube.zarr"
    assert verify_store(checked_store(place), reporter).is_whole
