"""Operators that move elements without computing: reshape, transpose, concatenate, slice, pad, tile, and what makes tensors from shapes."""

import math

import numpy as np

from refquant.interop.onnx.call import axes_of, axis_of, check_size, need, rows_and_columns
from refquant.interop.onnx.cast import cast_to
from refquant.interop.onnx.dtypes import type_of_number

__all__ = [
    "reshape", "flatten", "transpose", "squeeze", "unsqueeze", "concat", "split", "slice_", "pad", "tile", "expand", "identity", "dropout", "shape", "size",
    "constant", "constant_of_shape", "range_", "eye_like", "trilu", "depth_to_space", "space_to_depth",
]  # fmt: skip


def _ints(x):
    return [int(v) for v in np.asarray(x).reshape(-1)]


def reshape(call, x, target=None):
    """``Reshape``: 0 keeps a side (unless ``allowzero``), one -1 is worked out."""
    target = _ints(call.require("shape") if target is None else target)
    if not call.get("allowzero", 0):
        need(call, all(n or i < x.ndim for i, n in enumerate(target)), f"shape {target} keeps a side that x {x.shape} lacks")
        target = [n or x.shape[i] for i, n in enumerate(target)]
    need(call, target.count(-1) <= 1 and min(target, default=0) >= -1, f"shape {target} is no shape")
    known = math.prod(n for n in target if n != -1)
    good = (known and x.size % known == 0) or (x.size == 0) if -1 in target else known == x.size
    need(call, good, f"x has shape {x.shape} ({x.size} elements), which cannot become {target}")
    return x.reshape(target)


def flatten(call, x):
    """``Flatten``: into a matrix, rows from the axes before ``axis``."""
    return x.reshape(rows_and_columns(call, call.get("axis", 1), x.shape))


def transpose(call, x):
    """``Transpose``: axes in the order of ``perm``, reversed without it."""
    perm = axes_of(call, call.get("perm", range(x.ndim)[::-1]), x.ndim)
    need(call, len(perm) == x.ndim, f"perm={perm} but x has shape {x.shape}")
    return np.transpose(x, perm)


def squeeze(call, x, axes=None):
    """``Squeeze``: drop axes of length 1."""
    axes = call.get("axes") if axes is None else axes
    axes = tuple(i for i, n in enumerate(x.shape) if n == 1) if axes is None else axes_of(call, axes, x.ndim)
    need(call, all(x.shape[a] == 1 for a in axes), f"axes {axes} of x {x.shape} are not all of length 1")
    return np.squeeze(x, axes)


def unsqueeze(call, x, axes=None):
    """``Unsqueeze``: insert axes of length 1."""
    axes = call.require("axes") if axes is None else axes
    return np.expand_dims(x, axes_of(call, axes, x.ndim + len(np.asarray(axes).reshape(-1))))


def concat(call, *xs):
    """``Concat`` along an axis."""
    need(call, xs, "has no inputs")
    axis = axis_of(call, call.get("axis", 1) if call.opset < 4 else call.require("axis"), xs[0].ndim)
    rest = {(x.dtype.name, *x.shape[:axis], *x.shape[axis + 1 :]) for x in xs}
    need(call, len(rest) == 1, f"inputs {[f'{x.dtype} {x.shape}' for x in xs]} do not agree but for axis {axis}")
    check_size([sum(x.shape[axis] for x in xs), *xs[0].shape[:axis], *xs[0].shape[axis + 1 :]], xs[0].dtype.itemsize, call.place)
    return np.concatenate(xs, axis)


def split(call, x, sizes=None):
    """``Split`` along an axis, into given sizes or (nearly) equal parts."""
    axis = axis_of(call, call.get("axis", 0), x.ndim)
    sizes = call.get("split") if sizes is None else _ints(sizes)
    length = x.shape[axis]
    if sizes is None:
        parts = call.get("num_outputs", call.outputs)
        need(call, parts >= 1 and parts <= max(length, 1) * 2 and (call.opset >= 18 or length % parts == 0), f"{length} elements do not split into {parts}")
        chunk = -(-length // parts)
        sizes = [max(0, min(chunk, length - i * chunk)) for i in range(parts)]
    need(call, sum(sizes) == length and min(sizes, default=0) >= 0, f"sizes {sizes} do not add up to the {length} of axis {axis}")
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis))


