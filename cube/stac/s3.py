"""`s3://bucket/key` and the environment in, the store's address and a signed request's headers out.

Signature of version 4, in the header, over an unsigned empty body:
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
The environment variables are those that GDAL reads too, with its meaning of them.
"""

import hashlib
import hmac
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from cube.errors import InputError

SCHEME = "s3://"

_AWS = "s3.amazonaws.com"
_NO_BODY = hashlib.sha256(b"").hexdigest()
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@dataclass(frozen=True, kw_only=True)
class Store:
    """Where an S3 store is; nothing of it is secret."""

    endpoint: str
    """Host, with a port if it has one."""
    scheme: str
    """`https` or `http`."""
    region: str
    """Region that requests are signed for; stores other than Amazon's take any."""
    is_virtual: bool
    """Whether the bucket is part of the host's name instead of the path."""

    def address(self, href: str) -> str:
        """Return the http(s) address of `s3://bucket/key`; keys are taken letter by letter.

        Raises `InputError` for an address without bucket or key.
        """
        bucket, _, key = href.removeprefix(SCHEME).partition("/")
        if not href.startswith(SCHEME) or not bucket or not key or set(bucket) & set("@:?#\\%"):
            raise InputError(f"address {href!r} is none of an S3 store; expected s3://bucket/key")
        path = quote(key, safe="/-_.~")
        if self.is_virtual and "." not in bucket:  # no certificate is for a.b.s3.amazonaws.com
            return f"{self.scheme}://{bucket}.{self.endpoint}/{path}"
        return f"{self.scheme}://{self.endpoint}/{bucket}/{path}"

    def gdal_options(self) -> dict[str, str]:
        """Return the store as options of GDAL."""
        return {
            "AWS_S3_ENDPOINT": self.endpoint,
            "AWS_HTTPS": "YES" if self.scheme == "https" else "NO",
            "AWS_VIRTUAL_HOSTING": "TRUE" if self.is_virtual else "FALSE",
            "AWS_REGION": self.region,
        }


def store_of_environment(*, endpoint: str | None) -> Store:
    """Return the store that AWS_S3_ENDPOINT names, else the one at `endpoint`, else Amazon's.

    Raises `InputError` for an endpoint that is no host.
    """
    region = _told("AWS_REGION") or _told("AWS_DEFAULT_REGION") or "us-east-1"
    amazon = _AWS if region == "us-east-1" else f"s3.{region}.amazonaws.com"
    given = _told("AWS_S3_ENDPOINT") or endpoint or amazon
    scheme, _, host = given.rpartition("://")
    host = host.rstrip("/")
    if scheme not in ("", "http", "https") or not host or urlsplit(f"//{host}").netloc != host:
        raise InputError(f"AWS_S3_ENDPOINT is {given!r}; expected a host such as {_AWS!r}")
    if "@" in host:
        raise InputError("AWS_S3_ENDPOINT carries a user name; expected a host and nothing else")
    return Store(
        endpoint=host,
        scheme=scheme or ("https" if _is_on("AWS_HTTPS", default=True) else "http"),
        region=region,
        is_virtual=_is_on("AWS_VIRTUAL_HOSTING", default=host == amazon),
    )


def check_credentials(*, hint: str = "") -> None:
    """Raise `InputError` if the environment has no keys and does not say that none are needed."""
    missing = [name for name in _KEYS if not _told(name)]
    if missing and is_signed():
        raise InputError(
            f"files of an S3 store need credentials; set the environment variable"
            f"{'s' if len(missing) > 1 else ''} {' and '.join(missing)}\n"
            f"({hint or 'for buckets that anyone may read, AWS_NO_SIGN_REQUEST=YES'})"
        )


def is_signed() -> bool:
    """Say whether requests are signed: not where AWS_NO_SIGN_REQUEST is set."""
    return not _is_on("AWS_NO_SIGN_REQUEST", default=False)


def signed_headers(address: str, *, region: str, now: datetime | None = None) -> dict[str, str]:
    """Return the headers with which `address` is asked for, signed with the environment's keys.

    A range may be added: it is not signed. They hold for 15 minutes and are for one request.
    """
    parts = urlsplit(address)
    time = f"{now or datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    headers = {"x-amz-content-sha256": _NO_BODY, "x-amz-date": time}
    if _told("AWS_REQUEST_PAYER"):
        headers["x-amz-request-payer"] = _told("AWS_REQUEST_PAYER")
    if not is_signed():
        return headers
    if _told("AWS_SESSION_TOKEN"):
        headers["x-amz-security-token"] = _told("AWS_SESSION_TOKEN")
    shown = dict(sorted((headers | {"host": parts.netloc}).items()))
    names = ";".join(shown)
    lines = "".join(f"{name}:{value}\n" for name, value in shown.items())
    request = f"GET\n{parts.path}\n\n{lines}\n{names}\n{_NO_BODY}"
    scope = f"{time[:8]}/{region}/s3/aws4_request"
    digest = hashlib.sha256(request.encode()).hexdigest()
    key = f"AWS4{_told('AWS_SECRET_ACCESS_KEY')}".encode()
    for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{digest}"):
        key = hmac.digest(key, part.encode(), "sha256")
    credential = f"{_told('AWS_ACCESS_KEY_ID')}/{scope}"
    return headers | {
        "Authorization": f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, "
        f"Signature={key.hex()}"
    }


def _told(name: str) -> str:
    value = os.environ.get(name, "").strip()
    if any(ord(letter) < 32 for letter in value):
        raise InputError(f"environment variable {name} holds a control character")
    return value


def _is_on(name: str, *, default: bool) -> bool:
    value = _told(name).upper()
    return value in ("YES", "TRUE", "ON", "1") if value else default
