"""Addresses of a catalogue in, its JSON out: paced, repeated where that helps, bounded.

Known of real catalogues: pages of HTML with status 200 from a gateway, JSON that ends half-way,
429 with and without Retry-After, pages that repeat.
"""

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
from pystac.link import Link
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO

from cube.cog.http import retry_after
from cube.errors import InputError, WorkFailedError
from cube.stac.href import is_remote, without_query

_PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Status codes after which the same request may succeed."""

_LARGEST = 256 * 2**20
"""Bytes of one answer; a page of 1,000 items with every link takes about 30 MB."""

_LONGEST = 300.0
"""Seconds one answer may take from its first to its last byte."""

_MOST_EMPTY = 3
"""Pages without an item in a row after which an API is at its end, whatever it says."""


@dataclass(frozen=True, kw_only=True)
class SearchPatience:
    """How long a catalogue is asked again, and how often; the functions are for tests."""

    tries: int = 10
    """Times one request is sent. With half of all answers broken one page in a thousand fails."""
    tries_of_front: int = 5
    """The same as long as nothing of the catalogue was JSON: then the address may be wrong."""
    first_pause: float = 0.5
    """Seconds; the pause before try n+1 is drawn from 0 to this times 2**(n-1) (full jitter, so that
    many clients do not come back at once)."""
    longest_pause: float = 30.0
    """Seconds that doubling ends at."""
    longest_retry_after: float = 300.0
    """Seconds a server may ask to wait; for more the search fails and says so."""
    timeout: float = 60.0
    """Seconds without a byte after which a request counts as lost."""
    most_pages: int = 4000
    """Pages of one search: a million items at 250 a page."""
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    """Waits."""
    clock: Callable[[], float] = field(default=time.time, repr=False)
    """Seconds since 1970."""
    draw: Callable[[], float] = field(default=random.random, repr=False)
    """A number from 0 to 1."""

    def pause(self, tries: int) -> float:
        """Return the seconds to wait after so many tries."""
        return self.draw() * min(self.first_pause * 2.0 ** (tries - 1), self.longest_pause)


class NotJsonError(Exception):
    """An answer with a good status that is no JSON object."""


class _PassingError(Exception):
    """An answer that the next try may mend."""

    def __init__(self, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.wait = wait


class CatalogueIO(StacApiIO):
    """Reads one catalogue; one from the network may not lead to files of this machine."""

    def __init__(self, root: str, *, requests_per_second: float, patience: SearchPatience) -> None:
        super().__init__(timeout=patience.timeout, max_retries=None)
        self._root = root
        self._interval = 1.0 / requests_per_second
        self._patience = patience
        self._next_turn = 0.0
        self._has_json = False

    def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
        """Return what lies at an address or link; raises as `request`, and `OSError` for a file."""
        href = source.absolute_href if isinstance(source, Link) else str(source)
        if is_remote(self._root) and not is_remote(href):
            raise InputError(f"the catalogue leads to {href!r}, which is not of the network")
        return str(super().read_text(source, *args, **kwargs))

    def json_loads(self, txt: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read JSON with the standard library: other parsers refuse a page for one odd text."""
        return dict(json.loads(txt))

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """Return the JSON text at an address, asked again as `SearchPatience` allows.

        Raises `WorkFailedError` if no try succeeds, `NotJsonError` if the answer stays no JSON
        object, `InputError` for a refusal (4xx) at the catalogue's own address, `APIError` for
        another status that will stay.
        """
        patience = self._patience
        for tries in range(1, patience.tries + 1):
            self._wait_turn()
            is_last = tries == patience.tries
            try:
                text = self._text(href, (method or "GET").upper(), headers, parameters)
            except _PassingError as error:
                if is_last:
                    raise WorkFailedError(
                        f"{without_query(href)} does not answer: tried {tries} times, "
                        f"the last time {error}"
                    ) from error
                patience.sleep(max(self._allowed(href, error.wait), patience.pause(tries)))
                continue
            if _is_object(text):
                self._has_json = True
                return text
            if is_last or (not self._has_json and tries >= patience.tries_of_front):
                break
            patience.sleep(patience.pause(tries))
        raise NotJsonError(f"{without_query(href)} answers {text[:60]!r}")

    def get_pages(
        self, url: str, method: str | None = None, parameters: dict[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield the pages of a search that hold items; raises as `request`.

        Also `WorkFailedError` for an API that repeats a page, pages for ever, or answers no page.
        """
        seen: set[str] = set()
        empty = 0
        page = self.read_json(url, method=method, parameters=parameters)
        for _ in range(self._patience.most_pages):
            names = _names(page, url)
            if names and not names - seen:
                raise WorkFailedError(
                    f"{without_query(url)} repeats a page of {len(names)} items after "
                    f"{len(seen)}; try again, or another catalogue"
                )
            seen |= names
            empty = 0 if names else empty + 1
            if names:
                yield page
            following = _next_link(page)
            if following is None or empty == _MOST_EMPTY:
                return
            page = self.read_json(Link.from_dict(following), parameters=parameters)
        raise WorkFailedError(
            f"{without_query(url)} has given {self._patience.most_pages} pages and has more; ask "
            "for a smaller area or fewer months"
        )

    def _wait_turn(self) -> None:
        now = self._patience.clock()
        # a clock that was set back must not stop the search
        wait = min(max(self._next_turn - now, 0.0), self._interval)
        if wait:
            self._patience.sleep(wait)
        self._next_turn = now + wait + self._interval

    def _text(
        self,
        href: str,
        method: str,
        headers: dict[str, str] | None,
        parameters: dict[str, Any] | None,
    ) -> str:
        """Send one request; `_PassingError` for what may mend, `APIError` for what will not."""
        content = {"json": parameters} if method == "POST" else {"params": parameters or {}}
        limit = self._patience.timeout  # `Client.open` resets the one of the base class to none
        try:
            with self.session.request(
                method, href, headers=headers, timeout=limit, stream=True, **content
            ) as answer:
                body = self._body(answer, href)
                status, wait = answer.status_code, answer.headers.get("Retry-After", "")
        except requests.exceptions.SSLError as error:  # a certificate stays what it is
            raise APIError(_plain(error)) from error
        except (
            requests.exceptions.Timeout,
            requests.exceptions.ConnectionError,
            requests.exceptions.ChunkedEncodingError,
            requests.exceptions.ContentDecodingError,
        ) as error:
            raise _PassingError(f"{type(error).__name__}: {_plain(error)}") from error
        except requests.exceptions.RequestException as error:
            raise APIError(_plain(error)) from error
        text = body.decode("utf-8", errors="replace")
        if status in _PASSING:
            raise _PassingError(f"HTTP {status}", retry_after(wait, now=self._patience.clock()))
        if not 200 <= status < 300:
            if 400 <= status < 500 and href == self._root:
                raise InputError(
                    f"catalogue {without_query(href)} answers HTTP {status}: {text[:200]!r}; look "
                    "whether the address is that of a catalogue which anyone may read"
                )
            failure = APIError(f"HTTP {status}: {text[:200]}")
            failure.status_code = status
            raise failure
        return text

    def _body(self, answer: requests.Response, href: str) -> bytes:
        began = self._patience.clock()
        body = bytearray()
        for part in answer.iter_content(1 << 20):
            body += part
            if len(body) > _LARGEST:
                raise WorkFailedError(
                    f"{without_query(href)} answers more than {_LARGEST >> 20} MB; no page is that "
                    "large"
                )
            if self._patience.clock() - began > _LONGEST:
                raise _PassingError(f"an answer that took more than {_LONGEST:.0f} s")
        return bytes(body)

    def _allowed(self, href: str, wait: float) -> float:
        if wait > self._patience.longest_retry_after:
            raise WorkFailedError(
                f"{without_query(href)} asks to wait {wait:.0f} s, longer than the "
                f"{self._patience.longest_retry_after:.0f} s that a search waits; try again later"
            )
        return wait


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _names(page: Mapping[str, Any], url: str) -> set[str]:
    """Return what tells the items of a page from others."""
    features = page.get("features")
    if not isinstance(features, list) or not all(isinstance(one, dict) for one in features):
        raise WorkFailedError(
            f"{without_query(url)} answers no page of items: {json.dumps(page)[:200]}"
        )
    return {json.dumps([item.get("collection"), item.get("id")]) for item in features}


def _next_link(page: Mapping[str, Any]) -> dict[str, Any] | None:
    links = page.get("links")
    found = links if isinstance(links, list) else []
    return next((ln for ln in found if isinstance(ln, dict) and ln.get("rel") == "next"), None)


def _plain(error: Exception) -> str:
    """Return what a library says, without the query of any address in it."""
    text = str(error)
    return " ".join(part.partition("?")[0] for part in text.split())[:200]
