"""The name of a spectral index in, its NumPy function out: the Awesome Spectral Indices list, read.

The list comes with the package `spyndex` (Montero et al. 2023, Scientific Data 10). Only its files
are read: importing it would pull xarray and Dask into the model, and it hands formulas to the
interpreter. Here a formula is parsed, and anything but numbers, names and + - * / ** is refused.
"""

import ast
import json
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from model.errors import FeatureError

Values = Mapping[str, np.ndarray]
"""Arrays of one shape by the letter of their band."""

BAND_OF_LETTER = {
    "A": "B01", "B": "B02", "G": "B03", "R": "B04", "RE1": "B05", "RE2": "B06", "RE3": "B07",
    "N": "B08", "N2": "B8A", "WV": "B09", "S1": "B11", "S2": "B12",
}  # fmt: skip
"""The list's letters for bands that Sentinel-2 has; others (G1, Y, T, VV ...) it has not."""

# Reflectance of what a land pixel may show, in the order of BAND_OF_LETTER; typical values, not
# measurements. They only say in what range an index moves, so that nonsense can be clipped.
_SURFACES = np.array(
    [
        # dark conifer
        [0.02, 0.02, 0.03, 0.02, 0.05, 0.13, 0.16, 0.17, 0.18, 0.18, 0.08, 0.04],
        # summer broadleaf
        [0.02, 0.03, 0.06, 0.03, 0.10, 0.28, 0.35, 0.37, 0.39, 0.39, 0.19, 0.09],
        # winter broadleaf
        [0.04, 0.05, 0.07, 0.09, 0.12, 0.16, 0.18, 0.20, 0.22, 0.23, 0.24, 0.16],
        # green grass
        [0.03, 0.04, 0.09, 0.06, 0.14, 0.31, 0.38, 0.40, 0.42, 0.42, 0.24, 0.13],
        # dry grass
        [0.06, 0.08, 0.12, 0.16, 0.20, 0.24, 0.26, 0.28, 0.30, 0.31, 0.37, 0.27],
        # dark soil
        [0.05, 0.06, 0.08, 0.10, 0.12, 0.13, 0.15, 0.16, 0.17, 0.18, 0.22, 0.18],
        # bright soil
        [0.12, 0.15, 0.20, 0.27, 0.30, 0.32, 0.34, 0.36, 0.38, 0.39, 0.46, 0.41],
        # snow
        [0.80, 0.85, 0.85, 0.84, 0.83, 0.82, 0.81, 0.80, 0.78, 0.70, 0.12, 0.09],
        # water
        [0.06, 0.05, 0.04, 0.025, 0.022, 0.018, 0.016, 0.014, 0.012, 0.01, 0.008, 0.006],
        # burnt
        [0.03, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.10, 0.10, 0.15, 0.16],
    ]
)
_CLIP_SPANS = 3.0

_Part = float | Callable[[Values], np.ndarray]
"""A piece of a formula: a number, or a function of the values."""

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Pow: operator.pow,
}
_SMALLEST_DENOMINATOR = 1e-12


@dataclass(frozen=True, kw_only=True)
class Index:
    """A spectral index of the list, ready to compute."""

    name: str
    """Short name as the list writes it, e.g. `GNDVI`."""
    bands: tuple[str, ...]
    """The Sentinel-2 bands it is computed from."""
    definition: str
    """Its formula with the constants that were used, e.g. `(N - R)/(N + R)`; what a saved
    classifier should remember, because another edition of the list may say something else."""
    lowest: float
    """Values below are clipped to this."""
    highest: float
    """Values above are clipped to this."""
    raw: Callable[[Values], np.ndarray]
    """The formula on values by letter, Float64, not clipped."""

    def compute(self, bands: Values) -> np.ndarray:
        """Return the index of Float32 reflectance by band name; Float32, NaN where it has no value.

        It has none where a band is NaN, a denominator is 0 or a root is of a negative number.
        """
        letters = {letter: bands[band].astype(np.float64)
                   for letter, band in BAND_OF_LETTER.items() if band in self.bands}  # fmt: skip
        with np.errstate(invalid="ignore", over="ignore"):
            values: np.ndarray = np.clip(self.raw(letters), self.lowest, self.highest)
        return values.astype(np.float32)


def index_names() -> tuple[str, ...]:
    """Every short name of the list, those that Sentinel-2 cannot compute included."""
    return tuple(_entries())


@lru_cache(maxsize=512)
def spectral_index(name: str) -> Index:
    """Return the index called `name`, spelt as in the list.

    Raises `FeatureError` for a name that is not in the list, and for an index that needs a band
    Sentinel-2 has not, a kernel, or a constant without a default.
    """
    if name not in _entries():
        raise FeatureError(f"spectral index {name!r} is not in the Awesome Spectral Indices list")
    entry = _entries()[name]
    formula = str(entry["formula"])
    bands, constants, unknown = [], {}, []
    for symbol in map(str, entry["bands"]):
        if symbol in BAND_OF_LETTER:
            bands.append(BAND_OF_LETTER[symbol])
        elif symbol in _constants():
            constants[symbol] = _constants()[symbol]
        else:
            unknown.append(symbol)
    if unknown:
        raise FeatureError(
            f"spectral index {name!r} needs {', '.join(unknown)} ({_what_is(unknown[0])}); "
            "choose one that is made of Sentinel-2's bands"
        )
    raw = _compile(formula, constants, name)
    lowest, highest = _range(formula, raw)
    settings = "".join(f"; {symbol} = {value:g}" for symbol, value in sorted(constants.items()))
    return Index(
        name=name,
        bands=tuple(bands),
        definition=formula + settings,
        lowest=lowest,
        highest=highest,
        raw=raw,
    )


