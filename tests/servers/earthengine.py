"""A synthetic forest in, an Earth Engine on loopback out: the part of its REST interface in use.

The real client speaks to it: `ee.Initialize(credentials=AnonymousCredentials(), url=server.url,
project="test-project")`. It evaluates the expressions it knows (`earthengine_graph`), enforces the
real limits, and leaves nothing to defaults: a request without a whole grid is an error.
"""

import gzip
import json
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import numpy as np
from earthengine_arithmetic import ARITHMETIC_FUNCTIONS
from earthengine_catalogue import QA60, Catalogue, Kept, assets
from earthengine_composites import COMPOSITE_FUNCTIONS
from earthengine_dates import DATE_FUNCTIONS
from earthengine_elements import ELEMENT_FUNCTIONS
from earthengine_export import computed, export_asked, geotiff, grid_asked, structured
from earthengine_filters import FILTER_FUNCTIONS
from earthengine_graph import Graph, packaged, shown
from earthengine_grids import EngineError
from earthengine_images import IMAGE_FUNCTIONS
from earthengine_operations import Operations
from earthengine_places import PLACE_FUNCTIONS
from earthengine_plain import PLAIN_FUNCTIONS
from earthengine_reducers import REDUCER_FUNCTIONS
from earthengine_regions import REGION_FUNCTIONS
from earthengine_values import Image
from earthengine_warp import WARP_FUNCTIONS
from loopback import Answer, Asked, Fault, FaultPlan, LoopbackServer
from rangeserver import ranged

from cube.forest import Forest, ForestSpec

REQUEST_BYTES = 50_331_648
PAYLOAD_BYTES = 10_485_760
LONGEST_SIDE = 32_768
MOST_BANDS = 1_024

EngineKind = Literal[
    "memory", "timeout", "busy", "internal", "expired", "unregistered", "shape", "dtype"
]

_ERRORS: Mapping[str, tuple[int, str, str]] = {
    "memory": (400, "INVALID_ARGUMENT", "User memory limit exceeded."),
    "timeout": (400, "INVALID_ARGUMENT", "Computation timed out."),
    "busy": (
        429,
        "RESOURCE_EXHAUSTED",
        "Too Many Requests: Request was rejected because the request rate or concurrency limit "
        "was exceeded.",
    ),
    "internal": (500, "INTERNAL", "An internal error has occurred (request: 0)."),
    "expired": (
        401,
        "UNAUTHENTICATED",
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login "
        "cookie or other valid authentication credential.",
    ),
    "unregistered": (
        403,
        "PERMISSION_DENIED",
        "Project 'projects/{project}' is not registered to use Earth Engine.",
    ),
}
_COMPUTED: Kept[tuple[np.ndarray, ...]] = Kept(1 << 27)
"""Pixels that were computed, by catalogue and request: tests build the same cubes over and over."""
_FUNCTIONS = (
    IMAGE_FUNCTIONS
    | ARITHMETIC_FUNCTIONS
    | WARP_FUNCTIONS
    | REDUCER_FUNCTIONS
    | COMPOSITE_FUNCTIONS
    | REGION_FUNCTIONS
    | ELEMENT_FUNCTIONS
    | FILTER_FUNCTIONS
    | PLACE_FUNCTIONS
    | DATE_FUNCTIONS
    | PLAIN_FUNCTIONS
)


@dataclass(frozen=True, kw_only=True)
class EngineFault(Fault):
    """A way in which Earth Engine itself fails, beside those of every server."""

    kind: EngineKind  # type: ignore[assignment]
    """`memory`, `timeout`: 400 with that message. `busy`: 429, with `retry_after` if given.
    `internal`: 500. `expired`: 401. `unregistered`: 403. `shape`: pixels that lack a row.
    `dtype`: pixels as doubles. The last two leave all but `computePixels` as it is."""


