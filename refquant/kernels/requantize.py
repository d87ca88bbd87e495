"""The output stage: from int32 accumulators to output codes, one row of channels after the other.

    acc     [row][channel]   int32, channel innermost
    real    [channel]        float32 or float64, a working row that stays in the L1 cache
    out     [row][channel]   uint8 (int8 as its bytes), int32 or float32

A row passes through short loops, one for each step of `refquant.core.epilogue` that the form asks for, so that
each loop is one IEEE operation without a branch.
"""

import numpy as np

from refquant.core import epilogue as form
from refquant.core.epilogue import Epilogue
from refquant.kernels.jit import kernel, parallel_for
from refquant.kernels.scalar import fused_multiply_add, half_even, wrap32

__all__ = ["requantize", "finish_row"]

_KIND_FLOAT32, _KIND_FLOAT64, _KIND_GEMMLOWP = form.FLOAT32, form.FLOAT64, form.FIXED_GEMMLOWP
_PRE_BIAS, _SCALE1, _SCALE_FMA, _BIAS, _RELU = form.PRE_BIAS, form.SCALE1, form.SCALE_FMA, form.BIAS, form.RELU
_DST_MUL, _DST_DIV, _ZERO_FLOAT, _CLAMP = form.DST_MUL, form.DST_DIV, form.ZERO_FLOAT, form.CLAMP
_HALF_EVEN, _HALF_AWAY, _HALF_UP, _HALF_DOWN, _HALF_TO_ZERO, _TRUNCATE, _FLOOR, _CEIL = range(8)
_CHUNK = 512


@kernel
def _add_bias(acc, n0, bias_i, biased):
    for j in range(biased.shape[0]):
        biased[j] = wrap32(np.int64(acc[j]) + np.int64(bias_i[n0 + j]))


@kernel
def _to_real(acc, n0, ep, v):
    """float32: scale, bias and activation."""
    count = acc.shape[0]
    for j in range(count):
        v[j] = np.float32(acc[j])
    if ep.flags & _PRE_BIAS:
        for j in range(count):
            v[j] = fused_multiply_add(ep.pre_b[n0 + j], ep.pre_k, v[j])
    if ep.flags & _SCALE1:
        for j in range(count):
            v[j] = v[j] * ep.s1
    if ep.flags & _SCALE_FMA:
        for j in range(count):
            v[j] = fused_multiply_add(v[j], ep.s2[n0 + j], ep.b[n0 + j])
    else:
        for j in range(count):
            v[j] = v[j] * ep.s2[n0 + j]
        if ep.flags & _BIAS:
            for j in range(count):
                v[j] = v[j] + ep.b[n0 + j]
    if ep.flags & _RELU:
        for j in range(count):
            v[j] = v[j] if v[j] > 0 else np.float32(0)


@kernel
def _to_output_grid(v, count, ep, d, zf, lo, hi):
    """float32 or float64: output scale, float zero point, clamp."""
    if ep.flags & _DST_MUL:
        for j in range(count):
            v[j] = v[j] * d
    if ep.flags & _DST_DIV:
        for j in range(count):
            v[j] = v[j] / d
    if ep.flags & _ZERO_FLOAT:
        for j in range(count):
            v[j] = v[j] + zf
    if ep.flags & _CLAMP:
        for j in range(count):
            v[j] = v[j] if v[j] > lo else lo
        for j in range(count):
            v[j] = v[j] if v[j] < hi else hi


@kernel
def _round_row(v, count, mode):
    """Same result as `refquant.core.rounding.round_real`."""
    if mode == _HALF_EVEN:
        for j in range(count):
            v[j] = half_even(v[j])
    elif mode == _TRUNCATE:
        for j in range(count):
            v[j] = np.trunc(v[j])
    elif mode == _FLOOR:
        for j in range(count):
            v[j] = np.floor(v[j])
    elif mode == _CEIL:
        for j in range(count):
            v[j] = np.ceil(v[j])
    else:
        up_above = mode == _HALF_UP or mode == _HALF_AWAY
        up_below = mode == _HALF_UP or mode == _HALF_TO_ZERO
        for j in range(count):
            below = np.floor(v[j])
            fraction = v[j] - below
            half_up = (fraction == 0.5) & ((up_above & (v[j] > 0)) | (up_below & (v[j] < 0)))
            v[j] = below + 1 if (fraction > 0.5) | half_up else below


@kernel
def _to_code(v, count, ep, out):
    """Integers beyond int32 and NaN become ``-2**31``; then zero point and limits."""
    low = max(ep.qlo - ep.zi, -(2**31))
    high = min(ep.qhi - ep.zi, 2**31 - 1)
    for j in range(count):
        q = np.int64(np.int32(v[j]) if (v[j] >= -2147483648.0) & (v[j] < 2147483648.0) else np.int32(-2147483648))
        out[j] = np.int64(min(max(q, low), high) + ep.zi)


