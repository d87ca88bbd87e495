"""Operators: slow witness = NumPy reference = kernels, bit for bit, on near-tie and extreme data."""

import copy
import pickle
from fractions import Fraction

import numpy as np
import pytest
import witness

import refquant as rq
from refquant import numerics
from refquant.core.layout import is_channels_last, to_channels_last
from refquant.errors import ArgumentError, RangeError, RefquantError, ShapeError, UnsupportedError
from refquant.ops import OPS
from refquant.ops.avg_pool import bind_global_avg_pool2d, global_avg_pool2d

PROFILES = ("fbgemm", "onednn", "x86", "onnx", "onnxruntime")


def bits(q):
    return q.values if isinstance(q, rq.QTensor) else q.view(np.int32)


def same(comp, ref):
    """Raise unless dtype, shape and every bit agree."""
    comp, ref = bits(comp), bits(ref)
    assert comp.dtype == ref.dtype and comp.shape == ref.shape
    np.testing.assert_array_equal(comp, ref)


def near_tie_scales(rng, channels=None):
    """Scales for which (sx·sw)/sy is 2**-5 or a few ulp beside it: odd multiples of 16 sit on or beside a tie."""
    sx, sy = (float(v) for v in np.float32(rng.uniform(0.01, 0.1, 2)))
    if rng.random() < 0.5:
        sx = 0.03125
    sw = np.float32(sy / 32 / sx) * np.ones(channels or 1, np.float32)
    step = rng.integers(-2, 3, sw.shape)
    sw = (sw.view(np.int32) + step.astype(np.int32)).view(np.float32)
    return sx, (sw.astype(np.float64) if channels else float(sw[0])), sy


def codes(rng, shape, dtype):
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


def linear_problem(seed, *, per_channel, bias, k=9, m=13, oc=7, symmetric=True, zero=None):
    rng = np.random.default_rng(seed)
    sx, sw, sy = near_tie_scales(rng, oc if per_channel else None)
    zx = int(rng.integers(0, 256)) if zero is None else zero
    zw = 0 if symmetric else int(rng.integers(-128, 128))
    x = rq.QTensor(codes(rng, (m, k), np.uint8), rq.QParams(sx, zx, "uint8"))
    w = rq.QTensor(codes(rng, (oc, k), np.int8), rq.QParams(sw, np.full(oc, zw) if per_channel else zw, "int8", axis=0 if per_channel else None))
    b = (rng.standard_normal(oc) * sy * 20).astype(np.float32) if bias else None
    out = rq.QParams(sy, int(rng.choice([0, 1, 77, 128, 255])), "uint8")
    return x, w, b, out


def slow_linear(profile, x, w, b, out, relu, kind="linear"):
    formula = witness.PRODUCTS[kind, profile]
    sw = np.broadcast_to(w.qparams.scale, (w.shape[0],))
    zw = np.broadcast_to(w.qparams.zero_point, (w.shape[0],))
    y = np.empty((x.shape[0], w.shape[0]), out.storage)
    for i in range(x.shape[0]):
        for j in range(w.shape[0]):
            acc = witness.dot(x.values[i].tolist(), w.values[j].tolist(), x.qparams.zero_point, int(zw[j]))
            bias = None if b is None else Fraction(float(b[j]))
            y[i, j] = formula(
                acc, Fraction(x.qparams.scale), Fraction(float(sw[j])), Fraction(out.scale), out.zero_point, bias, w.qparams.per_channel, relu, 0, 255
            )  # fmt: skip
    return y


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("profile", PROFILES)
def test_linear_three_witnesses(profile, bias, per_channel, activation):
    for seed in range(3):
        x, w, b, out = linear_problem(seed, per_channel=per_channel, bias=bias)
        comp = rq.ops.linear(x, w, b, out=out, numerics=profile, activation=activation)
        same(comp, rq.ops.OPS[[o.name for o in OPS].index("linear")].reference(x, w, b, out=out, numerics=profile, activation=activation))
        np.testing.assert_array_equal(comp.values, slow_linear(profile, x, w, b, out, activation == "relu"))