class EarthEngineServer(LoopbackServer):
    """Earth Engine over the forest in `forest` (a `Forest`, or its folder and `spec`).

    Exports are written below `exports`, a folder per bucket or Drive folder, and served as
    `/storage/BUCKET/OBJECT`, with `token` only to who bears it. An export advances by one state
    whenever its operation is read; `export_error` makes those fail that end from then on.
    `pixel_limit` is how many pixels a request may have before memory is exceeded, `most_allowed`
    how many requests may be under way before one more is answered with 429. The bodies of requests,
    of those that met a fault too, are in `pixel_requests`, `value_requests`, `export_requests`.
    """

    def __init__(
        self,
        forest: Forest | Path,
        *,
        spec: ForestSpec | None = None,
        project: str = "test-project",
        exports: Path | None = None,
        qa60: QA60 = "empty",
        pixel_limit: int | None = None,
        most_allowed: int | None = None,
        token: str | None = None,
        faults: Iterable[Fault] = (),
        seed: int = 0,
        port: int = 0,
    ) -> None:
        super().__init__(self._page, seed=seed, port=port)
        if isinstance(forest, Forest):
            forest, spec = forest.folder, forest.spec
        if spec is None:
            raise ValueError("a forest's folder needs its spec")
        self.catalogue = Catalogue(folder=forest, spec=spec, qa60=qa60)
        self.functions = _FUNCTIONS | assets(self.catalogue.collections())
        self.project = project
        self.exports = exports
        self.pixel_limit = pixel_limit
        self.most_allowed = most_allowed
        self.token = token
        self.operations = Operations(exports, project=project)
        self._bodies: list[tuple[str, dict[str, Any]]] = []
        self._here = threading.local()
        self.set_faults(*faults, seed=seed)

    def set_faults(self, *faults: Fault, seed: int = 0) -> None:
        """Replace the fault plan; counts begin anew."""
        self.plan = _WatchedPlan(self, faults, seed=seed)

    def clear(self) -> None:
        """Forget the log and the bodies."""
        super().clear()
        self._bodies.clear()

    @property
    def pixel_requests(self) -> tuple[dict[str, Any], ...]:
        """Bodies of `computePixels`: expression, grid, bandIds, fileFormat."""
        return self._of("image:computePixels")

    @property
    def value_requests(self) -> tuple[dict[str, Any], ...]:
        """Bodies of `value:compute`."""
        return self._of("value:compute")

    @property
    def export_requests(self) -> tuple[dict[str, Any], ...]:
        """Bodies of `image:export`."""
        return self._of("image:export")

    @property
    def export_error(self) -> str:
        """What exports fail with that end from now on; empty lets them succeed."""
        return self.operations.error

    @export_error.setter
    def export_error(self, text: str) -> None:
        self.operations.error = text

    def _of(self, method: str) -> tuple[dict[str, Any], ...]:
        return tuple(body for name, body in self._bodies.copy() if name == method)

    def came(self, asked: Asked, fault: Fault | None) -> None:
        """Note a request, whatever befalls it."""
        self._here.fault = fault
        if asked.method == "POST":
            self._bodies.append((asked.path.rpartition("/")[2], _body(asked)))

    def answer(self, asked: Asked) -> Answer:
        """Return the answer under the faults of Earth Engine itself."""
        fault = self._here.fault
        kind = fault.kind if isinstance(fault, EngineFault) else ""
        if kind in _ERRORS:
            return _refused(_error(kind, self.project), fault.retry_after)
        if self.most_allowed is not None and self._at_once > self.most_allowed:
            return _refused(_error("busy", self.project))
        return super().answer(asked)

    # ------------------------------------------------------------ routes

    def _page(self, asked: Asked) -> Answer:
        try:
            if len(asked.body) > PAYLOAD_BYTES:
                raise EngineError(f"Request payload size exceeds the limit: {PAYLOAD_BYTES} bytes.")
            return self._routed(asked)
        except EngineError as error:
            return _refused(error)

    def _routed(self, asked: Asked) -> Answer:
        if asked.path == "/$discovery/rest":
            base = dict.fromkeys(("rootUrl", "mtlsRootUrl", "baseUrl"), f"{self.url}/")
            return Answer.of_json(packaged("cloud_api_discovery_document.json") | base)
        if asked.path.startswith("/storage/"):
            return self._stored(asked)
        found = re.fullmatch(r"/v1(?:alpha|beta)?/projects/([^/]+)/(.+)", unquote(asked.path))
        if not found:
            raise EngineError(f"{asked.path} is not known to this server.", code=404)
        if found[1] != self.project:
            raise _error("unregistered", found[1])
        return self._called(asked, found[2])

    def _called(self, asked: Asked, method: str) -> Answer:
        name, _, action = method.removeprefix("operations/").partition(":")
        match asked.method, method:
            case "GET", "algorithms":
                return Answer.of_json(packaged("algorithms.json"))
            case "POST", "value:compute":
                return Answer.of_json({"result": shown(self._value(_body(asked)))})
            case "POST", "image:computePixels":
                return self._computed(_body(asked))
            case "POST", "image:export":
                return Answer.of_json(self._exported(_body(asked)))
            case "GET", "operations":
                size, token = (asked.query.get(name, "") for name in ("pageSize", "pageToken"))
                return Answer.of_json(self.operations.listed(size=int(size or 500), token=token))
            case "GET", _ if method.startswith("operations/"):
                return Answer.of_json(self.operations.read(name))
            case "POST", _ if method.startswith("operations/") and action == "cancel":
                self.operations.cancel(name)
                return Answer.of_json({})
        raise EngineError(f"{asked.method} {method} is not known to this server.", code=404)

    def _value(self, body: Mapping[str, Any]) -> Any:
        return Graph(body["expression"], self.functions).value()

    def _image(self, body: Mapping[str, Any]) -> Image:
        image = self._value(body)
        if not isinstance(image, Image):
            raise EngineError(f"The expression is no image but a {type(image).__name__}.")
        return image

    # ------------------------------------------------------------ pixels

    def _computed(self, body: Mapping[str, Any]) -> Answer:
        grid, image = grid_asked(body.get("grid")), self._image(body)
        names = body.get("bandIds") or list(image.bands)
        if not names:
            raise EngineError("Image has no bands.")
        if lacking := [name for name in names if name not in image.bands]:
            raise EngineError(
                f"Band(s) {', '.join(lacking)} not found; the image has {list(image.bands)}."
            )
        if len(names) > MOST_BANDS:
            raise EngineError(f"Too many bands ({len(names)}); at most {MOST_BANDS}.")
        if max(grid.width, grid.height) > LONGEST_SIDE:
            raise EngineError(
                f"Pixel grid dimensions ({grid.width}x{grid.height}) must be less than or equal "
                f"to {LONGEST_SIDE}."
            )
        size = grid.pixels * sum(image.bands[name].kind.dtype.itemsize for name in names)
        if size > REQUEST_BYTES:
            raise EngineError(
                f"Total request size ({size} bytes) must be less than or equal to "
                f"{REQUEST_BYTES} bytes."
            )
        if self.pixel_limit is not None and grid.pixels > self.pixel_limit:
            raise EngineError("User memory limit exceeded.")
        if body.get("fileFormat") == "NPY":
            key = (self.catalogue, json.dumps(body, sort_keys=True))
            arrays = _COMPUTED.get(key, lambda: tuple(computed(image, grid, names).values()))
            return Answer(
                body=structured(self._spoiled(dict(zip(names, arrays, strict=True)))),
                headers={"Content-Type": "application/octet-stream"},
            )
        if body.get("fileFormat") == "GEO_TIFF":
            return Answer(body=geotiff(image, grid, names), headers={"Content-Type": "image/tiff"})
        raise EngineError(f"fileFormat {body.get('fileFormat')!r} is not known to this server.")

    def _spoiled(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        kind = "" if self._here.fault is None else self._here.fault.kind
        if kind == "shape":
            return {name: array[:-1] for name, array in arrays.items()}
        if kind == "dtype":
            return {name: array.astype(np.float64) for name, array in arrays.items()}
        return arrays

    # ------------------------------------------------------------ exports

    def _exported(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return self.operations.start(
            export_asked(self._image(body), body),
            request_id=str(body.get("requestId", "")),
            description=str(body.get("description", "")),
        )

    def _stored(self, asked: Asked) -> Answer:
        if self.token is not None and asked.headers.get("authorization") != f"Bearer {self.token}":
            return Answer(status=401, body=b"Anonymous caller does not have storage.objects.get")
        parts = unquote(asked.path).removeprefix("/storage/").split("/")
        path = None if self.exports is None else self.exports.joinpath(*parts)
        if asked.method == "POST" or path is None or ".." in parts or not path.is_file():
            return Answer(status=404, body=b"No such object")
        return ranged(path, asked.headers.get("range", ""))


class _WatchedPlan(FaultPlan):
    """A plan that tells its server of each request."""

    def __init__(self, server: EarthEngineServer, faults: Iterable[Fault], *, seed: int) -> None:
        super().__init__(faults, seed=seed)
        self._server = server

    def hit(self, asked: Asked) -> Fault | None:
        fault = super().hit(asked)
        self._server.came(asked, fault)
        return fault


def _body(asked: Asked) -> dict[str, Any]:
    content = asked.body
    if asked.headers.get("content-encoding") == "gzip":
        content = gzip.decompress(content)
    return json.loads(content or b"{}")


def _error(kind: str, project: str) -> EngineError:
    code, status, text = _ERRORS[kind]
    return EngineError(text.format(project=project), code=code, status=status)


def _refused(error: EngineError, retry_after: str = "") -> Answer:
    told = {"code": error.code, "message": str(error), "status": error.status}
    answer = Answer.of_json({"error": told}, error.code)
    headers = {**answer.headers, **({"Retry-After": retry_after} if retry_after else {})}
    return Answer(status=answer.status, body=answer.body, headers=headers)
