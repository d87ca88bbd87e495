"""Operators that few engines have: what their cases do not show, and live PyTorch where no runner asks it."""

from fractions import Fraction

import numpy as np
import pytest

import refquant as rq
from refquant.errors import ArgumentError, RangeError, ShapeError, UnsupportedError

U8 = rq.QParams(0.5, 10, "uint8")


def tensor(shape, qparams=U8, seed=0):
    codes = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8).view(qparams.storage)
    return rq.QTensor(codes, qparams)


@pytest.mark.parametrize("kind", ["linear", "conv"])
@pytest.mark.parametrize("profile", ["fbgemm", "onednn", "qnnpack", "onnxruntime", "tflite_ref"])
def test_sums_become_the_codes_of_the_layer(profile, kind):
    rng = np.random.default_rng(3)
    x = rq.QTensor(rng.integers(-128, 128, (40, 33)).astype(np.int8), rq.QParams(0.05, 3, "int8"))
    w = rq.QTensor(rng.integers(-128, 128, (7, 33)).astype(np.int8), rq.QParams(rng.uniform(0.01, 0.02, 7), np.zeros(7, int), "int8", axis=0))
    out, bias = rq.QParams(0.3, -5, "int8"), rng.integers(-3000, 3000, 7).astype(np.int32)
    acc = rq.ops.matmul_integer(x.values, w.values.T, a_zero_point=3)
    if kind == "linear":
        layer = rq.ops.linear(x, w, bias, out=out, numerics=profile, activation="relu").values
    else:
        image, kernel = rq.QTensor(x.values[..., None, None], x.qparams), rq.QTensor(w.values[..., None, None], w.qparams)
        layer = rq.ops.conv2d(image, kernel, bias, out=out, numerics=profile, activation="relu").values[:, :, 0, 0]
    comp = rq.ops.requantize_sums(acc, x.qparams, w.qparams, bias, out=out, numerics=profile, activation="relu", kind=kind)
    np.testing.assert_array_equal(comp.values, layer)
    reference = next(op.reference for op in rq.ops.OPS if op.name == "requantize_sums")
    np.testing.assert_array_equal(reference(acc, x.qparams, w.qparams, bias, out=out, numerics=profile, activation="relu", kind=kind).values, layer)


def rne(v):
    """Round a fraction half to even."""
    low = v.numerator // v.denominator
    rest = v - low
    return low + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and low % 2))


def f32(v):
    return Fraction(float(np.float32(float(v))))


def test_clamp_witness():
    """Limits by fractions: product and zero point rounded apart, ties to even."""
    x = tensor((512,))
    for low, high in ((-1.25, 3.75), (0.25, 0.75), (-200.0, 1e30), (2.0, -2.0)):
        codes = [min(max(rne(f32(f32(Fraction(v) * 2) + 10)), 0), 255) for v in (low, high)]
        ref = [min(max(int(q), codes[0]), codes[1]) for q in x.values]
        assert rq.ops.clamp(x, low, high).values.tolist() == ref


def test_add_scalar_moves_the_zero_point_or_the_scale():
    x = tensor((300,))
    near = rq.ops.add_scalar(x, 4.75)
    assert near.qparams == rq.QParams(0.5, 0, "uint8") and np.array_equal(near.values, x.values)
    far = rq.ops.add_scalar(x, 5.25)
    # 10.5 scales are 10, half to even.
    assert far.qparams == near.qparams and np.array_equal(far.values, x.values)
    beyond = rq.ops.add_scalar(x, 6.0, activation="relu")
    assert beyond.qparams.scale == 257 / 255 * 0.5 and beyond.qparams.zero_point == 0
    with pytest.raises(RangeError, match="finite"):
        rq.ops.add_scalar(x, np.nan)
    with pytest.raises(RangeError, match=r"2\*\*31"):
        rq.ops.add_scalar(x, 1e12)


def test_memory_formats_and_frozen_arrays_change_no_bit():
    x = tensor((2, 6, 5, 4))
    last = rq.QTensor(np.ascontiguousarray(np.moveaxis(x.values, 1, -1)).transpose(0, 3, 1, 2), x.qparams)
    frozen = rq.QTensor(x.values.copy(), x.qparams)
    frozen.values.flags.writeable = False
    strided = rq.QTensor(np.repeat(x.values, 2, axis=3)[..., ::2], x.qparams)
    out = rq.QParams(0.3, 77, "uint8")
    mean, var = np.zeros(6, np.float32), np.ones(6, np.float32)
    calls = (
        lambda q: rq.ops.requantize(q, out=out), lambda q: rq.ops.clamp(q, 1.0, 2.0), lambda q: rq.ops.softmax(q, 1), lambda q: rq.ops.batch_norm(q, mean, var, out=out),
        lambda q: rq.ops.prelu(q, tensor((6,)), out=out), lambda q: rq.ops.layer_norm(q, (5, 4), out=out), lambda q: rq.ops.interpolate(q, 7),
    )  # fmt: skip
    for call in calls:
        ref = call(x).values
        for other in (last, frozen, strided):
            np.testing.assert_array_equal(call(other).values, ref)


