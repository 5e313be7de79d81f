"""A plan in, a finished cube out: one task per tile, whole shards written, each one recorded."""

import itertools
import os
import random
import socket
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
from dask.delayed import delayed
from distributed import Client

from cube.cog import TRAFFIC
from cube.composite.scenes import SceneComposites
from cube.errors import InputError, WorkFailedError
from cube.finish import Finish
from cube.lease import Mark
from cube.ledger import Ledger, digest, fingerprint
from cube.periods import Period
from cube.place import Place, files_below, remove_store
from cube.source import Composite, LostScene, PeriodSource, SeriesSource
from cube.spec import CubeSpec, Region
from cube.stac.lock import FOUND_BY_LOCK
from cube.store import (
    CubeBlocks,
    clear_share,
    count_files,
    count_files_by_tile,
    create_cube,
    write_region,
)
from cube.storedfiles import is_leftover, sweep_leftovers
from pipelines.carry_cube import (
    Carried,
    CarriedBlocks,
    carried_by_tile,
    earlier_cubes,
    make_room,
    read_carried,
)
from pipelines.cluster import Parcel, TileWork, along_curve, job_of, run_tasks
from pipelines.earlier import drop_earlier, put_back
from pipelines.ledger_notes import Kind, drop_notes, keep_note
from pipelines.plan import CubePlan
from pipelines.progress import Reporter
from pipelines.sole_user import mark_of
from pipelines.tile_changes import reasons_again
from pipelines.tile_inputs import MADE_BY, TileInputs

TILE_TRIES = 3
"""Times a tile is begun when files that are there cannot be fetched, each request tried often."""

STRIPS = 4
"""Parts into which the buffer is cut for a tile that took too much memory."""

_TILE_PAUSE = 10.0
"""Seconds before a tile is begun again, at most; doubled each time."""


@dataclass(frozen=True, kw_only=True)
class TileDone:
    """What a task says of the tile it has made."""

    process: str
    """Which process made it."""
    before: tuple[int, int]
    """Requests and bytes of that process when it began the tile."""
    after: tuple[int, int]
    """The same when it had done it."""
    seconds: float
    """How long it took."""
    lost: tuple[LostScene, ...] = ()
    """Scenes for whose loss the tile was not stored."""
    is_taken_over: bool = False
    """Whether all of it was there before."""


def build_cube(
    plan: CubePlan, path: Place, client: Client, reporter: Reporter, *, title: str
) -> dict[str, Any]:
    """Build what is missing of the cube at `path`; return what the report says of it.

    A run that was stopped goes on where it was; a tile with a record for these inputs is not
    touched, unless scenes were lost in it and more were lost than the plan allows. Raises
    `InputError` for data that cannot be read, and leaves no cube behind in which nothing is done;
    `WorkFailedError` if tiles failed, and if more scenes were lost than allowed.
    """
    started = time.perf_counter()
    has_grown = make_room(path, plan.spec)
    is_new = not path.exists()
    create_cube(path, plan.spec, title=title)
    ledger = Ledger(store=path, inputs=plan.tile_inputs)
    ledger.prepare()
    sweep_leftovers(path)
    keep_note(path, "settings", plan.made_from.mark, plan.made_from.settings)
    keep_note(path, "scenes", plan.made_from.scene_list, plan.made_from.notes())
    regions = plan.spec.regions()
    pending = _pending(plan, path, ledger)
    if pending and not is_new:
        for reason, tiles in reasons_again(plan, path, pending).items():
            reporter.say(f"{tiles} tiles of the cube are made again: {reason}")
    outcome = _Outcome()
    already = len(regions) - len(pending)
    try:
        with reporter.stage("cube", len(regions), already=already) as stage:

            def note(tile: str, one: TileDone) -> None:
                outcome.note(tile, one)
                stage.done(tile, seconds=one.seconds)

            work = _work(plan, path)
            run_tasks(client, along_curve(pending), work, on_done=note, stage=stage)
    except InputError:
        if is_new and not ledger.records("files"):
            remove_store(path)
            if has_grown:
                put_back(path)
        raise
    records = ledger.records("digest", "lost", "scene_list", "empty_pixels", "filled_pixels")
    lost = lost_scenes({**records, **outcome.unstored})
    _refuse_losses(lost, plan.allowed_losses)
    if len(records) == len(regions):
        drop_earlier(path)
        lists: set[tuple[Kind, str]] = {
            ("scenes", one.get("scene_list", "")) for one in records.values()
        }
        drop_notes(path, {("settings", plan.made_from.mark), *lists})
    times, bands, height, width = plan.spec.shape
    requests, received = outcome.traffic
    return {
        "path": str(path),
        "shape": {"time": times, "band": bands, "y": height, "x": width},
        "tiles": f"{len(records)} of {len(regions)}",
        "built_now": len(pending) - outcome.taken_over,
        "taken_over_now": outcome.taken_over,
        "lost_scenes": lost,
        "empty_share_by_period": _shares(plan.spec, records, "empty_pixels"),
        "filled_share_by_period": _shares(plan.spec, records, "filled_pixels"),
        "requests": requests,
        "bytes_read": received,
        "bytes": _size(path),
        "digest": cube_digest(records),
        "seconds": round(time.perf_counter() - started, 2),
    }


