"""A plan in, a finished cube out: one task per tile, whole shards written, each one recorded."""

import itertools
import os
import random
import shutil
import socket
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from dask.delayed import delayed
from distributed import Client

from cube.cog import TRAFFIC
from cube.errors import InputError, WorkFailedError
from cube.finish import Finish
from cube.ledger import Ledger, digest, fingerprint
from cube.source import Composite, LostScene, PeriodSource, SeriesSource
from cube.spec import CubeSpec, Region
from cube.stac.lock import FOUND_BY_LOCK
from cube.store import CubeBlocks, clear_share, count_files, create_cube, write_region
from pipelines.cluster import run_tasks
from pipelines.plan import CubePlan
from pipelines.progress import Reporter

TILE_TRIES = 3
"""Times a tile is begun when files that are there cannot be fetched, each request tried often."""

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
    lost: tuple[LostScene, ...] = ()
    """Scenes for whose loss the tile was not stored."""


def build_cube(
    plan: CubePlan, path: Path, client: Client, reporter: Reporter, *, title: str
) -> dict[str, Any]:
    """Build what is missing of the cube at `path`; return what the report says of it.

    A run that was stopped goes on where it was; a tile with a record for these inputs is not
    touched, unless scenes were lost in it and more were lost than the plan allows. Raises
    `InputError` for data that cannot be read, and leaves no cube behind in which nothing is done;
    `WorkFailedError` if tiles failed, and if more scenes were lost than allowed.
    """
    started = time.perf_counter()
    is_new = not path.exists()
    create_cube(path, plan.spec, title=title)
    ledger = Ledger(store=path, inputs=plan.inputs)
    ledger.prepare()
    regions = plan.spec.regions()
    pending = _pending(plan, path, ledger)
    build = delayed(build_tile, pure=False)
    tasks = {
        region.id: build(
            path,
            plan.spec,
            plan.source,
            region,
            plan.inputs,
            plan.finish,
            keeps_lossy=plan.allowed_losses > 0,
        )
        for region in pending
    }
    done: list[TileDone] = []
    try:
        with reporter.bar("cube", len(regions)) as advance:
            advance(len(regions) - len(pending))

            def note(tile: str, one: TileDone) -> None:
                done.append(one)
                advance(note=tile)

            run_tasks(client, tasks, step="build", on_done=note)
    except InputError:
        if is_new and not ledger.records():
            shutil.rmtree(path)
        raise
    records = ledger.records()
    unstored = {f"unstored {number}": _lost_record(one.lost) for number, one in enumerate(done)}
    lost = lost_scenes({**records, **unstored})
    _refuse_losses(lost, plan.allowed_losses)
    times, bands, height, width = plan.spec.shape
    requests, received = _traffic(done)
    return {
        "path": str(path),
        "shape": {"time": times, "band": bands, "y": height, "x": width},
        "tiles": f"{len(records)} of {len(regions)}",
        "built_now": len(pending),
        "lost_scenes": lost,
        "empty_share_by_period": _shares(plan.spec, records, "empty_pixels"),
        "filled_share_by_period": _shares(plan.spec, records, "filled_pixels"),
        "requests": requests,
        "bytes_read": received,
        "bytes": _size(path),
        "digest": cube_digest(records),
        "seconds": round(time.perf_counter() - started, 2),
    }


def _pending(plan: CubePlan, path: Path, ledger: Ledger) -> list[Region]:
    """Return the tiles that are to be made: without a record, without their files, or too lossy."""
    records = {region: ledger.record_of(region) for region in plan.spec.regions()}
    known = {region.id: record for region, record in records.items() if record}
    is_too_lossy = len(lost_scenes(known)) > plan.allowed_losses
    return [
        region
        for region, record in records.items()
        if not record
        or record["files"] != count_files(path, region)
        or (is_too_lossy and record["lost"])
    ]


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


