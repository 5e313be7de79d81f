"""The cube: grid, pixels, stores. Scenes in, a Zarr cube (time, band, y, x) and samples out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cube.errors import InputError, WorkFailedError

if TYPE_CHECKING:
    from cube.mapstore import map_classes, open_map
    from cube.samplestore import open_samples
    from cube.store import open_cube

__all__ = [
    "InputError",
    "WorkFailedError",
    "map_classes",
    "open_cube",
    "open_map",
    "open_samples",
]

_HOMES = {
    "map_classes": "cube.mapstore",
    "open_cube": "cube.store",
    "open_map": "cube.mapstore",
    "open_samples": "cube.samplestore",
}


def __getattr__(name: str) -> Any:
    # xarray and dask take seconds to import, which a mistyped recipe should not cost
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'cube' has no attribute {name!r}")
