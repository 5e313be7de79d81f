"""A plan and a machine in, what cannot fit out, with the settings that would."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from dask.utils import parse_bytes
from distributed.system import MEMORY_LIMIT

from cube.errors import InputError
from cube.spec import CubeSpec
from pipelines.amounts import bytes_text
from pipelines.memory import Memory
from pipelines.recipe import Recipe

PROGRAM_BYTES = 400 * 10**6
"""What a process holds before it works on a tile: Python and its libraries."""

_MEMORY_KEYS = ("memory", "memory_limit", "worker_memory")
"""Names under which kinds of cluster take the memory of a worker, in `cluster.options`."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """How much memory there is, and who shares it."""

    size: int
    """Bytes."""
    tiles: int
    """Tiles that are under way at once in it."""
    processes: int
    """Processes that share it."""
    where: str
    """Whose it is, for messages."""

    def takes(self, memory: Memory, *, tiles: int | None = None) -> bool:
        """Say whether so many tiles fit; processes are as many as tiles where those are fewer."""
        tiles = self.tiles if tiles is None else tiles
        processes = min(self.processes, tiles)
        need = memory.total(tiles=tiles, processes=processes) + PROGRAM_BYTES * processes
        return need <= self.size


def room_of(recipe: Recipe, *, tiles: int, processes: int) -> Room | None:
    """Return the memory in which `tiles` are under way, None where nobody knows it.

    That of this machine (or of its control group), or of a worker where `cluster.options` says it.
    """
    section = recipe.cluster
    if not section.is_elsewhere:
        return Room(size=MEMORY_LIMIT, tiles=tiles, processes=processes, where="this machine")
    found = next((section.options[key] for key in _MEMORY_KEYS if key in section.options), None)
    if found is None:
        return None
    try:
        size = parse_bytes(found)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"cluster.options has memory = {str(found)[:40]!r}; expected e.g. '16GB'"
        ) from error
    here = section.options.get("processes", 1)
    threads = section.options.get("cores", here)
    counts = [value for value in (here, threads) if isinstance(value, int) and value >= 1]
    if len(counts) < 2:
        return None
    return Room(size=size, tiles=counts[1], processes=counts[0], where="a job of the cluster")


def refuse_too_large(
    spec: CubeSpec, memory_of: Callable[[CubeSpec], Memory], room: Room | None
) -> None:
    """Raise `InputError` if the tiles under way do not fit; it names the settings that would."""
    if room is None or room.takes(memory_of(spec)):
        return
    memory = memory_of(spec)
    need = memory.total(tiles=room.tiles, processes=room.processes)
    fewer = next((n for n in range(room.tiles - 1, 0, -1) if room.takes(memory, tiles=n)), None)
    smaller = _smaller_tile(spec, memory_of, room)
    ways = []
    if fewer is not None:
        here = room.where == "this machine"
        ways.append(f"cluster.workers = {fewer}" if here else f"{fewer} of cluster.options.cores")
    if smaller is not None:
        ways.append(
            f"composite.tile = {smaller}"
            + (f" with composite.chunk = {smaller}" if smaller % spec.chunk else "")
        )
    advice = " or ".join(ways) or "a machine with more memory, or fewer periods or bands"
    raise InputError(
        f"{room.tiles} tiles of {spec.tile} at once need up to {bytes_text(need)} beside the "
        f"programs, {room.where} has {bytes_text(room.size)}; what fits: {advice}"
    )


def _smaller_tile(
    spec: CubeSpec, memory_of: Callable[[CubeSpec], Memory], room: Room
) -> int | None:
    """Return the largest tile that fits: a multiple of the chunk, or a half of it, a quarter …"""
    sizes: list[int] = [*range(spec.tile - spec.chunk, 0, -spec.chunk)]
    sizes += [half for n in range(1, 5) if (half := int(spec.chunk // 2**n)) >= 16]
    for size in sizes:
        chunk = spec.chunk if size >= spec.chunk else size
        if room.takes(memory_of(replace(spec, tile=size, chunk=chunk, touched=None))):
            return size
    return None


def disk_warning(folder: Path, *, most: int, likely: int) -> str | None:
    """Return a warning if the disk of `folder` may fill up, None if there is room for the `most`.

    Raises `InputError` if not even the bytes that are `likely` after compression fit.
    """
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if most <= free:
        return None
    if likely <= free:
        return (
            f"the stores take up to {bytes_text(most)}, about {bytes_text(likely)} when compressed; "
            f"{bytes_text(free)} are free at {str(folder)!r}"
        )
    raise InputError(
        f"the stores take about {bytes_text(likely)} when compressed, {bytes_text(free)} are free at "
        f"{str(folder)!r}: choose another outputs.folder, a coarser grid.resolution, fewer bands or "
        "a smaller area"
    )
