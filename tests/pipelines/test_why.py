"""The lineage of a pixel: what the layers and ledgers say, and what would change it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rioxarray  # noqa: F401 - gives datasets their `.rio`
from pyproj import Transformer
from small_archive import LEFT, PIXEL, TOP, SmallArchive
from small_recipe import small_recipe, train_on_first_tile, two_overpasses_a_month

from cube.mapstore import map_classes, open_map
from cube.store import open_cube
from pipelines.progress import Reporter
from pipelines.run import open_run

Command = Callable[..., tuple[int, str, str]]
X, Y = LEFT + 40.3 * PIXEL, TOP - 50.6 * PIXEL
"""In row 50 and column 40: the second tile of the second row."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, reporter: Reporter) -> tuple[Path, SmallArchive]:
    """Return the folder of a finished run, and the archive of its scenes."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANOPYCUBE_CACHE", str(folder / "cache"))
        archive = two_overpasses_a_month(folder / "archive")
        with open_run(small_recipe(folder / "run", archive, columns=(0, 96)), reporter) as run:
            run.build()
            train_on_first_tile(run)
            run.map()
    return folder, archive


@pytest.fixture
def run(made: tuple[Path, SmallArchive], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the run's folder; its archive lies beside it."""
    shutil.copytree(made[0], tmp_path / "made")
    monkeypatch.setenv("CANOPYCUBE_CACHE", str(tmp_path / "cache"))
    recipe = tmp_path / "made" / "run" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace(str(made[0]), str(tmp_path / "made")))
    return tmp_path / "made" / "run"


@pytest.fixture
def why(command: Command) -> Callable[..., dict[str, Any]]:
    """Return a function that asks for a pixel by JSON; what it was told."""

    def ask(*words: str | Path) -> dict[str, Any]:
        code, printed, complaint = command("why", *words, "--json")
        assert (code, complaint) == (0, "")
        found: dict[str, Any] = json.loads(printed)
        return found

    return ask


Why = Callable[..., dict[str, Any]]


def test_layers_and_ledger_are_told(run: Path, why: Why) -> None:
    found = why(run / "out", "--x", str(X), "--y", str(Y))
    cube = open_cube(run / "out" / "cube.zarr").sel(x=X, y=Y, method="nearest").load()
    told = found["cube"]
    assert (told["tile"], told["row"], told["column"]) == ("r0001c0001", 50, 40)
    record = json.loads((run / "out" / "cube.zarr" / "ledger" / "r0001c0001.json").read_text())
    assert [told[key] for key in ("made_at", "made_by", "digest")] == [
        record[key] for key in ("made_at", "made_by", "digest")
    ]
    assert told["settings"]["method"] == "median"
    for number, one in enumerate(told["periods"]):
        here = cube.isel(time=number)
        assert one["period"] == str(here["period"].values)
        assert one["clear_count"] == int(here["clear_count"])
        assert one["clear_share"] == int(here["clear_share"])
        assert (one["mean_day"] or 0) == int(here["mean_day"])
        assert one["state"] == ("seen" if one["clear_count"] else "never clear")
        values = [
            np.nan if one["values"][band] is None else one["values"][band]
            for band in ("B04", "B08")
        ]
        np.testing.assert_allclose(values, here["reflectance"].values, atol=5e-5)
        days = [look["time"][:10] for look in one["scenes"]]
        assert days == [f"2022-0{5 + number}-03", f"2022-0{5 + number}-13"]
        assert all(look["scenes"][0].startswith("S2A_48SYC_") for look in one["scenes"])
    mapped = open_map(run / "out" / "map.zarr").sel(x=X, y=Y, method="nearest").load()
    names = {one.value: one.name for one in map_classes(run / "out" / "map.zarr")}
    assert found["map"]["class"] == names.get(int(mapped["species"]))
    assert found["map"]["confidence"] == pytest.approx(float(mapped["confidence"]), nan_ok=True)
    assert found["map"]["engine"] == "exact"
    assert found["map"]["classifier"]["classes"] == list(names.values())
    assert found["map"]["made_again_because"] == []


