"""conv_integer: the integer convolution alone."""

import numpy as np

from refquant.core.arguments import as_array, as_integers, check_room
from refquant.core.levels import check_level
from refquant.core.wrap import wrap_int32
from refquant.errors import ArgumentError, RangeError, ShapeError
from refquant.kernels.gemm import gemm_s32
from refquant.ops.arguments import sides
from refquant.ops.pack_weights import pack_weights

__all__ = ["conv_integer", "conv_integer_reference"]


def _zero(value, name, values, shape, place):
    zero = as_integers(value, name, place)
    if zero.ndim and zero.shape != shape:
        raise ShapeError(f"{place}: {name} has shape {zero.shape}; it must be a scalar{f' or {shape}' if shape else ''}")
    info = np.iinfo(values.dtype)
    if zero.size and (zero.min() < info.min or zero.max() > info.max):
        raise RangeError(f"{place}: {name} spans [{zero.min()}, {zero.max()}] outside of {values.dtype} [{info.min}, {info.max}]; clamp it")
    return zero


def _columns(x, w, x_zero_point, w_zero_point, stride, padding, dilation, groups, isa):
    """Return (columns of codes (G, M, K), weights (G, OC/G, K), their zero points, the output's shape)."""
    place = "conv_integer"
    check_level(isa, place)
    x, w = as_array(x, "x", place), as_array(w, "w", place)
    for name, v in (("x", x), ("w", w)):
        if v.dtype not in (np.uint8, np.int8):
            raise ArgumentError(f"{place}: {name} has dtype {v.dtype} but must be uint8 or int8; convert the codes")
    dims = x.ndim - 2
    (groups,) = sides(groups, "groups", 1, place, least=1)
    if dims < 1 or w.ndim != x.ndim or x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise ShapeError(f"{place}: x has shape {x.shape}, w {w.shape} and groups={groups}; they must be (N, IC, …) and (OC, IC / groups, …), OC a multiple of groups")
    zx, zw = _zero(x_zero_point, "x_zero_point", x, (), place), _zero(w_zero_point, "w_zero_point", w, (w.shape[0],), place)
    stride, dilation = (sides(v, n, dims, place, least=1) for v, n in ((stride, "stride"), (dilation, "dilation")))
    padding = sides(padding, "padding", dims, place, least=0)
    sides_padded = [n + 2 * p for n, p in zip(x.shape[2:], padding)]
    check_room((*x.shape[:2], *sides_padded), "the padded input", place)
    padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)], constant_values=int(zx))
    out = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(padded.shape[2:], w.shape[2:], stride, dilation)]
    if min(out) < 1:
        raise ShapeError(f"{place}: kernel {w.shape[2:]} with dilation {dilation} is larger than the padded input {padded.shape[2:]}; enlarge the input or its padding")
    windows = np.lib.stride_tricks.sliding_window_view(padded, [d * (k - 1) + 1 for k, d in zip(w.shape[2:], dilation)], axis=tuple(range(2, x.ndim)))
    index = (slice(None), slice(None), *(slice(None, None, s) for s in stride), *(slice(None, None, d) for d in dilation))
    taps = np.moveaxis(windows[index], 1, dims + 1)
    columns = taps.reshape(-1, groups, w.shape[1] * int(np.prod(w.shape[2:])))
    return np.moveaxis(columns, 1, 0), w.reshape(groups, w.shape[0] // groups, -1), int(zx), zw, (x.shape[0], *out, w.shape[0])


def conv_integer(x, w, *, x_zero_point=0, w_zero_point=0, stride=1, padding=0, dilation=1, groups=1, isa=None):
    """Convolve codes into int32: ``Σ (x − zx) · (w − zw)``; padding counts as 0.

    Parameters
    ----------
    x : array_like of uint8 or int8, (N, IC, …)
        One, two or three axes of points.
    w : array_like of uint8 or int8, (OC, IC / groups, …)
    x_zero_point : int
    w_zero_point : int or array_like of int, (OC,)
    stride, padding, dilation : int or one for each axis
    groups : int
    isa : str, optional
        The processor level, as for the other products. ONNX Runtime, the one engine with this operator, takes the weights for the first
        factor, so that no kernel of any level saturates: each level gives the same sums.

    Returns
    -------
    ndarray of int32, (N, OC, …)

    Exactness
    ---------
    Exact modulo 2**32: overflow wraps, as in ONNX's ConvInteger. Exact in every engine that has it.

    Examples
    --------
    >>> conv_integer(np.full((1, 1, 2, 2), 9, np.uint8), np.full((1, 1, 2, 2), 3, np.int8), x_zero_point=4).ravel()
    array([60], dtype=int32)
    """
    columns, weights, zx, zw, shape = _columns(x, w, x_zero_point, w_zero_point, stride, padding, dilation, groups, isa)
    zeros = np.broadcast_to(zw, (weights.shape[0] * weights.shape[1],)).reshape(weights.shape[:2])
    parts = [gemm_s32(np.ascontiguousarray(c), pack_weights(np.ascontiguousarray(k.T)).packed, a_zero=zx, b_zero=z) for c, k, z in zip(columns, weights, zeros)]
    return np.moveaxis(np.concatenate(parts, axis=1).reshape(shape), -1, 1)


def conv_integer_reference(x, w, *, x_zero_point=0, w_zero_point=0, stride=1, padding=0, dilation=1, groups=1, isa=None):
    """Same result as `conv_integer`, in NumPy."""
    columns, weights, zx, zw, shape = _columns(x, w, x_zero_point, w_zero_point, stride, padding, dilation, groups, isa)
    zeros = np.broadcast_to(zw, (weights.shape[0] * weights.shape[1],)).reshape(weights.shape[0], 1, -1)
    acc = (columns.astype(np.int64) - zx) @ np.swapaxes(weights.astype(np.int64), 1, 2) - (columns.astype(np.int64) - zx).sum(2, keepdims=True) * zeros
    return np.moveaxis(wrap_int32(np.moveaxis(acc, 0, 1)).reshape(shape), -1, 1)
