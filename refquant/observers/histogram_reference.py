"""The arithmetic of HistogramObserver in NumPy: one array operation for each of PyTorch's, in the same order.

It is what `refquant.kernels.histogram` is held against, function by function.

- `histogram_counts`: ``torch.histc``
- `linspace_float32`: ``torch.linspace``
- `rescaled_histogram`: ``HistogramObserver._upscale_histogram``
- `sum_float32`: ``torch.sum``
- `floor_divide_float32`: ``torch.div(rounding_mode="floor")``
- `quantization_error`: ``HistogramObserver._compute_quantization_error``
- `search_bins`: ``HistogramObserver._non_linear_param_search``
"""

import numpy as np

from refquant.core.fma import fma32

__all__ = [
    "UPSAMPLE",
    "outer_edges",
    "histogram_counts",
    "linspace_float32",
    "rescaled_histogram",
    "sum_float32",
    "floor_divide_float32",
    "quantization_error",
    "search_bins",
]

UPSAMPLE = 16
"""Into how many parts a bin is cut before it is moved into a wider histogram."""

_F = np.float32
_COUNTED = _F(2**24)
"""Where a float32 counter stops: 2**24 + 1 rounds back."""


def outer_edges(low, high):
    """Return the first and the last edge of a histogram: `low` and `high`, or the neighbourhood of one value.

    Parameters
    ----------
    low, high : numpy.float32

    Returns
    -------
    tuple of numpy.float32
        For ``low == high``: one less and one more, or the neighbouring float32 where those are further away.

    Notes
    -----
    Source: PyTorch 2.13, ``aten/src/ATen/native/Histogram.cpp``, ``histc_select_outer_bin_edges``.

    Examples
    --------
    >>> [float(v) for v in outer_edges(np.float32(3), np.float32(3))]
    [2.0, 4.0]
    """
    if low != high:
        return low, high
    most = np.finfo(np.float32).max
    below = min(float(np.nextafter(low, -most)), float(low) - 1)
    above = max(float(np.nextafter(low, most)), float(low) + 1)
    return _F(below), _F(above)


def histogram_counts(x, first, last, bins):
    """Count the elements of `x` in `bins` equal parts of ``[first, last]``: ``bin = int((x - first) * bins / (last - first))``.

    Parameters
    ----------
    x : ndarray of float32
        One axis, all within the edges.
    first, last : numpy.float32
    bins : int

    Returns
    -------
    ndarray of float32, (bins,)

    Notes
    -----
    Exactness: difference, product and quotient each round to float32; the last bin includes its end. A counter stops at
    2**24, as PyTorch's does on one thread.

    Source: PyTorch 2.13, ``aten/src/ATen/native/cpu/HistogramKernel.cpp``, ``LINEAR_INTERPOLATION``.

    Examples
    --------
    >>> histogram_counts(np.float32([0, 1, 1.5, 4]), np.float32(0), np.float32(4), 4).tolist()
    [1.0, 2.0, 0.0, 1.0]
    """
    place = ((x - first) * _F(bins) / (last - first)).astype(np.int64)
    counts = np.bincount(np.minimum(place, bins - 1), minlength=bins)
    return np.minimum(counts.astype(np.float32), _COUNTED)


