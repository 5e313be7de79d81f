"""An address and a range of bytes in, exactly these bytes out: retried, checked, counted.

A range that arrives is the range that was asked for, or an error. What servers do when they are
overloaded (429, 5xx, a closed connection, half a body, a page of HTML with status 200) is asked for
again after a growing, random pause; what will not change (404, a file that is too short) is not.
"""

import email.utils
import os
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

import urllib3

from cube.cog.errors import FileBrokenError, FileUnreachableError
from cube.errors import InputError

_TRANSIENT = {408, 425, 429, *range(500, 600)}
"""HTTP statuses that another try may change (RFC 9110, RFC 6585, RFC 8470)."""

_DENIED = {401, 403}
"""Statuses of a signature that has run out: signed anew once, then final."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

_CONNECTIONS = 32
"""Kept open for each server; more threads than that would open and close their own."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a server that fails is asked again."""

    attempts: int = 8
    """Tries of one request. With every fifth request failing, one in 400,000 fails eight times."""
    first_pause: float = 0.5
    """Seconds before the second try at most; the limit doubles with each further one, and the
    pause is drawn at random below it, so that many workers do not come back at once."""
    longest_pause: float = 20.0
    """Seconds that no pause exceeds, but for what the server itself asks for."""
    longest_wait: float = 120.0
    """Seconds that a server may ask for in `Retry-After`; more ends the tries."""
    timeout: float = 60.0
    """Seconds without a byte after which a request has failed."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise InputError(f"attempts is {self.attempts!r}; expected 1 or more")
        for name in ("first_pause", "longest_pause", "longest_wait"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name)!r}; expected seconds, 0 or more")
        if not 0 < self.timeout < float("inf"):
            raise InputError(f"timeout is {self.timeout!r}; expected seconds above 0")

    def pause(self, tries: int) -> float:
        """Return the seconds to wait after `tries` failed tries: full jitter, exponential."""
        return random.uniform(0, min(self.longest_pause, self.first_pause * 2 ** (tries - 1)))


@runtime_checkable
class Signer(Protocol):
    """Makes an address ready to be asked for; the answer is used at once and kept nowhere."""

    def url(self, href: str, *, is_retry: bool) -> tuple[str, dict[str, str]]:
        """Return (address, headers); `is_retry` after a refusal: do not take an old signature."""
        ...


class Unsigned:
    """The signer of public files."""

    def url(self, href: str, *, is_retry: bool) -> tuple[str, dict[str, str]]:
        """Return the address as it is; raises `InputError` for one of an S3 store."""
        if not is_http(href):
            raise InputError(f"{href} lies in an S3 store; set access = 's3' or 's3-cdse'")
        return href, {}


@dataclass(kw_only=True)
class Meter:
    """Counts what was asked for over the network, failed tries included; shared by threads."""

    requests: int = 0
    """Requests that were sent."""
    received: int = 0
    """Bytes of bodies that arrived."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, received: int) -> None:
        """Count one request."""
        with self._lock:
            self.requests += 1
            self.received += received


TRAFFIC = Meter()
"""All requests of this process, for whoever does not count apart."""


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    """Fetches ranges of one kind of file."""

    patience: Patience = field(default_factory=Patience)
    """When to give up."""
    signer: Signer = field(default_factory=Unsigned)
    """Signs addresses when they are asked for."""
    meter: Meter = field(default_factory=lambda: TRAFFIC)
    """Where requests are counted."""
    sleep: Callable[[float], object] = time.sleep
    """Waits; tests do not."""

    def fetch(self, href: str, start: int, stop: int) -> bytes:
        """Return bytes `start`..`stop` (half-open) of a local or http(s) file.

        Raises `FileBrokenError`, also for a file that ends before `stop`, or
        `FileUnreachableError`.
        """
        found = self._fetched(href, start, stop).body
        if len(found) < stop - start:
            raise FileBrokenError(f"the file ends at byte {start + len(found)}, before {stop}")
        return found

    def head(self, href: str, size: int) -> tuple[bytes, int]:
        """Return the first `size` bytes, or all there are, and the file's length in bytes."""
        found = self._fetched(href, 0, size)
        return found.body, found.length

    def whole(self, href: str, *, most: int) -> bytes:
        """Return a whole file of at most `most` bytes; `FileBrokenError` for a longer one."""
        body, length = self.head(href, most)
        if length > most:
            raise FileBrokenError(f"the file has {length} bytes, more than {most}")
        return body

    def _fetched(self, href: str, start: int, stop: int) -> "_Bytes":
        if not is_fetched(href):
            return _local(href, start, stop)
        failures: list[str] = []
        is_denied = False
        while True:
            answer = self._try(href, start, stop, is_retry=is_denied)
            if isinstance(answer, _Bytes):
                return answer
            if answer.is_denied and not is_denied:
                is_denied = True
                continue
            failures.append(answer.reason)
            if answer.is_final:
                raise FileBrokenError(answer.reason)
            if len(failures) >= self.patience.attempts:
                raise FileUnreachableError(f"{answer.reason}, after {len(failures)} tries")
            if answer.wait > self.patience.longest_wait:
                raise FileUnreachableError(
                    f"{answer.reason}, and the server asks to wait {answer.wait:.0f} s"
                )
            self.sleep(max(answer.wait, self.patience.pause(len(failures))))

    def _try(self, href: str, start: int, stop: int, *, is_retry: bool) -> "_Bytes | _Failure":
        url, headers = self.signer.url(href, is_retry=is_retry)
        received = 0
        try:
            answer = _connections().request(
                "GET",
                url,
                headers={"Range": f"bytes={start}-{stop - 1}", **headers},
                timeout=urllib3.Timeout(
                    connect=min(15.0, self.patience.timeout), read=self.patience.timeout
                ),
                retries=urllib3.Retry(total=False, redirect=5),
                decode_content=False,
            )
            received = len(answer.data)
        except urllib3.exceptions.HTTPError as error:
            # without its text, which holds the address and so the signature
            return _Failure(reason=_REASONS.get(type(error), type(error).__name__))
        finally:
            self.meter.add(received)
        return _checked(answer, start, stop)


