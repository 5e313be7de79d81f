# mypy: allow-untyped-defs, allow-untyped-calls
"""A block of prepared pixels in, the states of one LSTM layer in one direction out."""

import typing

import numpy as np

from model.engines.cell import cell_block, lanes_of, rows_of, values_per_word
from model.networks.kept import kept

compiled = kept()


@compiled
@typing.no_type_check
def run_layer(
    arithmetic, rows, backwards,
    start, table, places, low_shares, high_shares,
    inputs, channels, below, weights, cell, states, first, plain,
):  # fmt: skip
    """Write the states of all steps of `rows` pixels.

    `start` (time, strip, gate x lane); `table` (strip, entry, gate x lane); `places` (int32 bytes
    in a strip of the table) and both shares (time, feature, pixel); `inputs` (time, channel,
    pixel), of which `channels` are read; `below`, `states` (time + 2, pixel, value): step t stands
    at t + 1, own units begin at value `first`. `weights` (strip, depth, gate x lane), `cell` (pixel,
    unit). `plain` (time, pixel, value) float32 gets the states too: all, or the last where it has
    one step, or none. Arrays of no feature or value stand for what there is none of.
    """
    lanes, block = lanes_of(arithmetic), rows_of(arithmetic)
    packed = values_per_word(arithmetic)
    times, strips = start.shape[0], start.shape[1]
    features, step = places.shape[1], inputs.shape[2]
    width, width_below = states.shape[2], below.shape[2]
    own_width = strips * lanes
    size = 4 // packed  # bytes of a value of a state
    for number in range(times):
        time = times - 1 - number if backwards else number
        before = time + 2 if backwards else time
        # before the first step states are 0, and so is their product
        own_depth = own_width // packed if number else 0
        if number == 0:
            cell[:rows] = np.float32(0)
        for strip in range(strips):
            units = strip * lanes
            for row in range(0, rows, block):
                plain_place = 0
                if plain.shape[0] == times:
                    plain_place = plain[time, row].ctypes.data + 4 * (first + units)
                elif plain.shape[0] == 1 and number == times - 1:
                    plain_place = plain[0, row].ctypes.data + 4 * (first + units)
                cell_block(
                    arithmetic,
                    start[time, strip].ctypes.data,
                    table[strip].ctypes.data,
                    places[time].ctypes.data + 4 * row,
                    low_shares[time].ctypes.data + 4 * row,
                    high_shares[time].ctypes.data + 4 * row,
                    features,
                    inputs[time].ctypes.data + 4 * row,
                    step,
                    channels,
                    below[time + 1].ctypes.data + row * width_below * size,
                    width_below // packed,
                    width_below // packed,
                    states[before, row].ctypes.data + first * size,
                    width // packed,
                    own_depth,
                    weights[strip].ctypes.data,
                    cell[row].ctypes.data + 4 * units,
                    cell.shape[1],
                    states[time + 1, row].ctypes.data + (first + units) * size,
                    width // packed,
                    plain_place,
                    width,
                )
