"""Folders as buckets in, their files over the S3 protocol out, to whoever signs his requests.

Addresses are path-style (`http://127.0.0.1:PORT/bucket/key`). Every request must carry an AWS
signature of version 4 in its header, which is computed anew and compared:
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from loopback import Answer, Asked, Fault, LoopbackServer
from rangeserver import ranged

_SIGNED = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<scope>(?P<date>\d{8})/(?P<region>[^/]+)"
    r"/s3/aws4_request), ?SignedHeaders=(?P<headers>[a-z0-9;-]+), ?Signature=(?P<signature>\w{64})"
)
_MUST_BE_SIGNED = {"host", "x-amz-date", "x-amz-content-sha256"}
_SKEW = timedelta(minutes=15)


class S3Server(LoopbackServer):
    """Buckets by name with their folders, readable with the secret of one of `keys`.

    `keys` may be changed while the server runs, as keys that are withdrawn. With `requester_pays`,
    a request must say that it pays. Refusals look as those of the real thing, which tell the key's
    name and what it ought to have signed.
    """

    def __init__(
        self,
        buckets: Mapping[str, Path],
        *,
        keys: Mapping[str, str],
        requester_pays: bool = False,
        faults: Iterable[Fault] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(self._object, faults=faults, seed=seed)
        self.buckets = dict(buckets)
        self.keys = dict(keys)
        self.requester_pays = requester_pays
        self.endpoint = self.url.removeprefix("http://")

    def _object(self, asked: Asked) -> Answer:
        refusal = self._refusal(asked)
        if refusal is not None:
            return refusal
        if self.requester_pays and asked.headers.get("x-amz-request-payer") != "requester":
            return error_answer(403, "AccessDenied", "Access Denied")
        bucket, *parts = unquote(asked.path).strip("/").split("/")
        if bucket not in self.buckets or not parts:
            return error_answer(404, "NoSuchBucket", "The specified bucket does not exist")
        path = self.buckets[bucket].joinpath(*parts)
        if ".." in parts or not path.is_file():
            return error_answer(404, "NoSuchKey", "The specified key does not exist.")
        return ranged(path, asked.headers.get("range", ""))

    def _refusal(self, asked: Asked) -> Answer | None:
        found = _SIGNED.fullmatch(asked.headers.get("authorization", ""))
        if found is None or not set(found["headers"].split(";")) >= _MUST_BE_SIGNED:
            return error_answer(403, "AccessDenied", "Access Denied")
        came = datetime.strptime(asked.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if abs(datetime.now(UTC) - came) > _SKEW or f"{came:%Y%m%d}" != found["date"]:
            return error_answer(403, "RequestTimeTooSkewed", "The clocks differ too much.")
        if found["key"] not in self.keys:
            return error_answer(
                403,
                "InvalidAccessKeyId",
                "The AWS Access Key Id you provided does not exist in our records.",
                f"<AWSAccessKeyId>{found['key']}</AWSAccessKeyId>",
            )
        text = _text_to_sign(asked, found["scope"], found["headers"])
        right = _signature(self.keys[found["key"]], found["scope"], text)
        if not hmac.compare_digest(right, found["signature"]):
            return error_answer(
                403,
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided.",
                f"<AWSAccessKeyId>{found['key']}</AWSAccessKeyId>"
                f"<SignatureProvided>{found['signature']}</SignatureProvided>",
            )
        return None


def _text_to_sign(asked: Asked, scope: str, names: str) -> str:
    pairs = parse_qsl(urlsplit(asked.target).query, keep_blank_values=True)
    query = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in pairs)
    canonical = "\n".join(
        (
            asked.method,
            quote(unquote(asked.path), safe="/-_.~"),
            "&".join(f"{name}={value}" for name, value in query),
            *(f"{name}:{' '.join(asked.headers[name].split())}" for name in names.split(";")),
            "",
            names,
            asked.headers["x-amz-content-sha256"],
        )
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    return "\n".join(("AWS4-HMAC-SHA256", asked.headers["x-amz-date"], scope, digest))


def _signature(secret: str, scope: str, text: str) -> str:
    key = f"AWS4{secret}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


def error_answer(status: int, code: str, message: str, more: str = "") -> Answer:
    """Return an error as the real thing words it."""
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code>'
        f"<Message>{message}</Message>{more}<RequestId>4442587FB7D0A2F9</RequestId></Error>"
    )
    return Answer(status=status, body=body.encode(), headers={"Content-Type": "application/xml"})
