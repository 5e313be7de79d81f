"""Series in, a self-organising map of them out: neurons that lie side by side look alike.

The idea is that of Santos et al. 2021 (ISPRS Journal 177, doi:10.1016/j.isprsjprs.2021.04.014) and
of the R package sits: series that look alike meet in one neuron, and a label that is rare there is
odd (`somlabels`). Different here: the map is trained in batch (Kohonen 1995, The batch map), and
gaps are left out of distances instead of being filled.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from model.errors import ConfigError, SampleError

_SMALLEST_EDGE, _LARGEST_EDGE = 3, 30
_LAST_RADIUS = 0.5
_BATCH = 4096


@dataclass(frozen=True, kw_only=True)
class SomConfig:
    """How the map is made and how sure a verdict must be."""

    edge: int | None = None
    """Neurons along each side; by default from the number of samples: see `edge_for`."""
    rounds: int = 20
    """Times all samples are placed and the neurons moved."""
    most_samples: int = 8_000
    """Samples the neurons learn from; of more, so many drawn at random. All are judged."""
    sure: float = 0.6
    """Probability from which a class is taken for granted."""
    prior_weight: float = 4.0
    """Witnesses that the neighbouring neurons count for."""
    seed: int = 0
    """Decides which samples are drawn."""

    def __post_init__(self) -> None:
        if self.edge is not None and self.edge < 2:
            raise ConfigError(f"edge = {self.edge!r}; a map has 2 neurons a side or more")
        if self.rounds < 1 or self.most_samples < 1:
            raise ConfigError(
                f"rounds = {self.rounds!r} and most_samples = {self.most_samples!r}; "
                "expected 1 or more"
            )
        if not 0.5 < self.sure < 1 or not self.prior_weight > 0:
            raise ConfigError(
                f"sure = {self.sure!r} and prior_weight = {self.prior_weight!r}; expected between "
                "0.5 and 1, and above 0"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class SelfOrganisingMap:
    """A square of neurons, neighbours alike."""

    edge: int
    """Neurons along each side; neuron n is in row n // edge, column n % edge."""
    weights: Float32[np.ndarray, "neuron column"]
    """Standardised series of each neuron."""
    mean: Float32[np.ndarray, "column"]
    """Mean of each column of the series it learned from."""
    deviation: Float32[np.ndarray, "column"]
    """Standard deviation of each column; 1 where it does not vary."""

    def place(self, series: Float32[np.ndarray, "sample ..."]) -> Int64[np.ndarray, "sample"]:
        """Return the neuron nearest to each series, by the values that are there.

        Without a value a series is nearest to neuron 0; see `judge_labels`, which leaves it out.
        """
        columns = _standardised(series, self.mean, self.deviation)
        return _nearest(columns, self.weights)


def edge_for(count: int) -> int:
    """Return neurons a side for `count` samples: about 5 root(count) neurons, 3 to 30 a side.

    The number is Vesanto & Alhoniemi's 2000 (IEEE Transactions on Neural Networks 11(3)).
    """
    edge = round(math.sqrt(5 * math.sqrt(max(count, 1))))
    return min(max(edge, _SMALLEST_EDGE), _LARGEST_EDGE)


def fit_som(
    series: Float32[np.ndarray, "sample ..."], config: SomConfig | None = None
) -> SelfOrganisingMap:
    """Learn a map of series (any axes after the first), NaN where a value is missing.

    Neurons start on the plane of the two largest principal components, so that nothing but the
    draw of `most_samples` hangs on the seed. In each round every neuron becomes the mean of the
    series round it, weighted by a Gaussian of the distance on the grid, whose radius shrinks from
    half an edge to half a neuron. Raises `SampleError` if no series has a value.
    """
    config = config or SomConfig()
    flat = series.reshape(len(series), -1)
    flat = flat[np.isfinite(flat).any(axis=1)]
    if not len(flat):
        raise SampleError(f"none of {len(series)} series has a value; there is nothing to map")
    if len(flat) > config.most_samples:
        random = np.random.default_rng(config.seed)
        flat = flat[np.sort(random.choice(len(flat), config.most_samples, replace=False))]
    edge = config.edge or edge_for(len(flat))
    mean, deviation = _moments(flat)
    columns = _standardised(flat, mean, deviation)
    weights = _plane(columns, edge)
    grid = np.stack(np.divmod(np.arange(edge * edge), edge), axis=1)  # (neuron, row and column)
    squared = ((grid[:, None] - grid[None]) ** 2).sum(axis=2)  # (neuron, neuron)
    known = np.isfinite(columns)
    filled = np.where(known, columns, np.float32(0))
    first = max(edge / 2, 1.0)
    for at in range(config.rounds):
        radius = first * (_LAST_RADIUS / first) ** (at / max(config.rounds - 1, 1))
        pull = np.exp(-squared / (2 * radius**2)).astype(np.float32)
        weights = _moved(weights, filled, known, _nearest(columns, weights), pull)
    return SelfOrganisingMap(edge=edge, weights=weights, mean=mean, deviation=deviation)


