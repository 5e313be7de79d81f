"""A trained LSTM in, its weights in the order in which kernels read them out."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt16
from torch import nn

from model.engines.aligned import aligned_copy
from model.engines.arithmetic import Arithmetic
from model.engines.bfloat import in_pairs, input_products, parts_of
from model.engines.block import GATE_SCALES, GATES
from model.engines.tables import Points, paired_table, points_of, tabulate
from model.engines.tile_layer import DEPTH, UNITS
from model.networks import LSTMClassifier, Network
from model.networks.encoding import PiecewiseEncoding
from model.networks.kernel import COLUMNS
from model.preparation import Preparation, season_of

POOLINGS = ("last", "mean", "attention", "attention-max")
"""What of the states is read; kernels know a pooling by its place here."""


class UnknownNetworkError(Exception):
    """A network that kernels do not compute; whoever asked leaves it to PyTorch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedDirection:
    """One layer in one direction; a strip is the four gates of as many units as a vector has lanes."""

    start: Float32[np.ndarray, "time strip lane"]
    """What sums start with: bias, and in the first layer the season."""
    table: Float32[np.ndarray, "strip entry lane"]
    """Of an encoded network's first layer; elsewhere without entries."""
    weights: Float32[np.ndarray, "strip depth lane"] | UInt16[np.ndarray, "strip tile gate pair"]
    """Of the channels, the states below and its own, these in words of 32 bits; or all in tiles."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedNetwork:
    """A network as kernels read it. States of a direction have `width` units, the last ones 0."""

    points: Points | None
    """Where tables of the encoding have entries; None without encoding."""
    layers: tuple[tuple[PackedDirection, ...], ...]
    """From the lowest, each in one direction or two."""
    width: int
    """Units of a direction in whole vectors."""
    pooling: int
    """Index in `POOLINGS`."""
    attention: Float32[np.ndarray, "unit"]
    """Weight of each unit's hyperbolic tangent; 0 where there is no attention."""
    is_unit: Float32[np.ndarray, "vector"]
    """1 where a value of the vector is a unit's, 0 where it fills up."""
    norm: Float32[np.ndarray, "2 vector"] | None
    """Factor and offset of the vector brought to mean 0 and deviation 1; None leaves it alone."""
    norm_least: float
    """Added to the variance."""
    head: Float32[np.ndarray, "panel vector column"]
    """Weights of the head in panels of `COLUMNS` classes, the last ones 0."""
    head_bias: Float32[np.ndarray, "class"]
    """Scores without any state."""

    @property
    def shape(self) -> tuple[int, ...]:
        """What memory for a block depends on."""
        encoded = self.points is not None
        return len(self.layers), len(self.layers[0]), self.width, self.pooling, encoded


