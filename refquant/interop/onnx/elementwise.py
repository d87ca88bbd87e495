"""Elementwise operators of two and more inputs, and those that choose or compare."""

import functools

import numpy as np

from refquant.core.rounding import Round, round_real
from refquant.interop.onnx.call import axis_of, broadcast_size, need

__all__ = ["binary", "integer_binary", "variadic", "unary", "divide", "power", "modulo", "where", "clip", "shift", "round_even", "is_inf", "mean"]


def _aligned(call, a, b):
    """Return the operands ready to broadcast; before version 7 an attribute asked for it, and said where the second operand lies."""
    if call.opset < 7 and "axis" in call.attrs and b.ndim < a.ndim:
        axis = axis_of(call, call.get("axis"), a.ndim)
        need(call, axis + b.ndim <= a.ndim, f"axis={axis} puts {b.shape} beyond {a.shape}")
        b = b.reshape(*b.shape, *[1] * (a.ndim - axis - b.ndim))
    broadcast_size(call.place, a, b)
    return a, b


def binary(function, *, boolean=False):
    """Make an executor of a NumPy function of two arrays of one dtype."""

    def run(call, a, b):
        need(call, a.dtype == b.dtype, f"operands are {a.dtype} and {b.dtype} but must be of one type")
        y = function(*_aligned(call, a, b))
        return y.astype(bool) if boolean else y.astype(a.dtype, copy=False)

    return run


def integer_binary(function):
    """Make an executor of a bitwise function."""

    def run(call, a, b):
        need(call, a.dtype == b.dtype and a.dtype.kind in "iub", f"operands are {a.dtype} and {b.dtype} but must be integers of one type")
        return function(*_aligned(call, a, b))

    return run


def variadic(function):
    """Make an executor that folds any number of arrays."""

    def run(call, *xs):
        need(call, xs and all(x.dtype == xs[0].dtype for x in xs), f"inputs are {[str(x.dtype) for x in xs]} but must be of one type")
        broadcast_size(call.place, *xs)
        return functools.reduce(function, xs).astype(xs[0].dtype, copy=False)

    return run


def mean(call, *xs):
    """``Mean``: the elementwise mean of its inputs."""
    return (variadic(np.add)(call, *xs) / xs[0].dtype.type(len(xs))).astype(xs[0].dtype)


def unary(function, *, keep=True):
    """Make an executor of a NumPy function of one array; `keep` holds the result to the input's dtype."""

    def run(call, x):
        y = function(x)
        return y.astype(x.dtype, copy=False) if keep else y

    return run


def divide(call, a, b):
    """``Div``: integers are divided toward zero."""
    need(call, a.dtype == b.dtype, f"operands are {a.dtype} and {b.dtype} but must be of one type")
    a, b = _aligned(call, a, b)
    if a.dtype.kind not in "iu":
        return (a / b).astype(a.dtype, copy=False)
    need(call, b.all(), "divides an integer by zero", "change the input")
    quotient = a // b
    return quotient + ((quotient < 0) & (quotient * b != a)).astype(a.dtype) if a.dtype.kind == "i" else quotient


def power(call, a, b):
    """``Pow``: in the type of the base."""
    a, b = _aligned(call, a, b)
    if a.dtype.kind in "iu" and b.dtype.kind in "iu" and not (b < 0).any():
        return np.power(a, b.astype(a.dtype))
    wide = np.float64 if a.dtype.kind in "iu" or b.dtype == np.float64 else a.dtype
    return np.power(a.astype(wide), b.astype(wide)).astype(a.dtype)


def modulo(call, a, b):
    """``Mod``: the sign of the divisor, or of the dividend with ``fmod=1``."""
    a, b = _aligned(call, a, b)
    need(call, a.dtype.kind not in "iu" or b.all(), "divides an integer by zero", "change the input")
    return (np.fmod(a, b) if call.get("fmod", 0) else np.mod(a, b)).astype(a.dtype, copy=False)


def shift(call, a, b):
    """``BitShift``: a count that is negative or beyond the width leaves what the sign fills in."""
    need(call, a.dtype == b.dtype and a.dtype.kind in "iu", f"operands are {a.dtype} and {b.dtype} but must be integers of one type")
    a, b = _aligned(call, a, b)
    bits = 8 * a.dtype.itemsize
    left = call.require("direction") == "LEFT"
    inside = (b >= 0) & (b < bits)
    count = np.where(inside, b, 0).astype(a.dtype)
    outside = a.dtype.type(0) if left else np.where(a < 0, -1, 0).astype(a.dtype)
    return np.where(inside, np.left_shift(a, count) if left else np.right_shift(a, count), outside).astype(a.dtype)


def where(call, condition, a, b):
    """``Where``: elements of `a` where the condition holds, else of `b`."""
    need(call, a.dtype == b.dtype and condition.dtype == bool, f"inputs are {condition.dtype}, {a.dtype} and {b.dtype}")
    broadcast_size(call.place, condition, a, b)
    return np.where(condition, a, b)


def clip(call, x, low=None, high=None):
    """``Clip``: into [low, high]; before version 11 the ends were attributes."""
    low = call.get("min") if low is None else low.reshape(-1)[0]
    high = call.get("max") if high is None else high.reshape(-1)[0]
    for bound, function in ((low, np.maximum), (high, np.minimum)):
        x = x if bound is None else function(x, np.asarray(bound, x.dtype))
    return x


def round_even(call, x):
    """``Round``: ties to even."""
    return round_real(np.asarray(x), Round.HALF_EVEN)


def is_inf(call, x):
    """``IsInf``: of either sign, or of one."""
    positive, negative = call.get("detect_positive", 1), call.get("detect_negative", 1)
    wide = x.astype(np.float64)
    return (np.isposinf(wide) & bool(positive)) | (np.isneginf(wide) & bool(negative))