@kernel
def _fixed_point(acc, n0, ep, out):
    """Integer multiplier and exponent: ``gemmlowp_multiply`` and ``half_up_multiply`` of the core."""
    for j in range(acc.shape[0]):
        shift = np.int64(ep.shift[n0 + j])
        left = np.int64(wrap32(np.int64(acc[j]) << max(shift, 0)))
        right = max(-shift, 0)
        half = (np.int64(1) << right) >> 1
        product = left * np.int64(ep.mult[n0 + j])
        if ep.kind == _KIND_GEMMLOWP:
            nudged = product + (np.int64(1 << 30) if product >= 0 else np.int64(1 - (1 << 30)))
            high = (nudged + ((nudged >> 63) & 0x7FFFFFFF)) >> 31
            high = min(high, 0x7FFFFFFF)
            q = ((abs(high) + half) >> right) * (1 if high >= 0 else -1)
        else:
            high = (product + (1 << 30)) >> 31
            q = (high + half) >> right
        out[j] = np.int64(min(max(q + ep.zi, ep.qlo), ep.qhi))


@kernel
def finish_row(acc, n0, out, ep, real, wide, as_float):
    """Carry out an output stage, after its ``bias_i``, on one row.

    Parameters
    ----------
    acc : ndarray of int32, (n,)
        Accumulators of the channels `n0`, `n0` + 1, …, with ``bias_i`` already added.
    n0 : int
    out : ndarray, (n,)
    ep : Epilogue
    real, wide : ndarray of float32 and float64, (≥ n,)
        Working rows.
    as_float : bool
        `out` is float32 and takes the real number before the output scale.
    """
    count = acc.shape[0]
    if ep.kind == _KIND_FLOAT32:
        _to_real(acc, n0, ep, real)
        if as_float:
            for j in range(count):
                out[j] = real[j]
        else:
            _to_output_grid(real, count, ep, ep.d, ep.zf, ep.lo, ep.hi)
            _round_row(real, count, ep.rounding)
            _to_code(real, count, ep, out)
    elif ep.kind == _KIND_FLOAT64:
        for j in range(count):
            wide[j] = np.float64(acc[j]) * ep.m64[n0 + j]
        _to_output_grid(wide, count, ep, np.float64(ep.d), np.float64(ep.zf), np.float64(ep.lo), np.float64(ep.hi))
        _round_row(wide, count, ep.rounding)
        _to_code(wide, count, ep, out)
    else:
        _fixed_point(acc, n0, ep, out)


@kernel
def _requantize_rows(start, stop, acc, out, ep, as_float):
    channels = acc.shape[1]
    biased = np.empty(_CHUNK, np.int32)
    real = np.empty(_CHUNK, np.float32)
    wide = np.empty(_CHUNK, np.float64)
    for m in range(start, stop):
        for n0 in range(0, channels, _CHUNK):
            n1 = min(n0 + _CHUNK, channels)
            _add_bias(acc[m, n0:n1], n0, ep.bias_i, biased[: n1 - n0])
            finish_row(biased[: n1 - n0], n0, out[m, n0:n1], ep, real, wide, as_float)


def as_input(array):
    """Return `array` C-contiguous and read-only, a copy only where it must be: one Numba type for all inputs."""
    array = np.ascontiguousarray(array).view()
    array.setflags(write=False)
    return array


def freeze_epilogue(ep):
    """Return `ep` with read-only vectors: one Numba type for all output stages."""
    if any(ep[i].flags.writeable for i in _VECTORS):
        return Epilogue._make([as_input(value) if i in _VECTORS else value for i, value in enumerate(ep)])
    return ep


_VECTORS = tuple(Epilogue._fields.index(name) for name in ("bias_i", "pre_b", "s2", "b", "m64", "mult", "shift"))


def empty_output(shape, dtype):
    """Return an uninitialised output of `dtype`, and the same memory under the type that kernels write."""
    out = np.empty(shape, dtype)
    return out, out.view(np.uint8) if out.dtype == np.int8 else out


def requantize(acc, epilogue, dtype):
    """Turn int32 accumulators into output codes: `refquant.core.epilogue.apply_epilogue`, bit for bit.

    Parameters
    ----------
    acc : ndarray of int32, (..., N)
        Channels last.
    epilogue : Epilogue
    dtype : numpy.dtype
        uint8, int8, int32 or float32; float32 stops before the output scale.

    Returns
    -------
    ndarray of `dtype`, (..., N)
    """
    channels = acc.shape[-1]
    rows = as_input(acc.reshape(-1, channels) if channels else acc.reshape(0, 0))
    out, codes = empty_output(acc.shape, dtype)
    grain = max(1, 32768 // max(channels, 1))
    parallel_for(
        _requantize_rows, rows.shape[0], rows, codes.reshape(rows.shape), freeze_epilogue(epilogue),
        out.dtype == np.float32, grain=grain,
    )  # fmt: skip
    return out
