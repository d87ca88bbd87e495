"""The affine map in one pass over memory.

    x, out    [outer][channel][inner]    float32 and codes (or the other way round), C order
    scale …   [channel]                  one entry where the parameters are per tensor

Where the channels lie densest (inner = 1) the loop runs over channels, else over `inner` with the channel's parameters held.
The loops are plain; LLVM turns them into vectors. What a form does stands in constants that a loop is compiled for.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba.core import types

from refquant.kernels.jit import jit_disabled, kernel, parallel_for
from refquant.kernels.quantize_bytes import BLOCK, quantizing_blocks
from refquant.kernels.scalar import fused_multiply_add, half_even, wrap32
from refquant.kernels.vector_ir import emitted_function

__all__ = ["Quantizer", "quantize_codes", "fake_quantize_reals", "dequantize_reals", "AFTER", "BEFORE", "FUSED", "SATURATE", "BY_INT64", "INDEFINITE", "SUB_MUL", "SUB_MUL_WIDE", "SUB_MUL32", "SUB_MUL64", "MUL_ADD", "FMA"]

AFTER, BEFORE, FUSED = range(3)
SATURATE, BY_INT64, INDEFINITE = range(3)
SUB_MUL, SUB_MUL_WIDE, SUB_MUL32, SUB_MUL64, MUL_ADD, FMA = range(6)
_GRAIN, _ROW = 1 << 14, 1 << 12
_FETCHES = not jit_disabled()


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
    overflow : int
        `SATURATE`; `BY_INT64`: values of at least 2**63 become the smallest code; `INDEFINITE`: values beyond int32, and NaN, become −2**31, to which the
        zero point is added with wrap-around.
    """

    divide: bool
    add: int
    away: bool
    overflow: int


def _emit_fetch(e, address, count):
    with e.loop(count, step=64) as i:
        e.prefetch(e.add(address, i))


_fetch_lines = emitted_function("fetch_lines", types.none, [types.int64] * 2, _emit_fetch)
"""``(address, bytes)``: ask for memory, which need not exist, before it is read; the next row while this one is computed."""


@lru_cache(maxsize=None)
def _quantizer(how, across, real_output):
    """Return the loop that quantizes rows: rows of one channel each, or (`across`) of all channels side by side."""
    divide, add, away, overflow = how

    @kernel
    def run(start, stop, x, out, factor, zero, scale, low, high, nan):
        half, huge, large = np.float32(0.5), np.float32(2.0**63), np.float32(2.0**31)
        # The largest float32 below 2**31; with a zero point of more than 127 its sum leaves int32.
        top, last = np.float32(2147483520.0), np.float32(127)
        for row in range(start, stop):
            c = 0 if across else row % factor.size
            f, z, s, source, target = factor[c], zero[c], scale[c], x[row], out[row]
            if _FETCHES:
                _fetch_lines(source.ctypes.data + 4 * source.size, 4 * min(source.size, _ROW))
            for i in range(target.size):
                if across:
                    f, z, s = factor[i], zero[i], scale[i]
                v = source[i]
                if add == FUSED:
                    t = fused_multiply_add(v, f, z)
                elif add == BEFORE:
                    t = (v / f if divide else v * f) + z
                else:
                    t = v / f if divide else v * f
                if away:
                    r = np.trunc(t)
                    r = r + (np.copysign(np.float32(1), t) if abs(t - r) >= half else np.float32(0))
                else:
                    r = half_even(t)
                after = z if add == AFTER else np.float32(0)
                whole = r
                r = r if r > low - after else low - after
                r = r if r < high - after else high - after
                if overflow == BY_INT64:
                    r = r if abs(t) < huge else low - after
                if overflow == INDEFINITE:
                    beyond = (high if after < 0 else low) - after
                    r = r if abs(whole) < large and not (whole == top and after > last) else beyond
                else:
                    r = r if t == t else nan - after
                r = r + after
                target[i] = (r - z) * s if real_output else np.int32(r)

    return run


