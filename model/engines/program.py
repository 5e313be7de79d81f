"""Features by name in, a program of vector operations out: what kernels run instead of NumPy.

Registers are float64 and hold one value per pixel. An operation marked `single` is rounded to
float32 afterwards: for + - * / that gives exactly what float32 arithmetic gives.
"""

import ast
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Bool, Float64, Int64

from model.features import FEATURES, FeatureSet
from model.formulas import TCI_SATURATION
from model.indices import BAND_OF_LETTER, spectral_index


class Code(IntEnum):
    """What an operation does to its operands a and b and its limits."""

    ADD = 0
    SUBTRACT = 1
    MULTIPLY = 2
    DIVIDE = 3
    """a / b, NaN where b lies closer to 0 than the lower limit."""
    RATIO = 4
    """a / b, NaN unless b is at least the lower limit."""
    POWER = 5
    ROOT = 6
    CLIP = 7
    LOGARITHM = 8
    """Natural, of a or the lower limit, whichever is larger."""
    ROUND = 9
    """To the nearest whole number, halves to the even one."""


class UnknownFeatureError(Exception):
    """A feature has no program; whoever asked computes it another way."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """Operations on registers: first come the bands, then the constants, then what is made."""

    bands: tuple[str, ...]
    """Names of the first registers."""
    constants: Float64[np.ndarray, "constant"]
    """Values of the registers behind the bands."""
    codes: Int64[np.ndarray, "operation"]
    """`Code` of each operation, in the order in which they run."""
    operands: Int64[np.ndarray, "operation 3"]
    """Registers: the result's, a's and b's; b is 0 where there is none."""
    limits: Float64[np.ndarray, "operation 2"]
    """Lower and upper limit, for those that have any."""
    single: Bool[np.ndarray, "operation"]
    """Whether the result is rounded to float32."""
    outputs: Int64[np.ndarray, "feature"]
    """Register of each feature."""

    @property
    def registers(self) -> int:
        """Number of registers."""
        return len(self.bands) + len(self.constants) + len(self.codes)


@dataclass(frozen=True, kw_only=True)
class _Operand:
    """A register before registers have numbers."""

    kind: str
    """`band`, `constant` or `made`."""
    index: int
    """Which of its kind."""


_SMALLEST_LOGARITHM = float(np.float32(1e-4))
_SMALLEST_DENOMINATOR = float(np.float32(1e-6))
_SMALLEST_EVI_DENOMINATOR = float(np.float32(0.1))
_SMALLEST_BRIGHTNESS = float(np.float32(1e-3))
_SMALLEST_INDEX_DENOMINATOR = 1e-12

_DIFFERENCES = {
    "NDVI": ("B08", "B04"),
    "NDWI": ("B03", "B08"),
    "NDMI": ("B8A", "B11"),
    "NBR": ("B8A", "B12"),
    "NDRE": ("B8A", "B05"),
}
_TRUE_COLOURS = {"TCI_R": "B04", "TCI_G": "B03", "TCI_B": "B02"}


def feature_program(features: FeatureSet) -> Program:
    """Return the program that computes `features` from their `required_bands`.

    Raises `UnknownFeatureError` for a feature whose formula has no program. That the formulas are
    those of `FeatureSet.compute` is for tests, and for whoever uses it, to check.
    """
    builder = _Builder(features.required_bands)
    shaped = [name.partition(":")[2] for name in features.names if name.startswith("shape:")]
    outputs = [_feature(builder, name, shaped) for name in features.names]
    return builder.program(outputs)


class _Builder:
    """Collects operations; one that was asked for before is not done twice."""

    def __init__(self, bands: tuple[str, ...]) -> None:
        self.bands = bands
        self._constants: dict[float, _Operand] = {}
        self._made: dict[tuple[object, ...], _Operand] = {}

    def band(self, name: str) -> _Operand:
        return _Operand(kind="band", index=self.bands.index(name))

    def constant(self, value: float) -> _Operand:
        return self._constants.setdefault(
            value, _Operand(kind="constant", index=len(self._constants))
        )

    def make(
        self,
        code: Code,
        a: _Operand,
        b: _Operand | None = None,
        *,
        low: float = 0.0,
        high: float = 0.0,
        single: bool = True,
    ) -> _Operand:
        """Return what `code` makes of a and b."""
        key = (code, a, b, low, high, single)
        return self._made.setdefault(key, _Operand(kind="made", index=len(self._made)))

    def program(self, outputs: list[_Operand]) -> Program:
        """Give numbers to the registers."""
        starts = {
            "band": 0,
            "constant": len(self.bands),
            "made": len(self.bands) + len(self._constants),
        }

        def number(operand: object) -> int:
            return starts[operand.kind] + operand.index if isinstance(operand, _Operand) else 0

        keys = list(self._made)
        operands = [
            [number(made), number(key[1]), number(key[2])] for key, made in self._made.items()
        ]
        return Program(
            bands=self.bands,
            constants=np.array(list(self._constants), np.float64),
            codes=np.array([key[0] for key in keys], np.int64),
            operands=np.array(operands, np.int64).reshape(-1, 3),
            limits=np.array([key[3:5] for key in keys], np.float64).reshape(-1, 2),
            single=np.array([key[5] for key in keys], bool),
            outputs=np.array([number(output) for output in outputs], np.int64),
        )


