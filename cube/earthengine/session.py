"""Expressions in, values, pixels and exports of Earth Engine out: one session per process and access.

Each worker makes its own from the `Access` that it is sent, and reads its own credentials.
"""

import json
import os
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Int16
from odc.geo.geobox import GeoBox

from cube.earthengine.access import Access
from cube.earthengine.client import calls_through, prepare
from cube.earthengine.credentials import identity
from cube.earthengine.errors import PassingError, RequestTooLargeError, one_line
from cube.earthengine.exports import (
    Destination,
    check_operation,
    check_request_id,
    export_request,
)
from cube.earthengine.installed import ee
from cube.earthengine.pixels import pixel_request, read_pixels
from cube.earthengine.requests import SMALLEST_SIDE, Part, parts_of, pixels_of, quarters
from cube.earthengine.sizes import Sizes
from cube.earthengine.transport import Request, Transport
from cube.errors import WorkFailedError

_sessions: "dict[tuple[int, Access], Session]" = {}
_opening = threading.Lock()


def session(access: Access) -> "Session":
    """Return this process's session of `access`; the first call opens it.

    Raises `InputError` for credentials or a project that are missing or refused, `WorkFailedError`
    if Earth Engine does not answer.
    """
    with _opening:
        key = (os.getpid(), access)
        if key not in _sessions:
            _sessions[key] = Session(access)
        return _sessions[key]