def test_the_near_tie_data_separate_the_engines():
    results = {}
    for profile in ("fbgemm", "onednn", "onnxruntime", "onnx"):
        ys = []
        for seed in range(60):
            x, w, b, out = linear_problem(seed, per_channel=True, bias=True, m=3000, oc=16)
            ys.append(rq.ops.linear(x, w, b, out=out, numerics=profile).values.tobytes())
        results[profile] = b"".join(ys)
    assert len(set(results.values())) == 4


@pytest.mark.parametrize("profile", PROFILES)
def test_linear_shapes_and_strides(profile):
    rng = np.random.default_rng(5)
    reference = {o.name: o.reference for o in OPS}["linear"]
    for m, k, oc in [(1, 1, 1), (0, 3, 2), (2, 0, 3), (3, 5, 0), (5, 64, 65), (7, 67, 17), (1, 130, 3)]:
        x, w, b, out = linear_problem(rng.integers(1000), per_channel=True, bias=True, k=k, m=m, oc=oc) if oc else (
            rq.QTensor(np.zeros((m, k), np.uint8), rq.QParams(1.0, 3, "uint8")), rq.QTensor(np.zeros((0, k), np.int8), rq.QParams(1.0, 0, "int8")), None, rq.QParams(1.0, 0, "uint8"))
        y = rq.ops.linear(x, w, b, out=out, numerics=profile)
        same(y, reference(x, w, b, out=out, numerics=profile))
        packed = rq.ops.pack_weights(w)
        same(rq.ops.linear(x, packed, b, out=out, numerics=profile), y)
    x, w, b, out = linear_problem(1, per_channel=False, bias=False, k=12, m=10, symmetric=False)
    wide = rq.QTensor(np.asfortranarray(x.values), x.qparams)
    frozen = x.values.copy()
    frozen.flags.writeable = False
    ref = reference(x, w, b, out=out, numerics=profile)
    for values in (wide.values, frozen, np.repeat(x.values, 2, axis=1)[:, ::2]):
        same(rq.ops.linear(rq.QTensor(values, x.qparams), w, b, out=out, numerics=profile), ref)
    stacked = rq.QTensor(x.values.reshape(2, 5, 12), x.qparams)
    assert rq.ops.linear(stacked, w, out=out, numerics=profile).shape == (2, 5, 7)


@pytest.mark.parametrize("profile", PROFILES)
def test_linear_int8_activations_and_int32_bias(profile):
    rng = np.random.default_rng(9)
    reference = {o.name: o.reference for o in OPS}["linear"]
    x = rq.QTensor(codes(rng, (6, 33), np.int8), rq.QParams(0.02, -7, "int8"))
    w = rq.QTensor(codes(rng, (5, 33), np.int8), rq.QParams(0.01, 0, "int8"))
    bias = rng.integers(-(2**31), 2**31, 5).astype(np.int32)
    out = rq.QParams(0.5, -128, "int8")
    same(rq.ops.linear(x, w, bias, out=out, numerics=profile), reference(x, w, bias, out=out, numerics=profile))


