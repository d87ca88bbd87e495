"""MatMulInteger, ConvInteger, QLinearMatMul and QLinearConv: products of codes."""

import math

import numpy as np

from refquant import ops
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.core.wrap import wrap_int32
from refquant.interop.onnx.call import broadcast_size, check_size, need
from refquant.interop.onnx.cast import real_of
from refquant.interop.onnx.windows import geometry_of, pad_spatial, window_view
from refquant.ops.matmul import product_of_stacks
from refquant.ops.pairing import saturating_level

__all__ = ["matmul_integer", "conv_integer", "qlinear_matmul", "qlinear_conv", "conv_geometry", "tensor_params"]


def tensor_params(call, name, scale, zero_point, dtype, *, axis=None):
    """Return the `QParams` of an input whose scale and zero point are separate inputs; vectors need an `axis`."""
    scale = np.float64(real_of(scale)).reshape(-1)
    zero = np.zeros(1, np.int64) if zero_point is None else np.asarray(zero_point).astype(np.int64).reshape(-1)
    if scale.size == 1 and zero.size == 1:
        return QParams(float(scale[0]), int(zero[0]), np.dtype(dtype).name, unchecked=True)
    need(call, axis is not None, f"the scale of {name} has {scale.size} entries and its zero point {zero.size}", "give one of each")
    need(call, scale.size == zero.size or 1 in (scale.size, zero.size), f"{name} has {scale.size} scales but {zero.size} zero points")
    length = max(scale.size, zero.size)
    return QParams(np.broadcast_to(scale, length), np.broadcast_to(zero, length), np.dtype(dtype).name, axis=axis, unchecked=True)


def _check_product(call, a, b):
    for name, v in (("the first factor", a), ("the second factor", b)):
        need(call, v.dtype in (np.uint8, np.int8), f"{name} is {v.dtype}", "products take uint8 or int8")
    need(call, a.ndim >= 1 and b.ndim >= 1, f"the factors have shapes {a.shape} and {b.shape}")
    inner = b.shape[-2] if b.ndim > 1 else b.shape[0]
    need(call, a.shape[-1] == inner, f"factors {a.shape} and {b.shape} do not share K ({a.shape[-1]} and {inner})")


def _batches(call, a, b):
    """Yield (index, a (M, K), b (K, N)) over the broadcast leading axes, and the output's leading shape first."""
    lead = broadcast_size(call.place, np.empty(a.shape[:-2]), np.empty(b.shape[:-2]))
    check_size((*lead, a.shape[-2], b.shape[-1]), 4, call.place)
    wide_a, wide_b = np.broadcast_to(a, (*lead, *a.shape[-2:])), np.broadcast_to(b, (*lead, *b.shape[-2:]))
    return lead, ((i, wide_a[i], wide_b[i]) for i in np.ndindex(*lead))


def _as_matrices(a, b):
    """Give vectors the axis that matmul gives them, and say how to take it away again."""
    drop = tuple(ax for ax, one in ((-2, a.ndim == 1), (-1, b.ndim == 1)) if one)
    return (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b), lambda y: np.squeeze(y, axis=drop) if drop else y


def matmul_integer(call, a, b, a_zero_point=None, b_zero_point=None):
    """``MatMulInteger``: int32, exact modulo 2**32 but for the processor level of the profile."""
    _check_product(call, a, b)
    a, b, back = _as_matrices(a, b)
    za = np.zeros((), np.int64) if a_zero_point is None else np.asarray(a_zero_point, np.int64)
    zb = np.zeros((), np.int64) if b_zero_point is None else np.asarray(b_zero_point, np.int64)
    za = za.reshape(()) if za.size == 1 else za[:, None] if za.ndim == 1 else za
    zb = zb.reshape(()) if zb.size == 1 else zb
    if za.ndim or zb.ndim > 1:
        broadcast_size(call.place, a, za)
        broadcast_size(call.place, b, zb)
        return back(wrap_int32((a.astype(np.int64) - za) @ (b.astype(np.int64) - zb)))
    if b.ndim == 2:
        return back(ops.matmul_integer(a, b, a_zero_point=za, b_zero_point=zb, isa=saturating_level(call.profile)))
    lead, batches = _batches(call, a, b)
    y = np.empty((*lead, a.shape[-2], b.shape[-1]), np.int32)
    for i, u, v in batches:
        y[i] = ops.matmul_integer(u, v, a_zero_point=za, b_zero_point=zb, isa=saturating_level(call.profile))
    return back(y)


