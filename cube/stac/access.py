"""A file's stored address in, one that opens and the headers it needs out: signed at the last moment.

Kinds: `none`; `planetary-computer`, a SAS token per container; `earthdata`, a bearer token; `s3` and
`s3-cdse`, a signature per request. Secrets come from the environment or the provider's own
package when they are needed; no object here holds one.
"""

import os
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from cube.errors import InputError, WorkFailedError
from cube.stac.href import without_query
from cube.stac.providers import ACCESS_KINDS, AccessKind, Provider
from cube.stac.s3 import (
    SCHEME,
    Store,
    check_credentials,
    signed_headers,
    store_of_environment,
)

_EARTHDATA_HOSTS = ("earthdata.nasa.gov", "earthdatacloud.nasa.gov")
"""Only these and hosts below them ever get the token."""

_CDSE_ENDPOINT = "eodata.dataspace.copernicus.eu"
_CDSE_KEYS = (
    "keys of the Copernicus Data Space are made at eodata-s3keysmanager.dataspace.copernicus.eu"
)

_TOKEN_TRIES = 5
"""Times the token server is asked, with growing pauses."""

_TOKEN_SPARE = 60.0
"""Seconds before its end at which the package renews a token."""

_RENEWAL = 10.0
"""Seconds in which a token is not renewed twice: the threads that an expired one failed come
together, and the first of them has brought a fresh one."""

_TOKEN_LIMIT = 60.0
"""Seconds that a file waits for its container's token. The package asks without any time-out."""

_BLOB_HOST = ".blob.core.windows.net"

_signing = threading.Lock()
_renewed: dict[str, float] = {}
_under_way: dict[str, "Future[Any]"] = {}
"""Requests for tokens by container: threads that start together wait for one."""


@runtime_checkable
class Access(Protocol):
    """How files of one provider are opened."""

    @property
    def kind(self) -> AccessKind:
        """Which of the kinds above."""
        ...

    def url(self, href: str, *, is_retry: bool) -> tuple[str, dict[str, str]]:
        """Return (address to open, HTTP headers to send) for a stored, unsigned `href`.

        With `is_retry` the last ones were refused: nothing that was kept is used again. Neither
        may be stored or shown. Raises `InputError` if credentials or a package are missing,
        `WorkFailedError` if they cannot be fetched.
        """
        ...

    def for_gdal(self, href: str) -> tuple[str, dict[str, str]]:
        """Return (address, GDAL options) for readers that let GDAL fetch; no option is secret.

        Raises `InputError` if credentials are missing, or must not be given to GDAL.
        """
        ...


def access_for(provider: Provider, kind: AccessKind | None = None) -> Access:
    """Return the access of `kind`, of None the one that the provider needs."""
    return access_of_kind(kind or provider.access)


def access_of_kind(kind: str) -> Access:
    """Return the access of a kind's name: what a worker makes of the name it was sent.

    Raises `InputError` for a name that is none.
    """
    if kind not in ACCESS_KINDS:
        raise InputError(f"access {kind!r} is unknown; expected one of {', '.join(ACCESS_KINDS)}")
    if kind == "planetary-computer":
        return PlanetaryComputerAccess()
    if kind == "earthdata":
        return EarthdataAccess()
    if kind in ("s3", "s3-cdse"):
        return S3Access(kind=kind)
    return PlainAccess()


@dataclass(frozen=True, kw_only=True)
class PlainAccess:
    """Files that anyone may read."""

    kind: AccessKind = "none"
    """Its name."""

    def url(self, href: str, *, is_retry: bool) -> tuple[str, dict[str, str]]:
        """Return `href` as it is; raises `InputError` for one of an S3 store."""
        if href.startswith(SCHEME):
            raise InputError(f"{href} lies in an S3 store; set access = 's3' or 's3-cdse'")
        return href, {}

    def for_gdal(self, href: str) -> tuple[str, dict[str, str]]:
        """Return `href` as it is."""
        return self.url(href, is_retry=False)


@dataclass(frozen=True, kw_only=True)
class PlanetaryComputerAccess:
    """Files of Planetary Computer, with a SAS token that the package `planetary-computer` fetches.

    It keeps one per container until a minute before its end; its settings come from PC_SDK_*.
    """

    kind: AccessKind = "planetary-computer"
    """Its name."""

    def url(self, href: str, *, is_retry: bool) -> tuple[str, dict[str, str]]:
        """Return a signed address; other hosts than Azure's stay as they are."""
        sas = _planetary_computer()
        parts = urlsplit(href)
        if not (parts.hostname or "").endswith(sas.BLOB_STORAGE_DOMAIN):
            return href, {}
        try:
            return str(_token(sas, href, is_retry=is_retry).sign(href).href), {}
        except TimeoutError:
            raise WorkFailedError(
                f"no token for {without_query(href)}: the token server of Planetary Computer has "
                f"not answered in {_TOKEN_LIMIT:g} s; try again later"
            ) from None
        except (OSError, ValueError, TypeError) as error:  # of requests and pydantic
            raise WorkFailedError(
                f"no token for {without_query(href)}: the token server of Planetary Computer "
                f"failed ({type(error).__name__}); try again later"
            ) from None

    def for_gdal(self, href: str) -> tuple[str, dict[str, str]]:
        """Return a signed address."""
        return self.url(href, is_retry=False)


