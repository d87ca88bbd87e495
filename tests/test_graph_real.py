"""Float32 operators against exact rationals: every rounding stands where the order of summation says."""

from fractions import Fraction

import numpy as np
import pytest
from witness import f

from refquant.core.layout import is_channels_last, to_channels_last
from refquant.errors import ArgumentError, RangeError, ShapeError
from refquant.ops import real
from refquant.ops.real.conv import reduce_block_1x1
from refquant.ops.real.linear import _segments


def draw(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def exact(value):
    return Fraction(float(value))


def chain(taps, start):
    """Fused multiply-adds one after the other: exact product and sum, rounded once."""
    total = start
    for a, b in taps:
        total = f(exact(a) * exact(b) + total)
    return total


def segmented(taps, bias, cuts, bias_first):
    """((S0 + bias) + S1) + …, each from +0; or the first from the bias."""
    parts = [taps[i:j] for i, j in zip(cuts, cuts[1:])]
    if bias_first:
        total = chain(parts[0], exact(bias))
        parts = parts[1:]
    else:
        total = exact(bias)
    for part in parts:
        total = f(chain(part, Fraction(0)) + total)
    return total


def rational_sum(taps, bias):
    return f(sum((exact(a) * exact(b) for a, b in taps), exact(bias)))


def window(x, n, row, column, kernel, stride, padding):
    """The pixels that one output sees, zero outside: a function of (channel, i, j)."""

    def at(c, i, j):
        r, s = row * stride + i - padding, column * stride + j - padding
        return x[n, c, r, s] if 0 <= r < x.shape[2] and 0 <= s < x.shape[3] else np.float32(0)

    return at


CONVS = [
    # ic, oc, size, kernel, stride, padding, groups
    (3, 5, 4, 3, 1, 1, 1),
    (20, 4, 4, 3, 2, 1, 1),
    (35, 3, 3, 1, 1, 0, 1),
    (6, 6, 4, 3, 1, 1, 6),
    (8, 4, 3, 3, 1, 1, 2),
    (5, 3, 4, 1, 2, 0, 1),
    (5, 3, 5, 1, 2, 0, 1),
]


@pytest.mark.parametrize("ic, oc, size, kernel, stride, padding, groups", CONVS)
def test_conv2d_sums_in_the_stated_order(ic, oc, size, kernel, stride, padding, groups):
    x, w, bias = draw(1, 1, ic, size, size), draw(2, oc, ic // groups, kernel, kernel), draw(3, oc)
    options = {"stride": stride, "padding": padding, "groups": groups}
    ours, portable = real.conv2d(x, w, bias, **options), real.conv2d(x, w, bias, order="float64", **options)
    depthwise, per = groups == ic == oc, ic // groups
    pointwise = kernel == 1 and groups == 1 and size % stride == 0
    for (_, o, row, column), y in np.ndenumerate(ours):
        at, first = window(x, 0, row, column, kernel, stride, padding), o // (oc // groups) * per
        places = [(i, j) for i in range(kernel) for j in range(kernel)]
        if depthwise or pointwise:
            taps = [(at(first + c, i, j), w[o, c, i, j]) for i, j in places for c in range(per)]
            expected = segmented(taps, bias[o], [0, len(taps)], True)
        else:
            blocks = [range(b, min(per, b + 16)) for b in range(0, per, 16)]
            taps = [(at(first + c, i, j), w[o, c, i, j]) for block in blocks for i, j in places for c in block]
            expected = segmented(taps, bias[o], [*range(0, len(taps), 16 * kernel * kernel), len(taps)], False)
        assert exact(y) == expected
        assert exact(portable[0, o, row, column]) == rational_sum(taps, bias[o])


@pytest.mark.parametrize("k, oc", [(7, 12), (200, 13), (5, 14), (390, 12)])
def test_linear_sums_in_the_stated_order(k, oc):
    x, w, bias = draw(1, 2, k), draw(2, oc, k), draw(3, oc)
    ours, portable = real.linear(x, w, bias), real.linear(x, w, bias, order="float64")
    for (m, o), y in np.ndenumerate(ours):
        taps = list(zip(x[m], w[o]))
        assert exact(y) == segmented(taps, bias[o], _segments(k), False)
        assert exact(portable[m, o]) == rational_sum(taps, bias[o])


def test_linear_with_few_outputs_uses_lanes():
    x, w, bias = draw(1, 1, 16), draw(2, 6, 16), draw(3, 6)
    ours = real.linear(x, w, bias)
    for o in range(6):
        lanes = 4 if o < 4 else 8
        sums = [Fraction(0)] * lanes
        for t in range(16):
            sums[t % lanes] = f(sums[t % lanes] + f(exact(x[0, t]) * exact(w[o, t])))
        while len(sums) > 1:
            half = len(sums) // 2
            sums = [f(sums[i] + sums[i + half]) for i in range(half)]
        assert exact(ours[0, o]) == f(sums[0] + exact(bias[o]))


def test_segments_and_blocks_follow_the_libraries():
    assert _segments(192) == [0, 192] and _segments(385) == [0, 192, 384, 385] and _segments(301) == [0, 150, 300, 301]
    assert reduce_block_1x1(64, 64, 8, 8) == 64 and reduce_block_1x1(600, 64, 7, 7) == 256


def test_batch_norm_rounds_where_torch_rounds():
    x, mean, weight, bias = draw(1, 2, 3, 2), draw(2, 3), draw(3, 3), draw(4, 3)
    var = np.abs(draw(5, 3)) + np.float32(0.1)
    y = real.batch_norm(x, mean, var, weight, bias)
    for (n, c, t), value in np.ndenumerate(y):
        scale = weight[c] * (np.float32(1) / np.sqrt(var[c] + np.float32(1e-5)))
        shift = f(exact(-mean[c]) * exact(scale) + exact(bias[c]))
        assert exact(value) == f(exact(x[n, c, t]) * exact(scale) + shift)


def test_folding_keeps_the_function():
    x, w, bias = draw(1, 2, 3, 5, 5), draw(2, 4, 3, 3, 3), draw(3, 4)
    mean, var, gamma, beta = draw(4, 4), np.abs(draw(5, 4)) + np.float32(0.1), draw(6, 4), draw(7, 4)
    separate = real.batch_norm(real.conv2d(x, w, bias), mean, var, gamma, beta)
    folded = real.conv2d(x, *real.fold_conv_bn(w, bias, mean, var, gamma, beta, 1e-5))
    assert np.abs(separate - folded).max() < 1e-4
    flat = draw(8, 4, 3)
    separate = real.batch_norm(real.linear(draw(9, 5, 3), flat, bias), mean, var, gamma, beta)
    folded = real.linear(draw(9, 5, 3), *real.fold_linear_bn(flat, bias, mean, var, gamma, beta, 1e-5))
    assert np.abs(separate - folded).max() < 1e-4


@pytest.mark.parametrize("pixels", [1, 2, 3, 4, 6, 7, 8, 9, 33, 49, 64, 100])
def test_global_average(pixels):
    x = draw(pixels, 2, 3, 1, pixels)
    for order in ("torch_avx512", "inductor", "float64"):
        y = real.adaptive_avg_pool2d(x, 1, order=order)
        mean = x.astype(np.float64).mean((2, 3), keepdims=True)
        assert np.abs(y - mean).max() < 1e-6
    for (n, c), value in np.ndenumerate(y[:, :, 0, 0]):
        assert exact(value) == f(Fraction(float(x[n, c].astype(np.float64).sum() / pixels)))


def test_pools():
    x = draw(1, 2, 3, 7, 7)
    x[0, 0, 0, 0] = np.nan
    y = real.max_pool2d(x, 3, 2, 1, ceil_mode=True)
    assert y.shape == (2, 3, 4, 4) and np.isnan(y[0, 0, 0, 0]) and y[1, 1, 1, 1] == x[1, 1, 1:4, 1:4].max()
    a = real.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
    taps = [exact(v) for v in x[1, 2, 0:2, 0:2].ravel()]
    assert exact(a[1, 2, 0, 0]) == f(f(f(f(taps[0] + taps[1]) + taps[2]) + taps[3]) / 4)


def test_the_memory_format_is_handed_on():
    x = draw(1, 2, 4, 6, 6)
    last = to_channels_last(x)
    w, vectors = draw(2, 4, 4, 3, 3), [np.abs(draw(k, 4)) for k in range(4)]
    for call in (
        real.relu,
        lambda v: real.add(v, v, "relu"),
        lambda v: real.cat([v, v]),
        lambda v: real.conv2d(v, w),
        lambda v: real.batch_norm(v, *vectors),
        lambda v: real.max_pool2d(v, 2),
        lambda v: real.avg_pool2d(v, 2),
        lambda v: real.adaptive_avg_pool2d(v, 1),
        lambda v: real.adaptive_avg_pool2d(v, 2),
    ):
        a, b = call(x), call(last)
        assert np.array_equal(a, b) and is_channels_last(b) and a.flags.c_contiguous
    assert not is_channels_last(real.cat([x, last]))


def test_results_do_not_depend_on_threads():
    import refquant as rq

    x, w = draw(1, 5, 20, 9, 9), draw(2, 8, 20, 3, 3)
    before = rq.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            rq.set_num_threads(threads)
            results.append((real.conv2d(x, w), real.linear(draw(3, 300, 40), draw(4, 20, 40))))
    finally:
        rq.set_num_threads(before)
    assert all(np.array_equal(a, b) for a, b in zip(*results))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: real.conv2d(draw(0, 1, 3, 4, 4), draw(0, 2, 4, 3, 3)), ShapeError, "IC must be 4"),
        (lambda: real.conv2d(draw(0, 3, 4, 4), draw(0, 2, 3, 3, 3)), ShapeError, r"must be \(N, IC, H, W\)"),
        (lambda: real.conv2d(draw(0, 1, 3, 2, 2), draw(0, 2, 3, 3, 3)), ShapeError, "larger than the padded input"),
        (lambda: real.conv2d(draw(0, 1, 3, 4, 4).astype(np.float64), draw(0, 2, 3, 3, 3)), ArgumentError, "x has dtype float64 but must be float32"),
        (lambda: real.conv2d(draw(0, 1, 3, 4, 4), draw(0, 2, 3, 3, 3), draw(0, 3)), ShapeError, "2 output channels"),
        (lambda: real.conv2d(draw(0, 1, 3, 4, 4), draw(0, 2, 3, 3, 3), stride=0), RangeError, "stride=0"),
        (lambda: real.conv2d(draw(0, 1, 3, 4, 4), draw(0, 2, 3, 3, 3), order="float32"), ArgumentError, "order='float32'"),
        (lambda: real.conv1d(draw(0, 1, 3, 4, 4), draw(0, 2, 3, 3)), ShapeError, r"must be \(N, IC, W\)"),
        (lambda: real.linear(draw(0, 1, 3), draw(0, 2, 4)), ShapeError, r"x \(\.\.\., K\)"),
        (lambda: real.add(draw(0, 1, 3), draw(0, 1, 4)), ShapeError, "must be equal"),
        (lambda: real.cat([]), ArgumentError, "tensors is empty"),
        (lambda: real.cat([draw(0, 1, 3), draw(0, 2, 3)]), ShapeError, "all other axes must agree"),
        (lambda: real.batch_norm(draw(0, 1, 3), *[draw(0, 4)] * 4), ShapeError, r"must be \(3,\)"),
        (lambda: real.avg_pool2d(draw(0, 1, 1, 4, 4), 2, divisor_override=0), RangeError, "must not be zero"),
        (lambda: real.adaptive_avg_pool2d(draw(0, 1, 3), 1), ShapeError, r"must be \(N, C, H, W\)"),
        (lambda: real.flatten(draw(0, 1, 3), 5), ShapeError, "start_dim=5"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_empty_batches_have_empty_results():
    assert real.conv2d(draw(0, 0, 3, 4, 4), draw(0, 2, 3, 3, 3)).shape == (0, 2, 2, 2)
    assert real.linear(draw(0, 0, 3), draw(0, 2, 3)).shape == (0, 2)
    assert real.flatten(draw(0, 0, 3, 2)).shape == (0, 6)


@pytest.mark.parametrize("name, side", [("digits_resnet", 8), ("digits_mobilenet", 8), ("glyphs_net", 32)])
def test_a_batch_of_none_gives_none(name, side):
    from refquant import zoo

    (y,) = zoo.load(name)(np.zeros((0, 1, side, side), np.float32))
    assert y.shape[0] == 0 and y.dtype == np.float32
