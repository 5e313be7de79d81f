"""A cube in, out how far its pixels resemble each other, and blocks that are larger than that.

Pixels are drawn from whole chunks, chunks from squares of neighbours; for each layer (a band of a
period) the correlogram is 1 - semivariance / variance over classes of distance. The range is where
the mean correlogram of the layers falls to 0.1: just short of the 95 % of the sill that define the
effective range of an exponential variogram, for the last twentieth drowns in noise. Blocks of
cross-validation have to be longer than that range (Roberts et al. 2017, Ecography 40, 913-929,
doi:10.1111/ecog.02881); taking it from the predictors is what blockCV does (Valavi et al. 2019,
Methods in Ecology and Evolution 10, 225-232, doi:10.1111/2041-210X.13107).
"""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import zarr
from jaxtyping import Bool, Float64, Int64

from cube.place import Place, zarr_place
from cube.spec import CubeSpec
from cube.store import decode, read_spec
from cube.zarrstore import stored_array

NEARLY_NOTHING = 0.1
"""Correlation at which pixels count as independent."""

_BANDS = ("B04", "B8A", "B11", "B08", "B05", "B03")
"""Bands that are measured, the first three of them that the cube has."""

_PERIODS = 3
_SQUARES = 12
"""Squares of 2 x 2 neighbouring chunks that are drawn: at 256 pixels, and 3 periods of 10 bands,
some 190 MB are read, a chunk of one period at a time."""

_PIXELS = 3000
"""Pixels that are drawn of a period: 4.5 million pairs."""

_CLASSES = 24
"""Classes of distance, evenly spaced in its logarithm."""

_FEWEST_PAIRS = 200
_FEWEST_PIXELS = 50
_FEWEST_BLOCKS = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Autocorrelation:
    """How the likeness of pixels falls with distance."""

    lag: Float64[np.ndarray, " lag"]
    """Mean distance of the pairs of a class, metres, rising."""
    correlation: Float64[np.ndarray, " lag"]
    """Mean correlation of the layers; 1 would be equal pixels, 0 none that resemble each other."""
    pairs: Int64[np.ndarray, " lag"]
    """Pairs of pixels of a class, all layers together."""
    range: float | None
    """Metres at which the correlation falls to `NEARLY_NOTHING`; None if it does not, or if
    nothing could be measured."""
    block_size: int | None
    """Metres along the edge of a block that is no shorter than the range; None if nothing could be
    measured."""
    layers: tuple[str, ...]
    """What was measured, e.g. `B8A 2022-07`."""
    notes: tuple[str, ...]
    """What could not be done as asked, one sentence each."""


def measure_autocorrelation(cube_path: Place, *, seed: int = 0) -> Autocorrelation:
    """Measure a cube's spatial autocorrelation in up to three bands and periods.

    Periods are those with the most clear pixels in the chunks that are drawn. One seed gives one
    result. Raises `InputError` if there is no cube.
    """
    spec = read_spec(cube_path)
    random = np.random.default_rng(seed)
    bands = tuple(band for band in _BANDS if band in spec.bands)[:3] or spec.bands[:3]
    chunks = _chunks(spec, random)
    edges = _edges(spec)
    sums, pairs = np.zeros((len(edges) - 1, 2)), np.zeros(len(edges) - 1, np.int64)
    layers = []
    for period in _clearest_periods(cube_path, spec, chunks):
        place, values = _draw(cube_path, spec, period, bands, chunks, random)
        if len(values) < _FEWEST_PIXELS or not values.std(axis=0).any():
            continue
        differs = np.flatnonzero(values.std(axis=0))
        layers += [f"{bands[index]} {spec.periods[period]}" for index in differs]
        likeness, lag, count = correlogram(place, values[:, differs], edges)
        sums += np.column_stack([likeness.sum(axis=1), lag * len(differs)]) * count[:, None]
        pairs += count * len(differs)
    is_measured = pairs >= _FEWEST_PAIRS
    mean = sums[is_measured] / pairs[is_measured, None]
    return _described(
        spec, lag=mean[:, 1], likeness=mean[:, 0], pairs=pairs[is_measured], layers=layers
    )


