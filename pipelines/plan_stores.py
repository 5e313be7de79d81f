"""A cube's spec in, what its stores will take out: chunks, objects, bytes, before and after packing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from cube.mapstore import LAYERS
from cube.spec import CubeSpec
from cube.touched import numbers_of
from pipelines.memory import pixel_bytes

PACKED_SHARE = 0.5
"""Share of its bytes that a cube takes when compressed, where nothing was measured: reflectance
alone takes about 0.7, its counts and flags hardly any, months without a look none."""

_CUBE_ARRAYS = 5
"""Arrays of a cube with pixels: reflectance, clear count and share, mean day, what is filled."""


@dataclass(frozen=True, kw_only=True)
class StoreSize:
    """What a store takes at most."""

    chunks: int
    """Chunks of all its arrays."""
    objects: int
    """Files, or objects: shards or chunks, and a record a tile."""
    size: int
    """Bytes before compression."""


def cube_size(spec: CubeSpec) -> StoreSize:
    """Return what the cube takes; periods of a tile without any look take nothing of it."""
    times, bands, _, _ = spec.shape
    chunks = int(_chunks_by_tile(spec).sum()) * times * _CUBE_ARRAYS
    shards = spec.tile_count * _CUBE_ARRAYS
    return StoreSize(
        chunks=chunks,
        objects=(shards if spec.sharded else chunks) + spec.tile_count,
        size=spec.pixel_count * times * pixel_bytes(bands),
    )


def map_size(spec: CubeSpec, *, layers: Sequence[str] = ()) -> StoreSize:
    """Return what a map of the cube takes that has so many extra `layers`."""
    arrays = 1 + len(LAYERS) + len(layers)
    chunks = int(_chunks_by_tile(spec).sum()) * arrays
    shards = spec.tile_count * arrays
    return StoreSize(
        chunks=chunks,
        objects=(shards if spec.zarr_format == 3 else chunks) + spec.tile_count,
        size=spec.pixel_count * arrays,
    )


def _chunks_by_tile(spec: CubeSpec) -> Int64[np.ndarray, " tile"]:
    """Return how many chunks of one layer each tile of the cube has."""
    height, width = spec.shape[2:]
    across = -(-width // spec.tile)
    runs = (0, spec.grid_tiles) if spec.touched is None else spec.touched
    row, column = np.divmod(numbers_of(runs), across)
    down, right = (
        -(-np.minimum(spec.tile, size - number * spec.tile) // spec.chunk)
        for number, size in ((row, height), (column, width))
    )
    return np.asarray(down * right)
