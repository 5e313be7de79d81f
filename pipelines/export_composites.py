"""A plan with Earth Engine in, exported tiles out: tasks started, followed, stopped, remembered."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from cube.earthengine.access import Access
from cube.earthengine.errors import NotFoundError
from cube.earthengine.exported import ExportedSource
from cube.earthengine.exports import (
    CloudStorage,
    Destination,
    Drive,
    OperationState,
    operation_id,
    operation_state,
)
from cube.earthengine.session import Session, session
from cube.earthengine.tileimage import refuse_many_bands, tile_image
from cube.errors import InputError, WorkFailedError
from cube.spec import Region
from pipelines import stop
from pipelines.export_tasks import ExportTasks, Task
from pipelines.progress import Reporter
from pipelines.recipe import ExportSection

MOST_WAITING = 3_000
"""Tasks of a project that Earth Engine takes at once, whoever started them.

https://developers.google.com/earth-engine/guides/usage"""

_FULL = "too many tasks already in the queue"
"""What Earth Engine says, in lower case, when others have filled the queue meanwhile."""

_BATCH = 500
"""Tasks that are started between two writes of the list: a computer that fails forgets no more, and
starting those again starts nothing twice. Ten thousand tiles take one MB a write."""

_PAUSE = 15.0
"""Seconds between two rounds."""


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """Everything that exports are started from."""

    source: ExportedSource
    """How the files will be read; their name tells all that decides their pixels."""
    section: ExportSection
    """Where they are to go."""
    title: str
    """Name of the run, for the list of tasks that Earth Engine shows."""
    record: Path
    """File in which the tasks are remembered."""
    pause: Callable[[float], object] = field(default=time.sleep)
    """Waits."""

    @property
    def settings(self) -> dict[str, str]:
        """What a list of tasks is for: other files, or another place, begin a new one."""
        section = self.section
        place = {"to": section.to, "bucket": section.bucket or "", "folder": section.folder}
        return {"files": self.source.files.name, **place}

    def destination(self, region: Region) -> Destination:
        """Return the place of a tile's file."""
        files = self.source.files
        if self.section.to == "drive":
            return Drive(folder=self.section.folder, prefix=files.stem(region))
        assert self.section.bucket is not None  # by validation
        return CloudStorage(bucket=self.section.bucket, prefix=files.object_name(region))


def export_composites(
    job: ExportJob, reporter: Reporter, *, waits: bool = True, again: Sequence[str] | None = None
) -> dict[str, Any]:
    """Start the tasks that are missing and follow them to their end; return what became of them.

    With `waits` false, hand in as many as Earth Engine takes and come back. `again` names exported
    tiles that are exported anew; if empty, those whose file is not there or not whole. Tasks are
    remembered: stopping does not stop them, and running again goes on with them and starts failed
    ones anew. Raises `WorkFailedError` if tasks failed, `InputError` for a list of tasks that is
    damaged, tiles that are not the cube's, and more bands than a file can have.
    """
    regions = {region.id: region for region in job.source.spec.regions()}
    refuse_many_bands(job.source.computed, job.source.spec)
    tasks = ExportTasks.read(job.record, job.settings, regions)
    if again is not None:
        anew = _named(tasks, regions, again) if again else _lost(job, tasks, regions)
        reporter.say(f"{len(anew)} of the exported tiles are exported anew")
        tasks.forget(anew)
    tasks.forget(tasks.failed())
    round_ = _Round(job=job, asked=session(job.source.computed.access), tasks=tasks)
    with reporter.bar("export", len(regions)) as advance:
        shown = 0
        while True:
            room = round_.follow(regions)
            round_.start(regions, room)
            ended = sum(tasks.is_ended(tile) for tile in regions)
            advance(ended - shown)
            shown = ended
            if ended == len(regions) or not waits:
                break
            stop.raise_if_asked()
            job.pause(_PAUSE)
    if failed := tasks.failed():
        first = min(failed)
        raise WorkFailedError(
            f"export: {len(failed)} of {len(regions)} tiles failed; first: tile {first}: "
            f"{failed[first]}. Running again exports them anew"
        )
    return _found(job, tasks, regions)


def cancel_exports(record: Path, access: Access) -> dict[str, Any]:
    """Stop every task of the file `record` that has not ended, whatever settings it is for.

    Tiles of stopped tasks count as not handed in. Raises `InputError` for a damaged file.
    """
    tasks, stopped = ExportTasks.read_any(record), 0
    operations = {tasks.tiles[tile].operation: tile for tile in tasks.under_way}
    operations |= dict.fromkeys(tasks.earlier, "")
    if operations:
        asked = session(access)
        listed = _listed(asked)
    try:
        for operation, tile in operations.items():
            found = _state(asked, operation, listed)
            if found is not None and found.is_under_way:
                asked.cancel(operation)
                stopped += 1
                found = None
            if not tile:
                tasks.earlier.remove(operation)
            elif found is None:
                tasks.forget([tile])
            else:
                tasks.tiles[tile] = tasks.tiles[tile].told(found)
    finally:
        if operations:
            tasks.write()
    done = sum(task.state == "done" for task in tasks.tiles.values())
    return {"cancelled": stopped, "exported": done}