def test_longitude_and_latitude_mean_the_same_pixel(run: Path, why: Why) -> None:
    longitude, latitude = Transformer.from_crs(32648, 4326, always_xy=True).transform(X, Y)
    planar = why(run / "out" / "map.zarr", "--x", str(X), "--y", str(Y))
    geographic = why(run / "out" / "map.zarr", f"--lon={longitude:.9f}", f"--lat={latitude:.9f}")
    assert geographic == planar
    alone = why(run / "out" / "cube.zarr", "--x", str(X), "--y", str(Y))
    assert alone["cube"] == planar["cube"]


def test_people_are_told_in_lines(run: Path, command: Command) -> None:
    code, printed, _ = command("why", run / "recipe.toml", "--x", str(X), "--y", str(Y))
    assert code == 0
    assert "tile r0001c0001 made 20" in printed
    assert printed.count("it would be made the same again") == 2
    assert "2022-05: " in printed
    assert "of 2 looks over the tile: S2A_48SYC_20220503_0_L2A 2022-05-03T03:48" in printed


def test_what_would_change_it_is_told(
    run: Path, why: Why, made: tuple[Path, SmallArchive], command: Command
) -> None:
    place = ("--x", str(X), "--y", str(Y))
    changed = why(run / "recipe.toml", *place, "--set", "mask.buffer=150")["cube"]
    assert changed["made_again_because"][0] == "other settings"
    assert "'buffer': 150.0" in changed["made_again_because"][1]
    archive = SmallArchive.copied(run.parent / "archive", made[1])
    archive.correct("S2A_48SYC_20220513_0_L2A")
    assert command("lock", run / "recipe.toml", "--update")[0] == 0
    assert why(run / "out", *place, "--recipe", run / "recipe.toml")["cube"][
        "made_again_because"
    ] == ["other scenes in 2022-05", "scene S2A_48SYC_20220513_0_L2A was changed"]
    code, printed, _ = command("plan", run / "recipe.toml")
    assert code == 0
    assert "6 tiles again: other scenes in 2022-05" in printed
    assert "scenes: 1 changed (S2A_48SYC_20220513_0_L2A)" in printed
    assert "0 tiles are taken over whole, 6 in part, 0 are made anew" in printed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--lon", "10", "--lat", "50"), "outside of the grid: x 700000 … 709600"),
        (("--x", "709601", "--y", "3699000"), "outside of the grid"),
        (("--lon", "10", "--lat", "95"), "latitude 95 is beyond 90; are --lon and --lat swapped?"),
        (
            ("--x", "3699000", "--y", "701000"),
            "; swapped, it lies inside: are --x and --y swapped?",
        ),
        (("--lon", "nan", "--lat", "5"), "has no coordinates"),
        (("--lon", "10"), "a place is --lon and --lat, or --x and --y"),
        (("--lon", "10", "--lat", "5", "--x", "1", "--y", "2"), "a place is --lon"),
        ((), "a place is --lon"),
    ],
)
def test_no_such_place_is_one_line(
    made: tuple[Path, SmallArchive], command: Command, words: tuple[str, ...], said: str
) -> None:
    code, printed, complaint = command("why", made[0] / "run" / "out", *words)
    assert (code, printed) == (2, "")
    assert said in complaint
    assert complaint.count("\n") == 1


def test_a_store_that_is_not_laid_out_as_ours_is_not_decoded(run: Path, command: Command) -> None:
    file = run / "out" / "cube.zarr" / "reflectance" / "zarr.json"
    metadata = json.loads(file.read_text())
    metadata["fill_value"] = 5
    file.write_text(json.dumps(metadata))
    code, _, complaint = command("why", run / "out" / "cube.zarr", "--x", str(X), "--y", str(Y))
    assert code == 2
    assert "reflectance: its metadata have another fill_value" in complaint


def test_a_tile_without_a_record_is_told(run: Path, command: Command) -> None:
    (run / "out" / "cube.zarr" / "ledger" / "r0001c0001.json").unlink()
    code, printed, _ = command("why", run / "out" / "cube.zarr", "--x", str(X), "--y", str(Y))
    assert code == 0
    assert "tile r0001c0001 has no record: it is not made yet" in printed
