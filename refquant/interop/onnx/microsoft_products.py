"""Integer products of ONNX Runtime's own domain: QGemm, MatMulIntegerToFloat, DynamicQuantizeMatMul, QLinearConv in NHWC.

Where ONNX Runtime rounds, in its order: ``f32(acc) * (sa * sb) + bias``, product and sum apart; requantization as in QLinearMatMul.
"""

import numpy as np

from refquant import ops
from refquant.core.qparams import QParams
from refquant.interop.onnx.call import broadcast_size, need
from refquant.interop.onnx.integer_products import batched_linear, qlinear_conv, tensor_params
from refquant.interop.onnx.quantization import dynamic_range

__all__ = ["qgemm", "matmul_integer_to_float", "dynamic_quantize_matmul", "qlinear_conv_nhwc"]


def qgemm(call, a, a_scale, a_zero_point, b, b_scale, b_zero_point, c=None, y_scale=None, y_zero_point=None):
    """``QGemm``: codes, or float32 without an output scale; `c` is int32 in units of ``alpha * a_scale * b_scale``."""
    need(call, a.ndim == 2 and b.ndim == 2, f"factors have shapes {a.shape} and {b.shape} but must be matrices")
    a, b = a.T if call.get("transA", 0) else a, b.T if call.get("transB", 0) else b
    need(call, a.shape[1] == b.shape[0], f"factors {a.shape} and {b.shape} do not share K")
    scale = np.float32(call.get("alpha", 1.0)) * np.asarray(a_scale, np.float32).reshape(-1)
    qa = tensor_params(call, "a", scale, a_zero_point, a.dtype)
    qb = tensor_params(call, "b", b_scale, b_zero_point, b.dtype, axis=0)
    need(call, not qb.per_channel or len(qb.scale) == b.shape[1], f"b has {np.size(b_scale)} scales but {b.shape[1]} columns")
    out = None
    if y_scale is not None:
        out = tensor_params(call, "y", y_scale, y_zero_point, np.uint8 if y_zero_point is None else y_zero_point.dtype)
    return _gemm_with_addend(call, a, qa, b, qb, c, out)


def _gemm_with_addend(call, a, qa, b, qb, c, out):
    if c is None:
        return batched_linear(call, a, qa, b, qb, out)
    shape = (a.shape[0], b.shape[1])
    fits = c.dtype == np.int32 and broadcast_size(call.place, np.empty(shape, np.bool_), c) == shape
    need(call, fits, f"c is {c.dtype} {c.shape} but must be int32 and fit {shape}")
    if c.size == 1 or c.shape[-1:] == (c.size,) or (c.ndim == 2 and c.shape[0] == 1):
        return batched_linear(call, a, qa, b, qb, out, np.broadcast_to(c.reshape(-1), shape[1:]))
    rows = [batched_linear(call, a[i : i + 1], qa, b, qb, out, row) for i, row in enumerate(np.broadcast_to(c, shape))]
    return np.concatenate(rows)


def matmul_integer_to_float(call, a, b, a_scale, b_scale, a_zero_point=None, b_zero_point=None, bias=None):
    """``MatMulIntegerToFloat``: float32, with scales of `b` per tensor or per column."""
    need(call, a.ndim >= 2 and b.ndim >= 2 and a.shape[-1] == b.shape[-2], f"factors {a.shape} and {b.shape} do not share K")
    qa = tensor_params(call, "a", a_scale, a_zero_point, a.dtype)
    qb = tensor_params(call, "b", b_scale, b_zero_point, b.dtype, axis=0)
    need(call, not qb.per_channel or len(qb.scale) == b.shape[-1], f"b has {np.size(b_scale)} scales but {b.shape[-1]} columns")
    y = batched_linear(call, a, qa, b, qb, None)
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
