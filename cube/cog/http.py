"""One request for a range of bytes in, exactly that range or what is wrong with the answer out."""

import os
import re
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urljoin, urlsplit

import urllib3

_TRANSIENT = {408, 425, 429, *range(500, 600)}
"""HTTP statuses that another try may change (RFC 9110, RFC 6585, RFC 8470)."""

_DENIED = {401, 403}
"""Statuses of a signature that has run out: signed anew once, then final."""

_REDIRECTS = {301, 302, 303, 307, 308}
_MOST_REDIRECTS = 5

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

_WHOLE = 4 * 1024 * 1024
"""Bytes of a file that is taken whole from a server that knows no ranges; more would have to be
sent for each of many ranges."""

_CHUNK = 256 * 1024

_LONGEST = 10
"""Times the time-out that one answer may take in all: a server that sends a byte now and then is
none that works."""

_CONNECTIONS = 32
"""Kept open for each server; more threads than that would open and close their own."""


@dataclass(frozen=True, kw_only=True)
class RangeBytes:
    """A range that arrived."""

    body: bytes
    """What was asked for; less where the file ends."""
    length: int
    """Bytes of the whole file."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A request that brought nothing."""

    reason: str
    """One clause, without the address."""
    is_final: bool = False
    """Whether another try would end alike."""
    is_denied: bool = False
    """Whether another signature may help."""
    wait: float = 0.0
    """Seconds the server asks to wait."""


class _TooSlowError(Exception):
    """An answer that goes on for ever."""


