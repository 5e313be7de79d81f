"""A file and the settings of exports in, what is known of each tile's task out, and remembered."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args
from uuid import uuid4

from cube.durable import replace_text
from cube.earthengine.errors import one_line
from cube.earthengine.exports import OperationState, check_operation, check_request_id
from cube.errors import InputError

State = Literal["asked", "waiting", "running", "done", "failed", "empty"]
"""`asked` has not been answered yet; of an `empty` tile no scene lies over, so there is no task."""

_UNDER_WAY = ("waiting", "running")

_LARGEST = 128 * 2**20
"""Bytes of the file; a quarter of a million tiles, of which a cube has no more, take 50 MB."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is known of a tile's task; `InputError` for one that cannot be."""

    state: State
    """How far it has come."""
    request: str = ""
    """Id of the call that starts it: of two calls with one id, the second because a run ended
    before its answer was noted, Earth Engine starts a single task."""
    operation: str = ""
    """Earth Engine's name for it, once it has answered."""
    error: str = ""
    """Why it failed."""

    def __post_init__(self) -> None:
        if self.state not in get_args(State):
            raise InputError(f"state {self.state[:40]!r} is none of {', '.join(get_args(State))}")
        if self.state == "asked":
            check_request_id(self.request)
        if self.state in _UNDER_WAY or self.operation:
            check_operation(self.operation)

    @property
    def is_under_way(self) -> bool:
        """Whether Earth Engine has it, and it has not ended."""
        return self.state in _UNDER_WAY

    def told(self, found: OperationState) -> "Task":
        """Return what it is after Earth Engine's word."""
        if found.progress == "cancelled":
            return replace(self, state="failed", error="the task was cancelled")
        if found.progress == "failed":
            return replace(self, state="failed", error=found.error or "it does not say why")
        return replace(self, state=found.progress)


class ExportTasks:
    """The tasks of a cube's tiles; nothing is on the disk before `write`."""

    def __init__(
        self,
        file: Path,
        settings: Mapping[str, str],
        tiles: dict[str, Task],
        earlier: Iterable[str] = (),
    ) -> None:
        self.tiles = tiles
        """By tile id, in the order in which they were handed in."""
        self.earlier = list(earlier)
        """Operations of other settings that had not ended when last looked at."""
        self._file, self._settings, self._written = file, dict(settings), ""

    @classmethod
    def read(cls, file: Path, settings: Mapping[str, str], known: Collection[str]) -> "ExportTasks":
        """Read the file; of other settings only what is under way is kept, as `earlier`.

        `settings` are what the files are made by and where they go, `known` the cube's tile ids.
        Raises `InputError` for a file that is damaged or of other tiles.
        """
        if not file.exists():
            return cls(file, settings, {})
        found_settings, tiles, earlier = _read(file)
        if found_settings != dict(settings):
            running = [task.operation for task in tiles.values() if task.is_under_way]
            return cls(file, settings, {}, [*earlier, *running])
        if foreign := [tile for tile in tiles if tile not in known]:
            raise _damaged(file, f"{foreign[0][:40]!r} is no tile of this cube")
        return cls(file, settings, tiles, earlier)

    @classmethod
    def read_any(cls, file: Path) -> "ExportTasks":
        """Read the file as it is, whatever its settings; raises as `read`."""
        if not file.exists():
            return cls(file, {}, {})
        settings, tiles, earlier = _read(file)
        return cls(file, settings, tiles, earlier)

    @property
    def under_way(self) -> list[str]:
        """Tiles whose task has not ended."""
        return [tile for tile, task in self.tiles.items() if task.is_under_way]

    def is_started(self, tile: str) -> bool:
        """Say whether Earth Engine has answered that it will export a tile, or nothing is to be."""
        return tile in self.tiles and self.tiles[tile].state != "asked"

    def is_ended(self, tile: str) -> bool:
        """Say whether nothing more is to be done for a tile."""
        return self.is_started(tile) and not self.tiles[tile].is_under_way

    def forget(self, tiles: Iterable[str]) -> None:
        """Let tasks be started anew."""
        for tile in tuple(tiles):
            self.tiles.pop(tile, None)

    def failed(self) -> dict[str, str]:
        """Return why tasks failed, by tile."""
        return {tile: task.error for tile, task in self.tiles.items() if task.state == "failed"}

    def ask(self, tile: str) -> None:
        """Give the call that will start a tile's task its id, the same until it is answered."""
        if tile not in self.tiles:
            self.tiles[tile] = Task(state="asked", request=uuid4().hex)

    def write(self) -> None:
        """Remember all that is known; nothing is written that is on the disk already."""
        tiles = {
            tile: {name: value for name, value in vars(task).items() if value}
            for tile, task in self.tiles.items()
        }
        content = {"settings": self._settings, "earlier": self.earlier, "tiles": tiles}
        text = json.dumps(content) + "\n"  # with indent it takes ten times as long
        if text != self._written:
            replace_text(self._file, text)
            self._written = text


def _read(file: Path) -> tuple[dict[str, str], dict[str, Task], list[str]]:
    if file.is_file() and (size := file.stat().st_size) > _LARGEST:
        raise _damaged(file, f"it has {size} bytes")
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        settings = {str(name): _text(value) for name, value in stored["settings"].items()}
        tiles = {str(tile): _task(one) for tile, one in stored["tiles"].items()}
        earlier = [check_operation(_text(name)) for name in stored["earlier"]]
    except InputError as error:
        raise _damaged(file, str(error)) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(file, f"{type(error).__name__}: {error}") from None
    return settings, tiles, earlier


def _task(stored: Any) -> Task:
    known: dict[str, Any] = {str(name): one_line(_text(value)) for name, value in stored.items()}
    return Task(**known)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is no text")
    return value


def _damaged(file: Path, why: str) -> InputError:
    return InputError(
        f"the list of exports {str(file)!r} is damaged ({one_line(why)}); delete it, and what is exported "
        "will be exported again"
    )
