"""QLinearSoftmax of ONNX Runtime's own domain."""

import numpy as np

from refquant import ops
from refquant.core.affine import dequantize_codes
from refquant.core.qtensor import QTensor
from refquant.interop.onnx import activations
from refquant.interop.onnx.call import axis_of, need, rows_and_columns
from refquant.interop.onnx.integer_products import tensor_params
from refquant.interop.onnx.microsoft_elementwise import quantized

__all__ = ["qlinear_softmax"]


def qlinear_softmax(call, x, x_scale, x_zero_point, y_scale, y_zero_point):
    """``QLinearSoftmax`` along one axis, or (``opset`` below 13) over all axes from one on."""
    need(call, x.dtype in (np.uint8, np.int8), f"x is {x.dtype}", "give uint8 or int8")
    qx, qy = tensor_params(call, "x", x_scale, x_zero_point, x.dtype), tensor_params(call, "y", y_scale, y_zero_point, x.dtype)
    if not x.size:
        return x
    if call.require("opset") < 13:
        rows = x.reshape(rows_and_columns(call, call.get("axis", 1), x.shape))
        return _softmax(call, rows, -1, qx, qy).reshape(x.shape)
    return _softmax(call, x, axis_of(call, call.get("axis", -1), x.ndim), qx, qy)


def _softmax(call, x, axis, qx, qy):
    if call.rules.kernels == "mlas":
        return ops.softmax(QTensor(x, qx), axis, out=qy, numerics=call.profile).values
    real = dequantize_codes(x, qx.scale, qx.zero_point, call.profile.dequantize.formula)
    return quantized(call, activations.softmax(call._replace(attrs={"axis": axis}), real), qy).astype(qy.storage)
