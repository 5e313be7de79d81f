"""The cube: grid, pixels, stores. Scenes in, a Zarr cube (time, band, y, x) and samples out."""

from typing import TYPE_CHECKING, Any

from cube.errors import InputError, WorkFailedError

if TYPE_CHECKING:
    from cube.store import open_cube

__all__ = ["InputError", "WorkFailedError", "open_cube"]


def __getattr__(name: str) -> Any:
    # xarray and dask take seconds to import, which a mistyped recipe should not cost
    if name == "open_cube":
        from cube.store import open_cube

        return open_cube
    raise AttributeError(f"module 'cube' has no attribute {name!r}")