def ask_range(
    url: str, headers: dict[str, str], start: int, stop: int, *, timeout: float
) -> tuple[RangeBytes | Failure, int]:
    """Ask once for bytes `start`..`stop`; return what came, and how many bytes of bodies that were.

    Redirects are followed to http and https, from https to https alone, and what `headers` say
    goes to the first server only: they may hold a credential. `timeout` is in seconds without a
    byte; the whole answer may take ten times as long.
    """
    received = 0
    deadline = time.monotonic() + _LONGEST * timeout
    try:
        for _ in range(_MOST_REDIRECTS + 1):
            answer = connections(url).request(
                "GET",
                url,
                headers={**headers, "Range": f"bytes={start}-{stop - 1}"},
                timeout=urllib3.Timeout(connect=min(15.0, timeout), read=timeout),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            target = answer.headers.get("Location")
            if answer.status in _REDIRECTS and target:
                answer.drain_conn()
                answer.release_conn()
                following = urljoin(url, target)
                if not _may_follow(url, following):
                    return Failure(reason=f"HTTP {answer.status} to no https", is_final=True), 0
                if urlsplit(following).netloc != urlsplit(url).netloc:
                    headers = {}
                url = following
                continue
            body = _body(answer, _most(answer, start, stop), deadline)
            received = 0 if body is None else len(body)
            return _checked(answer, body, start, stop), received
    except _TooSlowError:
        return Failure(reason="the answer takes too long"), received
    except urllib3.exceptions.HTTPError as error:
        # without its text, which holds the address and so the signature
        return Failure(reason=_REASONS.get(type(error), type(error).__name__)), received
    return Failure(reason="too many redirects", is_final=True), received


_REASONS = {
    urllib3.exceptions.ConnectTimeoutError: "no connection in time",
    urllib3.exceptions.ReadTimeoutError: "no answer in time",
    urllib3.exceptions.NewConnectionError: "connection refused",
    urllib3.exceptions.ProtocolError: "connection broken",
    urllib3.exceptions.IncompleteRead: "body cut short",
}


def _may_follow(url: str, following: str) -> bool:
    before, after = (urlsplit(one).scheme.lower() for one in (url, following))
    return after == "https" or (after == "http" and before == "http")


def _most(answer: urllib3.BaseHTTPResponse, start: int, stop: int) -> int:
    """Return how many bytes of a body are taken at most."""
    if answer.status == 206:
        return stop - start
    if answer.status == 200:
        return max(stop, _WHOLE) if start == 0 else _WHOLE
    return 64 * 1024


def _body(answer: urllib3.BaseHTTPResponse, most: int, deadline: float) -> bytes | None:
    """Read a body of at most `most` bytes; None for a longer one, which is left."""
    told = answer.headers.get("Content-Length", "")
    if told.isdecimal() and int(told) > most:
        answer.close()
        return None
    parts: list[bytes] = []
    size = 0
    for part in answer.stream(_CHUNK):
        parts.append(part)
        size += len(part)
        if size > most:
            answer.close()
            return None
        if time.monotonic() > deadline:
            answer.close()
            raise _TooSlowError
    answer.release_conn()
    return b"".join(parts)


def _checked(
    answer: urllib3.BaseHTTPResponse, body: bytes | None, start: int, stop: int
) -> RangeBytes | Failure:
    """Return the body if it is the range that was asked for, else what is wrong."""
    status = answer.status
    if status == 206:
        return _partial(answer, body, start, stop)
    if status == 200:
        if body is None:
            return Failure(reason="the server sends whole files instead of ranges", is_final=True)
        if _is_page(answer, body):
            return Failure(reason="HTTP 200 with a page instead of the file")
        if answer.headers.get("Content-Length") not in (None, str(len(body))):
            return Failure(reason="body cut short")
        return RangeBytes(body=body[start:stop], length=len(body))
    reason = f"HTTP {status}"
    if status in _DENIED:
        return Failure(reason=reason, is_final=True, is_denied=True)
    if status in _TRANSIENT:
        return Failure(
            reason=reason, wait=retry_after(answer.headers.get("Retry-After", ""), now=time.time())
        )
    return Failure(reason=reason, is_final=True)


def _partial(
    answer: urllib3.BaseHTTPResponse, body: bytes | None, start: int, stop: int
) -> RangeBytes | Failure:
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if (
        body is None
        or not found
        or int(found[1]) != start
        or len(body) != int(found[2]) - start + 1
    ):
        return Failure(reason="the answer is not the range that was asked for")
    length = int(found[3]) if found[3] != "*" else start + len(body)
    if len(body) != min(stop, length) - start:
        return Failure(reason="body cut short")
    return RangeBytes(body=body, length=length)


def _is_page(answer: urllib3.BaseHTTPResponse, body: bytes) -> bool:
    """Say whether a server that is in trouble has sent a page, or a message, with status 200."""
    kind = answer.headers.get("Content-Type", "").lower()
    begin = body[:64].lstrip().lower()
    return kind.startswith(("text/html", "application/json")) or begin.startswith(
        (b"<!doctype html", b"<html", b"{")
    )


def retry_after(told: str, *, now: float) -> float:
    """Return the seconds of a `Retry-After` header, a number or a date (RFC 9110, 10.2.3).

    `now` is in seconds since 1970; 0 for a header that is not there or says nothing.
    """
    if told.strip().isdecimal():
        return float(told)
    with suppress(ValueError, TypeError, OverflowError):  # no date either
        return max(parsedate_to_datetime(told).timestamp() - now, 0.0)
    return 0.0


_pools: dict[tuple[int, str], urllib3.PoolManager] = {}


def connections(url: str) -> urllib3.PoolManager:
    """Return this process's connections; a forked process makes its own.

    Proxies are those of the environment (`HTTPS_PROXY`, `NO_PROXY`), as GDAL and requests take them.
    """
    proxy = _proxy(url)
    key = (os.getpid(), proxy)
    pool = _pools.get(key)
    if pool is None:
        options: dict[str, Any] = {"maxsize": _CONNECTIONS, "num_pools": 16}
        made = urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
        pool = _pools.setdefault(key, made)
    return pool


_PROXY_VARIABLES = tuple(
    name
    for word in ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    for name in (word, word.upper())
)


def _proxy(url: str) -> str:
    parts = urlsplit(url)
    environment = tuple(os.environ.get(name) for name in _PROXY_VARIABLES)
    return _proxy_of(parts.scheme, parts.netloc, environment)


@lru_cache(maxsize=64)
def _proxy_of(scheme: str, netloc: str, environment: tuple[str | None, ...]) -> str:
    """Return the proxy for a server; `environment` is what the answer rests on."""
    proxies = urllib.request.getproxies()  # a quarter of a millisecond
    proxy = proxies.get(scheme, proxies.get("all", ""))
    if not proxy or urllib.request.proxy_bypass(netloc):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"