def _moments(
    columns: Float32[np.ndarray, "sample column"],
) -> tuple[Float32[np.ndarray, "column"], Float32[np.ndarray, "column"]]:
    """Return mean and standard deviation of the values that are there; 0 and 1 without any."""
    known = np.isfinite(columns)
    count = np.maximum(known.sum(axis=0), 1)
    filled = np.where(known, columns, np.float32(0)).astype(np.float64)
    mean = filled.sum(axis=0) / count
    square = np.where(known, (filled - mean) ** 2, 0.0).sum(axis=0) / count
    deviation = np.sqrt(square)
    deviation[deviation < 1e-9] = 1.0
    return mean.astype(np.float32), deviation.astype(np.float32)


def _standardised(
    series: Float32[np.ndarray, "sample ..."],
    mean: Float32[np.ndarray, "column"],
    deviation: Float32[np.ndarray, "column"],
) -> Float32[np.ndarray, "sample column"]:
    flat = series.reshape(len(series), -1)
    if flat.shape[1] != len(mean):
        raise SampleError(
            f"the map was made of series of {len(mean)} values, these have {flat.shape[1]}"
        )
    columns: np.ndarray = ((flat - mean) / deviation).astype(np.float32)
    return columns


def _plane(
    columns: Float32[np.ndarray, "sample column"], edge: int
) -> Float32[np.ndarray, "neuron column"]:
    """Spread neurons evenly over two standard deviations of the two largest components."""
    filled = np.where(np.isfinite(columns), columns, np.float32(0)).astype(np.float64)
    covariance = filled.T @ filled / len(filled)
    size, axes = np.linalg.eigh(covariance)
    most = min(2, len(size))
    step = np.linspace(-2, 2, edge)
    weights = np.zeros((edge, edge, columns.shape[1]))
    for place in range(most):
        axis = axes[:, -1 - place]
        # the sign of an eigenvector is the library's choice: its largest entry is made positive
        axis = axis * np.sign(axis[np.abs(axis).argmax()])
        along = step[:, None] if place == 0 else step[None, :]
        weights += (along * math.sqrt(max(size[-1 - place], 0.0)))[..., None] * axis
    return weights.reshape(edge * edge, -1).astype(np.float32)


def _nearest(
    columns: Float32[np.ndarray, "sample column"],
    weights: Float32[np.ndarray, "neuron column"],
) -> Int64[np.ndarray, "sample"]:
    """Return the neuron of the least mean squared difference over the values that are there."""
    nearest = np.empty(len(columns), np.int64)
    for start in range(0, len(columns), _BATCH):
        part = columns[start : start + _BATCH]
        known = np.isfinite(part)
        filled = np.where(known, part, np.float32(0))
        # the sample's own square and the number of its values are the same for all neurons
        difference = known.astype(np.float32) @ (weights**2).T - 2 * (filled @ weights.T)
        nearest[start : start + _BATCH] = difference.argmin(axis=1)
    return nearest


def _moved(
    weights: Float32[np.ndarray, "neuron column"],
    filled: Float32[np.ndarray, "sample column"],
    known: Bool[np.ndarray, "sample column"],
    nearest: Int64[np.ndarray, "sample"],
    pull: Float32[np.ndarray, "neuron neuron"],
) -> Float32[np.ndarray, "neuron column"]:
    """Return each neuron as the weighted mean of the values round it; as it was without any."""
    order = np.argsort(nearest, kind="stable")
    there, start = np.unique(nearest[order], return_index=True)
    total, number = np.zeros((2, *weights.shape), np.float32)
    total[there] = np.add.reduceat(filled[order], start, axis=0)
    number[there] = np.add.reduceat(known[order].astype(np.float32), start, axis=0)
    over, under = pull @ total, pull @ number
    moved = weights.copy()
    np.divide(over, under, out=moved, where=under > 1e-6)
    return moved
