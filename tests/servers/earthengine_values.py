"""Pixel types, bands, images, collections: what an expression of Earth Engine can be worth."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from earthengine_grids import EngineError, Grid, Place, Projection

MOST_PIXELS = 1 << 26
"""Pixels that one step of a computation may make at once."""


_WHOLE = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64")


@dataclass(frozen=True, kw_only=True)
class PixelType:
    """What a band's values can be."""

    precision: Literal["int", "float", "double"]
    """Whole numbers, 32-bit or 64-bit floating point."""
    low: float
    """Least value possible."""
    high: float
    """Greatest value possible."""

    @classmethod
    def of(cls, name: str) -> Self:
        """Return the type of a NumPy dtype."""
        dtype = np.dtype(name)
        if dtype.kind == "f":
            precision: Any = "float" if dtype.itemsize == 4 else "double"
            return cls(precision=precision, low=-np.inf, high=np.inf)
        return cls(precision="int", low=np.iinfo(dtype).min, high=np.iinfo(dtype).max)

    @property
    def is_whole(self) -> bool:
        """Whether values are whole numbers."""
        return self.precision == "int"

    @property
    def dtype(self) -> np.dtype:
        """Smallest dtype that holds the values: that in which they are sent."""
        if not self.is_whole:
            return np.dtype("float32" if self.precision == "float" else "float64")
        for name in _WHOLE:
            if np.iinfo(name).min <= self.low and self.high <= np.iinfo(name).max:
                return np.dtype(name)
        return np.dtype("float64")

    def joined(self, other: "PixelType") -> "PixelType":
        """Return the type that holds the values of both."""
        order = ("int", "float", "double")
        return PixelType(
            precision=max(self.precision, other.precision, key=order.index),
            low=min(self.low, other.low),
            high=max(self.high, other.high),
        )

    def described(self) -> dict[str, Any]:
        """Return it as Earth Engine shows it."""
        limits = (
            {"min": self.low, "max": self.high} if np.isfinite([self.low, self.high]).all() else {}
        )
        return {"type": "PixelType", "precision": self.precision} | limits


DOUBLE = PixelType.of("float64")


FLOAT = PixelType.of("float32")


TRUTH = PixelType(precision="int", low=0, high=1)


class Pixels(NamedTuple):
    """A band on a grid."""

    values: np.ndarray
    """(y, x) in the dtype of the band's type; anything where masked."""
    mask: np.ndarray
    """(y, x); True where there is a value."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Band:
    """One band, not computed yet."""

    kind: PixelType
    """What its values can be."""
    projection: Projection
    """Its own lattice; of composites degrees, in which nothing should be resampled."""
    paint: "Callable[[Painter], Pixels]" = field(repr=False)
    """Computes it on the painter's grid."""
    inputs: "tuple[Band, ...]" = field(default=(), repr=False)
    """The bands that `paint` asks the painter for, once each."""
    shape: tuple[int, int] | None = None
    """Rows and columns of its file; None if it has none."""


class Painter:
    """Bands in, their pixels on one grid out; each is computed once and kept while it is needed."""

    def __init__(self, grid: Grid, bands: Iterable[Band]) -> None:
        self.grid = grid
        self._made: dict[int, Pixels] = {}
        self._uses: Counter[int] = Counter()
        waiting = list(bands)
        self._uses.update(id(band) for band in waiting)
        known = set()
        while waiting:
            band = waiting.pop()
            if id(band) not in known:
                known.add(id(band))
                self._uses.update(id(one) for one in band.inputs)
                waiting.extend(band.inputs)

    def pixels(self, band: Band) -> Pixels:
        """Return a band's pixels."""
        key = id(band)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = band.paint(self)
        self._uses[key] -= 1
        if self._uses[key] <= 0:
            del self._made[key]
        return found


def painted(band: Band, grid: Grid) -> Pixels:
    """Return one band's pixels on a grid other than the painter's own."""
    if grid.pixels > MOST_PIXELS:
        raise EngineError("User memory limit exceeded.")
    return Painter(grid, [band]).pixels(band)


def pointwise(
    kind: PixelType,
    compute: Callable[..., Pixels],
    *inputs: Band,
    projection: Projection | None = None,
) -> Band:
    """Return a band that `compute` makes of the pixels of others, place by place."""
    # a band that is given twice is one input: the painter counts who still needs it
    distinct = tuple({id(band): band for band in inputs}.values())

    def paint(painter: Painter) -> Pixels:
        found = {id(band): painter.pixels(band) for band in distinct}
        made = compute(*(found[id(band)] for band in inputs))
        return Pixels(made.values.astype(kind.dtype, copy=False), made.mask)

    place = projection or (inputs[0].projection if inputs else Projection())
    return Band(kind=kind, projection=place, paint=paint, inputs=distinct)


def constant_band(value: float) -> Band:
    """Return a band with one value everywhere."""
    # JSON does not tell 2.0 from 2: both are whole
    precision: Any = "int" if float(value).is_integer() else "double"
    kind = PixelType(precision=precision, low=value, high=value)

    def paint(painter: Painter) -> Pixels:
        shape = painter.grid.height, painter.grid.width
        flat = np.asarray(value, kind.dtype)
        return Pixels(np.broadcast_to(flat, shape), np.broadcast_to(np.True_, shape))

    return Band(kind=kind, projection=Projection(), paint=paint)


def inside_of(place: Place) -> Band:
    """Return a band that is 1 where a pixel's centre lies in a place, else 0; nowhere masked."""

    def paint(painter: Painter) -> Pixels:
        is_inside = place.covers(painter.grid)
        return Pixels(is_inside.astype(np.uint8), np.ones_like(is_inside))

    return Band(kind=TRUTH, projection=Projection(), paint=paint)


@dataclass(frozen=True, kw_only=True)
class Element:
    """Anything with properties: a feature, an image, a collection."""

    properties: Mapping[str, Any] = field(default_factory=dict)
    place: Place | None = None
    """Its geometry, of an image its footprint; None is everywhere."""


@dataclass(frozen=True, kw_only=True)
class Image(Element):
    """Bands by name."""

    bands: Mapping[str, Band] = field(default_factory=dict)
    region: Place | None = None
    """What it was last clipped to: the part that is exported."""


@dataclass(frozen=True, kw_only=True)
class Collection(Element):
    """Elements in order."""

    items: tuple[Element, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Instant:
    """A date."""

    milliseconds: float
    """Since 1970, UTC."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A range of dates; the end is outside."""

    start: float
    """Milliseconds since 1970, UTC."""
    end: float


def as_image(value: Any) -> Image:
    """Return an image; numbers and lists of them become constants."""
    if isinstance(value, Image):
        return value
    numbers = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(number, int | float) for number in numbers):
        raise EngineError(f"{type(value).__name__} is no image.")
    names = ["constant", *(f"constant_{i}" for i in range(1, len(numbers)))]
    return Image(bands={n: constant_band(v) for n, v in zip(names, numbers, strict=True)})