def slice_(call, x, starts=None, ends=None, axes=None, steps=None):
    """``Slice``: start, end and step along each of some axes."""
    starts, ends = _ints(call.require("starts") if starts is None else starts), _ints(call.require("ends") if ends is None else ends)
    axes = call.get("axes") if axes is None else axes
    axes = axes_of(call, range(len(starts)) if axes is None else axes, x.ndim)
    steps = [1] * len(starts) if steps is None else _ints(steps)
    need(call, len(starts) == len(ends) == len(axes) == len(steps) and all(steps), f"starts {starts}, ends {ends}, axes {axes}, steps {steps} do not fit")
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps):
        n = x.shape[axis]
        start, end = (v + n if v < 0 else v for v in (start, end))
        if step > 0:
            index[axis] = slice(min(max(start, 0), n), min(max(end, 0), n), step)
        else:
            end = min(max(end, -1), n)
            index[axis] = slice(min(max(start, 0), n - 1), None if end == -1 else end, step)
    return x[tuple(index)]


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def pad(call, x, pads=None, value=None, axes=None):
    """``Pad`` by a constant, by reflection, by the edge or around; negative padding cuts off."""
    pads = call.get("pads", call.get("paddings")) if pads is None else pads
    need(call, pads is not None, "has no pads")
    pads = _ints(pads)
    axes = tuple(range(x.ndim)) if axes is None else axes_of(call, axes, x.ndim)
    need(call, len(pads) == 2 * len(axes), f"{len(pads)} pads for {len(axes)} axes")
    widths = [(0, 0)] * x.ndim
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :]):
        widths[axis] = (before, after)
    mode = call.get("mode", "constant")
    if mode not in _PAD_MODES:
        call.refuse(f"pads by mode {mode!r}", f"choose {', '.join(_PAD_MODES)}")
    x = x[tuple(slice(max(-b, 0), n - max(-a, 0)) for (b, a), n in zip(widths, x.shape))]
    widths = [(max(b, 0), max(a, 0)) for b, a in widths]
    check_size([n + b + a for n, (b, a) in zip(x.shape, widths)], x.dtype.itemsize, call.place)
    if mode != "constant":
        return np.pad(x, widths, mode=mode)
    fill = call.get("value", 0.0) if value is None else value.reshape(-1)[0]
    return np.pad(x, widths, constant_values=np.asarray(fill).astype(x.dtype))


def tile(call, x, repeats, axis=None):
    """``Tile``: repeat along every axis (version 1: along one)."""
    counts = _ints(repeats)
    if call.opset < 6:
        need(call, axis is not None and counts, "lacks an axis")
        at = axis_of(call, axis.reshape(-1)[0], x.ndim)
        counts = [counts[0] if i == at else 1 for i in range(x.ndim)]
    need(call, len(counts) == x.ndim and min(counts, default=0) >= 0, f"repeats {counts} do not fit x {x.shape}")
    check_size([n * c for n, c in zip(x.shape, counts)], x.dtype.itemsize, call.place)
    return np.tile(x, counts)


def expand(call, x, target):
    """``Expand``: broadcast to a shape, both ways."""
    target = check_size(_ints(target), x.dtype.itemsize, call.place)
    try:
        out = np.broadcast_shapes(x.shape, target)
    except ValueError:
        need(call, False, f"x {x.shape} does not broadcast to {target}")
    return np.array(np.broadcast_to(x, check_size(out, x.dtype.itemsize, call.place)))


def identity(call, x):
    """``Identity``: the input."""
    return x


