"""Softmax, resizing, means and slopes in integers, and sums in a stated order of float32: slow witnesses of TensorFlow Lite's, ONNX Runtime's and ATen's ways."""

from fractions import Fraction

import numpy as np
import pytest
import witness
from test_tflite_functions import away, f, gemmlowp, multiplier

import refquant as rq
from refquant.errors import UnsupportedError
from refquant.ops.real.inner_sum import eigen_sum, inner_sum

RNG = np.random.default_rng(20261130)
TOP = 2**31 - 1


def times(a, b):
    return away(Fraction(a * b, 2**31))


def shift(x, power):
    return max(-TOP - 1, min(TOP, x << power)) if power >= 0 else away(Fraction(x, 2**-power))


def exponential(a):
    """gemmlowp's exp_on_negative_values of 5 bits before the point, one number at a time."""
    if a == 0:
        return TOP
    near = (a % 2**24) - 2**24
    x = shift(near, 5) + 2**28
    x2 = times(x, x)
    x3, x4 = times(x2, x), times(x2, x2)
    y = 1895147668 + times(1895147668, x + shift(times(shift(x4, -2) + x3, 715827883) + x2, -1))
    for bit, factor in enumerate((1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242), 24):
        y = times(y, factor) if (near - a) >> bit & 1 else y
    return y


def softmax_row(codes, scale):
    mult, left = multiplier(min(f(scale) * 2**26, Fraction(TOP)))
    lowest = -int(Fraction(31 * 2**26, 2**left))
    steps = [c - max(codes) for c in codes]
    e = [exponential(times(max(-TOP - 1, d << left), mult)) if d >= lowest else None for d in steps]
    total = sum(away(Fraction(v, 2**12)) for v in e if v is not None)
    zeros = 32 - total.bit_length()
    half = ((total << zeros) - 2**31 + TOP + 1) // 2
    x = 1515870810 + times(half, -1010580540)
    for _ in range(3):
        x += shift(times(x, 2**29 - times(half, x)), 2)
    inverse = shift(x, 1)
    return [-128 if v is None else witness.clip(shift(times(inverse, v), zeros - 35) - 128, -128, 127) for v in e]


def test_the_exponential_in_integers_is_one():
    """Anchors the witness itself: it lies within 2**-21 of the real function."""
    for a in (-1, -(2**20), -(2**26), -3 * 2**25, -(2**30)):
        assert abs(exponential(a) / 2**31 - np.exp(a / 2**26)) < 2**-21


@pytest.mark.parametrize("scale", (0.004, 0.05, 0.7, 2.0**-8))
def test_softmax_in_integers(scale):
    codes = np.concatenate([RNG.integers(-128, 128, (6, 17)), RNG.integers(-128, -100, (6, 17)), np.full((1, 17), 5)]).astype(np.int8)
    x = rq.QTensor(codes, rq.QParams(scale, 3, "int8"))
    comp = rq.ops.softmax(x, numerics="tflite_ref")
    ref = [softmax_row([int(c) for c in row], scale) for row in codes]
    np.testing.assert_array_equal(comp.values, np.array(ref, np.int8))


@pytest.mark.parametrize("profile", ("tflite_opt", "xnnpack"))
def test_softmax_by_a_table(profile):
    codes = RNG.integers(-128, 128, (8, 9)).astype(np.int8)
    comp = rq.ops.softmax(rq.QTensor(codes, rq.QParams(0.03, 0, "int8")), numerics=profile).values
    for row, y in zip(codes, comp):
        e = [np.float32(np.exp(-np.float64(np.float32(0.03) * np.float32(int(max(row)) - int(c))))) for c in row]
        total = np.float32(0)
        for v in e:
            total = np.float32(total + v)
        inverse = np.float32(np.float32(1) / np.float32(total * np.float32(1 / 256)))
        assert y.tolist() == [witness.clip(away(Fraction(float(np.float32(v * inverse)))) - 128, -128, 127) for v in e]


def test_softmax_of_onnx_runtime_divides_by_whole_steps():
    """1 / 0.3 is taken for 3 steps: 0.9 times of one half is no code of 0.5."""
    x = rq.QTensor(np.array([[7, 7]], np.uint8), rq.QParams(0.1, 0, "uint8"))
    for scale, code in ((0.25, 2), (0.3, 2), (0.034, 14), (0.0333, 15)):
        assert rq.ops.softmax(x, out=rq.QParams(scale, 0, "uint8"), numerics="onnxruntime").values.tolist() == [[code, code]]
    assert rq.ops.softmax(x, out=rq.QParams(0.034, 0, "uint8"), numerics="onnx").values.tolist() == [[15, 15]]


