"""Where a convolution reads: its input as padded channels-last memory, and the windows in it.

    field    [N][D'][H'][W'][C]      uint8, D' = D + both paddings and so on; every padded byte is the input's zero point
    window of the output pixel (n, d, h, w), tap (i, j, k):
             field[n][d * sd + i * dd][h * sh + j * dh][w * sw + k * dw]

Convolutions of one and two dimensions are those of three with leading extents of 1. Because the padding holds the zero point
itself, ``x - x_zero`` is 0 there and no term of the product needs to know about borders.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from refquant.kernels.jit import kernel, parallel_for
from refquant.kernels.left import Left
from refquant.kernels.signature import as_input

__all__ = ["Geometry", "make_geometry", "make_field", "window_rows", "channels_last_output"]

_SLACK = 64
_NO_PADDING = ((0, 0),) * 3


class Geometry(NamedTuple):
    """A convolution's extents, three dimensions each: kernel, step from window to window, step from tap to tap, output, paddings."""

    kernel: tuple
    stride: tuple
    dilation: tuple
    out: tuple
    padding: tuple
    dims: int


def _three(values, filler):
    return (filler,) * (3 - len(values)) + tuple(values)


@lru_cache(maxsize=1024)
def make_geometry(spatial, kernel_shape, stride, padding, dilation):
    """Compute a geometry; all arguments are tuples with one entry, for paddings a pair, per spatial dimension."""
    steps = [_three([int(v) for v in values], 1) for values in (kernel_shape, stride, dilation)]
    padding = _three([(int(lo), int(hi)) for lo, hi in padding], (0, 0))
    size = [n + lo + hi for n, (lo, hi) in zip(_three([int(n) for n in spatial], 1), padding)]
    out = tuple(max(0, (n - d * (k - 1) - 1) // s + 1) for n, k, s, d in zip(size, *steps))
    return Geometry(*steps, out, padding, len(spatial))


class Field(NamedTuple):
    """Channels-last memory: its bytes, its shape (N, D', H', W', C), whether bytes behind its end may be read, its zero point."""

    data: np.ndarray
    shape: tuple
    loose: bool
    x_zero: int


@kernel
def _fill_rows(first, last, x, channels_last, flip, x_zero, size, shape, lows, field):
    """Fill rows (n, d, h) of the field from (N, D, H, W, C) or (N, C, D, H, W) and the padding."""
    depth, height, width = size
    _, deep, high, wide, channels = shape
    mask = np.uint8(flip)
    before, inside, line = lows[2] * channels, width * channels, wide * channels
    for row in range(first, last):
        n, d, h = row // (deep * high), row // high % deep - lows[0], row % high - lows[1]
        target = field[row * line : (row + 1) * line]
        if d < 0 or d >= depth or h < 0 or h >= height:
            target[:] = x_zero
            continue
        target[:before] = x_zero
        target[before + inside :] = x_zero
        middle = target[before : before + inside]
        if channels_last:
            begin = ((n * depth + d) * height + h) * inside
            source = x[begin : begin + inside]
            for i in range(inside):
                middle[i] = source[i] ^ mask
        else:
            for c in range(channels):
                begin = (((n * channels + c) * depth + d) * height + h) * width
                source, plane = x[begin : begin + width], middle[c:]
                for w in range(width):
                    plane[w * channels] = source[w] ^ mask


def make_field(x, padding, x_zero, repeat=1, loose=False):
    """Bring an input to channels-last memory with its padding.

    Parameters
    ----------
    x : ndarray of uint8 or int8, (N, C, ...)
        Any strides. Channels-last uint8 without padding is taken as it is.
    padding : tuple of three pairs of int
    x_zero : int
        128 more in the result for int8, whose codes are stored 128 more.
    repeat : int
        How many copies of each channel lie side by side.
    loose : bool
        Whether 64 bytes behind the end must be readable, which takes a copy.

    Returns
    -------
    Field
    """
    if repeat > 1:
        x = np.repeat(x, repeat, axis=1)
    flip = 0
    if x.dtype == np.int8:
        x, flip, x_zero = x.view(np.uint8), 0x80, x_zero + 128
    memory = x.transpose(0, *range(2, x.ndim), 1)
    channels_last = memory.flags.c_contiguous
    if not channels_last:
        memory = x if x.flags.c_contiguous else np.ascontiguousarray(x)
    batch, channels, *size = x.shape
    size = (1,) * (3 - len(size)) + tuple(size)
    if channels_last and not (flip or loose) and padding == _NO_PADDING:
        return Field(as_input(memory).reshape(-1), (batch, *size, channels), False, x_zero)
    lows = tuple(lo for lo, _ in padding)
    shape = (batch, *[n + lo + hi for n, (lo, hi) in zip(size, padding)], channels)
    rows = batch * shape[1] * shape[2]
    data = np.empty(rows * shape[3] * channels + _SLACK, np.uint8)
    source = as_input(memory).reshape(-1)
    parallel_for(_fill_rows, rows, source, channels_last, flip, x_zero & 0xFF, size, shape, lows, data, grain=16)
    data.setflags(write=False)
    return Field(data, shape, True, x_zero)


@lru_cache(maxsize=1024)
def window_rows(shape, loose, geometry, groups):
    """The windows of all output pixels, as the rows of a product, in a field of `shape`."""
    batch, depth, height, width, channels = shape
    (kd, kh, kw), (sd, sh, sw), (dd, dh, dw) = geometry.kernel, geometry.stride, geometry.dilation
    line, plane = width * channels, height * width * channels
    runs = np.add.outer(np.arange(kd) * (dd * plane), np.arange(kh) * (dh * line))
    length = channels // groups
    if groups == 1 and (dw == 1 or kw == 1):
        length *= kw
    else:
        runs = np.add.outer(runs, np.arange(kw) * (dw * channels))
    rows = batch * int(np.prod(geometry.out))
    steps = (depth * plane, sd * plane, sh * line, sw * channels)
    return tuple(Left(as_input(runs.reshape(-1)), length, loose, rows, geometry.out, steps, channels // groups))


def channels_last_output(batch, geometry, channels, dtype):
    """Return an uninitialised output (N, OC, *out) in channels-last memory, and that memory, (N, *out, OC)."""
    memory = np.empty((batch, *geometry.out[3 - geometry.dims :], channels), dtype)
    return memory.transpose(0, geometry.dims + 1, *range(1, geometry.dims + 1)), memory
