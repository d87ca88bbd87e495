"""Sums and maxima over windows.

    x      [outer][H][W][inner]      8-bit codes; channels last: outer = N, inner = C; contiguous: outer = N * C, inner = 1
    out    [outer][OH][OW][inner]    int64 sums, or codes

A window takes in the rows ``first[0][i] … last[0][i] - 1`` and columns likewise: all of them for a sum, steps of the dilation for
a maximum. The innermost loop runs over `inner`, or over the columns of a window where that is 1.
"""

import numpy as np

from refquant.core.layout import is_channels_last
from refquant.kernels.jit import kernel, parallel_for

__all__ = ["sum_windows", "max_windows"]

_GRAIN = 1 << 15


@kernel
def _sum(start, stop, x, r0, r1, c0, c1, out):
    _, height, width, inner = out.shape
    row = np.empty(inner, np.int32)
    for unit in range(start, stop):
        n, i = unit // height, unit % height
        for j in range(width):
            target = out[n, i, j]
            target[:] = 0
            for h in range(r0[i], r1[i]):
                # Sums of one row of a window fit int32: there are fewer than 2**23 columns of 8 bits.
                row[:] = 0
                for w in range(c0[j], c1[j]):
                    source = x[n, h, w]
                    for c in range(inner):
                        row[c] += np.int32(source[c])
                for c in range(inner):
                    target[c] += row[c]


@kernel
def _max(start, stop, x, stride, padding, dilation, taps, lowest, out):
    _, height, width, inner = out.shape
    rows, columns = x.shape[1], x.shape[2]
    for unit in range(start, stop):
        n, i = unit // height, unit % height
        for j in range(width):
            target = out[n, i, j]
            target[:] = lowest
            for a in range(taps[0]):
                h = i * stride[0] + a * dilation[0] - padding[0]
                if h < 0 or h >= rows:
                    continue
                for b in range(taps[1]):
                    w = j * stride[1] + b * dilation[1] - padding[1]
                    if w < 0 or w >= columns:
                        continue
                    source = x[n, h, w]
                    for c in range(inner):
                        target[c] = max(target[c], source[c])


def _framed(x):
    """Return `x` (N, C, H, W) as (outer, H, W, inner) in C order, and the way back to four dimensions."""
    if is_channels_last(x):
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1)), lambda y: y.transpose(0, 3, 1, 2)
    n, c, h, w = x.shape
    return np.ascontiguousarray(x).reshape(n * c, h, w, 1), lambda y: y.reshape(n, c, *y.shape[1:3])


def sum_windows(x, rows, columns):
    """Sum 8-bit codes over rectangular windows.

    Parameters
    ----------
    x : ndarray of uint8 or int8, (N, C, H, W)
        Any strides.
    rows, columns : pair of ndarray of int64
        First and one behind the last of each window along either axis.

    Returns
    -------
    ndarray of int64, (N, C, len(rows[0]), len(columns[0]))
        In the memory format of `x`.
    """
    framed, back = _framed(x)
    out = np.empty((framed.shape[0], len(rows[0]), len(columns[0]), framed.shape[3]), np.int64)
    work = x.size * len(columns[0]) // max(1, framed.shape[2]) + out.size
    units = out.shape[0] * out.shape[1]
    parallel_for(_sum, units if out.size else 0, framed, *rows, *columns, out, grain=1 + units * _GRAIN // (work + 1))
    return back(out)


def max_windows(x, taps, stride, padding, dilation, size):
    """Take the maximum of 8-bit codes over windows; padding does not count.

    Parameters
    ----------
    x : ndarray of uint8 or int8, (N, C, H, W)
        Any strides.
    taps, stride, padding, dilation, size : pair of int
        Of the windows; `size` is the output's height and width.

    Returns
    -------
    ndarray like `x`, (N, C, *size)
        In the memory format of `x`.
    """
    framed, back = _framed(x)
    out = np.empty((framed.shape[0], *size, framed.shape[3]), x.dtype)
    units = out.shape[0] * out.shape[1]
    grain = 1 + units * _GRAIN // (out.size * taps[0] * taps[1] + 1)
    pairs = [tuple(int(v) for v in pair) for pair in (stride, padding, dilation, taps)]
    parallel_for(_max, units if out.size else 0, framed, *pairs, np.iinfo(x.dtype).min, out, grain=grain)
    return back(out)
