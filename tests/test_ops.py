"""Operators on matrices and element by element: slow witness = NumPy reference = kernels, bit for bit, on near-tie and extreme data."""

import copy
import pickle
from fractions import Fraction

import numpy as np
import pytest
import witness
from op_problems import PROFILES, codes, linear_problem, same

import refquant as rq
from refquant.core.layout import is_channels_last, to_channels_last
from refquant.errors import ArgumentError, ShapeError
from refquant.ops import OPS


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
