"""Scenes in an S3 store, on loopback: the looks of local files, signed, and no secret anywhere."""

import json
import pickle
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pytest
import rasterio
from loopback import Fault
from odc.geo.geobox import GeoBox
from rangeserver import RangeServer
from rasterio.shutil import copy as copy_raster
from s3server import S3Server

from cube.cog import PIECES, Fetcher, Meter, Patience
from cube.cog.header import read_header
from cube.errors import InputError
from cube.periods import Period
from cube.stac import (
    SceneDeniedError,
    SceneList,
    SceneQuery,
    SceneReadError,
    SceneUnreachableError,
    StacSource,
    access_of_kind,
    files,
    find_scenes,
    lock_scenes,
    read_scenes,
    write_scenes,
)
from cube.stac.pixels import HEADERS, PixelReader
from cube.stac.remotefile import BLOCKS, fetched_raster
from cube.stac.s3 import Store, signed_headers, store_of_environment

AUGUST = Period.of_month(2023, 8)
BANDS = ("B02", "B08")
GRID = GeoBox.from_bbox((499980, 4990200, 609780, 5100000), "EPSG:32633", resolution=120)
KEY, SECRET = "test-key-of-nobody", "test-secret-of-nobody"
BUCKET = "eodata"
SCENES = ("S2A_33TWL_20230815_0_L2A", "S2B_33TWL_20230820_0_L2A")
"""The first with JPEG 2000 files in the store, the second with cloud-optimised GeoTIFFs."""
QUICK = Patience(first_pause=0.0, longest_pause=0.0, attempts=6)


@pytest.fixture(scope="module")
def folder(shared_data, tmp_path_factory):
    """A bucket of two real scenes; the geometry, which lies beside the real files, is in them."""
    root = shared_data / "earth-search-33TWL" / "sentinel-2-l2a"
    out = tmp_path_factory.mktemp("bucket")
    for scene, driver in zip(SCENES, ("JP2OpenJPEG", "COG"), strict=True):
        (out / scene).mkdir()
        for name in (*BANDS, "B03", "B04", "SCL"):
            options = {"QUALITY": 100, "REVERSIBLE": "YES", "BLOCKXSIZE": 256, "BLOCKYSIZE": 256}
            if driver == "COG":
                options = {"COMPRESS": "DEFLATE", "BLOCKSIZE": 256}
            source = root / scene / f"{name}.tif"
            copy_raster(source, out / scene / f"{name}.jp2", driver=driver, **options)
    return out


@pytest.fixture(scope="module")
def found(shared_data):
    """The two scenes as the catalogue has them."""
    every = find_scenes(
        SceneQuery(
            catalogue=str(shared_data / "earth-search-33TWL" / "catalog.json"),
            collection="sentinel-2-l2a",
            periods=(AUGUST,),
            bbox=(15.2, 45.2, 16.2, 45.8),
        )
    )
    return replace(every, scenes=tuple(one for one in every.scenes if one.id in SCENES))


def moved(scenes, root):
    """Return scenes whose files lie under another root."""
    return replace(
        scenes,
        scenes=tuple(
            replace(
                scene,
                assets={
                    name: replace(asset, href=f"{root}/{scene.id}/{name}.jp2")
                    for name, asset in scene.assets.items()
                    if name in (*BANDS, "B03", "B04", "SCL")
                },
            )
            for scene in scenes.scenes
        ),
    )


@pytest.fixture
def environment(monkeypatch):
    """An environment that says nothing of any store, and a process that knows no file."""
    for name in (
        "ACCESS_KEY_ID",
        "SECRET_ACCESS_KEY",
        "SESSION_TOKEN",
        "S3_ENDPOINT",
        "HTTPS",
        "VIRTUAL_HOSTING",
        "REGION",
        "DEFAULT_REGION",
        "REQUEST_PAYER",
        "NO_SIGN_REQUEST",
    ):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    forget()
    yield monkeypatch
    forget()