def pack_network(
    network: Network, preparation: Preparation, arithmetic: Arithmetic, *, steps: int
) -> PackedNetwork:
    """Return `network` as kernels read it.

    Raises `UnknownNetworkError` for a network that is no LSTM, or is encoded without the scaling
    and the mask that tables need.
    """
    if type(network) is not LSTMClassifier:
        raise UnknownNetworkError(f"a {type(network).__name__} is no LSTM")
    lstm = network.lstm
    if lstm.proj_size or not lstm.bias or not lstm.batch_first:
        raise UnknownNetworkError("an LSTM with projections or without bias")
    if preparation.positions and len(preparation.positions) != steps:
        raise UnknownNetworkError(f"a calendar of other than {steps} steps")
    directions = 1 + lstm.bidirectional
    width = -(-lstm.hidden_size // arithmetic.units) * arithmetic.units
    points, edges = _points(network, preparation)
    layers = []
    for number in range(lstm.num_layers):
        packer = _Packer(
            lstm=lstm,
            layer=number,
            width=width,
            arithmetic=arithmetic,
            is_scaled=preparation.limit is not None,
        )
        if number:
            layer = tuple(packer.upper(d, steps) for d in range(directions))
        else:
            layer = tuple(
                packer.lowest(d, steps, preparation, points, edges) for d in range(directions)
            )
        layers.append(layer)
    units = _units(lstm.hidden_size, width, directions)
    return PackedNetwork(
        points=points,
        layers=tuple(layers),
        width=width,
        pooling=POOLINGS.index(network.pooling),
        **_read(network, units, width * directions),
    )


def _points(
    network: LSTMClassifier, preparation: Preparation
) -> tuple[Points | None, Float64[np.ndarray, "feature edge"] | None]:
    encoding = network.encoding
    if isinstance(encoding, nn.Identity):
        return None, None
    if type(encoding) is not PiecewiseEncoding:
        raise UnknownNetworkError(f"an encoding that is a {type(encoding).__name__}")
    if preparation.limit is None or not preparation.mask_input:
        raise UnknownNetworkError("pieces of features that have no limit or no mask")
    edges = _array(encoding.edges)
    if not np.isfinite(edges).all():
        raise UnknownNetworkError("pieces whose edges are not finite")
    return points_of(edges, preparation.limit), edges


@dataclass(frozen=True, kw_only=True, eq=False)
class _Packer:
    """Packs one layer."""

    lstm: nn.LSTM
    layer: int
    width: int
    arithmetic: Arithmetic
    is_scaled: bool

    def lowest(
        self,
        direction: int,
        steps: int,
        preparation: Preparation,
        points: Points | None,
        edges: Float64[np.ndarray, "feature edge"] | None,
    ) -> PackedDirection:
        """Return the first layer: its channels are features, pieces, mask and calendar."""
        read = self._gates("weight_ih", direction).T  # (channel, gate)
        calendar = preparation.calendar_channels
        channels = len(read) - calendar
        start = np.repeat(self._bias(direction)[None], steps, axis=0)  # (time, gate)
        if calendar:
            start = start + season_of(preparation.positions).astype(np.float64) @ read[channels:]
        inputs = read[:channels]
        table = self._strips(inputs[:0])
        if points is not None and edges is not None:
            entries, inputs = tabulate(points, edges, inputs), inputs[:0]
            table = self._strips(entries)
            if self.arithmetic.paired_tables:
                near, further = paired_table(points, entries)
                table = in_pairs(self._strips(near), self._strips(further))
        weights = [self._inputs(inputs), self._states(self._own(direction))]
        return PackedDirection(
            start=aligned_copy(self._strips(start).swapaxes(0, 1)),
            table=aligned_copy(table),
            weights=aligned_copy(np.concatenate(weights, axis=1)),
        )

    def upper(self, direction: int, steps: int) -> PackedDirection:
        """Return a layer that reads another one's states."""
        read = self._gates("weight_ih", direction).T  # (unit below, gate)
        directions = 1 + self.lstm.bidirectional
        below = np.zeros((directions * self.width, read.shape[1]))
        below[_units(self.lstm.hidden_size, self.width, directions)] = read
        start = np.repeat(self._bias(direction)[None], steps, axis=0)  # (time, gate)
        weights = [self._states(below), self._states(self._own(direction))]
        return PackedDirection(
            start=aligned_copy(self._strips(start).swapaxes(0, 1)),
            table=self._strips(np.empty((0, read.shape[1]))),
            weights=aligned_copy(np.concatenate(weights, axis=1)),
        )

    def _tensor(self, name: str, direction: int) -> Float64[np.ndarray, "gate *rest"]:
        backwards = "_reverse" if direction else ""
        return _array(getattr(self.lstm, f"{name}_l{self.layer}{backwards}"))

    def _gates(self, name: str, direction: int) -> Float64[np.ndarray, "gate *rest"]:
        """Return weights by gate and unit, scaled to powers of two."""
        scales = np.repeat(np.array(GATE_SCALES), self.lstm.hidden_size)
        found = self._tensor(name, direction)
        return np.asarray(found * scales.reshape(-1, *[1] * (found.ndim - 1)))

    def _bias(self, direction: int) -> Float64[np.ndarray, "gate"]:
        return np.asarray(self._gates("bias_ih", direction) + self._gates("bias_hh", direction))

    def _own(self, direction: int) -> Float64[np.ndarray, "unit gate"]:
        own = np.zeros((self.width, GATES * self.lstm.hidden_size))
        own[: self.lstm.hidden_size] = self._gates("weight_hh", direction).T
        return own

    def _wide(self, rows: Float64[np.ndarray, "row gate"]) -> Float32[np.ndarray, "row 4 width"]:
        """Fill the units of each gate up."""
        hidden = self.lstm.hidden_size
        wide = np.zeros((len(rows), GATES, self.width), np.float32)
        wide[..., :hidden] = rows.reshape(len(rows), GATES, hidden)
        return wide

    def _tiled(
        self, bits: UInt16[np.ndarray, "row 4 width"]
    ) -> UInt16[np.ndarray, "strip tile gate pair"]:
        """Cut weights into tiles: a row has two values of the depth of each of sixteen units."""
        # (tile, row, of two, gate, strip, unit)
        cut = bits.reshape(-1, DEPTH // 2, 2, GATES, self.width // UNITS, UNITS)
        return cut.transpose(4, 0, 3, 1, 5, 2).reshape(
            self.width // UNITS, -1, GATES, DEPTH * UNITS
        )

    def _strips(
        self, rows: Float64[np.ndarray, "row gate"]
    ) -> Float32[np.ndarray, "strip row lane"]:
        """Order gates so that a strip has the four of as many units as a vector has lanes."""
        lanes = self.arithmetic.lanes
        # (row, gate, strip, lane)
        cut = self._wide(rows).reshape(len(rows), GATES, self.width // lanes, lanes)
        return np.ascontiguousarray(
            cut.transpose(2, 0, 1, 3).reshape(self.width // lanes, len(rows), GATES * lanes)
        )

    def _inputs(self, rows: Float64[np.ndarray, "channel gate"]) -> np.ndarray:
        """Return the weights of the channels as kernels read them."""
        if not self.arithmetic.tiles:
            return self._strips(rows)
        parts = parts_of(self._wide(rows))
        products = input_products(self.arithmetic, is_scaled=self.is_scaled)
        together = np.concatenate([parts[of_weight] for _, of_weight in products])
        filled = np.zeros((-(-len(together) // DEPTH) * DEPTH, *together.shape[1:]), np.uint16)
        filled[: len(together)] = together
        return self._tiled(filled)

    def _states(self, rows: Float64[np.ndarray, "unit gate"]) -> np.ndarray:
        """Return the weights of states as `_strips`, as pairs of two units a word, or as tiles."""
        if self.arithmetic.tiles:
            parts = parts_of(self._wide(rows))[: 1 + self.arithmetic.split]
            return np.concatenate([self._tiled(part) for part in parts], axis=1)
        strips = self._strips(rows)
        if not self.arithmetic.pairs:
            return strips
        return in_pairs(strips[:, 0::2], strips[:, 1::2])


def _units(hidden: int, width: int, directions: int) -> Int64[np.ndarray, "unit"]:
    """Return where a layer's units stand among states of whole vectors."""
    return np.concatenate([np.arange(hidden) + d * width for d in range(directions)])


def _read(network: LSTMClassifier, units: Int64[np.ndarray, "unit"], width: int) -> dict[str, Any]:
    """Return what turns states into scores."""
    attention = np.zeros(width, np.float32)
    if network.pooling in ("attention", "attention-max"):
        attention[units] = _array(network.attention.weight)[0]
    if network.pooling == "attention-max":
        units, width = np.concatenate([units, units + width]), 2 * width
    is_unit = np.zeros(width, np.float32)
    is_unit[units] = 1
    classes = network.head.out_features
    panels = -(-classes // COLUMNS)
    head = np.zeros((width, panels * COLUMNS), np.float32)
    head[units, :classes] = _array(network.head.weight).T
    norm, least = None, 0.0
    if isinstance(network.norm, nn.LayerNorm):
        norm, least = np.zeros((2, width), np.float32), network.norm.eps
        norm[0, units], norm[1, units] = _array(network.norm.weight), _array(network.norm.bias)
    return {
        "attention": attention,
        "is_unit": is_unit,
        "norm": norm,
        "norm_least": least,
        "head": aligned_copy(head.reshape(width, panels, COLUMNS).swapaxes(0, 1)),
        "head_bias": _array(network.head.bias).astype(np.float32),
    }


def _array(tensor: torch.Tensor) -> Float64[np.ndarray, "*many"]:
    array: np.ndarray = tensor.detach().to("cpu", torch.float64).numpy()
    return array