def _found(job: ExportJob, tasks: ExportTasks, regions: dict[str, Region]) -> dict[str, Any]:
    counts = Counter(task.state for task in tasks.tiles.values())
    return {
        "to": job.section.to,
        "tiles": len(regions),
        "exported": counts["done"],
        "without_scenes": counts["empty"],
        "under_way": len(tasks.under_way),
        "not_started": sum(not tasks.is_started(tile) for tile in regions),
        "earlier_under_way": len(tasks.earlier),
        "files": f"{job.source.files.object_name(next(iter(regions.values())))}.tif, …",
    }


@dataclass(frozen=True, kw_only=True)
class _Round:
    """What is done again and again: look what became of tasks, hand in more."""

    job: ExportJob
    asked: Session
    tasks: ExportTasks

    def follow(self, regions: dict[str, Region]) -> int:
        """Note what became of the tasks; return for how many more Earth Engine has room."""
        tasks, under_way = self.tasks, self.tasks.under_way
        if not under_way and not tasks.earlier and all(map(tasks.is_started, regions)):
            return 0
        listed = _listed(self.asked)
        for tile in under_way:
            task = tasks.tiles[tile]
            found = _state(self.asked, task.operation, listed)
            if found is not None:
                tasks.tiles[tile] = task.told(found)
            elif self.job.source.problem(regions[tile]):
                tasks.forget([tile])
            else:
                tasks.tiles[tile] = Task(state="done", operation=task.operation)
        states = ((one, _state(self.asked, one, listed)) for one in tasks.earlier)
        tasks.earlier = [one for one, found in states if found is not None and found.is_under_way]
        tasks.write()
        return MOST_WAITING - sum(one.is_under_way for one in listed.values())

    def start(self, regions: dict[str, Region], room: int) -> None:
        """Hand in tasks of tiles that have none, for as many as there is room."""
        tasks = self.tasks
        missing = (tile for tile in tuple(regions) if not tasks.is_started(tile))
        left = max(room, 0)
        while left and (batch := list(islice(missing, min(_BATCH, left)))):
            for tile in batch:
                tasks.ask(tile)
            tasks.write()  # or a call whose answer is lost might be repeated under another id
            try:
                left -= self._started(batch, regions)
            except WorkFailedError as error:
                if _FULL not in str(error).lower():
                    raise
                return
            finally:
                tasks.write()

    def _started(self, batch: list[str], regions: dict[str, Region]) -> int:
        """Hand in the tasks of a batch; return how many there are, for some tiles have none."""
        started = 0
        for tile in batch:
            stop.raise_if_asked()
            operation = self._handed_in(regions[tile])
            if operation is None:
                self.tasks.tiles[tile] = Task(state="empty")
                continue
            self.tasks.tiles[tile] = Task(state="waiting", operation=operation)
            started += 1
        return started

    def _handed_in(self, region: Region) -> str | None:
        job = self.job
        found = tile_image(job.source.computed, job.source.spec, region)
        if found is None:
            return None
        image, bands = found
        return self.asked.start_export(
            image,
            window=region.window(job.source.spec.geobox),
            bands=bands,
            destination=job.destination(region),
            description=f"{job.title} {region.id}",
            request_id=self.tasks.tiles[region.id].request,
        )


def _listed(asked: Session) -> dict[str, OperationState]:
    """Return the project's operations by id; those that are no exports and say no state are none."""
    found = {}
    for one in asked.operations():
        try:
            found[operation_id(str(one.get("name", "")))] = operation_state(one)
        except WorkFailedError:
            continue  # it is asked for by its own name, if it is ours
    return found


def _state(
    asked: Session, operation: str, listed: dict[str, OperationState]
) -> OperationState | None:
    """Return how far an operation has come; None for one that Earth Engine does not know."""
    stop.raise_if_asked()
    if found := listed.get(operation_id(operation)):
        return found
    try:
        return operation_state(asked.operation(operation))
    except NotFoundError:
        return None


def _named(tasks: ExportTasks, regions: dict[str, Region], again: Sequence[str]) -> list[str]:
    """Return the tiles of `again` that can be exported anew; raises `InputError` for unknown ones."""
    if unknown := [tile for tile in again if tile not in regions]:
        raise InputError(
            f"{unknown[0][:40]!r} is no tile of this cube; they go from {min(regions)} to "
            f"{max(regions)}"
        )
    return [tile for tile in dict.fromkeys(again) if tasks.is_ended(tile)]


def _lost(job: ExportJob, tasks: ExportTasks, regions: dict[str, Region]) -> list[str]:
    """Return the exported tiles whose file is not there or not whole."""
    done = [tile for tile, task in tasks.tiles.items() if task.state == "done"]
    lost = []
    with ThreadPoolExecutor(job.source.computed.access.requests_at_once) as pool:
        for start in range(0, len(done), _BATCH):
            stop.raise_if_asked()
            batch = done[start : start + _BATCH]
            problems = pool.map(job.source.problem, [regions[tile] for tile in batch])
            lost += [tile for tile, why in zip(batch, problems, strict=True) if why]
    return lost
