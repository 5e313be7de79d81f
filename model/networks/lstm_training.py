"""An `nn.LSTM` and sequences in, its states out, about twice as fast to train as torch's own.

Torch's kernels are made for large matrices; those of a batch of 32 leave a core half idle, and
the multiplications that are left are run by a library that does not use all of every processor.
Only for training on one thread: results agree with torch's to rounding.
"""

import math
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model.networks.kernel import COLUMNS, ROWS
from model.networks.lstm_kernels import layer_backward, layer_forward

Array = np.ndarray


class TrainingLSTM:
    """Reads sequences with the weights of an `nn.LSTM`, reusing its memory from batch to batch.

    What is kept for going back is overwritten by the next call: go back before going forward again.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        self.lstm = lstm
        self._weights = list(lstm.parameters())  # looking for them takes longer than reading them
        directions = 1 + lstm.bidirectional
        self._layers = [
            [_Layer(backwards=bool(direction)) for direction in range(directions)]
            for _ in range(lstm.num_layers)
        ]
        self._room = _Room()
        self._turn = 0
        """Counts the calls, so that going back too late is noticed."""

    def __call__(
        self, steps: Float32[Tensor, "sample time channel"]
    ) -> Float32[Tensor, "sample time unit"]:
        """Return the last layer's states, of a bidirectional LSTM both directions side by side.

        What is dropped between layers is drawn from torch's generator.
        """
        return _read(steps, self, *self._weights)

    def last(self, steps: Float32[Tensor, "sample time channel"]) -> Float32[Tensor, "sample unit"]:
        """Return the states after each direction's last step only, which is quicker."""
        return _read_last(steps, self, *self._weights)

    def read(
        self, steps: Float32[Array, "sample time channel"], weights: Sequence[Array]
    ) -> tuple[Float32[Array, "time unit row"], int]:
        """Return the last layer's states and the turn that `go_back` asks for.

        A row is a sample or, behind them, nothing: rows come in whole vectors. The next call
        overwrites the states.
        """
        self._turn += 1
        samples, times, channels = steps.shape
        rows = -(-samples // COLUMNS) * COLUMNS
        values = self._room.zeros("steps", times, channels, rows)
        values[..., :samples] = steps.transpose(1, 2, 0)
        width = self.lstm.hidden_size * len(self._layers[0])
        left = iter(weights)
        for number, layer in enumerate(self._layers):
            if number and self.lstm.dropout:
                factors = self._room.take(f"factors {number}", times, width, rows)
                draw_factors(factors, self.lstm.dropout)
                values = np.multiply(
                    values, factors, out=self._room.take(f"dropped {number}", times, width, rows)
                )
            parts = [direction.forward(values, *islice(left, 4)) for direction in layer]
            values = parts[0]
            if len(parts) > 1:
                joined = self._room.take(f"read {number}", times, width, rows)
                values = np.concatenate(parts, axis=1, out=joined)
        return values, self._turn

    def slopes(self, turn: int) -> Float32[Array, "time unit row"]:
        """Return room for the slopes of the loss by what `read` returned in `turn`, all 0."""
        if turn != self._turn:
            raise RuntimeError("the LSTM read other sequences since; go back before going on")
        self._turn += 1  # what was kept is overwritten
        states = self._layers[-1][0].states
        return self._room.zeros(
            "slopes", len(states), len(self._layers[-1]) * states.shape[1], states.shape[2]
        )

    def go_back(
        self, behind: Float32[Array, "time unit row"], *, wanted: bool
    ) -> tuple[Float32[Array, "time channel row"] | None, list[Tensor]]:
        """Return the slopes of the loss by the steps, where `wanted`, and by all weights."""
        width = behind.shape[1]
        # gradients that are kept are added to: they must not lie where the new ones are written
        is_kept = any(weight.grad is not None for weight in self._weights)
        by_weight: list[Tensor] = []
        for number in range(len(self._layers) - 1, -1, -1):
            layer = self._layers[number]
            hidden = width // len(layer)
            parts = [
                direction.backward(
                    behind[:, index * hidden : (index + 1) * hidden],
                    wanted=wanted or number > 0,
                    in_place=not is_kept,
                )
                for index, direction in enumerate(layer)
            ]
            by_weight = [slope for _, found in parts for slope in found] + by_weight
            if not (wanted or number > 0):
                return None, by_weight
            behind = parts[0][0] if len(parts) == 1 else parts[0][0] + parts[1][0]
            if self.lstm.dropout and number > 0:
                behind *= self._room.take(f"factors {number}", *behind.shape)
        return behind, by_weight


def is_supported(lstm: nn.LSTM, steps: Tensor) -> bool:
    """Say whether `TrainingLSTM` can train `lstm` on `steps` as they are set up."""
    return (
        torch.is_grad_enabled()
        and torch.get_num_threads() == 1
        and lstm.hidden_size % COLUMNS == 0
        and lstm.proj_size == 0
        and lstm.batch_first
        and bool(lstm.bias)
        and steps.device.type == lstm.weight_ih_l0.device.type == "cpu"
        and steps.dtype == lstm.weight_ih_l0.dtype == torch.float32
    )


class _Room:
    """Memory of one layer: pages that are new to the process cost more than what fills them."""

    def __init__(self) -> None:
        self._memory: dict[str, Array] = {}
        self._arrays: dict[str, Array] = {}

    def take(self, name: str, *shape: int) -> Float32[Array, "..."]:
        """Return an array of `shape` with anything in it, or what was left there."""
        found = self._arrays.get(name)
        if found is not None and found.shape == shape:
            return found
        size = math.prod(shape)
        kept = self._memory.get(name)
        if kept is None or kept.size < size:
            kept = self._memory[name] = np.empty(size, np.float32)
        self._arrays[name] = kept[:size].reshape(shape)
        return self._arrays[name]

    def zeros(self, name: str, *shape: int) -> Float32[Array, "..."]:
        """Return an array of `shape` filled with 0."""
        array = self.take(name, *shape)
        array.fill(0)
        return array


class _Layer:
    """One layer in one direction."""

    def __init__(self, *, backwards: bool) -> None:
        self._backwards = backwards
        self._room = _Room()
        self._kept: tuple[Array, ...] = ()

    @property
    def states(self) -> Float32[Array, "time hidden row"]:
        """What `forward` returned."""
        return self._kept[-1]

    def forward(
        self,
        inputs: Float32[Array, "time channel row"],
        input_weights: Float32[Array, "gate channel"],
        state_weights: Float32[Array, "gate hidden"],
        input_bias: Float32[Array, "gate"],
        state_bias: Float32[Array, "gate"],
    ) -> Float32[Array, "time hidden row"]:
        """Return the states, which the next call overwrites."""
        times, _, rows = inputs.shape
        gates, hidden = state_weights.shape
        arrays = (
            self._room.take("gates", times, gates, rows),
            *(self._room.take(name, times, hidden, rows) for name in ("cell", "squashed", "state")),
        )
        bias = input_bias + state_bias
        layer_forward(inputs, input_weights, state_weights, bias, self._backwards, *arrays)
        self._kept = (inputs, input_weights, state_weights, *arrays)
        return arrays[-1]

    def backward(
        self, slopes: Float32[Array, "time hidden row"], *, wanted: bool, in_place: bool
    ) -> tuple[Float32[Array, "steps channel row"], list[Tensor]]:
        """Return the slopes of the loss by the inputs, if `wanted`, and by the four weights.

        `in_place` writes the latter where the last ones are.
        """
        inputs, input_weights, state_weights, *arrays = self._kept
        times, channels, rows = inputs.shape
        hidden = state_weights.shape[1]
        high, wide = (-(-channels // size) * size for size in (ROWS, COLUMNS))
        own = self._room.take("slopes", times, hidden, rows)
        np.copyto(own, slopes)
        by_input = self._room.zeros("by input", times if wanted else 0, high, rows)
        room = self._room if in_place else _Room()
        by_weight = [
            room.zeros("by read", 4 * hidden, wide),
            room.zeros("by state", 4 * hidden, hidden),
            room.zeros("by bias", 4 * hidden),
        ]
        layer_backward(
            own,
            inputs,
            input_weights,
            state_weights,
            self._backwards,
            *arrays,
            self._room.take("strips", 4 * hidden * max(high, hidden)),
            self._room.take("panels", (wide + hidden) * times * rows),
            self._room.take("strip", ROWS, times * rows),
            self._room.take("carried", hidden * rows),
            by_input,
            *by_weight,
        )
        # the bias is there twice; each needs a gradient of its own, which the optimiser may change
        by_read, by_state, by_bias = (torch.from_numpy(slope) for slope in by_weight)
        return by_input[:, :channels], [by_read[:, :channels], by_state, by_bias, by_bias.clone()]


def _start(context: Any, steps: Tensor, reader: TrainingLSTM, weights: Sequence[Tensor]) -> Array:
    """Read forward, note in `context` what going back needs."""
    arrays = [np.ascontiguousarray(weight.detach().numpy()) for weight in weights]
    states, context.turn = reader.read(steps.detach().numpy(), arrays)
    context.reader = reader
    return states


def _finish(context: Any, slopes: Array, samples: int) -> tuple[Tensor | None, ...]:
    """Go back, return the gradients of what `_start` read."""
    by_step, by_weight = context.reader.go_back(slopes, wanted=context.needs_input_grad[0])
    if by_step is None:
        return None, None, *by_weight
    by_sample = by_step.transpose(2, 0, 1)[:samples].copy()
    return torch.from_numpy(by_sample), None, *by_weight


class _Reading(torch.autograd.Function):
    """All layers as one node of the graph, which gives all states."""

    @staticmethod
    def forward(context: Any, steps: Tensor, reader: TrainingLSTM, *weights: Tensor) -> Tensor:
        states = torch.from_numpy(_start(context, steps, reader, weights).copy())
        return states.permute(2, 0, 1)[: len(steps)]

    @staticmethod
    @once_differentiable
    def backward(context: Any, slopes: Tensor) -> tuple[Tensor | None, ...]:
        behind = context.reader.slopes(context.turn)
        behind[..., : len(slopes)] = slopes.permute(1, 2, 0).numpy()
        return _finish(context, behind, len(slopes))


class _ReadingLast(torch.autograd.Function):
    """All layers as one node of the graph, which gives the states after the last step."""

    @staticmethod
    def forward(context: Any, steps: Tensor, reader: TrainingLSTM, *weights: Tensor) -> Tensor:
        states = _start(context, steps, reader, weights)
        hidden = reader.lstm.hidden_size
        # a bidirectional LSTM's second half ends at the first step
        ends = np.concatenate([states[-1, :hidden], states[0, hidden:]])[:, : len(steps)]
        return torch.from_numpy(np.ascontiguousarray(ends.T))

    @staticmethod
    @once_differentiable
    def backward(context: Any, slopes: Tensor) -> tuple[Tensor | None, ...]:
        behind, by_unit = context.reader.slopes(context.turn), slopes.T.numpy()
        hidden = context.reader.lstm.hidden_size
        behind[-1, :hidden, : len(slopes)] = by_unit[:hidden]
        behind[0, hidden:, : len(slopes)] = by_unit[hidden:]
        return _finish(context, behind, len(slopes))


_read: Callable[..., Tensor] = _Reading.apply
_read_last: Callable[..., Tensor] = _ReadingLast.apply


def draw_factors(factors: Float32[Array, "..."], chance: float) -> None:
    """Fill with 0, at `chance`, or what makes up for it: dropout at a fifth of torch's cost.

    A draw of 64 bits of torch's generator decides on four values, each to 1 in 65,536.
    """
    draws = torch.empty(-(-factors.size // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = draws.numpy().view(np.int16)[: factors.size] >= round(chance * 65_536) - 32_768
    np.multiply(kept.reshape(factors.shape), np.float32(1 / (1 - chance)), out=factors)