def forget():
    HEADERS.forget()
    BLOCKS.forget()
    PIECES.forget()


@pytest.fixture
def store(folder, environment):
    """A store whose keys the environment has."""
    with S3Server({BUCKET: folder}, keys={KEY: SECRET}) as server:
        environment.setenv("AWS_ACCESS_KEY_ID", KEY)
        environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        environment.setenv("AWS_S3_ENDPOINT", server.endpoint)
        environment.setenv("AWS_HTTPS", "NO")
        yield server


def reader_of(kind, patience=QUICK):
    access = access_of_kind(kind)
    return PixelReader(fetcher=Fetcher(signer=access, patience=patience), access=access)


def locked(path, scenes, kind="s3"):
    result = lock_scenes(scenes, bands=BANDS, offset="check", reader=reader_of(kind))
    write_scenes(path, result)
    return path


@pytest.fixture
def local(found, folder, tmp_path):
    """The same files, local ones."""
    path = tmp_path / "local.json"
    write_scenes(path, lock_scenes(moved(found, folder), bands=BANDS))
    return StacSource(scenes=path)


@pytest.fixture
def lock(found, tmp_path, store):
    """The lock file of the scenes in the store."""
    return locked(tmp_path / "s3.json", moved(found, f"s3://{BUCKET}"))


WINDOW = GRID[300:420, 400:545]


