# mypy: allow-untyped-defs, allow-untyped-calls
"""A number of lanes in, LLVM operations on whole float32 vectors out: what our kernels are made of."""

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils

FLOAT = ir.FloatType()
INTEGER = ir.IntType(32)


class Vectors:
    """Emits operations on vectors of `lanes` float32."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.kind = ir.VectorType(FLOAT, lanes)
        self.bits = ir.VectorType(INTEGER, lanes)

    def constant(self, value):
        """Return a vector with the number `value` in every lane."""
        return ir.Constant(self.kind, [float(value)] * self.lanes)

    def whole(self, value):
        """Return a vector of 32-bit integers with `value` in every lane."""
        return ir.Constant(self.bits, [value] * self.lanes)

    def spread(self, builder, value):
        """Return a vector with `value`, a float32 or 32 bits, in every lane."""
        kind = ir.VectorType(value.type, self.lanes)
        empty = ir.Constant(kind, ir.Undefined)
        lane = builder.insert_element(empty, value, ir.Constant(INTEGER, 0))
        return builder.shuffle_vector(lane, empty, ir.Constant(self.bits, None))

    def call(self, builder, name, *values):
        """Call an operation of LLVM's that is overloaded by the kind of vector."""
        return self.instruction(builder, f"{name}.v{self.lanes}f32", self.kind, *values)

    def instruction(self, builder, name, result, *values):
        """Call an operation of one processor's by its full name."""
        kind = ir.FunctionType(result, [value.type for value in values])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values)

    def load(self, builder, address, kind=None):
        """Load a vector, or another kind, from an integer address of any alignment."""
        kind = self.kind if kind is None else kind
        return builder.load(builder.inttoptr(address, kind.as_pointer()), align=4)

    def store(self, builder, value, address):
        """Store a vector or number at an integer address of any alignment."""
        builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=4)

    def total(self, builder, values):
        """Return the sum of all lanes, halves added to halves."""
        width = self.lanes
        while width > 1:
            width //= 2
            lanes = [width + lane if lane < width else lane for lane in range(self.lanes)]
            mask = ir.Constant(self.bits, lanes)
            values = builder.fadd(values, builder.shuffle_vector(values, values, mask))
        return builder.extract_element(values, ir.Constant(INTEGER, 0))

    def exponential(self, builder, x):
        """Return e^x, x held within +-87: powers of two times a polynomial (Cephes)."""
        x = self.call(builder, "llvm.maxnum", x, self.constant(-87.0))
        x = self.call(builder, "llvm.minnum", x, self.constant(87.0))
        whole = self.call(builder, "llvm.roundeven", builder.fmul(x, self.constant(1.44269504)))
        rest = self.call(builder, "llvm.fma", whole, self.constant(-0.693359375), x)
        rest = self.call(builder, "llvm.fma", whole, self.constant(2.12194440e-4), rest)
        power = self.constant(1.9875691500e-4)
        for factor in (
            1.3981999507e-3,
            8.3334519073e-3,
            4.1665795894e-2,
            1.6666665459e-1,
            0.5,
            1,
            1,
        ):
            power = self.call(builder, "llvm.fma", power, rest, self.constant(factor))
        exponent = builder.add(builder.fptosi(whole, self.bits), self.whole(127))
        exponent = builder.shl(exponent, self.whole(23))
        return builder.fmul(power, builder.bitcast(exponent, self.kind))