def _traffic(done: Iterable[TileDone]) -> tuple[int, int]:
    """(requests, bytes) of all processes together, of files that are read directly."""
    by_process: dict[str, list[TileDone]] = {}
    for one in done:
        by_process.setdefault(one.process, []).append(one)
    totals = [
        [
            max(one.after[index] for one in tiles) - min(one.before[index] for one in tiles)
            for index in (0, 1)
        ]
        for tiles in by_process.values()
    ]
    return sum(total[0] for total in totals), sum(total[1] for total in totals)


def _shares(
    spec: CubeSpec, records: Mapping[str, dict[str, Any]], counted: str
) -> dict[str, float]:
    """Return the share of the cube's pixels that the records count, by period."""
    counts = np.zeros(len(spec.periods), np.int64)
    for record in records.values():
        counts += np.array(record[counted])
    total = spec.shape[2] * spec.shape[3]
    pairs = zip(spec.periods, counts, strict=True)
    return {str(period): int(count) / total for period, count in pairs}


def _size(store: Path) -> int:
    """Return the bytes of a store; what a killed writer left over does not count."""
    return sum(
        file.stat().st_size
        for file in store.rglob("*")
        if file.is_file() and ".partial" not in file.name
    )


def cube_digest(records: Mapping[str, dict[str, Any]]) -> str:
    """Return a hash over every tile's pixels, from the records of its ledger."""
    return fingerprint({tile: record["digest"] for tile, record in records.items()})


def build_tile(
    path: Path,
    spec: CubeSpec,
    source: PeriodSource,
    region: Region,
    inputs: str,
    finish: Finish,
    *,
    keeps_lossy: bool = False,
) -> TileDone:
    """Make every period of one tile, write it, record it.

    A tile for which scenes were lost is stored only if it `keeps_lossy`: what lies in its place may
    be whole. Where files cannot be fetched the tile is begun again, `TILE_TRIES` times in all. Errors
    name the tile and the period.
    """
    started, before = time.perf_counter(), (TRAFFIC.requests, TRAFFIC.received)
    for tries in itertools.count(1):
        try:
            blocks, composites = _blocks(spec, source, region)
            break
        except WorkFailedError:
            if tries == TILE_TRIES:
                raise
            time.sleep(random.uniform(0, _TILE_PAUSE * 2 ** (tries - 1)))
    lost = tuple(one for told in composites for one in told.lost)
    is_stored = keeps_lossy or not lost
    if is_stored:
        blocks = finish.apply(blocks, periods=spec.periods, bands=spec.bands)
        ledger = Ledger(store=path, inputs=inputs)
        ledger.forget_others(region)
        write_region(path, region, blocks)
        ledger.record(
            region,
            {
                "digest": digest(*blocks.layers.values()),
                "reflectance_digest": digest(blocks.reflectance),
                "files": count_files(path, region),
                "scenes": [scene for composite in composites for scene in composite.scenes],
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
        lost=() if is_stored else lost,
    )


@dataclass(frozen=True, kw_only=True)
class _Told:
    """What a composite says of its scenes; kept without its pixels."""

    scenes: tuple[str, ...]
    lost: tuple[LostScene, ...]


def _blocks(spec: CubeSpec, source: PeriodSource, region: Region) -> tuple[CubeBlocks, list[_Told]]:
    """(the pixels of a tile, what each of its composites was made of)."""
    blocks = CubeBlocks.empty(len(spec.periods), len(spec.bands), region.height, region.width)
    told = []
    with closing(_composites(source, spec, region)) as composites:
        for index, period in enumerate(spec.periods):
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


def _composites(source: PeriodSource, spec: CubeSpec, region: Region) -> Generator[Composite]:
    window = region.window(spec.geobox)
    if isinstance(source, SeriesSource):
        return source.series(spec.periods, window, spec.bands)
    return (source.composite(period, window, spec.bands) for period in spec.periods)


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
    except Exception as error:  # noqa: BLE001 - raised again with its place
        raise RuntimeError(f"{place}: {type(error).__name__}: {error}") from None
