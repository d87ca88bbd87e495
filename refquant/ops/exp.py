"""exp, log, sqrt, rsqrt, abs: functions of one int8 code that TensorFlow Lite alone has."""

import numpy as np

from refquant import numerics as profiles
from refquant.core.affine import dequantize_codes
from refquant.core.epilogue import gemmlowp_multiply, to_int32
from refquant.core.glibc import glibc_exp, glibc_log
from refquant.core.layout import is_channels_last, to_channels_last
from refquant.core.qtensor import QTensor
from refquant.core.rounding import round_real
from refquant.core.wrap import saturate
from refquant.errors import RangeError, UnsupportedError
from refquant.ops.arguments import check_out, check_qtensor
from refquant.ops.inverse_root import inverse_root
from refquant.ops.lookup import code_table, take_codes
from refquant.ops.output_stage import quantized_multiplier

__all__ = ["exp", "log", "sqrt", "rsqrt", "abs"]

_F = np.float32
# Binary places of an inverse root.
_PLACES = 20


def _tabulated(function):
    def codes(form, q, out, c):
        x = dequantize_codes(c, q.scale, q.zero_point, "sub_mul")
        steps = round_real(function(x, out) * (_F(1) / _F(out.scale)), form.table)
        return np.clip(steps + _F(out.zero_point), out.qmin, out.qmax).astype(np.int64)

    return codes


def _log(x, out):
    # What has no logarithm becomes the lowest code.
    return np.where(x > 0, glibc_log(x), _F(out.qmin - out.zero_point) * _F(out.scale))


def _centred(c, q):
    return c.astype(np.int64) - q.zero_point


def _sqrt(form, q, out, c):
    root = np.sqrt(_F(q.scale) * np.maximum(_centred(c, q), 0).astype(_F))
    return to_int32(root / _F(out.scale), form.sqrt) + out.zero_point


def _abs(form, q, out, c):
    multiplier = quantized_multiplier(np.float64(_F(q.scale) / _F(out.scale)))
    return gemmlowp_multiply(np.absolute(_centred(c, q)), *multiplier) + out.zero_point


def _rsqrt(form, q, out, c):
    centred = _centred(c, q)
    mult, exponent = quantized_multiplier(1 / np.float64(np.sqrt(_F(q.scale)) * _F(out.scale)))
    inverse = gemmlowp_multiply(np.int64(1), *inverse_root(np.maximum(centred, 1), _PLACES))
    return np.where(centred > 0, gemmlowp_multiply(inverse, mult, exponent - _PLACES) + out.zero_point, out.qmax)


_CODES = {"exp": _tabulated(lambda x, out: glibc_exp(x)), "log": _tabulated(_log), "sqrt": _sqrt, "rsqrt": _rsqrt, "abs": _abs}


def _apply(name, x, out, numerics):
    profile = profiles.get(numerics)
    place = f"{name}[{profile.name}]"
    form = profile.section("function", name)
    check_qtensor(x, "x", place)
    check_out(out, place)
    if x.dtype != "int8" or out.dtype != "int8":
        raise UnsupportedError(f"{place}: x is {x.dtype} and out {out.dtype}, but the profile describes int8 kernels; use int8")
    if name in ("sqrt", "rsqrt"):
        _refuse_negative(x, place)
    with np.errstate(all="ignore"):
        table = code_table(lambda c: saturate(_CODES[name](form, x.qparams, out, c), out.qmin, out.qmax), x.qparams.storage, out.storage)
    y = take_codes(table, x.values)
    return QTensor(to_channels_last(y) if is_channels_last(x.values) else y, out)


def _refuse_negative(x, place):
    below = x.values[x.values < x.qparams.zero_point]
    if below.size:
        raise RangeError(f"{place}: x holds {below.size} codes below its zero point {x.qparams.zero_point}, the first {below[0]}, but negative numbers have no root; clamp x before")


def exp(x, *, out, numerics="tflite_ref"):
    """Apply the exponential function: ``round(f(exp(f(sx · (x − zx))) · f(1 / sy))) + zy``, a table of 256 entries.

    Parameters
    ----------
    x : QTensor
        int8, per tensor.
    out : QParams
        int8.
    numerics : str or Numerics
        TensorFlow Lite's profiles; no delegate takes these functions of int8, so that all resolvers compute the same.

    Returns
    -------
    QTensor
        In the memory format of `x`.

    Raises
    ------
    RangeError
        Of `sqrt` and `rsqrt`: a negative number, which the kernel refuses.
    UnsupportedError
        The engine has no such operator, or not of this dtype.

    Exactness
    ---------
    Bit-exact where the C library is glibc up to 2.40: exp and log are its ``expf`` and ``logf``; sqrt, rsqrt and abs need no library.

    Source
    ------
    TensorFlow Lite kernels/exp.cc, kernels/elementwise.cc, internal/common.h (LUTPopulate).

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> x = rq.QTensor(np.array([-128, 0, 10, 127], np.int8), rq.QParams(0.25, 0, "int8"))
    >>> exp(x, out=rq.QParams(0.125, -128, "int8")).values
    array([-128, -120,  -31,  127], dtype=int8)
    """
    return _apply("exp", x, out, numerics)


def log(x, *, out, numerics="tflite_ref"):
    """Apply the natural logarithm; what is not positive becomes the lowest code. See `exp`.

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> x = rq.QTensor(np.array([-3, 0, 1, 100], np.int8), rq.QParams(0.25, 0, "int8"))
    >>> log(x, out=rq.QParams(0.0625, 0, "int8")).values
    array([-128, -128,  -22,   52], dtype=int8)
    """
    return _apply("log", x, out, numerics)


def sqrt(x, *, out, numerics="tflite_ref"):
    """Take the square root: ``trunc(f(f(sqrt(f(sx · (x − zx)))) / sy)) + zy``, which is cut off, not rounded. See `exp`.

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> x = rq.QTensor(np.array([0, 4, 15, 16], np.int8), rq.QParams(1.0, 0, "int8"))
    >>> sqrt(x, out=rq.QParams(1.0, 0, "int8")).values
    array([0, 2, 3, 4], dtype=int8)
    """
    return _apply("sqrt", x, out, numerics)


def rsqrt(x, *, out, numerics="tflite_ref"):
    """Take one over the square root, in integers; zero becomes the code 127. See `exp` and `refquant.ops.inverse_root`.

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> x = rq.QTensor(np.array([0, 1, 4, 64], np.int8), rq.QParams(1.0, 0, "int8"))
    >>> rsqrt(x, out=rq.QParams(0.0078125, 0, "int8")).values
    array([127, 127,  64,  16], dtype=int8)
    """
    return _apply("rsqrt", x, out, numerics)


def abs(x, *, out, numerics="tflite_ref"):
    """Take the absolute value: ``round(|x − zx| · f(sx / sy)) + zy`` by an integer multiplier, rounded twice, half away from zero. See `exp`.

    Examples
    --------
    >>> import numpy as np, refquant as rq
    >>> x = rq.QTensor(np.array([-128, -1, 3], np.int8), rq.QParams(0.25, 0, "int8"))
    >>> abs(x, out=rq.QParams(0.5, -128, "int8")).values
    array([ -64, -127, -126], dtype=int8)
    """
    return _apply("abs", x, out, numerics)
