"""The steps of a run: open, call, write; the recipe, the cluster and the command line."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.classify import classify

__all__ = ["classify"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, which a mistyped recipe should not cost
    if name == "classify":
        from pipelines.classify import classify

        return classify
    raise AttributeError(f"module 'pipelines' has no attribute {name!r}")
