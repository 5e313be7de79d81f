"""The servers of the tests themselves: ranges, faults that follow from a seed, signatures."""

import http.client
import json
import socket
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import numpy as np
import pytest
import rasterio
from loopback import Asked, Fault, FaultPlan
from rangeserver import RangeServer, range_process
from stacserver import StacServer, served

GRID = rasterio.Affine(10, 0, 0, 0, -10, 0)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(range(100)))
    return tmp_path


def ask(url, wanted="", method="GET"):
    """(status, headers, body) of one request."""
    request = urllib.request.Request(
        url, headers={"Range": wanted} if wanted else {}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def test_ranges(folder):
    content = bytes(range(100))
    with RangeServer(folder) as server:
        url = f"{server.url}/a.bin"
        for wanted, status, body, place in [
            ("", 200, content, None),
            ("bytes=0-9", 206, content[:10], "bytes 0-9/100"),
            ("bytes=90-", 206, content[90:], "bytes 90-99/100"),
            ("bytes=-5", 206, content[95:], "bytes 95-99/100"),
            ("bytes=95-500", 206, content[95:], "bytes 95-99/100"),
            ("bytes=100-", 416, b"", "bytes */100"),
            ("bytes=0-1,3-4", 200, content, None),
        ]:
            found, headers, data = ask(url, wanted)
            assert (found, data, headers["Content-Range"]) == (status, body, place)
        assert ask(url, method="HEAD")[1]["Content-Length"] == "100"
        assert ask(f"{server.url}/../{folder.name}/a.bin")[0] == 404
        assert ask(url, method="POST")[0] == 405
        assert server.statuses == {200: 3, 206: 4, 416: 1, 404: 1, 405: 1}
        assert server.sent == 100 + 10 + 10 + 5 + 5 + 100
        assert server.requests[1].range == "bytes=0-9"


def test_faults(folder):
    with RangeServer(folder) as server:
        url = f"{server.url}/a.bin"
        server.set_faults(Fault(kind="status", status=429, retry_after="7", first=2))
        assert [ask(url)[0] for _ in range(3)] == [429, 429, 200]
        server.set_faults(Fault(kind="status", status=500, path=r"b\.bin"))
        assert [ask(url)[0], ask(f"{server.url}/b.bin")[0]] == [200, 500]
        server.set_faults(Fault(kind="html"))
        assert ask(url, "bytes=0-9")[2].startswith(b"<!DOCTYPE html>")
        server.set_faults(Fault(kind="truncate"))
        with pytest.raises(http.client.IncompleteRead):
            ask(url)
        server.set_faults(Fault(kind="reset"))
        with pytest.raises(ConnectionResetError):
            ask(url)
        server.set_faults(Fault(kind="hang", seconds=0.05))
        with pytest.raises(http.client.RemoteDisconnected):
            ask(url)
        server.set_faults(Fault(kind="delay", seconds=0.01))
        assert ask(url)[0] == 200
        server.set_faults()
        server.clear()
        assert ask(url)[0] == 200
        assert server.faults == {"": 1}


def test_the_same_seed_is_the_same_misery():
    def fates(seed, order):
        plan = FaultPlan([Fault(kind="reset", share=0.4)], seed=seed)
        found = {}
        for name in order:
            asked = Asked(method="GET", path=name, target=name, headers={}, body=b"")
            found.setdefault(name, []).append(plan.hit(asked) is not None)
        return found

    order = [f"/{number % 50}" for number in range(1000)]
    assert fates(1, order) == fates(1, sorted(order))
    assert fates(1, order) != fates(2, order)
    hits = sum(sum(hit) for hit in fates(1, order).values())
    assert 330 < hits < 470


def test_signatures(folder):
    with RangeServer(folder, signatures={"old"}) as server:
        assert ask(f"{server.url}/a.bin")[0] == 403
        assert ask(f"{server.url}/a.bin?sig=old")[0] == 200
        server.signatures = {"new"}
        assert ask(f"{server.url}/a.bin?sig=old")[0] == 403


def test_a_raster_and_many_readers(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 9999, (1, 512, 512), dtype=np.uint16)
    profile = {"driver": "GTiff", "width": 512, "height": 512, "count": 1, "dtype": "uint16"}
    with rasterio.open(tmp_path / "a.tif", "w", **profile, tiled=True, transform=GRID) as file:
        file.write(pixels)
    with RangeServer(tmp_path, faults=[Fault(kind="delay", seconds=0.05)]) as server:

        def read(number):
            quiet = rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR")
            with quiet, rasterio.open(f"{server.url}/a.tif?{number}") as file:
                return file.read()

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(read, range(4)))
        assert server.most_at_once > 1
    assert all((part == pixels).all() for part in found)


def test_it_goes_away_and_takes_its_connections_along(folder):
    with RangeServer(folder) as server:
        host, port = server.url.removeprefix("http://").split(":")
        kept = http.client.HTTPConnection(host, int(port), timeout=5)
        kept.request("GET", "/a.bin")
        assert kept.getresponse().read()
    with kept.sock as connection:
        assert connection.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=1)


def test_as_a_process(folder):
    with range_process(folder, seconds=30, faults=[Fault(kind="html", first=1)]) as url:
        assert ask(f"{url}/a.bin")[2].startswith(b"<!DOCTYPE")
        assert ask(f"{url}/a.bin", "bytes=1-2")[2] == b"\x01\x02"
        assert json.loads(ask(f"{url}/-/requests")[2])["statuses"] == {"200": 1, "206": 1}


def test_items_of_a_folder_over_http(folder):
    remote = "https://store.example/b.tif"
    items = [
        {
            "id": name,
            "collection": "c",
            "properties": {"datetime": f"2023-01-0{day}T00:00:00Z", "cloud": day},
            "geometry": {"type": "Point", "coordinates": [day, 0]},
            "assets": {"a": {"href": href}, "b": {"href": remote}},
        }
        for day, (name, href) in enumerate(
            [("x", "a.bin"), ("y", "./a.bin"), ("z", f"{folder}/a.bin")], start=1
        )
    ]
    with RangeServer(folder) as files:
        found = served(items, files.url, root=str(folder))
        assert {item["assets"]["a"]["href"] for item in found} == {f"{files.url}/a.bin"}
        assert {item["assets"]["b"]["href"] for item in found} == {remote}
        assert ask(found[0]["assets"]["a"]["href"])[0] == 200
    with StacServer(items, page=2) as server:

        def ids(query):
            page = json.loads(ask(f"{server.url}/search?{query}")[2])
            return [item["id"] for item in page["features"]], page["links"]

        first, (link,) = ids("")
        assert first == ["z", "y"]
        assert ids(link["href"].partition("?")[2]) == (["x"], [])
        assert ids("bbox=0,-1,1.5,1")[0] == ["x"]
        assert ids("datetime=2023-01-02T00:00:00Z/..")[0] == ["z", "y"]
        assert ids("query=" + quote('{"cloud": {"lt": 3, "gt": 1}}'))[0] == ["y"]
        assert ids("collections=d,e")[0] == []
        assert ask(f"{server.url}/collections/c")[0] == 200
        assert ask(f"{server.url}/collections/d")[0] == 404
