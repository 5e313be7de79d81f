"""A made-up cube in, figures for each way to store it out: which chunks, shards and codec to take.

Run with `python -m tests.benchmarks.layout [--json]`; the rule that picks one is in RESULTS.md.
Reads come from the page cache, so seconds are those of the processor; what a disk or an object
store would add follows from the requests, which are counted.
"""

import argparse
import itertools
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from scipy.ndimage import gaussian_filter
from zarr.abc.store import ByteRequest
from zarr.codecs import BloscCodec, BloscShuffle
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, WrapperStore

from cube.bands import NODATA
from cube.spec import Region, tile_regions
from tests.benchmarks.rounds import machine, median_seconds, show

MONTHS, BANDS, TILE = 12, 10, 512


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way to store the cube."""

    chunks: tuple[int, int, int, int]
    """Sizes of a chunk in (time, band, y, x)."""
    sharded: bool
    """All chunks of a tile in one object, or one object each."""
    codec: str = "lz4"
    """Blosc's compressor behind bit shuffling."""
    level: int = 5
    """Blosc's compression level."""

    @property
    def name(self) -> str:
        """What the tables call it."""
        kind = "shard" if self.sharded else "plain"
        return f"{kind} {'x'.join(map(str, self.chunks))} {self.codec}"


LAYOUTS = (
    Layout(sharded=True, chunks=(1, BANDS, 256, 256)),
    Layout(sharded=True, chunks=(1, BANDS, 128, 128)),
    Layout(sharded=True, chunks=(MONTHS, BANDS, 128, 128)),
    Layout(sharded=True, chunks=(MONTHS, BANDS, 64, 64)),
    Layout(sharded=False, chunks=(1, BANDS, 512, 512)),
    Layout(sharded=False, chunks=(MONTHS, BANDS, 256, 256)),
    Layout(sharded=False, chunks=(1, BANDS, 256, 256)),
    Layout(sharded=True, chunks=(1, BANDS, 256, 256), codec="zstd", level=3),
    Layout(sharded=True, chunks=(MONTHS, BANDS, 128, 128), codec="zstd", level=3),
)


