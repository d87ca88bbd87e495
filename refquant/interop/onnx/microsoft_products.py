"""Integer products of ONNX Runtime's own domain: QGemm, MatMulIntegerToFloat, DynamicQuantizeMatMul, QLinearConv in NHWC.

Where ONNX Runtime rounds, in its order: ``f32(acc) * (sa * sb) + bias``, product and sum apart; requantization as in QLinearMatMul.
"""

import numpy as np

from refquant import ops
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.interop.onnx.call import broadcast_size, check_size, need
from refquant.interop.onnx.integer_products import qlinear_conv, tensor_params
from refquant.interop.onnx.quantization import dynamic_range
from refquant.ops.gemm import scaled_product
from refquant.ops.matmul import product_of_stacks

__all__ = ["qgemm", "matmul_integer_to_float", "dynamic_quantize_matmul", "qlinear_conv_nhwc"]


def _factors(call, a, a_scale, a_zero_point, b, b_scale, b_zero_point, *, turned=False):
    """Return both factors as `QTensor`; of `b` each column of the product may have parameters of its own."""
    columns = b.shape[-2 if turned else -1] if b.ndim > 1 else 0
    qa = tensor_params(call, "a", a_scale, a_zero_point, a.dtype)
    qb = tensor_params(call, "b", b_scale, b_zero_point, b.dtype, axis=b.ndim - (2 if turned else 1))
    need(call, not qb.per_channel or len(qb.scale) == columns, f"b has {np.size(b_scale)} scales but {columns} columns")
    return QTensor(a, qa), QTensor(b, qb)


def qgemm(call, a, a_scale, a_zero_point, b, b_scale, b_zero_point, c=None, y_scale=None, y_zero_point=None):
    """``QGemm``, see `refquant.ops.gemm`: codes, or float32 without an output scale."""
    need(call, a.ndim == 2 and b.ndim == 2, f"factors have shapes {a.shape} and {b.shape} but must be matrices")
    turns = {"transpose_a": bool(call.get("transA", 0)), "transpose_b": bool(call.get("transB", 0))}
    qa, qb = _factors(call, a, a_scale, a_zero_point, b, b_scale, b_zero_point, turned=turns["transpose_b"])
    out = None
    if y_scale is not None:
        out = tensor_params(call, "y", y_scale, y_zero_point, np.uint8 if y_zero_point is None else y_zero_point.dtype)
    y = scaled_product(qa, qb, c, alpha=call.get("alpha", 1.0), out=out, numerics=call.profile, **turns)
    return y if out is None else y.values


def matmul_integer_to_float(call, a, b, a_scale, b_scale, a_zero_point=None, b_zero_point=None, bias=None):
    """``MatMulIntegerToFloat``, see `refquant.ops.matmul`: float32."""
    need(call, a.ndim >= 2 and b.ndim >= 2 and a.shape[-1] == b.shape[-2], f"factors {a.shape} and {b.shape} do not share K")
    qa, qb = _factors(call, a, a_scale, a_zero_point, b, b_scale, b_zero_point)
    check_size((*broadcast_size(call.place, np.empty(a.shape[:-2]), np.empty(b.shape[:-2])), a.shape[-2], b.shape[-1]), 4, call.place)
    y = product_of_stacks(qa, qb, numerics=call.profile)
    if bias is None:
        return y
    need(call, broadcast_size(call.place, y, bias) == y.shape, f"the bias {bias.shape} does not fit {y.shape}")
    return y + bias


def dynamic_quantize_matmul(call, a, b, b_scale, b_zero_point=None, bias=None):
    """``DynamicQuantizeMatMul``: `a` quantized to uint8 by its own range, then `matmul_integer_to_float`."""
    scale, zero = dynamic_range(call, a)
    q = ops.quantize(a, QParams(float(scale), zero, "uint8", unchecked=True), numerics=call.profile)
    return matmul_integer_to_float(call, q.values, b, scale, b_scale, np.uint8(zero), b_zero_point, bias)


def qlinear_conv_nhwc(call, x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, bias=None):
    """``QLinearConv`` with ``channels_last``: the same numbers with channels as the last axis."""
    last = bool(call.get("channels_last", 0))
    x = np.moveaxis(x, -1, 1) if last else x
    y = qlinear_conv(call, np.ascontiguousarray(x), x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, bias)
    return np.ascontiguousarray(np.moveaxis(y, 1, -1)) if last else y