@pytest.mark.parametrize("profile", PROFILES)
def test_linear_float_output(profile):
    reference = {o.name: o.reference for o in OPS}["linear"]
    for seed in range(4):
        x, w, b, _ = linear_problem(seed, per_channel=bool(seed % 2), bias=seed > 1, m=40)
        for activation in (None, "relu"):
            y = rq.ops.linear(x, w, b, numerics=profile, activation=activation)
            assert y.dtype == np.float32
            same(y, reference(x, w, b, numerics=profile, activation=activation))


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


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("per_channel", [False, True])
def test_quantize_witnesses(profile, per_channel):
    rng = np.random.default_rng(2)
    channels = 4
    scale = np.float32(rng.uniform(0.01, 0.2, channels)).astype(np.float64)
    zero = np.array([0, 7, 128, 255])
    qp = rq.QParams(scale, zero, "uint8", axis=0) if per_channel else rq.QParams(float(scale[1]), 7, "uint8")
    ties = (np.arange(-300, 301) + np.float32(0.5)).astype(np.float32)
    x = np.stack([ties * np.float32(s) for s in scale])
    x = np.concatenate([x, np.nextafter(x, np.float32(np.inf)), np.nextafter(x, np.float32(-np.inf))], axis=1)
    comp = rq.quantize(x, qp, numerics=profile)
    same(comp, {o.name: o.reference for o in OPS}["quantize"](x, qp, numerics=profile))
    formula = witness.QUANTIZE[profile][per_channel]
    s, z = np.broadcast_to(qp.scale, (channels,)), np.broadcast_to(qp.zero_point, (channels,))
    ref = [[formula(Fraction(float(v)), Fraction(float(s[c])), int(z[c]), 0, 255) for v in x[c]] for c in range(channels)]
    np.testing.assert_array_equal(comp.values, np.array(ref, np.uint8))


def test_quantize_specials():
    x = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45], np.float32)
    qp = rq.QParams(0.1, 128, "uint8")
    assert rq.quantize(x, qp, numerics="fbgemm").values.tolist() == [255, 255, 0, 255, 0, 128]
    assert rq.quantize(x, qp, numerics="onnxruntime").values.tolist() == [0, 255, 0, 255, 0, 128]


def test_quantize_and_fake_quantize_differ_on_ties():
    x, qp = np.float32([0.5, 1.5, 2.5]), rq.QParams(1.0, 1, "uint8")
    assert rq.dequantize(rq.quantize(x, qp, numerics="fbgemm"), numerics="fbgemm").tolist() == [1, 1, 3]
    assert rq.fake_quantize(x, qp, numerics="fbgemm").tolist() == [0, 2, 2]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("activation", [None, "relu"])
def test_add_three_witnesses(profile, activation):
    rng = np.random.default_rng(4)
    a = rq.QTensor(codes(rng, (133,), np.uint8), rq.QParams(0.03125, 3, "uint8"))
    b = rq.QTensor(codes(rng, (133,), np.uint8), rq.QParams(0.046875, 129, "uint8"))
    out = rq.QParams(0.0625, 77, "uint8")
    comp = rq.ops.add(a, b, out=out, numerics=profile, activation=activation)
    same(comp, {o.name: o.reference for o in OPS}["add"](a, b, out=out, numerics=profile, activation=activation))
    body, tail = witness.ADD[profile]
    for i, (u, v) in enumerate(zip(a.values.tolist(), b.values.tolist())):
        formula = body if i < 128 else tail
        ref = formula(u, v, Fraction(0.03125), 3, Fraction(0.046875), 129, Fraction(0.0625), 77, activation == "relu", 0, 255)
        assert comp.values[i] == ref, i


@pytest.mark.parametrize("profile", PROFILES)
def test_add_table_is_the_reference(profile):
    rng = np.random.default_rng(6)
    shape = (2, 5, 170, 171)
    a = rq.QTensor(to_channels_last(codes(rng, shape, np.int8)), rq.QParams(0.05, 3, "int8"))
    b = rq.QTensor(to_channels_last(codes(rng, shape, np.int8)), rq.QParams(0.03, -9, "int8"))
    out = rq.QParams(0.07, 5, "int8")
    for threads in (1, 3):
        comp = rq.ops.add(a, b, out=out, numerics=profile, threads=threads)
        same(comp, {o.name: o.reference for o in OPS}["add"](a, b, out=out, numerics=profile, threads=threads))
        assert is_channels_last(comp.values)


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


