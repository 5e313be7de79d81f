"""A folder in, its files over HTTP out: byte ranges, a request log, and faults as wished.

Readers in several threads of the server's own process must set GDAL_DISABLE_READDIR_ON_OPEN to
EMPTY_DIR, as the package does for remote files: without it they hold the interpreter while they
wait for the server, for ever (seen with rasterio 1.4.4).

In a test `with RangeServer(folder) as server:`, and `server.url` is the folder's address. For
measurements as a process of its own, which prints its address as JSON and ends by itself:
`python tests/servers/rangeserver.py FOLDER --seconds 300 --fault '{"kind": "delay", "seconds": 0.02}'`;
`GET /-/requests` then tells what it served so far.
"""

import argparse
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from urllib.parse import unquote

from loopback import Answer, Asked, Fault, LoopbackServer

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_TYPES = {".tif": "image/tiff", ".jp2": "image/jp2", ".json": "application/json"}
_COUNTERS = "/-/requests"


class RangeServer(LoopbackServer):
    """Files of a folder; links in it are followed, no path leads out of it.

    With `signatures`, a request is refused with 403 unless its query has one of them as `sig`; the
    set may be changed while the server runs, as tokens that expire.
    """

    def __init__(
        self,
        folder: Path,
        *,
        faults: Iterable[Fault] = (),
        seed: int = 0,
        port: int = 0,
        signatures: Iterable[str] | None = None,
    ) -> None:
        super().__init__(self._file, faults=faults, seed=seed, port=port)
        self.folder = folder
        self.signatures = None if signatures is None else set(signatures)

    def _file(self, asked: Asked) -> Answer:
        if asked.path == _COUNTERS:
            return Answer.of_json(self._counters())
        if asked.method == "POST":
            return Answer(status=405)
        if self.signatures is not None and asked.query.get("sig") not in self.signatures:
            return Answer(status=403, body=b"the signature is missing or has expired")
        parts = unquote(asked.path).strip("/").split("/")
        path = self.folder.joinpath(*parts)
        if ".." in parts or not path.is_file():
            return Answer(status=404)
        return ranged(path, asked.headers.get("range", ""))

    def _counters(self) -> dict[str, object]:
        return {
            "requests": len(self.requests),
            "sent": self.sent,
            "statuses": self.statuses,
            "faults": self.faults,
            "most_at_once": self.most_at_once,
        }


def ranged(path: Path, wanted: str) -> Answer:
    """Return a file or one range of it: 206, 416 beyond its end, 200 for what is no single range."""
    size = path.stat().st_size
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Type": _TYPES.get(path.suffix, "application/octet-stream"),
    }
    found = _RANGE.fullmatch(wanted)
    if found is None or found[0] == "bytes=-":
        return Answer(body=path.read_bytes(), headers=headers)
    if found[1]:
        start, stop = int(found[1]), min(int(found[2]) + 1 if found[2] else size, size)
    else:
        start, stop = max(size - int(found[2]), 0), size
    if start >= stop:
        return Answer(status=416, headers={"Content-Range": f"bytes */{size}"})
    with path.open("rb") as file:
        file.seek(start)
        body = file.read(stop - start)
    place = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
    return Answer(status=206, body=body, headers=headers | place)


@contextmanager
def range_process(
    folder: Path, *, seconds: float = 600.0, faults: Iterable[Fault] = (), seed: int = 0
) -> Iterator[str]:
    """Serve a folder from a process of its own, and yield its address.

    For measurements: a server in the reader's own process would share its interpreter lock.
    """
    command = [sys.executable, __file__, str(folder), "--seconds", str(seconds)]
    for fault in faults:
        command += ["--fault", json.dumps(asdict(fault))]
    with subprocess.Popen(
        [*command, "--seed", str(seed)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()


def main(arguments: list[str]) -> None:
    """Serve one folder for some time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fault", type=json.loads, action="append", default=[])
    given = parser.parse_args(arguments)
    faults = [Fault(**fault) for fault in given.fault]
    with RangeServer(given.folder, faults=faults, seed=given.seed, port=given.port) as server:
        print(json.dumps({"url": server.url}), flush=True)
        threading.Event().wait(given.seconds)


if __name__ == "__main__":
    main(sys.argv[1:])
