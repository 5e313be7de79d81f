"""A request to Earth Engine in, its answer out: tried again where that helps, paced, counted.

The client library and `requests` under it would also try again, but they hide what the server says
in `Retry-After`, take a page of HTML with status 200 for an answer, and know nothing of a stop.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass
from typing import Any

import urllib3

from cube.cog.fetch import TRAFFIC, Meter
from cube.cog.http import connections
from cube.earthengine.access import Access
from cube.earthengine.credentials import Identity
from cube.earthengine.errors import DeniedError, PassingError, RequestTooLargeError, check_status
from cube.earthengine.giveup import LOOK, raise_if_over, wait
from cube.earthengine.throttle import Slot, Throttle
from cube.errors import WorkFailedError
from cube.patience import STOPPED, Patience

_LARGEST = 256 * 2**20
"""Bytes of one answer that are taken; the largest asked for has 48 MB."""

_CHUNK = 1 << 20

_LONGEST = 3
"""Times the time-out that one answer may take in all."""

_EXCESSES = 3
"""Tries of a request that is too large and cannot be cut: memory and time depend on Earth Engine's
load and on what it remembers of the try before, but each may take minutes."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request, however often it is sent."""

    method: str
    """`GET` or `POST`."""
    path: str
    """From the slash after the host to the end of the query."""
    headers: dict[str, str]
    """Without those of the credentials."""
    body: bytes | None
    """JSON text."""
    what: str
    """What is asked for, for messages."""
    check: Callable[[bytes], Any]
    """Raises `PassingError` for content that is not what was asked for."""
    is_divisible: bool = False
    """Whether whoever asks can ask for less, where this is too large."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    """HTTP status."""
    headers: dict[str, str]
    """By name in lower case."""
    body: bytes
    """Content, unpacked."""


class Transport:
    """Sends the requests of one session; shared by threads."""

    def __init__(
        self,
        access: Access,
        identity: Identity,
        *,
        meter: Meter = TRAFFIC,
        sleep: Callable[[float], object] = wait,
    ) -> None:
        self.throttle = Throttle(access.requests_at_once)
        self._access = access
        self._identity = identity
        self._meter = meter
        self._sleep = sleep

    @property
    def project(self) -> str:
        """The project that pays."""
        return self._identity.project

    def ask(self, request: Request) -> Answer:
        """Return the right answer, tried as often as the `Patience` of the access allows.

        Raises `WorkFailedError` if no try succeeds, the run is stopped or this is given up
        (`tried_until`), `RequestTooLargeError`, and what `check_status` raises for an answer that
        will not change.
        """
        failures = denials = excesses = 0
        while True:
            raise_if_over()
            try:
                with self.throttle.slot() as slot:
                    return self._try(request, slot, is_denied=denials > 0)
            except DeniedError as error:
                denials += 1
                if denials > 1 or not self._identity.is_renewable:
                    raise self._identity.refused(str(error)) from None
            except RequestTooLargeError:
                excesses += 1
                if request.is_divisible or excesses == _EXCESSES:
                    raise
                self._sleep(self._access.patience.pause(excesses))
            except PassingError as error:
                failures += 1
                self._sleep(self._pause(request, error, failures))

    def _pause(self, request: Request, error: PassingError, failures: int) -> float:
        """Return the seconds to wait before the next try; raises if there is to be none."""
        patience: Patience = self._access.patience
        if failures >= patience.attempts:
            raise WorkFailedError(
                f"Earth Engine does not answer {request.what}: tried {failures} times, the last "
                f"time {error}"
            ) from None
        if error.wait > patience.longest_wait:
            raise WorkFailedError(
                f"Earth Engine does not answer {request.what}: {error}, and asks to wait "
                f"{error.wait:.0f} s, longer than {patience.longest_wait:.0f} s; try again later"
            ) from None
        return max(error.wait, patience.pause(failures))

    def _try(self, request: Request, slot: Slot, *, is_denied: bool) -> Answer:
        try:
            answer = _while_running(lambda: self._sent(request, is_denied=is_denied))
            check_status(
                answer.status, answer.headers, answer.body, what=request.what, project=self.project
            )
            request.check(answer.body)
        except PassingError as error:
            if error.is_crowded:
                slot.is_refused()
            raise
        slot.has_succeeded()
        return answer

    def _sent(self, request: Request, *, is_denied: bool) -> Answer:
        """Send once, with a new token if the last was denied.

        Raises `PassingError` where no whole answer comes.
        """
        url = self._access.endpoint + request.path
        headers = request.headers | self._identity.headers(url, is_denied=is_denied)
        timeout = self._access.patience.timeout
        received = 0
        try:
            answer = connections(url).request(
                request.method,
                url,
                headers=headers,
                body=request.body,
                timeout=urllib3.Timeout(connect=min(15.0, timeout), read=timeout),
                retries=False,
                redirect=False,  # Earth Engine sends none, and a token goes nowhere else
                preload_content=False,
            )
            body = _body(answer, time.monotonic() + _LONGEST * timeout)
            received = len(body)
        except urllib3.exceptions.HTTPError as error:
            # without its text, which holds the address
            raise PassingError(_REASONS.get(type(error), type(error).__name__)) from None
        finally:
            self._meter.add(received)
        found = {name.lower(): value for name, value in answer.headers.items()}
        return Answer(status=answer.status, headers=found, body=body)


_REASONS = {
    urllib3.exceptions.ConnectTimeoutError: "no connection in time",
    urllib3.exceptions.ReadTimeoutError: "no answer in time",
    urllib3.exceptions.NewConnectionError: "connection refused",
    urllib3.exceptions.NameResolutionError: "its host is not found",
    urllib3.exceptions.SSLError: "no connection that can be trusted (TLS)",
    urllib3.exceptions.ProxyError: "the proxy does not connect",
    urllib3.exceptions.ProtocolError: "connection broken",
    urllib3.exceptions.IncompleteRead: "body cut short",
}


def _body(answer: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
    body = bytearray()
    for part in answer.stream(_CHUNK, decode_content=True):
        body += part
        if len(body) > _LARGEST:
            answer.close()
            raise PassingError(f"an answer of more than {_LARGEST >> 20} MB")
        if time.monotonic() > deadline:
            answer.close()
            raise PassingError("the answer takes too long")
    answer.release_conn()
    return bytes(body)


def _while_running(send: Callable[[], Answer]) -> Answer:
    """Return what `send` returns, but do not wait for it when the run is stopped.

    A request takes minutes, and a process that ends waits for its threads: so it is sent by a
    daemon, for which none waits.
    """
    waited: Future[Answer] = Future()

    def sending() -> None:
        try:
            waited.set_result(send())
        except BaseException as error:  # noqa: BLE001, raised by whoever waits
            waited.set_exception(error)

    threading.Thread(target=sending, daemon=True).start()
    while True:
        try:
            return waited.result(timeout=LOOK)
        except NotYetError:
            if STOPPED.is_set():
                raise WorkFailedError("the run was stopped") from None