def test_matmul_integer_wraps_and_saturates():
    a, b = np.full((2, 70000), 255, np.uint8), np.full((70000, 1), 127, np.int8)
    exact = witness.wrap32(255 * 127 * 70000)
    assert rq.ops.matmul_integer(a, b)[:, 0].tolist() == [exact, exact]
    rng = np.random.default_rng(3)
    for m, k, n in [(1, 1, 1), (3, 5, 4), (4, 64, 33), (5, 131, 7)]:
        for da in (np.uint8, np.int8):
            for db in (np.uint8, np.int8):
                a, b = codes(rng, (m, k), da), codes(rng, (k, n), db)
                zb = codes(rng, (n,), db)
                ref = np.array([[witness.dot(r, c, int(a[0, 0]), int(z)) for c, z in zip(b.T.tolist(), zb)] for r in a.tolist()], np.int32)
                same(rq.ops.matmul_integer(a, b, a_zero_point=int(a[0, 0]), b_zero_point=zb), ref)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda x, w, o: rq.ops.linear(x.values, w, out=o), ArgumentError, "QTensor"),
        (lambda x, w, o: rq.ops.linear(x, rq.QTensor(w.values[:, :-1], w.qparams), out=o), ShapeError, r"w has K=8 but x has K=9"),
        (lambda x, w, o: rq.ops.linear(x, w, np.zeros(3), out=o), ShapeError, "bias"),
        (lambda x, w, o: rq.ops.linear(x, w, out=o, activation="rleu"), ArgumentError, "did you mean 'relu'"),
        (lambda x, w, o: rq.ops.linear(x, w, out=o, numerics="fbgem"), ArgumentError, "did you mean 'fbgemm'"),
        (lambda x, w, o: rq.ops.linear(x, w, out=0.5), ArgumentError, "out"),
        (lambda x, w, o: rq.ops.conv2d(x, w, out=o), ShapeError, "dimensions"),
        (lambda x, w, o: rq.ops.add(x, w, out=o), ShapeError, "equal"),
        (lambda x, w, o: rq.quantize([1, 2], o), ArgumentError, "real numbers"),
        (lambda x, w, o: rq.dequantize(x.values), ArgumentError, "QTensor"),
        (lambda x, w, o: rq.ops.max_pool2d(x, 2), ShapeError, "N, C, H, W"),
        (lambda x, w, o: rq.ops.cat([], out=o), ArgumentError, "empty"),
        (lambda x, w, o: rq.ops.matmul_integer(x.values.astype(np.int32), w.values), ArgumentError, "uint8 or int8"),
    ],
)
def test_bad_arguments_are_refused(call, error, words):
    x, w, _, out = linear_problem(0, per_channel=False, bias=False)
    with pytest.raises(error, match=words):
        call(x, w, out)


@pytest.mark.parametrize("name, value", [("stride", 0), ("padding", -1), ("dilation", 1.5), ("stride", (1, 2, 3))])
def test_bad_geometry_is_refused(name, value):
    x, w, bias, out, kw = conv_problem(0, **CONVS[0])
    with pytest.raises((RangeError, ArgumentError), match=name):
        rq.ops.conv2d(x, w, bias, **{**kw, name: value}, out=out)


def test_what_an_engine_does_not_offer_is_said():
    x, w, bias, out, kw = conv_problem(0, **CONVS[0])
    with pytest.raises(UnsupportedError, match="no such operation"):
        rq.ops.conv2d(x, w, bias, **kw, numerics="fbgemm")


def test_a_profile_of_your_own():
    x, w, b, out = linear_problem(0, per_channel=True, bias=False, m=900)
    mine = rq.numerics.get("fbgemm").replace(rounding="half_away")
    assert mine.conv.rounding == mine.quantize.rounding == "half_away"
    assert np.any(rq.ops.linear(x, w, b, out=out, numerics=mine).values != rq.ops.linear(x, w, b, out=out, numerics="fbgemm").values)
    with pytest.raises(ArgumentError, match="half_even"):
        rq.numerics.get("fbgemm").replace(rounding="half_odd")
    with pytest.raises(ArgumentError, match="rounding"):
        rq.numerics.get("fbgemm").replace(roundign="half_away")
    assert rq.numerics.get("x86").replace(conv={"vnni": False}).conv.vnni is False


