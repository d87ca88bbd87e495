"""The affine map in one pass over memory.

    x, out    [outer][channel][inner]    float32 and codes (or the other way round), C order
    scale …   [channel]                  one entry where the parameters are per tensor

Where the channels lie densest (inner = 1) the loop runs over channels, else over `inner` with the channel's parameters held.
The loops are plain; LLVM turns them into vectors. What a form does stands in constants that a loop is compiled for.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from refquant.kernels.jit import kernel, parallel_for
from refquant.kernels.scalar import fused_multiply_add, half_even

__all__ = ["Quantizer", "quantize_codes", "fake_quantize_reals", "dequantize_reals", "AFTER", "BEFORE", "FUSED", "SUB_MUL", "SUB_MUL64", "MUL_ADD", "FMA"]

AFTER, BEFORE, FUSED = range(3)
SUB_MUL, SUB_MUL64, MUL_ADD, FMA = range(4)
_GRAIN = 1 << 16


class Quantizer(NamedTuple):
    """What a quantizing loop is compiled for.

    Attributes
    ----------
    divide : bool
        Divide by the factor instead of multiplying.
    add : int
        Where the zero point enters: `AFTER` rounding, `BEFORE` it, or `FUSED` into the product.
    away : bool
        Round halves away from zero instead of to even.
    wide : bool
        Values of at least 2**63 become the smallest code: a conversion by way of int64.
    """

    divide: bool
    add: int
    away: bool
    wide: bool


@lru_cache(maxsize=None)
def _rounder(how, real_output):
    """Return the function that takes one number to its code, or back to the grid's real number."""
    divide, add, away, wide = how

    @kernel(forceinline=True)
    def apply(x, factor, zero, low, high, nan, scale):
        if add == FUSED:
            t = fused_multiply_add(x, factor, zero)
        elif add == BEFORE:
            t = (x / factor if divide else x * factor) + zero
        else:
            t = x / factor if divide else x * factor
        if away:
            whole = np.trunc(t)
            r = whole + (np.copysign(np.float32(1), t) if abs(t - whole) >= np.float32(0.5) else np.float32(0))
        else:
            r = half_even(t)
        after = zero if add == AFTER else np.float32(0)
        bottom, top = low - after, high - after
        r = r if r > bottom else bottom
        r = r if r < top else top
        if wide:
            r = r if abs(t) < np.float32(9.223372036854775808e18) else bottom
        code = r + after if t == t else nan
        return (code - zero) * scale if real_output else code

    return apply


@lru_cache(maxsize=None)
def _quantizer(how, real_output):
    """Return the loops over (elements of one channel, channels that lie densest)."""
    apply = _rounder(how, real_output)

    @kernel
    def rows(start, stop, x, out, factor, zero, scale, low, high, nan):
        for row in range(start, stop):
            c = row % factor.size
            f, z, s, source, target = factor[c], zero[c], scale[c], x[row], out[row]
            for i in range(target.size):
                if real_output:
                    target[i] = apply(source[i], f, z, low, high, nan, s)
                else:
                    target[i] = np.int32(apply(source[i], f, z, low, high, nan, s))

    @kernel
    def across(start, stop, x, out, factor, zero, scale, low, high, nan):
        for row in range(start, stop):
            source, target = x[row], out[row]
            for c in range(target.size):
                if real_output:
                    target[c] = apply(source[c], factor[c], zero[c], low, high, nan, scale[c])
                else:
                    target[c] = np.int32(apply(source[c], factor[c], zero[c], low, high, nan, scale[c]))

    return rows, across


@lru_cache(maxsize=None)
def _dequantizer(formula, wide):
    @kernel(forceinline=True)
    def apply(q, s, z, s64):
        if formula == SUB_MUL64:
            return np.float32(np.float64(np.float32(q) - np.float32(z)) * s64)
        if formula == SUB_MUL:
            return np.float32(np.int64(q) - z) * s if wide else (np.float32(q) - np.float32(z)) * s
        shift = s * -np.float32(z)
        return np.float32(q) * s + shift if formula == MUL_ADD else fused_multiply_add(np.float32(q), s, shift)

    @kernel
    def rows(start, stop, q, out, s, z, s64):
        for row in range(start, stop):
            c = row % s.size
            sc, zc, wc, source, target = s[c], z[c], s64[c], q[row], out[row]
            for i in range(target.size):
                target[i] = apply(source[i], sc, zc, wc)

    @kernel
    def across(start, stop, q, out, s, z, s64):
        for row in range(start, stop):
            source, target = q[row], out[row]
            for c in range(target.size):
                target[c] = apply(source[c], s[c], z[c], s64[c])

    return rows, across


def _run(loops, source, out, channels, inner, *parameters):
    rows, across = loops
    if channels == 1:
        # One channel: as many rows as there are threads' worth of work.
        size = source.size
        parts = max(1, size // _GRAIN)
        even = size // parts * parts
        views = [v.reshape(-1) for v in (source, out)]
        if even:
            parallel_for(rows, parts, *(v[:even].reshape(parts, even // parts) for v in views), *parameters)
        if even < size:
            rows(0, 1, *(v[even:].reshape(1, size - even) for v in views), *parameters)
    elif inner == 1:
        views = [v.reshape(-1, channels) for v in (source, out)]
        parallel_for(across, len(views[0]), *views, *parameters, grain=max(1, _GRAIN // channels))
    else:
        views = [v.reshape(-1, inner) for v in (source, out)]
        parallel_for(rows, len(views[0]), *views, *parameters, grain=max(1, _GRAIN // max(1, inner)))


def quantize_codes(x, out, how, factor, zero, limits, nan, inner):
    """Write the codes of real numbers.

    Parameters
    ----------
    x : ndarray of float32
    out : ndarray of int8, uint8, int16 or uint16
        Both C-contiguous, of one size, as the file's picture has it.
    how : Quantizer
    factor, zero : ndarray of float32, (channels,)
    limits : pair of int
        The smallest and the largest code.
    nan : int
        The code of NaN.
    inner : int
        Elements of a channel that lie side by side.
    """
    low, high = (np.float32(v) for v in limits)
    _run(_quantizer(how, False), x, out, factor.size, inner, factor, zero, factor, low, high, np.float32(nan))


def fake_quantize_reals(x, out, how, factor, zero, scale, limits, nan, inner):
    """Write ``(code - zero) * scale`` of the codes that `quantize_codes` would give, float32."""
    low, high = (np.float32(v) for v in limits)
    _run(_quantizer(how, True), x, out, factor.size, inner, factor, zero, scale, low, high, np.float32(nan))


def dequantize_reals(q, out, formula, scale, zero, inner):
    """Write the real numbers of codes.

    Parameters
    ----------
    q : ndarray of int
    out : ndarray of float32
    formula : int
        `SUB_MUL`, `SUB_MUL64`, `MUL_ADD` or `FMA`.
    scale : ndarray of float64, (channels,)
    zero : ndarray of int64, (channels,)
    inner : int
    """
    single = scale.astype(np.float32)
    _run(_dequantizer(formula, q.dtype.itemsize > 2), q, out, scale.size, inner, single, zero, scale)
