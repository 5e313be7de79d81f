"""Ranges over HTTP from a server that fails in every way it can."""

import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import pytest
from loopback import Answer, Fault, LoopbackServer
from rangeserver import RangeServer

from cube.cog import (
    Fetcher,
    FileBrokenError,
    FileUnreachableError,
    Headers,
    Meter,
    Patience,
    allow_fetching,
    stop_fetching,
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


# --- servers of other habits --------------------------------------------------------------------


def serving(answer):
    """A server that answers by a function; its log has the headers that came."""
    return LoopbackServer(answer)


def test_redirects_are_followed_and_credentials_stay_where_they_belong(server):
    class Token:
        def url(self, href, *, is_retry):
            return href, {"Authorization": "Bearer secret", "x-amz-security-token": "secret"}

    def away(asked):
        return Answer(status=303, headers={"Location": f"{server.url}/a.bin?sig=other"})

    ours, _ = fetcher()
    ours = Fetcher(patience=ours.patience, signer=Token(), meter=Meter())
    with serving(away) as front:
        assert ours.fetch(f"{front.url}/x.tif", 10, 20) == BODY[10:20]
        assert front.requests[0].headers["authorization"] == "Bearer secret"
    reached = server.requests[0].headers
    assert "authorization" not in reached
    assert "x-amz-security-token" not in reached
    assert reached["range"] == "bytes=10-19"


@pytest.mark.parametrize(
    ("target", "text"),
    [("file:///etc/passwd", "to no https"), ("ftp://a.example/x", "to no https"), ("", "HTTP 302")],
)
def test_redirects_to_elsewhere_are_final(target, text):
    headers = {"Location": target} if target else {}
    ours, _ = fetcher()
    with (
        serving(lambda asked: Answer(status=302, headers=headers)) as front,
        pytest.raises(FileBrokenError, match=text),
    ):
        ours.fetch(f"{front.url}/x.tif", 0, 10)


def test_redirects_in_a_circle_end():
    ours, _ = fetcher()
    with (
        serving(lambda asked: Answer(status=302, headers={"Location": asked.target})) as front,
        pytest.raises(FileBrokenError, match="too many redirects"),
    ):
        ours.fetch(f"{front.url}/x.tif", 0, 10)


def test_a_server_without_ranges_serves_small_files_only():
    ours, _ = fetcher()
    with serving(lambda asked: Answer(body=BODY)) as plain:
        assert ours.fetch(f"{plain.url}/a.bin", 100, 200) == BODY[100:200]
    huge = bytes(5 * 1024 * 1024)
    with (
        serving(lambda asked: Answer(body=huge)) as plain,
        pytest.raises(FileBrokenError, match="whole files instead of ranges"),
    ):
        ours.fetch(f"{plain.url}/a.bin", 100, 200)


def test_a_document_that_begins_as_a_page_does_is_none():
    ours, _ = fetcher()
    xml = b"<?xml version='1.0'?><Level-2A_User_Product/>"
    with serving(lambda asked: Answer(body=xml, headers={"Content-Type": "text/xml"})) as plain:
        assert ours.whole(f"{plain.url}/MTD.xml", most=1000) == xml


def test_a_file_that_was_replaced_is_not_read_by_the_old_header(server):
    ours, _ = fetcher()
    address = f"{server.url}/a.bin"
    assert ours.fetch(address, 0, 10, length=len(BODY)) == BODY[:10]
    with pytest.raises(FileBrokenError, match="another came into its place"):
        ours.fetch(address, 0, 10, length=len(BODY) + 1)


def test_a_process_that_ends_asks_no_more(server):
    server.set_faults(Fault(kind="status", status=503))
    ours = Fetcher(patience=Patience(attempts=50, first_pause=30.0), meter=Meter())
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(ours.fetch, f"{server.url}/a.bin", 0, 10)
        while not server.requests:
            time.sleep(0.01)
        try:
            stop_fetching()
            with pytest.raises(FileUnreachableError, match="the run was stopped"):
                job.result(timeout=20)
        finally:
            allow_fetching()


def test_a_proxy_of_the_environment_is_asked(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    ours, _ = fetcher(attempts=1)
    with pytest.raises(FileBrokenError, match="HTTP 404"):
        ours.fetch("http://archive.invalid/b.bin", 0, 10)
    assert server.requests[0].target == "http://archive.invalid/b.bin"
