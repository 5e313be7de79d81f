"""Pixels with many clear looks in, their geometric medians out, by Newton steps over the bands."""

from typing import no_type_check

import numba
import numpy as np

_BLOCK = 64
"""Pixels worked out together: each step runs along them, and the slowest of them sets their number
of steps. Measured with 8 looks of 10 bands."""


@numba.njit(nogil=True, cache=True)
@no_type_check  # a run-time check inside would keep numba from compiling it
def _load(
    reflectance: np.ndarray,  # (look, band, pixel) int16
    is_clear: np.ndarray,  # (look, pixel) bool
    start: int,
    size: int,
    values: np.ndarray,  # (look, band, block) float64, written; 0 where not clear
    weight: np.ndarray,  # (look, block) float64, written: 1 where clear, else 0
    count: np.ndarray,  # (block) float64, written
) -> None:
    looks, bands, _ = reflectance.shape
    weight[:] = 0
    values[:] = 0
    count[:] = 0
    for look in range(looks):
        clear = is_clear[look, start : start + size]
        for x in range(size):
            weight[look, x] = 1.0 if clear[x] else 0.0
            count[x] += weight[look, x]
        for band in range(bands):
            stored = reflectance[look, band, start : start + size]
            row = values[look, band]
            for x in range(size):
                row[x] = np.float64(stored[x]) if clear[x] else 0.0


@numba.njit(nogil=True, cache=True)
@no_type_check
def _nearest_look(
    values: np.ndarray,  # (look, band, block) float64
    weight: np.ndarray,  # (look, block) float64
    cost: np.ndarray,  # (look, block) float64, scratch
    least: np.ndarray,  # (block) float64, written: the chosen look's summed distance
    point: np.ndarray,  # (band, block) float64, written: the chosen look
) -> None:
    looks, bands, block = values.shape
    square = np.empty(block)
    cost[:] = 0
    for first in range(looks):
        for second in range(first + 1, looks):
            square[:] = 0
            for band in range(bands):
                ours, theirs = values[first, band], values[second, band]
                for x in range(block):
                    square[x] += (ours[x] - theirs[x]) * (ours[x] - theirs[x])
            our_cost, their_cost = cost[first], cost[second]
            for x in range(block):
                distance = np.sqrt(square[x])
                our_cost[x] += distance * weight[second, x]
                their_cost[x] += distance * weight[first, x]
    least[:] = np.inf
    point[:] = 0
    for look in range(looks):
        for x in range(block):
            square[x] = 1.0 if weight[look, x] > 0 and cost[look, x] < least[x] else 0.0
            least[x] = cost[look, x] if square[x] > 0 else least[x]
        for band in range(bands):
            row = values[look, band]
            for x in range(block):
                point[band, x] = row[x] if square[x] > 0 else point[band, x]


@numba.njit(nogil=True, cache=True)
@no_type_check
def _leave_look(
    values: np.ndarray,  # (look, band, block) float64
    weight: np.ndarray,  # (look, block) float64
    count: np.ndarray,  # (block) float64
    point: np.ndarray,  # (band, block) float64: a look in, the first step away from it out
    is_done: np.ndarray,  # (block) bool, written
) -> None:
    looks, bands, block = values.shape
    pull = np.zeros((bands, block))
    centre = np.zeros((bands, block))
    square = np.empty(block)
    total = np.zeros(block)
    equals = np.zeros(block)
    for look in range(looks):
        square[:] = 0
        for band in range(bands):
            for x in range(block):
                difference = values[look, band, x] - point[band, x]
                square[x] += difference * difference
        for x in range(block):
            equals[x] += weight[look, x] if square[x] == 0 else 0.0
            inverse = weight[look, x] / np.sqrt(square[x]) if square[x] > 0 else 0.0
            square[x] = inverse
            total[x] += inverse
        for band in range(bands):
            for x in range(block):
                pull[band, x] += square[x] * (values[look, band, x] - point[band, x])
                centre[band, x] += weight[look, x] * values[look, band, x]
    square[:] = 0
    for band in range(bands):
        for x in range(block):
            square[x] += pull[band, x] * pull[band, x]
    for x in range(block):
        force = np.sqrt(square[x])
        # Vardi and Zhang: the look itself is the median if the others' pull is not stronger than
        # its own weight; else the Weiszfeld step away from it is shortened by that weight.
        is_done[x] = count[x] <= 2 or force <= equals[x] + 1e-9
        step = (1 - equals[x] / force) / total[x] if not is_done[x] else 0.0
        middle = 0.5 if count[x] == 2 else 0.0
        for band in range(bands):
            moved = point[band, x] + step * pull[band, x]
            # every point between two looks is a median of them: the mean, as the median has it
            point[band, x] = middle * centre[band, x] if middle > 0 else moved


@numba.njit(nogil=True, cache=True)
@no_type_check
def _newton_step(
    curve: np.ndarray,  # (band, band, block) float64: second derivative in, its factor out
    step: np.ndarray,  # (band, block) float64: pull in, step out
) -> None:
    """Solve `curve` step = pull by Cholesky factors, all pixels of a block together."""
    bands, block = step.shape
    inverse = np.empty(block)
    for j in range(bands):
        for k in range(j):
            for i in range(j, bands):
                target, left, right = curve[i, j], curve[i, k], curve[j, k]
                for x in range(block):
                    target[x] -= left[x] * right[x]
        pivot = curve[j, j]
        for x in range(block):
            inverse[x] = 1 / np.sqrt(max(pivot[x], 1e-300))
        for i in range(j, bands):
            target = curve[i, j]
            for x in range(block):
                target[x] *= inverse[x]
    for j in range(bands):
        for k in range(j):
            for x in range(block):
                step[j, x] -= curve[j, k, x] * step[k, x]
        for x in range(block):
            step[j, x] /= curve[j, j, x]
    for j in range(bands - 1, -1, -1):
        for k in range(j + 1, bands):
            for x in range(block):
                step[j, x] -= curve[k, j, x] * step[k, x]
        for x in range(block):
            step[j, x] /= curve[j, j, x]


