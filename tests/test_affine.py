"""The affine map: kernels = NumPy reference, for every form, layout and special value."""

import numpy as np
import pytest

import refquant as rq
from refquant.core.layout import to_channels_last
from refquant.numerics.forms import QuantizeForm, form_choices
from refquant.numerics import PROFILES
from refquant.ops import OPS

REFERENCE = {op.name: op.reference for op in OPS}


def hard_reals(rng, shape, scale):
    x = (rng.integers(-600, 600, shape) / 2 * scale).astype(np.float32)
    flat = x.reshape(-1)
    flat[::3] = np.nextafter(flat[::3], np.float32(np.inf))
    flat[1::3] = np.nextafter(flat[1::3], np.float32(-np.inf))
    specials = np.float32([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, -1e-45, 0.0, -0.0, 2147483520, 2147483648, -2147483648, 1e19, -1e19])
    flat[: min(len(specials), flat.size)] = specials[: flat.size]
    return x


def same(comp, ref):
    comp, ref = (q.values if isinstance(q, rq.QTensor) else q.view(np.int32) for q in (comp, ref))
    assert comp.dtype == ref.dtype and comp.shape == ref.shape and comp.strides == ref.strides
    np.testing.assert_array_equal(comp, ref)


def parameters(rng, dtype, channels, axis):
    info = np.iinfo(dtype)
    zero = rng.integers(info.min, info.max, channels, endpoint=True) if dtype != "int32" else rng.integers(-99, 99, channels)
    scale = np.float32(rng.uniform(0.01, 0.2, channels)).astype(np.float64)
    return rq.QParams(scale, zero, dtype, axis=axis) if axis is not None else rq.QParams(scale[0], int(zero[0]), dtype)


LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": to_channels_last,
    "sliced": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "fortran": np.asfortranarray,
}


@pytest.mark.parametrize("profile", [p.name for p in PROFILES])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32"])
def test_profiles(profile, dtype):
    numerics = rq.numerics.get(profile)
    rng = np.random.default_rng(1)
    for axis in (None, 0, 1, 3):
        for arrange in LAYOUTS.values():
            x = arrange(hard_reals(rng, (3, 5, 4, 7), 0.05))
            qp = parameters(rng, dtype, 1 if axis is None else x.shape[axis], axis)
            if dtype == "int32" and numerics.quantize_int32 is None:
                continue
            comp, ref = rq.quantize(x, qp, numerics=numerics), REFERENCE["quantize"](x, qp, numerics=numerics)
            np.testing.assert_array_equal(comp.values, ref.values)
            np.testing.assert_array_equal(rq.dequantize(ref, numerics=numerics).view(np.int32), REFERENCE["dequantize"](ref, numerics=numerics).view(np.int32))
            if numerics.fake_quantize is not None:
                comp, ref = (f(x, qp, numerics=numerics) for f in (rq.fake_quantize, REFERENCE["fake_quantize"]))
                np.testing.assert_array_equal(comp.view(np.int32), ref.view(np.int32))


@pytest.mark.parametrize("scaling", form_choices(QuantizeForm)["scaling"])
@pytest.mark.parametrize("zero_point", form_choices(QuantizeForm)["zero_point"])
def test_every_form(scaling, zero_point):
    rng = np.random.default_rng(2)
    x = hard_reals(rng, (2, 3, 70), 0.05)
    for i, rounding in enumerate(rq.Round):
        for j, overflow in enumerate(form_choices(QuantizeForm)["overflow"]):
            # Each form is compiled for one dtype, and each of its choices for both.
            dtype, zeros = (("uint8", (201, [3, 255, 0])), ("int8", (-71, [-3, 5, 0])))[(i + j) % 2]
            for nan in form_choices(QuantizeForm)["nan"]:
                form = QuantizeForm(scaling=scaling, zero_point=zero_point, rounding=rounding, overflow=overflow, nan=nan)
                mine = rq.numerics.get("onnx").replace(quantize=form, quantize_channel=form)
                for qp in (rq.QParams(0.05, zeros[0], dtype), rq.QParams([0.05, 0.1, 3e-39], zeros[1], dtype, axis=1)):
                    np.testing.assert_array_equal(rq.quantize(x, qp, numerics=mine).values, REFERENCE["quantize"](x, qp, numerics=mine).values)


def test_memory_format_is_kept():
    x = to_channels_last(np.ones((2, 3, 4, 5), np.float32))
    qp = rq.QParams(0.1, 3, "uint8")
    q = rq.quantize(x, qp)
    assert q.values.strides == tuple(s // 4 for s in x.strides)
    assert rq.dequantize(q).strides == x.strides and rq.fake_quantize(x, qp).strides == x.strides


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (200_003,)])
def test_sizes(shape):
    x = np.full(shape, 0.3, np.float32)
    qp = rq.QParams(0.1, 3, "uint8")
    for threads in (1, 2):
        rq.set_num_threads(threads)
        q = rq.quantize(x, qp)
        assert q.shape == shape and np.all(q.values == 6) and rq.dequantize(q).shape == shape and rq.fake_quantize(x, qp).shape == shape


def test_read_only_input():
    x = np.ones(10, np.float32)
    x.flags.writeable = False
    q = rq.quantize(x, rq.QParams(0.1, 3, "uint8"))
    q.values.flags.writeable = False
    assert rq.dequantize(q).shape == (10,)
