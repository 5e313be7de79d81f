"""A cube whose inputs change in part: only what changed is made anew, and every byte is as from nothing."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely
from small_archive import LEFT, PIXEL, TOP, SmallArchive
from small_recipe import small_recipe, two_overpasses_a_month

from cube.cog import PIECES
from cube.errors import InputError, WorkFailedError
from cube.ledger import Ledger
from cube.place import Place
from cube.stac.pixels import HEADERS
from pipelines import build_cube as building
from pipelines.earlier import earlier_stores
from pipelines.progress import Reporter
from pipelines.run import open_run

Build = Callable[..., dict[str, Any]]


@pytest.fixture
def archive(tmp_path: Path) -> SmallArchive:
    """Return two overpasses a month, from May to July, each of two granules side by side."""
    return two_overpasses_a_month(tmp_path / "archive")


@pytest.fixture
def build(
    archive: SmallArchive, tmp_path: Path, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> Build:
    """Return a function that locks the archive anew and builds; what the report says of the cube."""
    monkeypatch.setenv("CANOPYCUBE_CACHE", str(tmp_path / "cache"))

    def run(name: str = "kept", *overrides: str, **what: Any) -> dict[str, Any]:
        HEADERS.forget()
        PIECES.forget()
        recipe = small_recipe(tmp_path / name, archive, *overrides, **what)
        with open_run(recipe, reporter) as opened:
            opened.lock(update=True)
            return opened.build()

    return run


def stored(store: Path) -> dict[str, str]:
    """Hash every file of a cube but its ledger, which has times of day."""
    return {
        str(file.relative_to(store)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(store.rglob("*"))
        if file.is_file() and "ledger" not in file.relative_to(store).parts
    }


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a cube's tiles."""
    return Ledger(store=folder / "kept" / "out" / "cube.zarr", inputs=None).records()


def same_as_from_nothing(tmp_path: Path, build: Build, *overrides: str, **what: Any) -> None:
    """Build the same again elsewhere, and compare every byte."""
    shutil.rmtree(tmp_path / "fresh", ignore_errors=True)
    fresh = build("fresh", *overrides, **what)
    store = tmp_path / "kept" / "out" / "cube.zarr"
    assert stored(store) == stored(tmp_path / "fresh" / "out" / "cube.zarr")
    assert fresh["taken_over_now"] == 0
    assert earlier_stores(store) == []
    kept = Ledger(store=store, inputs=None).records()
    new = Ledger(store=tmp_path / "fresh" / "out" / "cube.zarr", inputs=None).records()
    for key in ("inputs", "digest", "made_from", "files", "lost", "empty_pixels", "filled_pixels"):
        assert {tile: one[key] for tile, one in kept.items()} == {
            tile: one[key] for tile, one in new.items()
        }


def test_a_corrected_scene_remakes_the_tiles_it_touches(
    archive: SmallArchive, build: Build, tmp_path: Path
) -> None:
    assert build()["built_now"] == 16
    before = records(tmp_path)
    assert build()["built_now"] == 0
    archive.correct("S2A_48SYC_20220603_0_L2A")
    found = build()
    changed = {tile for tile, record in records(tmp_path).items() if record != before[tile]}
    # the granule covers columns 0..3, and footprints have a slack of about a tile
    assert {tile for tile in before if int(tile[-4:]) <= 3} <= changed
    assert not {tile for tile in changed if int(tile[-4:]) >= 6}
    assert found["built_now"] == len(changed)
    # … of which May was not touched
    assert {
        record["taken_over"] for tile, record in records(tmp_path).items() if tile in changed
    } == {1}
    same_as_from_nothing(tmp_path, build)


@pytest.mark.parametrize(
    ("columns", "taken_over"),
    [
        ((64, 256), 6),  # the same corner: tiles that were cut grow, the others are taken over
        ((32, 256), 6),  # a whole tile further west
        ((40, 230), 6),  # tiles lie otherwise: each is put together from several
    ],
)
def test_a_larger_area_takes_over_what_it_covers(
    build: Build, tmp_path: Path, columns: tuple[int, int], taken_over: int
) -> None:
    build(columns=(64, 180))
    found = build(columns=columns)
    assert found["taken_over_now"] == taken_over
    assert found["built_now"] + taken_over == int(found["tiles"].split()[0])
    same_as_from_nothing(tmp_path, build, columns=columns)


@pytest.mark.parametrize("shift", [0, 10])
def test_a_larger_polygon_takes_over_the_tiles_that_both_touch(
    build: Build, tmp_path: Path, shift: int
) -> None:
    def area(name: str, *corners: tuple[float, float]) -> str:
        places = [(LEFT + column * PIXEL, TOP - row * PIXEL) for column, row in corners]
        file = tmp_path / f"{name}.gpkg"
        geopandas.GeoSeries([shapely.Polygon(places)], crs="EPSG:32648").to_file(file)
        return f'area={{file="{file}"}}'

    small = area("small", (0, 0), (64, 0), (0, 64))
    build("kept", small)
    assert len(records(tmp_path)) == 3
    large = area("large", (-shift, 0), (100, 0), (-shift, 64))
    found = build("kept", large)
    assert found["taken_over_now"] == (1 if shift else 3)
    same_as_from_nothing(tmp_path, build, large)


