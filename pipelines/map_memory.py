"""The sizes of a cube's tile and of a network in, the bytes a map needs at most out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cube.spec import CubeSpec
from pipelines.memory import Memory, tile_pixels

if TYPE_CHECKING:
    from model.config import TrainConfig
    from model.networks import Network

PROCESS_BYTES = 8 * 1024**2
"""What the allocator keeps of a process's memory that is free again."""

THREAD_BYTES = 8 * 1024**2
"""The same of a thread that computes."""

_OWN_PART, _DEVICE_PART = 3072, 32768
"""Pixels that an engine is asked about at once: of a processor, of a device."""

_OWN_BATCH, _TORCH_BATCH, _TEST_BATCH = 192, 512, 32
"""Sequences that a network reads at once: our kernels', PyTorch's, in the test of an engine."""

_COMPARED = 512
"""Sequences whose distances to training sequences are in memory at once."""

_WHOLE_UNITS = 32
"""What our kernels fill the units of a layer up to a multiple of."""

_MOST_WAVES = 7
"""Coefficients that a feature's year is reduced to at most, to compare it with training ones."""

_FLOAT = 4


@dataclass(frozen=True, kw_only=True)
class NetworkSizes:
    """What a classifier's networks take, as far as memory depends on it."""

    classes: int
    """Classes that they tell apart."""
    weights: int
    """Bytes of the weights of one network."""
    packed: int
    """Bytes of the same as our kernels hold them."""
    area: int
    """Bytes of what was learned of where the classifier may be applied."""
    members: int
    """Networks whose probabilities are averaged."""
    widest: int
    """Most values that a step of a sequence has between two layers."""
    features: int
    """Values of a step that the networks are given."""
    hidden: int
    """Values before the heads of all networks."""
    prototypes: int
    """Training sequences that `applicable` compares a pixel with at most."""


def network_sizes(config: "TrainConfig", *, steps: int, classes: int | None = None) -> NetworkSizes:
    """Return the sizes of what `config` describes, for sequences of so many steps; quickly.

    Where `classes` are not known yet, as many as a map can hold are counted.
    """
    import torch  # of a plan with a map only

    from model.certainty.space import MOST_PROTOTYPES
    from model.classifier import MOST_CLASSES
    from model.networks import build_network

    classes = MOST_CLASSES if classes is None else classes
    features = len(config.features)
    channels = features + config.mask_input + 2 * config.calendar_input

    def built(hidden: int) -> "Network":
        settings = replace(config, hidden=hidden)
        return build_network(settings, channels=channels, classes=classes, steps=steps)

    with torch.device("meta"):  # shapes without memory
        network = built(config.hidden)
        filled = built(-(-config.hidden // _WHOLE_UNITS) * _WHOLE_UNITS)
    directions = 2 if config.architecture == "lstm" and config.bidirectional else 1
    hidden = config.members * network.head.in_features
    return NetworkSizes(
        classes=classes,
        weights=_bytes_of(network),
        packed=_bytes_of(filled),
        area=_FLOAT
        * sum(width * (width + MOST_PROTOTYPES) for width in (_MOST_WAVES * features, hidden)),
        members=config.members,
        widest=max(channels + getattr(network.encoding, "added", 0), config.hidden * directions),
        features=features,
        hidden=hidden,
        prototypes=MOST_PROTOTYPES,
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

    A process: `PROCESS_BYTES` + 2 x arrays (one is the files that a worker was sent) + the larger of
    arrays, while they are read, and of what an engine of ours takes to be made, with

    - arrays = weights of all networks + what was learned of the area of applicability;
    - making: the weights of all networks as kernels hold them, 2 x those of one (in double
      precision, for the test) and 10 x 32 sequences x periods x widest x 8.

    Each tile that computes: `THREAD_BYTES` + 4 x classes x (members + 4) x part, the probabilities
    of the part of the tile that is computed at once (3,072 pixels; 32,768 for a device), and

    - in our kernels: 4 x 192 sequences x (periods + 2) x widest x 4;
    - elsewhere, and for `applicable`: 12 x periods x bands x part, reflectance; in PyTorch the
      weights of one network, as it orders them for a call, + 6 x 512 sequences x periods x widest x 4;
    - for `applicable`: part x (6 x periods x features + 2 x hidden) x 4 + 512 sequences x (training
      sequences + 6 x hidden) x 4.
    """
    times, bands, _, _ = spec.shape
    pixels = tile_pixels(spec)
    block = pixels * times * bands * 2
    reading = 2 * 2 * math.prod(spec.chunks) if spec.sharded else 2 * block
    working = (22 + 3 * (4 + len(layers))) * pixels
    thread = _thread_bytes(network, engine, layers, times=times, bands=bands)
    return Memory(
        tile=block + max(reading, working),
        process=_process_bytes(network, engine, times=times) + thread * computing,
    )


def _process_bytes(network: NetworkSizes, engine: str, *, times: int) -> int:
    arrays = network.members * network.weights + network.area
    making = 0
    if engine != "torch":
        activations = 10 * _TEST_BATCH * times * network.widest * 8
        making = network.members * network.packed + 2 * network.weights + activations
    return PROCESS_BYTES + 2 * arrays + max(arrays, making)


def _thread_bytes(
    network: NetworkSizes, engine: str, layers: Sequence[str], *, times: int, bands: int
) -> int:
    part = _DEVICE_PART if engine in ("cuda", "cuda-fast") else _OWN_PART
    is_asked = "applicable" in layers
    found = THREAD_BYTES + part * network.classes * (network.members + 4) * _FLOAT
    if engine != "torch":
        found += 4 * _OWN_BATCH * (times + 2) * network.widest * _FLOAT
    if engine not in ("exact", "fast") or is_asked:
        found += 12 * part * times * bands
    if engine == "torch" or is_asked:
        found += network.weights + 6 * _TORCH_BATCH * times * network.widest * _FLOAT
    if is_asked:
        found += part * (6 * times * network.features + 2 * network.hidden) * _FLOAT
        found += _COMPARED * (network.prototypes + 6 * network.hidden) * _FLOAT
    return found


def _bytes_of(network: "Network") -> int:
    return _FLOAT * sum(weight.numel() for weight in network.parameters())
