"""Cubes, maps and ledgers on an object store: as on a disk, whatever the server does."""

import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from bucketserver import BucketServer
from loopback import Fault
from odc.geo.geobox import GeoBox

from cube.errors import InputError, PlaceError, PlaceRefusedError
from cube.ledger import Ledger
from cube.mapstore import (
    MapClass,
    create_map,
    map_engine,
    note_engine,
    open_map,
    read_map_region,
    write_map_region,
)
from cube.periods import parse_month
from cube.place import (
    Place,
    RemoteFolder,
    all_names,
    as_place,
    check_place,
    count_there,
    create_content,
    files_below,
    folder_names,
    move_store,
    names_below,
    remove_store,
    replace_content,
    zarr_place,
)
from cube.spec import CubeSpec
from cube.store import (
    CubeBlocks,
    count_files,
    count_files_by_tile,
    create_cube,
    open_cube,
    read_region,
    read_spec,
    write_region,
)

KEYS = {"AKIATESTS": "the-secret-of-the-tests"}
GEOBOX = GeoBox.from_bbox((500_000, 5_000_000, 501_000, 5_000_900), "EPSG:32633", resolution=10)


@pytest.fixture(scope="module")
def server() -> Iterator[BucketServer]:
    with BucketServer(["forest"], keys=KEYS, page=7) as running:
        yield running


