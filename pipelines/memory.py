"""The size of a tile and of its looks in, the bytes a worker needs at most out."""

import resource
import sys
from dataclasses import dataclass

from cube.spec import CubeSpec

BLOCK_BYTES = 2 * 2 * 1024**2
"""A block of a file on its way: 1024 x 1024 pixels, the most archives take, before and after its
predictor is undone."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What building or mapping takes at most, beside the program itself."""

    tile: int
    """Bytes of each tile that is under way."""
    process: int = 0
    """Bytes of each process, whatever the number of its tiles."""

    def total(self, *, tiles: int, processes: int) -> int:
        """Return the bytes of so many tiles at once in so many processes."""
        return self.tile * tiles + self.process * processes


@dataclass(frozen=True, kw_only=True)
class LookSizes:
    """How the looks of a period are read and reduced."""

    looks: int
    """Looks of the fullest period."""
    buffer: int
    """Most bytes that their reflectance may take at once; of more, a tile is made in strips."""
    margin: int = 0
    """Pixels round a tile that are read with it."""
    extra_bands: int = 0
    """Bands that are read beside those of the cube."""
    scratch: int = 0
    """Bytes that screen and method need for each pixel of a look."""
    finer_bands: float = 1.0
    """Pixels of a band's file for one of the cube."""
    finer_mask: float = 1.0
    """Pixels of a mask's file for one of the cube."""
    in_flight: int = 1
    """Files that a process reads at once."""
    kept: int = 0
    """Compressed bytes that a process keeps for its other tiles."""


def strips_of(spec: CubeSpec, sizes: LookSizes) -> int:
    """Return into how many strips at least a tile is cut in the fullest period."""
    return -(-_looks_bytes(spec, sizes) // sizes.buffer)


def scenes_memory(spec: CubeSpec, sizes: LookSizes, *, is_finished: bool) -> Memory:
    """Return the most memory of a tile that is made of scenes of a catalogue.

    A tile: 2 x series + 2 x composite + looks + masks, and 3 x series where it is finished
    (screened or filled), with

    - series = pixels x periods x (2 x bands + 2 + 1 + 2 + 1): int16 reflectance, clear count,
      share, mean day, whether filled; as made and as compressed;
    - composite = pixels x (2 x bands + 2 + 2 + 2): one period, of its strips and joined;
    - looks = 2 x bands x pixels x looks of the fullest period, at most the buffer;
    - masks = (6 + scratch) x pixels x looks: scene classes of two granules, may be clear, seen,
      clear, clear of all looks; of one strip.

    A process: what it keeps of files + files under way x (a block + the window of each: its pixels
    twice, compressed and decoded, of a band in 2 bytes, of a mask in 1). With a margin looks and
    files have as many pixels more.
    """
    times, bands, _, _ = spec.shape
    pixels = tile_pixels(spec)
    series = pixels * times * pixel_bytes(bands)
    composite = pixels * (2 * bands + 6)
    looks_bytes = _looks_bytes(spec, sizes)
    looks = min(looks_bytes, sizes.buffer)
    wide = tile_pixels(spec, margin=sizes.margin)
    in_strip = round(wide * looks / looks_bytes) if looks_bytes else 0
    masks = (6 + sizes.scratch) * in_strip * sizes.looks
    file = round(wide * max(4 * sizes.finer_bands, 2 * sizes.finer_mask))
    return Memory(
        tile=(3 if is_finished else 2) * series + 2 * composite + looks + masks,
        process=sizes.kept + sizes.in_flight * (BLOCK_BYTES + file),
    )


def stack_memory(spec: CubeSpec, looks: int, *, is_finished: bool) -> Memory:
    """Return the most memory of a tile that is made of a stack of the user's own.

    2 x series (3 x where it is finished) + 2 x read + one band, with series as `scenes_memory`;
    read = 2 x bands x pixels x looks of the fullest period, as read and as stacked; one band =
    4 x 8 x pixels x looks: on its way from counts, as four arrays of 8 bytes.
    """
    times, bands, _, _ = spec.shape
    pixels = tile_pixels(spec)
    series = pixels * times * pixel_bytes(bands)
    read = 2 * bands * pixels * looks
    one_band = 4 * 8 * pixels * looks
    return Memory(tile=(3 if is_finished else 2) * series + 2 * read + one_band)


def computed_memory(spec: CubeSpec, *, at_once: int, is_finished: bool) -> Memory:
    """Return the most memory of a tile whose composites a server computes.

    2 x series (3 x where it is finished) + 3 x answer x periods that are `at_once` under way, with
    series as `scenes_memory` and answer = pixels x 2 x (bands + 3): as it came, by band, in place.
    """
    times, bands, _, _ = spec.shape
    pixels = tile_pixels(spec)
    series = pixels * times * pixel_bytes(bands)
    answer = pixels * 2 * (bands + 3)
    return Memory(tile=(3 if is_finished else 2) * series + 3 * answer * min(at_once, times))


def pixel_bytes(bands: int) -> int:
    """Return the bytes of one pixel and period: reflectance and the layers that go with it."""
    return 2 * bands + 2 + 1 + 2 + 1


def _looks_bytes(spec: CubeSpec, sizes: LookSizes) -> int:
    wide = tile_pixels(spec, margin=sizes.margin)
    return 2 * (spec.shape[1] + sizes.extra_bands) * wide * sizes.looks


def tile_pixels(spec: CubeSpec, *, margin: int = 0) -> int:
    """Return the pixels of a whole tile with so many more round it."""
    _, _, height, width = spec.shape
    return (min(spec.tile, height) + 2 * margin) * (min(spec.tile, width) + 2 * margin)


def peak_memory_mb() -> int:
    """Return the largest resident memory of this process so far, in megabytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)
