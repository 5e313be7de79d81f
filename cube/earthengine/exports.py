"""An image, a window and a place in, the request that lets Earth Engine write a GeoTIFF out."""

import re
from dataclasses import dataclass
from typing import Any, Literal

from odc.geo.geobox import GeoBox

from cube.earthengine.errors import one_line
from cube.earthengine.requests import LONGEST_SIDE, grid_of
from cube.errors import InputError, WorkFailedError

_NODATA = -32768

_FILE_STEP = 256
"""Pixels that sides of an exported file are multiples of; a window is rounded up to them."""

_NOT_DESCRIBING = re.compile(r"[^a-zA-Z0-9.,:;_-]")
_LONGEST_DESCRIPTION = 100
"""What Earth Engine refuses in a description."""

_OPERATION = re.compile(r"projects/[^/\s]+/operations/[^/\s]+")

_REQUEST_ID = re.compile(r"[a-zA-Z0-9-]{1,60}")

Progress = Literal["waiting", "running", "done", "failed", "cancelled"]

_PROGRESS: dict[str, Progress] = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "CANCELLING": "running",
    "SUCCEEDED": "done",
    "CANCELLED": "cancelled",
    "FAILED": "failed",
}
"""https://developers.google.com/earth-engine/reference/rest/Shared.Types/OperationMetadata"""


@dataclass(frozen=True, kw_only=True)
class CloudStorage:
    """A file in a bucket of Google Cloud Storage."""

    bucket: str
    """Name of the bucket."""
    prefix: str
    """Name of the file in it, without `.tif`; slashes make folders."""

    def request(self) -> dict[str, Any]:
        """Return it as a part of an export's request."""
        return {"cloudStorageDestination": {"bucket": self.bucket, "filenamePrefix": self.prefix}}


@dataclass(frozen=True, kw_only=True)
class Drive:
    """A file in the Google Drive of the account that asks."""

    folder: str
    """Name of the folder, made where there is none."""
    prefix: str
    """Name of the file in it, without `.tif`."""

    def request(self) -> dict[str, Any]:
        """Return it as a part of an export's request."""
        return {"driveDestination": {"folder": self.folder, "filenamePrefix": self.prefix}}


Destination = CloudStorage | Drive


@dataclass(frozen=True, kw_only=True)
class OperationState:
    """How far an export has come."""

    progress: Progress
    """In one word; `done` if the file is there."""
    error: str
    """Earth Engine's words for a failure; else empty."""

    @property
    def is_under_way(self) -> bool:
        """Whether it has not ended."""
        return self.progress in ("waiting", "running")


def export_request(
    image: Any, window: GeoBox, bands: tuple[str, ...], destination: Destination, description: str
) -> dict[str, Any]:
    """Return what `ee.data.exportImage` is called with: CRS, transform and shape of `window`.

    The GeoTIFF is cloud-optimised and one file; letters that Earth Engine refuses in a description
    become `_`. Raises `InputError` for a window with a side above `LONGEST_SIDE`, or a grid that
    Earth Engine cannot be asked for.
    """
    height, width = window.shape
    if max(height, width) > LONGEST_SIDE:
        raise InputError(
            f"an export of {width} x {height} pixels would be several files; expected sides of "
            f"{LONGEST_SIDE} pixels at most: choose smaller tiles"
        )
    return {
        "expression": image.select(list(bands)),
        "description": _NOT_DESCRIBING.sub("_", description)[:_LONGEST_DESCRIPTION],
        "fileExportOptions": {
            "fileFormat": "GEO_TIFF",
            **destination.request(),
            "geoTiffOptions": {
                "cloudOptimized": True,
                "tileDimensions": {"width": _rounded(width), "height": _rounded(height)},
                "noData": {"floatValue": _NODATA},
            },
        },
        "grid": grid_of(window),
        "maxPixels": str(height * width),
    }


def _rounded(pixels: int) -> int:
    return -(-pixels // _FILE_STEP) * _FILE_STEP


def check_request_id(request_id: str) -> str:
    """Return `request_id`; raises `InputError` if Earth Engine would not take it."""
    if not _REQUEST_ID.fullmatch(request_id):
        raise InputError(
            f"request id {request_id[:80]!r} of an export; expected 1 to 60 letters, digits and -"
        )
    return request_id


def check_operation(name: str) -> str:
    """Return `name`; raises `InputError` if it is none that `Session.start_export` returns."""
    if not _OPERATION.fullmatch(name):
        raise InputError(
            f"{name[:120]!r} is no operation of Earth Engine; expected one like "
            "'projects/my-project/operations/ABC'"
        )
    return name


def operation_id(name: str) -> str:
    """Return the part of an operation's name that tells it from others, whoever names it."""
    return name.rpartition("/")[2]


def operation_state(operation: dict[str, Any]) -> OperationState:
    """Return how far an operation, as `Session.operation` gives it, has come.

    Raises `WorkFailedError` for one whose state is unknown.
    """
    metadata, error = operation.get("metadata"), operation.get("error")
    told = metadata.get("state") if isinstance(metadata, dict) else None
    if told not in _PROGRESS:
        raise WorkFailedError(
            f"Earth Engine tells state {str(told)[:40]!r} of an export; expected one of "
            f"{', '.join(_PROGRESS)}"
        )
    message = str(error.get("message", "")) if isinstance(error, dict) else ""
    progress = _PROGRESS[told]
    # the old interface tells a failure by its error alone
    is_failed = progress == "done" and isinstance(error, dict)
    return OperationState(progress="failed" if is_failed else progress, error=one_line(message))
