"""STAC items in, a real STAC API (stac-fastapi-pgstac on PostgreSQL with PostGIS) on loopback out.

Needs Debian's `postgresql-15-postgis-3`, and an interpreter with `stac-fastapi-pgstac`,
`pypgstac[psycopg]` and `uvicorn`, whose path is in CANOPYCUBE_TEST_PGSTAC (a virtual environment of
its own: what they need clashes with ours).
"""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NEEDS = (
    "needs Debian's postgresql-15-postgis-3, and in CANOPYCUBE_TEST_PGSTAC the path of a Python "
    "with stac-fastapi-pgstac, pypgstac[psycopg] and uvicorn"
)
_BINARIES = Path("/usr/lib/postgresql/15/bin")
_POSTGIS = Path("/usr/share/postgresql/15/extension/postgis.control")
_PATIENCE = 60.0


def is_there() -> bool:
    """Say whether what this module needs is installed."""
    python = os.environ.get("CANOPYCUBE_TEST_PGSTAC", "")
    return bool(python) and Path(python).is_file() and _POSTGIS.is_file()


@contextmanager
def pgstac_server(
    folder: Path, items: Iterable[Mapping[str, Any]], collection: Mapping[str, Any]
) -> Iterator[str]:
    """Yield the address of an API that holds `items` of one `collection`.

    The database lies in `folder` and goes with the server.
    """
    data, port = folder / "data", _free_port()
    environment = os.environ | {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(port),
        "PGUSER": "postgres",
        "PGPASSWORD": "none",
        "PGDATABASE": "postgres",
    }
    user = _unprivileged(folder)
    initialise = [_BINARIES / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync"]
    subprocess.run(initialise, check=True, capture_output=True, user=user, cwd=folder)
    options = f"-p {port} -k {folder} -h 127.0.0.1 -F"
    control = [_BINARIES / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options]
    subprocess.run([*control, "start"], check=True, capture_output=True, user=user, cwd=folder)
    try:
        _fill(folder, items, collection, environment)
        with _application(environment) as url:
            yield url
    finally:
        stop = [*control, "-m", "immediate", "stop"]
        subprocess.run(stop, check=True, capture_output=True, user=user, cwd=folder)


def _fill(
    folder: Path,
    items: Iterable[Mapping[str, Any]],
    collection: Mapping[str, Any],
    environment: Mapping[str, str],
) -> None:
    python = environment["CANOPYCUBE_TEST_PGSTAC"]
    command = [str(Path(python).with_name("pypgstac"))]
    run = {"check": True, "capture_output": True, "env": environment}
    subprocess.run([*command, "migrate"], **run)
    for table, records in (("collections", [collection]), ("items", list(items))):
        path = folder / f"{table}.ndjson"
        path.write_text("\n".join(json.dumps(record) for record in records))
        subprocess.run([*command, "load", table, str(path), "--method", "insert"], **run)


@contextmanager
def _application(environment: Mapping[str, str]) -> Iterator[str]:
    port = _free_port()
    command = [environment["CANOPYCUBE_TEST_PGSTAC"], "-m", "uvicorn", "--port", str(port)]
    with subprocess.Popen(
        [*command, "--factory", "stac_fastapi.pgstac.app:create_app"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(url, process)
            yield url
        finally:
            process.terminate()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"{url} did not answer within {_PATIENCE:.0f} s")


def _unprivileged(folder: Path) -> str | None:
    """Give `folder` to a user PostgreSQL runs as; it refuses to run as root."""
    if os.getuid() != 0:
        return None
    shutil.chown(folder, "postgres", "postgres")
    return "postgres"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
