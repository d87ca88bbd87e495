"""The arithmetic of HistogramObserver: slow witness = NumPy reference = kernels, and every planted fault is found."""

import inspect
from fractions import Fraction
from math import floor, trunc

import numpy as np
import pytest
from witness import f

from refquant.kernels import histogram as kernels
from refquant.kernels.jit import get_num_threads, set_num_threads
from refquant.observers import histogram_reference as reference

F = np.float32
SEED = 20261122


def exact(x):
    """float32 array to Fractions."""
    return [Fraction(float(v)) for v in np.asarray(x).reshape(-1)]


def rounded(values):
    return np.array([float(v) for v in values], np.float32)


def same(ref, comp):
    """Raise unless dtype, shape and every bit agree."""
    ref, comp = np.asarray(ref), np.asarray(comp)
    assert ref.dtype == comp.dtype and ref.shape == comp.shape, f"{ref.dtype} {ref.shape}, {comp.dtype} {comp.shape}"
    if ref.dtype == np.float32:
        ref, comp = ref.view(np.uint32), comp.view(np.uint32)
    np.testing.assert_array_equal(comp, ref)


# The slow witness: Fractions, one `f` for each rounding of the original.


def slow_histogram_counts(x, first, last, bins):
    first, last = exact([first, last])
    counts = [0] * bins
    for v in exact(x):
        place = trunc(f(f(f(v - first) * bins) / f(last - first)))
        counts[min(place, bins - 1)] += 1
    return rounded(counts)


