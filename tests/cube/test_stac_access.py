"""Signing at the last moment: fresh tokens when they are needed, and no secret anywhere else."""

import json
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from loopback import Answer, Fault, LoopbackServer

from cube.errors import InputError, WorkFailedError
from cube.stac import PROVIDERS, access_for, access_of_kind
from cube.stac.providers import ACCESS_KINDS

BLOB = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/35/M/NM/B02.tif"


@pytest.fixture
def token_server(monkeypatch):
    """A token server on loopback whose n-th token says so."""
    settings = pytest.importorskip("planetary_computer.settings", reason="needs its package")
    import planetary_computer.sas as sas

    given = []

    def answer(asked):
        given.append(asked.path)
        end = (datetime.now(UTC) + timedelta(minutes=45)).isoformat()
        token = f"st=2020&se=2030&sp=rl&sig=secret{len(given)}"
        return Answer.of_json({"msft:expiry": end, "token": token})

    with LoopbackServer(answer) as server:
        monkeypatch.setenv("PC_SDK_SAS_URL", f"{server.url}/token")
        monkeypatch.setenv("PC_SDK_SUBSCRIPTION_KEY", "")
        monkeypatch.setattr("cube.stac.access._renewed", {})
        monkeypatch.setattr("cube.stac.access._under_way", {})
        settings.Settings.get.cache_clear()
        sas.TOKEN_CACHE.clear()
        yield server
    settings.Settings.get.cache_clear()
    sas.TOKEN_CACHE.clear()


def test_every_provider_and_kind():
    for provider in PROVIDERS:
        assert access_for(provider).kind == provider.access
        assert access_for(provider, "none").kind == "none"
    for kind in ACCESS_KINDS:
        assert access_of_kind(kind).kind == kind
    with pytest.raises(InputError, match="access 'ftp' is unknown; expected one of none, planet"):
        access_of_kind("ftp")


def test_plain_files_stay():
    assert access_of_kind("none").url("https://a.example/b.tif", is_retry=True) == (
        "https://a.example/b.tif",
        {},
    )
    assert access_of_kind("none").for_gdal("/data/b.tif") == ("/data/b.tif", {})
    with pytest.raises(InputError, match="s3://b/k lies in an S3 store; set access = 's3'"):
        access_of_kind("none").for_gdal("s3://b/k")


def test_planetary_computer(token_server):
    access = access_of_kind("planetary-computer")
    with ThreadPoolExecutor(8) as pool:
        urls = set(pool.map(lambda _: access.url(BLOB, is_retry=False)[0], range(16)))
    assert urls == {f"{BLOB}?st=2020&se=2030&sp=rl&sig=secret1"}
    assert [line.target for line in token_server.requests] == [
        "/token/sentinel2l2a01/sentinel2-l2"
    ], "one token for the container"
    with ThreadPoolExecutor(8) as pool:
        urls = set(pool.map(lambda _: access.url(BLOB, is_retry=True)[0], range(16)))
    assert urls == {f"{BLOB}?st=2020&se=2030&sp=rl&sig=secret2"}, "the old one was refused"
    assert access.url(BLOB, is_retry=False)[0].endswith("sig=secret2")
    other = BLOB.replace("sentinel2-l2/", "other/")
    assert access.url(other, is_retry=False)[0].endswith("sig=secret3")
    elsewhere = "https://store.example/B02.tif"
    assert access.url(elsewhere, is_retry=True) == (elsewhere, {})


def test_planetary_computer_is_down(token_server):
    access = access_of_kind("planetary-computer")
    for fault in (Fault(kind="status", status=404), Fault(kind="html")):
        token_server.set_faults(fault)
        with pytest.raises(WorkFailedError, match=r"no token for https://.*B02.tif: .* failed"):
            access.url(f"{BLOB}?sig=secret", is_retry=True)
    with pytest.raises(WorkFailedError, match="try again later") as raised:
        access.url(f"{BLOB}?sig=secret", is_retry=True)
    assert "secret" not in str(raised.value)
    token_server.set_faults(Fault(kind="status", status=503, first=1))
    assert "sig=secret" in access.url(BLOB, is_retry=False)[0]