def _planetary_computer() -> Any:
    try:
        import planetary_computer.sas  # optional, and a second to import
    except ImportError as error:
        raise InputError(
            "files of Planetary Computer need its package for signing; run "
            '`pip install "canopycube[planetary-computer]"`'
        ) from error
    return planetary_computer.sas


def _token(sas: Any, href: str, *, is_retry: bool) -> Any:
    """Return the package's token for the container of `href`, on a retry a new one.

    Raises what the package raises, and `TimeoutError` after `_TOKEN_LIMIT`.
    """
    key = _token_key(sas, href)
    with _signing:
        is_renewed = time.monotonic() - _renewed.get(key, -_RENEWAL) < _RENEWAL
        token = sas.TOKEN_CACHE.get(key)
        waited = _under_way.get(key)
        if waited is None:
            is_refused = is_retry and not is_renewed
            if token is not None and token.ttl() > _TOKEN_SPARE and not is_refused:
                return token
            if is_refused:
                sas.TOKEN_CACHE.pop(key, None)
            waited = _under_way[key] = Future()
            # a daemon, so that a request which hangs keeps no process from ending
            asking = (sas, href, key, waited, is_refused)
            threading.Thread(target=_ask, args=asking, daemon=True).start()
    try:
        return waited.result(timeout=_TOKEN_LIMIT)
    finally:
        with _signing:  # whoever comes next asks anew, even if that one hangs
            if _under_way.get(key) is waited:
                del _under_way[key]


def _ask(sas: Any, href: str, key: str, waited: "Future[Any]", is_renewal: bool) -> None:
    try:
        token = sas.get_token(*_container(href), retry_total=_TOKEN_TRIES)
    except BaseException as error:  # noqa: BLE001, raised by whoever waits
        waited.set_exception(error)
        return
    if is_renewal:
        _renewed[key] = time.monotonic()
    waited.set_result(token)


def _container(href: str) -> tuple[str, str]:
    """(account, container) of an address of Azure's blob storage."""
    parts = urlsplit(href)
    return (parts.hostname or "").partition(".")[0], parts.path.lstrip("/").partition("/")[0]


def _token_key(sas: Any, href: str) -> str:
    return "/".join((sas.Settings.get().sas_url, *_container(href)))


@dataclass(frozen=True, kw_only=True)
class EarthdataAccess:
    """Files of NASA's Earthdata cloud, with the bearer token in EARTHDATA_TOKEN."""

    kind: AccessKind = "earthdata"
    """Its name."""

    def url(self, href: str, *, is_retry: bool) -> tuple[str, dict[str, str]]:
        """Return `href` and, for NASA's hosts over https, the header with the token."""
        if not _is_earthdata(href):
            return href, {}
        return href, {"Authorization": f"Bearer {_from_environment('EARTHDATA_TOKEN')}"}

    def for_gdal(self, href: str) -> tuple[str, dict[str, str]]:
        """Return `href` as it is; raises `InputError` for NASA's hosts.

        GDAL_HTTP_HEADERS would go to whatever host a file or a redirect names.
        """
        if _is_earthdata(href):
            raise InputError(
                f"{href} needs a token, which is not given to GDAL; use reader = 'direct'"
            )
        return href, {}


@dataclass(frozen=True, kw_only=True)
class S3Access:
    """Files of an S3 store, each request signed with the keys in the environment.

    AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and where they are needed AWS_SESSION_TOKEN,
    AWS_S3_ENDPOINT, AWS_REGION, AWS_HTTPS, AWS_VIRTUAL_HOSTING, AWS_REQUEST_PAYER; with
    AWS_NO_SIGN_REQUEST=YES nothing is signed.
    """

    kind: AccessKind = "s3"
    """`s3`, or `s3-cdse` for the store of the Copernicus Data Space."""

    def url(self, href: str, *, is_retry: bool) -> tuple[str, dict[str, str]]:
        """Return the store's address of `s3://bucket/key` and signed headers; others stay."""
        if not href.startswith(SCHEME):
            return href, {}
        store = self._store()
        address = store.address(href)
        return address, signed_headers(address, region=store.region)

    def for_gdal(self, href: str) -> tuple[str, dict[str, str]]:
        """Return GDAL's name of the file and where the store is; it finds the keys itself."""
        if not href.startswith(SCHEME):
            return href, {}
        return f"/vsis3/{href.removeprefix(SCHEME)}", self._store().gdal_options()

    def _store(self) -> Store:
        is_cdse = self.kind == "s3-cdse"
        check_credentials(hint=_CDSE_KEYS if is_cdse else "")
        return store_of_environment(endpoint=_CDSE_ENDPOINT if is_cdse else None)


def is_protected(href: str) -> bool:
    """Say whether a refusal of `href` is about credentials, not about the file."""
    is_blob = (urlsplit(href).hostname or "").endswith(_BLOB_HOST)  # 403 though signed anew
    return href.startswith(SCHEME) or _is_earthdata(href) or is_blob


def _is_earthdata(href: str) -> bool:
    parts = urlsplit(href)
    host = parts.hostname or ""
    is_nasa = any(host == name or host.endswith(f".{name}") for name in _EARTHDATA_HOSTS)
    return parts.scheme == "https" and is_nasa


def _from_environment(name: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value or any(ord(letter) < 32 for letter in value):
        raise InputError(f"these files need credentials; set the environment variable {name}")
    return value
