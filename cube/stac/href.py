"""Hrefs of an item in, addresses that may be opened out: resolved, unsigned, never hostile."""

import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urljoin, urlsplit, urlunsplit

from cube.errors import InputError

_URL_QUERY = re.compile(r"\?[^\s'\"]*")

_REMOTE = ("http", "https", "s3")

_SIGNATURES = {"sig", "x-amz-signature", "signature", "x-goog-signature", "token", "access_token"}
"""Query keys that mark a signed address: Azure SAS, AWS, Google, and plain tokens."""


def is_remote(href: str) -> bool:
    """Say whether `href` is an address of the network."""
    return urlsplit(href).scheme.lower() in _REMOTE


def resolved_href(href: str, *, base: str | None, owner: str) -> str:
    """Return `href` made absolute against `base`, the address of the document that holds it.

    Local files are allowed only where `base` is one: a document from the network that points to a
    file of this machine is refused, and so is any scheme but http, https, s3 and file, and any of
    GDAL's virtual paths. A signature in the query is cut off; a user name or password in the
    address is refused, for it would be stored. `owner` names the item and asset in the
    `InputError`.
    """
    if not href or any(ord(letter) < 32 for letter in href):
        raise InputError(f"{owner} has the address {href!r}, which is none")
    if is_remote(href):
        return _unsigned(href, owner)
    if base is not None and is_remote(base) and not _is_local(href):
        return _unsigned(urljoin(base, href), owner)
    scheme = urlsplit(href).scheme.lower()
    if base is None or is_remote(base):
        raise InputError(f"{owner} points to {_short(href)}; a catalogue may not name local files")
    if scheme == "file":
        href = unquote(urlsplit(href).path)
    elif scheme or href.startswith(("/vsi", "<", "\\\\")):
        raise InputError(
            f"{owner} points to {_short(href)}; only https, s3 and plain files are read"
        )
    path = os.path.normpath(Path(base).parent / href)
    if path.startswith("/vsi"):
        raise InputError(
            f"{owner} points to {_short(href)}; only https, s3 and plain files are read"
        )
    return path


def without_query(href: str) -> str:
    """Return an address as it may be shown: no query, no fragment, no user name."""
    if not is_remote(href):
        return href
    parts = urlsplit(href)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def without_queries(text: str) -> str:
    """Return a message without the query of any address in it, which may hold a signature."""
    return _URL_QUERY.sub("", text)


def _is_local(href: str) -> bool:
    return bool(urlsplit(href).scheme) or href.startswith(("/vsi", "<", "\\\\"))


def _unsigned(href: str, owner: str) -> str:
    parts = urlsplit(href)
    if parts.scheme.lower() not in _REMOTE:
        raise InputError(
            f"{owner} points to {_short(href)}; only https, s3 and plain files are read"
        )
    if "@" in parts.netloc:
        raise InputError(f"{owner}: the address carries a user name; give credentials otherwise")
    keys = {key.lower() for key, _ in parse_qsl(parts.query, keep_blank_values=True)}
    query = "" if keys & _SIGNATURES else parts.query
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def _short(href: str) -> str:
    return repr(href if len(href) <= 80 else href[:77] + "...")
