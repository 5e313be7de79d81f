"""An address and a range of bytes in, exactly these bytes out: retried, checked, counted.

A range that arrives is the range that was asked for, or an error. What servers do when they are
overloaded (429, 5xx, a closed connection, half a body, a page of HTML with status 200) is asked for
again after a growing, random pause; what will not change (404, a file that is too short) is not.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

from cube.cog.errors import FileBrokenError, FileUnreachableError
from cube.cog.http import Failure, RangeBytes, ask_range
from cube.errors import InputError
from cube.patience import STOPPED, Patience


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
    sleep: Callable[[float], object] = field(default_factory=lambda: STOPPED.wait)
    """Waits; tests do not."""

    def fetch(self, href: str, start: int, stop: int, *, length: int | None = None) -> bytes:
        """Return bytes `start`..`stop` (half-open) of a local or http(s) file.

        Raises `FileBrokenError`, also for a file that ends before `stop` or is not of the `length`
        that its header was read from, or `FileUnreachableError`.
        """
        answer = self._fetched(href, start, stop)
        found = answer.body
        if length not in (None, answer.length):
            raise FileBrokenError(
                f"the file has {answer.length} bytes and had {length}: another came into its place"
            )
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

    def _fetched(self, href: str, start: int, stop: int) -> RangeBytes:
        if not is_fetched(href):
            return _local(href, start, stop)
        failures: list[str] = []
        is_denied = False
        while True:
            if STOPPED.is_set():
                raise FileUnreachableError("the run was stopped")
            answer = self._try(href, start, stop, is_retry=is_denied)
            if isinstance(answer, RangeBytes):
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

    def _try(self, href: str, start: int, stop: int, *, is_retry: bool) -> RangeBytes | Failure:
        url, headers = self.signer.url(href, is_retry=is_retry)
        answer, received = ask_range(url, headers, start, stop, timeout=self.patience.timeout)
        self.meter.add(received)
        return answer


def is_fetched(href: str) -> bool:
    """Say whether `href` is asked for over the network; of `s3://` a signer makes an address."""
    return is_http(href) or href.startswith("s3://")


def is_http(href: str) -> bool:
    """Say whether `href` is fetched over HTTP(S)."""
    return urlsplit(href).scheme.lower() in ("http", "https")


def _local(href: str, start: int, stop: int) -> RangeBytes:
    try:
        with Path(href).open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            body = os.pread(file.fileno(), stop - start, start)
            return RangeBytes(body=body, length=length)
    except OSError as error:
        raise FileBrokenError(error.strerror or str(error)) from error
