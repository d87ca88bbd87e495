"""Convolutions and pools: slow witness = NumPy reference = kernels, bit for bit; and what is refused."""

from fractions import Fraction

import numpy as np
import pytest
import witness
from op_problems import PROFILES, codes, near_tie_scales, same

import refquant as rq
from refquant import numerics
from refquant.core.layout import is_channels_last, to_channels_last
from refquant.errors import ArgumentError, RangeError, RefquantError, UnsupportedError
from refquant.ops import OPS
from refquant.ops.avg_pool import bind_global_avg_pool2d, global_avg_pool2d

CONVS = [
    dict(n=1, ic=3, oc=8, side=7, k=3, stride=2, padding=1),
    dict(n=2, ic=5, oc=9, side=6, k=1),
    dict(n=1, ic=8, oc=8, side=9, k=3, padding=2, dilation=2),
    dict(n=1, ic=8, oc=16, side=5, k=3, padding=1, groups=8),
    dict(n=1, ic=16, oc=16, side=6, k=5, padding=2, groups=16, stride=2),
    dict(n=1, ic=12, oc=8, side=5, k=3, groups=4),
    dict(n=1, ic=10, oc=10, side=5, k=3, padding=1, groups=10),
]


def conv_problem(seed, n, ic, oc, side, k, stride=1, padding=0, dilation=1, groups=1, per_channel=True):
    rng = np.random.default_rng(seed)
    sx, sw, sy = near_tie_scales(rng, oc if per_channel else None)
    x = rq.QTensor(codes(rng, (n, ic, side, side), np.uint8), rq.QParams(sx, int(rng.integers(0, 256)), "uint8"))
    w = rq.QTensor(codes(rng, (oc, ic // groups, k, k), np.int8), rq.QParams(sw, np.zeros(oc, int) if per_channel else 0, "int8", axis=0 if per_channel else None))
    bias = (rng.standard_normal(oc) * sy * 20).astype(np.float32)
    return x, w, bias, rq.QParams(sy, int(rng.choice([0, 77, 128, 255])), "uint8"), dict(stride=stride, padding=padding, dilation=dilation, groups=groups)


def slow_accumulators(x, w, stride, padding, dilation, groups, pairs):
    n, ic, height, width = x.shape
    oc, icg, kh, kw = w.shape
    zx = x.qparams.zero_point
    size = lambda m, k: (m + 2 * padding - dilation * (k - 1) - 1) // stride + 1  # noqa: E731
    acc = np.zeros((n, oc, size(height, kh), size(width, kw)), object)
    for b, o, i, j in np.ndindex(acc.shape):
        first = o // (oc // groups) * icg
        taps = []
        for c in range(icg):
            for u in range(kh):
                for v in range(kw):
                    r, s = i * stride + u * dilation - padding, j * stride + v * dilation - padding
                    inside = 0 <= r < height and 0 <= s < width
                    taps.append((int(x.values[b, first + c, r, s]) if inside else zx, int(w.values[o, c, u, v])))
        if pairs:
            products = [a * q for a, q in taps]
            total = sum(witness.sat16(sum(products[t : t + 2])) if t + 1 < len(products) else products[t] for t in range(0, len(products), 2))
            acc[b, o, i, j] = witness.wrap32(total - zx * sum(q for _, q in taps))
        else:
            acc[b, o, i, j] = witness.wrap32(sum((a - zx) * q for a, q in taps))
    return acc


@pytest.mark.parametrize("geometry", CONVS, ids=lambda g: f"ic{g['ic']}oc{g['oc']}k{g['k']}g{g.get('groups', 1)}")
@pytest.mark.parametrize("profile", PROFILES)
def test_conv2d_three_witnesses(profile, geometry):
    for per_channel in (True, False):
        x, w, bias, out, kw = conv_problem(3, **geometry, per_channel=per_channel)
        comp = rq.ops.conv2d(x, w, bias, **kw, out=out, numerics=profile, activation="relu")
        reference = {o.name: o.reference for o in OPS}["conv2d"]
        same(comp, reference(x, w, bias, **kw, out=out, numerics=profile, activation="relu"))
        last = rq.QTensor(to_channels_last(x.values), x.qparams)
        same(rq.ops.conv2d(last, rq.ops.pack_weights(w, groups=kw["groups"]), bias, **kw, out=out, numerics=profile, activation="relu"), comp)
        assert is_channels_last(comp.values)
        depthwise = kw["groups"] == x.shape[1] and x.shape[1] % 8 == 0 and profile == "fbgemm"
        acc = slow_accumulators(x, w, **kw, pairs=depthwise)
        sw = np.broadcast_to(w.qparams.scale, (w.shape[0],))
        for index in np.ndindex(acc.shape):
            o = index[1]
            ref = witness.PRODUCTS["conv", profile](
                acc[index], Fraction(x.qparams.scale), Fraction(float(sw[o])), Fraction(out.scale), out.zero_point, Fraction(float(bias[o])), per_channel, True, 0, 255
            )  # fmt: skip
            assert comp.values[index] == ref, index


def test_depthwise_pairs_saturate_only_in_fbgemm():
    x = rq.QTensor(np.full((1, 8, 3, 3), 255, np.uint8), rq.QParams(1.0, 0, "uint8"))
    w = rq.QTensor(np.full((8, 1, 3, 3), 127, np.int8), rq.QParams(1.0, 0, "int8"))
    out = rq.QParams(2000.0, 0, "uint8")
    answers = {p: int(rq.ops.conv2d(x, w, padding=1, groups=8, out=out, numerics=p).values[0, 0, 1, 1]) for p in PROFILES}
    assert answers == {"fbgemm": 82, "onednn": 146, "x86": 146, "onnx": 146, "onnxruntime": 146}


def test_x86_dispatch():
    reference = {o.name: o.reference for o in OPS}["conv2d"]
    x, w, bias, out, kw = conv_problem(11, n=1, ic=104, oc=104, side=4, k=3, padding=1, groups=104)
    same(reference(x, w, bias, **kw, out=out, numerics="x86"), reference(x, w, bias, **kw, out=out, numerics="fbgemm"))
    odd = rq.QTensor(w.values, rq.QParams(w.qparams.scale, np.ones(104, int), "int8", axis=0))
    x2, w2, b2, out2, kw2 = conv_problem(12, n=1, ic=4, oc=6, side=5, k=3)
    shifted = rq.QTensor(w2.values, rq.QParams(w2.qparams.scale, np.ones(6, int), "int8", axis=0))
    for weight in (w2, shifted):
        expected = "onednn" if weight is w2 else "fbgemm"
        same(rq.ops.conv2d(x2, weight, b2, **kw2, out=out2, numerics="x86"), rq.ops.conv2d(x2, weight, b2, **kw2, out=out2, numerics=expected))
    assert odd.qparams.zero_point[0] == 1


def slow_windows(x, k, s, p):
    n, c, h, w = x.shape
    oh, ow = (h + 2 * p - k) // s + 1, (w + 2 * p - k) // s + 1
    for b, ch, i, j in np.ndindex(n, c, oh, ow):
        rows = [r for r in range(i * s - p, i * s - p + k) if 0 <= r < h]
        columns = [q for q in range(j * s - p, j * s - p + k) if 0 <= q < w]
        yield (b, ch, i, j), [int(x[b, ch, r, q]) for r in rows for q in columns]


@pytest.mark.parametrize("last", [False, True])
def test_avg_pool_witness(last):
    rng = np.random.default_rng(8)
    values = codes(rng, (2, 19, 7, 7), np.uint8)
    x = rq.QTensor(to_channels_last(values) if last else values, rq.QParams(0.1, 77, "uint8"))
    f = witness.f
    for profile in ("fbgemm", "onnxruntime"):
        y = rq.ops.avg_pool2d(x, 3, 2, 1, numerics=profile)
        for index, window in slow_windows(values, 3, 2, 1):
            total = sum(window) - len(window) * 77
            m = f(f(1) / 9)
            if profile == "onnxruntime":
                real = Fraction(0)
                for q in window:
                    real = f(real + f(f(Fraction(0.1)) * (q - 77)))
                ref = witness.half_even(f(f(f(real / 9) / f(Fraction(0.1))) + 77))
            elif not last:
                ref = witness.half_even(f(f(f(total) * m) + 77))
            elif index[1] < 16:
                ref = witness.half_even(f(f(total) * m)) + 77
            else:
                ref = witness.half_even(f(f(f(total) * f(1 / f(1 / m))) + 77))
            assert y.values[index] == witness.clip(ref, 0, 255), (profile, index)


def test_max_pool_witness():
    rng = np.random.default_rng(1)
    for dtype in (np.uint8, np.int8):
        values = codes(rng, (1, 3, 8, 8), dtype)
        x = rq.QTensor(values, rq.QParams(0.1, 0, dtype))
        y = rq.ops.max_pool2d(x, 3, 2, 1)
        for index, window in slow_windows(values, 3, 2, 1):
            assert y.values[index] == max(window)
        same(rq.ops.max_pool2d(rq.QTensor(to_channels_last(values), x.qparams), 3, 2, 1), y)


@pytest.mark.parametrize("name, value", [("stride", 0), ("padding", -1), ("dilation", 1.5), ("stride", (1, 2, 3))])
def test_bad_geometry_is_refused(name, value):
    x, w, bias, out, kw = conv_problem(0, **CONVS[0])
    with pytest.raises((RangeError, ArgumentError), match=name):
        rq.ops.conv2d(x, w, bias, **{**kw, name: value}, out=out)


def test_what_an_engine_does_not_offer_is_said():
    x, w, bias, out, kw = conv_problem(0, **CONVS[0])
    with pytest.raises(UnsupportedError, match="no such operation"):
        rq.ops.conv2d(x, w, bias, **kw, numerics="fbgemm")


@pytest.mark.parametrize("name", numerics.names())
def test_a_global_mean_by_a_table_of_sums(name):
    """What a model runs with: the same bits, strides and parameters, or no table, as where codes are added one after the other in float32."""
    rng, bound = np.random.default_rng(0), 0
    for last in (False, True):
        for shape in ((2, 16, 7, 7), (1, 64, 1, 1), (1, 33, 3, 5), (1, 64, 8, 8)):
            codes = rng.integers(0, 256, shape).astype(np.uint8)
            codes[0, 0], codes[0, 1] = 255, 0
            codes = to_channels_last(codes) if last else codes
            x = rq.QTensor(codes, rq.QParams(0.013, 7, "uint8"))
            try:
                ref = global_avg_pool2d(x, numerics=name)
            except RefquantError:
                continue
            run = bind_global_avg_pool2d(x, numerics=name)
            formula = getattr(numerics.get(name).adaptive_avg_pool, "channels_last" if last else "contiguous", None)
            assert not (run and formula in ("sequential", "spec"))
            if run:
                comp, bound = run(x), bound + 1
                assert np.array_equal(comp.values, ref.values) and comp.values.strides == ref.values.strides and comp.qparams == ref.qparams
    assert bound or name not in ("fbgemm", "onednn", "x86", "qnnpack")
