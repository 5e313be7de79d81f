"""Whom to ask, how many requests at once and how patiently: small, picklable, without a secret."""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from cube.errors import InputError
from cube.patience import Patience

HIGH_VOLUME = "https://earthengine-highvolume.googleapis.com"
"""Earth Engine's address for many requests that programs make.

https://developers.google.com/earth-engine/guides/highvolume"""

PATIENCE = Patience(timeout=360.0, longest_wait=300.0)
"""Earth Engine computes for up to five minutes before its first byte, and then says itself that the
time is up: a shorter time-out would ask for the same work again while it is still under way."""

_GOOGLE = "googleapis.com"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

_PROJECT = re.compile(r"(?:[a-z0-9][-a-z0-9.]*\.[a-z]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]|[0-9]{6,20}")
"""Id (with its organisation's domain in older ones) or number of a Google Cloud project."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """What a worker needs to know to ask Earth Engine; its credentials it finds by itself."""

    project: str | None = None
    """Google Cloud project that pays; None for that of the environment or of the credentials."""
    endpoint: str = HIGH_VOLUME
    """Address without a path: https under googleapis.com, or a server on this machine, which gets
    no credentials."""
    requests_at_once: int = 20
    """Requests under way at once at most, in each process. Projects may have 40 together."""
    patience: Patience = PATIENCE
    """When to give up."""

    def __post_init__(self) -> None:
        if self.project is not None:
            check_project(self.project, source="project")
        if self.requests_at_once < 1:
            raise InputError(
                f"requests_at_once is {self.requests_at_once!r}; expected 1 or more (Earth Engine "
                "lets most projects have 40)"
            )
        if not (is_google(self.endpoint) or is_loopback(self.endpoint)) or _has_more(self.endpoint):
            raise InputError(
                f"Earth Engine endpoint {_shown(self.endpoint)!r} is none that credentials may be "
                f"sent to; expected {HIGH_VOLUME!r} or another https address under {_GOOGLE}, "
                "without a path"
            )

    @property
    def is_local(self) -> bool:
        """Whether the endpoint is a server on this machine, which is asked without credentials."""
        return is_loopback(self.endpoint)


def check_project(project: str, *, source: str) -> str:
    """Return `project`; `InputError` naming `source` if it cannot be a Google Cloud project."""
    if not _PROJECT.fullmatch(project):
        raise InputError(
            f"{source} {project[:80]!r} is no id of a Google Cloud project; expected one like "
            "'my-project-123'"
        )
    return project


def is_google(url: str) -> bool:
    """Say whether `url` is https at a host under googleapis.com: credentials may be sent there."""
    parts = _parts(url)
    return (
        parts is not None
        and parts.scheme == "https"
        and (parts.hostname or "").endswith(f".{_GOOGLE}")
        and parts.username is None
        and parts.password is None
        and parts.port in (None, 443)
    )


def is_loopback(url: str) -> bool:
    """Say whether `url` is http(s) at this machine."""
    parts = _parts(url)
    return (
        parts is not None
        and parts.scheme in ("http", "https")
        and parts.hostname in _LOOPBACK
        and parts.username is None
        and parts.password is None
    )


def _parts(url: str) -> SplitResult | None:
    # parsers of addresses differ on these, and a host that two read differently is no host
    if not url.isascii() or any(letter <= " " or letter == "\\" for letter in url):
        return None
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018, raises for one that is no number
    except ValueError:
        return None
    return parts


def _has_more(url: str) -> bool:
    """Say whether an address has a path, a query or a fragment."""
    return url.partition("://")[2] != urlsplit(url).netloc


def _shown(url: str) -> str:
    """Return an address without what may be secret in it: user name, query, fragment."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('?')[0].partition('#')[0].rpartition('@')[2]}"[:120]
