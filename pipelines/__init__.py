"""The steps of a run: open, call, write; the recipe, the cluster and the command line."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.lazy_map import classify
    from pipelines.learning_samples import learning_samples as load_samples
    from pipelines.recipe import read_recipe
    from pipelines.run import open_run

__all__ = ["classify", "load_samples", "open_run", "read_recipe"]

_HOMES = {
    "classify": ("pipelines.lazy_map", "classify"),
    "load_samples": ("pipelines.learning_samples", "learning_samples"),
    "open_run": ("pipelines.run", "open_run"),
    "read_recipe": ("pipelines.recipe", "read_recipe"),
}


def __getattr__(name: str) -> Any:
    # torch and xarray take seconds to import, which a mistyped recipe should not cost
    if name in _HOMES:
        module, attribute = _HOMES[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'pipelines' has no attribute {name!r}")
