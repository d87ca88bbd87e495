"""The output stage of an integer product: from the int32 accumulator to the output code, as plain data.

An `Epilogue` holds one engine's arithmetic as numbers. `apply_epilogue` is its readable meaning in NumPy; the kernels
carry out the same steps on registers. Every profile of every engine becomes such a form, so no profile is slow.

The steps, each rounded once to float32, `n` the output channel::

    v = float32(acc + bias_i[n])                int32 addition wraps
    v = fma(pre_b[n], pre_k, v)                 PRE_BIAS    FBGEMM: bias in units of the accumulator
    v = v * s1                                  SCALE1      oneDNN: the activation's scale
    v = v * s2[n]                               (SCALE_FMA: v = fma(v, s2[n], b[n]))
    v = v + b[n]                                BIAS
    v = max(v, 0)                               RELU
                                                — a float output stops here —
    v = v * d                                   DST_MUL     (DST_DIV: v / d)
    v = v + zf                                  ZERO_FLOAT  zero point inside of the rounding
                                                (DST_FMA, float32 alone and before both: v = fma(v, d, zf))
    v = max(v, lo); v = min(v, hi)              CLAMP       NaN becomes lo
    q = round(v)                                beyond int32 and NaN: −2**31, the x86 "indefinite integer"
    q = min(max(q + zi, qlo), qhi)
"""

from typing import NamedTuple

import numpy as np

from refquant.core.fma import fma32
from refquant.core.rounding import Round, round_real, round_shift
from refquant.core.wrap import saturate, wrap_int32

__all__ = [
    "Epilogue",
    "FLOAT32", "FLOAT64", "FIXED_GEMMLOWP", "FIXED_HALF_UP",
    "PRE_BIAS", "SCALE1", "SCALE_FMA", "BIAS", "RELU", "DST_MUL", "DST_DIV", "ZERO_FLOAT", "CLAMP", "DST_FMA",
    "make_epilogue", "apply_epilogue", "code_of_real", "to_int32", "gemmlowp_multiply", "half_up_multiply",
]  # fmt: skip

FLOAT32, FLOAT64, FIXED_GEMMLOWP, FIXED_HALF_UP = range(4)
PRE_BIAS, SCALE1, SCALE_FMA, BIAS, RELU, DST_MUL, DST_DIV, ZERO_FLOAT, CLAMP, DST_FMA = (1 << i for i in range(10))


class Epilogue(NamedTuple):
    """One output stage; build it with `make_epilogue`.

    Attributes
    ----------
    kind : int
        `FLOAT32` (the steps above); `FLOAT64`: ``v = float64(acc + bias_i) * m64[n]`` in double, then from DST on;
        `FIXED_GEMMLOWP`, `FIXED_HALF_UP`: integer multiplier ``mult[n]`` and exponent ``shift[n]``, then ``+ zi`` and the clamp.
    flags : int
        Which optional steps are taken, a sum of the constants of this module.
    rounding : int
        Position in `Round`.
    bias_i : ndarray of int32, (N,)
    pre_b, s2, b : ndarray of float32, (N,)
    pre_k, s1, d, zf, lo, hi : float32
    zi, qlo, qhi : int
    m64 : ndarray of float64, (N,)
    mult, shift : ndarray of int32, (N,)
    """

    kind: int
    flags: int
    rounding: int
    bias_i: np.ndarray
    pre_b: np.ndarray
    pre_k: np.float32
    s1: np.float32
    s2: np.ndarray
    b: np.ndarray
    d: np.float32
    zf: np.float32
    lo: np.float32
    hi: np.float32
    zi: int
    qlo: int
    qhi: int
    m64: np.ndarray
    mult: np.ndarray
    shift: np.ndarray


def make_epilogue(
    channels, *, kind=FLOAT32, flags=0, rounding=Round.HALF_EVEN, bias_i=0, pre_b=0, pre_k=1, s1=1, s2=1, b=0,
    d=1, zf=0, lo=-np.inf, hi=np.inf, zi=0, qlo=-(2**31), qhi=2**31 - 1, m64=1, mult=0, shift=0,
):  # fmt: skip
    """Build an `Epilogue`: vectors are broadcast to `channels`, everything gets its dtype.

    Examples
    --------
    >>> ep = make_epilogue(2, s2=[0.5, 0.25], zi=3, qlo=0, qhi=255)
    >>> apply_epilogue(np.array([[3, 6]], np.int32), ep, np.uint8)
    array([[5, 5]], dtype=uint8)
    """

    def vector(value, dtype):
        return np.ascontiguousarray(np.broadcast_to(np.asarray(value, dtype), (channels,)))

    f32 = np.float32
    return Epilogue(
        int(kind), int(flags), list(Round).index(Round(rounding)), vector(bias_i, np.int32), vector(pre_b, f32), f32(pre_k),
        f32(s1), vector(s2, f32), vector(b, f32), f32(d), f32(zf), f32(lo), f32(hi), int(zi), int(qlo), int(qhi),
        vector(m64, np.float64), vector(mult, np.int32), vector(shift, np.int32),
    )  # fmt: skip


