"""The affine map between real numbers and codes, in every form that engines use; no policy, only arguments."""

import numpy as np

from refquant.core.epilogue import to_int32
from refquant.core.fma import fma32
from refquant.core.rounding import round_real
from refquant.core.wrap import saturate, wrap_int32

__all__ = ["quantize_real", "dequantize_codes", "reciprocal", "code_of_nan"]

_INT32_TOP = np.float32(2147483520.0)


def reciprocal(scale, scaling):
    """Return the float32 that `x` is multiplied with (or, for ``divide``, divided by).

    Parameters
    ----------
    scale : float or ndarray of float64
    scaling : {"divide", "reciprocal", "reciprocal64"}

    Examples
    --------
    >>> float(reciprocal(0.1, "reciprocal")), float(reciprocal(0.1, "divide"))
    (10.0, 0.10000000149011612)
    """
    scale = np.asarray(scale, np.float64)
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        if scaling == "reciprocal64":
            return (1.0 / scale).astype(np.float32)[()]
        single = scale.astype(np.float32)[()]
        return single if scaling == "divide" else np.float32(1) / single


def quantize_real(x, scale, zero_point, qmin, qmax, *, scaling, add, rounding, overflow="saturate", nan="qmin"):
    """Map real numbers to codes.

    Parameters
    ----------
    x : ndarray of float32
    scale : float64, broadcastable
    zero_point : int64, broadcastable
    qmin, qmax : int
    scaling : {"divide", "reciprocal", "reciprocal64"}
    add : {"after", "before", "fma", "float_after"}
        Where the zero point enters: as an integer after rounding, as a float before it, inside of a fused multiply-add, or as a float after
        rounding, where ``saturate`` means that the sum is kept within the float32 ends of the dtype and then converted.
    rounding : Round
    overflow : {"saturate", "indefinite", "int64", "wrap", "long"}
        What becomes of values that leave int32; ``wrap``: the greatest float below 2**31 for larger ones and NaN, then an int32 sum with the zero point;
        ``long``: nothing up to int64, beyond which they and NaN become −2**63, and the sum with the zero point wraps there.
    nan : {"qmin", "qmax", "zero", "indefinite", "overflow"}
        ``indefinite`` is the x86 integer −2**31, cut to the bits of the dtype; ``overflow`` lets NaN go the way of huge values.

    Returns
    -------
    ndarray of int64

    Exactness
    ---------
    ``after`` rounds at the scaling and at the rounding, ``before`` also at the addition, ``fma`` once for both.

    Examples
    --------
    >>> x = np.array([0.5, 1.5, 2.5], np.float32)
    >>> quantize_real(x, 1.0, 1, 0, 255, scaling="reciprocal", add="fma", rounding="half_even")
    array([2, 2, 4])
    >>> quantize_real(x, 1.0, 1, 0, 255, scaling="reciprocal", add="after", rounding="half_even")
    array([1, 3, 3])
    """
    x = np.asarray(x, np.float32)
    factor = reciprocal(scale, scaling)
    zero = np.asarray(zero_point, np.int64)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        if add == "fma":
            t = fma32(x, factor, zero.astype(np.float32))
        else:
            t = x / factor if scaling == "divide" else x * factor
            if add == "before":
                t = t + zero.astype(np.float32)
    if add == "float_after":
        with np.errstate(over="ignore", invalid="ignore"):
            t = round_real(t, rounding) + zero.astype(np.float32)
        if overflow == "saturate":
            t, overflow = np.clip(t, np.float32(qmin), np.float32(qmax)), "indefinite"
    offset = zero if add == "after" else np.int64(0)
    codes = saturate(_to_integer(t, rounding, overflow, offset), qmin, qmax)
    return codes if nan == "overflow" or overflow in ("wrap", "long") else np.where(np.isnan(t), code_of_nan(nan, qmin, qmax), codes)


def code_of_nan(nan, qmin, qmax):
    """Return the code that a policy gives NaN, see `quantize_real`.

    Examples
    --------
    >>> code_of_nan("qmax", 0, 255), code_of_nan("indefinite", -128, 127)
    (255, 0)
    """
    zero = min(max(0, qmin), qmax)
    return {"qmin": qmin, "qmax": qmax, "zero": zero, "indefinite": qmin if qmin == -(2**31) else zero, "overflow": qmin}[nan]


def _to_integer(t, rounding, overflow, offset):
    if overflow == "wrap":
        return wrap_int32(to_int32(np.where(t < _INT32_TOP, t, _INT32_TOP), rounding) + offset).astype(np.int64)
    if overflow == "indefinite":
        return wrap_int32(to_int32(t, rounding) + offset).astype(np.int64)
    if overflow == "long":
        # What int64 does not hold becomes -2**63, which a negative zero point takes to the other end.
        far, beyond = np.float32(2.0**40), np.where(np.asarray(offset) < 0, np.float32(2.0**40), np.float32(-(2.0**40)))
        return round_real(np.where(np.abs(t) < np.float32(2.0**63), np.clip(t, -far, far), beyond), rounding).astype(np.int64) + offset
    with np.errstate(invalid="ignore"):
        low = np.float32(-(2.0**31))
        r = np.where(t > _INT32_TOP, 2**31 - 1, to_int32(np.where(t < low, low, t), rounding))
    if overflow == "int64":
        r = np.where(np.abs(t) >= np.float32(2.0**63), -(2**31), r)
    return r + offset


def dequantize_codes(q, scale, zero_point, formula):
    """Map codes to float32.

    Parameters
    ----------
    q : ndarray of int
    scale : float64, broadcastable
    zero_point : int64, broadcastable
    formula : {"sub_mul", "sub_mul_wide", "sub_mul32", "sub_mul64", "mul_add", "fma"}
        ``f32(q - z) * s`` with the difference of int32 codes modulo 2**32, or (``wide``) in int64, ``(f32(q) - f32(z)) * s``, the same with a float64 scale, ``q*s + f32(-z*s)`` with two roundings, or
        ``fma(q, s, f32(-z*s))``.

    Returns
    -------
    ndarray of float32

    Examples
    --------
    >>> dequantize_codes(np.array([0, 3]), 0.5, 1, "sub_mul")
    array([-0.5,  1. ], dtype=float32)
    """
    q = np.asarray(q)
    s = np.asarray(scale, np.float64).astype(np.float32)
    z = np.asarray(zero_point, np.int64)
    with np.errstate(over="ignore", invalid="ignore"):
        if formula in ("sub_mul", "sub_mul_wide"):
            centred = q.astype(np.int64) - z
            return (wrap_int32(centred) if q.dtype == np.int32 and formula == "sub_mul" else centred).astype(np.float32) * s
        if formula in ("sub_mul32", "sub_mul64"):
            centred = q.astype(np.float32) - z.astype(np.float32)
            if formula == "sub_mul32":
                return centred * s
            return (centred.astype(np.float64) * np.asarray(scale, np.float64)).astype(np.float32)
        shift = s * (-z.astype(np.float32))
        qf = q.astype(np.float32)
        return qf * s + shift if formula == "mul_add" else fma32(qf, s, shift)
