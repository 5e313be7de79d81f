"""Names of buckets in, an S3 store that can be written out: objects in memory, for whoever signs.

Knows what a client of stores asks: objects whole and by range, conditional puts, lists by page and
by folder, and removal one by one or many at once. Uploads in parts are not known.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
"""

import hashlib
import threading
from collections.abc import Iterable, Mapping
from urllib.parse import unquote
from xml.sax.saxutils import escape

import defusedxml.ElementTree as ElementTree
from loopback import Answer, Asked, Fault
from s3server import S3Server, error_answer

_MODIFIED = "2026-01-01T00:00:00.000Z"


class BucketServer(S3Server):
    """Buckets by name, each a dict of objects by key; `objects` may be changed while it runs.

    `page` is the most objects of one list.
    """

    def __init__(
        self,
        buckets: Iterable[str],
        *,
        keys: Mapping[str, str],
        page: int = 1000,
        faults: Iterable[Fault] = (),
        seed: int = 0,
    ) -> None:
        super().__init__({}, keys=keys, faults=faults, seed=seed)
        self.objects: dict[str, dict[str, bytes]] = {name: {} for name in buckets}
        self.page = page
        self._changing = threading.Lock()

    def _object(self, asked: Asked) -> Answer:
        refusal = self._refusal(asked)
        if refusal is not None:
            return refusal
        bucket, _, key = unquote(asked.path).lstrip("/").partition("/")
        if bucket not in self.objects:
            return error_answer(404, "NoSuchBucket", "The specified bucket does not exist")
        with self._changing:
            held = self.objects[bucket]
            if asked.method == "PUT" and "x-amz-copy-source" in asked.headers:
                return self._copy(asked, key)
            if asked.method == "PUT":
                return _put(held, key, asked)
            if asked.method == "DELETE":
                held.pop(key, None)
                return Answer(status=204)
            if asked.method == "POST" and "delete" in asked.query:
                return _remove(held, asked)
            if not key:
                return _list(held, asked.query, self.page)
            return _get(held, key, asked)

    def _copy(self, asked: Asked, key: str) -> Answer:
        source, _, name = unquote(asked.headers["x-amz-copy-source"]).lstrip("/").partition("/")
        bucket = unquote(asked.path).lstrip("/").partition("/")[0]
        content = self.objects[bucket][key] = self.objects[source][name]
        return _xml(f"<CopyObjectResult><ETag>{_etag(content)}</ETag></CopyObjectResult>")


def _put(held: dict[str, bytes], key: str, asked: Asked) -> Answer:
    if asked.headers.get("if-none-match") == "*" and key in held:
        return error_answer(412, "PreconditionFailed", "At least one condition did not hold")
    held[key] = asked.body
    return Answer(headers={"ETag": _etag(asked.body)})


def _get(held: dict[str, bytes], key: str, asked: Asked) -> Answer:
    if key not in held:
        return error_answer(404, "NoSuchKey", "The specified key does not exist.")
    content = held[key]
    headers = {
        "ETag": _etag(content),
        "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
        "Accept-Ranges": "bytes",
    }
    wanted = asked.headers.get("range", "").removeprefix("bytes=")
    if not wanted:
        return Answer(body=content, headers=headers)
    first, last = wanted.split("-")
    start = int(first) if first else max(0, len(content) - int(last))
    stop = min(int(last) + 1, len(content)) if first and last else len(content)
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
    return Answer(status=206, body=content[start:stop], headers=headers)


def _list(held: dict[str, bytes], query: Mapping[str, str], page: int) -> Answer:
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    after = query.get("continuation-token", query.get("start-after", ""))
    found: list[str] = []
    for key in sorted(held):
        if not key.startswith(prefix):
            continue
        folder, mark, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
        name = prefix + folder + mark if mark else key
        if name > after and name not in found[-1:]:
            found.append(name)
    shown = found[:page]
    lines = [
        f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
        if delimiter and name.endswith(delimiter)
        else f"<Contents><Key>{escape(name)}</Key><LastModified>{_MODIFIED}</LastModified>"
        f"<ETag>{escape(_etag(held[name]))}</ETag><Size>{len(held[name])}</Size></Contents>"
        for name in shown
    ]
    if is_cut := len(found) > page:
        lines.append(f"<NextContinuationToken>{escape(shown[-1])}</NextContinuationToken>")
    return _xml(
        f"<ListBucketResult><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(shown)}</KeyCount>"
        f"<IsTruncated>{str(is_cut).lower()}</IsTruncated>{''.join(lines)}</ListBucketResult>"
    )


def _remove(held: dict[str, bytes], asked: Asked) -> Answer:
    keys = [one.text or "" for one in ElementTree.fromstring(asked.body).iter() if _is_key(one.tag)]
    for key in keys:
        held.pop(key, None)
    gone = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
    return _xml(f"<DeleteResult>{gone}</DeleteResult>")


def _is_key(tag: str) -> bool:
    return tag.rpartition("}")[2] == "Key"


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


def _xml(body: str) -> Answer:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'
    return Answer(body=text.encode(), headers={"Content-Type": "application/xml"})
