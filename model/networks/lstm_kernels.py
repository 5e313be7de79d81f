"""Arrays of a batch in, the states of one LSTM layer out, and back: compiled for training.

The input's share of all gates is one product, the state's share one small product per step; the
gradient of all weights is one product per matrix. Arrays are (time, sample, value), with samples
in multiples of `ROWS` and values in multiples of `COLUMNS`. A row of gates holds input, forget,
candidate and output, as torch orders them.
"""

import typing

import numba
import numpy as np

from model.networks.kernel import COLUMNS, ROWS, add_block, squash

_compiled = numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz"})


@_compiled
@typing.no_type_check
def _logistic(values, result):
    squash(
        values.ctypes.data,
        result.ctypes.data,
        values.size,
        np.float32(-1),
        np.float32(1),
        np.float32(0),
    )


@_compiled
@typing.no_type_check
def _hyperbolic(values, result):
    squash(
        values.ctypes.data,
        result.ctypes.data,
        values.size,
        np.float32(-2),
        np.float32(2),
        np.float32(-1),
    )


@_compiled
@typing.no_type_check
def _pack(matrix, panels):
    """Rearrange (depth, width) so that `COLUMNS` values of all rows follow each other."""
    depth, width = matrix.shape
    for panel in range(width // COLUMNS):
        for k in range(depth):
            for column in range(COLUMNS):
                panels[panel * depth * COLUMNS + k * COLUMNS + column] = matrix[
                    k, panel * COLUMNS + column
                ]


@_compiled
@typing.no_type_check
def _pack_transposed(matrix, panels):
    """Rearrange the transposed of (width, depth) likewise."""
    width, depth = matrix.shape
    for panel in range(width // COLUMNS):
        for k in range(depth):
            for column in range(COLUMNS):
                panels[panel * depth * COLUMNS + k * COLUMNS + column] = matrix[
                    panel * COLUMNS + column, k
                ]


@_compiled
@typing.no_type_check
def _add_product(left, panels, result):
    """Add (row, depth) times packed (depth, width) to `result` (row, width)."""
    rows, depth = left.shape
    width = result.shape[1]
    for panel in range(width // COLUMNS):
        for row in range(0, rows, ROWS):
            add_block(
                left.ctypes.data + 4 * row * depth,
                depth,
                1,
                panels.ctypes.data + 4 * panel * depth * COLUMNS,
                depth,
                result.ctypes.data + 4 * (row * width + panel * COLUMNS),
                width,
            )


@_compiled
@typing.no_type_check
def _add_transposed_product(left, panels, strip, result):
    """Add the transposed of (depth, row) times packed (depth, width) to `result`.

    `strip` has room for `ROWS` x depth values.
    """
    depth, rows = left.shape
    width = result.shape[1]
    for row in range(0, rows, ROWS):
        for k in range(depth):
            for column in range(ROWS):
                strip[k * ROWS + column] = left[k, row + column]
        for panel in range(width // COLUMNS):
            add_block(
                strip.ctypes.data,
                1,
                ROWS,
                panels.ctypes.data + 4 * panel * depth * COLUMNS,
                depth,
                result.ctypes.data + 4 * (row * width + panel * COLUMNS),
                width,
            )


@_compiled
@typing.no_type_check
def layer_forward(
    inputs, input_weights, state_weights, bias, panels, gates, cells, squashed, states
):
    """Fill gates, cells, their hyperbolic tangents and states of all steps.

    `inputs` (time, sample, channel), weights (4 hidden, channel) and (4 hidden, hidden), `panels`
    room for the larger of the two, `gates` (time, sample, 4 hidden), the others
    (time, sample, hidden).
    """
    times, samples, channels = inputs.shape
    hidden = states.shape[2]
    for time in range(times):
        for sample in range(samples):
            gates[time, sample] = bias
    _pack_transposed(input_weights, panels)
    _add_product(
        inputs.reshape(times * samples, channels),
        panels,
        gates.reshape(times * samples, 4 * hidden),
    )
    _pack_transposed(state_weights, panels)
    for time in range(times):
        if time:
            _add_product(states[time - 1], panels, gates[time])
        for sample in range(samples):
            gate = gates[time, sample]
            enter_keep, new, out = (
                gate[: 2 * hidden],
                gate[2 * hidden : 3 * hidden],
                gate[3 * hidden :],
            )
            _logistic(enter_keep, enter_keep)
            _hyperbolic(new, new)
            _logistic(out, out)
            cell = cells[time, sample]
            for unit in range(hidden):
                cell[unit] = gate[unit] * gate[2 * hidden + unit]
            if time:
                before = cells[time - 1, sample]
                for unit in range(hidden):
                    cell[unit] += gate[hidden + unit] * before[unit]
            _hyperbolic(cell, squashed[time, sample])
            for unit in range(hidden):
                states[time, sample, unit] = gate[3 * hidden + unit] * squashed[time, sample, unit]


@_compiled
@typing.no_type_check
def layer_backward(
    slopes,
    inputs,
    input_weights,
    state_weights,
    gates,
    cells,
    squashed,
    states,
    panels,
    strip,
    cell_slope,
    input_slopes,
    input_weight_slopes,
    state_weight_slopes,
    bias_slopes,
):
    """Turn the slopes of the loss by the states into those by inputs, weights and bias.

    `slopes` (time, sample, hidden) and `gates` are overwritten; the last four are zeros before,
    `input_slopes` without a step is left out. `panels` and `strip` are room as above.
    """
    times, samples, channels = inputs.shape
    hidden = states.shape[2]
    cell_slope[:] = 0
    _pack(state_weights, panels)
    one = np.float32(1)
    for time in range(times - 1, -1, -1):
        for sample in range(samples):
            gate, carried = gates[time, sample], cell_slope[sample]
            slope, flat = slopes[time, sample], squashed[time, sample]
            for unit in range(hidden):
                out = gate[3 * hidden + unit]
                carried[unit] += slope[unit] * out * (one - flat[unit] * flat[unit])
                gate[3 * hidden + unit] = slope[unit] * flat[unit] * out * (one - out)
            before = cells[max(time - 1, 0), sample]
            known = np.float32(time > 0)
            for unit in range(hidden):
                enter, keep = gate[unit], gate[hidden + unit]
                new, gone = gate[2 * hidden + unit], carried[unit]
                gate[unit] = gone * new * enter * (one - enter)
                gate[hidden + unit] = known * gone * before[unit] * keep * (one - keep)
                gate[2 * hidden + unit] = gone * enter * (one - new * new)
                carried[unit] = gone * keep
        if time:
            _add_product(gates[time], panels, slopes[time - 1])
    every_gate = gates.reshape(times * samples, 4 * hidden)
    for row in range(times * samples):
        for unit in range(4 * hidden):
            bias_slopes[unit] += every_gate[row, unit]
    if len(input_slopes):
        _pack(input_weights, panels)
        _add_product(every_gate, panels, input_slopes.reshape(times * samples, channels))
    _pack(inputs.reshape(times * samples, channels), panels)
    _add_transposed_product(every_gate, panels, strip, input_weight_slopes)
    if times > 1:
        _pack(states[:-1].reshape((times - 1) * samples, hidden), panels)
        later = gates[1:].reshape((times - 1) * samples, 4 * hidden)
        _add_transposed_product(later, panels, strip, state_weight_slopes)