def test_a_further_month_reads_its_own_scenes_only(
    archive: SmallArchive, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build()
    asked: list[str] = []
    composites = building._composites

    def noted(source: Any, spec: Any, region: Any, periods: Any) -> Any:
        asked.extend(map(str, periods))
        return composites(source, spec, region, periods)

    monkeypatch.setattr(building, "_composites", noted)
    assert build(months=("2022-05", "2022-07"))["built_now"] == 16
    assert asked == ["2022-07"] * 16
    monkeypatch.undo()
    same_as_from_nothing(tmp_path, build, months=("2022-05", "2022-07"))
    build(months=("2022-06", "2022-07"))  # the year goes on
    assert {one["taken_over"] for one in records(tmp_path).values()} == {2}
    same_as_from_nothing(tmp_path, build, months=("2022-06", "2022-07"))


def test_series_that_are_filled_take_over_all_periods_or_none(build: Build, tmp_path: Path) -> None:
    gaps = "gaps.method='linear'"
    build("kept", gaps, columns=(0, 128))
    found = build("kept", gaps, months=("2022-05", "2022-07"), columns=(0, 128))
    assert (found["built_now"], found["taken_over_now"]) == (8, 0)
    assert {one["taken_over"] for one in records(tmp_path).values()} == {0}
    what: dict[str, Any] = {"months": ("2022-05", "2022-07"), "columns": (0, 192)}
    found = build("kept", gaps, **what)
    # not the tiles near the granule that was not searched before: its footprint has a slack
    assert found["taken_over_now"] == 4
    same_as_from_nothing(tmp_path, build, gaps, **what)


def test_other_settings_take_nothing_over(build: Build, tmp_path: Path) -> None:
    build()
    found = build("kept", "mask.buffer=150")
    assert (found["built_now"], found["taken_over_now"]) == (16, 0)
    same_as_from_nothing(tmp_path, build, "mask.buffer=150")


def test_a_run_that_was_stopped_while_it_grows_goes_on(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(columns=(64, 192))
    made = building.build_tile

    def stopped(path: Place, spec: Any, **rest: Any) -> Any:
        if rest["region"].column >= 4:
            raise WorkFailedError("as if the disk were full")
        return made(path, spec, **rest)

    monkeypatch.setattr(building, "build_tile", stopped)
    with pytest.raises(WorkFailedError, match="disk were full"):
        build(columns=(32, 224))
    store = tmp_path / "kept" / "out" / "cube.zarr"
    assert len(earlier_stores(store)) == 1
    with pytest.raises(WorkFailedError, match="disk were full"):
        build()  # and larger still, before that was done
    assert len(earlier_stores(store)) == 2
    monkeypatch.setattr(building, "build_tile", made)
    found = build()
    assert int(found["tiles"].split()[0]) == 16
    same_as_from_nothing(tmp_path, build)


def test_a_store_set_aside_and_not_yet_replaced_is_found(build: Build, tmp_path: Path) -> None:
    build(columns=(64, 192))
    store = tmp_path / "kept" / "out" / "cube.zarr"
    store.rename(store.with_name(".cube.zarr.earlier-1"))  # as if killed right there
    found = build()
    assert found["taken_over_now"] > 0
    same_as_from_nothing(tmp_path, build)


def test_damage_is_not_taken_over(build: Build, tmp_path: Path) -> None:
    build(columns=(64, 192))
    store = tmp_path / "kept" / "out" / "cube.zarr"
    for shard in (store / "clear_count").rglob("c/0/1/1"):
        shard.unlink()
    build()
    same_as_from_nothing(tmp_path, build)


def test_records_of_an_earlier_version_are_told_and_made_anew(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build()
    said: list[str] = []
    monkeypatch.setattr(Reporter, "say", lambda _, text: said.append(text))
    for path in (tmp_path / "kept" / "out" / "cube.zarr" / "ledger").glob("r*.json"):
        record = json.loads(path.read_text())
        del record["made_from"], record["record_digest"]
        path.write_text(json.dumps({**record, "inputs": "0123456789abcdef", "scenes": ["a", "b"]}))
    assert build()["built_now"] == 16
    assert said == [
        "16 tiles of the cube are made again: its record does not say what it was made from "
        "(an earlier version's)"
    ]
    same_as_from_nothing(tmp_path, build)


@pytest.mark.parametrize(
    ("overrides", "what", "said"),
    [
        (("grid.anchor=[50, 0]",), {}, "with other transform"),
        ((), {"columns": (64, 256)}, "with other transform"),
        ((), {"rows": (0, 32)}, "with other shape"),
        ((), {"months": ("2022-07", "2022-07")}, "with other periods"),
        (("composite.tile=64",), {}, "with other tile"),
    ],
)
def test_what_would_lose_pixels_is_refused(
    build: Build, tmp_path: Path, overrides: tuple[str, ...], what: dict[str, Any], said: str
) -> None:
    build()
    before = stored(tmp_path / "kept" / "out" / "cube.zarr")
    with pytest.raises(InputError, match=said):
        build("kept", *overrides, **what)
    assert stored(tmp_path / "kept" / "out" / "cube.zarr") == before
