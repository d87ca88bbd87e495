"""Resize and Upsample: nearest, linear and cubic, one axis after the other."""

import math

import numpy as np

from refquant.core.rounding import Round, round_real
from refquant.core.wrap import saturate
from refquant.errors import choose
from refquant.interop.onnx.call import axes_of, check_size, need

__all__ = ["resize", "resize_10", "upsample"]

_MODES = ("nearest", "linear", "cubic")


def _coordinates(call, mode, length, out, scale):
    """Return where each output position lies in the input."""
    i = np.arange(out, dtype=np.float64)
    if mode == "asymmetric":
        return i / scale
    if mode == "align_corners":
        span = scale * length - 1
        return i * (length - 1) / span if out > 1 and span > 0 else np.zeros(out)
    if mode == "half_pixel":
        return (i + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return (i + 0.5) / scale - 0.5 if out > 1 else np.zeros(out)
    if mode == "half_pixel_symmetric":
        return length / 2 * (1 - out / (scale * length)) + (i + 0.5) / scale - 0.5
    if mode == "tf_half_pixel_for_nn":
        return (i + 0.5) / scale
    return call.refuse(f"resizes by coordinate_transformation_mode {mode!r}", "choose half_pixel, asymmetric or align_corners")


def _nearest(call, at, length):
    mode = call.get("nearest_mode", "round_prefer_floor")
    roundings = {
        "round_prefer_floor": Round.HALF_DOWN,
        "round_prefer_ceil": Round.HALF_UP,
        "floor": Round.FLOOR,
        "ceil": Round.CEIL,
    }
    return saturate(round_real(at, roundings[choose(call.place, "nearest_mode", mode, roundings)]), 0, length - 1).astype(np.int64)


def _weights(call, kind, at, length):
    """Return (indices, weights): which input positions an output position mixes, and how."""
    low = np.floor(at)
    t = at - low
    if kind == "linear":
        offsets, weights = (0, 1), [1 - t, t]
    else:
        a = call.get("cubic_coeff_a", -0.75)
        near = lambda d: ((a + 2) * d - (a + 3)) * d * d + 1  # noqa: E731
        far = lambda d: ((a * d - 5 * a) * d + 8 * a) * d - 4 * a  # noqa: E731
        offsets, weights = (-1, 0, 1, 2), [far(t + 1), near(t), near(1 - t), far(2 - t)]
    index = np.stack([low + o for o in offsets])
    weights = np.stack(weights)
    if call.get("exclude_outside", 0):
        weights = np.where((index >= 0) & (index < length), weights, 0)
        weights = weights / weights.sum(0)
    return np.clip(index, 0, length - 1).astype(np.int64), weights


def _resized(call, x, axis, out, scale, kind, coordinates):
    length = x.shape[axis]
    if out == length and scale == 1:
        return x
    at = _coordinates(call, coordinates, length, out, scale)
    if kind == "nearest":
        return np.take(x, _nearest(call, at, length), axis)
    index, weights = _weights(call, kind, at, length)
    shape = [1] * x.ndim
    shape[axis] = out
    return sum(np.take(x, i, axis) * w.reshape(shape) for i, w in zip(index, weights))


def _interpolate(call, x, sizes, scales, coordinates):
    kind = choose(call.place, "mode", call.get("mode", "nearest").replace("bilinear", "linear"), _MODES)
    need(call, 0 not in x.shape or math.prod(sizes) == 0, f"x has shape {x.shape}, of which nothing can be made larger")
    check_size(sizes, max(x.dtype.itemsize, 8), call.place)
    if call.get("antialias", 0) and any(s < 1 for s in scales) and kind != "nearest":
        call.refuse("resizes with antialias=1", "export the model with antialias=0")
    y = x
    for axis, (out, scale) in enumerate(zip(sizes, scales)):
        y = _resized(call, y, axis, out, scale, kind, coordinates)
    if x.dtype.kind in "iu" and kind != "nearest":
        y = saturate(round_real(y, Round.HALF_EVEN), np.iinfo(x.dtype).min, np.iinfo(x.dtype).max)
    return y.astype(x.dtype)


def _checked_scales(call, scales):
    scales = [float(v) for v in np.asarray(scales).reshape(-1)]
    need(call, all(0 < s < 2**24 for s in scales), f"scales {scales} must be positive")
    return scales


def resize(call, x, roi=None, scales=None, sizes=None):
    """``Resize`` to given scales or sizes (version 11 and later)."""
    axes = axes_of(call, call.get("axes", range(x.ndim)), x.ndim)
    if sizes is not None and sizes.size:
        target = [int(v) for v in sizes]
        need(call, len(target) == len(axes) and min(target, default=1) >= 0, f"sizes {target} do not fit x {x.shape}")
        ratio = [t / x.shape[a] for t, a in zip(target, axes)]
        policy = call.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            one = min(ratio) if policy == "not_larger" else max(ratio)
            ratio, target = [one] * len(axes), [int(round_real(one * x.shape[a], Round.HALF_UP)) for a in axes]
    else:
        need(call, scales is not None and scales.size == len(axes), "has neither scales nor sizes, or too few")
        ratio = _checked_scales(call, scales)
        target = [int(math.floor(x.shape[a] * s)) for a, s in zip(axes, ratio)]
    all_sizes, all_scales = list(x.shape), [1.0] * x.ndim
    for axis, t, r in zip(axes, target, ratio):
        all_sizes[axis], all_scales[axis] = t, r
    return _interpolate(call, x, all_sizes, all_scales, call.get("coordinate_transformation_mode", "half_pixel"))


def resize_10(call, x, scales):
    """``Resize`` of version 10 and ``Upsample``: by scales alone, positions rounded down."""
    ratio = _checked_scales(call, scales)
    need(call, len(ratio) == x.ndim, f"{len(ratio)} scales for x {x.shape}")
    call = call._replace(attrs={**call.attrs, "nearest_mode": "floor"})
    return _interpolate(call, x, [int(math.floor(n * s)) for n, s in zip(x.shape, ratio)], ratio, "asymmetric")


def upsample(call, x, scales=None):
    """``Upsample``: `resize_10`; before version 9 the scales were an attribute."""
    return resize_10(call, x, call.require("scales") if scales is None else scales)