def test_empty_and_single():
    none, one = tensor((0, 3)), tensor((1, 1))
    out = rq.QParams(0.3, 7, "uint8")
    assert rq.ops.requantize(none, out=out).shape == (0, 3) and rq.ops.clamp(none, 0.0).shape == (0, 3)
    assert rq.ops.layer_norm(none, (3,), out=out).shape == (0, 3)
    assert rq.ops.softmax(one).values.tolist() == [[255]]
    table = rq.ops.quantize_embedding(np.float32([[3.0]]))
    assert rq.ops.embedding_bag(table, np.array([], int), [0, 0]).tolist() == [[0.0], [0.0]]
    with pytest.raises(ShapeError, match="at least one number"):
        rq.ops.choose_qparams(np.zeros(0, np.float32))


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: rq.ops.clamp(tensor(3), np.nan, 1.0), RangeError, "must be a number"),
        (lambda: rq.ops.clamp(tensor(3)), ArgumentError, "give one of them"),
        (lambda: rq.ops.quantize_dynamic([np.inf, 1.0]), RangeError, "finite"),
        (lambda: rq.ops.choose_qparams([1.0], numerics="onnxruntime", reduce_range=True), UnsupportedError, "no such form"),
        (lambda: rq.ops.group_norm(tensor((1, 6, 4)), 4, out=U8), ShapeError, "must divide"),
        (lambda: rq.ops.layer_norm(tensor((2, 6)), (5,), out=U8), ShapeError, "last axes"),
        (lambda: rq.ops.mean(tensor((2, 6)), 2), ArgumentError, "dim=2"),
        (lambda: rq.ops.mean(tensor((4, 2, 6)), (0, 2)), UnsupportedError, "side by side in memory"),
        (lambda: rq.ops.interpolate(tensor((1, 1, 2, 2))), ArgumentError, "give one of them"),
        (lambda: rq.ops.interpolate(tensor((1, 1, 2, 2)), 4, mode="bicubic"), ArgumentError, "bilinear"),
        (lambda: rq.ops.prelu(tensor((2, 3)), tensor((2,)), out=U8), ShapeError, "2 slopes"),
        (lambda: rq.ops.embedding_bag(rq.ops.quantize_embedding(np.ones((2, 4))), [2]), RangeError, "has 2 rows"),
        (lambda: rq.ops.embedding_bag(rq.ops.quantize_embedding(np.ones((2, 4))), [1], [0, 2]), RangeError, "end at 1"),
        (lambda: rq.ops.quantize_embedding(np.ones((2, 3)), 4), ShapeError, "multiple of 2"),
        (lambda: rq.ops.requantize_sums(np.zeros((2, 3)), U8, U8, out=U8), ArgumentError, "int32"),
        (lambda: rq.ops.conv_integer(np.zeros((1, 2, 3)), np.zeros((1, 2, 3))), ArgumentError, "uint8 or int8"),
        (lambda: rq.ops.conv2d_dynamic(np.ones((1, 1, 2, 2)), None, numerics="onnxruntime"), UnsupportedError, "ConvInteger"),
        (lambda: rq.ops.threshold(tensor(3), 0.0, np.nan), RangeError, "must be a number"),
    ],
)
def test_bad_arguments_are_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.engine
@pytest.mark.parametrize("symmetric", [False, True])
def test_parameters_as_decomposed_operators_choose_them(symmetric):
    torch = pytest.importorskip("torch")
    import torch.ao.quantization.fx._decomposed  # noqa: F401, registers quantized_decomposed

    ours = torch.ops.quantized_decomposed
    call = ours.choose_qparams_symmetric.tensor if symmetric else ours.choose_qparams.tensor
    rng = np.random.default_rng(6)
    for trial in range(1500):
        dtype = ("uint8", "int8")[trial % 2]
        qmin, qmax = (0, 255) if dtype == "uint8" else (-128, 127)
        scale = float(np.exp2(rng.uniform(-28, 6)))
        x = ((rng.integers(0, 256, 5) - rng.integers(-20, 276) - 0.5) * scale).astype(np.float32)
        theirs = call(torch.from_numpy(x), qmin, qmax, 2.0**-23, getattr(torch, dtype))
        mine = rq.ops.choose_qparams(x, numerics="inductor", dtype=dtype, symmetric=symmetric)
        assert (mine.scale, mine.zero_point) == (float(theirs[0]), int(theirs[1])), x


@pytest.mark.engine
def test_fake_quantization_with_learned_parameters_is_fake_quantization():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(8)
    x = (rng.integers(-400, 400, (6, 500)) / 2 * 0.05).astype(np.float32)
    scale, zero = rng.uniform(0.02, 0.1, 6).astype(np.float32), rng.integers(0, 256, 6)
    one = torch._fake_quantize_learnable_per_tensor_affine(torch.from_numpy(x), torch.tensor([0.05]), torch.tensor([7.0]), 0, 255, 1.0).numpy()
    np.testing.assert_array_equal(rq.fake_quantize(x, rq.QParams(float(np.float32(0.05)), 7, "uint8")), one)
    each = torch._fake_quantize_learnable_per_channel_affine(
        torch.from_numpy(x), torch.from_numpy(scale), torch.from_numpy(zero.astype(np.float32)), 0, 0, 255, 1.0
    ).numpy()  # fmt: skip
    np.testing.assert_array_equal(rq.fake_quantize(x, rq.QParams(scale.astype(np.float64), zero, "uint8", axis=0)), each)


@pytest.mark.engine
def test_sleef_is_the_exponential_of_pytorchs_softmax():
    torch = pytest.importorskip("torch")
    from refquant.ops.softmax import _densest

    lanes = {"AVX512": 16, "AVX2": 8}.get(torch.backends.cpu.get_cpu_capability())
    if lanes is None:
        pytest.skip("this processor has no AVX2")
    x = (np.random.default_rng(5).standard_normal((3000, 77)) * 6).astype(np.float32)
    np.testing.assert_array_equal(_densest(x, lanes), torch.softmax(torch.from_numpy(x), 1).numpy())
    assert np.any(_densest(x, 8) != _densest(x, 16))