def ten_bits(row, size):
    step = (1024 * len(row) + size // 2) // size
    y = []
    for i in range(size):
        at = i * step + step // 2 - 512
        low, high = max(at, 0) // 1024, min(max(at + 1023, 0) // 1024, len(row) - 1)
        w = at - 1024 * low
        y.append(away(Fraction(row[low] * (1024 - w) + row[high] * w, 1024)))
    return y


def test_lines_between_codes_in_ten_bits():
    for n, size in ((2, 7), (5, 3), (7, 7), (9, 20), (3, 1)):
        row = RNG.integers(-128, 128, n).astype(np.int8)
        x = rq.QTensor(row.reshape(1, 1, 1, n), rq.QParams(0.1, 3, "int8"))
        comp = rq.ops.interpolate(x, (1, size), mode="bilinear", numerics="tflite_ref").values.ravel().tolist()
        # One row: its weight is 1024 less what lies beyond the edge, which is 0 here.
        assert comp == ten_bits([int(c) for c in row], size)


def test_resize_of_codes_by_hand():
    x = rq.QTensor(np.array([[[[0, 7]]]], np.uint8), rq.QParams(1.0, 0, "uint8"))
    by = {name: rq.ops.interpolate(x, (1, 4), mode="bilinear", numerics=name).values.ravel().tolist() for name in ("tflite_ref", "xnnpack", "onnxruntime", "inductor")}
    assert by == {"tflite_ref": [0, 2, 5, 7], "xnnpack": [0, 2, 5, 7], "onnxruntime": [0, 1, 5, 7], "inductor": [0, 2, 5, 7]}
    signed = rq.QTensor(np.array([[[[0, -7]]]], np.int8), rq.QParams(1.0, 0, "int8"))
    # ONNX Runtime cuts off towards zero, XNNPACK rounds halves up.
    assert rq.ops.interpolate(signed, (1, 4), mode="bilinear", numerics="onnxruntime").values.ravel().tolist() == [0, -1, -5, -7]


@pytest.mark.parametrize("profile", ("tflite_ref", "tflite_opt", "xnnpack"))
def test_slopes_by_two_multipliers(profile):
    sx, sw, sy = f(0.02), f(0.011), f(0.013)
    codes = np.arange(-128, 128).astype(np.int8).reshape(1, -1)
    weight = rq.QTensor(np.array([37], np.int8), rq.QParams(float(sw), -5, "int8"))
    comp = rq.ops.prelu(rq.QTensor(codes, rq.QParams(float(sx), 7, "int8")), weight, out=rq.QParams(float(sy), -9, "int8"), numerics=profile)
    above, below = multiplier(f(sx / sy)), multiplier(f(f(sx * sw) / sy))
    centred = [int(c) - 7 for c in codes[0]]
    ref = [witness.clip((gemmlowp(c, *above) if c >= 0 else gemmlowp(c * 42, *below)) - 9, -128, 127) for c in centred]
    assert comp.values[0].tolist() == ref


def test_last_channels_of_a_transposed_convolution_round_otherwise():
    """A multiplier of 1/4 on the sum −10: −2.5 goes half up in whole steps of eight channels, half away in the rest."""
    x = rq.QTensor(np.array([[[[-10]]]], np.int8), rq.QParams(0.5, 0, "int8"))
    w = rq.QTensor(np.ones((1, 9, 1, 1), np.int8), rq.QParams(0.5, 0, "int8"))
    compute = lambda name: rq.ops.conv_transpose2d(x, w, out=rq.QParams(1.0, 0, "int8"), numerics=name).values.ravel().tolist()  # noqa: E731
    assert compute("tflite_opt") == [-2] * 8 + [-3]
    assert compute("tflite_ref") == [-3] * 9
    assert compute("xnnpack") == [-2] * 9


def slow_rows(x, lanes):
    """ATen's order for one row, with Python's loop and float32 sums."""
    total, n = np.float32(0), len(x)
    whole = n // lanes * lanes
    columns = []
    for lane in range(lanes):
        parts = [np.float32(0)] * 4
        steps = n // lanes
        for i in range(steps // 4 * 4):
            parts[i % 4] = np.float32(parts[i % 4] + x[i * lanes + lane])
        for i in range(steps // 4 * 4, steps):
            parts[0] = np.float32(parts[0] + x[i * lanes + lane])
        columns.append(np.float32(np.float32(np.float32(parts[0] + parts[1]) + parts[2]) + parts[3]))
    for v in [*x[whole:], *columns]:
        total = np.float32(total + v)
    return total


def test_orders_of_sums():
    for n in (8, 9, 31, 32, 45, 100, 300):
        x = (RNG.standard_normal((3, n)) * 100).astype(np.float32)
        assert inner_sum(x).tolist() == [slow_rows(row, 8) for row in x]
    # Of a row that begins where memory is aligned the second and the sixth number meet first, and survive; the third is lost beside 2**24.
    row = np.float32([[2.0**24, 1, 1, 0, 0, 1, 0, 0]])
    assert eigen_sum(row).tolist() == [2.0**24 + 2]


def test_what_an_engine_does_not_compute_is_refused():
    x = rq.QTensor(np.zeros((2, 3, 4, 5), np.int8), rq.QParams(0.1, 0, "int8"))
    out = rq.QParams(0.5, 3, "int8")
    for call in (
        lambda: rq.ops.softmax(x, 1, numerics="tflite_ref"),
        lambda: rq.ops.softmax(x, out=out, numerics="xnnpack"),
        lambda: rq.ops.softmax(rq.QTensor(x.values.view(np.uint8), rq.QParams(0.1, 0, "uint8")), numerics="tflite_opt"),
        lambda: rq.ops.interpolate(x, scale_factor=2.0, numerics="tflite_ref"),
        lambda: rq.ops.interpolate(x, (4, 4), mode="nearest-exact", numerics="onnxruntime"),
        lambda: rq.ops.interpolate(x, (100, 100), mode="bilinear", numerics="inductor"),
        lambda: rq.ops.mean(x, 1, out=out, numerics="fbgemm"),
        lambda: rq.ops.mean(x, (1, 3), numerics="inductor"),
        lambda: rq.ops.mean(x, 1, numerics="onnxruntime"),
        lambda: rq.ops.adaptive_avg_pool3d(rq.QTensor(x.values[None], x.qparams), 2, numerics="onnxruntime"),
    ):
        with pytest.raises(UnsupportedError):
            call()


def test_rows_that_a_linear_layer_quantizes_by_itself():
    """One weight of 1 and the scale 1: the layer returns what is left of the number after quantization, row by row."""
    w = rq.QTensor(np.array([[1, 0]], np.int8), rq.QParams(1.0, 0, "int8"))
    compute = lambda rows, name, **more: rq.ops.linear_dynamic(np.float32(rows), w, numerics=name, **more).ravel().tolist()  # noqa: E731
    # The range -127 … 128 has scale 1; 2.5 goes away from zero in TensorFlow Lite, to even in XNNPACK. Another row has another scale.
    rows = [[2.5, 128.0], [2.5, -127.0], [5.0, 255.0]]
    wide = np.float32(rows)
    for name, code in (("tflite_ref", 3.0), ("xnnpack", 2.0)):
        four = rq.QTensor(np.array([[1, 0, 0, 0]], np.int8), rq.QParams(1.0, 0, "int8"))
        assert rq.ops.linear_dynamic(np.float32([[2.5, 0, -127, 128]]), four, numerics=name).tolist() == [[code]]
    assert compute(wide, "tflite_ref")[2] == 5.0
    assert compute([[2.5, 127.0]], "tflite_ref", symmetric=True) == [3.0]
    assert compute([[0.0, 0.0]], "tflite_ref") == compute([[0.0, 0.0]], "xnnpack") == [0.0]


def test_what_a_layer_that_quantizes_rows_refuses():
    w = rq.QTensor(np.ones((1, 2), np.int8), rq.QParams(1.0, 0, "int8"))
    for x, more, numerics in (([[1e-38, 0]], {}, "xnnpack"), ([[1.0, 0]], {"reduce_range": True}, "tflite_ref"), ([[1.0, 0]], {"symmetric": True}, "fbgemm")):
        with pytest.raises(UnsupportedError):
            rq.ops.linear_dynamic(np.float32(x), w, numerics=numerics, **more)
    with pytest.raises(UnsupportedError, match="inside of a linear layer|no such operation"):
        rq.ops.choose_qparams([1.0], numerics="tflite_ref")
