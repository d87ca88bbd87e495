"""The histogram of a tensor and the search for the range to quantize it with: the arithmetic of PyTorch's HistogramObserver.

    counts (parts, bins, 4)     int32; a thread counts element i of its part of x in column i mod 4, so that equal
                                neighbours do not wait for one another's addition
    places (parts, 1024)        uint32; the bins of a block of elements, computed in vectors before they are counted
    sums   (4, 32)              float32; four levels of PyTorch's cascade sum, each of four vectors of eight lanes

Every function here has the same name, arguments and bits as its NumPy version in `refquant.observers.histogram_reference`,
where the formulas and their sources stand.
"""

import numpy as np

from refquant.kernels.jit import get_num_threads, kernel, parallel_for
from refquant.kernels.scalar import fused_multiply_add

__all__ = ["histogram_counts", "linspace_float32", "rescaled_histogram", "sum_float32", "search_bins"]

_BLOCK = 1024
_GRAIN = 1 << 17
_UPSAMPLE = 16
_F = np.float32
_HALF = _F(0.5)
_ONE = _F(1)
_ZERO = _F(0)


def histogram_counts(x, first, last, bins):
    """Count the elements of `x` (float32, one axis, within the edges) in `bins` equal parts of ``[first, last]``."""
    parts = max(1, min(get_num_threads(), x.size // _GRAIN))
    counts = np.zeros((parts, bins * 4), np.int32)
    places = np.empty((parts, _BLOCK), np.uint32)
    parallel_for(_count, parts, x, first, last, counts, places)
    total = counts.reshape(parts, bins, 4).sum(axis=(0, 2), dtype=np.int64)
    return np.minimum(total, 1 << 24).astype(np.float32)


@kernel
def _count(start, stop, x, first, last, counts, places):
    parts, bins = counts.shape[0], counts.shape[1] // 4
    width, top, scale = last - first, np.int32(bins - 1), np.float32(bins)
    for part in range(start, stop):
        end = x.size * (part + 1) // parts
        count, place = counts[part], places[part]
        for begin in range(x.size * part // parts, end, _BLOCK):
            block = x[begin : min(begin + _BLOCK, end)]
            for i in range(block.size):
                place[i] = np.uint32(max(min(np.int32((block[i] - first) * scale / width), top), np.int32(0)))
            for i in range(block.size // 4):
                j = np.uintp(4 * i)
                for column in range(4):
                    count[np.uintp(4) * np.uintp(place[j + np.uintp(column)]) + np.uintp(column)] += np.int32(1)
            for i in range(block.size // 4 * 4, block.size):
                count[np.uintp(4) * np.uintp(place[i])] += np.int32(1)


def linspace_float32(start, end, count):
    """Return `count` float32 from `start` to `end`."""
    out = np.empty(count, np.float32)
    _linspace(start, end, out)
    return out


@kernel
def _linspace(start, end, out):
    last = out.size - 1
    step = (end - start) / np.float32(last)
    for i in range(out.size // 2):
        out[i] = fused_multiply_add(step, np.float32(i), start)
    for i in range(out.size // 2, out.size):
        out[i] = fused_multiply_add(-step, np.float32(last - i), end)


def rescaled_histogram(histogram, low, high, new_low, new_high):
    """Move a histogram into a wider range: every sixteenth of a bin goes where its centre lies."""
    bins = histogram.size
    centres = linspace_float32(low, high, bins * _UPSAMPLE + 1)
    edges = linspace_float32(new_low, new_high, bins + 1)
    moved = np.zeros(bins, np.float32)
    _rescale(histogram, (high - low) / _F(bins * _UPSAMPLE), centres, edges, moved)
    return moved


@kernel
def _rescale(histogram, part, centres, edges, moved):
    bins = histogram.size
    ascending = True
    for i in range(bins):
        ascending &= edges[i] <= edges[i + 1]
    place = 0
    for i in range(bins * _UPSAMPLE):
        centre = centres[i] + _HALF * part
        if ascending:
            while place <= bins and edges[place] <= centre:
                place += 1
            while place > 0 and edges[place - 1] > centre:
                place -= 1
        else:
            place = _edges_not_above(edges, centre)
        moved[min(max(place - 1, 0), bins - 1)] += histogram[i // _UPSAMPLE] / np.float32(_UPSAMPLE)


@kernel
def _edges_not_above(edges, value):
    """Where a binary search for the first edge above `value` ends, even if rounding has left the edges unsorted."""
    first, last = 0, edges.size
    while first < last:
        middle = (first + last) >> 1
        if edges[middle] > value:
            last = middle
        else:
            first = middle + 1
    return first


def sum_float32(x):
    """Sum float32 in the order of PyTorch's cascade sum."""
    return _F(_sum(x, np.empty((4, 32), np.float32)))


@kernel
def _sum(x, sums):
    lanes = 8 if x.size >= 8 else 1
    wide = 4 * lanes
    rounds = x.size // lanes // 4
    power = 0
    while (1 << power) < rounds:
        power += 1
    power = max(4, power // 4)
    step = 1 << power
    for level in range(4):
        for k in range(wide):
            sums[level, k] = _ZERO
    done = 0
    while done + step <= rounds:
        for i in range(done, done + step):
            for k in range(wide):
                sums[0, k] += x[i * wide + k]
        done += step
        for level in range(1, 4):
            for k in range(wide):
                sums[level, k] += sums[level - 1, k]
                sums[level - 1, k] = _ZERO
            if (done >> (level * power)) & (step - 1):
                break
    for i in range(done, rounds):
        for k in range(wide):
            sums[0, k] += x[i * wide + k]
    for level in range(1, 4):
        for k in range(wide):
            sums[0, k] += sums[level, k]
    return _fold(x, sums[0], rounds * wide, lanes)


@kernel
def _fold(x, sums, done, lanes):
    """Add what no round took to the running sums, and add these up."""
    vectors = x.size // lanes * lanes
    for i in range(done, vectors):
        sums[(i - done) % lanes] += x[i]
    for vector in range(1, 4):
        for lane in range(lanes):
            sums[lane] += sums[vector * lanes + lane]
    total = _ZERO
    for i in range(vectors, x.size):
        total += x[i]
    for lane in range(lanes):
        total += sums[lane]
    return total


def search_bins(histogram, low, high, levels):
    """Return the first and the last bin to keep, so that quantizing the kept range loses least."""
    bins = histogram.size
    width = (float(high) - float(low)) / bins
    cumulative = np.cumsum(histogram, dtype=np.float64).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        density = histogram / _F(width)
    total = float(sum_float32(histogram))
    norm, sums = np.empty(bins, np.float32), np.empty((4, 32), np.float32)
    start, end = _search(cumulative, total, density, width, levels, norm, sums)
    return int(start), int(end)


@kernel
def _search(cumulative, total, density, width, levels, norm, sums):
    """The search of the NumPy version; `left` and `right` go on from where they were, as the quantiles only move inward."""
    alpha, beta = 0.0, 1.0
    start, end = 0, cumulative.size - 1
    left, right = start, end
    least = np.inf
    while alpha < beta:
        next_alpha, next_beta = alpha + 1e-5, beta - 1e-5
        left, right = min(max(left, start), end), max(min(right, end), start)
        while left < end and cumulative[left] < np.float32(next_alpha * total):
            left += 1
        while right > start and cumulative[right] > np.float32(next_beta * total):
            right -= 1
        new_start, new_end = start, end
        if left - start > end - right:
            new_start, alpha = left, next_alpha
        else:
            new_end, beta = right, next_beta
        if new_start == start and new_end == end:
            continue
        step = width * (new_end - new_start + 1) / levels
        error = 0.0
        if step != 0.0:
            _error(density, np.float32(width), step, np.float32(levels - 1), new_start, norm)
            error = np.float64(_sum(norm, sums))
        if error > least:
            break
        least, start, end = error, new_start, new_end
    return start, end


@kernel
def _error(density, width, exact_step, top, start, norm):
    """Write each bin's part of the quantization error."""
    half, step = np.float32(exact_step / 2.0), np.float32(exact_step)
    whole = _cubes(-half, half)
    for i in range(density.size):
        begin = np.float32(i - start) * width
        end = begin + width
        first, last = _step_of(begin, step, top), _step_of(end, step, top)
        value = density[i] * _cubes(begin - (first + _HALF) * step, half)
        value += (last - first - _ONE) * (density[i] * whole)
        norm[i] = value + density[i] * _cubes(-half, end - (last * step + half))


@kernel(forceinline=True)
def _cubes(begin, end):
    return (end * end * end - begin * begin * begin) / np.float32(3)


@kernel(forceinline=True)
def _step_of(value, step, top):
    """``floor_divide_float32`` clipped to ``[0, top]``: the same result as with fmod, from a double quotient.

    Quotients outside of the clip need no care. Inside, with `top` < 2**16, the quotient of two float32 differs from every
    integer that it is not by more than a double's rounding, so that truncating it is exact, and so is the remainder.
    """
    quotient = np.float64(value) / np.float64(step)
    remainder = np.float32(np.float64(value) - np.trunc(quotient) * np.float64(step))
    exact = (value - remainder) / step
    down = np.floor(exact)
    if exact - down > _HALF:
        down += _ONE
    if quotient < 0.0 or down < _ZERO:
        down = _ZERO
    if quotient > np.float64(top) + 1.0 or down > top:
        down = top
    return down
