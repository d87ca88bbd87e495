"""Elementwise operators, pools and concatenation on codes of ONNX Runtime's own domain.

Each has two readings: ONNX Runtime's kernels (``rules.kernels == "mlas"``), and the plain expansion "dequantize, compute in float32,
quantize" for every other profile.
"""

import numpy as np

from refquant import ops
from refquant.core.affine import dequantize_codes, quantize_real
from refquant.core.qtensor import QTensor
from refquant.interop.onnx import activations, pooling
from refquant.interop.onnx.call import axis_of, broadcast_size, need
from refquant.interop.onnx.integer_products import tensor_params
from refquant.ops.lookup import code_table, take_codes
from refquant.ops.where import chosen_codes

__all__ = [
    "qlinear_add", "qlinear_mul", "qlinear_where", "qlinear_concat", "qlinear_sigmoid", "qlinear_leaky_relu", "qlinear_global_average_pool",
    "qlinear_average_pool", "nhwc_max_pool", "quantized",
]  # fmt: skip


def quantized(call, real, out, *, inside=False):
    """Quantize float32 by the profile's form; `inside` adds the zero point before rounding."""
    form = call.profile.quantize
    return quantize_real(
        real, out.scale, out.zero_point, out.qmin, out.qmax, scaling=form.scaling, add="before" if inside else form.zero_point, rounding=form.rounding,
        overflow=form.overflow, nan=form.nan,
    )  # fmt: skip


def _real(call, codes, q):
    return dequantize_codes(codes, q.scale, q.zero_point, call.profile.dequantize.formula)


def _operands(call, a, a_scale, a_zero_point, b, b_scale, b_zero_point, c_scale, c_zero_point):
    for name, v in (("a", a), ("b", b)):
        need(call, v.dtype == a.dtype and v.dtype in (np.uint8, np.int8), f"{name} is {v.dtype}", "give uint8 or int8, both alike")
    qa, qb = tensor_params(call, "a", a_scale, a_zero_point, a.dtype), tensor_params(call, "b", b_scale, b_zero_point, b.dtype)
    return qa, qb, tensor_params(call, "c", c_scale, c_zero_point, a.dtype)


def _pair(call, operator, a, b, out, qa, qb):
    broadcast_size(call.place, a, b)
    return operator(QTensor(a, qa), QTensor(b, qb), out=out, numerics=call.profile).values


def qlinear_add(call, a, a_scale, a_zero_point, b, b_scale, b_zero_point, c_scale, c_zero_point=None):
    """``QLinearAdd``, see `refquant.ops.add`."""
    qa, qb, qc = _operands(call, a, a_scale, a_zero_point, b, b_scale, b_zero_point, c_scale, c_zero_point)
    return _pair(call, ops.add, a, b, qc, qa, qb)


def qlinear_mul(call, a, a_scale, a_zero_point, b, b_scale, b_zero_point, c_scale, c_zero_point=None):
    """``QLinearMul``, see `refquant.ops.mul`."""
    qa, qb, qc = _operands(call, a, a_scale, a_zero_point, b, b_scale, b_zero_point, c_scale, c_zero_point)
    return _pair(call, ops.mul, a, b, qc, qa, qb)


def qlinear_where(call, condition, x, x_scale, x_zero_point, y, y_scale, y_zero_point, z_scale, z_zero_point):
    """``QLinearWhere``, see `refquant.ops.where`."""
    qx, qy, qz = _operands(call, x, x_scale, x_zero_point, y, y_scale, y_zero_point, z_scale, z_zero_point)
    broadcast_size(call.place, condition, x, y)
    return chosen_codes(condition, QTensor(x, qx), QTensor(y, qy), out=qz, numerics=call.profile).values


def _table(call, x, qx, qy, function):
    """Apply a float32 function to codes by a table of its 256 results."""
    table = code_table(lambda codes: quantized(call, function(_real(call, codes, qx)), qy), x.dtype, qy.storage)
    return take_codes(table, np.ascontiguousarray(x)).reshape(x.shape)


def _unary(call, x, x_scale, x_zero_point, y_scale, y_zero_point, function):
    need(call, x.dtype in (np.uint8, np.int8), f"x is {x.dtype}", "give uint8 or int8")
    qx = tensor_params(call, "x", x_scale, x_zero_point, x.dtype)
    return _table(call, x, qx, tensor_params(call, "y", y_scale, y_zero_point, x.dtype), function)


def qlinear_sigmoid(call, x, x_scale, x_zero_point, y_scale, y_zero_point=None):
    """``QLinearSigmoid``: a table of dequantize, sigmoid, quantize."""
    return _unary(call, x, x_scale, x_zero_point, y_scale, y_zero_point, lambda d: activations.sigmoid(call, d))


def qlinear_leaky_relu(call, x, x_scale, x_zero_point, y_scale, y_zero_point=None):
    """``QLinearLeakyRelu``: a table of dequantize, leaky ReLU, quantize."""
    return _unary(call, x, x_scale, x_zero_point, y_scale, y_zero_point, lambda d: activations.leaky_relu(call, d))


def qlinear_concat(call, y_scale, y_zero_point, *parts):
    """``QLinearConcat``: each input requantized, then joined."""
    need(call, parts and len(parts) % 3 == 0, f"has {len(parts)} inputs after the output's parameters but needs three for each tensor")
    out = tensor_params(call, "y", y_scale, y_zero_point, y_zero_point.dtype)
    xs = [QTensor(x, tensor_params(call, "x", s, z, x.dtype)) for x, s, z in zip(parts[::3], parts[1::3], parts[2::3])]
    axis = axis_of(call, call.require("axis"), xs[0].ndim)
    return np.ascontiguousarray(ops.cat(xs, axis, out=out, numerics=call.profile).values)


def _channels_first(call, x):
    last = bool(call.get("channels_last", 0))
    back = (lambda y: np.ascontiguousarray(np.moveaxis(y, 1, -1))) if last else np.ascontiguousarray
    return np.ascontiguousarray(np.moveaxis(x, -1, 1)) if last else x, back


def qlinear_global_average_pool(call, x, x_scale, x_zero_point, y_scale, y_zero_point):
    """``QLinearGlobalAveragePool``: the integer sum of every channel, scaled once."""
    qx, qy = tensor_params(call, "x", x_scale, x_zero_point, x.dtype), tensor_params(call, "y", y_scale, y_zero_point, x.dtype)
    x, back = _channels_first(call, x)
    need(call, x.ndim >= 3, f"x has shape {x.shape} but must be (N, C, ...)")
    flat = QTensor(x.reshape(*x.shape[:2], 1, -1), qx)
    y = ops.global_avg_pool2d(flat, out=qy, numerics=call.profile).values
    return back(y.reshape(*x.shape[:2], *[1] * (x.ndim - 2)))


def qlinear_average_pool(call, x, x_scale, x_zero_point, y_scale, y_zero_point=None):
    """``QLinearAveragePool``: dequantized, summed in float32 in order, divided, quantized; ONNX Runtime adds the zero point before rounding."""
    qx, qy = tensor_params(call, "x", x_scale, x_zero_point, x.dtype), tensor_params(call, "y", y_scale, y_zero_point, x.dtype)
    x, back = _channels_first(call, x)
    mean = pooling.average_pool(call, _real(call, x, qx))
    return back(quantized(call, mean, qy, inside=call.rules.kernels == "mlas").astype(qy.storage))


def nhwc_max_pool(call, x):
    """``NhwcMaxPool``: `max_pool` with channels as the last axis."""
    x, back = _channels_first(call._replace(attrs={"channels_last": 1}), x)
    return back(pooling.max_pool(call, x))