def _pending(plan: CubePlan, path: Place, ledger: Ledger) -> list[Region]:
    """Return the tiles that are to be made: without a record, without their files, or too lossy."""
    records, files = ledger.records("files", "lost"), count_files_by_tile(path)
    is_too_lossy = len(lost_scenes(records)) > plan.allowed_losses

    def is_done(region: Region) -> bool:
        record = records.get(region.id)
        return (
            record is not None
            and record["files"] == files[region.row, region.column]
            and not (is_too_lossy and record["lost"])
        )

    return [region for region in plan.spec.regions() if not is_done(region)]


def lost_scenes(records: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the scenes that were left out of tiles: id, first reason, in how many tiles."""
    found: dict[str, dict[str, Any]] = {}
    for record in records.values():
        for one in record["lost"]:
            entry = found.setdefault(
                one["scene"], {"scene": one["scene"], "reason": one["reason"], "tiles": 0}
            )
            entry["tiles"] += 1
    return [found[scene] for scene in sorted(found)]


def _lost_record(lost: tuple[LostScene, ...]) -> dict[str, Any]:
    """Return what a tile's record says of scenes that were lost to it."""
    return {"lost": [{"scene": one.scene, "reason": one.reason} for one in lost]}


def _refuse_losses(lost: list[dict[str, Any]], allowed: int) -> None:
    if len(lost) <= allowed:
        return
    named = "; ".join(one["reason"] for one in lost[:3]) + ("; …" if len(lost) > 3 else "")
    advice = (
        "`canopycube lock RECIPE --update` looks at their files again"
        if any(FOUND_BY_LOCK in one["reason"] for one in lost)
        else "Running again tries their tiles anew"
    )
    scenes = "scene was" if len(lost) == 1 else "scenes were"
    raise WorkFailedError(
        f"build: {len(lost)} {scenes} lost to broken files, {allowed} are allowed: {named}. "
        f"{advice}; source.lost_scenes allows more, source.leave_out does without them"
    )


class _Outcome:
    """What is kept of what tasks say of their tiles: not more for more tiles."""

    def __init__(self) -> None:
        self.unstored: dict[str, dict[str, Any]] = {}
        self.taken_over = 0
        self._by_process: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {}

    def note(self, tile: str, one: TileDone) -> None:
        """Add what the task of a tile has said."""
        self.taken_over += one.is_taken_over
        if one.lost:
            self.unstored[f"unstored {tile}"] = _lost_record(one.lost)
        first, last = self._by_process.get(one.process, (one.before, one.after))
        self._by_process[one.process] = (
            (min(first[0], one.before[0]), min(first[1], one.before[1])),
            (max(last[0], one.after[0]), max(last[1], one.after[1])),
        )

    @property
    def traffic(self) -> tuple[int, int]:
        """(requests, bytes) of all processes together, of files that are read directly."""
        both = self._by_process.values()
        return sum(b[0] - a[0] for a, b in both), sum(b[1] - a[1] for a, b in both)


@dataclass(frozen=True, kw_only=True)
class _BuildJob:
    """What the tasks of a build share."""

    path: Place
    """The cube."""
    spec: CubeSpec
    """What it is."""
    source: PeriodSource
    """Where its pixels come from."""
    finish: Finish
    """What is done to a finished series."""
    keeps_lossy: bool
    """Whether tiles are stored for which scenes were lost."""
    mark: Mark | None
    """Of the lease under which they write."""


def _work(plan: CubePlan, path: Place) -> TileWork[Region]:
    """Return how tiles of a plan become tasks: each names its tile, and what it is made from."""
    parcel = Parcel(
        job=_BuildJob(
            path=path,
            spec=plan.spec,
            source=plan.source,
            finish=plan.finish,
            keeps_lossy=plan.allowed_losses > 0,
            mark=mark_of(path),
        )
    )
    build = delayed(_build_shared, pure=False)

    earlier = earlier_cubes(path, plan.spec, plan.made_from)

    def tasks(regions: Sequence[Region], *, in_strips: bool = False) -> list[Any]:
        made_from = list(plan.made_from.of_all(list(regions)))
        carried = carried_by_tile(earlier, regions, made_from, is_finished=plan.is_finished)
        return [
            build(parcel.key, region, inputs, in_strips, taken)
            for region, inputs, taken in zip(regions, made_from, carried, strict=True)
        ]

    return TileWork(
        step="build",
        delay=tasks,
        in_strips=lambda region: tasks([region], in_strips=True)[0],
        parcel=parcel,
    )


def _build_shared(
    key: str, region: Region, inputs: TileInputs, in_strips: bool, carried: Carried | None
) -> TileDone:
    """Build a tile with what its worker was given; `in_strips` with a quarter of the buffer."""
    job: _BuildJob = job_of(key)
    build = partial(build_tile, job.path, job.spec, finish=job.finish, keeps_lossy=job.keeps_lossy)
    build = partial(build, carried=carried, mark=job.mark)
    source = job.source
    if in_strips and isinstance(source, SceneComposites):
        less = replace(source, buffer_bytes=-(-source.buffer_bytes // STRIPS))
        # where a row of all looks is more than that, or data are wrong, which is told again
        with suppress(InputError):
            return build(source=less, region=region, inputs=inputs)
    return build(source=source, region=region, inputs=inputs)


def _shares(
    spec: CubeSpec, records: Mapping[str, dict[str, Any]], counted: str
) -> dict[str, float]:
    """Return the share of the cube's pixels that the records count, by period."""
    counts = np.zeros(len(spec.periods), np.int64)
    for record in records.values():
        counts += np.array(record[counted])
    total = spec.pixel_count
    pairs = zip(spec.periods, counts, strict=True)
    return {str(period): int(count) / total for period, count in pairs}


def _size(store: Place) -> int:
    """Return the bytes of a store; what a killed writer left over does not count."""
    return sum(size for name, size in files_below(store) if not is_leftover(name))


def cube_digest(records: Mapping[str, dict[str, Any]]) -> str:
    """Return a hash over every tile's pixels, from the records of its ledger."""
    return fingerprint({tile: record["digest"] for tile, record in records.items()})


def build_tile(
    path: Place,
    spec: CubeSpec,
    source: PeriodSource,
    region: Region,
    inputs: TileInputs,
    finish: Finish,
    *,
    keeps_lossy: bool = False,
    carried: Carried | None = None,
    mark: Mark | None = None,
) -> TileDone:
    """Make every period of one tile that is not `carried` over, write it, record it.

    A tile for which scenes were lost is stored only if it `keeps_lossy`: what lies in its place may
    be whole. Where files cannot be fetched the tile is begun again, `TILE_TRIES` times in all. Errors
    name the tile and the period. Under a lease that is lost, whose `mark` this has, nothing is
    written.
    """
    started, before = time.perf_counter(), (TRAFFIC.requests, TRAFFIC.received)
    taken = None if carried is None else read_carried(carried, spec, region)
    for tries in itertools.count(1):
        try:
            blocks, composites = _blocks(spec, source, region, taken)
            break
        except WorkFailedError:
            if tries == TILE_TRIES:
                raise
            time.sleep(random.uniform(0, _TILE_PAUSE * 2 ** (tries - 1)))
    lost = tuple(one for told in composites for one in told.lost)
    is_stored = keeps_lossy or not lost
    if is_stored:
        if taken is None or len(taken.scenes) < len(spec.periods):  # or it is finished already
            blocks = finish.apply(blocks, periods=spec.periods, bands=spec.bands)
        ledger = Ledger(store=path, inputs=inputs.fingerprint, mark=mark)
        ledger.forget_others(region)
        if ledger.record_of(region).get("lost"):  # what is made now may be whole
            ledger.forget(region)
        write_region(path, region, blocks)
        ledger.record(
            region,
            {
                "digest": digest(*blocks.layers.values()),
                "reflectance_digest": digest(blocks.reflectance),
                "files": count_files(path, region),
                "made_from": inputs.to_json(),
                "scene_list": inputs.scene_list,
                "made_by": MADE_BY,
                "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "scenes": {
                    str(period): list(composite.scenes)
                    for period, composite in zip(spec.periods, composites, strict=True)
                },
                "taken_over": 0 if taken is None else len(taken.scenes),
                **_lost_record(lost),
                "filled_pixels": blocks.is_filled.sum(axis=(1, 2), dtype=np.int64).tolist(),
                "empty_pixels": (blocks.clear_count == 0).sum(axis=(1, 2)).tolist(),
                "seconds": round(time.perf_counter() - started, 3),
            },
        )
    return TileDone(
        process=f"{socket.gethostname()} {os.getpid()}",
        before=before,
        after=(TRAFFIC.requests, TRAFFIC.received),
        seconds=time.perf_counter() - started,
        lost=() if is_stored else lost,
        is_taken_over=taken is not None and len(taken.scenes) == len(spec.periods),
    )


@dataclass(frozen=True, kw_only=True)
class _Told:
    """What a composite says of its scenes; kept without its pixels."""

    scenes: tuple[str, ...]
    lost: tuple[LostScene, ...]


def _blocks(
    spec: CubeSpec, source: PeriodSource, region: Region, taken: CarriedBlocks | None
) -> tuple[CubeBlocks, list[_Told]]:
    """(the pixels of a tile, what each of its composites was made of)."""
    blocks = CubeBlocks.empty(len(spec.periods), len(spec.bands), region.height, region.width)
    told = []
    known = {} if taken is None else taken.scenes
    if taken is not None:
        for name, layer in blocks.layers.items():
            layer[...] = taken.blocks.layers[name]
    wanted = tuple(period for index, period in enumerate(spec.periods) if index not in known)
    with closing(_composites(source, spec, region, wanted)) as composites:
        for index, period in enumerate(spec.periods):
            if index in known:
                told.append(_Told(scenes=known[index], lost=()))
                continue
            with _placed(f"tile {region.id}, {period}"):
                composite = next(composites)
            blocks.reflectance[index] = composite.reflectance
            blocks.clear_count[index] = composite.clear_count
            blocks.clear_share[index] = clear_share(
                composite.clear_count, composite.seen_count, has_lost=bool(composite.lost)
            )
            blocks.mean_day[index] = composite.mean_day
            told.append(_Told(scenes=composite.scenes, lost=composite.lost))
    return blocks, told


def _composites(
    source: PeriodSource, spec: CubeSpec, region: Region, periods: tuple[Period, ...]
) -> Generator[Composite]:
    window = region.window(spec.geobox)
    if isinstance(source, SeriesSource) and periods:
        return source.series(periods, window, spec.bands)
    return (source.composite(period, window, spec.bands) for period in periods)


@contextmanager
def _placed(place: str) -> Iterator[None]:
    """Raise errors again with the place they are of."""
    try:
        yield
    except WorkFailedError as error:
        raise WorkFailedError(f"{place}: {error}") from None
    except InputError as error:
        # without its cause: what GDAL raises does not survive the way back from a worker
        raise InputError(f"{place}: {error}") from None
    except MemoryError:
        raise
    except OSError as error:  # the tile may be done again
        number = () if error.errno is None else (error.errno,)
        raise OSError(*number, f"{place}: {error}") from None
    except Exception as error:  # noqa: BLE001 - raised again with its place
        raise RuntimeError(f"{place}: {type(error).__name__}: {error}") from None
