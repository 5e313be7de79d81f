"""Pixels with few clear looks in, their geometric medians out, by the looks' distances alone."""

from typing import no_type_check

import numba
import numpy as np

FEW = 24
"""Clear looks up to which this kernel is used. Its work grows with their cube, that of
`geomedian_many` with the square of the bands."""

_BLOCK = 1024
"""Pixels sorted by how many clear looks they have, while their looks stay in the caches."""

_LANES = 128
"""Pixels of one number of clear looks worked out together: each step runs along them. 64 were
measured 2 to 12 % slower, 32 a fifth."""


_VECTOR = 8
"""Numbers of a vector register."""


@numba.njit(nogil=True, cache=True)
@no_type_check  # a run-time check inside would keep numba from compiling it
def _order_by_count(
    count: np.ndarray,  # (pixel) uint16
    order: np.ndarray,  # (pixel) int64, written: places of pixels, those with fewest looks first
    end: np.ndarray,  # (looks + 2) int64, written: where in `order` each count begins
) -> None:
    end[:] = 0
    for x in range(count.size):
        end[count[x] + 1] += 1
    for looks in range(1, end.size):
        end[looks] += end[looks - 1]
    place = end.copy()
    for x in range(count.size):
        order[place[count[x]]] = x
        place[count[x]] += 1


@numba.njit(nogil=True, cache=True)
@no_type_check
def _gather(
    reflectance: np.ndarray,  # (look, band, pixel) int16
    is_clear: np.ndarray,  # (look, pixel) bool
    pixel: np.ndarray,  # (lane) int64
    which: np.ndarray,  # (look + 1, lane) int64, scratch
    values: np.ndarray,  # (clear, band, lane) float64, written
) -> None:
    clear, bands, lanes = values.shape
    for x in range(lanes):
        found = 0
        for look in range(is_clear.shape[0]):
            which[found, x] = look
            found += 1 if is_clear[look, pixel[x]] else 0
    for k in range(clear):
        for band in range(bands):
            row = values[k, band]
            for x in range(lanes):
                row[x] = reflectance[which[k, x], band, pixel[x]]


@numba.njit(nogil=True, cache=True)
@no_type_check
def _square_distances(
    values: np.ndarray,  # (clear, band, lane) float64
    square: np.ndarray,  # (clear, clear, lane) float64, written
) -> None:
    clear, bands, lanes = values.shape
    for i in range(clear):
        square[i, i] = 0
        for j in range(i):
            row = square[i, j]
            row[:] = 0
            for band in range(bands):
                ours, theirs = values[i, band], values[j, band]
                for x in range(lanes):
                    row[x] += (ours[x] - theirs[x]) * (ours[x] - theirs[x])
            square[j, i] = row


@numba.njit(nogil=True, cache=True)
@no_type_check
def _products(
    square: np.ndarray,  # (clear, clear, lane) float64
    share: np.ndarray,  # (clear, lane) float64
    product: np.ndarray,  # (clear, lane) float64, written: square times share
    half: np.ndarray,  # (lane) float64, written: half of share times square times share
) -> None:
    clear, lanes = share.shape
    half[:] = 0
    for i in range(clear):
        total, ours = product[i], share[i]
        total[:] = 0
        for j in range(clear):
            row, theirs = square[i, j], share[j]
            for x in range(lanes):
                total[x] += row[x] * theirs[x]
        for x in range(lanes):
            half[x] += 0.5 * ours[x] * total[x]


@numba.njit(nogil=True, cache=True)
@no_type_check
def _leave_nearest_look(
    square: np.ndarray,  # (clear, clear, lane) float64
    share: np.ndarray,  # (clear, lane) float64, written: the point as shares of the looks
    least: np.ndarray,  # (lane) float64, written: summed distance of the nearest look
    is_done: np.ndarray,  # (lane) bool, written
) -> None:
    clear, _, lanes = square.shape
    cost = np.zeros((clear, lanes))
    nearest = np.zeros(lanes, np.int64)
    for i in range(clear):
        for j in range(i):
            row, ours, theirs = square[i, j], cost[i], cost[j]
            for x in range(lanes):
                distance = np.sqrt(row[x])
                ours[x] += distance
                theirs[x] += distance
    least[:] = np.inf
    for i in range(clear):
        for x in range(lanes):
            is_less = cost[i, x] < least[x]
            nearest[x] = i if is_less else nearest[x]
            least[x] = cost[i, x] if is_less else least[x]
    total, equals, half = np.zeros(lanes), np.zeros(lanes), np.empty(lanes)
    for i in range(clear):
        for x in range(lanes):
            apart = square[i, nearest[x], x]
            inverse = 1 / np.sqrt(apart) if apart > 0 else 0.0
            equals[x] += 0.0 if apart > 0 else 1.0
            total[x] += inverse
            share[i, x] = inverse
    _products(square, share, cost, half)
    for x in range(lanes):
        # Vardi and Zhang: the look itself is the median if the others' pull is not stronger than
        # its own weight; else the Weiszfeld step away from it is shortened by that weight.
        force = np.sqrt(max(total[x] * least[x] - half[x], 0.0))
        is_done[x] = force <= equals[x] + 1e-9
        part = 0.0 if is_done[x] else 1 - equals[x] / force
        scale = part / total[x] if total[x] > 0 else 0.0
        for i in range(clear):
            share[i, x] = share[i, x] * scale
        share[nearest[x], x] += 1 - part


