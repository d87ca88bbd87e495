"""Reductions along axes, arg-reductions, cumulative sums, and TopK."""

import numpy as np

from refquant.interop.onnx.call import axes_of, axis_of, check_size, need

__all__ = ["reduction", "SUM", "MEAN", "MAX", "MIN", "PROD", "L1", "L2", "LOG_SUM", "LOG_SUM_EXP", "SUM_SQUARE", "arg", "cumulative", "top_k"]


def _log_sum_exp(x, axis, keepdims):
    top = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    total = np.log(np.exp(x - top).sum(axis=axis, keepdims=True)) + top
    return total if keepdims else total.reshape(np.sum(x, axis=axis).shape)


def _extreme(function, lowest):
    def reduce(x, axis, keepdims):
        if x.dtype == bool:
            return function(x.astype(np.uint8), axis=axis, keepdims=keepdims, initial=int(lowest == "high")).astype(bool)
        info = np.iinfo(x.dtype) if x.dtype.kind in "iu" else None
        ends = (info.min, info.max) if info else (-np.inf, np.inf)
        return function(x, axis=axis, keepdims=keepdims, initial=ends[lowest == "high"])

    return reduce


SUM, PROD = np.sum, np.prod
MEAN = np.mean
MAX, MIN = _extreme(np.max, "low"), _extreme(np.min, "high")
LOG_SUM_EXP = _log_sum_exp


def L1(x, axis, keepdims):
    """The sum of magnitudes."""
    return np.sum(np.abs(x), axis=axis, keepdims=keepdims)


def L2(x, axis, keepdims):
    """The Euclidean norm."""
    return np.sqrt(np.sum(np.square(x), axis=axis, keepdims=keepdims))


def LOG_SUM(x, axis, keepdims):
    """The logarithm of the sum."""
    return np.log(np.sum(x, axis=axis, keepdims=keepdims))


def SUM_SQUARE(x, axis, keepdims):
    """The sum of squares."""
    return np.sum(np.square(x), axis=axis, keepdims=keepdims)


def reduction(function):
    """Make the executor of a reduction; axes come as an attribute, later as an input."""

    def run(call, x, axes=None):
        axes = call.get("axes") if axes is None else axes.reshape(-1).tolist()
        if not axes and call.get("noop_with_empty_axes", 0):
            axes = ()
        else:
            axes = axes_of(call, axes, x.ndim) if axes else tuple(range(x.ndim))
        wide = x.astype(np.float32) if x.dtype.name in ("float16", "bfloat16") else x
        return np.asarray(function(wide, axis=axes, keepdims=bool(call.get("keepdims", 1)))).astype(x.dtype, copy=False)

    return run


def arg(function):
    """Make the executor of ``ArgMax`` or ``ArgMin``."""

    def run(call, x):
        axis = axis_of(call, call.get("axis", 0), x.ndim)
        need(call, x.shape[axis] > 0, f"axis {axis} of {x.shape} is empty")
        if call.get("select_last_index", 0):
            y = x.shape[axis] - 1 - function(np.flip(x, axis), axis=axis)
        else:
            y = function(x, axis=axis)
        return np.expand_dims(y, axis) if call.get("keepdims", 1) else y

    return run


def cumulative(function):
    """Make the executor of ``CumSum`` or ``CumProd``."""

    def run(call, x, axis):
        axis = axis_of(call, axis.reshape(-1)[0], x.ndim)
        x = np.flip(x, axis) if call.get("reverse", 0) else x
        y = function(x, axis=axis, dtype=x.dtype)
        if call.get("exclusive", 0):
            first = np.full_like(np.take(y, [0], axis), 1 if function is np.cumprod else 0)
            y = np.concatenate([first, np.take(y, range(x.shape[axis] - 1), axis)], axis)
        return np.flip(y, axis) if call.get("reverse", 0) else y

    return run


def top_k(call, x, k=None):
    """``TopK``: the k greatest (or least) elements along an axis, the earlier one first where they are equal."""
    k = call.require("k") if k is None else int(k.reshape(-1)[0])
    axis = axis_of(call, call.get("axis", -1), x.ndim)
    need(call, 0 <= k <= x.shape[axis], f"k={k} but axis {axis} of {x.shape} has {x.shape[axis]} elements")
    check_size((k,), 8, call.place)
    if call.get("largest", 1):
        order = np.flip(x.shape[axis] - 1 - np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis=axis, kind="stable")
    chosen = np.take(order, range(k), axis).astype(np.int64)
    return np.take_along_axis(x, chosen, axis), chosen
