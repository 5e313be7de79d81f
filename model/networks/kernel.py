# mypy: allow-untyped-defs, allow-untyped-calls
"""Matrices in, their product added to a third: the inner loop of training, for small matrices.

General matrix libraries spend much of their time on looking at and repacking matrices of this
size. Here operands are packed once for many products, and one block of the result is held in
vector registers while it grows.
"""

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from model.networks.target import target_features
from model.networks.vectors import FLOAT, Vectors


def _vector_lanes() -> int:
    """Return how many float32 a vector register holds that numba may use here."""
    features = target_features()
    return next((n for name, n in (("avx512f", 16), ("avx", 8)) if name in features), 4)


LANES = _vector_lanes()

ROWS = 8 if LANES == 16 else 4
"""Rows of the block of the result that is held in registers."""

VECTORS = 2
"""Vectors in each of its rows: with those of AVX-512 16 sums are in flight, enough to hide that
one takes four cycles."""

COLUMNS = VECTORS * LANES
"""Columns of the block; widths are multiples of it."""

_VECTORS = Vectors(LANES)
_VECTOR = _VECTORS.kind


@intrinsic
def add_block(
    typing_context, left, left_row, left_step, right, right_row, depth, result, result_row
):
    """Add a product to one block of `ROWS` x `COLUMNS`; all arguments are integers.

    `left`, `right` and `result` are addresses, the others counts of float32: element (i, k) of
    the left matrix is at `left_row` i + `left_step` k, row k of the right one at `right_row` k
    (`depth` rows), row i of the result at `result_row` i.
    """
    signature = types.void(*[types.intp] * 8)

    def generate(context, builder, signature, arguments):
        left, left_row, left_step, right, right_row, depth, result, result_row = arguments
        word = left.type
        four = ir.Constant(word, 4)

        def address(start, floats):
            return builder.add(start, builder.mul(floats, four))

        def load(place, kind):
            return builder.load(builder.inttoptr(place, kind.as_pointer()), align=4)

        rows = [address(result, builder.mul(result_row, ir.Constant(word, i))) for i in range(ROWS)]
        places = [
            builder.add(row, ir.Constant(word, 4 * LANES * v))
            for row in rows
            for v in range(VECTORS)
        ]
        started = [load(place, _VECTOR) for place in places]
        lefts = [address(left, builder.mul(left_row, ir.Constant(word, i))) for i in range(ROWS)]
        before = builder.basic_block
        loop = builder.append_basic_block("product")
        after = builder.append_basic_block("product.done")
        zero = ir.Constant(word, 0)
        builder.cbranch(builder.icmp_signed(">", depth, zero), loop, after)

        builder.position_at_end(loop)
        step, offset, line = (builder.phi(word) for _ in range(3))
        sums = [builder.phi(_VECTOR) for _ in places]
        vectors = [
            load(builder.add(line, ir.Constant(word, 4 * LANES * v)), _VECTOR)
            for v in range(VECTORS)
        ]
        grown = []
        for i in range(ROWS):
            spread = _VECTORS.spread(builder, load(builder.add(lefts[i], offset), FLOAT))
            grown += [
                _VECTORS.call(builder, "llvm.fma", spread, vectors[v], sums[i * VECTORS + v])
                for v in range(VECTORS)
            ]
        next_step = builder.add(step, ir.Constant(word, 1))
        next_offset = builder.add(offset, builder.mul(left_step, four))
        next_line = builder.add(line, builder.mul(right_row, four))
        builder.cbranch(builder.icmp_signed("<", next_step, depth), loop, after)
        for phi, first, further in (
            (step, zero, next_step),
            (offset, zero, next_offset),
            (line, right, next_line),
            *zip(sums, started, grown, strict=True),
        ):
            phi.add_incoming(first, before)
            phi.add_incoming(further, loop)

        builder.position_at_end(after)
        finals = [builder.phi(_VECTOR) for _ in places]
        for place, final, first, last in zip(places, finals, started, grown, strict=True):
            final.add_incoming(first, before)
            final.add_incoming(last, loop)
            builder.store(final, builder.inttoptr(place, _VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def squash(typing_context, values, result, count, rate, height, floor):
    """Write floor + height / (1 + e^(rate x)) of `count` values, a multiple of `LANES`.

    `values` and `result` are addresses of float32, the last three float32. With -1, 1, 0 it is
    the logistic function, with -2, 2, -1 the hyperbolic tangent, both to some units in the last
    place of 1.
    """
    signature = types.void(types.intp, types.intp, types.intp, *[types.float32] * 3)

    def generate(context, builder, signature, arguments):
        values, result, count, *curve = arguments
        rate, height, floor = (_VECTORS.spread(builder, value) for value in curve)
        word = values.type
        with cgutils.for_range_slice(
            builder, ir.Constant(word, 0), count, ir.Constant(word, LANES), word
        ) as (index, _):
            offset = builder.mul(index, ir.Constant(word, 4))
            place = builder.inttoptr(builder.add(values, offset), _VECTOR.as_pointer())
            power = _VECTORS.exponential(builder, builder.fmul(rate, builder.load(place, align=4)))
            share = builder.fdiv(height, builder.fadd(_VECTORS.constant(1.0), power))
            target = builder.inttoptr(builder.add(result, offset), _VECTOR.as_pointer())
            builder.store(builder.fadd(floor, share), target, align=4)
        return context.get_dummy_value()

    return signature, generate