@numba.njit(nogil=True, cache=True)
@no_type_check
def _solve(
    curve: np.ndarray,  # (clear, clear, lane) float64: lower half in, its factors out
    step: np.ndarray,  # (clear, lane) float64: right side in, solution out
    inverse: np.ndarray,  # (clear, lane) float64, scratch
) -> None:
    """Solve `curve` x = `step` by factors L D L', all lanes together."""
    clear, lanes = step.shape
    factor = np.empty(lanes)
    for j in range(clear):
        pivot, turned, right = curve[j, j], inverse[j], step[j]
        for x in range(lanes):
            turned[x] = 1 / max(pivot[x], 1e-300)
        for i in range(j + 1, clear):
            # what is left of row i; column j keeps the factor times its pivot until the end
            left, target = curve[i, j], step[i]
            for x in range(lanes):
                factor[x] = left[x] * turned[x]
                target[x] -= factor[x] * right[x]
            for k in range(j + 1, i + 1):
                row, other = curve[i, k], curve[k, j]
                for x in range(lanes):
                    row[x] -= factor[x] * other[x]
    for j in range(clear - 1, -1, -1):
        target, turned = step[j], inverse[j]
        for i in range(j + 1, clear):
            left, known = curve[i, j], step[i]
            for x in range(lanes):
                target[x] -= left[x] * known[x]
        for x in range(lanes):
            target[x] *= turned[x]


@numba.njit(nogil=True, cache=True)
@no_type_check
def _newton_step(
    square: np.ndarray,  # (clear, clear, lane) float64
    share: np.ndarray,  # (clear, lane) float64
    curve: np.ndarray,  # (clear, clear, lane) float64, scratch
    inverse_pivot: np.ndarray,  # (clear, lane) float64, scratch
    near: np.ndarray,  # (clear, lane) float64, written: squared distance of each look
    step: np.ndarray,  # (clear, lane) float64, written: the step in parts of the ways to the looks
    slow: np.ndarray,  # (clear, lane) float64, written: Weiszfeld's next point
    cost: np.ndarray,  # (lane) float64, written: summed distance
    length: np.ndarray,  # (lane) float64, written: squared length of the step
) -> None:
    clear, _, lanes = square.shape
    half, total = np.empty(lanes), np.zeros(lanes)
    _products(square, share, near, half)
    cost[:] = 0
    for i in range(clear):
        row, inverse, right = near[i], slow[i], step[i]
        for x in range(lanes):
            row[x] = max(row[x] - half[x], 1e-18)
            inverse[x] = 1 / np.sqrt(row[x])
            cost[x] += row[x] * inverse[x]
            total[x] += inverse[x]
            right[x] = row[x]
    for i in range(clear):
        ours = near[i]
        for j in range(i):
            row, theirs, apart = curve[i, j], near[j], square[i, j]
            for x in range(lanes):
                row[x] = 0.5 * (apart[x] - ours[x] - theirs[x])
        row, inverse = curve[i, i], slow[i]
        for x in range(lanes):
            # looks on one line leave no curvature along it; a trace of it keeps the step finite
            row[x] = ours[x] * (ours[x] * inverse[x] * total[x] * (1 + 1e-9) - 1)
    _solve(curve, step, inverse_pivot)
    length[:] = 0
    for i in range(clear):
        parts, ours, inverse = step[i], near[i], slow[i]
        for x in range(lanes):
            along = total[x] * ours[x] * ours[x] * inverse[x] * parts[x] - ours[x]
            length[x] += parts[x] * along
            inverse[x] /= total[x]


@numba.njit(nogil=True, cache=True)
@no_type_check
def _descend(
    square: np.ndarray,  # (clear, clear, lane) float64
    point: np.ndarray,  # (clear, lane) float64: start in, nearer to the median out
    safe: np.ndarray,  # (clear, lane) float64: where to go when the point is no better than before
    least: np.ndarray,  # (lane) float64: summed distance of the best point so far
    is_done: np.ndarray,  # (lane) bool
    tolerance: float,
    steps: int,
) -> int:
    """Step, once at least, until half of the lanes are done; return how many `steps` are left."""
    clear, _, lanes = square.shape
    curve, pivot = np.empty((clear, clear, lanes)), np.empty((clear, lanes))
    near, step, slow = np.empty_like(pivot), np.empty_like(pivot), np.empty_like(pivot)
    cost, length, added = np.empty(lanes), np.empty(lanes), np.empty(lanes)
    is_better = np.empty(lanes, np.bool_)
    while True:
        _newton_step(square, point, curve, pivot, near, step, slow, cost, length)
        steps -= 1
        added[:] = 0
        for i in range(clear):
            for x in range(lanes):
                added[x] += step[i, x]
        for x in range(lanes):
            # infinite after a step of Weiszfeld's, which never goes uphill
            is_better[x] = cost[x] < least[x]
            least[x] = cost[x] if is_better[x] else np.inf
        for i in range(clear):
            for x in range(lanes):
                # A Newton step that went uphill is taken back, and Weiszfeld's taken instead.
                moved = point[i, x] * (1 - added[x]) + step[i, x]
                next_point = moved if is_better[x] else safe[i, x]
                safe[i, x] = slow[i, x]
                point[i, x] = point[i, x] if is_done[x] else next_point
        for x in range(lanes):
            is_done[x] = is_done[x] or (is_better[x] and length[x] < tolerance * tolerance)
        if steps == 0 or 2 * np.sum(is_done) >= lanes:
            return steps