@pytest.mark.parametrize("arithmetic", ["float32", "float64", "fixed_gemmlowp", "fixed_half_up"])
@pytest.mark.parametrize("rounding", list(rq.Round))
@pytest.mark.parametrize("multiplier", ["(xw)/y", "(xw)*(1/y)", "x*(w/y)", "x,w,1/y", "(xw),1/y", "x,w,/y", "(xw),/y", "double", "f64(xw)/y"])
def test_every_form_has_a_fast_path(arithmetic, rounding, multiplier):
    x, w, b, out = linear_problem(7, per_channel=True, bias=True, m=37, oc=19)
    reference = {o.name: o.reference for o in OPS}["linear"]
    for bias in ("before", "after", "int32", "int32_reciprocal"):
        mine = rq.numerics.get("fbgemm").replace(linear=dict(arithmetic=arithmetic, rounding=rounding, multiplier=multiplier, bias=bias))
        same(rq.ops.linear(x, w, b, out=out, numerics=mine), reference(x, w, b, out=out, numerics=mine))


def test_a_sum_of_one_element_swaps_its_operands_in_onnx_runtime():
    a, b, out = rq.QParams(0.02534690499305725, -106, "int8"), rq.QParams(0.035809919238090515, -120, "int8"), rq.QParams(0.0365859717130661, -105, "int8")
    codes = [rq.ops.add(rq.QTensor(np.full(n, -114, np.int8), a), rq.QTensor(np.full(n, -122, np.int8), b), out=out, numerics="onnxruntime") for n in (1, 2)]
    assert [y.values.tolist() for y in codes] == [[-112], [-113, -113]]


def test_matmul_integer_writes_where_it_is_told():
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 256, (2, 3, 7)).astype(np.uint8), rng.integers(-128, 128, (7, 5)).astype(np.int8)
    out = np.full((2, 3, 5), 7, np.int32)
    for isa in (None, "avx2"):
        out[...] = 7
        assert rq.ops.matmul_integer(a, b, isa=isa, out=out) is out
        same(out, rq.ops.matmul_integer_reference(a, b, isa=isa))
    frozen = out.copy()
    frozen.setflags(write=False)
    bad = [np.empty((2, 3, 4), np.int32), np.empty((2, 3, 5), np.int64), out.transpose(0, 2, 1).copy().transpose(0, 2, 1), frozen, [[0]]]
    for wrong in bad:
        with pytest.raises(ArgumentError, match=r"np.empty\(\(2, 3, 5\), np.int32\)"):
            rq.ops.matmul_integer(a, b, out=wrong)
    memory = np.zeros(4 * 4 * 4, np.uint8)
    with pytest.raises(ArgumentError, match="shares memory"):
        rq.ops.matmul_integer(memory.reshape(16, 4)[:4], np.ones((4, 4), np.int8), out=memory.view(np.int32).reshape(4, 4))


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


def test_packed_weights_are_copied_by_packing_anew():
    """Also those of a model that has run: a process that reads them may have another processor."""
    rng = np.random.default_rng(0)
    w = rq.QTensor(rng.integers(-128, 128, (6, 4, 3, 3)).astype(np.int8), rq.QParams(np.full(6, 0.02), np.zeros(6, int), "int8", axis=0))
    x, out = rq.QTensor(rng.integers(0, 256, (1, 8, 7, 7)).astype(np.uint8), rq.QParams(0.1, 3, "uint8")), rq.QParams(0.3, 5, "uint8")
    packed = rq.ops.pack_weights(w, groups=2)
    compute = lambda p: rq.ops.conv2d(x, p, groups=2, out=out, numerics="x86")  # noqa: E731
    ref = compute(packed)
    for copied in (pickle.loads(pickle.dumps(packed)), copy.deepcopy(packed)):
        assert copied is not packed and copied.groups == 2
        same(compute(copied), ref)
    plain = copy.deepcopy(rq.ops.pack_weights(np.eye(5, dtype=np.int8)))
    assert np.array_equal(rq.ops.matmul_integer(np.ones((2, 5), np.uint8), plain), np.ones((2, 5), np.int32))
