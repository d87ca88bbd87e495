"""QLinearSoftmax of ONNX Runtime's own domain."""

import math

import numpy as np

from refquant.core.affine import dequantize_codes
from refquant.core.rounding import Round, round_real
from refquant.core.wrap import saturate
from refquant.interop.onnx import activations
from refquant.interop.onnx.call import axis_of, need, rows_and_columns
from refquant.interop.onnx.integer_products import tensor_params
from refquant.interop.onnx.microsoft_elementwise import quantized

__all__ = ["qlinear_softmax"]

_F = np.float32


def qlinear_softmax(call, x, x_scale, x_zero_point, y_scale, y_zero_point):
    """``QLinearSoftmax`` along one axis, or (``opset`` below 13) over all axes from one on."""
    need(call, x.dtype in (np.uint8, np.int8), f"x is {x.dtype}", "give uint8 or int8")
    qx, qy = tensor_params(call, "x", x_scale, x_zero_point, x.dtype), tensor_params(call, "y", y_scale, y_zero_point, x.dtype)
    if not x.size:
        return x
    if call.require("opset") < 13:
        return _rows(call, x.reshape(rows_and_columns(call, call.get("axis", 1), x.shape)), qx, qy).reshape(x.shape)
    axis = axis_of(call, call.get("axis", -1), x.ndim)
    moved = np.moveaxis(x, axis, -1)
    y = _rows(call, moved.reshape(-1, x.shape[axis]), qx, qy).reshape(moved.shape)
    return np.ascontiguousarray(np.moveaxis(y, -1, axis))


def _rows(call, x, qx, qy):
    if call.rules.kernels == "mlas":
        return _mlas(x, qx, qy)
    real = dequantize_codes(x, qx.scale, qx.zero_point, call.profile.dequantize.formula)
    return quantized(call, activations.softmax(call._replace(attrs={"axis": -1}), real), qy).astype(qy.storage)


def _mlas(x, qx, qy):
    """Exponentials from a table of 256, summed in order in float32; the output scale enters as ``floor(1 / y_scale)``.

    Product and quotient are double (measured on 1.32; older sources have float32, which differs on ties).

    Source
    ------
    onnxruntime/contrib_ops/cpu/quantization/qlinear_softmax.cc, QlinearBuildLookupTableUint32 and QlinearSoftmaxCPU.
    """
    table = _exponentials(qx.scale, x.shape[1])
    steps = np.floor(_F(1) / _F(qy.scale))
    position = x.astype(np.int64) - x.max(1, keepdims=True).astype(np.int64) + 255
    e = table[position]
    total = np.add.accumulate(e, axis=1, dtype=_F)[:, -1:]
    codes = round_real(e.astype(np.float64) * steps / total, Round.HALF_EVEN).astype(np.int64) + qy.zero_point
    return saturate(codes, qy.qmin, qy.qmax).astype(qy.storage)


def _exponentials(scale, length):
    """Return ``exp((i - 255 + shift) * scale)`` of i = 0 … 255, shifted up as far as a float32 sum of `length` allows."""
    room = float(_F(math.log(float(np.finfo(_F).max / _F(length)))))
    shift = max(0.0, room - 5) / float(_F(scale))
    return np.array([math.exp((i - 255 + shift) * float(_F(scale))) for i in range(256)]).astype(_F)