def linspace_float32(start, end, count):
    """Return `count` float32 from `start` to `end`: the first half counted from the start, the others from the end.

    Notes
    -----
    Exactness: ``step = (end - start) / (count - 1)`` with two roundings, then one fused multiply-add an element, as on
    every CPU with AVX2. (For older CPUs PyTorch is compiled without, and rounds the product.)

    Source: PyTorch 2.13, ``aten/src/ATen/native/cpu/RangeFactoriesKernel.cpp``, as the compiler contracts it.

    Examples
    --------
    >>> linspace_float32(np.float32(0), np.float32(1), 5).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    step = (end - start) / _F(count - 1)
    i = np.arange(count, dtype=np.float32)
    upward, downward = fma32(step, i, start), fma32(-step, _F(count - 1) - i, end)
    return np.where(i < count // 2, upward, downward)


def rescaled_histogram(histogram, low, high, new_low, new_high):
    """Move a histogram into a wider range: every sixteenth of a bin goes where its centre lies.

    Parameters
    ----------
    histogram : ndarray of float32, (bins,)
    low, high, new_low, new_high : numpy.float32
        ``new_low <= low < high <= new_high``.

    Returns
    -------
    ndarray of float32, (bins,)

    Notes
    -----
    Exactness: centres and edges as `linspace_float32` rounds them, then one float32 addition a centre. A bin
    collects its parts in order, each addition rounded to float32.

    Source: PyTorch 2.13, ``torch/ao/quantization/observer.py``, ``HistogramObserver._upscale_histogram``.

    Examples
    --------
    >>> rescaled_histogram(np.float32([16, 32]), *np.float32([0, 2, 0, 4])).tolist()
    [48.0, 0.0]
    """
    bins = histogram.size
    fine = bins * UPSAMPLE
    part = (high - low) / _F(fine)
    centres = linspace_float32(low, high, fine + 1)[:-1] + _F(0.5) * part
    edges = linspace_float32(new_low, new_high, bins + 1)
    place = np.clip(_edges_not_above(edges, centres) - 1, 0, bins - 1)
    moved = np.zeros(bins, np.float32)
    np.add.at(moved, place, np.repeat(histogram / _F(UPSAMPLE), UPSAMPLE))
    return moved


def _edges_not_above(edges, values):
    """Where a binary search for the first edge above each value ends, even if rounding has left the edges unsorted."""
    first = np.zeros(values.size, np.int64)
    last = np.full(values.size, edges.size)
    while (first < last).any():
        middle = np.minimum((first + last) >> 1, edges.size - 1)
        right = ~(edges[middle] > values) & (first < last)
        last = np.where(right | (first >= last), last, middle)
        first = np.where(right, middle + 1, first)
    return first


def sum_float32(x):
    """Sum float32 in the order of PyTorch's cascade sum.

    Thirty-two running sums, four vectors of eight lanes, take the elements in turn. After sixteen rounds they are added to a
    second level and start again at zero, and so on through four levels. Then the levels of each, the four
    vectors, and last the eight lanes are added up.

    Parameters
    ----------
    x : ndarray of float32
        One axis.

    Returns
    -------
    numpy.float32

    Notes
    -----
    Exactness: every addition rounds to float32; the order is the result. It is that of one thread, and the same on CPUs with
    and without AVX-512. Fewer than eight elements go without lanes.

    Source: PyTorch 2.13, ``aten/src/ATen/native/cpu/SumKernel.cpp``, ``cascade_sum``.

    Examples
    --------
    >>> float(sum_float32(np.full(10_000_000, 0.1, np.float32)))
    999999.4375
    """
    lanes = 8 if x.size >= 8 else 1
    vectors = x[: x.size // lanes * lanes].reshape(-1, lanes)
    rounds = len(vectors) // 4
    sums = _cascade(vectors[: rounds * 4].reshape(rounds, 4, lanes))
    for vector in vectors[rounds * 4 :]:
        sums[0] += vector
    total = _F(0)
    for value in x[len(vectors) * lanes :]:
        total += value
    for value in sums[0] + sums[1] + sums[2] + sums[3]:
        total += value
    return total


def _cascade(rounds):
    """Sum over the first axis, on four levels."""
    power = max(4, (len(rounds) - 1).bit_length() // 4)
    step = 1 << power
    level = np.zeros((4, *rounds.shape[1:]), np.float32)
    done = 0
    while done + step <= len(rounds):
        for values in rounds[done : done + step]:
            level[0] += values
        done += step
        for j in range(1, 4):
            level[j] += level[j - 1]
            level[j - 1] = 0
            if done >> (j * power) & (step - 1):
                break
    for values in rounds[done:]:
        level[0] += values
    return level[0] + level[1] + level[2] + level[3]


def floor_divide_float32(a, b):
    """Return ``floor(a / b)`` from the exact remainder: ``(a - fmod(a, b)) / b``, corrected.

    Parameters
    ----------
    a : ndarray of float32
    b : numpy.float32
        Not negative.

    Returns
    -------
    ndarray of float32
        Differs from ``floor(a / b)`` where the quotient rounds up to an integer.

    Notes
    -----
    Source: PyTorch 2.13, ``aten/src/ATen/native/cpu/BinaryOpsKernel.cpp``, ``div_floor_floating_vec``.

    Examples
    --------
    >>> a, b = np.float32([7.667869]), np.float32(0.30671477)
    >>> float(floor_divide_float32(a, b)[0]), float(np.floor(a / b)[0])
    (24.0, 25.0)
    """
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        quotient = a / b
        remainder = np.fmod(a, b)
        exact = np.where(np.isinf(quotient), a, a - remainder) / b
        exact = np.where((remainder != 0) & (remainder < 0), exact - _F(1), exact)
        down = np.floor(exact)
        down = np.where(exact - down > _F(0.5), down + _F(1), down)
        return np.where(b == 0, quotient, np.where(exact == 0, np.copysign(_F(0), quotient), down))


def _cubes(begin, end):
    """The integral of ``x**2`` over ``[begin, end]``."""
    return (end * end * end - begin * begin * begin) / _F(3)


def quantization_error(histogram, low, high, levels, start, end):
    """Return the squared error of quantizing the histogram with the range of the bins `start` … `end`.

    A bin's values are spread evenly over it. Where it lies in one quantization step, or across several, its error is the
    integral of the squared distance to the steps' centres; values outside of the range go to the outer steps.

    Parameters
    ----------
    histogram : ndarray of float32, (bins,)
    low, high : numpy.float32
    levels : int
        Quantization steps: 2 to the bits of the dtype, whatever the limits of the codes.
    start, end : int

    Returns
    -------
    float
        A float32 value.

    Notes
    -----
    Exactness: the widths of bins and of steps in double, then rounded to float32; all else in float32, one rounding an
    operation, and the sum as in `sum_float32`.

    Source: PyTorch 2.13, ``torch/ao/quantization/observer.py``, ``HistogramObserver._compute_quantization_error``.

    Examples
    --------
    >>> histogram = np.float32([1, 2, 3, 4])
    >>> error = [quantization_error(histogram, np.float32(0), np.float32(4), 2, 0, end) for end in (2, 3)]
    >>> [round(e, 4) for e in error]
    [7.7083, 3.3333]
    """
    bins = histogram.size
    width = (float(high) - float(low)) / bins
    step = width * (end - start + 1) / levels
    if step == 0:
        return 0.0
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        half, width, step = _F(step / 2), _F(width), _F(step)
        bin_begin = (np.arange(bins) - start).astype(np.float32) * width
        bin_end = bin_begin + width
        first = np.clip(floor_divide_float32(bin_begin, step), _F(0), _F(levels - 1))
        last = np.clip(floor_divide_float32(bin_end, step), _F(0), _F(levels - 1))
        density = histogram / width
        norm = density * _cubes(bin_begin - (first + _F(0.5)) * step, half)
        norm += (last - first - _F(1)) * (density * _cubes(-half, half))
        norm += density * _cubes(-half, bin_end - (last * step + half))
        return float(sum_float32(norm))


def search_bins(histogram, low, high, levels):
    """Return the first and the last bin to keep, so that quantizing the kept range loses least.

    From both ends of the histogram, a quantile step of 1e-5 at a time, the end that reaches further inward moves, until
    `quantization_error` grows for the first time.

    Parameters
    ----------
    histogram : ndarray of float32, (bins,)
    low, high : numpy.float32
    levels : int

    Returns
    -------
    tuple of int
        First and last bin.

    Notes
    -----
    Exactness: the quantiles in double, compared after rounding to float32; the cumulative sum in double, stored in float32.

    Source: PyTorch 2.13, ``torch/ao/quantization/observer.py``, ``HistogramObserver._non_linear_param_search``.

    Examples
    --------
    >>> histogram = np.zeros(2048, np.float32)
    >>> histogram[:100], histogram[2000] = 10000, 1
    >>> search_bins(histogram, np.float32(0), np.float32(1), 256)
    (0, 98)
    """
    total = float(sum_float32(histogram))
    cumulative = np.cumsum(histogram, dtype=np.float64).astype(np.float32)
    alpha, beta = 0.0, 1.0
    start, end = 0, histogram.size - 1
    least = np.inf
    while alpha < beta:
        next_alpha, next_beta = alpha + 1e-5, beta - 1e-5
        left, right = start, end
        while left < end and cumulative[left] < _F(next_alpha * total):
            left += 1
        while right > start and cumulative[right] > _F(next_beta * total):
            right -= 1
        if left - start > end - right:
            new_start, new_end, alpha = left, end, next_alpha
        else:
            new_start, new_end, beta = start, right, next_beta
        if (new_start, new_end) == (start, end):
            continue
        error = quantization_error(histogram, low, high, levels, new_start, new_end)
        if error > least:
            break
        least, start, end = error, new_start, new_end
    return start, end
