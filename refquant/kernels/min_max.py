"""Least and greatest of a tensor, or of each of its channels, in one pass over memory.

    x       [outer][channel][inner]    float32, C order; one channel of all elements for the whole tensor
    low, high    [part][channel]       float32, one row for each part of the work, joined at the end

A row of neighbours goes through four registers each of least, greatest and "not a number". A NaN anywhere makes both results
NaN, as in PyTorch's ``aminmax``. Of two zeros either sign may come out.
"""

import numpy as np
from numba.core import types

from refquant.kernels.jit import get_num_threads, jit_disabled, kernel, parallel_for
from refquant.kernels.signature import as_input
from refquant.kernels.vector_ir import F32, I1, I32, emitted_function, vector

__all__ = ["min_max", "min_max_channels"]

_LANES, _REGISTERS = 16, 4
_GRAIN = 1 << 16


def _emit(e, x, count, out):
    kind = vector(F32, _LANES)
    b, step = e.builder, _LANES * _REGISTERS
    first = e.load(x, F32)
    low, high = ([e.variable(e.splat(first, _LANES)) for _ in range(_REGISTERS)] for _ in range(2))
    bad = [e.variable(e.constant(0, vector(I1, _LANES))) for _ in range(_REGISTERS)]
    whole = e.both(count, -step)

    def take(i, value):
        now_low, now_high = e.get(low[i]), e.get(high[i])
        e.set(low[i], b.select(b.fcmp_ordered("<", value, now_low), value, now_low))
        e.set(high[i], b.select(b.fcmp_ordered(">", value, now_high), value, now_high))
        e.set(bad[i], b.or_(e.get(bad[i]), b.fcmp_unordered("uno", value, value)))

    with e.loop(whole, step=step) as at:
        for i in range(_REGISTERS):
            take(i, e.load(e.add(x, e.mul(e.add(at, i * _LANES), 4)), kind))
    with e.loop(count, start=whole) as at:
        take(0, e.splat(e.load(e.add(x, e.mul(at, 4)), F32), _LANES))
    for i in range(1, _REGISTERS):
        take(0, e.get(low[i]))
        take(0, e.get(high[i]))
        e.set(bad[0], b.or_(e.get(bad[0]), e.get(bad[i])))
    least, greatest = e.get(low[0]), e.get(high[0])
    nan = e.constant(float("nan"), F32)
    any_bad = e.variable(e.constant(0, I1))
    result = [e.variable(first), e.variable(first)]
    for lane in range(_LANES):
        index = e.constant(lane, I32)
        for slot, vector_, sign in ((result[0], least, "<"), (result[1], greatest, ">")):
            value, now = b.extract_element(vector_, index), e.get(slot)
            e.set(slot, b.select(b.fcmp_ordered(sign, value, now), value, now))
        e.set(any_bad, b.or_(e.get(any_bad), b.extract_element(e.get(bad[0]), index)))
    for i, slot in enumerate(result):
        e.store(b.select(e.get(any_bad), nan, e.get(slot)), e.add(out, 4 * i))


_row_min_max = emitted_function("row_min_max", types.none, [types.int64] * 3, _emit)
"""``(x, count, out)``: addresses of at least one float32 and of two, the least and the greatest."""


@kernel
def _rows(first, last, x, out):
    """x (rows, inner) and out (rows, 2)."""
    for row in range(first, last):
        _row_min_max(x[row].ctypes.data, x.shape[1], out[row].ctypes.data)


@kernel
def _across(first, last, x, low, high):
    """x (rows, channels) in as many parts as `low` and `high` have rows; NaN stays, for nothing is less than it."""
    parts = low.shape[0]
    for part in range(first, last):
        least, greatest = low[part], high[part]
        for row in range(x.shape[0] * part // parts, x.shape[0] * (part + 1) // parts):
            line = x[row]
            for c in range(line.shape[0]):
                v = line[c]
                least[c] = v if (v < least[c]) | (v != v) else least[c]
                greatest[c] = v if (v > greatest[c]) | (v != v) else greatest[c]


def min_max(x):
    """Find the least and the greatest element.

    Parameters
    ----------
    x : ndarray of float32
        At least one element; any strides.

    Returns
    -------
    low, high : float32
        NaN, both, if there is one in `x`.
    """
    if jit_disabled():
        return x.min(), x.max()
    flat = as_input(x.ravel(order="K"))
    parts = max(1, min(get_num_threads(), flat.size // _GRAIN))
    even = flat.size // parts * parts
    out = np.empty((parts + 1, 2), np.float32)
    parallel_for(_rows, parts, flat[:even].reshape(parts, -1), out)
    _rows(0, 1, flat[even - 1 :].reshape(1, -1), out[parts:])
    return out[:, 0].min(), out[:, 1].max()


def min_max_channels(x, axis):
    """Find the least and the greatest element of each channel.

    Parameters
    ----------
    x : ndarray of float32
        Any strides; channels must have elements.
    axis : int
        Of the channels.

    Returns
    -------
    low, high : ndarray of float32, (channels,)
        NaN, both, where a channel has one.
    """
    axis %= x.ndim
    if jit_disabled():
        others = tuple(i for i in range(x.ndim) if i != axis)
        return x.min(axis=others), x.max(axis=others)
    last = x.transpose(*(i for i in range(x.ndim) if i != axis), axis)
    if last.flags.c_contiguous:
        return _channels_last(as_input(last.reshape(-1, last.shape[-1])))
    x = as_input(x)
    channels, inner = x.shape[axis], int(np.prod(x.shape[axis + 1 :]))
    if inner == 1:
        return _channels_last(x.reshape(-1, channels))
    rows = x.reshape(-1, inner)
    out = np.empty((rows.shape[0], 2), np.float32)
    parallel_for(_rows, rows.shape[0], rows, out, grain=1 + _GRAIN // inner)
    out = out.reshape(-1, channels, 2)
    return out[:, :, 0].min(axis=0), out[:, :, 1].max(axis=0)


def _channels_last(x):
    parts = max(1, min(get_num_threads(), x.size // _GRAIN, len(x)))
    low, high = (x[:1].repeat(parts, axis=0) for _ in range(2))
    parallel_for(_across, parts, x, low, high)
    return low.min(axis=0), high.max(axis=0)
