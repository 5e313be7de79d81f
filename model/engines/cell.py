# mypy: allow-untyped-defs, allow-untyped-calls
"""A few pixels' inputs and last states in, their next states out: one step of an LSTM's units.

The sums of four gates of as many units as a vector has lanes stay in registers from the first
product to the new state. Weights are packed so that they are read once from end to end.
"""

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from model.networks.vectors import FLOAT, INTEGER, Vectors

GATES = 4
"""Input, forget, candidate and output, as torch orders them."""

GATE_SCALES = (-1.4426950408889634, -1.4426950408889634, -2.8853900817779268, -1.4426950408889634)
"""What the weights of each gate are multiplied by, so that gates are made of powers of two:
1 / (1 + 2^(x scale)) is the logistic function, (1 - 2^(x scale)) / (1 + 2^(x scale)) of the
candidate's the hyperbolic tangent."""

TABLE_ROWS = 4
"""Pixels whose sums, with tables added, are written to tiles at once."""

TILE_WORDS = 256
"""Words in a tile, which has the sums of one gate of sixteen pixels and units."""

_LARGEST_POWER = 60.0
"""Powers of two end there: what they make is 0 or 1, and two of them can still be multiplied."""

_ROUNDING = 12582912.0
"""1.5 * 2^23: adding it rounds a float32 to a whole number, which its lowest bits then hold."""

_EXACT_POWER = (1.535336188319500e-4, 1.339887440266574e-3, 9.618437357674640e-3,
                5.550332471162809e-2, 2.402264791363012e-1, 6.931472028550421e-1, 1.0)  # fmt: skip
"""2^x over -0.5..0.5 to 1e-8 (Cephes, exp2f), highest power first."""

_CHEAP_POWER = (5.5171e-2, 2.4261e-1, 6.9326e-1, 9.9993e-1)
"""The same to 1e-4."""


class _Bfloat(ir.Type):  # type: ignore[misc]
    """LLVM's bfloat16, which llvmlite has no name for."""

    def _to_string(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, _Bfloat)

    def __hash__(self):
        return hash(_Bfloat)


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
      `high_shares`. These are (feature, pixel), features `input_step` apart.
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
        block = _Block(builder, arithmetic.instance_class, rows=arithmetic.instance_class.rows)
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
        block = _Block(builder, arithmetic.instance_class, rows=TABLE_ROWS)
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
        block = _Block(builder, arithmetic.instance_class, rows=1)
        gates = [
            block.vectors.load(builder, block.address(sums, TILE_WORDS * gate))
            for gate in range(GATES)
        ]
        block.finished(gates, cell, state, rest, plain)
        return context.get_dummy_value()

    return signature, generate


