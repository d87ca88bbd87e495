"""Conv and ConvTranspose on real numbers: windows laid out as columns, then one matrix product."""

import math

import numpy as np

from refquant.interop.onnx.call import check_size, need
from refquant.interop.onnx.integer_products import conv_geometry
from refquant.interop.onnx.windows import pad_spatial, taps, window_view

__all__ = ["conv", "conv_transpose"]


def conv(call, x, w, bias=None):
    """``Conv`` over any number of spatial axes, in groups."""
    need(call, x.dtype == w.dtype and x.dtype.kind in "fV", f"x is {x.dtype} and w {w.dtype}", "give floats of one type")
    groups, g = conv_geometry(call, x, w)
    wide = np.float32 if x.dtype.name in ("float16", "bfloat16") else x.dtype
    padded = pad_spatial(call, x.astype(wide, copy=False), g, 0)
    weight = w.astype(wide, copy=False)
    if groups == x.shape[1] and w.shape[1] == 1:
        y = _depthwise(padded, weight, g, groups)
    else:
        y = _columns(call, padded, weight, g, groups)
    if bias is not None:
        need(call, bias.shape == (w.shape[0],), f"the bias has shape {bias.shape} but there are {w.shape[0]} output channels")
        y += bias.astype(wide).reshape(-1, *[1] * len(g.out))
    return y.astype(x.dtype, copy=False)


def _depthwise(padded, w, g, groups):
    n, multiplier, dims = padded.shape[0], w.shape[0] // groups, len(g.out)
    y = np.zeros((n, groups, multiplier, *g.out), padded.dtype)
    for index, view in taps(padded, g):
        y += view[:, :, None] * w[(slice(None), 0, *index)].reshape(groups, multiplier, *[1] * dims)
    return y.reshape(n, -1, *g.out)


def _columns(call, padded, w, g, groups):
    n, dims = padded.shape[0], len(g.out)
    y = np.empty((n, groups, w.shape[0] // groups, math.prod(g.out)), padded.dtype)
    weight = w.reshape(groups, w.shape[0] // groups, -1)
    check_size((weight.shape[-1] * groups, math.prod(g.out)), padded.dtype.itemsize, call.place)
    view = window_view(padded, g)
    order = (0, *range(1 + dims, 1 + 2 * dims), *range(1, 1 + dims))
    for i in range(n):
        columns = view[i].transpose(order).reshape(groups, weight.shape[-1], -1)
        np.matmul(weight, columns, out=y[i])
    return y.reshape(n, w.shape[0], *g.out)


def _transposed_sides(call, x, w):
    dims = x.ndim - 2

    def numbers(name, default, length=dims):
        values = tuple(call.get(name) or [default] * length)
        need(call, len(values) == length and all(0 <= v < 2**31 for v in values), f"attribute {name}={values} must be {length} non-negative integers")
        return values

    stride, dilation, extra = numbers("strides", 1), numbers("dilations", 1), numbers("output_padding", 0)
    need(call, min(stride + dilation, default=1) >= 1, "strides and dilations must be positive")
    full = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(x.shape[2:], stride, w.shape[2:], dilation)]
    auto = call.get("auto_pad", "NOTSET")
    target = call.get("output_shape")
    if auto.startswith("SAME") and target is None:
        target = [n * s for n, s in zip(x.shape[2:], stride)]
    if target is not None:
        target = tuple(target)[-dims:]
        total = [max(f + e - t, 0) for f, e, t in zip(full, extra, target)]
        before = [t // 2 if auto != "SAME_LOWER" else t - t // 2 for t in total]
        return stride, dilation, full, before, target
    pads = (0,) * (2 * dims) if auto == "VALID" else numbers("pads", 0, 2 * dims)
    out = tuple(f + e - b - a for f, e, b, a in zip(full, extra, pads[:dims], pads[dims:]))
    return stride, dilation, full, pads[:dims], out


def conv_transpose(call, x, w, bias=None):
    """``ConvTranspose``: every input element adds its multiple of the kernel to the output."""
    groups = int(call.get("group", 1))
    good = x.ndim >= 3 and w.ndim == x.ndim and groups >= 1 and x.shape[1] == w.shape[0] and x.shape[1] % groups == 0
    need(call, good, f"x {x.shape}, w {w.shape} and group={groups} do not fit")
    stride, dilation, full, before, out = _transposed_sides(call, x, w)
    need(call, min(out) >= 1, f"the output would have sides {out}")
    n, channels = x.shape[0], w.shape[1] * groups
    room = [max(f, b + o) for f, b, o in zip(full, before, out)]
    y = np.zeros(check_size((n, groups, w.shape[1], *room), 4, call.place), x.dtype)
    flat = x.reshape(n, groups, x.shape[1] // groups, -1)
    for index in np.ndindex(*w.shape[2:]):
        tap = w[(slice(None), slice(None), *index)].reshape(groups, -1, w.shape[1]).transpose(0, 2, 1)
        at = tuple(slice(i * d, i * d + (m - 1) * s + 1, s) for i, d, m, s in zip(index, dilation, x.shape[2:], stride))
        y[(slice(None), slice(None), slice(None), *at)] += np.matmul(tap, flat).reshape(n, groups, w.shape[1], *x.shape[2:])
    y = y.reshape(n, channels, *room)[(slice(None), slice(None), *(slice(b, b + o) for b, o in zip(before, out)))]
    return y if bias is None else y + bias.reshape(-1, *[1] * (x.ndim - 2))