def correlogram(
    place: Float64[np.ndarray, "pixel 2"],
    value: Float64[np.ndarray, "pixel band"],
    edges: Float64[np.ndarray, " edge"],
) -> tuple[Float64[np.ndarray, "lag band"], Float64[np.ndarray, " lag"], Int64[np.ndarray, " lag"]]:
    """Return correlation, mean distance and number of pairs of each class of distance.

    The correlation is 1 - semivariance / variance (Matheron's estimator of the semivariance); a
    class without a pair has 0 of each. `edges` are rising metres; no band may be constant.
    """
    classes, bands = len(edges) - 1, value.shape[1]
    square, length = np.zeros((classes, bands)), np.zeros(classes)
    count = np.zeros(classes, np.int64)
    for first in range(len(value) - 1):
        away = np.hypot(*(place[first + 1 :] - place[first]).T)
        at = np.searchsorted(edges, away, side="right") - 1
        is_in = (at >= 0) & (at < classes)
        at, gap = at[is_in], (value[first + 1 :] - value[first])[is_in]
        for band in range(bands):
            square[:, band] += np.bincount(at, weights=gap[:, band] ** 2, minlength=classes)
        length += np.bincount(at, weights=away[is_in], minlength=classes)
        count += np.bincount(at, minlength=classes)
    many = np.maximum(count, 1)
    likeness = 1 - square / (2 * many[:, None] * value.var(axis=0))
    return np.where(count[:, None] > 0, likeness, 0.0), length / many, count


def falls_to(
    lag: Float64[np.ndarray, " lag"], likeness: Float64[np.ndarray, " lag"], level: float
) -> float | None:
    """Return the distance at which a correlogram first falls to `level`, between two classes.

    Before the first class the correlation is 1 at distance 0, unless it starts below `level`: then
    the first class is the answer. None if it never falls so low.
    """
    below = np.flatnonzero(likeness <= level)
    if not below.size:
        return None
    last = int(below[0])
    if last == 0:
        return float(lag[0])
    one, other = likeness[last - 1], likeness[last]
    return float(lag[last - 1] + (lag[last] - lag[last - 1]) * (one - level) / (one - other))


def block_size_for(reach: float | None, extent: tuple[float, float]) -> tuple[int, tuple[str, ...]]:
    """Return an edge of blocks that is no shorter than `reach`, and what there is to say of it.

    It is a multiple of 50 m, of 100 m from 500 m on and of 500 m from 2 km on. Two blocks must fit
    along each axis of `extent` (metres); where they do not, or where `reach` is unknown, it is as
    long as that allows.
    """
    most = min(extent) / _FEWEST_BLOCKS
    if reach is None:
        size = _rounded(most, up=False)
        return size, (
            f"pixels resemble each other over more than half the cube; {size} m leave two blocks "
            "along its shorter side, which are no independent ones",
        )
    size = _rounded(reach, up=True)
    if size <= most:
        return size, ()
    fitting = _rounded(most, up=False)
    return fitting, (
        f"pixels resemble each other over {reach:.0f} m; blocks of {size} m do not fit twice along "
        f"the cube's shorter side ({min(extent):.0f} m), so {fitting} m are suggested",
    )


def _rounded(metres: float, *, up: bool) -> int:
    step = 50 if metres <= 500 else 100 if metres <= 2000 else 500
    steps = math.ceil(metres / step) if up else math.floor(metres / step)
    return max(1, steps) * step


def _described(
    spec: CubeSpec,
    *,
    lag: Float64[np.ndarray, " lag"],
    likeness: Float64[np.ndarray, " lag"],
    pairs: Int64[np.ndarray, " lag"],
    layers: list[str],
) -> Autocorrelation:
    reach: float | None = None
    size: int | None = None
    notes: tuple[str, ...] = ()
    if lag.size:
        reach = falls_to(lag, likeness, NEARLY_NOTHING)
        height, width = spec.geobox.shape
        step = _resolution(spec)
        size, notes = block_size_for(reach, (width * step, height * step))
    else:
        notes = (
            f"fewer than {_FEWEST_PIXELS} clear pixels that differ were found in any layer; "
            "how far pixels resemble each other cannot be measured",
        )
    return Autocorrelation(
        lag=lag,
        correlation=likeness,
        pairs=pairs,
        range=reach,
        block_size=size,
        layers=tuple(layers),
        notes=notes,
    )


def _resolution(spec: CubeSpec) -> float:
    return float(spec.geobox.transform.a)


def _edges(spec: CubeSpec) -> Float64[np.ndarray, " edge"]:
    """Return classes of distance from one pixel to half the longer side of the grid."""
    step = _resolution(spec)
    longest = max(max(spec.geobox.shape) / 2, 4) * step
    return np.geomspace(step, longest, _CLASSES + 1) * (1 - 1e-9)


