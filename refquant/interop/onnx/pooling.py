"""Pools over windows, and over everything."""

import math

import numpy as np

from refquant.interop.onnx.call import check_size, need
from refquant.interop.onnx.windows import geometry_of, pad_spatial, taps

__all__ = ["max_pool", "average_pool", "lp_pool", "global_average_pool", "global_max_pool", "global_lp_pool", "pool_geometry", "window_counts"]


def pool_geometry(call, x):
    """Return the `Geometry` of a pool."""
    need(call, x.ndim >= 3, f"x has shape {x.shape} but must be (N, C, ...)")
    kernel = [int(k) for k in call.require("kernel_shape")]
    need(call, len(kernel) == x.ndim - 2 and min(kernel) >= 1, f"kernel_shape={kernel} does not fit x {x.shape}")
    need(call, math.prod(kernel) <= 2**18, f"kernel_shape={kernel} is absurdly large")
    geometry = geometry_of(call, x.shape[2:], kernel, ceil_mode=bool(call.get("ceil_mode", 0)))
    inside = all(b < r and a < r for b, a, r in zip(geometry.before, geometry.after, geometry.reach))
    need(call, inside, f"pads {geometry.before}, {geometry.after} reach beyond the window {geometry.reach}", "padding must be smaller than the window")
    check_size((*x.shape[:2], *geometry.out), 8, call.place)
    return geometry


def window_counts(geometry, spatial, *, include_pad):
    """Return how many positions of each window lie on the input, or on the input and its padding: shape ``geometry.out``."""
    counts = np.ones((), np.int64)
    for k, s, d, b, a, o, n in zip(*geometry[:5], geometry.out, spatial):
        at = np.arange(o)[:, None] * s + np.arange(k) * d - b
        inside = (at >= -b) & (at < n + a) if include_pad else (at >= 0) & (at < n)
        counts = np.multiply.outer(counts, inside.sum(1))
    return counts


def max_pool(call, x):
    """``MaxPool``, and the flat position of each maximum where that is asked for."""
    g = pool_geometry(call, x)
    low = np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf
    padded = pad_spatial(call, x, g, low, hang=True)
    y = np.full((*x.shape[:2], *g.out), low, x.dtype)
    if call.outputs < 2:
        for _, view in taps(padded, g):
            np.maximum(y, view, out=y)
        return y
    where = np.zeros(y.shape, np.int64)
    order = 1 if call.get("storage_order", 0) else -1
    strides = [math.prod(x.shape[2:][i + 1 :]) if order < 0 else math.prod(x.shape[2:][:i]) for i in range(x.ndim - 2)]
    for index, view in taps(padded, g):
        flat = np.zeros((), np.int64)
        for i, d, o, s, b, step in zip(index, g.dilation, g.out, g.stride, g.before, strides):
            flat = np.add.outer(flat, (np.arange(o) * s + i * d - b) * step)
        better = view > y
        y, where = np.where(better, view, y), np.where(better, flat, where)
    planes = np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], *[1] * (x.ndim - 2)) * math.prod(x.shape[2:])
    return y, where + planes


def average_pool(call, x):
    """``AveragePool``: sums in float32 in the order of the window, divided by what counts."""
    g = pool_geometry(call, x)
    wide = np.float32 if x.dtype.name in ("float16", "bfloat16") else x.dtype
    padded = pad_spatial(call, x.astype(wide, copy=False), g, 0, hang=True)
    total = np.zeros((*x.shape[:2], *g.out), wide)
    for _, view in taps(padded, g):
        total += view
    count = window_counts(g, x.shape[2:], include_pad=bool(call.get("count_include_pad", 0)))
    return (total / count.astype(wide)).astype(x.dtype, copy=False)


def lp_pool(call, x):
    """``LpPool``: the p-norm over windows."""
    g, p = pool_geometry(call, x), float(call.get("p", 2))
    total = np.zeros((*x.shape[:2], *g.out), x.dtype)
    for _, view in taps(pad_spatial(call, x, g, 0, hang=True), g):
        total += np.abs(view) ** x.dtype.type(p)
    return (total ** x.dtype.type(1 / p)).astype(x.dtype)


def _spatial(call, x):
    need(call, x.ndim >= 3, f"x has shape {x.shape} but must be (N, C, ...)")
    return tuple(range(2, x.ndim))


def global_average_pool(call, x):
    """``GlobalAveragePool``: the mean of every channel, summed in four lanes that are added by halving, then the rest, as MLAS does."""
    kept = (*x.shape[:2], *[1] * len(_spatial(call, x)))
    wide = x if x.dtype == np.float64 else x.astype(np.float32)
    flat = wide.reshape(*x.shape[:2], -1)
    whole = flat.shape[-1] // 4 * 4
    lanes = np.add.reduce(flat[..., :whole].reshape(*x.shape[:2], -1, 4), axis=2)
    total = (lanes[..., 0] + lanes[..., 2]) + (lanes[..., 1] + lanes[..., 3])
    for i in range(whole, flat.shape[-1]):
        total = total + flat[..., i]
    return (total / wide.dtype.type(flat.shape[-1])).reshape(kept).astype(x.dtype)


def global_max_pool(call, x):
    """``GlobalMaxPool``: the maximum of every channel."""
    return x.max(_spatial(call, x), keepdims=True)


def global_lp_pool(call, x):
    """``GlobalLpPool``: the p-norm of every channel."""
    p = x.dtype.type(call.get("p", 2))
    return (np.sum(np.abs(x) ** p, _spatial(call, x), keepdims=True) ** (1 / p)).astype(x.dtype)