def slow_linspace(start, end, count):
    step = f(f(end - start) / (count - 1))
    return [f(start + step * i) if i < count // 2 else f(end - step * (count - 1 - i)) for i in range(count)]


def slow_rescaled_histogram(histogram, low, high, new_low, new_high):
    low, high, new_low, new_high = exact([low, high, new_low, new_high])
    histogram = exact(histogram)
    bins = len(histogram)
    half_part = f(f(f(high - low) / (16 * bins)) / 2)
    edges = slow_linspace(new_low, new_high, bins + 1)
    moved = [Fraction(0)] * bins
    for i, centre in enumerate(slow_linspace(low, high, 16 * bins + 1)[:-1]):
        centre = f(centre + half_part)
        place = sum(edge <= centre for edge in edges) - 1
        place = max(0, min(place, bins - 1))
        moved[place] = f(moved[place] + f(histogram[i // 16] / 16))
    return rounded(moved)


def slow_sum(x):
    x = list(x)
    lanes = 8 if len(x) >= 8 else 1
    wide = 4 * lanes
    full = len(x) // wide
    size = max(4, max(full - 1, 0).bit_length() // 4)
    level = [[Fraction(0)] * wide for _ in range(4)]
    for row in range(full):
        for k in range(wide):
            level[0][k] = f(level[0][k] + x[row * wide + k])
        done = row + 1
        for j in range(1, 4):
            if done % 2 ** (size * j) or done > full >> size << size:
                break
            for k in range(wide):
                level[j][k] = f(level[j][k] + level[j - 1][k])
                level[j - 1][k] = Fraction(0)
    total = level[0]
    for j in range(1, 4):
        total = [f(a + b) for a, b in zip(total, level[j])]
    vectors = len(x) // lanes
    for row in range(4 * full, vectors):
        for k in range(lanes):
            total[k] = f(total[k] + x[row * lanes + k])
    for vector in range(1, 4):
        for k in range(lanes):
            total[k] = f(total[k] + total[vector * lanes + k])
    result = Fraction(0)
    for v in [*x[vectors * lanes :], *total[:lanes]]:
        result = f(result + v)
    return result


def slow_floor_divide(a, b):
    remainder = a - trunc(a / b) * b
    quotient = f(f(a - remainder) / b)
    if remainder < 0:
        quotient = f(quotient - 1)
    down = floor(quotient)
    return Fraction(down + (f(quotient - down) > Fraction(1, 2)))


def slow_cubes(begin, end):
    def cube(v):
        return f(f(v * v) * v)

    return f(f(cube(end) - cube(begin)) / 3)


def slow_quantization_error(histogram, low, high, levels, start, end):
    histogram = exact(histogram)
    bins = len(histogram)
    width = (float(high) - float(low)) / bins
    step = width * (end - start + 1) / levels
    if step == 0:
        return Fraction(0)
    half, width, step = f(Fraction(step / 2)), f(Fraction(width)), f(Fraction(step))
    norm = []
    for i, count in enumerate(histogram):
        bin_begin = f((i - start) * width)
        bin_end = f(bin_begin + width)
        first, last = (max(0, min(slow_floor_divide(v, step), levels - 1)) for v in (bin_begin, bin_end))
        density = f(count / width)
        first_centre = f(f(first + Fraction(1, 2)) * step)
        last_centre = f(f(last * step) + half)
        value = f(density * slow_cubes(f(bin_begin - first_centre), half))
        value = f(value + f((last - first - 1) * f(density * slow_cubes(-half, half))))
        norm.append(f(value + f(density * slow_cubes(-half, f(bin_end - last_centre)))))
    return slow_sum(norm)


def slow_search_bins(histogram, low, high, levels):
    total = float(slow_sum(exact(histogram)))
    cumulative, running = [], 0.0
    for v in histogram:
        running += float(v)
        cumulative.append(f(Fraction(running)))
    alpha, beta, start, end, least = 0.0, 1.0, 0, len(histogram) - 1, None
    while alpha < beta:
        next_alpha, next_beta = alpha + 1e-5, beta - 1e-5
        at_left, at_right = f(Fraction(next_alpha * total)), f(Fraction(next_beta * total))
        left = next((i for i in range(start, end) if cumulative[i] >= at_left), end)
        right = next((i for i in range(end, start, -1) if cumulative[i] <= at_right), start)
        if left - start > end - right:
            new, alpha = (left, end), next_alpha
        else:
            new, beta = (start, right), next_beta
        if new == (start, end):
            continue
        error = slow_quantization_error(histogram, low, high, levels, *new)
        if least is not None and error > least:
            break
        least, (start, end) = error, new
    return start, end


# Data: heavy tails, values on edges, counts that are no integers.


def ranges(rng):
    low = F(rng.normal() * 10.0 ** rng.integers(-3, 4))
    high = low + F(abs(rng.normal()) + 1e-2) * F(10.0 ** rng.integers(-3, 4))
    return low, high


def histograms(rng, bins):
    """A histogram with a range: a peak, a tail, empty bins, and sixteenths from an earlier move."""
    shape = rng.integers(4)
    counts = rng.lognormal(0, 3, bins) if shape == 0 else 1000 * np.exp(-np.linspace(0, rng.uniform(1, 12), bins))
    counts = np.where(rng.random(bins) < (0.5 if shape == 1 else 0), 0, counts)
    counts = np.floor(counts * 16) / 16
    counts[rng.integers(bins)] += 1
    return counts.astype(np.float32), *ranges(rng)


def batches(rng, size, low, high):
    """Elements within a range, some of them on, just below and just above the edges of 32 bins."""
    x = rng.uniform(low, high, size).astype(np.float32)
    edges = np.linspace(low, high, 33).astype(np.float32)
    x = np.concatenate([x, edges, np.nextafter(edges, F(-np.inf)), np.nextafter(edges, F(np.inf)), [low, high]])
    return np.clip(x, low, high).astype(np.float32)


def check_histogram_counts(comp, tries=20):
    rng = np.random.default_rng(SEED)
    for _ in range(tries):
        low, high = ranges(rng)
        x, bins = batches(rng, int(rng.integers(1, 400)), low, high), int(rng.choice([32, 31, 7, 64]))
        same(slow_histogram_counts(x, low, high, bins), comp.histogram_counts(x, low, high, bins))


def check_linspace_float32(comp, tries=20):
    rng = np.random.default_rng(SEED)
    for _ in range(tries):
        (low, high), count = ranges(rng), int(rng.integers(2, 200))
        same(rounded(slow_linspace(*exact([low, high]), count)), comp.linspace_float32(low, high, count))


def check_rescaled_histogram(comp, tries=20):
    rng = np.random.default_rng(SEED)
    for i in range(tries):
        histogram, low, high = histograms(rng, int(rng.choice([16, 20, 33])))
        growth = F(10.0 ** rng.integers(-3, 4))
        new_low, new_high = low - growth * (i % 3 > 0), high + growth * (i % 3 < 2)
        same(slow_rescaled_histogram(histogram, low, high, new_low, new_high), comp.rescaled_histogram(histogram, low, high, new_low, new_high))


def check_sum_float32(comp, tries=20):
    rng = np.random.default_rng(SEED)
    for size in (1, 5, 7, 8, 9, 31, 33, 63, 500, 511, 513, 543, 1100, 2048)[:tries]:
        x = (rng.lognormal(0, 3, size) * rng.choice([-1, 1, 1], size)).astype(np.float32)
        same(rounded([slow_sum(exact(x))])[0], comp.sum_float32(x))


def check_search_bins(comp, tries=20):
    rng = np.random.default_rng(SEED)
    moved = 0
    for _ in range(tries):
        histogram, low, high = histograms(rng, int(rng.choice([40, 64, 100])))
        ref = slow_search_bins(histogram, low, high, 256)
        assert comp.search_bins(histogram, low, high, 256) == ref
        moved += ref != (0, histogram.size - 1)
    assert moved > tries // 4, "the data must make the search move"


def check_quantization_error(comp, tries=20):
    rng = np.random.default_rng(SEED)
    for _ in range(tries):
        histogram, low, high = histograms(rng, int(rng.choice([16, 33, 64])))
        start, end = sorted(rng.choice(histogram.size, 2, replace=False))
        ref = float(slow_quantization_error(histogram, low, high, 256, int(start), int(end)))
        assert comp.quantization_error(histogram, low, high, 256, int(start), int(end)) == ref


CHECKS = {name[len("check_") :]: check for name, check in list(globals().items()) if name.startswith("check_")}


@pytest.mark.parametrize("name", CHECKS)
def test_reference_is_the_witness(name):
    CHECKS[name](reference)


@pytest.mark.parametrize("name", kernels.__all__)
def test_kernels_are_the_witness(name):
    CHECKS[name](kernels)


@pytest.mark.parametrize("name", kernels.__all__)
def test_kernels_have_the_signatures_of_the_reference(name):
    assert inspect.signature(getattr(kernels, name)) == inspect.signature(getattr(reference, name))


def test_kernels_are_the_reference_at_full_size():
    rng = np.random.default_rng(SEED)
    for _ in range(40):
        histogram, low, high = histograms(rng, 2048)
        growth = F(10.0 ** rng.integers(-3, 4))
        x = batches(rng, 5000, low, high)
        for bins in (2048, 100):
            same(reference.histogram_counts(x, low, high, bins), kernels.histogram_counts(x, low, high, bins))
        ends = low, high, low - growth, high + growth
        same(reference.rescaled_histogram(histogram, *ends), kernels.rescaled_histogram(histogram, *ends))
        for levels in (256, 65536):
            assert reference.search_bins(histogram, low, high, levels) == kernels.search_bins(histogram, low, high, levels)


def test_unsorted_edges_are_searched_as_in_torch():
    """Among subnormal numbers the rounded edges go back by some in the middle."""
    histogram = np.ones(2048, np.float32)
    tiny = np.finfo(np.float32).smallest_subnormal
    low, high, new_high = F(0), F(700) * tiny, F(1900) * tiny
    edges = reference.linspace_float32(low, new_high, 2049)
    assert (np.diff(edges) < 0).any()
    same(reference.rescaled_histogram(histogram, low, high, low, new_high), kernels.rescaled_histogram(histogram, low, high, low, new_high))


def test_equal_errors_do_not_stop_the_search():
    """In a range without width every error is 0, and the search goes on to the end."""
    histogram = np.float32([1, 1, 5, 1, 1, 1])
    ref = slow_search_bins(histogram, F(3), F(3), 256)
    for comp in (reference, kernels):
        assert comp.search_bins(histogram, F(3), F(3), 256) == ref
    assert Faulty("search_bins", "error > least", "error >= least").search_bins(histogram, F(3), F(3), 256) != ref


@pytest.mark.parametrize("scale", [1e-42, 1e-38, 1e-20, 1e20, 1e34])
def test_kernels_are_the_reference_where_errors_under_and_overflow(scale):
    rng = np.random.default_rng(SEED)
    histogram, _, _ = histograms(rng, 2048)
    histogram = np.round(histogram)
    low, high = F(-scale), F(2 * scale)
    assert reference.search_bins(histogram, low, high, 256) == kernels.search_bins(histogram, low, high, 256)


def test_step_of_is_the_clipped_floor_division():
    rng = np.random.default_rng(SEED)
    for top in (255, 65535):
        step = rng.uniform(1e-3, 10, 3000).astype(np.float32)
        near = (rng.integers(-3, top + 5, 3000) * step).astype(np.float32)
        for value in (near, np.nextafter(near, F(np.inf)), np.nextafter(near, F(-np.inf))):
            ref = np.clip(reference.floor_divide_float32(value, step), F(0), F(top))
            comp = np.array([kernels._step_of(v, s, F(top)) for v, s in zip(value, step)], np.float32)
            same(ref + F(0), comp + F(0))
        assert (np.floor(near / step) != reference.floor_divide_float32(near, step)).any(), "the data must tell it from a plain floor"


def test_results_do_not_depend_on_threads():
    x = np.random.default_rng(SEED).normal(size=600_001).astype(np.float32)
    threads, results = get_num_threads(), []
    try:
        for n in (1, 2, 3, 5):
            set_num_threads(n)
            results.append(kernels.histogram_counts(x, x.min(), x.max(), 2048))
    finally:
        set_num_threads(threads)
    for comp in results[1:]:
        same(results[0], comp)


# Planted faults: each is one plausible slip in the reference, and the check of that function finds it.

FAULTS = [
    ("histogram_counts", "np.minimum(place, bins - 1)", "np.minimum(place + 1, bins - 1)"),
    ("histogram_counts", "_F(bins) / (last - first)", "(_F(bins) / (last - first))"),
    ("histogram_counts", "(x - first) * _F(bins)", "(x.astype(float) - first) * bins"),
    ("histogram_counts", ".astype(np.int64)", ".__add__(_F(1e-6)).astype(np.int64)"),
    ("linspace_float32", "i < count // 2", "i <= count"),
    ("linspace_float32", "fma32(step, i, start)", "step * i + start"),
    ("linspace_float32", "fma32(-step, _F(count - 1) - i, end)", "end - step * (_F(count - 1) - i)"),
    ("rescaled_histogram", "+ _F(0.5) * part", ""),
    ("rescaled_histogram", "np.zeros(bins, np.float32)", "np.zeros(bins)"),
    ("rescaled_histogram", "_edges_not_above(edges, centres) - 1", "_edges_not_above(edges, centres)"),
    ("rescaled_histogram", "UPSAMPLE", "8"),
    ("sum_float32", "lanes = 8 if", "lanes = 16 if"),
    ("sum_float32", "sums[0] + sums[1] + sums[2] + sums[3]", "sums.sum(axis=0, dtype=float).astype(_F)"),
    ("quantization_error", "floor_divide_float32(bin_begin, step)", "np.floor(bin_begin / step + _F(1e-6))"),
    ("quantization_error", "(last - first - _F(1))", "(last - first)"),
    ("quantization_error", "end - start + 1", "end - start"),
    ("quantization_error", "float(sum_float32(norm))", "float(norm.sum(dtype=float))"),
    ("search_bins", "left - start > end - right", "left - start >= end - right"),
    ("search_bins", "1e-5", "1e-4"),
    ("search_bins", "if error > least:\n            break", "if False:\n            break"),
    ("search_bins", "else:\n            new_start, new_end, beta = start, right, next_beta", "else:\n            new_start, new_end, beta = start, right + 1, next_beta"),
]


class Faulty:
    """The reference with one line changed in one function."""

    def __init__(self, name, right, wrong):
        source = inspect.getsource(getattr(reference, name))
        assert right in source, f"{name} no longer contains {right!r}"
        scope = dict(vars(reference))
        exec(source.replace(right, wrong), scope)  # noqa: S102
        self.__dict__.update({n: scope[n] for n in reference.__all__})


@pytest.mark.parametrize("name, right, wrong", FAULTS)
def test_a_planted_fault_is_found(name, right, wrong):
    CHECKS[name](Faulty(name, right, right), 2)
    with pytest.raises((AssertionError, IndexError)):
        CHECKS[name](Faulty(name, right, wrong))