class _Block:
    """Emits what happens to the sums of a block; sums are a list, gate by gate of each pixel."""

    def __init__(self, builder, arithmetic, *, rows):
        self.builder = builder
        self.arithmetic = arithmetic
        self.rows = rows
        self.vectors = Vectors(arithmetic.lanes)

    def address(self, start, words):
        """Return the address so many words, a number or a value, behind `start`."""
        if isinstance(words, int):
            words = ir.Constant(start.type, words)
        return self.builder.add(start, self.builder.mul(words, ir.Constant(start.type, 4)))

    def looked_up(self, sums, table, columns, step, features):
        """Add what tables give for `features`; `columns` are places, low and high shares."""
        builder, vectors = self.builder, self.vectors
        strip = GATES * vectors.lanes

        def grow(sums, line):
            grown = []
            for row in range(self.rows):
                place, *shares = (
                    vectors.load(builder, self.address(start, row), kind)
                    for start, kind in zip(line, (INTEGER, FLOAT, FLOAT), strict=True)
                )
                entry = builder.add(table, builder.sext(place, table.type))
                of_pixel = sums[GATES * row : GATES * row + GATES]
                for number, share in enumerate(shares):
                    wide = vectors.spread(builder, share)
                    for gate in range(GATES):
                        found = vectors.load(
                            builder,
                            self.address(entry, strip * number + vectors.lanes * gate),
                        )
                        of_pixel[gate] = self.multiply_add(wide, found, of_pixel[gate])
                grown += of_pixel
            return grown

        further = [self.builder.mul(step, ir.Constant(step.type, 4))] * len(columns)
        sums, _ = self._loop(sums, features, columns, further, grow)
        return sums

    def product(self, sums, left, row, step, right, depth, *, pairs):
        """Add `depth` words of each pixel of `left` times strips of `right`, return what is behind."""
        builder, vectors = self.builder, self.vectors
        lefts = [self.address(left, builder.mul(row, ir.Constant(row.type, i)))
                 for i in range(self.rows)]  # fmt: skip
        strip = ir.Constant(right.type, 4 * GATES * vectors.lanes)
        kind = vectors.bits if pairs else vectors.kind

        def grow(sums, line):
            offset, strips = line
            rights = [vectors.load(builder, self.address(strips, vectors.lanes * gate), kind)
                      for gate in range(GATES)]  # fmt: skip
            grown = []
            for number, start in enumerate(lefts):
                value = vectors.load(
                    builder, builder.add(start, offset), INTEGER if pairs else FLOAT
                )
                wide = vectors.spread(builder, value)
                multiply = self.multiply_add_pairs if pairs else self.multiply_add
                grown += [
                    multiply(wide, rights[gate], sums[GATES * number + gate])
                    for gate in range(GATES)
                ]
            return grown

        zero = ir.Constant(right.type, 0)
        further = [builder.mul(step, ir.Constant(step.type, 4)), strip]
        sums, (_, behind) = self._loop(sums, depth, (zero, right), further, grow)
        return sums, behind

    def _loop(self, sums, count, starts, further, grow):
        """Let `grow(sums, line)` add to the sums `count` times, `line` moving by `further`."""
        builder = self.builder
        word = count.type
        before = builder.basic_block
        loop = builder.append_basic_block("grow")
        after = builder.append_basic_block("grown")
        zero = ir.Constant(word, 0)
        builder.cbranch(builder.icmp_signed(">", count, zero), loop, after)

        builder.position_at_end(loop)
        step = builder.phi(word)
        line = [builder.phi(start.type) for start in starts]
        held = [builder.phi(self.vectors.kind) for _ in sums]
        grown = grow(held, line)
        next_step = builder.add(step, ir.Constant(word, 1))
        next_line = [builder.add(at, by) for at, by in zip(line, further, strict=True)]
        builder.cbranch(builder.icmp_signed("<", next_step, count), loop, after)

        builder.position_at_end(after)
        ends = []
        for phi, first, following in (
            (step, zero, next_step),
            *zip(line, starts, next_line, strict=True),
            *zip(held, sums, grown, strict=True),
        ):
            phi.add_incoming(first, before)
            phi.add_incoming(following, loop)
            end = builder.phi(phi.type)
            end.add_incoming(first, before)
            end.add_incoming(following, loop)
            ends.append(end)
        return ends[1 + len(starts) :], ends[1 : 1 + len(starts)]

    def multiply_add(self, left, right, to):
        """Return left times right plus `to`, fused where the processor can."""
        return self.vectors.call(self.builder, "llvm.fmuladd", left, right, to)

    def multiply_add_pairs(self, left, right, to):
        """Add the products of both bfloat16 of every lane."""
        halves = ir.VectorType(_Bfloat(), 2 * self.vectors.lanes)
        left, right = (self.builder.bitcast(value, halves) for value in (left, right))
        return self.vectors.instruction(
            self.builder, "llvm.x86.avx512bf16.dpbf16ps.512", self.vectors.kind, to, left, right
        )

    def started(self, start):
        """Return the sums that a strip gives every pixel."""
        return [
            self.vectors.load(self.builder, self.address(start, self.vectors.lanes * gate))
            for _ in range(self.rows)
            for gate in range(GATES)
        ]

    def gates(self, sums, cell, cell_row, state, state_row, plain, plain_row):
        """Turn the sums of all rows into the next cells and states and store them."""
        builder = self.builder
        zero = ir.Constant(plain.type, 0)
        is_plain = builder.icmp_signed("!=", plain, zero)
        for row in range(self.rows):
            number = ir.Constant(cell_row.type, row)
            of_cell, of_state, of_plain = (
                self.address(start, builder.mul(words, number))
                for start, words in ((cell, cell_row), (state, state_row), (plain, plain_row))
            )
            self.finished(
                sums[GATES * row : GATES * row + GATES],
                of_cell,
                of_state,
                None,
                builder.select(is_plain, of_plain, zero),
            )

    def finished(self, sums, cell, state, rest, plain):
        """Turn the sums of one pixel into the next cells and states and store them."""
        builder, vectors = self.builder, self.vectors
        kept, next_state = self._cell(sums, vectors.load(builder, cell))
        vectors.store(builder, kept, cell)
        if not self.arithmetic.pairs:
            vectors.store(builder, next_state, state)
        else:
            narrow = self._narrowed(next_state)
            vectors.store(builder, narrow, state)
            if self.arithmetic.split:
                left = builder.fsub(next_state, self._widened(narrow))
                vectors.store(builder, self._narrowed(left), rest)
        with builder.if_then(builder.icmp_signed("!=", plain, ir.Constant(plain.type, 0))):
            vectors.store(builder, next_state, plain)

    def _narrowed(self, values):
        """Return float32 rounded to the bits of bfloat16."""
        builder, vectors = self.builder, self.vectors
        halves = ir.VectorType(ir.IntType(16), vectors.lanes)
        if not self.arithmetic.emulated:
            rounded = vectors.instruction(
                builder,
                "llvm.x86.avx512bf16.cvtneps2bf16.512",
                ir.VectorType(_Bfloat(), vectors.lanes),
                values,
            )
            return builder.bitcast(rounded, halves)
        bits = builder.bitcast(values, vectors.bits)
        half = vectors.whole(16)
        is_odd = builder.and_(builder.lshr(bits, half), vectors.whole(1))
        bits = builder.add(builder.add(bits, vectors.whole(0x7FFF)), is_odd)
        return builder.trunc(builder.lshr(bits, half), halves)

    def _widened(self, narrow):
        """Return the float32 that bits of bfloat16 stand for."""
        vectors = self.vectors
        bits = self.builder.zext(narrow, vectors.bits)
        return self.builder.bitcast(self.builder.shl(bits, vectors.whole(16)), vectors.kind)

    def _cell(self, sums, cell):
        """Return the next cell and state of a vector of units."""
        builder, one = self.builder, self.vectors.constant(1.0)
        enter, keep, new, out = (self._power_of_two(gate) for gate in sums)
        entering = self._divided(
            builder.fsub(one, new),
            builder.fmul(builder.fadd(one, enter), builder.fadd(one, new)),
        )
        cell = builder.fadd(self._divided(cell, builder.fadd(one, keep)), entering)
        power = self._power_of_two(builder.fmul(cell, self.vectors.constant(GATE_SCALES[2])))
        state = self._divided(
            builder.fsub(one, power),
            builder.fmul(builder.fadd(one, out), builder.fadd(one, power)),
        )
        return cell, state

    def _divided(self, over, under):
        builder, vectors = self.builder, self.vectors
        quick = self.arithmetic.cheap or self.arithmetic.tiles
        if not quick or vectors.lanes != 16 or self.arithmetic.emulated:
            return builder.fdiv(over, under)
        # right to fourteen bits, and after a step of Newton's to all of them
        mask = ir.Constant(ir.IntType(16), -1)
        reciprocal = vectors.instruction(
            builder, "llvm.x86.avx512.rcp14.ps.512", vectors.kind, under, vectors.constant(0), mask
        )
        if not self.arithmetic.cheap:
            error = builder.fsub(vectors.constant(2.0), builder.fmul(under, reciprocal))
            reciprocal = builder.fmul(reciprocal, error)
        return builder.fmul(over, reciprocal)

    def _power_of_two(self, x):
        """Return 2^x, x held within +-60; NaN stays NaN."""
        builder, vectors = self.builder, self.vectors
        # compared this way round, because the processor's instruction then keeps NaN
        for sign, end in (("<", _LARGEST_POWER), (">", -_LARGEST_POWER)):
            limit = vectors.constant(end)
            x = builder.select(builder.fcmp_ordered(sign, limit, x), limit, x)
        rounding = vectors.constant(_ROUNDING)
        shifted = builder.fadd(x, rounding)
        rest = builder.fsub(x, builder.fsub(shifted, rounding))
        highest, *factors = _CHEAP_POWER if self.arithmetic.cheap else _EXACT_POWER
        power = vectors.constant(highest)
        for factor in factors:
            power = self.multiply_add(power, rest, vectors.constant(factor))
        exponent = builder.shl(builder.bitcast(shifted, vectors.bits), vectors.whole(23))
        bits = builder.add(builder.bitcast(power, vectors.bits), exponent)
        return builder.bitcast(bits, vectors.kind)
