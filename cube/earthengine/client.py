"""Calls of the Earth Engine client library in, each sent by the session that makes it.

The client keeps one address, project and transport for the whole process. It is given a transport
that looks up which session is calling, so that several sessions work side by side, in any thread.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from cube.earthengine.installed import ee, httplib2

_PROJECT = "project-of-the-session"
"""What the client is told; the transport puts the session's project in its place."""


@runtime_checkable
class Sender(Protocol):
    """Sends a request of the client to Earth Engine."""

    def send(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> tuple[dict[str, str], bytes]:
        """Return headers and content of a right answer; raises for any other.

        `path` starts with a slash and goes to the end of the query.
        """
        ...

    @property
    def project(self) -> str:
        """The project that pays."""
        ...


_calling: ContextVar[Sender | None] = ContextVar("calling", default=None)
_others: list[Sender] = []
_preparing = threading.Lock()


@contextmanager
def calls_through(sender: Sender) -> Iterator[None]:
    """Send what the client is called for inside, by this thread, through `sender`."""
    token = _calling.set(sender)
    try:
        yield
    finally:
        _calling.reset(token)


def prepare(others: Sender) -> None:
    """Initialise the client, inside `calls_through`; once per process, and if others did it since.

    What the process asks of the client outside of any session (a notebook, say) goes through
    `others`. Raises what the sender raises; then the next call tries again.
    """
    with _preparing:
        if _others and ee.data._get_state().http_transport is _ROUTER:
            return
        # or each start would fetch a list of deprecated assets from another server, without time-out
        assets: dict[str, Any] = ee.deprecation.deprecated_assets
        assets.setdefault("", None)
        ee.data.setMaxRetries(0)  # the client's own hide what servers say in Retry-After
        _others[:] = [others]
        try:
            ee.Initialize(credentials=None, project=_PROJECT, http_transport=_ROUTER)
        except BaseException:
            _others.clear()
            raise


class _Router:
    """What the client takes for an `httplib2.Http`."""

    def request(
        self,
        uri: str,
        method: str = "GET",
        body: str | bytes | None = None,
        headers: dict[str, str] | None = None,
        **_unused: Any,
    ) -> tuple[Any, bytes]:
        sender = _calling.get() or _others[0]
        parts = urlsplit(uri)
        project = f"projects/{sender.project}"
        path = parts.path.replace(f"projects/{_PROJECT}", project)
        query = f"?{parts.query}" if parts.query else ""
        content = body.encode() if isinstance(body, str) else body
        found, answer = sender.send(method, path + query, dict(headers or {}), content)
        return httplib2.Response({**found, "status": 200}), answer

    def close(self) -> None:
        """Hold nothing that would have to be closed."""


_ROUTER = _Router()
