# mypy: allow-untyped-defs, allow-untyped-calls
"""A few pixels' inputs and last states in, their next states out: one step of an LSTM's units.

The sums of four gates of as many units as a vector has lanes stay in registers from the first
product to the new state. Weights are packed so that they are read once from end to end.
"""

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from model.engines.block import GATE_SCALES, GATES, TABLE_ROWS, TILE_WORDS, Block


@intrinsic
def lanes_of(typing_context, arithmetic):
    """Return how many units a block of `cell_block` has."""
    return _number(arithmetic, arithmetic.instance_class.lanes)


@intrinsic
def rows_of(typing_context, arithmetic):
    """Return how many pixels a block of `cell_block` has."""
    return _number(arithmetic, arithmetic.instance_class.rows)


@intrinsic
def values_per_word(typing_context, arithmetic):
    """Return how many values of a state lie in 32 bits."""
    return _number(arithmetic, 1 + arithmetic.instance_class.pairs)


@intrinsic
def is_split(typing_context, arithmetic):
    """Return 1 if weights and states are two bfloat16 each, else 0."""
    return _number(arithmetic, int(arithmetic.instance_class.split))


def _number(arithmetic, number):
    def generate(context, builder, signature, arguments):
        return ir.Constant(ir.IntType(64), number)

    return types.int64(arithmetic), generate


@intrinsic
def cell_block(
    typing_context, arithmetic,
    start, table, places, low_shares, high_shares, features,
    inputs, input_step, input_depth, below, below_row, below_depth, own, own_row, own_depth,
    weights, cell, cell_row, state, state_row, plain, plain_row,
):  # fmt: skip
    """Compute the next cells and states of a block of pixels and units.

    All but the first are integers: addresses, counts, and distances in words of 32 bits. A strip
    is four vectors, one of each gate, of the block's units.

    - `start`: the strip that sums start with (bias, season).
    - `table`: of strips; for each of `features` the sums grow by two strips that follow each
      other, the first of which lies `places` bytes (int32) behind it, times `low_shares` and
      `high_shares`. These are (feature, pixel), features `input_step` apart. Where tables are
      paired, a strip has pairs of bfloat16, as have the `low_shares`, and one strip is added.
    - `inputs`: (channel, pixel) float32, `input_step` apart, `input_depth` channels.
    - `below`, `own`: states of the layer below and the last ones of this, (pixel, unit), pixels a
      row apart, `depth` words each; pairs of bfloat16 where the arithmetic has them.
    - `weights`: a strip for each channel of the inputs, then for each word of the states.
    - `cell`: (pixel, unit) float32, read and written. `state`: where the next states go, as `own`;
      `plain`: where they also go as float32, 0 for nowhere.
    """
    numbers = (
        start, table, places, low_shares, high_shares, features,
        inputs, input_step, input_depth, below, below_row, below_depth, own, own_row, own_depth,
        weights, cell, cell_row, state, state_row, plain, plain_row,
    )  # fmt: skip
    signature = types.void(arithmetic, *[types.intp] * len(numbers))

    def generate(context, builder, signature, arguments):
        (
            _, start, table, places, low_shares, high_shares, features,
            inputs, input_step, input_depth, below, below_row, below_depth, own, own_row, own_depth,
            weights, cell, cell_row, state, state_row, plain, plain_row,
        ) = arguments  # fmt: skip
        block = Block(builder, arithmetic.instance_class, rows=arithmetic.instance_class.rows)
        sums = block.started(start)
        one = ir.Constant(start.type, 1)
        sums = block.looked_up(sums, table, (places, low_shares, high_shares), input_step, features)
        sums, weights = block.product(
            sums, inputs, one, input_step, weights, input_depth, pairs=False
        )
        for left, row, depth in ((below, below_row, below_depth), (own, own_row, own_depth)):
            sums, weights = block.product(
                sums, left, row, one, weights, depth, pairs=block.arithmetic.pairs
            )
        block.gates(sums, cell, cell_row, state, state_row, plain, plain_row)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def looked_up_block(
    typing_context, arithmetic,
    start, table, places, low_shares, high_shares, features, step, result, result_row,
):  # fmt: skip
    """Write what the sums of `TABLE_ROWS` pixels start with, tables included, to tiles.

    As in `cell_block`; the sums of gate g of a pixel go 256 g words behind `result`, pixels are
    `result_row` words apart.
    """
    signature = types.void(arithmetic, *[types.intp] * 9)

    def generate(context, builder, signature, arguments):
        _, start, table, places, low_shares, high_shares, features, step, result, result_row = (
            arguments
        )
        block = Block(builder, arithmetic.instance_class, rows=TABLE_ROWS)
        sums = block.started(start)
        sums = block.looked_up(sums, table, (places, low_shares, high_shares), step, features)
        for row in range(TABLE_ROWS):
            place = block.address(
                result, builder.mul(result_row, ir.Constant(result_row.type, row))
            )
            for gate in range(GATES):
                at = block.address(place, TILE_WORDS * gate)
                block.vectors.store(builder, sums[GATES * row + gate], at)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def gate_row(typing_context, arithmetic, sums, cell, state, rest, plain):
    """Turn one pixel's sums, which lie in tiles, into its next cells and states.

    All but the first are addresses: of the first gate's sums, 256 words apart; of cells (float32)
    and next states (bfloat16); of what their rounding leaves, for split ones; of the same states
    as float32, 0 for nowhere.
    """
    signature = types.void(arithmetic, *[types.intp] * 5)

    def generate(context, builder, signature, arguments):
        _, sums, cell, state, rest, plain = arguments
        block = Block(builder, arithmetic.instance_class, rows=1)
        gates = [
            block.vectors.load(builder, block.address(sums, TILE_WORDS * gate))
            for gate in range(GATES)
        ]
        block.finished(gates, cell, state, rest, plain)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def attention_of(typing_context, arithmetic, states, attention, units):
    """Return the sum of the hyperbolic tangents of a pixel's states times their attention.

    Both are addresses of float32; `units` are whole vectors.
    """
    signature = types.float32(arithmetic, *[types.intp] * 3)

    def generate(context, builder, signature, arguments):
        _, states, attention, units = arguments
        block = Block(builder, arithmetic.instance_class, rows=1)
        vectors = block.vectors
        one, scale = vectors.constant(1.0), vectors.constant(GATE_SCALES[2])
        total = cgutils.alloca_once_value(builder, vectors.constant(0.0))
        zero, lanes = ir.Constant(units.type, 0), ir.Constant(units.type, vectors.lanes)
        with cgutils.for_range_slice(builder, zero, units, lanes, units.type) as (unit, _):
            state = vectors.load(builder, block.address(states, unit))
            power = block.power_of_two(builder.fmul(state, scale))
            tangent = block.divided(builder.fsub(one, power), builder.fadd(one, power))
            weight = vectors.load(builder, block.address(attention, unit))
            builder.store(block.multiply_add(tangent, weight, builder.load(total)), total)
        return vectors.total(builder, builder.load(total))

    return signature, generate
