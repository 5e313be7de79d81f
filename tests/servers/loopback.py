"""A function from request to answer in, an HTTP server on loopback that may misbehave out."""

import http.server
import json
import random
import re
import socket
import socketserver
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit

Kind = Literal["status", "reset", "late reset", "truncate", "html", "delay", "hang"]

_HTML = b"<!DOCTYPE html><html><head><title>Sorry</title></head><body>Back soon.</body></html>"
_LINGER_NOTHING = struct.pack("ii", 1, 0)
"""Closing a socket with this set sends a reset instead of a polite end."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way to fail, and which requests it hits."""

    kind: Kind
    """`status`: that status and no content. `reset`: the connection is torn; `late reset`: after
    what was asked for is done. `truncate`: half the body, under the full length. `html`: a page with status 200. `delay`: the right answer, later.
    `hang`: no answer for `seconds`, then the connection ends."""
    status: int = 503
    """For `status`."""
    retry_after: str = ""
    """`Retry-After` of a `status`: seconds or an HTTP date; empty sends none."""
    seconds: float = 0.0
    """For `delay` and `hang`."""
    share: float = 1.0
    """Probability (0..1) that a request is hit. What happens to the n-th time of the same request
    follows from the plan's seed alone, not from threads or order."""
    path: str = ""
    """Regular expression searched in path and query; empty hits all."""
    method: str = ""
    """Only requests of this method; empty hits all."""
    first: int | None = None
    """Hits only the first so many requests that match; None hits for ever."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request as it came."""

    method: str
    """`GET`, `HEAD`, `POST`, `PUT` or `DELETE`."""
    path: str
    """Without the query, still quoted."""
    target: str
    """Path and query."""
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes
    """Content of a POST or PUT."""

    @property
    def query(self) -> dict[str, str]:
        """The query's values by key; of a key given twice the last."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server gives back."""

    status: int = 200
    """HTTP status."""
    body: bytes = b""
    """Content; not sent for HEAD."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers beside Content-Length."""

    @classmethod
    def of_json(cls, content: Any, status: int = 200, kind: str = "application/json") -> Self:
        """Return `content` as a JSON answer."""
        return cls(status=status, body=json.dumps(content).encode(), headers={"Content-Type": kind})


@dataclass(frozen=True, kw_only=True)
class Served:
    """One line of the request log."""

    method: str
    """As asked."""
    target: str
    """Path and query as asked."""
    range: str
    """`Range` header as asked; empty if there was none."""
    headers: Mapping[str, str]
    """All headers as asked, by name in lower case."""
    status: int
    """Status that was sent; 0 for a reset or a hang."""
    sent: int
    """Bytes of content that were sent."""
    fault: str
    """Kind of fault that hit; empty for a right answer."""
    time: float
    """`time.monotonic` when the request came."""


class FaultPlan:
    """Faults in, the one that hits a request out; of several the first that hits wins."""

    def __init__(self, faults: Iterable[Fault] = (), *, seed: int = 0) -> None:
        self.faults = tuple(faults)
        self.seed = seed
        self._times: Counter[str] = Counter()
        self._lock = threading.Lock()

    def hit(self, asked: Asked) -> Fault | None:
        """Return what befalls this request, None for nothing; counts it."""
        content = asked.body.decode("latin-1")
        key = f"{asked.method} {asked.target} {asked.headers.get('range', '')} {content}"
        with self._lock:
            self._times[key] += 1
            draw = random.Random(f"{self.seed} {self._times[key]} {key}")
            for number, fault in enumerate(self.faults):
                if fault.method not in ("", asked.method):
                    continue
                if not re.search(fault.path, asked.target) or draw.random() >= fault.share:
                    continue
                self._times[f"fault {number}"] += 1
                if fault.first is None or self._times[f"fault {number}"] <= fault.first:
                    return fault
        return None


