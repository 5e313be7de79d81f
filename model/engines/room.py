"""A model as kernels read it in, the memory in which a thread computes a block of pixels out."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from model.engines.aligned import aligned_copy, aligned_zeros
from model.engines.reading import ATTENTION_MAX, LAST
from model.engines.tile_layer import DEPTH, SUMS_BYTES
from model.engines.tiles import TILES, tile_settings
from model.networks.kernel import COLUMNS

if TYPE_CHECKING:
    from model.engines.compiled import CompiledModel

BLOCK = 192
"""Pixels in a block: their states of a step and a strip of weights fit a core's second cache. A
multiple of the rows that every kernel has."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Room:
    """Memory for a block, reused for all blocks of a thread."""

    values: np.ndarray
    """(time, band, pixel) float32."""
    registers: np.ndarray
    """(register, pixel) float64, the constants in their places."""
    inputs: np.ndarray
    """(time, feature and mask, pixel) float32."""
    turned: np.ndarray
    """(time, pixel, value) bfloat16: the inputs as tiles take them; else of no value."""
    tiles: tuple[np.ndarray, ...]
    """What tiles need beside: those of the emulation, room for sums, settings; else nothing."""
    located: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Places (int32) in the tables and shares of two entries, (time, feature, pixel)."""
    nowhere: tuple[np.ndarray, np.ndarray, np.ndarray]
    """The same of no feature."""
    cell: np.ndarray
    """(pixel, unit) float32."""
    states: tuple[np.ndarray, np.ndarray]
    """(time + 2, pixel, unit of all directions), of layers in turns."""
    no_states: np.ndarray
    """The same of no unit."""
    plain: np.ndarray
    """(time, pixel, unit) float32: states that are pooled, where they are not those above."""
    no_plain: np.ndarray
    """The same of no step."""
    shares: np.ndarray
    """(pixel, time) float32."""
    vectors: np.ndarray
    """(pixel, value) float32."""
    panel: np.ndarray
    """(pixel, column of a panel) float32."""
    scores: np.ndarray
    """(pixel, class) float32."""

    @classmethod
    def of(cls, model: "CompiledModel") -> "Room":
        """Return memory for blocks of `model`."""
        program, network = model.program, model.networks[0]
        features, steps = len(program.outputs), model.steps
        arithmetic = model.arithmetic
        units = network.width * len(network.layers[0])
        stored = units * (1 + arithmetic.split)
        kind = np.uint16 if arithmetic.pairs else np.float32
        kept = {True: 1, False: steps if arithmetic.pairs else 0}[network.pooling == LAST]
        registers = aligned_zeros(program.registers, BLOCK, dtype=np.float64)
        constants = registers[len(program.bands) : len(program.bands) + len(program.constants)]
        constants[:] = program.constants[:, None]

        turned = 0
        if arithmetic.tiles and network.points is None:
            turned = whole(len(model.taken) * (features + model.has_mask), DEPTH)

        def located(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            shape = (steps, count, BLOCK)
            places = aligned_zeros(*shape, dtype=np.int32)
            return places, aligned_zeros(*shape), aligned_zeros(*shape)

        return cls(
            values=aligned_zeros(steps, len(program.bands), BLOCK),
            registers=registers,
            inputs=aligned_zeros(steps, features + 1, BLOCK),
            turned=aligned_zeros(steps, BLOCK, turned, dtype=np.uint16),
            tiles=(
                aligned_zeros(TILES, 16, 16, dtype=np.uint32),
                aligned_zeros(2 * SUMS_BYTES, dtype=np.uint8),
                aligned_copy(tile_settings()),
            )
            if arithmetic.tiles
            else (),
            located=located(features if network.points is not None else 0),
            nowhere=located(0),
            cell=aligned_zeros(BLOCK, network.width),
            states=(
                aligned_zeros(steps + 2, BLOCK, stored, dtype=kind),
                aligned_zeros(
                    steps + 2, BLOCK, stored if len(network.layers) > 1 else 0, dtype=kind
                ),
            ),
            no_states=aligned_zeros(steps + 2, BLOCK, 0, dtype=kind),
            plain=aligned_zeros(kept, BLOCK, units),
            no_plain=aligned_zeros(0, BLOCK, units),
            shares=aligned_zeros(BLOCK, steps),
            vectors=aligned_zeros(BLOCK, units * (1 + (network.pooling == ATTENTION_MAX))),
            panel=aligned_zeros(BLOCK, COLUMNS),
            scores=aligned_zeros(BLOCK, model.classes),
        )


def whole(count: int, of: int) -> int:
    """Return the next multiple."""
    return -(-count // of) * of