class CountingStore(WrapperStore[LocalStore]):
    """A store that counts what is asked of it: reads, the bytes they gave, writes."""

    def __init__(self, store: LocalStore) -> None:
        super().__init__(store)
        self.forget()

    def forget(self) -> None:
        """Count from zero."""
        self.reads = self.bytes = self.writes = 0

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Pass on one read, metadata apart."""
        found = await super().get(key, prototype, byte_range)
        if not key.endswith("zarr.json"):
            self.reads += 1
            self.bytes += len(found) if found is not None else 0
        return found

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Pass on several reads, one request each."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def set(self, key: str, value: Buffer) -> None:
        """Pass on one write."""
        self.writes += 1
        await super().set(key, value)


def forest_year(size: int, *, seed: int) -> np.ndarray:
    """Return (time, band, y, x) int16 like a year of forest composites.

    Stands of a few hundred metres, each with a season of its own, softened by the sensor's point
    spread, with noise that leaves what real scenes leave a compressor (about 1.4 to 1); 15 % of
    each month hidden by clouds, January by all of them.
    """
    generator = np.random.default_rng(seed)
    stands = generator.integers(0, 40, (-(-size // 24), -(-size // 24)))
    stands = np.kron(stands, np.ones((24, 24), np.int64))[:size, :size]  # (y, x)
    level = generator.uniform(300, 3500, (40, BANDS))
    season = generator.uniform(0.1, 0.6, (40, BANDS))
    year = np.empty((MONTHS, BANDS, size, size), np.int16)
    for month in range(MONTHS):
        swing = 1 - season * np.cos(2 * np.pi * month / MONTHS)
        clouds = gaussian_filter(generator.standard_normal((size, size)), 25)
        is_hidden = clouds > (np.quantile(clouds, 0.85) if month else -np.inf)
        for band in range(BANDS):
            clean = gaussian_filter((level * swing)[stands, band], 1.0)
            noisy = clean * (1 + 0.06 * generator.standard_normal((size, size), np.float32))
            year[month, band] = np.where(is_hidden, NODATA, np.rint(noisy))
    return year


def allocate(folder: Path, layout: Layout, size: int) -> zarr.Array[Any]:
    """Make an empty array of this layout in `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    return zarr.create_array(
        folder,
        shape=(MONTHS, BANDS, size, size),
        dtype="int16",
        chunks=layout.chunks,
        shards=(MONTHS, BANDS, TILE, TILE) if layout.sharded else None,
        fill_value=NODATA,
        compressors=BloscCodec(
            cname=layout.codec, clevel=layout.level, shuffle=BloscShuffle.bitshuffle
        ),
    )


def write_tile(array: zarr.Array[Any], year: np.ndarray, region: Region) -> None:
    """Write one tile, all months and bands."""
    array[:, :, region.rows, region.columns] = year[:, :, region.rows, region.columns]


def read_tiles(array: zarr.Array[Any], regions: list[Region]) -> None:
    """Read tiles one after the other, whole, as classifying does."""
    for region in regions:
        array[:, :, region.rows, region.columns]


def measure(size: int, rounds: int) -> list[dict[str, Any]]:
    """Return one row a layout: seconds, requests, bytes."""
    year = forest_year(size, seed=7)
    regions = list(tile_regions((size, size), TILE))
    places = np.random.default_rng(1).integers(0, size, (10, 2)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        paths = {layout.name: Path(folder) / layout.name for layout in LAYOUTS}
        arrays = {layout.name: allocate(paths[layout.name], layout, size) for layout in LAYOUTS}

        def ways(
            action: Callable[[zarr.Array[Any]], object],
        ) -> dict[str, Callable[[], object]]:
            return {name: lambda array=array: action(array) for name, array in arrays.items()}

        def write_fresh(layout: Layout) -> None:
            # what was there goes first: zarr reads an old shard before it replaces it
            arrays[layout.name] = allocate(paths[layout.name], layout, size)
            for region in regions:
                write_tile(arrays[layout.name], year, region)

        write = median_seconds(
            {layout.name: lambda layout=layout: write_fresh(layout) for layout in LAYOUTS},
            rounds=max(rounds // 2, 1),
        )
        for array in arrays.values():
            assert np.array_equal(array[:], year)
        tiles = ways(lambda array: read_tiles(array, regions))
        tile = median_seconds(tiles, rounds=rounds)
        processor = median_seconds(tiles, rounds=rounds, clock=time.process_time)
        months = itertools.cycle(range(1, MONTHS))
        month = median_seconds(ways(lambda array: array[next(months)]), rounds=rounds)
        series = median_seconds(
            ways(lambda array: [array[:, :, y, x] for y, x in places]), rounds=rounds
        )
        rows = []
        for layout in LAYOUTS:
            name = layout.name
            objects = [
                file
                for file in paths[name].rglob("*")
                if file.is_file() and file.name != "zarr.json"
            ]
            stored = sum(file.stat().st_size for file in objects)
            count = counter(paths[name])
            rows.append(
                {
                    "layout": name,
                    "write, s/tile": write[name] / len(regions),
                    "read, s/tile": tile[name] / len(regions),
                    "read, processor s/tile": processor[name] / len(regions),
                    "month, s": month[name],
                    "pixel, ms": 1e3 * series[name] / len(places),
                    "objects a tile": len(objects) / len(regions),
                    "MB": stored / 1e6,
                    "ratio": year.nbytes / stored,
                    "requests (MB) tile": count(lambda array: read_tiles(array, regions[:1])),
                    "month": count(lambda array: array[5]),
                    "pixel": count(lambda array: array[:, :, 100, 100]),
                }
            )
    return rows


def counter(path: Path) -> Callable[[Callable[[zarr.Array[Any]], object]], str]:
    """Return a function that tells the requests and megabytes that reading something takes."""
    store = CountingStore(LocalStore(path, read_only=True))
    array = zarr.open_array(store, mode="r", zarr_format=3)

    def count(action: Callable[[zarr.Array[Any]], object]) -> str:
        store.forget()
        action(array)
        return f"{store.reads} ({store.bytes / 1e6:.1f})"

    return count


def count_writes(size: int) -> list[dict[str, Any]]:
    """Return what zarr reads and writes for a tile, and for one that the image's edge cuts."""
    year = forest_year(size, seed=7)
    whole, *_, cut = tile_regions((size, size), TILE)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        allocate(Path(folder) / "array", LAYOUTS[0], size)
        store = CountingStore(LocalStore(Path(folder) / "array"))
        array = zarr.open_array(store, mode="r+", zarr_format=3)
        for place, region in (("whole", whole), ("cut by the edge", cut)):
            for turn in ("first", "second"):
                store.forget()
                write_tile(array, year, region)
                rows.append(
                    {
                        "tile": f"{place}, {region.height} x {region.width}",
                        "time": turn,
                        "reads": store.reads,
                        "MB read": store.bytes / 1e6,
                        "writes": store.writes,
                    }
                )
    return rows


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.layout", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--size", type=int, default=1024, help="edge of the cube in pixels")
    parser.add_argument("--rounds", type=int, default=5, help="rounds a median is taken over")
    parser.add_argument("--concurrency", type=int, help="zarr's async.concurrency")
    parser.add_argument("--threads", type=int, help="zarr's threading.max_workers")
    options = parser.parse_args()
    if options.concurrency is not None:
        zarr.config.set({"async.concurrency": options.concurrency})
    if options.threads is not None:
        zarr.config.set({"threading.max_workers": options.threads})
    title = (
        f"{MONTHS} months, {BANDS} bands, {options.size} x {options.size}, tile {TILE}, medians of "
        f"{options.rounds} rounds (writing {max(options.rounds // 2, 1)})"
    )
    show(
        {
            title: measure(options.size, options.rounds),
            f"What {LAYOUTS[0].name} asks of a store to write a tile": count_writes(TILE + 188),
        },
        where=machine(["zarr", "numcodecs", "numpy"]),
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