def dropout(call, x, ratio=None, training=None):
    """``Dropout`` outside of training: the input, and a mask of ones."""
    if training is not None and bool(np.asarray(training).reshape(-1)[0]) and (ratio is None or np.asarray(ratio).reshape(-1)[0] > 0):
        call.refuse("drops elements at random (training_mode)", "refquant executes inference; export the model for inference")
    return x, np.ones(x.shape, bool if call.opset >= 10 else x.dtype)


def shape(call, x):
    """``Shape``: int64 sides, or a range of them."""
    ends = (call.get("start", 0), call.get("end", x.ndim))
    first, last = (min(max(e + x.ndim if e < 0 else e, 0), x.ndim) for e in ends)
    return np.array(x.shape[first:last], np.int64)


def size(call, x):
    """``Size``: the number of elements."""
    return np.array(x.size, np.int64)


def constant(call):
    """``Constant``: an attribute's value."""
    for name, dtype in (("value_float", np.float32), ("value_int", np.int64), ("value_floats", np.float32), ("value_ints", np.int64)):
        if name in call.attrs:
            return np.array(call.attrs[name], dtype)
    for name in ("value_string", "value_strings"):
        if name in call.attrs:
            return np.array(call.attrs[name], object)
    return call.require("value")


def constant_of_shape(call, target):
    """``ConstantOfShape``: one value throughout."""
    value = np.asarray(call.get("value", np.zeros(1, np.float32)))
    need(call, value.size == 1, f"value has {value.size} elements but must have one")
    return np.full(check_size(_ints(target), value.dtype.itemsize, call.place), value.reshape(-1)[0], value.dtype)


def range_(call, start, limit, delta):
    """``Range``: start, start + delta, … below limit."""
    first, last, step = (v.reshape(-1)[0] for v in (start, limit, delta))
    need(call, step != 0, "has delta=0")
    span = (float(last) - float(first)) / float(step)
    need(call, math.isfinite(span), f"has ends {first}, {last} and delta {step}")
    (count,) = check_size((max(0, math.ceil(span)),), 16, call.place)
    return (first + np.arange(count) * step).astype(start.dtype)


def eye_like(call, x):
    """``EyeLike``: ones on a diagonal."""
    need(call, x.ndim == 2, f"x has shape {x.shape} but must be a matrix")
    y = np.eye(*x.shape, k=int(call.get("k", 0)))
    return cast_to(y, type_of_number(call.get("dtype"), call.place)) if "dtype" in call.attrs else y.astype(x.dtype)


def trilu(call, x, k=None):
    """``Trilu``: the upper or lower triangle of each matrix."""
    need(call, x.ndim >= 2, f"x has shape {x.shape} but must be a matrix or a stack of them")
    k = 0 if k is None else int(np.asarray(k).reshape(-1)[0])
    k = max(min(k, x.shape[-1] + 1), -x.shape[-2] - 1)
    return np.triu(x, k) if call.get("upper", 1) else np.tril(x, k)


def depth_to_space(call, x):
    """``DepthToSpace``: channels into blocks of pixels."""
    b = int(call.require("blocksize"))
    need(call, x.ndim == 4 and b > 0 and x.shape[1] % (b * b) == 0, f"x {x.shape} does not fit blocksize={b}")
    n, c, h, w = x.shape
    if call.get("mode", "DCR") == "DCR":
        y = x.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return y.reshape(n, c // b**2, h * b, w * b)


def space_to_depth(call, x):
    """``SpaceToDepth``: blocks of pixels into channels."""
    b = int(call.require("blocksize"))
    need(call, x.ndim == 4 and b > 0 and x.shape[2] % b == 0 and x.shape[3] % b == 0, f"x {x.shape} does not fit blocksize={b}")
    n, c, h, w = x.shape
    order = (0, 3, 5, 1, 2, 4) if call.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return x.reshape(n, c, h // b, b, w // b, b).transpose(order).reshape(n, c * b * b, h // b, w // b)