@numba.njit(nogil=True, cache=True)
@no_type_check
def _find(
    square: np.ndarray,  # (clear, clear, lane) float64
    median: np.ndarray,  # (clear, lane) float64, written: the median as shares of the looks
    tolerance: float,
    step_limit: int,
) -> None:
    clear, lanes = median.shape
    point = np.empty((clear, lanes))
    least, is_done = np.empty(lanes), np.empty(lanes, np.bool_)
    _leave_nearest_look(square, point, least, is_done)
    median[:] = point
    safe = point.copy()
    lane = np.arange(lanes)
    steps = step_limit
    while True:
        left = np.flatnonzero(~is_done)
        if left.size == 0 or steps == 0:
            return
        # the slowest pixels go on by themselves: full vectors of unfinished ones
        size = min(_VECTOR * ((left.size + _VECTOR - 1) // _VECTOR), lane.size)
        keep = np.empty(size, np.int64)
        for x in range(size):
            keep[x] = left[min(x, left.size - 1)]
        if size < lane.size:
            square = _taken(square.reshape(clear * clear, -1), keep).reshape(clear, clear, size)
            point, safe = _taken(point, keep), _taken(safe, keep)
            least, is_done, lane = least[keep], is_done[keep], lane[keep]
        steps = _descend(square, point, safe, least, is_done, tolerance, steps)
        for i in range(clear):
            for x in range(lane.size):
                median[i, lane[x]] = point[i, x]


@numba.njit(nogil=True, cache=True)
@no_type_check
def _taken(rows: np.ndarray, keep: np.ndarray) -> np.ndarray:
    taken = np.empty((rows.shape[0], keep.size))
    for i in range(rows.shape[0]):
        row, target = rows[i], taken[i]
        for x in range(keep.size):
            target[x] = row[keep[x]]
    return taken


@numba.njit(nogil=True, cache=True)
@no_type_check
def _one_count(
    reflectance: np.ndarray,  # (look, band, pixel) int16
    is_clear: np.ndarray,  # (look, pixel) bool
    pixel: np.ndarray,  # (lane) int64: pixels with `clear` clear looks
    clear: int,
    geomedian: np.ndarray,  # (band, pixel) int16, written there
    tolerance: float,
    step_limit: int,
) -> None:
    bands, lanes = reflectance.shape[1], pixel.size
    values = np.empty((clear, bands, lanes))
    which = np.empty((reflectance.shape[0] + 1, lanes), np.int64)
    _gather(reflectance, is_clear, pixel, which, values)
    # one look is itself; every point between two is a median of them: the mean, as the median has it
    share = np.full((clear, lanes), 1 / clear)
    if clear > 2:
        square = np.empty((clear, clear, lanes))
        _square_distances(values, square)
        _find(square, share, tolerance, step_limit)
    spectrum = np.empty(lanes)
    for band in range(bands):
        spectrum[:] = 0
        for i in range(clear):
            row, part = values[i, band], share[i]
            for x in range(lanes):
                spectrum[x] += row[x] * part[x]
        for x in range(lanes):
            geomedian[band, pixel[x]] = np.int16(np.rint(spectrum[x]))


@numba.njit(nogil=True, cache=True)
@no_type_check
def geomedian_of_few(
    reflectance: np.ndarray,  # (look, band, pixel) int16
    is_clear: np.ndarray,  # (look, pixel) bool
    clear_count: np.ndarray,  # (pixel) uint16
    geomedian: np.ndarray,  # (band, pixel) int16, written where there are 1 to FEW clear looks
    tolerance: float,
    step_limit: int,
) -> None:
    """Write the geometric medians of pixels that have at most `FEW` clear looks.

    A point is kept as shares of the looks, which add up to one: all that a step needs follows from
    the looks' squared distances to each other, so that it does not depend on the number of bands.
    """
    looks, _, pixels = reflectance.shape
    order = np.empty(_BLOCK, np.int64)
    begin = np.empty(looks + 2, np.int64)
    for start in range(0, pixels, _BLOCK):
        count = clear_count[start : start + _BLOCK]
        _order_by_count(count, order, begin)
        for clear in range(1, min(looks, FEW) + 1):
            for first in range(begin[clear], begin[clear + 1], _LANES):
                last = min(first + _LANES, begin[clear + 1])
                pixel = order[first:last] + start
                _one_count(reflectance, is_clear, pixel, clear, geomedian, tolerance, step_limit)
