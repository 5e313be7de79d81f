"""Images in, sums, comparisons and casts of them out, pixel by pixel, with the types they have.

Assumed where nothing is documented: whole numbers divided give 32-bit floating point; results keep
no properties; casts to whole numbers cut off decimals and stop at the type's limits; `round` is
Java's (half up).
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from earthengine_graph import Function
from earthengine_grids import EngineError
from earthengine_images import changed, paired
from earthengine_values import DOUBLE, FLOAT, TRUTH, Band, Image, Pixels, PixelType, pointwise

Kinds = Callable[..., PixelType]


def _of_two(name: str, kinds: Kinds, compute: Callable[..., np.ndarray]) -> Function:
    def function(first: Image, second: Image) -> Image:
        bands = {}
        for key, (one, two) in paired(name, first, second).items():
            kind = kinds(one.kind, two.kind)
            # wide enough for what the operands hold and for what comes out
            width = one.kind.joined(two.kind).joined(kind).dtype

            def both(a: Pixels, b: Pixels, width: np.dtype = width) -> Pixels:
                values = compute(a.values.astype(width), b.values.astype(width))
                return Pixels(values, a.mask & b.mask)

            bands[key] = pointwise(kind, both, one, two)
        return Image(bands=bands, place=first.place)

    return function


def _of_one(kinds: Kinds, compute: Callable[[np.ndarray], np.ndarray]) -> Function:
    def function(image: Image) -> Image:
        def change(band: Band) -> Band:
            kind = kinds(band.kind)
            width = band.kind.joined(kind).dtype
            return pointwise(kind, lambda a: Pixels(compute(a.values.astype(width)), a.mask), band)

        return Image(bands=changed(image, change).bands, place=image.place)

    return function


def _joined(one: PixelType, two: PixelType) -> PixelType:
    return one.joined(two)


def _truth(*_: PixelType) -> PixelType:
    return TRUTH


def _spanned(compute: Callable[[float, float], float]) -> Kinds:
    """Return the type of a function that takes its extremes at the extremes of its operands."""

    def kinds(one: PixelType, two: PixelType) -> PixelType:
        if not (one.is_whole and two.is_whole):
            return replace(one.joined(two), low=-np.inf, high=np.inf)
        ends = [compute(a, b) for a in (one.low, one.high) for b in (two.low, two.high)]
        return PixelType(precision="int", low=min(ends), high=max(ends))

    return kinds


def _quotient(one: PixelType, two: PixelType) -> PixelType:
    return DOUBLE if DOUBLE.precision in (one.precision, two.precision) else FLOAT


def _whole_only(name: str) -> Kinds:
    def kinds(one: PixelType, two: PixelType) -> PixelType:
        if not (one.is_whole and two.is_whole):
            raise EngineError(f"{name}: bits are those of whole numbers only; cast the image.")
        return one.joined(two)

    return kinds


def _divided(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    is_zero = b == 0
    return np.where(is_zero, 0, a / np.where(is_zero, 1, b))


def _remainder(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    is_zero = b == 0
    return np.where(is_zero, 0, np.fmod(a, np.where(is_zero, 1, b)))


def _size(kind: PixelType) -> PixelType:
    if not kind.is_whole:
        return kind
    return PixelType(precision="int", low=0, high=max(abs(kind.low), abs(kind.high)))


def _real(kind: PixelType) -> PixelType:
    return kind if not kind.is_whole else DOUBLE


def _cast(name: str) -> Function:
    kind = PixelType.of(name)

    def function(image: Image) -> Image:
        def compute(a: Pixels) -> Pixels:
            values = a.values
            if kind.is_whole:
                if values.dtype.kind == "f":
                    values = np.trunc(np.nan_to_num(values, posinf=kind.high, neginf=kind.low))
                    values = values.astype(np.float64)
                low, high = kind.low, kind.high
                if values.dtype.kind != "f":  # NumPy refuses limits that a dtype cannot hold
                    limits = np.iinfo(values.dtype)
                    low, high = max(low, limits.min), min(high, limits.max)
                values = np.clip(values, low, high)
            return Pixels(values.astype(kind.dtype), a.mask)

        bands = changed(image, lambda band: pointwise(kind, compute, band)).bands
        return Image(bands=bands, place=image.place)

    return function


_COMPARED: dict[str, Callable[..., np.ndarray]] = {
    "eq": np.equal,
    "neq": np.not_equal,
    "gt": np.greater,
    "gte": np.greater_equal,
    "lt": np.less,
    "lte": np.less_equal,
    "and": np.logical_and,
    "or": np.logical_or,
}


_CASTS = {
    "Uint8": "uint8",
    "Byte": "uint8",
    "Int8": "int8",
    "Uint16": "uint16",
    "Int16": "int16",
    "Short": "int16",
    "Uint32": "uint32",
    "Int32": "int32",
    "Int": "int32",
    "Int64": "int64",
    "Long": "int64",
    "Float": "float32",
    "Double": "float64",
}


ARITHMETIC_FUNCTIONS: dict[str, Function] = {
    **{f"Image.{n}": _of_two(f"Image.{n}", _truth, f) for n, f in _COMPARED.items()},
    **{f"Image.to{name}": _cast(dtype) for name, dtype in _CASTS.items()},
    "Image.add": _of_two("Image.add", _spanned(lambda a, b: a + b), np.add),
    "Image.subtract": _of_two("Image.subtract", _spanned(lambda a, b: a - b), np.subtract),
    "Image.multiply": _of_two("Image.multiply", _spanned(lambda a, b: a * b), np.multiply),
    "Image.divide": _of_two("Image.divide", _quotient, _divided),
    "Image.mod": _of_two("Image.mod", _joined, _remainder),
    "Image.pow": _of_two("Image.pow", lambda *_: DOUBLE, np.power),
    "Image.min": _of_two("Image.min", _joined, np.minimum),
    "Image.max": _of_two("Image.max", _joined, np.maximum),
    "Image.bitwiseAnd": _of_two(
        "Image.bitwiseAnd", _whole_only("Image.bitwiseAnd"), np.bitwise_and
    ),
    "Image.bitwiseOr": _of_two("Image.bitwiseOr", _whole_only("Image.bitwiseOr"), np.bitwise_or),
    "Image.not": _of_one(_truth, lambda a: a == 0),
    "Image.abs": _of_one(_size, np.abs),
    "Image.sqrt": _of_one(_real, lambda a: np.sqrt(np.maximum(a, 0))),
    "Image.floor": _of_one(lambda k: k, np.floor),
    "Image.ceil": _of_one(lambda k: k, np.ceil),
    "Image.round": _of_one(lambda k: k, lambda a: np.floor(a + 0.5) if a.dtype.kind == "f" else a),
}
