"""What `plan` refuses and foretells, against figures added up by hand and stores that were made."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from cube.errors import InputError
from cube.ledger import Ledger
from cube.mapstore import MapClass, create_map
from cube.periods import Period, periods_between
from cube.place import files_below
from cube.spec import CubeSpec
from cube.store import CubeBlocks, create_cube, write_region
from pipelines import plan_fit
from pipelines.memory import Memory
from pipelines.plan_fit import Room, disk_warning, refuse_too_large, room_of
from pipelines.plan_rate import _scenes, recorded_rate, time_facts
from pipelines.plan_stores import cube_size, map_size
from pipelines.recipe import Recipe
from pipelines.recipe_cluster import ClusterSection

MONTHS = periods_between(Period.parse("2022-01"), Period.parse("2022-03"))


def spec_of(
    height: int,
    width: int,
    *,
    tile: int = 64,
    chunk: int = 32,
    sharded: bool = True,
    touched: tuple[int, ...] | None = None,
) -> CubeSpec:
    geobox = GeoBox((height, width), Affine(10, 0, 500_000, 0, -10, 5_300_000), "EPSG:32633")
    return CubeSpec(
        geobox=geobox,
        periods=MONTHS,
        bands=("B02", "B04"),
        tile=tile,
        chunk=chunk,
        sharded=sharded,
        touched=touched,
    )


def squares(spec: CubeSpec) -> Memory:
    """Return the memory of a tile that takes 1 kB a pixel."""
    return Memory(tile=1000 * spec.tile**2, process=10**6)


# --- objects, chunks, bytes ----------------------------------------------------------------------


@pytest.mark.parametrize("sharded", [True, False])
@pytest.mark.parametrize("touched", [None, (1, 2, 3)])
def test_stores_have_as_many_objects_as_foretold(
    tmp_path: Path, sharded: bool, touched: tuple[int, ...] | None
) -> None:
    spec = spec_of(100, 170, sharded=sharded, touched=touched)
    path = tmp_path / "cube.zarr"
    create_cube(path, spec)
    empty = {name for name, _ in files_below(path)}
    whole = 0
    for region in spec.regions():
        blocks = CubeBlocks.empty(3, 2, region.height, region.width)
        for layer in blocks.layers.values():
            layer[...] = 1  # nothing is what unwritten chunks read as
            whole += layer.nbytes
        write_region(path, region, blocks)
    made = sum(name not in empty for name, _ in files_below(path))
    size = cube_size(spec)
    assert size.size == whole
    assert size.objects == made + spec.tile_count
    per_tile = [-(-one.height // 32) * -(-one.width // 32) for one in spec.regions()]
    assert size.chunks == sum(per_tile) * 3 * 5


@pytest.mark.parametrize("sharded", [True, False])
def test_maps_have_as_many_objects_as_foretold(tmp_path: Path, sharded: bool) -> None:
    spec = spec_of(100, 170, sharded=sharded)
    path = tmp_path / "map.zarr"
    legend = (MapClass(value=1, name="beech", colour="#118811"),)
    create_map(path, geobox=spec.geobox, classes=legend, tile=64, chunk=32, layers=("applicable",))
    size = map_size(spec, layers=("applicable",))
    assert size.size == 100 * 170 * 5
    assert size.chunks == 4 * 6 * 5
    assert size.objects == 6 * 5 + 6


# --- memory --------------------------------------------------------------------------------------


def test_what_fits_is_not_refused() -> None:
    spec = spec_of(2000, 2000, tile=512, chunk=256)
    refuse_too_large(spec, squares, None)
    refuse_too_large(spec, squares, Room(size=10**10, tiles=8, processes=1, where="this machine"))


def test_the_settings_that_fit_are_named_and_fit() -> None:
    spec = spec_of(2000, 2000, tile=512, chunk=256)
    room = Room(size=2 * 10**9, tiles=8, processes=8, where="this machine")
    with pytest.raises(InputError) as refused:
        refuse_too_large(spec, squares, room)
    assert str(refused.value) == (
        "8 tiles of 512 at once need up to 2.11 GB beside the programs, this machine has 2 GB; what "
        "fits: cluster.workers = 3"
    )
    assert room.takes(squares(spec), tiles=3)
    assert not room.takes(squares(spec), tiles=4)


def test_a_smaller_tile_is_named() -> None:
    spec = spec_of(2000, 2000, tile=1024, chunk=256)
    room = Room(size=10**9, tiles=2, processes=1, where="this machine")
    with pytest.raises(InputError, match=r"composite\.tile = 512$"):
        refuse_too_large(spec, squares, room)
    assert room.takes(squares(replace(spec, tile=512)))
    small = Room(size=5 * 10**8, tiles=2, processes=1, where="a job of the cluster")
    with pytest.raises(InputError, match=r"a job of the cluster .* = 128 with composite\.chunk"):
        refuse_too_large(spec, squares, small)


def test_a_machine_too_small_for_anything_is_told() -> None:
    spec = spec_of(100, 100, tile=32, chunk=16)
    room = Room(size=10**6, tiles=1, processes=1, where="this machine")
    with pytest.raises(InputError, match="what fits: a machine with more memory"):
        refuse_too_large(spec, squares, room)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"kind": "threads", "workers": 4}, (4, 1)),
        ({"kind": "slurm", "workers": 9, "options": {"memory": "8GB", "cores": 4}}, (4, 1)),
        (
            {"kind": "pbs", "workers": 9, "options": {"memory": "8GB", "cores": 4, "processes": 2}},
            (4, 2),
        ),
        ({"kind": "slurm", "workers": 9}, None),
        ({"kind": "scheduler", "address": "tcp://10.0.0.5:8786"}, None),
    ],
)
def test_memory_is_that_of_the_machine_or_of_a_job(
    section: dict[str, object], expected: tuple[int, int] | None
) -> None:
    recipe = Recipe.model_construct(cluster=ClusterSection.model_validate(section))
    room = room_of(recipe, tiles=4, processes=1)
    assert (None if room is None else (room.tiles, room.processes)) == expected
    if room is not None and section["kind"] != "threads":
        assert room.size == 8 * 10**9


def test_memory_that_is_none_is_refused() -> None:
    section = {"kind": "slurm", "workers": 9, "options": {"memory": "much"}}
    recipe = Recipe.model_construct(cluster=ClusterSection.model_validate(section))
    with pytest.raises(InputError, match=r"cluster\.options has memory = 'much'; expected"):
        room_of(recipe, tiles=4, processes=1)


# --- the disk ------------------------------------------------------------------------------------


def test_a_disk_is_warned_of_before_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(plan_fit.shutil, "disk_usage", lambda _: type(usage)(10**12, 0, 10**9))
    folder = tmp_path / "not" / "there"
    assert disk_warning(folder, most=10**9, likely=10**8) is None
    told = disk_warning(folder, most=2 * 10**9, likely=10**9)
    assert told is not None
    assert "up to 2 GB, about 1 GB when compressed; 1 GB are free" in told
    with pytest.raises(InputError, match=r"take about 1\.5 GB when compressed, 1 GB are free at"):
        disk_warning(folder, most=3 * 10**9, likely=1_500_000_000)


# --- time ----------------------------------------------------------------------------------------


def test_rates_are_those_of_the_records(tmp_path: Path) -> None:
    spec = spec_of(100, 170)
    create_cube(tmp_path / "cube.zarr", spec)
    ledger = Ledger(store=tmp_path / "cube.zarr", inputs="any")
    ledger.prepare()
    assert recorded_rate(tmp_path / "cube.zarr", spec.regions()) is None
    first, second, third, *_ = spec.regions()
    ledger.record(first, {"seconds": 3.0})
    ledger.record(second, {"seconds": 5.0})
    ledger.record(third, {})  # as of a version that did not time
    rate = recorded_rate(tmp_path / "cube.zarr", spec.regions())
    assert rate is not None
    assert rate.tiles == 2
    assert rate.seconds == pytest.approx(8 / (2 * 64 * 64))
    facts = time_facts(rate, work=64 * 64 * 900, workers=2, name="build")
    assert facts == {
        "build_core_hours": pytest.approx(1.0, abs=1e-3),
        "build_seconds": pytest.approx(1800.0),
        "build_measured_tiles": 2,
    }
    assert time_facts(None, work=1.0, workers=2, name="map") == {
        "map_core_hours": None,
        "map_seconds": None,
        "map_measured_tiles": 0,
    }
    assert time_facts(rate, work=1.0, workers=None, name="map")["map_seconds"] is None


def test_the_work_of_a_tile_is_its_pixels_times_its_scenes(tmp_path: Path) -> None:
    spec = spec_of(100, 170)
    create_cube(tmp_path / "cube.zarr", spec)
    ledger = Ledger(store=tmp_path / "cube.zarr", inputs="any")
    ledger.prepare()
    first, second, third, *_ = spec.regions()
    of_period = {"2022-01": ["a", "b+c"], "2022-02": ["d"], "2022-03": []}  # four scenes
    ledger.record(first, {"seconds": 8.0, "scenes": of_period, "taken_over": 0})
    ledger.record(second, {"seconds": 2.0, "scenes": ["a"]})  # as of an earlier version
    ledger.record(third, {"seconds": 0.1, "scenes": of_period, "taken_over": 3})
    rate = recorded_rate(tmp_path / "cube.zarr", spec.regions(), work=_scenes)
    assert rate is not None
    assert rate.tiles == 2
    assert rate.seconds == pytest.approx(10 / ((4 + 1) * 64 * 64))


def test_sizes_are_whole_numbers_of_python() -> None:
    found = cube_size(spec_of(100, 170, touched=(1, 2, 3)))
    assert {type(value) for value in vars(found).values()} == {int}
    assert not isinstance(found.chunks, np.integer)