def assert_same(one, other):
    assert one.ids == other.ids
    assert len(one.ids) == 2
    for name in ("reflectance", "is_clear", "days", "seen_count"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("kind", ["s3", "s3-cdse"])
@pytest.mark.parametrize("reader", ["direct", "odc", "stackstac"])
def test_looks_are_those_of_local_files(store, lock, local, kind, reader):
    expected = local.looks(AUGUST, WINDOW, BANDS)
    looks = StacSource(scenes=lock, access=kind, reader=reader).looks(AUGUST, WINDOW, BANDS)
    assert_same(looks, expected)
    assert set(store.statuses) == {206}
    assert (looks.reflectance > 0).mean() > 0.2


def test_the_files_are_what_this_test_says(folder, store):
    fetcher = reader_of("s3").fetcher
    href = f"s3://{BUCKET}/{SCENES[1]}/B02.jp2"
    assert read_header(href, fetcher).levels[0].shape == (915, 915)
    with rasterio.open(folder / SCENES[0] / "B02.jp2") as file:
        assert file.driver == "JP2OpenJPEG"
        expected = file.read(1)
    meter = Meter()
    with fetched_raster(f"s3://{BUCKET}/{SCENES[0]}/B02.jp2", replace(fetcher, meter=meter)) as one:
        assert one.driver == "JP2OpenJPEG"
        np.testing.assert_array_equal(one.read(1), expected)
    size = (folder / SCENES[0] / "B02.jp2").stat().st_size
    assert meter.received < 1.5 * size


def test_the_store_of_the_copernicus_data_space_is_known(folder, found, tmp_path, environment):
    """Nothing but keys is in the environment, as on a user's machine."""
    with S3Server({BUCKET: folder}, keys={KEY: SECRET}) as server:
        environment.setattr("cube.stac.access._CDSE_ENDPOINT", server.url)
        environment.setenv("AWS_ACCESS_KEY_ID", KEY)
        environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        path = locked(tmp_path / "s.json", moved(found, f"s3://{BUCKET}"), "s3-cdse")
        for reader in ("direct", "odc", "stackstac"):
            source = StacSource(scenes=path, access="s3-cdse", reader=reader)
            assert len(source.looks(AUGUST, WINDOW, BANDS).ids) == 2
        assert set(server.statuses) == {206}


def test_lock_has_what_the_local_lock_has(lock, local):
    for ours, theirs in zip(
        read_scenes(lock).scenes, read_scenes(local.scenes).scenes, strict=True
    ):
        assert ours.offset_reason == theirs.offset_reason
        for name, asset in ours.assets.items():
            assert asset.href == f"s3://{BUCKET}/{ours.id}/{name}.jp2"
            assert asset.transform == theirs.assets[name].transform
            assert asset.shape == theirs.assets[name].shape


@pytest.mark.parametrize("reader", ["direct", "odc"])
def test_without_credentials(lock, environment, reader):
    forget()
    environment.delenv("AWS_ACCESS_KEY_ID")
    source = StacSource(scenes=lock, access="s3", reader=reader)
    with pytest.raises(InputError, match="set the environment variable AWS_ACCESS_KEY_ID\n"):
        source.looks(AUGUST, WINDOW, BANDS)
    environment.delenv("AWS_SECRET_ACCESS_KEY")
    expected = (
        r"^files of an S3 store need credentials; set the environment variables "
        r"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY\n\(.*AWS_NO_SIGN_REQUEST=YES\)$"
    )
    with pytest.raises(InputError, match=expected):
        source.looks(AUGUST, WINDOW, BANDS)
    with pytest.raises(InputError, match=r"\n\(keys of the Copernicus Data Space are made at"):
        replace(source, access="s3-cdse").looks(AUGUST, WINDOW, BANDS)
    with pytest.raises(InputError, match=r"B02.jp2 lies in an S3 store; set access = 's3' or"):
        PixelReader(reader=reader).read(read_scenes(lock).scenes[0], "B02", WINDOW)


@pytest.mark.parametrize("reader", ["direct", "odc", "stackstac"])
@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_key(store, found, lock, environment, tmp_path, name, reader):
    forget()
    environment.setenv(name, "another-secret")
    source = StacSource(scenes=lock, access="s3", reader=reader, patience=QUICK)
    expected = (
        rf"scene '({'|'.join(SCENES)})', asset SCL: s3://eodata/\S+/SCL.jp2 cannot be read: .*; "
        "check the credentials in the environment$"
    )
    with pytest.raises(SceneDeniedError, match=expected) as caught:
        source.looks(AUGUST, WINDOW, BANDS)
    assert_no_secret(str(caught.value))
    assert "another-secret" not in repr(caught.value)
    environment.setenv("AWS_ACCESS_KEY_ID", KEY)
    environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert len(source.looks(AUGUST, WINDOW, BANDS).ids) == 2, "a refusal is not remembered"
    forget()
    environment.setenv(name, "another-secret")
    with pytest.raises(SceneDeniedError, match="asset B02: s3://eodata"):
        locked(tmp_path / "other.json", moved(found, f"s3://{BUCKET}"))


def assert_no_secret(text):
    assert not re.search(f"{KEY}|{SECRET}|Signature|AWS4", text)


def test_nothing_secret_is_kept(store, lock):
    source = StacSource(scenes=lock, access="s3")
    source.looks(AUGUST, WINDOW, BANDS)
    assert_no_secret(lock.read_bytes().decode("latin-1") + repr(read_scenes(lock)))
    assert_no_secret(repr(source) + repr(source.pixels()))
    assert_no_secret(pickle.dumps(source).decode("latin-1"))
    assert_no_secret(json.dumps(store_of_environment(endpoint=None).gdal_options()))
    assert all(SECRET not in str(line.headers) for line in store.requests)


FAULTS = (
    Fault(kind="status", status=503, share=0.2),
    Fault(kind="reset", share=0.05),
    Fault(kind="truncate", share=0.2),
    Fault(kind="html", share=0.05),
)


@pytest.mark.parametrize("seed", range(3))
def test_faults_are_asked_again(store, lock, local, seed):
    forget()
    store.set_faults(*FAULTS, seed=seed)
    patience = replace(QUICK, attempts=30)
    looks = StacSource(scenes=lock, access="s3", patience=patience).looks(AUGUST, WINDOW, BANDS)
    assert_same(looks, local.looks(AUGUST, WINDOW, BANDS))
    assert store.faults["truncate"] > 0
    assert store.faults["status"] > 0


@pytest.mark.parametrize("kind", ["status", "truncate", "reset"])
def test_what_stays_broken_is_told_and_loses_no_scene(store, lock, kind):
    """Bytes missing amid a JPEG 2000 file: GDAL alone goes on with other pixels."""
    scene = read_scenes(lock).scenes[0]
    assert scene.id == SCENES[0]
    forget()
    reader = reader_of("s3")
    with fetched_raster(scene.assets["B02"].href, reader.fetcher):
        pass
    store.set_faults(Fault(kind=kind, path="B02"))
    with pytest.raises(SceneUnreachableError, match=rf"{scene.id}', asset B02: s3://.*tries"):
        reader.read(scene, "B02", GRID)


@pytest.mark.parametrize("reader", ["odc", "stackstac"])
def test_gdal_alone_gives_up_sooner_but_is_never_wrong(store, lock, local, reader, environment):
    environment.setitem(files._HTTP_OPTIONS, "GDAL_HTTP_RETRY_DELAY", "0.01")
    expected = local.looks(AUGUST, WINDOW, BANDS)
    source = StacSource(scenes=lock, access="s3", reader=reader)
    for seed in range(3):
        for kind in ("truncate", "status"):
            store.set_faults(Fault(kind=kind, share=0.1), seed=seed)
            with suppress(SceneUnreachableError):
                assert_same(source.looks(AUGUST, WINDOW, BANDS), expected)
    store.set_faults(Fault(kind="status", status=503))
    with pytest.raises(SceneUnreachableError, match="s3://eodata"):
        source.looks(AUGUST, WINDOW, BANDS)
    store.set_faults()
    assert_same(source.looks(AUGUST, WINDOW, BANDS), expected)


@pytest.mark.parametrize("reader", ["direct", "odc"])
def test_a_missing_object_is_the_scenes_own_fault(store, lock, reader):
    scene = read_scenes(lock).scenes[0]
    href = f"s3://{BUCKET}/nothing/B02.jp2"
    scene = replace(scene, assets={"B02": replace(scene.assets["B02"], href=href)})
    with pytest.raises(SceneReadError, match=f"asset B02: {href} cannot be read") as caught:
        replace(reader_of("s3"), reader=reader).read(scene, "B02", WINDOW)
    assert caught.value.scene == scene.id


def test_a_file_that_was_replaced(store, lock):
    scene = read_scenes(lock).scenes[0]
    asset = scene.assets["B02"]
    a, b, c, d, e, f = asset.transform
    other = replace(asset, transform=(a, b, c + 120, d, e, f))
    scene = replace(scene, assets={"B02": other})
    with pytest.raises(SceneReadError, match="its grid is another"):
        reader_of("s3").read(scene, "B02", WINDOW)


def test_requester_pays_and_open_buckets(folder, environment, store):
    with S3Server({BUCKET: folder}, keys={KEY: SECRET}, requester_pays=True) as server:
        environment.setenv("AWS_S3_ENDPOINT", server.url)
        fetcher = reader_of("s3").fetcher
        href = f"s3://{BUCKET}/{SCENES[1]}/SCL.jp2"
        with pytest.raises(Exception, match="HTTP 403"):
            fetcher.fetch(href, 0, 10)
        environment.setenv("AWS_REQUEST_PAYER", "requester")
        assert len(fetcher.fetch(href, 0, 10)) == 10
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        environment.delenv(name)
    environment.setenv("AWS_NO_SIGN_REQUEST", "YES")
    assert "Authorization" not in access_of_kind("s3").url(href, is_retry=False)[1]


def test_a_session_token_is_signed_too(store, environment):
    environment.setenv("AWS_SESSION_TOKEN", "test-token")
    environment.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    reader_of("s3").fetcher.fetch(f"s3://{BUCKET}/{SCENES[0]}/SCL.jp2", 0, 9)
    headers = store.requests[-1].headers
    assert headers["x-amz-security-token"] == "test-token"
    assert "/eu-central-1/s3/aws4_request" in headers["authorization"]
    assert "x-amz-date;x-amz-security-token," in headers["authorization"]
    old = datetime(2013, 5, 24, tzinfo=UTC)
    assert (
        "Credential=test-key-of-nobody/20130524/r/s3"
        in (signed_headers("https://h/b/k", region="r", now=old)["Authorization"])
    )


@dataclass(frozen=True, kw_only=True)
class Bearer:
    """A signer as that of Earthdata, for any host."""

    def url(self, href, *, is_retry):
        return href, {"Authorization": "Bearer test-token"}


def test_headers_and_faults_of_jpeg_2000_over_http(folder, environment):
    name = f"{SCENES[0]}/B02.jp2"
    with rasterio.open(folder / name) as file:
        expected = file.read(1)
    with RangeServer(folder) as server:
        fetcher = Fetcher(signer=Bearer(), patience=replace(QUICK, attempts=30))
        for seed in range(4):
            forget()
            server.set_faults(Fault(kind="truncate", share=0.3), seed=seed)
            with fetched_raster(f"{server.url}/{name}", fetcher) as file:
                np.testing.assert_array_equal(file.read(1), expected)
        assert {line.headers["authorization"] for line in server.requests} == {"Bearer test-token"}
        assert server.faults["truncate"] > 0


@pytest.mark.parametrize(
    ("variables", "href", "address"),
    [
        ({}, "s3://b/k.tif", "https://b.s3.amazonaws.com/k.tif"),
        ({"REGION": "us-west-2"}, "s3://b/k", "https://b.s3.us-west-2.amazonaws.com/k"),
        ({}, "s3://a.b/k", "https://s3.amazonaws.com/a.b/k"),
        ({"VIRTUAL_HOSTING": "FALSE"}, "s3://b/k", "https://s3.amazonaws.com/b/k"),
        (
            {"S3_ENDPOINT": "h:9"},
            "s3://b/a b/%+ä#?.tif",
            "https://h:9/b/a%20b/%25%2B%C3%A4%23%3F.tif",
        ),
        ({"S3_ENDPOINT": "http://h:9/"}, "s3://b/k", "http://h:9/b/k"),
        ({"S3_ENDPOINT": "h", "HTTPS": "NO"}, "s3://b/k", "http://h/b/k"),
    ],
)
def test_addresses(environment, variables, href, address):
    for name, value in variables.items():
        environment.setenv(f"AWS_{name}", value)
    assert store_of_environment(endpoint=None).address(href) == address


@pytest.mark.parametrize(
    "href", ["s3://", "s3://b", "s3://b/", "s3:///k", "s3://u:p@h/k", "https://b/k"]
)
def test_addresses_that_are_none(href):
    store = Store(endpoint="h", scheme="https", region="r", is_virtual=False)
    with pytest.raises(InputError, match="expected s3://bucket/key"):
        store.address(href)


@pytest.mark.parametrize("endpoint", ["ftp://h", "h/path", "https://", "u:secret@h"])
def test_endpoints_that_are_none(environment, endpoint):
    environment.setenv("AWS_S3_ENDPOINT", endpoint)
    with pytest.raises(InputError, match="AWS_S3_ENDPOINT") as caught:
        store_of_environment(endpoint=None)
    assert "secret" not in str(caught.value)


def test_keys_with_odd_letters_are_signed_right(tmp_path, environment, store):
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "%41+ä#~.tif").write_bytes(b"0123456789")
    store.buckets["odd"] = tmp_path
    assert reader_of("s3").fetcher.fetch("s3://odd/a b/%41+ä#~.tif", 2, 5) == b"234"


def test_an_empty_list_needs_no_store(environment):
    with pytest.raises(InputError, match="none of 0 scenes"):
        lock_scenes(SceneList(scenes=()), bands=BANDS, reader=reader_of("s3"))
