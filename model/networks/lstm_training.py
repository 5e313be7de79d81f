"""An `nn.LSTM` and sequences in, its states out, several times faster to train than torch's own.

Torch's kernels are made for large matrices; those of a batch of 32 leave a core half idle, and
the multiplications that are left are run by a library that does not use all of every processor.
Only for training on one thread: results agree with torch's to rounding.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model.networks.kernel import COLUMNS, ROWS
from model.networks.lstm_kernels import layer_backward, layer_forward


class TrainingLSTM:
    """Reads sequences with the weights of an `nn.LSTM`, reusing its memory from batch to batch.

    Its results are overwritten by the next call: go back before going forward again.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        self.lstm = lstm
        directions = 1 + lstm.bidirectional
        self._rooms = [_Room() for _ in range(lstm.num_layers * directions)]

    def __call__(
        self, steps: Float32[Tensor, "sample time channel"]
    ) -> Float32[Tensor, "sample time unit"]:
        """Return the last layer's states, of a bidirectional LSTM both directions side by side.

        What is dropped between layers is drawn from torch's generator.
        """
        lstm, samples = self.lstm, len(steps)
        directions = 1 + lstm.bidirectional
        values = _padded(steps.transpose(0, 1))  # (time, sample, channel)
        for layer in range(lstm.num_layers):
            if layer and lstm.dropout:
                values = _dropped(values, lstm.dropout)
            states = []
            for direction in range(directions):
                suffix = f"l{layer}{'_reverse' if direction else ''}"
                weights = [
                    getattr(lstm, f"{name}_{suffix}")
                    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                ]
                room = self._rooms[layer * directions + direction]
                turned = values.flip(0) if direction else values
                result: Tensor = _layer(turned, *weights, room)
                states.append(result.flip(0) if direction else result)
            values = torch.cat(states, dim=2) if len(states) > 1 else states[0]
        return values[:, :samples].transpose(0, 1)


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
        self._memory: dict[str, np.ndarray] = {}
        self._arrays: dict[str, np.ndarray] = {}
        self.turn = 0
        """Counts the calls, so that going back too late is noticed."""

    def take(self, name: str, *shape: int) -> Float32[np.ndarray, "..."]:
        """Return an array of `shape` with anything in it."""
        found = self._arrays.get(name)
        if found is not None and found.shape == shape:
            return found
        size = math.prod(shape)
        kept = self._memory.get(name)
        if kept is None or kept.size < size:
            kept = self._memory[name] = np.empty(size, np.float32)
        self._arrays[name] = kept[:size].reshape(shape)
        return self._arrays[name]

    def zeros(self, name: str, *shape: int) -> Float32[np.ndarray, "..."]:
        """Return an array of `shape` filled with 0."""
        array = self.take(name, *shape)
        array.fill(0)
        return array


class _Layer(torch.autograd.Function):
    """One layer in one direction."""

    @staticmethod
    def forward(
        context: Any,
        inputs: Tensor,
        input_weights: Tensor,
        state_weights: Tensor,
        input_bias: Tensor,
        state_bias: Tensor,
        room: _Room,
    ) -> Tensor:
        times, samples, channels = inputs.shape
        hidden = state_weights.shape[1]
        read = np.ascontiguousarray(inputs.detach().numpy())
        weights = _wide(input_weights.detach().numpy(), channels, room)
        recurrent = np.ascontiguousarray(state_weights.detach().numpy())
        shape = (times, samples, hidden)
        states = torch.empty(shape)
        arrays = [
            room.take("gates", times, samples, 4 * hidden),
            room.take("cells", *shape),
            room.take("squashed", *shape),
        ]
        layer_forward(
            read,
            weights,
            recurrent,
            (input_bias + state_bias).detach().numpy(),
            room.take("panels", max(channels, hidden) * 4 * hidden),
            *arrays,
            states.numpy(),
        )
        room.turn += 1
        context.save_for_backward(states)
        context.room, context.turn = room, room.turn
        context.kept = (read, weights, recurrent, arrays, input_weights.shape[1])
        return states

    @staticmethod
    @once_differentiable
    def backward(context: Any, slopes: Tensor) -> tuple[Tensor | None, ...]:
        room, (read, weights, recurrent, arrays, known) = context.room, context.kept
        if context.turn != room.turn:
            raise RuntimeError("the LSTM read other sequences since; go back before going on")
        room.turn += 1  # what was kept is overwritten below
        (states,) = context.saved_tensors
        times, samples, channels = read.shape
        hidden = recurrent.shape[1]
        depth = times * samples
        wanted = context.needs_input_grad[0]
        input_slopes = torch.zeros((times, samples, channels) if wanted else (0, samples, channels))
        own = room.take("slopes", times, samples, hidden)
        np.copyto(own, slopes.numpy())
        by_input = torch.zeros(4 * hidden, channels)
        by_state, by_bias = torch.zeros(4 * hidden, hidden), torch.zeros(4 * hidden)
        layer_backward(
            own,
            read,
            weights,
            recurrent,
            *arrays,
            states.numpy(),
            room.take("wide panels", max(channels, hidden) * max(4 * hidden, depth)),
            room.take("strip", ROWS * depth),
            room.take("cell slope", samples, hidden),
            input_slopes.numpy(),
            by_input.numpy(),
            by_state.numpy(),
            by_bias.numpy(),
        )
        # the bias is there twice; each needs a gradient of its own, which the optimiser may change
        return (
            input_slopes if wanted else None,
            by_input[:, :known],
            by_state,
            by_bias,
            by_bias.clone(),
            None,
        )


_layer: Callable[..., Tensor] = _Layer.apply


def _dropped(values: Float32[Tensor, "time row value"], chance: float) -> Tensor:
    """Drop values and scale the others up, like torch's dropout at a fifth of its cost.

    A draw of 64 bits decides on four values, each to 1 in 65,536.
    """
    draws = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    threshold = round(chance * 65_536) - 32_768
    kept = draws.view(torch.int16)[: values.numel()] >= threshold
    return values * (kept.view(values.shape) * (1 / (1 - chance)))


def _padded(values: Float32[Tensor, "time sample channel"]) -> Float32[Tensor, "time row value"]:
    """Return a copy with zeros behind, up to whole blocks of samples and channels."""
    times, samples, channels = values.shape
    rows, width = -(-samples // ROWS) * ROWS, -(-channels // COLUMNS) * COLUMNS
    padded = torch.zeros(times, rows, width)
    padded[:, :samples, :channels] = values
    return padded


def _wide(
    weights: Float32[np.ndarray, "gate channel"], channels: int, room: _Room
) -> Float32[np.ndarray, "gate value"]:
    """Return the weights with zeros behind where the channels were padded."""
    if weights.shape[1] == channels:
        return np.ascontiguousarray(weights)
    wide = room.zeros("wide", len(weights), channels)
    wide[:, : weights.shape[1]] = weights
    return wide