def _what_is(symbol: str) -> str:
    if symbol.startswith("k"):
        return "a kernel"
    return "a constant without a default" if symbol == "PAR" else "a band Sentinel-2 has not"


@lru_cache(maxsize=1)
def _entries() -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = _read("spectral-indices-dict.json")["SpectralIndices"]
    return entries


@lru_cache(maxsize=1)
def _constants() -> dict[str, float]:
    """The list's defaults; wavelengths in nm are those of Sentinel-2A."""
    found = {name: entry["default"] for name, entry in _read("constants.json").items()}
    for letter, entry in _read("bands.json").items():
        if f"lambda{letter}" in found and letter in BAND_OF_LETTER:
            found[f"lambda{letter}"] = entry["platforms"]["sentinel2a"]["wavelength"]
    return {name: float(value) for name, value in found.items() if value is not None}


def _read(file: str) -> dict[str, Any]:
    spec = find_spec("spyndex")  # finds a package without running it
    if spec is None or spec.origin is None:
        raise FeatureError("spectral indices by name need the package spyndex; install it")
    path = Path(spec.origin).parent / "data" / file
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _compile(
    formula: str, constants: Mapping[str, float], name: str
) -> Callable[[Values], np.ndarray]:
    """Turn a formula into nested functions; nothing of it is ever run as code."""
    try:
        tree = ast.parse(formula.strip(), mode="eval").body
    except SyntaxError as error:
        raise FeatureError(f"spectral index {name!r} has a formula that cannot be read") from error
    found = _node(tree, constants, name)
    if isinstance(found, float):
        raise FeatureError(f"spectral index {name!r} is made of no band: {formula!r}")
    return found


def _node(node: ast.expr, constants: Mapping[str, float], name: str) -> _Part:
    """Turn one node of a formula, and what is below it, into a number or a function."""
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=symbol) if symbol in constants:
            return constants[symbol]
        case ast.Name(id=symbol) if symbol in BAND_OF_LETTER:
            return lambda values: values[symbol]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _joined(operator.mul, -1.0, _node(operand, constants, name))
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _node(operand, constants, name)
        case ast.BinOp(left=left, op=sign, right=right):
            divides = isinstance(sign, ast.Div)
            if divides or type(sign) in _OPERATORS:
                joining = _divided if divides else _OPERATORS[type(sign)]
                sides = (_node(left, constants, name), _node(right, constants, name))
                return _joined(joining, *sides)
    raise FeatureError(
        f"spectral index {name!r} has {ast.unparse(node)!r} in its formula; "
        "only numbers, bands and + - * / ** are computed"
    )


def _joined(join: Callable[[Any, Any], Any], left: _Part, right: _Part) -> _Part:
    if callable(left) and callable(right):
        return lambda values: join(left(values), right(values))
    if callable(left):
        return lambda values: join(left(values), right)
    if callable(right):
        return lambda values: join(left, right(values))
    return float(join(left, right))


def _divided(over: Any, under: Any) -> Any:
    """Divide; NaN where the denominator is 0 or the rounding of it."""
    under = np.asarray(under)
    return over / np.where(np.abs(under) < _SMALLEST_DENOMINATOR, np.nan, under)


def _range(formula: str, raw: Callable[[Values], np.ndarray]) -> tuple[float, float]:
    """Say where values end: -1..1 for a normalised difference of two positive sums.

    For others the central 90 % of what it gives over typical surfaces and their mixtures, three
    times its span wider on both sides: what a surface may show is kept, and one bad pixel cannot
    explode.
    """
    if _is_normalised_difference(ast.parse(formula.strip(), mode="eval").body):
        return -1.0, 1.0
    first, second = np.triu_indices(len(_SURFACES))
    mixed = [share * _SURFACES[first] + (1 - share) * _SURFACES[second] for share in (1, 0.7, 0.3)]
    spectra = np.concatenate([level * part for level in (0.6, 1.0) for part in mixed])
    with np.errstate(invalid="ignore"):
        values = raw(dict(zip(BAND_OF_LETTER, spectra.T, strict=True)))
    low, high = np.nanquantile(values[np.isfinite(values)], [0.05, 0.95])
    span = max(high - low, 1e-6)
    return float(low - _CLIP_SPANS * span), float(high + _CLIP_SPANS * span)


def _is_normalised_difference(node: ast.expr) -> bool:
    match node:
        case ast.BinOp(
            left=ast.BinOp(left=ast.Name(id=a), op=ast.Sub(), right=ast.Name(id=b)),
            op=ast.Div(),
            right=ast.BinOp(left=ast.Name(id=c), op=ast.Add(), right=ast.Name(id=d)),
        ):
            return (a, b) == (c, d)
    return False