class LoopbackServer:
    """Serves `answer` on 127.0.0.1 with keep-alive, many requests at once, until it is left.

    `url` is the address without a slash at its end, `plan` may be replaced while it runs, and
    `requests` is the log so far. An `answer` that raises gives status 500, and the error is raised
    again when the server is left.
    """

    def __init__(
        self,
        answer: Callable[[Asked], Answer],
        *,
        faults: Iterable[Fault] = (),
        seed: int = 0,
        port: int = 0,
    ) -> None:
        self.plan = FaultPlan(faults, seed=seed)
        self.most_at_once = 0
        self._answer = answer
        self._log: list[Served] = []
        self._errors: list[Exception] = []
        self._at_once = 0
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._server = _Server(("127.0.0.1", port), _handler(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        with self._lock:
            left = list(self._connections)
        for connection in left:  # kept alive: their threads wait for a next request
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for _ in range(200):
            if not self._connections:
                break
            time.sleep(0.01)
        if self._errors and error is None:
            raise self._errors[0]

    @property
    def requests(self) -> tuple[Served, ...]:
        """The log so far, in the order the answers went out."""
        with self._lock:
            return tuple(self._log)

    @property
    def sent(self) -> int:
        """Bytes of content sent so far."""
        return sum(line.sent for line in self.requests)

    @property
    def statuses(self) -> Counter[int]:
        """Number of answers by status."""
        return Counter(line.status for line in self.requests)

    @property
    def faults(self) -> Counter[str]:
        """Number of answers by kind of fault; empty text for the right ones."""
        return Counter(line.fault for line in self.requests)

    def clear(self) -> None:
        """Forget the log."""
        with self._lock:
            self._log.clear()
            self.most_at_once = 0

    def set_faults(self, *faults: Fault, seed: int = 0) -> None:
        """Replace the fault plan; counts begin anew."""
        self.plan = FaultPlan(faults, seed=seed)

    def answer(self, asked: Asked) -> Answer:
        """Return the right answer, and 500 where there is none for a bug of the test."""
        try:
            return self._answer(asked)
        except Exception as error:  # noqa: BLE001
            self._errors.append(error)
            return Answer(status=500, body=repr(error).encode())

    def record(self, line: Served) -> None:
        """Add a line to the log."""
        with self._lock:
            self._log.append(line)

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the server's own end."""
        self._is_over.wait(seconds)

    @contextmanager
    def counted(self):
        """Count requests under way at once."""
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= 1

    @contextmanager
    def connected(self, connection: socket.socket):
        """Know a connection while it lasts."""
        with self._lock:
            self._connections.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._connections.discard(connection)


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # no look-up of the host's name
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up, and faults tear connections: nothing to tell."""


def _spoiled(asked: Asked, fault: Fault, owner: LoopbackServer) -> Answer | None:
    """Return what goes out under a fault, None for a connection that just ends."""
    if fault.kind in ("delay", "hang"):
        owner.pause(fault.seconds)
    if fault.kind in ("reset", "hang"):
        return None
    if fault.kind == "status":
        headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
        return Answer(status=fault.status, headers=headers)
    if fault.kind == "html":
        return Answer(body=_HTML, headers={"Content-Type": "text/html"})
    answer = owner.answer(asked)
    return None if fault.kind == "late reset" else answer


def _handler(owner: LoopbackServer) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = 1 << 20

        def handle(self) -> None:
            with owner.connected(self.connection):
                super().handle()

        def do_GET(self) -> None:
            with owner.counted():
                self._serve()

        do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Tests read the log instead."""

        def _serve(self) -> None:
            came = time.monotonic()
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(
                method=self.command,
                path=urlsplit(self.path).path,
                target=self.path,
                headers={name.lower(): value for name, value in self.headers.items()},
                body=body,
            )
            fault = owner.plan.hit(asked)
            kind = "" if fault is None else fault.kind
            answer = owner.answer(asked) if fault is None else _spoiled(asked, fault, owner)
            content = b"" if answer is None or asked.method == "HEAD" else answer.body
            if kind == "truncate":
                content = content[: len(content) // 2]
            line = Served(
                method=asked.method,
                target=asked.target,
                range=asked.headers.get("range", ""),
                headers=asked.headers,
                status=0 if answer is None else answer.status,
                sent=len(content),
                fault=kind,
                time=came,
            )
            owner.record(line)  # first: the client may look as soon as it has its answer
            is_cut = kind in ("truncate", "reset", "late reset", "hang")
            self.close_connection = is_cut or self.close_connection
            if kind in ("reset", "late reset"):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOTHING)
            if answer is not None:
                self._write(answer, content)

        def _write(self, answer: Answer, content: bytes) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(content)
            self.wfile.flush()

        def finish(self) -> None:
            try:
                super().finish()
            except (OSError, ValueError):
                self.rfile.close()

    return Handler
