# mypy: allow-untyped-defs, allow-untyped-calls
"""A block of prepared pixels in, the states of one LSTM layer out, by products of tiles.

While a block's products run in the tiles, the vector units turn the sums of the block before it
into states: a few rows after each step of the products.
"""

import typing

import numpy as np

from model.engines.block import TABLE_ROWS
from model.engines.cell import gate_row, is_split, looked_up_block
from model.engines.tiles import (
    ROW_BYTES,
    TILE_BYTES,
    tile_dot,
    tile_load,
    tile_store,
    tiles_begin,
    tiles_end,
)
from model.networks.kept import kept

compiled = kept()

ROWS = 32
"""Pixels of a block: the rows of two tiles."""

UNITS = 16
"""Units of a block: the sums of their four gates are four tiles wide."""

DEPTH = 32
"""Values of the inner dimension in a tile."""

SUMS_BYTES = 8 * TILE_BYTES
"""Sums of a block: four gates of sixteen pixels, then of the other sixteen."""


@compiled
@typing.no_type_check
def split_inputs(inputs, channels, taken, turned):
    """Write `channels` of `inputs` (time, channel, pixel) to `turned` (time, pixel, value).

    A float32 is the sum of three bfloat16: the nearest, the one nearest to what that leaves, and so
    on. Of all channels the parts `taken` (their numbers) stand one after another.
    """
    pixels = turned.shape[1]
    rest, nearest = np.empty(pixels, np.float32), np.empty((3, pixels), np.uint32)
    as_bits, as_float = rest.view(np.uint32), nearest.view(np.float32)
    half, one, sixteen = np.uint32(0x7FFF), np.uint32(1), np.uint32(16)
    high = np.uint32(0xFFFF0000)
    for time in range(len(inputs)):
        into = turned[time]
        for channel in range(channels):
            rest[:] = inputs[time, channel]
            for part in range(3):
                for pixel in range(pixels):
                    word = as_bits[pixel]
                    near = np.uint32(word + half + ((word >> sixteen) & one)) & high
                    nearest[part, pixel] = near
                for pixel in range(pixels):
                    rest[pixel] -= as_float[part, pixel]
            for number in range(len(taken)):
                part, place = nearest[taken[number]], number * channels + channel
                for pixel in range(pixels):
                    into[pixel, place] = np.uint16(part[pixel] >> sixteen)


@compiled
@typing.no_type_check
def _list_products(lefts, strides, numbers, count, first, address, stride, tiles, apart, parts):
    """Note where the tiles of one operand's products lie; return how many there are by now.

    `tiles` of the left operand from `address` on; if split, products are of both first parts, of
    the second left part (`apart` bytes on) and of the second right one (`tiles` numbers on).
    """
    for part in range(parts):
        for tile in range(tiles):
            lefts[count] = address + tile * ROW_BYTES + (apart if part == 1 else 0)
            strides[count] = stride
            numbers[count] = first + tile + (tiles if part == 2 else 0)
            count += 1
    return count


