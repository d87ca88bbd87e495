"""The plain loops: the product and the output stage as one would write them down, and as they run without a compiler.

    window   [k]            uint8, the k of one row, copied side by side
    weights  [column][k]    int8
    acc      [row][column]  int32
    real     [column]       float32 or float64, one row of them on its way through the output stage
    out      [row][column]  uint8 (int8 as its bytes), int32 or float32

In the output stage a row passes through short loops, one for each step of `refquant.core.epilogue` that the form asks for, so
that each loop is one IEEE operation without a branch. Same results as `refquant.kernels.product` and `refquant.kernels.finish`.
"""

import numpy as np

from refquant.core import epilogue as form
from refquant.kernels.stage import REALS32
from refquant.kernels.jit import kernel
from refquant.kernels.left import fill_offsets
from refquant.kernels.scalar import fused_multiply_add, half_even, wrap32

__all__ = ["plain_product", "plain_requantize"]

_KIND_FLOAT32, _KIND_FLOAT64, _KIND_GEMMLOWP = form.FLOAT32, form.FLOAT64, form.FIXED_GEMMLOWP
_PRE_BIAS, _SCALE1, _SCALE_FMA, _BIAS, _RELU = form.PRE_BIAS, form.SCALE1, form.SCALE_FMA, form.BIAS, form.RELU
_DST_MUL, _DST_DIV, _DST_FMA, _ZERO_FLOAT, _CLAMP = form.DST_MUL, form.DST_DIV, form.DST_FMA, form.ZERO_FLOAT, form.CLAMP
_HALF_EVEN, _HALF_AWAY, _HALF_UP, _HALF_DOWN, _HALF_TO_ZERO, _TRUNCATE, _FLOOR, _CEIL = range(8)


@kernel
def _to_real(acc, ep, v):
    """float32: scale, bias and activation."""
    count = acc.shape[0]
    for j in range(count):
        v[j] = np.float32(acc[j])
    if ep.flags & _PRE_BIAS:
        for j in range(count):
            v[j] = fused_multiply_add(ep.pre_b[j], ep.pre_k, v[j])
    if ep.flags & _SCALE1:
        for j in range(count):
            v[j] = v[j] * ep.s1
    if ep.flags & _SCALE_FMA:
        for j in range(count):
            v[j] = fused_multiply_add(v[j], ep.s2[j], ep.b[j])
    else:
        for j in range(count):
            v[j] = v[j] * ep.s2[j]
        if ep.flags & _BIAS:
            for j in range(count):
                v[j] = v[j] + ep.b[j]
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
        above = mode == _HALF_AWAY or mode == _HALF_UP
        below = mode == _HALF_AWAY or mode == _HALF_DOWN
        for j in range(count):
            whole = np.trunc(v[j])
            part = abs(v[j] - whole)
            away = (part > 0.5) | ((part == 0.5) & ((above & (v[j] > 0)) | (below & (v[j] < 0))))
            v[j] = whole + (1 if v[j] > 0 else -1) if away else whole


@kernel
def _to_code(v, count, ep, out):
    """Integers beyond int32 and NaN become ``-2**31``; then zero point and limits."""
    low = max(ep.qlo - ep.zi, -(2**31))
    high = min(ep.qhi - ep.zi, 2**31 - 1)
    for j in range(count):
        q = np.int64(np.int32(v[j]) if (v[j] >= -2147483648.0) & (v[j] < 2147483648.0) else np.int32(-2147483648))
        out[j] = np.int64(min(max(q, low), high) + ep.zi)


@kernel
def _fixed_point(acc, ep, out):
    """Integer multiplier and exponent: ``gemmlowp_multiply`` and ``half_up_multiply`` of the core."""
    for j in range(acc.shape[0]):
        shift = np.int64(ep.shift[j])
        left = np.int64(wrap32(np.int64(acc[j]) << max(shift, 0)))
        right = max(-shift, 0)
        half = (np.int64(1) << right) >> 1
        product = left * np.int64(ep.mult[j])
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
def _finish_row(acc, out, ep, real, wide, as_float):
    """Carry out an output stage, after its ``bias_i``, on one row.

    Parameters
    ----------
    acc : ndarray of int32, (n,)
        Accumulators of all channels, with ``bias_i`` already added.
    out : ndarray, (n,)
    ep : Epilogue
    real, wide : ndarray of float32 and float64, (≥ n,)
        Working rows.
    as_float : bool
        `out` is float32 and takes the real number before the output scale.
    """
    count = acc.shape[0]
    if ep.kind == _KIND_FLOAT32:
        _to_real(acc, ep, real)
        if as_float:
            for j in range(count):
                out[j] = real[j]
        else:
            if ep.flags & _DST_FMA:
                for j in range(count):
                    real[j] = fused_multiply_add(real[j], ep.d, ep.zf)
            _to_output_grid(real, count, ep, ep.d, ep.zf, ep.lo, ep.hi)
            _round_row(real, count, ep.rounding)
            _to_code(real, count, ep, out)
    elif ep.kind == _KIND_FLOAT64:
        for j in range(count):
            wide[j] = np.float64(acc[j]) * ep.m64[j]
        _to_output_grid(wide, count, ep, np.float64(ep.d), np.float64(ep.zf), np.float64(ep.lo), np.float64(ep.hi))
        _round_row(wide, count, ep.rounding)
        _to_code(wide, count, ep, out)
    else:
        _fixed_point(acc, ep, out)


@kernel
def plain_product(first, last, field, left, right, start, out):
    """Rows × groups, one at a time; `out` is int32."""
    columns, k = right.columns, right.data.shape[1]
    offset = np.empty(1, np.int64)
    window = np.empty(k, np.uint8)
    for unit in range(first, last):
        m, g = unit // right.groups, unit % right.groups
        fill_offsets(left, m, offset)
        for q in range(k):
            run, at = q // left.length, q % left.length
            window[q] = field[offset[0] + left.runs[run] + at + g * left.group_step]
        for j in range(columns):
            n = g * columns + j
            weights, total = right.data[n], np.int64(start[g, j])
            for q in range(k):
                total += np.int64(window[q]) * np.int64(weights[q])
            if right.row_sums.shape[1] > 0:
                total -= np.int64(right.row_sums[g, m]) * np.int64(right.zeros[n])
            out[m, n] = wrap32(np.int64(total))


@kernel
def plain_requantize(first, last, acc, out, kind, ep):
    """The output stage alone, row by row."""
    columns = acc.shape[1]
    tile, real, wide = np.empty(columns, np.int32), np.empty(columns, np.float32), np.empty(columns, np.float64)
    for m in range(first, last):
        for j in range(columns):
            tile[j] = wrap32(np.int64(acc[m, j]) + np.int64(ep.bias_i[j]))
        _finish_row(tile, out[m], ep, real, wide, kind == REALS32)
