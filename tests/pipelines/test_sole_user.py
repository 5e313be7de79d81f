"""The right to work in a folder alone: who is refused takes nothing away, who waits is told."""

import fcntl
import threading
from pathlib import Path

import pytest

from cube.errors import InputError
from cube.lease import Lease
from pipelines.sole_user import sole_user


def test_who_makes_nothing_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with sole_user(folder):
        assert (folder / ".lease").is_dir()
    assert not folder.exists()
    with sole_user(folder):
        (folder / "report.json").touch()
    assert (folder / "report.json").exists()


def test_who_is_refused_leaves_the_lease_of_who_is_there(tmp_path: Path) -> None:
    """As of a run on another host, whose lock is not seen here, and which has made nothing yet."""
    lease = Lease(tmp_path / "out")
    lease.acquire()
    with pytest.raises(InputError, match="is at work in"), sole_user(tmp_path / "out"):
        pass
    lease.mark.refuse_lost()
    lease.release()


def test_who_waits_for_a_lock_says_so_once(tmp_path: Path) -> None:
    said: list[str] = []
    with (tmp_path / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        threading.Timer(1.2, fcntl.flock, (file, fcntl.LOCK_UN)).start()
        with sole_user(tmp_path, waits=True, say=said.append):
            assert said == [f"another run is at work in {str(tmp_path)!r}: waiting for it"]