@compiled
@typing.no_type_check
def _gate_rows(arithmetic, waiting, done, count):
    """Turn up to `count` rows of the block that waits into states; return how many are done."""
    end = min(done + count, ROWS)
    for row in range(done, end):
        sums = waiting[0] + (row // 16) * 4 * TILE_BYTES + (row % 16) * ROW_BYTES
        plain = waiting[6] + row * waiting[7] if waiting[6] else 0
        gate_row(
            arithmetic,
            sums,
            waiting[1] + row * waiting[2],
            waiting[3] + row * waiting[5],
            waiting[4] + row * waiting[5],
            plain,
        )
    return end


@compiled
@typing.no_type_check
def _multiply(
    arithmetic, file, lefts, strides, numbers, count, row, weights, sums, begin, of_table, waiting
):
    """Write a block's sums, while the block that waits (none where its place is 0) is finished.

    Sums start with a strip at `begin`, or with what lies in them where tables were `of_table`.
    """
    done = 0 if waiting[0] else ROWS
    share = -(-ROWS // (2 * count)) if count else 0
    for half in range(2):
        gate = 2 * half
        start, lower, step, stride = begin + gate * ROW_BYTES, 0, ROW_BYTES, 0
        if of_table:
            start, lower, step, stride = sums + gate * TILE_BYTES, 4 * TILE_BYTES, TILE_BYTES, 64
        tile_load(arithmetic, file, 0, start, stride)
        tile_load(arithmetic, file, 1, start + lower, stride)
        tile_load(arithmetic, file, 2, start + step, stride)
        tile_load(arithmetic, file, 3, start + lower + step, stride)
        for number in range(count):
            left, apart = lefts[number] + row * strides[number], strides[number]
            right = weights + (4 * numbers[number] + gate) * TILE_BYTES
            tile_load(arithmetic, file, 4, left, apart)
            tile_load(arithmetic, file, 6, right, ROW_BYTES)
            tile_dot(arithmetic, file, 0, 4, 6)
            tile_load(arithmetic, file, 5, left + 16 * apart, apart)
            tile_dot(arithmetic, file, 1, 5, 6)
            tile_load(arithmetic, file, 7, right + TILE_BYTES, ROW_BYTES)
            tile_dot(arithmetic, file, 2, 4, 7)
            tile_dot(arithmetic, file, 3, 5, 7)
            done = _gate_rows(arithmetic, waiting, done, share)
        place = sums + gate * TILE_BYTES
        tile_store(arithmetic, file, 0, place, ROW_BYTES)
        tile_store(arithmetic, file, 1, place + 4 * TILE_BYTES, ROW_BYTES)
        tile_store(arithmetic, file, 2, place + TILE_BYTES, ROW_BYTES)
        tile_store(arithmetic, file, 3, place + 5 * TILE_BYTES, ROW_BYTES)
    _gate_rows(arithmetic, waiting, done, ROWS)


@compiled
@typing.no_type_check
def run_tile_layer(
    arithmetic, rows, backwards,
    start, table, places, low_shares, high_shares,
    turned, below, weights, cell, states, first, plain,
    file, sums, settings,
):  # fmt: skip
    """Write the states of all steps of `rows` pixels, a multiple of `ROWS`.

    As `layer.run_layer`, but: `turned` are the inputs of `split_inputs`; `weights` (strip, tile,
    gate, 512) bfloat16, tiles of the inputs, of the states below and of its own; `below` and
    `states` are bfloat16, and if split, their second parts stand behind all first ones. `file`
    (8, 16, 16) uint32 is what the emulation has for tiles, `sums` room for two blocks, `settings`
    those of the tiles.
    """
    parts = 3 if is_split(arithmetic) else 1
    halves = 2 if is_split(arithmetic) else 1
    times, strips = start.shape[0], start.shape[1]
    features, step = places.shape[1], places.shape[2]
    own_width = strips * UNITS
    row_bytes, row_bytes_below = 2 * states.shape[2], 2 * below.shape[2]
    apart, apart_below = row_bytes // halves, row_bytes_below // halves
    tiles_below = below.shape[2] // halves // DEPTH
    tiles_inputs = turned.shape[2] // DEPTH
    width = states.shape[2] // halves
    most = tiles_inputs + parts * (tiles_below + own_width // DEPTH)
    lefts, strides = np.empty(most, np.int64), np.empty(most, np.int64)
    numbers, waiting = np.empty(most, np.int64), np.zeros(8, np.int64)
    strip_bytes = weights.shape[1] * 4 * TILE_BYTES
    table_bytes = 4 * table.shape[1] * table.shape[2]
    cell_bytes = 4 * cell.shape[1]
    tiles_begin(arithmetic, settings.ctypes.data)
    for number in range(times):
        time = times - 1 - number if backwards else number
        before = time + 2 if backwards else time
        if number == 0:
            cell[:rows] = np.float32(0)
        count = _list_products(
            lefts, strides, numbers, 0, 0,
            turned[time].ctypes.data, 2 * turned.shape[2], tiles_inputs, 0, 1,
        )  # fmt: skip
        count = _list_products(
            lefts, strides, numbers, count, tiles_inputs,
            below[time + 1].ctypes.data, row_bytes_below, tiles_below, apart_below, parts,
        )  # fmt: skip
        if number:  # before the first step states are 0, and so is their product
            count = _list_products(
                lefts, strides, numbers, count, tiles_inputs + halves * tiles_below,
                states[before].ctypes.data + 2 * first, row_bytes, own_width // DEPTH, apart, parts,
            )  # fmt: skip
        plain_place = 0
        if plain.shape[0] == times:
            plain_place = plain[time].ctypes.data + 4 * first
        elif plain.shape[0] == 1 and number == times - 1:
            plain_place = plain.ctypes.data + 4 * first
        state_place = states[time + 1].ctypes.data + 2 * first
        turn = 0
        waiting[0] = 0
        for strip in range(strips):
            units = strip * UNITS
            for row in range(0, rows, ROWS):
                place = sums.ctypes.data + turn * SUMS_BYTES
                if features:
                    for some in range(0, ROWS, TABLE_ROWS):
                        offset = 4 * (row + some)
                        looked_up_block(
                            arithmetic,
                            start[time, strip].ctypes.data,
                            table.ctypes.data + strip * table_bytes,
                            places[time].ctypes.data + offset,
                            low_shares[time].ctypes.data + offset,
                            high_shares[time].ctypes.data + offset,
                            features,
                            step,
                            place + (some // 16) * 4 * TILE_BYTES + (some % 16) * ROW_BYTES,
                            ROW_BYTES // 4,
                        )
                _multiply(
                    arithmetic, file, lefts, strides, numbers, count, row,
                    weights.ctypes.data + strip * strip_bytes, place,
                    start[time, strip].ctypes.data, features > 0, waiting,
                )  # fmt: skip
                waiting[0] = place
                waiting[1] = cell.ctypes.data + row * cell_bytes + 4 * units
                waiting[2] = cell_bytes
                waiting[3] = state_place + row * row_bytes + 2 * units
                waiting[4] = waiting[3] + apart
                waiting[5] = row_bytes
                waiting[6] = plain_place + 4 * (row * width + units) if plain_place else 0
                waiting[7] = 4 * width
                turn = 1 - turn
        _gate_rows(arithmetic, waiting, 0, ROWS)
    tiles_end(arithmetic)