def _feature(builder: _Builder, name: str, shaped: list[str]) -> _Operand:
    kind, _, stored = name.partition(":")
    if kind == "band" and stored:
        return builder.band(stored)
    if kind == "log" and stored:
        return builder.make(Code.LOGARITHM, builder.band(stored), low=_SMALLEST_LOGARITHM)
    if kind == "shape" and stored:
        total = builder.band(shaped[0])
        for band in shaped[1:]:
            total = builder.make(Code.ADD, total, builder.band(band))
        share = builder.make(Code.RATIO, builder.band(stored), total, low=_SMALLEST_BRIGHTNESS)
        return builder.make(Code.CLIP, share, low=-1.0, high=1.0)
    if name in FEATURES:
        return _own_feature(builder, name)
    return _index(builder, name)


def _own_feature(builder: _Builder, name: str) -> _Operand:
    band, make, constant = builder.band, builder.make, builder.constant
    if name in _DIFFERENCES:
        a, b = (band(one) for one in _DIFFERENCES[name])
        over, under = make(Code.SUBTRACT, a, b), make(Code.ADD, a, b)
        quotient = make(Code.RATIO, over, under, low=_SMALLEST_DENOMINATOR)
        return make(Code.CLIP, quotient, low=-1.0, high=1.0)
    if name in _TRUE_COLOURS:
        factor = constant(float(np.float32(255 / TCI_SATURATION)))
        counts = make(Code.ROUND, make(Code.MULTIPLY, band(_TRUE_COLOURS[name]), factor))
        return make(Code.CLIP, counts, low=1.0, high=255.0)
    if name == "CIre":
        quotient = make(Code.RATIO, band("B07"), band("B05"), low=_SMALLEST_DENOMINATOR)
        less = make(Code.SUBTRACT, quotient, constant(1.0))
        return make(Code.CLIP, less, low=-1.0, high=20.0)
    if name == "EVI":
        blue, red, near = band("B02"), band("B04"), band("B08")
        under = make(Code.ADD, near, make(Code.MULTIPLY, constant(6.0), red))
        under = make(Code.SUBTRACT, under, make(Code.MULTIPLY, constant(7.5), blue))
        under = make(Code.ADD, under, constant(1.0))
        over = make(Code.MULTIPLY, constant(2.5), make(Code.SUBTRACT, near, red))
        quotient = make(Code.RATIO, over, under, low=_SMALLEST_EVI_DENOMINATOR)
        return make(Code.CLIP, quotient, low=-2.0, high=2.0)
    if name in builder.bands:
        return band(name)
    raise UnknownFeatureError(f"feature {name!r} has no program")


def _index(builder: _Builder, name: str) -> _Operand:
    """Parse an index of the list as `Index.definition` writes it; nothing is run as code."""
    index = spectral_index(name)
    formula, *settings = index.definition.split(";")
    constants = {}
    for setting in settings:
        symbol, _, value = setting.partition("=")
        constants[symbol.strip()] = float(value)
    made = _node(builder, ast.parse(formula.strip(), mode="eval").body, constants, name)
    if isinstance(made, float):
        raise UnknownFeatureError(f"spectral index {name!r} is made of no band")
    return builder.make(Code.CLIP, made, low=index.lowest, high=index.highest)


def _node(
    builder: _Builder, node: ast.expr, constants: dict[str, float], name: str
) -> _Operand | float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=symbol) if symbol in constants:
            return constants[symbol]
        case ast.Name(id=symbol) if BAND_OF_LETTER.get(symbol) in builder.bands:
            return builder.band(BAND_OF_LETTER[symbol])
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _joined(builder, ast.Mult(), -1.0, _node(builder, operand, constants, name))
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _node(builder, operand, constants, name)
        case ast.BinOp(left=left, op=sign, right=right):
            sides = (_node(builder, side, constants, name) for side in (left, right))
            return _joined(builder, sign, *sides)
    raise UnknownFeatureError(f"spectral index {name!r} has {ast.unparse(node)!r} in its formula")


_CODES: dict[type[ast.operator], Code] = {
    ast.Add: Code.ADD,
    ast.Sub: Code.SUBTRACT,
    ast.Mult: Code.MULTIPLY,
    ast.Div: Code.DIVIDE,
    ast.Pow: Code.POWER,
}


def _joined(
    builder: _Builder, sign: ast.operator, left: _Operand | float, right: _Operand | float
) -> _Operand | float:
    if type(sign) not in _CODES:
        raise UnknownFeatureError(f"an index has the operator {ast.dump(sign)} in its formula")
    code = _CODES[type(sign)]
    if isinstance(left, float) and isinstance(right, float):
        return _folded(code, left, right)
    if code is Code.POWER and isinstance(left, _Operand) and right in (2.0, 0.5):
        # as NumPy does it
        if right == 2.0:
            return builder.make(Code.MULTIPLY, left, left, single=False)
        return builder.make(Code.ROOT, left, single=False)
    a, b = (builder.constant(s) if isinstance(s, float) else s for s in (left, right))
    low = _SMALLEST_INDEX_DENOMINATOR if code is Code.DIVIDE else 0.0
    return builder.make(code, a, b, low=low, single=False)


def _folded(code: Code, left: float, right: float) -> float:
    with np.errstate(all="ignore"):
        if code is Code.DIVIDE:
            is_usable = abs(right) >= _SMALLEST_INDEX_DENOMINATOR
            return float(np.float64(left) / right) if is_usable else float("nan")
        joined = {
            Code.ADD: np.add, Code.SUBTRACT: np.subtract,
            Code.MULTIPLY: np.multiply, Code.POWER: np.power,
        }  # fmt: skip
        return float(joined[code](np.float64(left), np.float64(right)))
