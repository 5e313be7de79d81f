# mypy: allow-untyped-defs, allow-untyped-calls
"""A chunk of a cube in, what an LSTM reads of some of its pixels out, feature by feature.

Everything is done for a block of pixels that fits a processor's cache; loops run over its pixels,
so that the compiler turns them into vector operations.
"""

import math
import typing

import numpy as np

from model.engines.program import Code
from model.networks.kept import kept

compiled = kept(error_model="numpy")

_ADD, _SUBTRACT, _MULTIPLY, _DIVIDE, _RATIO = (
    int(code) for code in (Code.ADD, Code.SUBTRACT, Code.MULTIPLY, Code.DIVIDE, Code.RATIO)
)
_POWER, _ROOT, _CLIP, _LOGARITHM, _ROUND = (
    int(code) for code in (Code.POWER, Code.ROOT, Code.CLIP, Code.LOGARITHM, Code.ROUND)
)

_STEPS = np.float32(256)
_ROUNDING = np.float32(12582912)
"""1.5 * 2^23: adding it to a float32 rounds that to a whole number."""


@compiled
@typing.no_type_check
def count_clear(pixels, chosen, nodata, observed):
    """Count in `observed` (pixel, uint16) the steps in which no chosen band lacks a value.

    `pixels` (time, band, pixel) are int16, where `nodata` is none, or float32.
    """
    clear = np.empty(512, np.uint16)
    count = len(observed)
    for start in range(0, count, 512):
        end = min(start + 512, count)
        observed[start:end] = 0
        for time in range(pixels.shape[0]):
            clear[:] = 1
            for band in chosen:
                row = pixels[time, band, start:end]
                for place in range(end - start):
                    # a difference is NaN, which equals nothing, for NaN and infinite values too
                    value = row[place]
                    is_there = (value != nodata) & (value - value == 0)
                    clear[place] &= np.uint16(is_there)
            for place in range(end - start):
                observed[start + place] += clear[place]


@compiled
@typing.no_type_check
def gather(pixels, chosen, wanted, nodata, scale, values):
    """Copy the `wanted` pixels of the `chosen` bands in physical units, NaN where not clear.

    `pixels` (time, band, pixel) are int16 counts of `scale`, where `nodata` is none, or float32
    with a scale of 1; `values` (time, band, place) float32, whose places behind the wanted are NaN.
    """
    for time in range(pixels.shape[0]):
        for index in range(len(chosen)):
            row, into = pixels[time, chosen[index]], values[time, index]
            for place in range(len(wanted)):
                value = row[wanted[place]]
                into[place] = np.float32(value) * scale if value != nodata else np.float32(np.nan)
            into[len(wanted) :] = np.float32(np.nan)


@compiled
@typing.no_type_check
def _run(codes, operands, limits, single, registers):
    for number in range(len(codes)):
        code, low, high = codes[number], limits[number, 0], limits[number, 1]
        to = registers[operands[number, 0]]
        a, b = registers[operands[number, 1]], registers[operands[number, 2]]
        count = len(to)
        if code == _ADD:
            for i in range(count):
                to[i] = a[i] + b[i]
        elif code == _SUBTRACT:
            for i in range(count):
                to[i] = a[i] - b[i]
        elif code == _MULTIPLY:
            for i in range(count):
                to[i] = a[i] * b[i]
        elif code == _DIVIDE:
            for i in range(count):
                to[i] = a[i] / b[i] if abs(b[i]) >= low else np.nan
        elif code == _RATIO:
            for i in range(count):
                to[i] = a[i] / b[i] if b[i] >= low else np.nan
        elif code == _POWER:
            for i in range(count):
                to[i] = a[i] ** b[i]
        elif code == _ROOT:
            for i in range(count):
                to[i] = math.sqrt(a[i])
        elif code == _CLIP:
            for i in range(count):
                value = a[i]
                value = low if value < low else value
                to[i] = high if value > high else value
        elif code == _LOGARITHM:
            for i in range(count):
                to[i] = math.log(low if a[i] < low else a[i])
        elif code == _ROUND:
            for i in range(count):
                to[i] = np.rint(a[i])
        if single[number]:
            for i in range(count):
                to[i] = np.float64(np.float32(to[i]))