def to_int32(v, mode=Round.HALF_EVEN):
    """Round reals to integers as x86 does: NaN and anything beyond int32 become ``-2**31``.

    Returns
    -------
    ndarray of int64

    Examples
    --------
    >>> to_int32(np.array([2.5, 3e9, np.nan], np.float32))
    array([          2, -2147483648, -2147483648])
    """
    with np.errstate(invalid="ignore"):
        r = round_real(v, mode)
        inside = (r >= -(2.0**31)) & (r < 2.0**31)
        return np.where(inside, np.where(inside, r, 0).astype(np.int64), -(2**31))


def gemmlowp_multiply(x, mult, shift):
    """``x * mult * 2**(shift - 31)`` with TFLite's two roundings, half away from zero each.

    Saturating rounding doubling high multiply, then a rounding division by a power of two.

    Parameters
    ----------
    x : ndarray of int32
    mult : ndarray of int32
    shift : ndarray of int32
        Positive: `x` is shifted left first (and wraps); negative: the result is divided.

    Source
    ------
    TensorFlow Lite ``MultiplyByQuantizedMultiplier`` (kernels/internal/common.cc), gemmlowp fixedpoint.h.
    """
    shift = np.asarray(shift, np.int64)
    mult = np.asarray(mult, np.int64)
    left = wrap_int32(np.asarray(x, np.int64) << np.maximum(shift, 0)).astype(np.int64)
    product = left * mult
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    high = round_shift(nudged, 31, Round.TRUNCATE)
    high = np.where((left == -(2**31)) & (mult == -(2**31)), 2**31 - 1, high)
    return round_shift(high, np.maximum(-shift, 0), Round.HALF_AWAY)


def half_up_multiply(x, mult, shift):
    """``x * mult * 2**(shift - 31)`` with two roundings, half up each: TFLite's optimized kernels on x86."""
    shift = np.asarray(shift, np.int64)
    left = wrap_int32(np.asarray(x, np.int64) << np.maximum(shift, 0)).astype(np.int64)
    high = round_shift(left * np.asarray(mult, np.int64), 31, Round.HALF_UP)
    return round_shift(high, np.maximum(-shift, 0), Round.HALF_UP)


def apply_epilogue(acc, ep, dtype):
    """Carry out an output stage in NumPy: the readable reference.

    Parameters
    ----------
    acc : ndarray of int32, (..., N)
        Channels last.
    ep : Epilogue
    dtype : numpy.dtype
        ``float32`` stops before the output scale; an integer dtype goes to the end.

    Returns
    -------
    ndarray of `dtype`, (..., N)

    Exactness
    ---------
    Bit-exact by construction: each line is one IEEE operation or an integer one.
    """
    acc = wrap_int32(acc.astype(np.int64) + ep.bias_i)
    mode = list(Round)[ep.rounding]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if ep.kind in (FIXED_GEMMLOWP, FIXED_HALF_UP):
            multiply = gemmlowp_multiply if ep.kind == FIXED_GEMMLOWP else half_up_multiply
            q = multiply(acc, ep.mult, ep.shift)
            return saturate(q + ep.zi, ep.qlo, ep.qhi).astype(dtype)
        if ep.kind == FLOAT64:
            v = acc.astype(np.float64) * ep.m64
        else:
            v = _to_real(acc, ep)
            if np.dtype(dtype) == np.float32:
                return v
            if ep.flags & DST_FMA:
                v = fma32(v, ep.d, ep.zf)
        return _to_code(v, ep, mode).astype(dtype)


def _to_real(acc, ep):
    v = acc.astype(np.float32)
    if ep.flags & PRE_BIAS:
        v = fma32(ep.pre_b, ep.pre_k, v)
    if ep.flags & SCALE1:
        v = v * ep.s1
    if ep.flags & SCALE_FMA:
        v = fma32(v, ep.s2, ep.b)
    else:
        v = v * ep.s2
        if ep.flags & BIAS:
            v = v + ep.b
    if ep.flags & RELU:
        v = np.where(v > 0, v, np.float32(0))
    return v


def code_of_real(v, ep):
    """Return the codes of real values: the steps of an output stage from the output scale on."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return _to_code(v, ep, list(Round)[ep.rounding])


def _to_code(v, ep, mode):
    cast = v.dtype.type
    if ep.flags & DST_MUL:
        v = v * cast(ep.d)
    if ep.flags & DST_DIV:
        v = v / cast(ep.d)
    if ep.flags & ZERO_FLOAT:
        v = v + cast(ep.zf)
    if ep.flags & CLAMP:
        v = np.where(v > ep.lo, v, cast(ep.lo))
        v = np.where(v < ep.hi, v, cast(ep.hi))
    return saturate(to_int32(v, mode) + ep.zi, ep.qlo, ep.qhi)
