"""What the tests of kernels compare with: a slow witness in Python integers and fractions, a reference in NumPy, one comparison.

The slow functions import nothing from refquant. The tests here hold the three against each other on tiny cases and show that the
comparison fails where it must.
"""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import witness

from refquant.core.epilogue import (
    BIAS,
    CLAMP,
    DST_DIV,
    DST_FMA,
    DST_MUL,
    FIXED_GEMMLOWP,
    FIXED_HALF_UP,
    FLOAT32,
    FLOAT64,
    PRE_BIAS,
    RELU,
    SCALE1,
    SCALE_FMA,
    ZERO_FLOAT,
    apply_epilogue,
    make_epilogue,
)
from refquant.core.rounding import Round

STEPS = (PRE_BIAS, SCALE1, SCALE_FMA, BIAS, RELU, DST_MUL, DST_DIV, ZERO_FLOAT, CLAMP, DST_FMA)
KINDS = (FLOAT32, FLOAT64, FIXED_GEMMLOWP, FIXED_HALF_UP)
LIMITS = {np.uint8: (0, 255), np.int8: (-128, 127), np.int32: (-(2**31), 2**31 - 1), np.float32: (-(2**31), 2**31 - 1)}


def assert_same(ref, comp, case=None):
    """Same dtype, same shape, same bits (NaN is NaN); the message counts and shows the first difference."""
    assert comp.dtype == ref.dtype, f"{case}: dtype {comp.dtype}, not {ref.dtype}"
    assert comp.shape == ref.shape, f"{case}: shape {comp.shape}, not {ref.shape}"
    bits = ref.dtype.str.replace("f", "i")
    wrong = np.ascontiguousarray(ref).view(bits) != np.ascontiguousarray(comp).view(bits)
    if ref.dtype.kind == "f":
        wrong &= ~(np.isnan(ref) & np.isnan(comp))
    if wrong.any():
        at = tuple(int(i[0]) for i in np.nonzero(wrong))
        raise AssertionError(f"{case}: {wrong.sum()} of {wrong.size} differ, first at {at}: {comp[at]!r}, not {ref[at]!r}")


# Products


def slow_gemm(a, b, a_zero, b_zero):
    """Python integers; `b_zero` is a list."""
    a, b = a.tolist(), b.tolist()
    rows = [
        [witness.wrap32(sum((x - a_zero) * (w[n] - b_zero[n]) for x, w in zip(row, b))) for n in range(len(b_zero))] for row in a
    ]
    return np.array(rows, np.int32).reshape(len(a), len(b_zero))


def ref_gemm(a, b, a_zero=0, b_zero=0):
    """NumPy: float64 BLAS, exact below 2**53."""
    product = (a.astype(np.float64) - a_zero) @ (b.astype(np.float64) - b_zero)
    return product.astype(np.int64).astype(np.int32)


