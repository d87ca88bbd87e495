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


@kernel
def _copy_last(first, last, x, flip, lows, field):
    """(N, D, H, W, C) into the middle of the field."""
    d0, h0, w0 = lows
    _, depth, height, width, channels = x.shape
    for row in range(first, last):
        n, d, h = row // (depth * height), row // height % depth, row % height
        for w in range(width):
            for c in range(channels):
                field[n, d + d0, h + h0, w + w0, c] = x[n, d, h, w, c] ^ flip


@kernel
def _copy_first(first, last, x, flip, lows, field):
    """(N, C, D, H, W) into the middle of the field."""
    d0, h0, w0 = lows
    _, channels, depth, height, width = x.shape
    for row in range(first, last):
        n, d, h = row // (depth * height), row // height % depth, row % height
        for c in range(channels):
            for w in range(width):
                field[n, d + d0, h + h0, w + w0, c] = x[n, c, d, h, w] ^ flip


class Field(NamedTuple):
    """Channels-last memory: its bytes, its shape (N, D', H', W', C), whether bytes behind its end may be read, its zero point."""

    data: np.ndarray
    shape: tuple
    loose: bool
    x_zero: int


def make_field(x, padding, x_zero, repeat=1):
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

    Returns
    -------
    Field
    """
    flip = np.uint8(0x80 if x.dtype == np.int8 else 0)
    x_zero = int(x_zero) + int(flip)
    x = np.moveaxis(x.view(np.uint8), 1, -1)
    if repeat > 1:
        x = np.repeat(x, repeat, axis=-1)
    x = x.reshape(x.shape[0], *(1,) * (5 - x.ndim), *x.shape[1:])
    padded = any(lo or hi for lo, hi in padding)
    if not padded and not flip and x.flags.c_contiguous:
        return Field(as_input(x).reshape(-1), x.shape, False, x_zero)
    shape = (x.shape[0], *(n + lo + hi for n, (lo, hi) in zip(x.shape[1:4], padding)), x.shape[4])
    size = int(np.prod(shape))
    data = np.empty(size + _SLACK, np.uint8)
    data[0 if padded else size :] = x_zero & 0xFF
    first = np.moveaxis(x, -1, 1)
    worker, source = (_copy_first, first) if first.flags.c_contiguous else (_copy_last, x)
    lows = tuple(lo for lo, _ in padding)
    rows = x.shape[0] * x.shape[1] * x.shape[2]
    parallel_for(worker, rows, as_input(source), flip, lows, data[:size].reshape(shape), grain=16)
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
    """Return an uninitialised output in memory order (N, *out, OC)."""
    return np.empty((batch, *geometry.out[3 - geometry.dims :], channels), dtype)
