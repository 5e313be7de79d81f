"""Leases: one owner at a time, on a disk and on an object store; who dies or sleeps loses his."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import pytest
import zarr
from bucketserver import BucketServer
from loopback import Fault

import cube.lease
from cube.errors import InputError, WorkFailedError
from cube.lease import Lease, Mark, current_owner
from cube.ledger import Ledger
from cube.place import Place, RemoteFolder, names_below, replace_content, zarr_place
from cube.spec import Region

KEYS = {"AKIATESTS": "the-secret-of-the-tests"}

HOLDER = """
import os, sys, time
from cube.lease import Lease
from cube.place import as_place

lease = Lease(as_place(sys.argv[1]), holds=float(sys.argv[2]))
lease.acquire()
print("has it", flush=True)
for line in sys.stdin:
    try:
        lease.refuse_lost()
        print("still", flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[BucketServer]:
    with BucketServer(["forest"], keys=KEYS) as running:
        yield running


@pytest.fixture(params=["disk", "object store"])
def folder(request, tmp_path, server, monkeypatch) -> Place:
    name, secret = next(iter(KEYS.items()))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", name)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    server.objects["forest"].clear()
    server.set_faults()
    return tmp_path if request.param == "disk" else RemoteFolder("s3://forest/year")


@pytest.fixture
def holder(folder) -> Iterator[subprocess.Popen]:
    """Return a process that has the lease of the folder and tells it when asked."""
    words = [sys.executable, "-c", HOLDER, str(folder), "2.0"]
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=root
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "has it\n"
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()


def asked(process: subprocess.Popen) -> str:
    print("?", file=process.stdin, flush=True)
    return process.stdout.readline()


def as_of_another_machine(folder: Place) -> None:
    """Let the lease's file say that its owner's process is on a machine that nobody sees here."""
    owner = current_owner(folder)
    file = folder / ".lease" / f"{owner.number:08d}.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    replace_content(file, json.dumps(content | {"life": "elsewhere 7", "host": "far"}))


def test_one_after_the_other(folder):
    for number in (1, 2, 3):
        lease = Lease(folder)
        lease.acquire()
        assert lease.mark == Mark(folder=folder, number=number)
        lease.refuse_lost()
        lease.mark.refuse_lost()
        assert names_below(folder / ".lease") == [f"{number:08d}.json"]
        lease.release()
        assert current_owner(folder).is_free


def test_the_second_is_refused_and_told_who_is_there(folder, holder):
    with pytest.raises(InputError, match=f"another run \\(process {holder.pid} on '"):
        Lease(folder, holds=2.0).acquire()
    assert asked(holder) == "still\n"


def test_the_second_waits(folder, holder):
    said = []
    threading.Timer(1.0, holder.kill).start()
    lease = Lease(folder, holds=2.0)
    lease.acquire(waits=True, say=said.append)
    assert said == [f"{current_owner_text(holder)} is at work in {str(folder)!r}: waiting for it"]
    lease.release()


def current_owner_text(holder: subprocess.Popen) -> str:
    import socket

    return f"process {holder.pid} on {socket.gethostname()!r}"


def test_who_is_dead_on_this_machine_is_not_waited_for(folder, holder):
    holder.kill()
    holder.wait()
    lease = Lease(folder, holds=3600.0)
    lease.acquire()
    assert lease.mark.number == 2
    lease.release()


def test_who_is_dead_elsewhere_loses_it_after_a_while(folder, holder):
    holder.kill()
    holder.wait()
    as_of_another_machine(folder)
    said, started = [], time.monotonic()
    lease = Lease(folder, holds=2.0)
    lease.acquire(say=said.append)
    assert time.monotonic() - started >= 2.0
    assert said == [
        f"process {holder.pid} on 'far' has left {str(folder)!r} in use: watching it for up to 2 s"
    ]
    lease.release()


def test_who_gives_signs_elsewhere_keeps_it(folder):
    first = Lease(folder, holds=2.0)
    first.acquire()
    stop = threading.Event()

    def give_signs() -> None:
        while not stop.wait(0.3):
            as_of_another_machine(folder)
            file = folder / ".lease" / "00000001.json"
            content = json.loads(file.read_text(encoding="utf-8"))
            replace_content(file, json.dumps(content | {"sign": str(time.monotonic())}))

    thread = threading.Thread(target=give_signs)
    as_of_another_machine(folder)
    thread.start()
    try:
        with pytest.raises(InputError, match="another run \\(process"):
            Lease(folder, holds=2.0).acquire()
    finally:
        stop.set()
        thread.join()
        first.release()


def test_who_sleeps_loses_it_and_notices(folder, holder):
    holder.send_signal(signal.SIGSTOP)
    as_of_another_machine(folder)  # on this machine the process would be seen to live
    lease = Lease(folder, holds=2.0)
    lease.acquire()
    holder.send_signal(signal.SIGCONT)
    answer = asked(holder)
    assert answer.startswith("WorkFailedError another run has taken over ")
    assert "running again goes on" in answer
    time.sleep(1.0)  # in which it would have given a sign
    there = names_below(folder / ".lease")
    assert [name for name in there if not name.startswith(".")] == ["00000002.json"]  # no draft
    lease.mark.refuse_lost()
    lease.refuse_lost()
    lease.release()


def test_of_many_at_once_one_has_it(folder):
    leases = [Lease(folder, holds=60.0) for _ in range(12)]
    start = threading.Barrier(len(leases))

    def take(lease: Lease) -> bool:
        start.wait()
        try:
            lease.acquire()
        except InputError:
            return False
        return True

    with ThreadPoolExecutor(len(leases)) as pool:
        has = list(pool.map(take, leases))
    assert sum(has) == 1
    leases[has.index(True)].mark.refuse_lost()
    leases[has.index(True)].release()


def test_a_mark_of_the_past_is_refused(folder):
    first, second = Lease(folder), Lease(folder)
    first.acquire()
    first.release()
    second.acquire()
    with pytest.raises(WorkFailedError, match="another run has taken over"):
        first.mark.refuse_lost()
    second.release()


def test_a_lease_that_is_gone_is_told(folder):
    lease = Lease(folder)
    lease.acquire()
    (folder / ".lease" / "00000001.json").unlink()
    with pytest.raises(FileNotFoundError, match="it was removed, or its disk is gone"):
        lease.mark.refuse_lost()
    lease.release()


def test_who_hides_is_not_taken_for_dead(folder, holder, monkeypatch):
    """As on machines whose /proc shows each user his own processes only."""
    life = cube.lease._life
    monkeypatch.setattr(cube.lease, "_life", lambda pid: "" if pid == holder.pid else life(pid))
    monkeypatch.setattr(os, "kill", Mock(side_effect=PermissionError))
    with pytest.raises(InputError, match="another run"):
        Lease(folder, holds=2.0).acquire()
    monkeypatch.undo()


def test_what_is_no_lease_is_told(folder):
    if isinstance(folder, Path):
        (folder / ".lease").mkdir()
    replace_content(folder / ".lease" / "00000004.json", "[]")
    with pytest.raises(InputError, match="is no lease of a run"):
        Lease(folder).acquire()


def test_an_answer_that_is_lost_loses_no_lease(server, monkeypatch, request):
    folder = RemoteFolder("s3://forest/year")
    for key, value in {"AWS_ACCESS_KEY_ID": "AKIATESTS", "AWS_SECRET_ACCESS_KEY": KEYS["AKIATESTS"],
                       "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": server.url}.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    server.objects["forest"].clear()
    server.set_faults(Fault(kind="late reset", method="PUT", first=1))
    lease = Lease(folder)
    lease.acquire()
    assert server.faults["late reset"] == 1
    assert lease.mark.number == 1
    lease.release()


def test_a_task_of_a_lost_lease_records_nothing(folder):
    zarr.open_group(zarr_place(folder / "a.zarr"), mode="w")
    first, second = Lease(folder), Lease(folder)
    first.acquire()
    region = Region(row=0, column=0, top=0, left=0, height=4, width=4)
    ledger = Ledger(store=folder / "a.zarr", inputs="a" * 16, mark=first.mark)
    ledger.prepare()
    ledger.record(region, {})
    first.release()
    second.acquire()
    later = Ledger(store=folder / "a.zarr", inputs="b" * 16, mark=first.mark)
    for work in (
        lambda: ledger.record(region, {"late": True}),
        lambda: later.forget_others(region),
    ):
        with pytest.raises(WorkFailedError, match="another run has taken over"):
            work()
    assert ledger.record_of(region) == {"tile": region.id, "inputs": "a" * 16}
    second.release()
