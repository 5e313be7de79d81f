# mypy: allow-untyped-defs, allow-untyped-calls
"""This machine in, the most it does of what a network's step is made of out: products, copies."""

from collections.abc import Callable

import numba
import numpy as np
import torch
from numba import types
from numba.extending import intrinsic

from model.engines.aligned import aligned_zeros
from model.engines.arithmetic import Arithmetic
from model.engines.block import GATES, Block
from model.engines.cell import lanes_of, rows_of
from model.engines.tiles import (
    ROW_BYTES,
    TILE_BYTES,
    TILES,
    tile_dot,
    tile_load,
    tile_settings,
    tile_store,
    tiles_begin,
    tiles_end,
)

PIXELS = 192
REPEATS = 40


@intrinsic
def _sums_block(typing_context, arithmetic, left, row, depth, weights, sums):
    """Add a product to a block's sums, without what makes states of them."""

    def generate(context, builder, signature, arguments):
        _, left, row, depth, weights, sums = arguments
        cls = arithmetic.instance_class
        block = Block(builder, cls, rows=cls.rows)
        size = cls.rows * GATES
        places = [block.address(sums, cls.lanes * number) for number in range(size)]
        begun = [block.vectors.load(builder, place) for place in places]
        one = depth.type(1)
        grown, _ = block.product(begun, left, row, one, weights, depth, pairs=cls.pairs)
        for place, value in zip(places, grown, strict=True):
            block.vectors.store(builder, value, place)
        return context.get_dummy_value()

    return types.void(arithmetic, *[types.intp] * 5), generate


@numba.njit(nogil=True)
def _vector_products(arithmetic, left, weights, sums, repeats):
    rows, lanes = rows_of(arithmetic), lanes_of(arithmetic)
    for _ in range(repeats):
        for strip in range(len(weights)):
            for row in range(0, len(left), rows):
                _sums_block(
                    arithmetic,
                    left[row].ctypes.data,
                    left.shape[1],
                    left.shape[1],
                    weights[strip].ctypes.data,
                    sums[strip].ctypes.data + 4 * row * 4 * lanes,
                )


@numba.njit(nogil=True)
def _tile_products(arithmetic, file, left, weights, sums, settings, repeats):
    tiles_begin(arithmetic, settings.ctypes.data)
    stride = 2 * left.shape[1]
    for _ in range(repeats):
        for strip in range(len(weights)):
            for row in range(0, len(left), 32):
                for half in range(2):
                    place = sums[strip].ctypes.data + (row // 32 * 2 + half) * 4 * TILE_BYTES
                    tile_load(arithmetic, file, 0, place, ROW_BYTES)
                    tile_load(arithmetic, file, 1, place + TILE_BYTES, ROW_BYTES)
                    tile_load(arithmetic, file, 2, place + 2 * TILE_BYTES, ROW_BYTES)
                    tile_load(arithmetic, file, 3, place + 3 * TILE_BYTES, ROW_BYTES)
                    for tile in range(weights.shape[1]):
                        at = left[row].ctypes.data + tile * ROW_BYTES
                        right = weights[strip, tile].ctypes.data + 2 * half * TILE_BYTES
                        tile_load(arithmetic, file, 4, at, stride)
                        tile_load(arithmetic, file, 6, right, ROW_BYTES)
                        tile_dot(arithmetic, file, 0, 4, 6)
                        tile_load(arithmetic, file, 5, at + 16 * stride, stride)
                        tile_dot(arithmetic, file, 1, 5, 6)
                        tile_load(arithmetic, file, 7, right + TILE_BYTES, ROW_BYTES)
                        tile_dot(arithmetic, file, 2, 4, 7)
                        tile_dot(arithmetic, file, 3, 5, 7)
                    tile_store(arithmetic, file, 0, place, ROW_BYTES)
                    tile_store(arithmetic, file, 1, place + TILE_BYTES, ROW_BYTES)
                    tile_store(arithmetic, file, 2, place + 2 * TILE_BYTES, ROW_BYTES)
                    tile_store(arithmetic, file, 3, place + 3 * TILE_BYTES, ROW_BYTES)
    tiles_end(arithmetic)


def own_products(arithmetic: Arithmetic, hidden: int) -> tuple[Callable[[], object], float]:
    """Return a run of nothing but products of states by weights, and the operations it does."""
    work = 2.0 * REPEATS * PIXELS * hidden * GATES * hidden
    if arithmetic.tiles:
        file = aligned_zeros(TILES, 16, 16, dtype=np.uint32)
        left = aligned_zeros(PIXELS, hidden, dtype=np.uint16)
        tiled = aligned_zeros(hidden // 16, hidden // 32, GATES, 512, dtype=np.uint16)
        sums = aligned_zeros(hidden // 16, PIXELS * GATES * 16)
        settings = tile_settings()
        return lambda: _tile_products(arithmetic, file, left, tiled, sums, settings, REPEATS), work
    words = hidden // (1 + arithmetic.pairs)
    lanes = arithmetic.lanes
    left = aligned_zeros(PIXELS, words)
    weights = aligned_zeros(hidden // lanes, words, GATES * lanes)
    sums = aligned_zeros(hidden // lanes, PIXELS * GATES * lanes)
    return lambda: _vector_products(arithmetic, left, weights, sums, REPEATS), work


def torch_products(kind: torch.dtype, hidden: int) -> tuple[Callable[[], object], float]:
    """Return the same by `torch.matmul`, of 512 pixels."""
    left, right = torch.zeros(512, hidden, dtype=kind), torch.zeros(hidden, 4 * hidden, dtype=kind)
    out = torch.zeros(512, 4 * hidden, dtype=kind)

    def run() -> None:
        for _ in range(REPEATS // 2):
            torch.matmul(left, right, out=out)

    return run, 2.0 * (REPEATS // 2) * 512 * hidden * 4 * hidden


def copies(megabytes: int = 128) -> tuple[Callable[[], object], float]:
    """Return a run that copies memory, and the bytes it copies."""
    source = np.ones(megabytes << 20, np.uint8)
    target = np.empty_like(source)
    return lambda: np.copyto(target, source), float(source.nbytes)