def _chunks(spec: CubeSpec, random: np.random.Generator) -> list[tuple[int, int]]:
    """Draw squares of 2 x 2 chunks; return the rows and columns of their chunks, each once."""
    rows, columns = (-(-size // spec.chunk) for size in spec.geobox.shape)
    corners = _corners(spec, rows, columns)
    drawn = random.permutation(len(corners))[:_SQUARES].tolist()
    found = {
        (corners[n][0] + down, corners[n][1] + across)
        for n, down, across in product(drawn, (0, 1), (0, 1))
        if corners[n][0] + down < rows and corners[n][1] + across < columns
    }
    return sorted(found)


def _corners(spec: CubeSpec, rows: int, columns: int) -> list[tuple[int, int]]:
    """Return the first chunk of each square: of any place, or of the tiles that an area touches."""
    if spec.touched is None:
        return list(product(range(max(1, rows - 1)), range(max(1, columns - 1))))
    per_tile = spec.tile // spec.chunk
    return [
        (row, column)
        for region in spec.regions()
        for row in range(region.row * per_tile, min((region.row + 1) * per_tile, rows))
        for column in range(region.column * per_tile, min((region.column + 1) * per_tile, columns))
    ]


def _window(spec: CubeSpec, chunk: tuple[int, int]) -> tuple[slice, slice]:
    height, width = spec.geobox.shape
    top, left = chunk[0] * spec.chunk, chunk[1] * spec.chunk
    return (
        slice(top, min(top + spec.chunk, height)),
        slice(left, min(left + spec.chunk, width)),
    )


def _clearest_periods(path: Place, spec: CubeSpec, chunks: list[tuple[int, int]]) -> list[int]:
    array = stored_array(zarr.open_group(zarr_place(path), mode="r"), "clear_count")
    clear = np.zeros(len(spec.periods), np.int64)
    for chunk in chunks:
        rows, columns = _window(spec, chunk)
        for period in range(len(spec.periods)):
            clear[period] += int((np.asarray(array[period, rows, columns]) > 0).sum())
    best = np.argsort(-clear, kind="stable")[:_PERIODS]
    return sorted(int(period) for period in best if clear[period])


def _draw(
    path: Place,
    spec: CubeSpec,
    period: int,
    bands: tuple[str, ...],
    chunks: list[tuple[int, int]],
    random: np.random.Generator,
) -> tuple[Float64[np.ndarray, "pixel 2"], Float64[np.ndarray, "pixel band"]]:
    """Draw pixels of one period evenly from chunks; return places (metres) and values."""
    array = stored_array(zarr.open_group(zarr_place(path), mode="r"), "reflectance")
    index = [spec.bands.index(band) for band in bands]
    each = max(2, _PIXELS // (2 * len(chunks)))
    places, values = [], []
    for chunk in chunks:
        rows, columns = _window(spec, chunk)
        block = decode(np.asarray(array[period, :, rows, columns])[index])  # (band, y, x)
        is_clear = np.isfinite(block).all(axis=0)
        row, column = _pixels_and_neighbours(is_clear, each, random).T
        values.append(block[:, row, column].T)  # (pixel, band)
        places.append(np.column_stack([column + columns.start, row + rows.start]))
    return np.concatenate(places) * _resolution(spec), np.concatenate(values).astype(np.float64)


def _pixels_and_neighbours(
    is_clear: Bool[np.ndarray, "y x"], count: int, random: np.random.Generator
) -> Int64[np.ndarray, "pixel 2"]:
    """Return (row, column) of `count` clear pixels and of a clear one near each, where there is.

    Pixels alone would give few pairs nearer than a tenth of a chunk; the neighbours lie at
    distances evenly spaced in their logarithm.
    """
    clear = np.argwhere(is_clear)
    drawn = clear[random.permutation(len(clear))[:count]]
    away = np.exp(random.uniform(0, np.log(max(is_clear.shape) / 4 + 1), len(drawn)))
    angle = random.uniform(0, 2 * np.pi, len(drawn))
    offset = np.rint(np.column_stack([away * np.sin(angle), away * np.cos(angle)])).astype(np.int64)
    near = drawn + offset
    near = near[((near >= 0) & (near < is_clear.shape)).all(axis=1)]
    return np.unique(np.concatenate([drawn, near[is_clear[near[:, 0], near[:, 1]]]]), axis=0)
