"""Ranges over HTTP from a server that fails in every way it can."""

import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import pytest
from loopback import Fault
from rangeserver import RangeServer

from cube.cog import (
    Fetcher,
    FileBrokenError,
    FileUnreachableError,
    Headers,
    Meter,
    Patience,
)
from cube.errors import InputError

BODY = bytes(range(256)) * 40


class Waits(list):
    """Stands in for sleeping: remembers how long."""

    def __call__(self, seconds):
        self.append(seconds)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "a.bin").write_bytes(BODY)
    with RangeServer(tmp_path) as found:
        yield found


def fetcher(**options):
    waits = Waits()
    patience = Patience(**{"timeout": 0.4, **options})
    return Fetcher(patience=patience, sleep=waits, meter=Meter()), waits


def test_a_range_is_one_request(server):
    ours, waits = fetcher()
    assert ours.fetch(f"{server.url}/a.bin", 100, 200) == BODY[100:200]
    assert [(line.range, line.sent) for line in server.requests] == [("bytes=100-199", 100)]
    assert (ours.meter.requests, ours.meter.received, waits) == (1, 100, [])
    assert ours.head(f"{server.url}/a.bin", 10**6) == (BODY, len(BODY))
    assert ours.whole(f"{server.url}/a.bin", most=10**5) == BODY
    with pytest.raises(FileBrokenError, match="more than 1000"):
        ours.whole(f"{server.url}/a.bin", most=1000)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="status", status=503, first=3),
        Fault(kind="status", status=500, first=3),
        Fault(kind="status", status=429, first=3),
        Fault(kind="status", status=408, first=3),
        Fault(kind="reset", first=3),
        Fault(kind="truncate", first=3),
        Fault(kind="html", first=3),
        Fault(kind="hang", seconds=1.0, first=3),
    ],
    ids=lambda fault: f"{fault.kind} {fault.status}",
)
def test_what_may_pass_is_asked_for_again(server, fault):
    server.set_faults(fault)
    ours, waits = fetcher()
    assert ours.fetch(f"{server.url}/a.bin", 7, 5000) == BODY[7:5000]
    assert ours.meter.requests == 4
    assert len(waits) == 3
    for tries, wait in enumerate(waits):
        assert 0 <= wait <= 0.5 * 2**tries


def test_it_ends_when_patience_does(server):
    server.set_faults(Fault(kind="status", status=503))
    ours, waits = fetcher(attempts=4)
    with pytest.raises(FileUnreachableError, match="HTTP 503, after 4 tries"):
        ours.fetch(f"{server.url}/a.bin", 0, 10)
    assert (len(server.requests), len(waits)) == (4, 3)


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (410, 1), (400, 1), (403, 2), (401, 2)])
def test_what_will_not_pass_is_final(server, status, tries):
    server.set_faults(Fault(kind="status", status=status))
    ours, waits = fetcher()
    with pytest.raises(FileBrokenError, match=f"HTTP {status}"):
        ours.fetch(f"{server.url}/a.bin", 0, 10)
    assert len(server.requests) == tries
    assert waits == []


def test_a_range_beyond_the_end(server):
    ours, _ = fetcher()
    with pytest.raises(FileBrokenError, match=f"ends at byte {len(BODY)}, before {len(BODY) + 5}"):
        ours.fetch(f"{server.url}/a.bin", 10, len(BODY) + 5)
    with pytest.raises(FileBrokenError, match="HTTP 416"):
        ours.fetch(f"{server.url}/a.bin", len(BODY) + 10, len(BODY) + 20)


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured(server, as_date):
    asked = formatdate(time.time() + 30, usegmt=True) if as_date else "30"
    server.set_faults(Fault(kind="status", status=429, retry_after=asked, first=1))
    ours, waits = fetcher()
    ours.fetch(f"{server.url}/a.bin", 0, 10)
    assert len(waits) == 1
    assert 27 <= waits[0] <= 30


def test_a_server_that_asks_for_an_hour_is_left(server):
    server.set_faults(Fault(kind="status", status=503, retry_after="3600"))
    ours, waits = fetcher()
    with pytest.raises(FileUnreachableError, match="asks to wait 3600 s"):
        ours.fetch(f"{server.url}/a.bin", 0, 10)
    assert waits == []


def test_a_signature_that_ran_out_is_made_anew_once(tmp_path):
    (tmp_path / "a.bin").write_bytes(BODY)

    class Tokens:
        def __init__(self):
            self.asked = []

        def url(self, href, *, is_retry):
            self.asked.append(is_retry)
            return f"{href}?sig={'new' if is_retry else 'old'}", {}

    signer = Tokens()
    with RangeServer(tmp_path, signatures={"new"}) as server:
        found = Fetcher(signer=signer).fetch(f"{server.url}/a.bin", 0, 10)
        assert found == BODY[:10]
        assert signer.asked == [False, True]
        server.signatures = {"another"}
        with pytest.raises(FileBrokenError) as error:
            Fetcher(signer=signer).fetch(f"{server.url}/a.bin", 0, 10)
        assert str(error.value) == "HTTP 403"


def test_no_server_at_all():
    ours, _ = fetcher(attempts=2)
    with pytest.raises(FileUnreachableError, match="after 2 tries") as error:
        ours.fetch("http://127.0.0.1:1/a.bin?sig=secret", 0, 10)
    assert "secret" not in str(error.value)


def test_threads_that_ask_for_one_header_wait_for_one_answer(shared_data):
    folder = shared_data / "cog-product-29RKH"
    path = next(folder.glob("**/B02.tif"))
    with RangeServer(path.parent, faults=[Fault(kind="delay", seconds=0.05)]) as server:
        headers = Headers()
        with ThreadPoolExecutor(8) as pool:
            found = list(
                pool.map(lambda _: headers.get(f"{server.url}/B02.tif", Fetcher()), range(8))
            )
        assert len({id(header) for header in found}) == 1
        assert len(server.requests) == 1


def test_patience_refuses_what_makes_no_sense():
    for wrong in ({"attempts": 0}, {"timeout": 0.0}, {"first_pause": -1.0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Patience(**wrong)
