"""The size of a tile and of its looks in, the bytes a worker needs at most out."""

import math
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cube.spec import CubeSpec

if TYPE_CHECKING:
    from model.config import TrainConfig

BLOCK_BYTES = 2 * 2 * 1024**2
"""A block of a file on its way: 1024 x 1024 pixels, the most archives take, before and after its
predictor is undone."""


COMPUTING_BYTES = 32 * 1024**2
"""What a thread that computes has of a tile's pixels at once, a few thousand, with what is between
reflectance and class; beside what grows with the network."""

TORCH_BYTES = 48 * 1024**2
"""What PyTorch keeps for a thread that computes: its libraries' buffers, whatever the network."""

_OWN_PART, _DEVICE_PART = 3072, 32768
"""Pixels that an engine is asked about at once: of a processor, of a device."""

_OWN_BATCH, _TORCH_BATCH = 192, 512
"""Sequences that a network reads at once: our kernels', PyTorch's."""

_PROTOTYPES = 2000
"""Training sequences that `applicable` compares a pixel with at most."""

_FLOAT = 4


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
    pixels = _tile_pixels(spec)
    series = pixels * times * pixel_bytes(bands)
    composite = pixels * (2 * bands + 6)
    looks_bytes = _looks_bytes(spec, sizes)
    looks = min(looks_bytes, sizes.buffer)
    wide = _tile_pixels(spec, margin=sizes.margin)
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
    pixels = _tile_pixels(spec)
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
    pixels = _tile_pixels(spec)
    series = pixels * times * pixel_bytes(bands)
    answer = pixels * 2 * (bands + 3)
    return Memory(tile=(3 if is_finished else 2) * series + 3 * answer * min(at_once, times))


@dataclass(frozen=True, kw_only=True)
class NetworkSizes:
    """What a classifier's networks take, as far as memory depends on it."""

    weights: int
    """Bytes of the weights of one network."""
    members: int
    """Networks whose probabilities are averaged."""
    widest: int
    """Most values that a step of a sequence has between two layers."""
    features: int
    """Values of a step that the networks are given."""
    hidden: int
    """Values before the heads of all networks."""


def network_sizes(config: "TrainConfig", *, steps: int) -> NetworkSizes:
    """Return the sizes of what `config` describes, for sequences of so many steps; quickly.

    As many classes as a map can hold are counted.
    """
    import torch  # of a plan with a map only

    from model.classifier import MOST_CLASSES
    from model.networks import build_network

    features = len(config.features)
    channels = features + config.mask_input + 2 * config.calendar_input
    with torch.device("meta"):  # shapes without memory
        network = build_network(config, channels=channels, classes=MOST_CLASSES, steps=steps)
    directions = 2 if config.architecture == "lstm" and config.bidirectional else 1
    return NetworkSizes(
        weights=_FLOAT * sum(weight.numel() for weight in network.parameters()),
        members=config.members,
        widest=max(channels + getattr(network.encoding, "added", 0), config.hidden * directions),
        features=features,
        hidden=config.members * network.head.in_features,
    )


def expected_engine(config: "TrainConfig", asked: str) -> str:
    """Return what will compute the maps of a network of `config` here, if it passes its test."""
    if asked == "torch":
        return asked
    if asked in ("auto", "cuda", "cuda-fast"):
        from model.engines.device_access import DeviceError, find_device

        try:
            find_device()
        except DeviceError:
            asked = "exact"
        else:
            return "cuda" if asked == "auto" else asked
    return asked if config.architecture == "lstm" else "torch"


def map_memory(
    spec: CubeSpec,
    *,
    computing: int,
    network: NetworkSizes,
    engine: str = "exact",
    layers: Sequence[str] = (),
) -> Memory:
    """Return the most memory of a tile that is mapped while as many as `computing` compute.

    `engine` is what computes (`expected_engine`); `layers` are those of `cube.mapstore.EXTRA_LAYERS`
    that the map has. A simple model's own arrays (trees, training samples) and what a device's
    driver keeps are not in it, nor PyTorch in place of an engine that fails its test.

    A tile: block + the larger of what reading takes beside it and of (22 + 3 x layers) x pixels
    while it is classified and written, with

    - block = pixels x periods x bands x 2: int16 reflectance;
    - reading: 2 x chunk, as stored and as decoded; 2 x block where Zarr decodes what is no shard;
    - 22 bytes a pixel: how often it is clear, whether and where it is classified; and each layer, of
      which there are four and the extra ones, as made, stacked and compressed.

    A process: `TORCH_BYTES`, 3 x weights of all networks (in PyTorch, in the order in which an
    engine reads them, and while they are read from their file), 2 x those of one network (in double
    precision while an engine is tested), and for each tile that computes

    - `COMPUTING_BYTES` + 12 x periods x bands + 16 x 254 classes x part: reflectance of the part of
      the tile that is computed at once (3,072 pixels; 32,768 for a device) and its probabilities;
    - in our kernels: 4 x 192 sequences x (periods + 2) x widest x 4;
    - in PyTorch, where it is the engine or `applicable` is asked for: `TORCH_BYTES` + the weights of
      one network, as it orders them for a call, + 6 x 512 sequences x periods x widest x 4;
    - for `applicable`: part x (2 x 2,000 training sequences + 6 x periods x features + 5 x hidden)
      x 4; and hidden x (2 x hidden + 2,000) x 4 of the process.
    """
    times, bands, _, _ = spec.shape
    pixels = _tile_pixels(spec)
    block = pixels * times * bands * 2
    reading = 2 * 2 * math.prod(spec.chunks) if spec.sharded else 2 * block
    process = TORCH_BYTES + (3 * network.members + 2) * network.weights
    part = _DEVICE_PART if engine in ("cuda", "cuda-fast") else _OWN_PART
    thread = COMPUTING_BYTES + part * (12 * times * bands + 16 * 254)
    thread += 4 * _OWN_BATCH * (times + 2) * network.widest * _FLOAT
    if engine == "torch" or "applicable" in layers:
        thread += TORCH_BYTES + network.weights
        thread += 6 * _TORCH_BATCH * times * network.widest * _FLOAT
    if "applicable" in layers:
        per_pixel = 2 * _PROTOTYPES + 6 * times * network.features + 5 * network.hidden
        thread += part * per_pixel * _FLOAT
        process += network.hidden * (2 * network.hidden + _PROTOTYPES) * _FLOAT
    return Memory(
        tile=block + max(reading, (22 + 3 * (4 + len(layers))) * pixels),
        process=process + thread * computing,
    )


def pixel_bytes(bands: int) -> int:
    """Return the bytes of one pixel and period: reflectance and the layers that go with it."""
    return 2 * bands + 2 + 1 + 2 + 1


def _looks_bytes(spec: CubeSpec, sizes: LookSizes) -> int:
    wide = _tile_pixels(spec, margin=sizes.margin)
    return 2 * (spec.shape[1] + sizes.extra_bands) * wide * sizes.looks


def _tile_pixels(spec: CubeSpec, *, margin: int = 0) -> int:
    _, _, height, width = spec.shape
    return (min(spec.tile, height) + 2 * margin) * (min(spec.tile, width) + 2 * margin)


def peak_memory_mb() -> int:
    """Return the largest resident memory of this process so far, in megabytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)
