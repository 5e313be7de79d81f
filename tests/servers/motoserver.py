"""Names of buckets in, another's S3 server (moto) on loopback out.

Needs the program `moto_server`, whose path is in CANOPYCUBE_TEST_MOTO (of a virtual environment of its
own: what it needs clashes with ours).
"""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

NEEDS = "needs in CANOPYCUBE_TEST_MOTO the path of the program moto_server"
_PATIENCE = 60.0


def is_there() -> bool:
    """Say whether what this module needs is installed."""
    program = os.environ.get("CANOPYCUBE_TEST_MOTO", "")
    return bool(program) and Path(program).is_file()


@contextmanager
def moto_server(buckets: Iterable[str]) -> Iterator[str]:
    """Yield the address of a server that has empty `buckets`, and takes any credentials."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    words = [os.environ["CANOPYCUBE_TEST_MOTO"], "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for bucket in buckets:
                _make(f"{url}/{bucket}", process)
            yield url
        finally:
            process.terminate()


def _make(address: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(address, method="PUT"), timeout=10):
                return
        except (urllib.error.URLError, ConnectionError):
            if process.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.1)
