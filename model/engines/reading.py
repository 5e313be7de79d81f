# mypy: allow-untyped-defs, allow-untyped-calls
"""The states of an LSTM over all steps in, one vector per pixel and its scores out."""

import math
import typing

import numpy as np

from model.engines.cell import attention_of
from model.networks.kept import kept
from model.networks.kernel import COLUMNS, ROWS, add_block

compiled = kept(fastmath={"contract", "nsz", "reassoc"})

LAST, MEAN, ATTENTION, ATTENTION_MAX = range(4)


# with leave to reorder sums, the compiler would undo the rounding inside
@kept()
@typing.no_type_check
def attend(arithmetic, states, attention, rows, scores):
    """Write to `scores` (pixel, time) how much attention each of `states` is to get."""
    times, _, units = states.shape
    for time in range(times):
        for row in range(rows):
            scores[row, time] = attention_of(
                arithmetic, states[time, row].ctypes.data, attention.ctypes.data, units
            )


@compiled
@typing.no_type_check
def pool(states, kind, rows, scores, vectors):
    """Write to `vectors` (pixel, value) what the pooling `kind` makes of `states`.

    `states` (time, pixel, unit) float32, of `LAST` only what is read; `scores` those of `attend`,
    where there is attention, else room. `ATTENTION_MAX` writes the largest values behind the mean.
    """
    times, _, units = states.shape
    if kind == LAST:
        for row in range(rows):
            for unit in range(units):
                vectors[row, unit] = states[0, row, unit]
        return
    if kind == MEAN:
        for row in range(rows):
            for time in range(times):
                scores[row, time] = np.float32(1) / np.float32(times)
    else:
        for row in range(rows):
            highest = scores[row, 0]
            for time in range(times):
                highest = max(highest, scores[row, time])
            total = np.float32(0)
            for time in range(times):
                power = np.float32(math.exp(scores[row, time] - highest))
                scores[row, time] = power
                total += power
            for time in range(times):
                scores[row, time] /= total
    for row in range(rows):
        vector = vectors[row]
        vector[:] = np.float32(0)
        for time in range(times):
            share, state = scores[row, time], states[time, row]
            for unit in range(units):
                vector[unit] += share * state[unit]
        if kind == ATTENTION_MAX:
            for unit in range(units):
                vector[units + unit] = states[0, row, unit]
            for time in range(1, times):
                state = states[time, row]
                for unit in range(units):
                    vector[units + unit] = max(vector[units + unit], state[unit])


@compiled
@typing.no_type_check
def normalise(vectors, is_unit, norm, least, rows):
    """Bring each vector's units to mean 0 and deviation 1, then to the learned ones."""
    width = vectors.shape[1]
    count = np.float32(0)
    for value in range(width):
        count += is_unit[value]
    for row in range(rows):
        vector = vectors[row]
        total = np.float32(0)
        for value in range(width):
            total += vector[value] * is_unit[value]
        mean = total / count
        spread = np.float32(0)
        for value in range(width):
            distance = (vector[value] - mean) * is_unit[value]
            spread += distance * distance
        factor = np.float32(1) / np.float32(math.sqrt(spread / count + least))
        for value in range(width):
            vector[value] = (vector[value] - mean) * factor * norm[0, value] + norm[1, value]


@compiled
@typing.no_type_check
def score(vectors, head, bias, rows, panel, scores):
    """Write the scores (pixel, class) of `rows` vectors, a multiple of `ROWS`; `panel` is room."""
    depth, classes = vectors.shape[1], len(bias)
    for number in range(len(head)):
        first = number * COLUMNS
        columns = min(COLUMNS, classes - first)
        for row in range(rows):
            panel[row, :] = np.float32(0)
        for row in range(0, rows, ROWS):
            add_block(
                vectors[row].ctypes.data,
                depth,
                1,
                head[number].ctypes.data,
                COLUMNS,
                depth,
                panel[row].ctypes.data,
                COLUMNS,
            )
        for row in range(rows):
            for column in range(columns):
                scores[row, first + column] = panel[row, column] + bias[first + column]