@lru_cache(maxsize=None)
def _dequantizer(formula, across, wide):
    """Return the loop that dequantizes rows; `wide` codes have more than 16 bits."""

    @kernel
    def run(start, stop, q, out, scale, zero, scale64):
        for row in range(start, stop):
            c = 0 if across else row % scale.size
            s, z, s64, source, target = scale[c], zero[c], scale64[c], q[row], out[row]
            for i in range(target.size):
                if across:
                    s, z, s64 = scale[i], zero[i], scale64[i]
                code, zf = np.float32(source[i]), np.float32(z)
                if formula == SUB_MUL64:
                    target[i] = np.float32(np.float64(code - zf) * s64)
                elif formula == SUB_MUL_WIDE:
                    target[i] = (np.float32(np.int64(source[i]) - z) if wide else code - zf) * s
                elif formula == SUB_MUL32:
                    target[i] = (code - zf) * s
                elif formula == SUB_MUL:
                    target[i] = (np.float32(wrap32(np.int64(source[i]) - z)) if wide else code - zf) * s
                elif formula == MUL_ADD:
                    target[i] = code * s + s * -zf
                else:
                    target[i] = fused_multiply_add(code, s, s * -zf)

    return run


def _run(loop, source, out, channels, inner, *parameters):
    """Cut two arrays into rows and run ``loop(across)`` over them, always by `parallel_for`, so that it is compiled once."""
    size = source.size
    if not size:
        return
    if channels > 1:
        width = channels if inner == 1 else inner
        parallel_for(loop(inner == 1), size // width, source.reshape(-1, width), out.reshape(-1, width), *parameters, grain=max(1, _GRAIN // width))
        return
    even = size // _ROW * _ROW
    views = source.reshape(-1), out.reshape(-1)
    if even:
        parallel_for(loop(False), even // _ROW, *(v[:even].reshape(-1, _ROW) for v in views), *parameters, grain=_GRAIN // _ROW)
    if even < size:
        parallel_for(loop(False), 1, *(v[even:].reshape(1, size - even) for v in views), *parameters)


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
        The code of NaN, unless it goes the way of overflow.
    inner : int
        Elements of a channel that lie side by side.
    """
    low, high = (np.float32(v) for v in limits)
    done = _by_blocks(x, out, how, factor, zero, limits, nan)
    if done:
        x, out = x.reshape(-1)[done:], out.reshape(-1)[done:]
    _run(lambda across: _quantizer(how, across, False), x, out, factor.size, inner, factor, zero, factor, low, high, np.float32(nan))


def _by_blocks(x, out, how, factor, zero, limits, nan):
    """Quantize whole blocks, where there is such a loop for the form; return how many elements are done."""
    if factor.size > 1 or out.itemsize > 1 or how.away or how.overflow != SATURATE or nan not in limits:
        return 0
    run = quantizing_blocks(how.divide, ("after", "before", "fused")[how.add], nan == limits[1])
    blocks = x.size // BLOCK
    if run is None or not blocks:
        return 0
    flip, z = 128 if limits[0] < 0 else 0, zero[0]
    inside, after = (np.float32(0), int(z)) if how.add == AFTER else (z, 0)
    codes = out.reshape(-1).view(np.uint8)
    parallel_for(
        run, blocks, x.reshape(-1), codes, factor[0], inside, after + flip, limits[0] + flip, limits[1] + flip, flip, grain=_GRAIN // BLOCK
    )  # fmt: skip
    return blocks * BLOCK


def fake_quantize_reals(x, out, how, factor, zero, scale, limits, nan, inner):
    """Write ``(code - zero) * scale`` of the codes that `quantize_codes` would give, float32."""
    low, high = (np.float32(v) for v in limits)
    _run(lambda across: _quantizer(how, across, True), x, out, factor.size, inner, factor, zero, scale, low, high, np.float32(nan))


def dequantize_reals(q, out, formula, scale, zero, inner):
    """Write the real numbers of codes.

    Parameters
    ----------
    q : ndarray of int
    out : ndarray of float32
    formula : int
        `SUB_MUL`, `SUB_MUL_WIDE`, `SUB_MUL32`, `SUB_MUL64`, `MUL_ADD` or `FMA`.
    scale : ndarray of float64, (channels,)
    zero : ndarray of int64, (channels,)
    inner : int
    """
    single = scale.astype(np.float32)
    _run(lambda across: _dequantizer(formula, across, q.dtype.itemsize > 2), q, out, scale.size, inner, single, zero, scale)