@compiled
@typing.no_type_check
def prepare(
    values, codes, operands, limits, single, outputs, mean, deviation, limit, registers, inputs
):
    """Write scaled features to `inputs` (time, channel, place), then a channel for clear steps.

    `values` (time, band, place) float32, NaN where not clear; the program's arrays; `mean`,
    `deviation` (feature) float32; `limit` float32, infinite for none. `registers` (register,
    place) float64, whose constants are there already. What is not clear, or has no finite value,
    is 0.
    """
    features, bands = len(outputs), values.shape[1]
    places = values.shape[2]
    for time in range(len(values)):
        clear = inputs[time, features]
        clear[:] = np.float32(1)
        for band in range(bands):
            row, register = values[time, band], registers[band]
            for i in range(places):
                register[i] = row[i]
                clear[i] = clear[i] if row[i] - row[i] == 0 else np.float32(0)
        _run(codes, operands, limits, single, registers)
        for feature in range(features):
            register, into = registers[outputs[feature]], inputs[time, feature]
            middle, spread = mean[feature], deviation[feature]
            for i in range(places):
                value = (np.float32(register[i]) - middle) / spread
                value = -limit if value < -limit else value
                value = limit if value > limit else value
                is_known = (value - value == 0) & (clear[i] > 0)
                into[i] = value if is_known else np.float32(0)


@compiled
@typing.no_type_check
def _pair(below, passed, mask, low, high, further):
    """Replace low shares by pairs; `further` is room. Loops are short, so that each is vectors."""
    words, bits, clear = low.view(np.uint32), further.view(np.uint32), mask.view(np.uint32)
    sixteen, upper = np.uint32(16), np.uint32(0xFFFF0000)
    for i in range(len(further)):
        # no branch, which a processor would guess wrongly every other time
        further[i] = high[i] + below[passed[i]] * (low[i] - high[i])
    for i in range(len(further)):
        # a multiple of 1/256, which bfloat16 holds
        further[i] = (further[i] * _STEPS + _ROUNDING - _ROUNDING) / _STEPS
    for i in range(len(further)):
        words[i] = (bits[i] & upper) | (clear[i] >> sixteen)


@compiled
@typing.no_type_check
def locate(inputs, points, counts, firsts, inverse, strip, paired, places, low_shares, high_shares):
    """Find each value between the points at which a table has entries.

    `inputs` (time, feature or mask, place), the last of them the mask; `points` (feature, point)
    rising, `counts` of them, `inverse` 1 over their distances; entries of a feature begin at
    `firsts` and have `strip` bytes. Of the two entries about a value, the lower one's place in
    bytes and the shares of both (time, feature, place); shares are 0 where the mask is.

    Where tables are `paired`, two bfloat16 stand in the place of a low share: 1 where the step is
    clear, and the share of the entry further from 0 (`tables.paired_table`).
    """
    times, features = places.shape[0], places.shape[1]
    count = places.shape[2]
    passed, further = np.empty(count, np.uint32), np.empty(count, np.float32)
    below = (points < 0).astype(np.float32)
    for time in range(times):
        mask = inputs[time, inputs.shape[1] - 1]
        for feature in range(features):
            row, line, widths = inputs[time, feature], points[feature], inverse[feature]
            passed[:] = 0
            for number in range(1, counts[feature] - 1):
                point = line[number]
                for i in range(count):
                    passed[i] += np.uint32(row[i] >= point)
            place, first = places[time, feature], firsts[feature]
            low, high = low_shares[time, feature], high_shares[time, feature]
            for i in range(count):
                share = (row[i] - line[passed[i]]) * widths[passed[i]]
                high[i] = share * mask[i]
                low[i] = mask[i] - high[i]
                place[i] = (first + np.int64(passed[i])) * strip
            if paired:
                _pair(below[feature], passed, mask, low, high, further)