def conv_integer(call, x, w, x_zero_point=None, w_zero_point=None):
    """``ConvInteger``: int32, exact modulo 2**32; padding counts as the zero point of `x`."""
    for name, v in (("x", x), ("w", w)):
        need(call, v.dtype in (np.uint8, np.int8), f"{name} is {v.dtype}", "ConvInteger takes uint8 or int8")
    groups, geometry = conv_geometry(call, x, w)
    zx = 0 if x_zero_point is None else int(np.asarray(x_zero_point).reshape(-1)[0])
    zw = np.zeros(1, np.int64) if w_zero_point is None else np.asarray(w_zero_point, np.int64).reshape(-1)
    need(call, zw.size in (1, w.shape[0]), f"{zw.size} zero points for {w.shape[0]} output channels")
    zw = np.broadcast_to(zw, w.shape[0]).reshape(groups, -1)
    view = window_view(pad_spatial(call, x, geometry, zx), geometry)
    n, c, dims = x.shape[0], w.shape[1], len(geometry.out)
    last = (0, *range(2, 2 + dims), 1, *range(2 + dims, 2 + 2 * dims))
    y = np.empty((n, groups, w.shape[0] // groups, *geometry.out), np.int32)
    for g in range(groups):
        columns = np.ascontiguousarray(view[:, g * c : (g + 1) * c].transpose(last)).reshape(n, *geometry.out, -1)
        rows = np.ascontiguousarray(w.reshape(groups, -1, math.prod(w.shape[1:]))[g].T)
        y[:, g] = np.moveaxis(ops.matmul_integer(columns, rows, a_zero_point=zx, b_zero_point=zw[g]), -1, 1)
    return y.reshape(n, -1, *geometry.out)


def conv_geometry(call, x, w):
    """Check the shapes of a convolution; return (groups, `Geometry`)."""
    need(call, x.ndim >= 3 and w.ndim == x.ndim, f"x has shape {x.shape} and w {w.shape}; both need (N, C, ...) with the same number of axes")
    groups = int(call.get("group", 1))
    good = groups >= 1 and x.shape[1] == w.shape[1] * groups and w.shape[0] % groups == 0 and w.shape[0] > 0
    need(call, good, f"x {x.shape}, w {w.shape} and group={groups} do not fit: IC must be {w.shape[1]} * group and OC a multiple of group")
    kernel = call.get("kernel_shape") or w.shape[2:]
    need(call, tuple(kernel) == w.shape[2:], f"kernel_shape={list(kernel)} but w has shape {w.shape}")
    geometry = geometry_of(call, x.shape[2:], w.shape[2:])
    check_size((x.shape[0], w.shape[0], *geometry.out), 4, call.place)
    return groups, geometry


def qlinear_matmul(call, a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point):
    """``QLinearMatMul``: codes, with per-tensor parameters for `a` and the output, and per-tensor or per-column ones for `b`."""
    _check_product(call, a, b)
    a, b, back = _as_matrices(a, b)
    if np.size(a_scale) > 1 or np.size(a_zero_point) > 1:
        call.refuse(f"the first factor has {np.size(a_scale)} scales, one a row", "quantize it per tensor, as ONNX Runtime demands too")
    qa = tensor_params(call, "a", a_scale, a_zero_point, a.dtype)
    qb = tensor_params(call, "b", b_scale, b_zero_point, b.dtype, axis=b.ndim - 1)
    need(call, not qb.per_channel or len(qb.scale) == b.shape[-1], f"b has {np.size(b_scale)} scales but {b.shape[-1]} columns")
    out = tensor_params(call, "y", y_scale, y_zero_point, y_zero_point.dtype)
    check_size((*broadcast_size(call.place, np.empty(a.shape[:-2]), np.empty(b.shape[:-2])), a.shape[-2], b.shape[-1]), 4, call.place)
    return back(product_of_stacks(QTensor(a, qa), QTensor(b, qb), out=out, numerics=call.profile).values)


def qlinear_conv(call, x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, bias=None):
    """``QLinearConv``: codes, weights per tensor or per output channel, int32 bias in units of ``x_scale * w_scale``."""
    groups, g = conv_geometry(call, x, w)
    dims = len(g.out)
    if dims > 3:
        call.refuse(f"convolves over {dims} axes", "refquant has one, two and three")
    qx = tensor_params(call, "x", x_scale, x_zero_point, x.dtype)
    qw = tensor_params(call, "w", w_scale, w_zero_point, w.dtype, axis=0)
    need(call, not qw.per_channel or len(qw.scale) == w.shape[0], f"w has {np.size(w_scale)} scales but {w.shape[0]} output channels")
    out = tensor_params(call, "y", y_scale, y_zero_point, y_zero_point.dtype)
    padding = g.before
    if g.before != g.after:
        x, padding = pad_spatial(call, x, g, qx.zero_point), (0,) * dims
    conv = (ops.conv1d, ops.conv2d, ops.conv3d)[dims - 1]
    y = conv(
        QTensor(x, qx), QTensor(w, qw), bias, stride=g.stride, padding=padding, dilation=g.dilation, groups=groups, out=out, numerics=call.profile
    )  # fmt: skip
    return np.ascontiguousarray(y.values)