class Session:
    """Asks Earth Engine, in one name; shared by threads. Use `session` to get one."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._transport = Transport(access, identity(access))
        self._sizes = Sizes()
        self._prepare()

    def __reduce__(self) -> "tuple[Callable[[Access], Session], tuple[Access]]":
        return session, (self.access,)

    @property
    def project(self) -> str:
        """The project that pays."""
        return self._transport.project

    def value(self, thing: Any) -> Any:
        """Return what a computed object of the client is: numbers, texts, lists, dicts.

        Raises `WorkFailedError` if Earth Engine cannot compute it or does not answer.
        """
        return self._called(lambda: ee.data.computeValue(thing), "a value", _has_result)

    def pixels(
        self, image: Any, window: GeoBox, bands: tuple[str, ...], *, kind: Hashable = None
    ) -> Int16[np.ndarray, "band y x"]:
        """Return the bands of an int16 image on `window`, in stored units with nodata -32768.

        `image` has no masked pixel: Earth Engine gives 0 for those. It is asked for in requests
        below `REQUEST_BYTES`; one that Earth Engine finds too large is cut in four, down to
        `SMALLEST_SIDE`, then `WorkFailedError` is raised. Images of one `kind` take about the same
        to compute: what was too large of one is not asked of the next (`Sizes`). Raises
        `InputError` for a grid that is not north-up.
        """
        found = np.empty((len(bands), *window.shape), np.int16)  # (band, y, x)
        for part in parts_of(window, bands):
            self._fill(found, image, window, bands, part, (len(bands), kind))
        return found

    def _fill(
        self,
        found: Int16[np.ndarray, "band y x"],
        image: Any,
        window: GeoBox,
        bands: tuple[str, ...],
        part: Part,
        kind: Hashable,
    ) -> None:
        """Write the pixels of a part of `window` into `found`."""
        piece, smaller, size = window[part], quarters(part), pixels_of(part)
        if not smaller or self._sizes.allows(kind, size):
            try:
                pixels = self._asked(image, piece, bands, is_divisible=bool(smaller))
            except RequestTooLargeError as error:
                if not smaller:
                    raise WorkFailedError(
                        f"Earth Engine cannot compute even {_named(piece)}: {error}; it was cut "
                        f"down to {SMALLEST_SIDE} pixels a side: ask for fewer scenes or shorter "
                        "periods"
                    ) from None
                self._sizes.was_too_large(kind, size, piece=max(map(pixels_of, smaller)))
            else:
                self._sizes.has_worked(kind, size)
                found[:, part[0], part[1]] = np.moveaxis(pixels, -1, 0)  # (band, y, x)
                return
        for one in smaller:
            self._fill(found, image, window, bands, one, kind)

    def _asked(
        self, image: Any, piece: GeoBox, bands: tuple[str, ...], *, is_divisible: bool
    ) -> Int16[np.ndarray, "y x band"]:
        request = pixel_request(image, piece, bands)
        height, width = piece.shape
        body = self._call(
            lambda: ee.data.computePixels(request),
            _named(piece),
            lambda content: read_pixels(content, (height, width), bands),
            is_divisible=is_divisible,
        )
        return read_pixels(body, (height, width), bands)

    def start_export(
        self,
        image: Any,
        *,
        window: GeoBox,
        bands: tuple[str, ...],
        destination: Destination,
        description: str,
        request_id: str,
    ) -> str:
        """Let Earth Engine write `window` of an image as one GeoTIFF; return the operation's name.

        Of several calls with one `request_id` one starts an export, so that a call whose answer was
        lost may be repeated. Raises `InputError` for a window of more than one file.
        """
        request = export_request(image, window, bands, destination, description)
        operation = self._called(
            lambda: ee.data.exportImage(check_request_id(request_id), request),
            f"the export {description!r}",
            _has_name,
        )
        return str(operation["name"])

    def operation(self, name: str) -> dict[str, Any]:
        """Return what Earth Engine says of an operation: see `exports.operation_state`.

        Raises `NotFoundError`, an `InputError`, for one that it does not know (any longer).
        """
        check_operation(name)
        found = self._called(lambda: ee.data.getOperation(name), f"the state of {name}", _has_name)
        return dict(found)

    def operations(self) -> list[dict[str, Any]]:
        """Return what Earth Engine says of the project's operations, page by page.

        Those that ended long ago are not among them. Raises `WorkFailedError` for a list without
        end.
        """
        pages = 0

        def check(body: bytes) -> None:
            nonlocal pages
            pages += 1
            listed = _is_object(body).get("operations", [])
            if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
                raise PassingError("the answer is no list of operations")
            if pages > _MOST_PAGES:
                raise WorkFailedError(
                    f"Earth Engine lists operations on {_MOST_PAGES} pages and on"
                )

        return list(self._called(ee.data.listOperations, "the list of operations", check))

    def cancel(self, name: str) -> None:
        """Stop an operation; one that has ended stays as it is."""
        check_operation(name)
        self._called(lambda: ee.data.cancelOperation(name), f"the end of {name}", _is_object)

    def _called(self, call: Callable[[], Any], what: str, check: Callable[[bytes], object]) -> Any:
        """As `_call`, for what cannot be cut smaller."""
        try:
            return self._call(call, what, check)
        except RequestTooLargeError as error:
            raise WorkFailedError(f"Earth Engine cannot answer {what}: {error}") from None

    def _call(
        self,
        call: Callable[[], Any],
        what: str,
        check: Callable[[bytes], object],
        *,
        is_divisible: bool = False,
    ) -> Any:
        """Return what a call of the client returns, sent and checked by this session."""
        self._prepare()
        sender = _Sender(self._transport, what, check, is_divisible=is_divisible)
        with _told(), calls_through(sender):
            return call()

    def _prepare(self) -> None:
        sender = _Sender(self._transport, "the list of its functions", _is_object)
        with _told(), calls_through(sender):
            prepare(_Sender(self._transport, "a call of its client", _is_anything))


class _Sender:
    """Sends the requests of one call of the client."""

    def __init__(
        self,
        transport: Transport,
        what: str,
        check: Callable[[bytes], object],
        *,
        is_divisible: bool = False,
    ) -> None:
        self._transport = transport
        self._what = what
        self._check = check
        self._is_divisible = is_divisible

    @property
    def project(self) -> str:
        return self._transport.project

    def send(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> tuple[dict[str, str], bytes]:
        named = {name: value for name, value in headers.items() if name.lower() != _PAYS.lower()}
        if "/projects/" in path:  # the discovery document is asked for in nobody's name
            named[_PAYS] = self.project
        request = Request(
            method=method,
            path=path,
            headers=named,
            body=body,
            what=self._what,
            check=self._check,
            is_divisible=self._is_divisible,
        )
        answer = self._transport.ask(request)
        return answer.headers, answer.body


_PAYS = "X-Goog-User-Project"

_MOST_PAGES = 2_000
"""Of a list of operations, 500 a page."""


@contextmanager
def _told() -> Iterator[None]:
    """Tell what the client itself raises inside in our words."""
    try:
        yield
    except ee.EEException as error:
        text = one_line(str(error))
        raise WorkFailedError(f"Earth Engine's client cannot ask for this: {text}") from None


def _named(window: GeoBox) -> str:
    height, width = window.shape
    left, top = window.transform.c, window.transform.f
    return f"{width} x {height} pixels at {left:.10g}, {top:.10g} in {str(window.crs)[:40]}"


def _is_object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        begin = one_line(body[:40].decode("utf-8", "replace"))
        raise PassingError(f"the answer is no JSON object: {begin!r}")
    return found


def _is_anything(body: bytes) -> None:
    """What is right, only whoever called the client knows."""


def _has(body: bytes, key: str) -> None:
    if key not in _is_object(body):
        raise PassingError(f"the answer has no {key!r}")


def _has_result(body: bytes) -> None:
    _has(body, "result")


def _has_name(body: bytes) -> None:
    _has(body, "name")
