"""The steps of a run: open, call, write; the recipe, the cluster and the command line."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.lazy_map import classify
    from pipelines.recipe import read_recipe
    from pipelines.run import open_run
    from pipelines.train_model import load_samples

__all__ = ["classify", "load_samples", "open_run", "read_recipe"]

_HOMES = {
    "classify": "pipelines.lazy_map",
    "load_samples": "pipelines.train_model",
    "open_run": "pipelines.run",
    "read_recipe": "pipelines.recipe",
}


def __getattr__(name: str) -> Any:
    # torch and xarray take seconds to import, which a mistyped recipe should not cost
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pipelines' has no attribute {name!r}")
