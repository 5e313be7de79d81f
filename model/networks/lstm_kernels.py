"""Arrays of a batch in, the states of one LSTM layer out, and back: compiled for training.

Arrays are (time, value, sample), so that weights are read as they lie and one vector holds one
value of many samples; samples come in multiples of `COLUMNS`. The gradient of all weights is one
product over all steps per matrix. The values of a gate are input, forget, candidate and output,
as torch orders them.
"""

import typing

import numpy as np

from model.networks.kept import kept
from model.networks.kernel import COLUMNS, ROWS, add_block, squash

_compiled = kept(fastmath={"contract", "nsz"})


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
def _add_product(left, right, result):
    """Add (row, depth) times (depth, sample) to `result` (row, sample)."""
    rows, depth = left.shape
    samples = result.shape[1]
    for column in range(0, samples, COLUMNS):
        for row in range(0, rows, ROWS):
            add_block(
                left.ctypes.data + 4 * row * depth,
                depth,
                1,
                right.ctypes.data + 4 * column,
                samples,
                depth,
                result.ctypes.data + 4 * (row * samples + column),
                samples,
            )


@_compiled
@typing.no_type_check
def _cut(matrix, strips):
    """Copy `ROWS` columns of (depth, width) after the other, the last ones filled with zeros."""
    depth, width = matrix.shape
    for start in range(0, width, ROWS):
        strip = strips[start // ROWS]
        for k in range(depth):
            for column in range(ROWS):
                inside = start + column < width
                strip[k, column] = matrix[k, start + column] if inside else np.float32(0)


@_compiled
@typing.no_type_check
def _add_strips_product(strips, right, result):
    """Add the transposed of what `_cut` cut times (depth, sample) to `result` (row, sample)."""
    depth, samples = right.shape
    for column in range(0, samples, COLUMNS):
        for row in range(0, result.shape[0], ROWS):
            add_block(
                strips.ctypes.data + 4 * row * depth,
                1,
                ROWS,
                right.ctypes.data + 4 * column,
                samples,
                depth,
                result.ctypes.data + 4 * (row * samples + column),
                samples,
            )


@_compiled
@typing.no_type_check
def _turn(values, panels):
    """Rearrange (time, value, sample) to (panel, time x sample, `COLUMNS` values)."""
    times, width, samples = values.shape
    for panel in range(len(panels)):
        start = panel * COLUMNS
        for time in range(times):
            for sample in range(samples):
                for column in range(min(COLUMNS, width - start)):
                    panels[panel, time * samples + sample, column] = values[
                        time, start + column, sample
                    ]
                for column in range(width - start, COLUMNS):
                    panels[panel, time * samples + sample, column] = 0


@_compiled
@typing.no_type_check
def _add_panels_product(strip, skipped, panels, begin, depth, result, row):
    """Add columns of `strip` (`ROWS`, all steps) times rows of `panels` to rows of `result`.

    Of the strip `skipped` columns are left out before `depth` are read, of each panel `begin` rows.
    """
    width = result.shape[1]
    for panel in range(len(panels)):
        add_block(
            strip.ctypes.data + 4 * skipped,
            strip.shape[1],
            1,
            panels[panel].ctypes.data + 4 * begin * COLUMNS,
            COLUMNS,
            depth,
            result.ctypes.data + 4 * (row * width + panel * COLUMNS),
            width,
        )


@kept(fastmath=True)
@typing.no_type_check
def _sum(values):
    total = np.float32(0)
    for value in values:
        total += value
    return total


@_compiled
@typing.no_type_check
def layer_forward(
    inputs, input_weights, state_weights, bias, backwards, gates, cells, squashed, states
):
    """Fill gates, cells, their hyperbolic tangents and states of all steps.

    `inputs` (time, channel, sample), weights (4 hidden, channel) and (4 hidden, hidden), `gates`
    (time, 4 hidden, sample), the others (time, hidden, sample); `backwards` reads the last step
    first.
    """
    times = len(inputs)
    hidden, samples = states.shape[1:]
    for number in range(times):
        time = times - 1 - number if backwards else number
        before = time + 1 if backwards else time - 1
        gate = gates[time]
        for value in range(4 * hidden):
            gate[value] = bias[value]
        _add_product(input_weights, inputs[time], gate)
        if number:
            _add_product(state_weights, states[before], gate)
        _logistic(gate[: 2 * hidden], gate[: 2 * hidden])
        _hyperbolic(gate[2 * hidden : 3 * hidden], gate[2 * hidden : 3 * hidden])
        _logistic(gate[3 * hidden :], gate[3 * hidden :])
        split = gate.reshape(4, hidden * samples)
        enter, keep, new, out = split[0], split[1], split[2], split[3]
        cell, flat = cells[time].reshape(-1), squashed[time].reshape(-1)
        if number:
            earlier = cells[before].reshape(-1)
            for index in range(cell.size):
                cell[index] = enter[index] * new[index] + keep[index] * earlier[index]
        else:
            for index in range(cell.size):
                cell[index] = enter[index] * new[index]
        _hyperbolic(cell, flat)
        state = states[time].reshape(-1)
        for index in range(cell.size):
            state[index] = out[index] * flat[index]


@_compiled
@typing.no_type_check
def _step_backward(gate, slope, flat, earlier, is_first, carried):
    """Turn a step's gates into the slopes of the loss by what they were made of."""
    enter, keep, new, out = gate[0], gate[1], gate[2], gate[3]
    one, known = np.float32(1), np.float32(0 if is_first else 1)
    # each loop has few enough arrays for the compiler to see that they are apart
    for index in range(carried.size):
        o, f = out[index], flat[index]
        carried[index] += slope[index] * o * (one - f * f)
        out[index] = slope[index] * f * o * (one - o)
    for index in range(carried.size):
        gone, i, n = carried[index], enter[index], new[index]
        enter[index] = gone * n * i * (one - i)
        new[index] = gone * i * (one - n * n)
    for index in range(carried.size):
        gone, k = carried[index], keep[index]
        keep[index] = known * gone * earlier[index] * k * (one - k)
        carried[index] = gone * k


@_compiled
@typing.no_type_check
def _gather(gates, row, strip):
    """Copy `ROWS` values of all steps, from `row` on, so that the samples of steps follow."""
    times, _, samples = gates.shape
    for value in range(ROWS):
        for time in range(times):
            for sample in range(samples):
                strip[value, time * samples + sample] = gates[time, row + value, sample]


@_compiled
@typing.no_type_check
def layer_backward(
    slopes,
    inputs,
    input_weights,
    state_weights,
    backwards,
    gates,
    cells,
    squashed,
    states,
    strips,
    panels,
    strip,
    carried,
    input_slopes,
    input_weight_slopes,
    state_weight_slopes,
    bias_slopes,
):
    """Turn the slopes of the loss by the states into those by inputs, weights and bias.

    `slopes` (time, hidden, sample) and `gates` are overwritten; the last four are zeros before,
    `input_slopes` without a step is left out, it and the slopes of the input's weights have
    channels up to a multiple of `ROWS` and `COLUMNS`. `strips`, `panels`, `strip` and `carried`
    are room: for the larger matrix of weights, the larger of inputs and states, `ROWS` values and
    one state of all samples.
    """
    times, hidden, samples = states.shape
    depth = times * samples
    carried[:] = 0
    own = strips[: hidden * 4 * hidden].reshape(hidden // ROWS, 4 * hidden, ROWS)
    _cut(state_weights, own)
    for number in range(times - 1, -1, -1):
        time = times - 1 - number if backwards else number
        before = time + 1 if backwards else time - 1
        _step_backward(
            gates[time].reshape(4, hidden * samples),
            slopes[time].reshape(-1),
            squashed[time].reshape(-1),
            cells[before if number else time].reshape(-1),
            number == 0,
            carried,
        )
        if number:
            _add_strips_product(own, gates[time], slopes[before])
    if len(input_slopes):
        rows = input_slopes.shape[1]
        cut = strips[: rows * 4 * hidden].reshape(rows // ROWS, 4 * hidden, ROWS)
        _cut(input_weights, cut)
        for time in range(times):
            _add_strips_product(cut, gates[time], input_slopes[time])
    wide = input_weight_slopes.shape[1]
    read = panels[: wide * depth].reshape(wide // COLUMNS, depth, COLUMNS)
    known = panels[wide * depth : (wide + hidden) * depth].reshape(-1, depth, COLUMNS)
    _turn(inputs, read)
    _turn(states, known)
    later, sooner = (0, samples) if backwards else (samples, 0)
    for row in range(0, 4 * hidden, ROWS):
        _gather(gates, row, strip)
        for value in range(ROWS):
            bias_slopes[row + value] = _sum(strip[value])
        _add_panels_product(strip, 0, read, 0, depth, input_weight_slopes, row)
        _add_panels_product(strip, later, known, sooner, depth - samples, state_weight_slopes, row)