@pytest.fixture(autouse=True)
def _asked(server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    name, secret = next(iter(KEYS.items()))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", name)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    server.objects["forest"].clear()
    yield
    server.set_faults()
    server.clear()


@pytest.fixture
def remote() -> RemoteFolder:
    return RemoteFolder("s3://forest/year/cube.zarr")


def spec(**changes) -> CubeSpec:
    months = tuple(parse_month(f"2022-0{month}") for month in (4, 5))
    options = {
        "geobox": GEOBOX,
        "periods": months,
        "bands": ("B02", "B08"),
        "tile": 64,
        "chunk": 32,
    }
    return CubeSpec(**(options | changes))


def blocks(region, seed=0) -> CubeBlocks:
    made = CubeBlocks.empty(2, 2, region.height, region.width)
    random = np.random.default_rng([seed, region.top, region.left])
    made.reflectance[:] = random.integers(0, 6000, made.reflectance.shape)
    made.clear_count[:] = random.integers(0, 5, made.clear_count.shape)
    made.mean_day[0] = 100  # of the other month all is nodata, and of an array in format 2 a chunk
    return made


def fill(place: Place, described: CubeSpec, *, order=1) -> Ledger:
    create_cube(place, described)
    ledger = Ledger(store=place, inputs="a" * 16)
    ledger.prepare()
    for region in described.regions()[::order]:
        write_region(place, region, blocks(region))
        ledger.record(region, {"files": count_files(place, region)})
    return ledger


def contents(place: Place) -> dict[str, bytes]:
    return {name: (place / name).read_bytes() for name, _ in files_below(place)}


@pytest.mark.parametrize("layout", [{}, {"sharded": False}, {"sharded": False, "zarr_format": 2}])
def test_the_same_bytes_as_on_a_disk(remote, tmp_path, layout):
    described = spec(**layout)
    here, there = fill(tmp_path / "cube.zarr", described), fill(remote, described, order=-1)
    assert contents(remote) == contents(tmp_path / "cube.zarr")
    assert there.records() == here.records()
    assert read_spec(remote) == described
    for region in described.regions():
        np.testing.assert_array_equal(read_region(remote, region), blocks(region).reflectance)
    with open_cube(str(remote)) as opened, open_cube(tmp_path / "cube.zarr") as local:
        assert opened.identical(local)


def test_a_tile_of_one_shard_is_one_request(remote, server):
    described = spec()
    fill(remote, described)
    server.clear()
    read_region(remote, described.regions()[0])
    assert sum("/c/" in line.target for line in server.requests) == 1


def test_a_map(remote, tmp_path):
    places = remote.with_name("map.zarr"), tmp_path / "map.zarr"
    classes = (MapClass(value=1, name="larch", colour="#aabbcc"),)
    for place in places:
        create_map(place, geobox=GEOBOX, classes=classes, tile=64, chunk=32)
        for region in spec().regions():
            layer = np.ones((region.height, region.width), np.uint8)
            names = ("species", "confidence", "margin", "months_observed")
            write_map_region(place, region, dict.fromkeys(names, layer))
        note_engine(place, {"name": "exact"})
        assert read_map_region(place, spec().regions()[1]).shape == (4, 64, 36)
        assert map_engine(place) == {"name": "exact"}
    assert contents(places[0]) == contents(places[1])
    with open_map(str(places[0])) as opened:
        assert float(opened["confidence"].mean()) == pytest.approx(0.01)
        assert opened["species"].odc.geobox == GEOBOX


def test_a_store_appears_whole_or_not_at_all(remote, server):
    described = spec()
    server.set_faults(
        Fault(kind="status", status=403, method="PUT", path=r"cube\.zarr/zarr\.json$")
    )
    with pytest.raises(PlaceRefusedError, match="403"):
        create_cube(remote, described)
    assert server.objects["forest"], "what was put before"
    assert not remote.exists()
    with pytest.raises(InputError, match=r"there is no cube at 's3://forest/year/cube\.zarr'"):
        read_spec(remote)
    server.objects["forest"]["year/cube.zarr/left/over"] = b"of the first try"
    server.set_faults()
    create_cube(remote, described)
    assert "year/cube.zarr/left/over" not in server.objects["forest"]
    assert remote.exists()
    assert read_spec(remote) == described


def test_what_lies_there_stays(remote, server):
    server.objects["forest"]["year/cube.zarr/thesis.txt"] = b"mine"
    with pytest.raises(InputError, match="is no Zarr store; expected a canopycube cube"):
        create_cube(remote, spec())
    assert server.objects["forest"] == {"year/cube.zarr/thesis.txt": b"mine"}


def test_another_cube_stays(remote):
    create_cube(remote, spec())
    create_cube(remote, spec())
    with pytest.raises(InputError, match="is a cube with other bands"):
        create_cube(remote, spec(bands=("B03", "B08")))


def test_records_are_forgotten_and_told_damaged(remote, server):
    ledger, regions = fill(remote, spec()), spec().regions()
    other = Ledger(store=remote, inputs="b" * 16)
    assert other.records() == {}
    other.forget_others(regions[0])
    assert [region.id for region in ledger.pending(regions)] == [regions[0].id]
    assert ledger.record_of(regions[0]) == {}
    assert ledger.record_of(regions[1])["files"] == 3
    server.objects["forest"][f"year/cube.zarr/ledger/{regions[1].id}.json"] = b"{"
    with pytest.raises(InputError, match="is damaged"):
        ledger.records()


def test_a_lost_object_is_counted_and_a_damaged_one_told(remote, server):
    fill(remote, spec())
    region, objects = spec().regions()[0], server.objects["forest"]
    assert count_files(remote, region) == 3
    key = next(key for key in objects if key.endswith("reflectance/c/0/0/0/0"))
    objects[key] = objects[key][:-1] + bytes([objects[key][-1] ^ 255])
    with pytest.raises(ValueError, match=r"the index of shard 's3://.*' is damaged"):
        read_region(remote, region)
    write_region(remote, region, blocks(region))
    np.testing.assert_array_equal(read_region(remote, region), blocks(region).reflectance)
    del objects[key]
    assert count_files(remote, region) == 2
    assert (read_region(remote, region) == -32768).all()


@pytest.mark.parametrize("kind", ["status", "reset", "truncate"])
def test_a_server_that_stumbles_is_asked_again(remote, tmp_path, server, kind):
    server.set_faults(Fault(kind=kind, share=0.1), seed=4)
    fill(remote, spec())
    assert server.faults[kind] > 3
    assert all(
        (read_region(remote, region) == blocks(region).reflectance).all()
        for region in spec().regions()
    )
    server.set_faults()
    fill(tmp_path / "cube.zarr", spec())
    assert contents(remote) == contents(tmp_path / "cube.zarr")


def test_wrong_keys_and_buckets_are_told_in_a_line_without_secrets(server, monkeypatch):
    with pytest.raises(InputError, match="NoSuchBucket; make the bucket, or name another") as told:
        check_place(RemoteFolder("s3://desert/year"))
    assert "\n" not in str(told.value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-and-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-and-secret")
    with pytest.raises(InputError, match="403 Forbidden, SignatureDoesNotMatch; look at") as told:
        check_place(RemoteFolder("s3://forest/year"))
    assert "\n" not in str(told.value)
    for part in ("secret", "AKIATESTS", "Signature="):
        assert part not in str(told.value)
        assert part not in repr(told.value.__cause__)
        assert told.value.__suppress_context__


def test_a_dead_server_is_no_wrong_input(monkeypatch):
    import cube.bucket

    monkeypatch.setitem(cube.bucket._PATIENCE, "max_retries", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(PlaceError, match="does not answer") as told:
        check_place(RemoteFolder("s3://forest/year"))
    assert not isinstance(told.value, PlaceRefusedError)
    with pytest.raises(PlaceError):
        read_spec(RemoteFolder("s3://forest/year/cube.zarr"))


def test_places_travel_without_secrets(remote):
    fill(remote, spec())
    with open_cube(str(remote)) as opened:
        sent = cloudpickle.dumps((remote, zarr_place(remote), opened))
        back = pickle.loads(sent)
    assert KEYS["AKIATESTS"].encode() not in sent
    assert b"AKIATESTS" not in sent
    assert back[0] == remote
    assert back[2].identical(open_cube(str(remote)))


@pytest.mark.parametrize("place", ["remote", "local"])
def test_files_and_folders(remote, tmp_path, place):
    home: Place = remote.parent if place == "remote" else tmp_path
    for name in ("a.json", "b.txt", "c.json"):
        replace_content(home / name, f"{name} é")
    assert not create_content(home / "a.json", b"later")
    assert create_content(home / "d.json", b"new")
    assert (home / "a.json").read_text(encoding="utf-8") == "a.json é"
    assert names_below(home, "*.json") == ["a.json", "c.json", "d.json"]
    for number in range(9):
        create_cube(home / f".x{number}.zarr", spec())
    assert folder_names(home, ".x*") == [f".x{number}.zarr" for number in range(9)]
    assert names_below(home, "*.json") == ["a.json", "c.json", "d.json"]
    move_store(home / ".x3.zarr", home / "y.zarr")
    remove_store(home / ".x4.zarr")
    assert not (home / ".x3.zarr").exists()
    assert not (home / ".x4.zarr").exists()
    assert contents(home / "y.zarr") == contents(home / ".x5.zarr")
    assert count_there([home / "a.json", home / "none", home / "b.txt"]) == 2
    (home / "b.txt").unlink()
    (home / "b.txt").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (home / "b.txt").unlink()
    with pytest.raises(FileNotFoundError):
        (home / "b.txt").read_bytes()


@pytest.mark.parametrize(
    "given",
    ["s3://", "s3://bucket//x", "http://host/x", "s3:/bucket/x", "s3://b/../x", "s3://b/a b",
     "ftp://h/x", "s3://b/a%2fb", "file://elsewhere/x", "memory://x"],
)  # fmt: skip
def test_addresses_that_are_none(given):
    with pytest.raises(InputError, match="is no address of an object store"):
        RemoteFolder(given)
    if "://" in given:
        with pytest.raises(InputError):
            as_place(given)


@pytest.mark.parametrize("given", ["s3://key:secret@b/x", "az://b/x?sig=secret"])
def test_addresses_with_secrets_are_not_repeated(given):
    with pytest.raises(InputError, match="credentials in the environment") as told:
        as_place(given)
    assert "secret" not in str(told.value)


def test_places_of_words():
    assert as_place("out/x") == Path("out/x")
    assert as_place(Path("x")) == Path("x")
    assert as_place("file:///data/a%20b") == Path("/data/a b")
    assert as_place("gs://b/x/") == RemoteFolder("gs://b/x")
    place = RemoteFolder("s3://b/x/y.zarr")
    assert (place.name, place.stem, str(place.parent)) == ("y.zarr", "y", "s3://b/x")
    assert str(place.with_name("z")) == "s3://b/x/z"


def test_without_obstore_the_extra_is_named(remote, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "cube.bucket", raising=False)
    monkeypatch.delattr("cube.bucket", raising=False)
    with pytest.raises(InputError, match=r"pip install canopycube\[objectstore\]"):
        remote.exists()


def test_what_is_moved_is_there_whenever_that_is_cut_off(remote, server):
    described = spec()
    fill(remote, described)
    whole, aside = contents(remote), remote.with_name("aside.zarr")
    for method, path in (("PUT", "/.draft$"), ("PUT", "/c/"), ("POST", ""), ("DELETE", "")):
        server.set_faults(Fault(kind="status", status=403, method=method, path=path))
        try:
            move_store(remote, aside)
        except PlaceError:
            assert remote.exists() or aside.exists()
            assert contents(remote if remote.exists() else aside) == whole
    server.set_faults()
    if remote.exists():
        move_store(remote, aside)
    assert contents(aside) == whole
    assert not remote.exists()


def test_of_many_one_that_is_gone_keeps_none_from_being_removed(remote, server):
    fill(remote, spec())
    server.set_faults(Fault(kind="status", status=404, method="POST", first=1))
    remove_store(remote)
    assert server.faults["status"] == 1
    assert server.objects["forest"] == {}


def test_a_folder_that_cannot_be_read_is_not_empty(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for read in (names_below, all_names, lambda folder: folder_names(folder, "*"), files_below):
        with pytest.raises(OSError, match="symbolic links"):
            list(read(loop))
        assert list(read(tmp_path / "none")) == []


def test_removal_that_is_cut_off_leaves_no_half(remote, server, tmp_path):
    fill(remote, spec())
    server.set_faults(Fault(kind="status", status=403, method="POST"))
    with pytest.raises(PlaceError):
        remove_store(remote)
    assert not remote.exists()
    server.set_faults()
    fill(remote, spec())
    fill(tmp_path / "cube.zarr", spec())
    assert contents(remote) == contents(tmp_path / "cube.zarr")
    shutil.rmtree(tmp_path / "cube.zarr")


@pytest.mark.parametrize("where", ["remote", "local"])
@pytest.mark.parametrize(
    "layout", [{}, {"sharded": False}, {"sharded": False, "zarr_format": 2}, {"tile": 32}]
)
def test_files_of_all_tiles_are_those_of_each(remote, tmp_path, where, layout):
    place, described = remote if where == "remote" else tmp_path / "cube.zarr", spec(**layout)
    create_cube(place, described)
    assert not count_files_by_tile(place)
    for region in described.regions()[::2]:
        write_region(place, region, blocks(region))
    counted = count_files_by_tile(place)
    for region in described.regions():
        assert counted[region.row, region.column] == count_files(place, region)
