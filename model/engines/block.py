# mypy: allow-untyped-defs, allow-untyped-calls
"""Sums of a few pixels' gates in registers, and what is emitted to let them grow and become states."""

from llvmlite import ir  # type: ignore[import-untyped]

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


class Block:
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
        word = ir.Constant(step.type, 4)
        columns = columns[:2] if self.arithmetic.paired_tables else columns
        grow = self._add_pairs if self.arithmetic.paired_tables else self._add_entries
        further = [self.builder.mul(step, word)] * len(columns)
        sums, _ = self._loop(
            sums, features, columns, further, lambda sums, line: grow(sums, table, line)
        )
        return sums

    def _entry(self, table, places, row):
        """Return the address of a pixel's entry."""
        place = self.vectors.load(self.builder, self.address(places, row), INTEGER)
        return self.builder.add(table, self.builder.sext(place, table.type))

    def _add_entries(self, sums, table, line):
        """Add two entries times their shares."""
        places, *shares = line
        lanes, grown = self.vectors.lanes, []
        for row in range(self.rows):
            entry = self._entry(table, places, row)
            of_pixel = sums[GATES * row : GATES * row + GATES]
            for number, share in enumerate(shares):
                value = self.vectors.load(self.builder, self.address(share, row), FLOAT)
                wide = self.vectors.spread(self.builder, value)
                for gate in range(GATES):
                    at = self.address(entry, lanes * (GATES * number + gate))
                    found = self.vectors.load(self.builder, at)
                    of_pixel[gate] = self.multiply_add(wide, found, of_pixel[gate])
            grown += of_pixel
        return grown

    def _add_pairs(self, sums, table, line):
        """Add the pairs of an entry times the pair that stands in place of its low share."""
        places, share = line
        lanes, grown = self.vectors.lanes, []
        for row in range(self.rows):
            entry = self._entry(table, places, row)
            value = self.vectors.load(self.builder, self.address(share, row), INTEGER)
            wide = self.vectors.spread(self.builder, value)
            for gate in range(GATES):
                at = self.address(entry, lanes * gate)
                found = self.vectors.load(self.builder, at, self.vectors.bits)
                grown.append(self.multiply_add_pairs(wide, found, sums[GATES * row + gate]))
        return grown

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
        if self.arithmetic.emulated:
            for half in (self._low_half, self._high_half):
                to = self.multiply_add(half(left), half(right), to)
            return to
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

    def _low_half(self, words):
        """Return the float32 of the first bfloat16 of every word."""
        bits = self.builder.shl(words, self.vectors.whole(16))
        return self.builder.bitcast(bits, self.vectors.kind)

    def _high_half(self, words):
        """Return the float32 of the second."""
        bits = self.builder.and_(words, self.vectors.whole(-65536))
        return self.builder.bitcast(bits, self.vectors.kind)

    def _widened(self, narrow):
        """Return the float32 that bits of bfloat16 stand for."""
        vectors = self.vectors
        bits = self.builder.zext(narrow, vectors.bits)
        return self.builder.bitcast(self.builder.shl(bits, vectors.whole(16)), vectors.kind)

    def _cell(self, sums, cell):
        """Return the next cell and state of a vector of units."""
        builder, one = self.builder, self.vectors.constant(1.0)
        enter, keep, new, out = (self.power_of_two(gate) for gate in sums)
        entering = self.divided(
            builder.fsub(one, new),
            builder.fmul(builder.fadd(one, enter), builder.fadd(one, new)),
        )
        cell = builder.fadd(self.divided(cell, builder.fadd(one, keep)), entering)
        power = self.power_of_two(builder.fmul(cell, self.vectors.constant(GATE_SCALES[2])))
        state = self.divided(
            builder.fsub(one, power),
            builder.fmul(builder.fadd(one, out), builder.fadd(one, power)),
        )
        return cell, state

    def divided(self, over, under):
        """Return a quotient, as exact as the arithmetic is."""
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

    def power_of_two(self, x):
        """Return 2^x, x held within +-60; NaN stays NaN.

        Not for kernels compiled with leave to reorder sums (`fastmath` with `reassoc`): what is
        added here to round would be taken away again.
        """
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