def slow_conv(x, w, stride, padding, dilation, groups, x_zero, w_zero):
    """Python integers, pixel by pixel and tap by tap; `w_zero` is a list."""
    sides = zip(x.shape[2:], w.shape[2:], stride, padding, dilation)
    out = [(n + lo + hi - d * (k - 1) - 1) // s + 1 for n, k, s, (lo, hi), d in sides]
    y = np.empty((x.shape[0], w.shape[0], *out), np.int32)
    per_in, per_out = w.shape[1], w.shape[0] // groups
    for n, o, *pixel in itertools.product(*(range(v) for v in y.shape)):
        total = 0
        for c, *tap in itertools.product(*(range(v) for v in w.shape[1:])):
            at = [p * s + t * d - lo for p, s, t, d, (lo, _) in zip(pixel, stride, tap, dilation, padding)]
            if all(0 <= i < size for i, size in zip(at, x.shape[2:])):
                value = int(x[(n, o // per_out * per_in + c, *at)])
                total += (value - x_zero) * (int(w[(o, c, *tap)]) - w_zero[o])
        y[(n, o, *pixel)] = witness.wrap32(total)
    return y


def windows(x, kernel, stride, padding, dilation, fill):
    """Every tap's view of the padded input, in raster order: a list of (N, C, *out) int64."""
    padded = np.pad(x.astype(np.int64), [(0, 0), (0, 0), *padding], constant_values=fill)
    taps = []
    for tap in itertools.product(*(range(k) for k in kernel)):
        cut = []
        for n, k, s, d, t in zip(padded.shape[2:], kernel, stride, dilation, tap):
            out = (n - d * (k - 1) - 1) // s + 1
            cut.append(slice(t * d, t * d + s * (out - 1) + 1, s))
        taps.append(padded[(slice(None), slice(None), *cut)])
    return taps


def ref_conv(x, w, stride, padding, dilation, groups, x_zero=0, w_zero=0):
    """NumPy int64, tap by tap."""
    kernel = w.shape[2:]
    taps = windows(x, kernel, stride, padding, dilation, x_zero)
    centred = w.astype(np.int64) - np.reshape(np.broadcast_to(w_zero, (w.shape[0],)), (-1, *[1] * (w.ndim - 1)))
    flat = centred.reshape(groups, w.shape[0] // groups, w.shape[1], -1)
    n, _, *out = taps[0].shape
    total = np.zeros((n, groups, flat.shape[1], *out), np.int64)
    for i, view in enumerate(taps):
        grouped = view.reshape(n, groups, flat.shape[2], *out) - x_zero
        total += np.einsum("ngc...,goc->ngo...", grouped, flat[..., i])
    return total.reshape(n, w.shape[0], *out).astype(np.int32)


# The output stage


def _float32(x):
    return witness.f(x)


def _integer(v, mode):
    whole, part = divmod(v, 1)
    half = Fraction(1, 2)
    up = {
        Round.HALF_EVEN: part > half or (part == half and whole % 2 == 1),
        Round.HALF_AWAY: part > half or (part == half and v > 0),
        Round.HALF_UP: part >= half,
        Round.HALF_DOWN: part > half,
        Round.HALF_TO_ZERO: part > half or (part == half and v < 0),
        Round.TRUNCATE: part > 0 and v < 0,
        Round.FLOOR: False,
        Round.CEIL: part > 0,
    }[mode]
    whole += up
    return whole if -(2**31) <= whole < 2**31 else -(2**31)


def slow_stage(acc, n, ep, as_real):
    """One accumulator of channel `n` through a FLOAT32 form of finite numbers, in fractions."""
    number = {name: Fraction(float(getattr(ep, name))) for name in ("pre_k", "s1", "d", "zf", "lo", "hi")}
    pre_b, s2, b = (Fraction(float(getattr(ep, name)[n])) for name in ("pre_b", "s2", "b"))
    v = _float32(witness.wrap32(acc + int(ep.bias_i[n])))
    if ep.flags & PRE_BIAS:
        v = _float32(pre_b * number["pre_k"] + v)
    if ep.flags & SCALE1:
        v = _float32(v * number["s1"])
    if ep.flags & SCALE_FMA:
        v = _float32(v * s2 + b)
    else:
        v = _float32(v * s2)
        if ep.flags & BIAS:
            v = _float32(v + b)
    if ep.flags & RELU:
        v = max(v, 0)
    if as_real:
        return v
    if ep.flags & DST_FMA:
        v = _float32(v * number["d"] + number["zf"])
    if ep.flags & DST_MUL:
        v = _float32(v * number["d"])
    if ep.flags & DST_DIV:
        v = _float32(v / number["d"])
    if ep.flags & ZERO_FLOAT:
        v = _float32(v + number["zf"])
    if ep.flags & CLAMP:
        v = min(max(v, number["lo"]), number["hi"])
    return witness.clip(_integer(v, list(Round)[ep.rounding]) + ep.zi, ep.qlo, ep.qhi)


def random_form(rng, channels, dtype, *, kind=FLOAT32, flags=None, rounding=None, tame=False):
    """A random form: any steps, near-ties by powers of two, and, unless `tame`, numbers that overflow and NaN."""
    low, high = LIMITS[dtype]
    if flags is None:
        flags = sum(int(step) for step in STEPS if rng.random() < 0.4)
    zi = int(rng.integers(-9, 10)) if rng.random() < 0.6 else 0
    clamp = (low - zi, high - zi) if low > -1000 and rng.random() < 0.7 else sorted(rng.integers(-300, 300, 2))
    wild = [] if tame else [1e30, np.nan, np.inf, 1e6]
    values = np.array([0.5, 0.25, 1.5, 0.013, 1e-3, -0.5, 0.0, *wild])
    codes = (low, high) if rng.random() < 0.7 or low < -1000 else sorted(int(v) for v in rng.integers(low, high + 1, 2))
    return make_epilogue(
        channels, kind=kind, flags=flags, rounding=list(Round)[rng.integers(8)] if rounding is None else rounding,
        bias_i=rng.integers(-(2**31), 2**31, channels) if rng.random() < 0.3 else rng.integers(-9, 10, channels),
        pre_b=rng.choice([0.5, -0.25, 3.0, 1e9], channels), pre_k=rng.choice([1.0, 1.3, -2.0]), s1=rng.choice([0.5, 1.0, 0.01]),
        s2=rng.choice(values, channels), b=rng.choice([0.5, -0.5, 0.3, 0.0, -0.0], channels), d=rng.choice([0.5, 3.0, 0.01, 1.0]),
        zf=int(rng.integers(0, 9)), lo=clamp[0], hi=clamp[1], zi=zi, qlo=codes[0], qhi=codes[1],
        m64=rng.choice([0.5, 0.25, 0.01, 1e-7], channels), mult=rng.integers(-(2**31), 2**31, channels),
        shift=rng.integers(-31, 31, channels),
    )  # fmt: skip


def accumulators(rng, rows, channels):
    """Small, large and neighbouring accumulators."""
    acc = rng.integers(-(2**31), 2**31, (rows, channels)).astype(np.int32)
    acc[::3] = rng.integers(-3000, 3000, acc[::3].shape)
    acc[1::3] = np.arange(channels) - channels // 2
    return acc


# The witnesses against each other


def test_products_agree():
    rng = np.random.default_rng(0)
    for m, n, k in ((0, 2, 3), (2, 0, 3), (2, 3, 0), (1, 1, 1), (3, 4, 5)):
        a, b = rng.integers(0, 256, (m, k)).astype(np.uint8), rng.integers(-128, 128, (k, n)).astype(np.int8)
        zero = rng.integers(-128, 128, n)
        assert_same(slow_gemm(a, b, 200, zero.tolist()), ref_gemm(a, b, 200, zero))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_convolutions_agree(dims):
    rng = np.random.default_rng(dims)
    x = rng.integers(0, 256, (1, 4, *[4] * dims)).astype(np.uint8)
    w = rng.integers(-128, 128, (6, 2, *[2] * dims)).astype(np.int8)
    zero = rng.integers(-128, 128, 6)
    geometry = ((2,) * dims, ((1, 0),) * dims, (2,) * dims, 2)
    assert_same(slow_conv(x, w, *geometry, 7, zero.tolist()), ref_conv(x, w, *geometry, 7, zero))


def test_output_stages_agree():
    rng = np.random.default_rng(1)
    for case in range(120):
        dtype = (np.uint8, np.int8, np.float32)[case % 3]
        ep = random_form(rng, 5, dtype, tame=True)
        acc = accumulators(rng, 3, 5)
        slow = [[slow_stage(int(v), n, ep, dtype == np.float32) for n, v in enumerate(row)] for row in acc]
        slow = np.array([[float(v) for v in row] for row in slow]) if dtype == np.float32 else np.array(slow)
        comp = apply_epilogue(acc, ep, dtype) + dtype(0)  # a fraction has no -0.0
        assert_same(slow.astype(dtype), comp, (case, ep))


def test_the_comparison_fails_where_it_must():
    ref = np.array([1.0, np.nan, 0.0], np.float32)
    assert_same(ref, ref.copy())
    for comp in (ref.astype(np.float64), ref[:2], np.array([1, np.nan, -0.0], np.float32), np.array([1, 2, 0], np.float32)):
        with pytest.raises(AssertionError):
            assert_same(ref, comp)
    codes = np.arange(6, dtype=np.uint8)
    for comp in (codes.view(np.int8), codes.reshape(2, 3), codes ^ np.uint8(1)):
        with pytest.raises(AssertionError):
            assert_same(codes, comp)
