"""A plan with Earth Engine in, exported tiles out: tasks started, followed, and remembered."""

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from cube.durable import replace_text
from cube.earthengine.exported import ExportedSource, tile_image
from cube.earthengine.exports import CloudStorage, Destination, Drive, operation_state
from cube.earthengine.session import Session, session
from cube.errors import InputError, WorkFailedError
from cube.spec import Region
from pipelines import stop
from pipelines.progress import Reporter
from pipelines.recipe import ExportSection

MOST_WAITING = 500
"""Tasks handed in at once: Earth Engine takes 3,000 of a project, and works at a few of them."""

_ASKED_AT_ONCE = 40
"""Tasks whose state is asked for in one round, the oldest first: later ones have not begun."""

_PAUSE = 15.0
"""Seconds between two rounds."""

EMPTY = "empty"
"""State of a tile over which no scene lies, so that there is nothing to export."""


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """Everything that exports are started from."""

    source: ExportedSource
    """How the files will be read."""
    section: ExportSection
    """Where they are to go."""
    title: str
    """Name of the run, for the list of tasks that Earth Engine shows."""
    record: Path
    """File in which the tasks are remembered."""
    inputs: str
    """Fingerprint of all that decides the pixels; tasks of another one are forgotten."""
    pause: Callable[[float], object] = field(default=time.sleep)
    """Waits."""

    def destination(self, region: Region) -> Destination:
        """Return the place of a tile's file."""
        files = self.source.files
        if self.section.to == "drive":
            return Drive(folder=self.section.folder, prefix=files.stem(region))
        assert self.section.bucket is not None  # by validation
        return CloudStorage(bucket=self.section.bucket, prefix=files.object_name(region))


def export_composites(job: ExportJob, reporter: Reporter, *, waits: bool = True) -> dict[str, Any]:
    """Start the tasks that are missing and follow them to their end; return what became of them.

    With `waits` false, hand in as many as Earth Engine takes and come back. Tasks are remembered:
    stopping does not stop them, and running again goes on with them and starts failed ones anew.
    Raises `WorkFailedError` if tasks failed.
    """
    regions = {region.id: region for region in job.source.spec.regions()}
    tasks = _Tasks.read(job.record, job.inputs)
    asked = session(job.source.computed.access)
    tasks.forget_failed()
    with reporter.bar("export", len(regions)) as advance:
        shown = 0
        while True:
            _start(job, asked, tasks, regions)
            _follow(asked, tasks)
            if (ended := tasks.ended) > shown:
                advance(ended - shown)
                shown = ended
            if ended == len(regions) or not waits:
                break
            stop.raise_if_asked()
            job.pause(_PAUSE)
    failed = {tile: one["error"] for tile, one in tasks.states.items() if one["state"] == "failed"}
    if failed:
        first = min(failed)
        raise WorkFailedError(
            f"export: {len(failed)} of {len(regions)} tiles failed; first: tile {first}: "
            f"{failed[first]}. Running again exports them anew"
        )
    counts = Counter(one["state"] for one in tasks.states.values())
    return {
        "to": job.section.to,
        "tiles": len(regions),
        "exported": counts["done"],
        "without_scenes": counts[EMPTY],
        "under_way": len(tasks.under_way),
        "not_started": sum(not tasks.is_started(tile) for tile in regions),
        "files": f"{job.source.files.object_name(next(iter(regions.values())))}.tif, …",
    }


def _start(job: ExportJob, asked: Session, tasks: "_Tasks", regions: dict[str, Region]) -> None:
    spec = job.source.spec
    for tile, region in regions.items():
        if tasks.is_started(tile):
            continue
        if len(tasks.under_way) >= MOST_WAITING:
            return
        stop.raise_if_asked()
        found = tile_image(job.source.computed, spec, region)
        if found is None:
            tasks.note(tile, state=EMPTY)
            continue
        image, bands = found
        operation = asked.start_export(
            image,
            window=region.window(spec.geobox),
            bands=bands,
            destination=job.destination(region),
            description=f"{job.title} {tile}",
            request_id=tasks.request_id(tile),
        )
        tasks.note(tile, state="waiting", operation=operation)


def _follow(asked: Session, tasks: "_Tasks") -> None:
    for tile in tasks.under_way[:_ASKED_AT_ONCE]:
        stop.raise_if_asked()
        told = operation_state(asked.operation(tasks.states[tile]["operation"]))
        error = told.error or "Earth Engine does not say why"
        if told.progress == "cancelled":
            tasks.note(tile, state="failed", error="the task was cancelled")
        elif told.progress == "failed":
            tasks.note(tile, state="failed", error=error)
        else:
            tasks.note(tile, state=told.progress)


_NEEDED = {"asked": "request", "waiting": "operation", "running": "operation"}
"""What must be known of a task in some states."""


class _Tasks:
    """What is known of each tile's task, and the file that remembers it."""

    def __init__(self, file: Path, inputs: str, states: dict[str, dict[str, str]]) -> None:
        self._file, self._inputs, self.states = file, inputs, states

    @classmethod
    def read(cls, file: Path, inputs: str) -> "_Tasks":
        """Read the file; tasks of other inputs are forgotten. `InputError` if it is damaged."""
        if not file.exists():
            return cls(file, inputs, {})
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
            states = {
                str(tile): {str(key): str(value) for key, value in one.items()}
                for tile, one in stored["tiles"].items()
            }
            if stored["inputs"] != inputs:
                return cls(file, inputs, {})
            for one in states.values():
                _ = one["state"], one[_NEEDED.get(one["state"], "state")]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"the list of exports {str(file)!r} is damaged ({error!r}); delete it, and what is "
                "exported will be exported again"
            ) from None
        return cls(file, inputs, states)

    @property
    def under_way(self) -> list[str]:
        """Tiles whose task has not ended, in the order they were handed in."""
        return [tile for tile, one in self.states.items() if one["state"] in ("waiting", "running")]

    @property
    def ended(self) -> int:
        """Number of tiles for which nothing more is to be done."""
        return sum(one["state"] in ("done", "failed", EMPTY) for one in self.states.values())

    def is_started(self, tile: str) -> bool:
        """Say whether Earth Engine has answered that it will export a tile, or nothing is to be."""
        return tile in self.states and self.states[tile]["state"] != "asked"

    def forget_failed(self) -> None:
        """Let failed tasks be started anew."""
        self.states = {tile: one for tile, one in self.states.items() if one["state"] != "failed"}

    def request_id(self, tile: str) -> str:
        """Return the id of a tile's call, the same until it has been answered.

        Remembered before the call is made: of two calls with one id, the second because a run
        ended before its answer came, Earth Engine starts a single task.
        """
        if tile not in self.states:
            self.note(tile, state="asked", request=uuid4().hex)
        return self.states[tile]["request"]

    def note(self, tile: str, **known: str) -> None:
        """Remember more of a tile's task."""
        before = self.states.get(tile, {})
        if {**before, **known} == before:
            return
        self.states[tile] = {**before, **known}
        content = {"inputs": self._inputs, "tiles": self.states}
        replace_text(self._file, json.dumps(content, indent=1) + "\n")
