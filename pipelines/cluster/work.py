"""What a step does with a tile in, what `run_tasks` needs to do it anywhere out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from cube.errors import WorkFailedError
from pipelines.cluster.parcels import Parcel


class Named(Protocol):
    """A unit of work that has a name."""

    @property
    def id(self) -> str: ...  # noqa: D102


Tile = TypeVar("Tile", bound=Named)


@dataclass(frozen=True, kw_only=True)
class TileWork(Generic[Tile]):
    """How the tiles of one step become tasks."""

    step: str
    """Name of the step, for what is told."""
    delay: Callable[[Sequence[Tile]], Sequence[Any]]
    """Returns delayed objects, one a tile, for some tiles that lie together."""
    in_strips: Callable[[Tile], Any] | None = None
    """Returns a delayed object that makes the very same of a tile with less memory."""
    parcel: Parcel = field(default_factory=Parcel)
    """What the tasks share."""
    resource: str | None = None
    """Dask resource of which a task takes one, where any worker declares it."""


@dataclass(frozen=True, kw_only=True)
class FailedTile:
    """A tile that was given up."""

    tile: str
    """Its name."""
    reason: str
    """What was said the last time, in one line."""
    tries: int
    """Times it was tried."""


class TilesFailedError(WorkFailedError):
    """Some tiles were given up; the others are done."""

    def __init__(self, text: str, failed: Sequence[FailedTile]) -> None:
        super().__init__(text)
        self.failed = tuple(failed)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.failed)

    @property
    def found(self) -> dict[str, Any]:
        """What `--json` prints beside the error."""
        return {"failed": [vars(one) for one in self.failed]}


def given_up(step: str, failed: Sequence[FailedTile], total: int) -> TilesFailedError:
    """Return the error of a step that has given up some of `total` tiles."""
    listed = sorted(failed, key=lambda one: one.tile)
    names = ", ".join(one.tile for one in listed[:5]) + (", …" if len(listed) > 5 else "")
    first = listed[0]
    return TilesFailedError(
        f"{step}: {len(listed)} of {total} tiles failed ({names}); first: tile {first.tile}: "
        f"{first.reason}. Running again does only what is missing.",
        listed,
    )