@dataclass(frozen=True, kw_only=True)
class _Bytes:
    body: bytes
    """What was asked for; less where the file ends."""
    length: int
    """Bytes of the whole file."""


@dataclass(frozen=True, kw_only=True)
class _Failure:
    reason: str
    is_final: bool = False
    is_denied: bool = False
    wait: float = 0.0
    """Seconds the server asks to wait."""


_REASONS = {
    urllib3.exceptions.ConnectTimeoutError: "no connection in time",
    urllib3.exceptions.ReadTimeoutError: "no answer in time",
    urllib3.exceptions.NewConnectionError: "connection refused",
    urllib3.exceptions.ProtocolError: "connection broken",
    urllib3.exceptions.IncompleteRead: "body cut short",
}


def _checked(answer: urllib3.BaseHTTPResponse, start: int, stop: int) -> _Bytes | _Failure:
    """Return the body if it is the range that was asked for, else what is wrong."""
    status, body = answer.status, answer.data
    if status == 206:
        found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if not found or int(found[1]) != start or len(body) != int(found[2]) - start + 1:
            return _Failure(reason="the answer is not the range that was asked for")
        length = int(found[3]) if found[3] != "*" else start + len(body)
        if len(body) != min(stop, length) - start:
            return _Failure(reason="body cut short")
        return _Bytes(body=body, length=length)
    if status == 200:
        if _is_page(answer, body):
            return _Failure(reason="HTTP 200 with a page instead of the file")
        if answer.headers.get("Content-Length") not in (None, str(len(body))):
            return _Failure(reason="body cut short")
        return _Bytes(
            body=body[start:stop], length=len(body)
        )  # a server without ranges sends all of it
    reason = f"HTTP {status}"
    if status in _DENIED:
        return _Failure(reason=reason, is_final=True, is_denied=True)
    if status in _TRANSIENT:
        return _Failure(reason=reason, wait=_retry_after(answer.headers.get("Retry-After")))
    return _Failure(reason=reason, is_final=True)


def _is_page(answer: urllib3.BaseHTTPResponse, body: bytes) -> bool:
    kind = answer.headers.get("Content-Type", "").lower()
    return kind.startswith(("text/html", "application/json")) or body[:64].lstrip()[:1] in (
        b"<",
        b"{",
    )


def _retry_after(text: str | None) -> float:
    """Return the seconds of a `Retry-After` header, a number or a date (RFC 9110, 10.2.3)."""
    if not text:
        return 0.0
    if text.strip().isdecimal():
        return float(text)
    date = email.utils.parsedate_tz(text)
    return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else 0.0


def is_fetched(href: str) -> bool:
    """Say whether `href` is asked for over the network; of `s3://` a signer makes an address."""
    return is_http(href) or href.startswith("s3://")


def is_http(href: str) -> bool:
    """Say whether `href` is fetched over HTTP(S)."""
    return urlsplit(href).scheme.lower() in ("http", "https")


def _local(href: str, start: int, stop: int) -> _Bytes:
    try:
        with Path(href).open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            return _Bytes(body=os.pread(file.fileno(), stop - start, start), length=length)
    except OSError as error:
        raise FileBrokenError(error.strerror or str(error)) from error


_pools: dict[int, urllib3.PoolManager] = {}


def _connections() -> urllib3.PoolManager:
    """Return this process's connections; a forked process makes its own."""
    pool = _pools.get(os.getpid())
    if pool is None:
        pool = _pools.setdefault(
            os.getpid(), urllib3.PoolManager(maxsize=_CONNECTIONS, num_pools=16)
        )
    return pool