@numba.njit(nogil=True, cache=True)
@no_type_check
def _derivatives(
    values: np.ndarray,  # (look, band, block) float64
    weight: np.ndarray,  # (look, block) float64
    point: np.ndarray,  # (band, block) float64
    cost: np.ndarray,  # (block) float64, written: summed distance
    total: np.ndarray,  # (block) float64, written: summed inverse distance
    pull: np.ndarray,  # (band, block) float64, written: minus the first derivative
    curve: np.ndarray,  # (band, band, block) float64, lower half written: the second derivative
) -> None:
    looks, bands, block = values.shape
    towards = np.empty((bands, block))
    square = np.empty(block)
    inverse = np.empty(block)
    cost[:] = 0
    total[:] = 0
    pull[:] = 0
    curve[:] = 0
    for look in range(looks):
        square[:] = 0
        for band in range(bands):
            row, here, there = towards[band], point[band], values[look, band]
            for x in range(block):
                row[x] = there[x] - here[x]
                square[x] += row[x] * row[x]
        for x in range(block):
            distance = np.sqrt(square[x])
            cost[x] += weight[look, x] * distance
            inverse[x] = weight[look, x] / max(distance, 1e-9)
            total[x] += inverse[x]
            square[x] = inverse[x] / max(square[x], 1e-18)
        for band in range(bands):
            row, force = towards[band], pull[band]
            for x in range(block):
                force[x] += inverse[x] * row[x]
            for other in range(band + 1):
                target, column = curve[band, other], towards[other]
                for x in range(block):
                    target[x] -= square[x] * row[x] * column[x]
    for band in range(bands):
        target = curve[band, band]
        for x in range(block):
            # looks on one line leave no curvature along it; a trace of it keeps the step finite
            target[x] += total[x] * (1 + 1e-9) + 1e-30


@numba.njit(nogil=True, cache=True)
@no_type_check
def _descend(
    values: np.ndarray,  # (look, band, block) float64
    weight: np.ndarray,  # (look, block) float64
    least: np.ndarray,  # (block) float64: summed distance of the nearest look
    point: np.ndarray,  # (band, block) float64: start in, median out
    is_done: np.ndarray,  # (block) bool
    tolerance: float,
    step_limit: int,
) -> None:
    _, bands, block = values.shape
    held = point.copy()
    safe = np.zeros((bands, block))
    step = np.empty((bands, block))
    pull = np.empty((bands, block))
    curve = np.empty((bands, bands, block))
    cost, total, length = np.empty(block), np.empty(block), np.empty(block)
    shrink = np.ones(block)
    for _ in range(step_limit):
        left = 0
        for x in range(block):
            left += 0 if is_done[x] else 1
        if left == 0:
            return
        _derivatives(values, weight, point, cost, total, pull, curve)
        step[:] = pull
        _newton_step(curve, step)
        length[:] = 0
        for band in range(bands):
            for x in range(block):
                length[x] += step[band, x] * step[band, x]
        for x in range(block):
            is_better = cost[x] < least[x] or shrink[x] == 0
            shrink[x] = 1.0 if is_better else 0.0
            least[x] = cost[x] if is_better and not is_done[x] else least[x]
        for band in range(bands):
            for x in range(block):
                # A Newton step that went uphill is taken back, and Weiszfeld's taken instead,
                # which never goes uphill.
                is_better = shrink[x] > 0
                here = point[band, x] if is_better else held[band, x]
                slow = pull[band, x] / max(total[x], 1e-300) if is_better else safe[band, x]
                moved = here + (step[band, x] if is_better else slow)
                held[band, x] = here
                safe[band, x] = slow
                point[band, x] = point[band, x] if is_done[x] else moved
        for x in range(block):
            is_done[x] = is_done[x] or (shrink[x] > 0 and length[x] < tolerance * tolerance)


@numba.njit(nogil=True, cache=True)
@no_type_check
def geomedian_of_many(
    reflectance: np.ndarray,  # (look, band, pixel) int16
    is_clear: np.ndarray,  # (look, pixel) bool
    clear_count: np.ndarray,  # (pixel) uint16
    few: int,
    geomedian: np.ndarray,  # (band, pixel) int16, written where more than `few` looks are clear
    tolerance: float,
    step_limit: int,
) -> None:
    """Write the geometric medians of pixels that have more than `few` clear looks."""
    looks, bands, pixels = reflectance.shape
    values = np.empty((looks, bands, _BLOCK))
    weight, cost = np.empty((looks, _BLOCK)), np.empty((looks, _BLOCK))
    point = np.empty((bands, _BLOCK))
    count, least = np.empty(_BLOCK), np.empty(_BLOCK)
    is_done = np.empty(_BLOCK, np.bool_)
    for start in range(0, pixels, _BLOCK):
        size = min(_BLOCK, pixels - start)
        if np.max(clear_count[start : start + size]) <= few:
            continue
        _load(reflectance, is_clear, start, size, values, weight, count)
        _nearest_look(values, weight, cost, least, point)
        _leave_look(values, weight, count, point, is_done)
        is_done |= count <= few
        _descend(values, weight, least, point, is_done, tolerance, step_limit)
        for band in range(bands):
            result = geomedian[band, start : start + size]
            for x in range(size):
                result[x] = np.int16(np.rint(point[band, x])) if count[x] > few else result[x]