def test_a_token_server_that_hangs(token_server, monkeypatch):
    monkeypatch.setattr("cube.stac.access._TOKEN_LIMIT", 0.5)
    access = access_of_kind("planetary-computer")
    other = BLOB.replace("sentinel2-l2/", "other/")
    token_server.set_faults(Fault(kind="hang", seconds=3.0, path="sentinel2-l2$"))

    def outcome(href):
        try:
            return access.url(href, is_retry=False)[0]
        except WorkFailedError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(outcome, [BLOB, BLOB, other, BLOB, other, BLOB]))
    late = "has not answered in 0.5 s; try again later"
    assert [late in text for text in found] == [True, True, False, True, False, True]
    assert found[2] == found[4]  # nobody waits for another container's token
    hung = [line for line in token_server.requests if line.target.endswith("sentinel2-l2")]
    assert len(hung) <= 1, "those that wait together ask once"
    token_server.set_faults()
    assert outcome(BLOB).startswith(f"{BLOB}?"), "whoever comes next asks anew"


def test_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "planetary_computer.sas", None)
    with pytest.raises(InputError, match=r'pip install "canopycube\[planetary-computer\]"'):
        access_of_kind("planetary-computer").url(BLOB, is_retry=False)


def test_earthdata_tells_the_token_to_nasa_only(monkeypatch):
    access = access_of_kind("earthdata")
    ours = "https://data.lpdaac.earthdatacloud.nasa.gov/lp-prod-protected/HLSS30.020/a.B02.tif"
    monkeypatch.delenv("EARTHDATA_TOKEN", raising=False)
    with pytest.raises(InputError, match="set the environment variable EARTHDATA_TOKEN"):
        access.url(ours, is_retry=False)
    monkeypatch.setenv("EARTHDATA_TOKEN", "secret")
    assert access.url(ours, is_retry=False) == (ours, {"Authorization": "Bearer secret"})
    with pytest.raises(InputError, match="not given to GDAL; use reader = 'direct'"):
        access.for_gdal(ours)
    for other in (
        ours.replace("https", "http"),
        "https://earthdatacloud.nasa.gov.evil.example/a.tif",
        "https://evilearthdatacloud.nasa.gov/a.tif",
        "https://evil.example/earthdatacloud.nasa.gov/a.tif",
    ):
        assert access.url(other, is_retry=False) == (other, {})
        assert access.for_gdal(other) == (other, {})
    monkeypatch.setenv("EARTHDATA_TOKEN", "sec\nret")
    with pytest.raises(InputError, match="EARTHDATA_TOKEN") as raised:
        access.url(ours, is_retry=False)
    assert "ret" not in str(raised.value).replace("credentials", "")


def test_s3_leaves_the_keys_where_they_are(monkeypatch):
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "S3_ENDPOINT", "NO_SIGN_REQUEST", "REGION"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    href = "s3://eodata/Sentinel-2/MSI/L2A/B02.jp2"
    cdse, other = access_of_kind("s3-cdse"), access_of_kind("s3")
    for use in (cdse.for_gdal, lambda href: cdse.url(href, is_retry=False)):
        with pytest.raises(InputError, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
            use(href)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "secret-id")
    with pytest.raises(InputError, match="AWS_SECRET_ACCESS_KEY"):
        cdse.for_gdal(href)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-key")
    name, options = cdse.for_gdal(href)
    assert name == "/vsis3/eodata/Sentinel-2/MSI/L2A/B02.jp2"
    assert options == {
        "AWS_S3_ENDPOINT": "eodata.dataspace.copernicus.eu",
        "AWS_HTTPS": "YES",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_REGION": "us-east-1",
    }
    assert other.for_gdal(href)[1]["AWS_S3_ENDPOINT"] == "s3.amazonaws.com"
    monkeypatch.setenv("AWS_S3_ENDPOINT", "127.0.0.1:9000")
    assert other.for_gdal(href)[1]["AWS_S3_ENDPOINT"] == "127.0.0.1:9000"
    address, headers = other.url(href, is_retry=False)
    assert address == "https://127.0.0.1:9000/eodata/Sentinel-2/MSI/L2A/B02.jp2"
    assert "secret-key" not in str(headers)
    assert other.url("https://a.example/b.tif", is_retry=False)[1] == {}


@dataclass(frozen=True)
class Holder:
    """As a source that is sent to workers."""

    access: object


@pytest.mark.parametrize("kind", ACCESS_KINDS)
def test_nothing_secret_travels(kind, monkeypatch, token_server):
    secrets = ("EARTHDATA_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    for name in secrets:
        monkeypatch.setenv(name, "secret")
    access = access_of_kind(kind)
    access.url(BLOB, is_retry=False)
    access.url("https://a.earthdatacloud.nasa.gov/a.tif", is_retry=False)
    access.for_gdal("s3://b/k" if kind.startswith("s3") else BLOB)
    sent = pickle.dumps(Holder(access))
    assert b"secret" not in sent
    assert kind.encode() in sent
    assert len(sent) < 300
    assert "secret" not in repr(access)
    assert pickle.loads(sent).access == access
    assert json.dumps(access.kind) == f'"{kind}"'
