"""Where a convolution reads: the padded input as channels-last memory, and the geometry of its windows.

    field   [N][D'][H'][W'][C]      uint8, D' = D + both paddings and so on; every padded byte is the input's zero point
    window of the output pixel (n, d, h, w), tap (i, j, k):
            field[n][d * sd + i * dd][h * sh + j * dh][w * sw + k * dw]

Convolutions of one and two dimensions are those of three with leading extents of 1. Because the padding holds the zero point
itself, ``x - x_zero`` is 0 there and no term of the product needs to know about borders.
"""

from typing import NamedTuple

import numpy as np

from refquant.kernels.jit import kernel, parallel_for
from refquant.kernels.requantize import as_input

__all__ = ["Window", "make_window", "make_field", "raise_to_3d"]


class Window(NamedTuple):
    """The geometry of a convolution, three dimensions each.

    Attributes
    ----------
    kernel, stride, dilation, out : tuple of int
        Extents of the kernel, steps, distance of taps, extents of the output.
    """

    kernel: tuple
    stride: tuple
    dilation: tuple
    out: tuple


def raise_to_3d(values, filler):
    """Return a tuple of three, filled up in front."""
    return (filler,) * (3 - len(values)) + tuple(values)


def make_window(spatial, kernel_shape, stride, padding, dilation):
    """Compute the geometry; all arguments have one entry per spatial dimension."""
    steps = [raise_to_3d([int(v) for v in values], 1) for values in (kernel_shape, stride, dilation)]
    size = raise_to_3d([int(n) + int(lo) + int(hi) for n, (lo, hi) in zip(spatial, padding)], 1)
    out = tuple(max(0, (n - d * (k - 1) - 1) // s + 1) for n, k, s, d in zip(size, *steps))
    return Window(*steps, out)


@kernel
def _copy_last(start, stop, x, flip, lows, field):
    """(N, D, H, W, C) into the middle of the field."""
    d0, h0, w0 = lows
    _, depth, height, width, channels = x.shape
    for row in range(start, stop):
        n, h = row // height, row % height
        for d in range(depth):
            for w in range(width):
                for c in range(channels):
                    field[n, d + d0, h + h0, w + w0, c] = x[n, d, h, w, c] ^ flip


@kernel
def _copy_first(start, stop, x, flip, lows, field):
    """(N, C, D, H, W) into the middle of the field."""
    d0, h0, w0 = lows
    _, channels, depth, height, width = x.shape
    for row in range(start, stop):
        n, h = row // height, row % height
        for d in range(depth):
            for c in range(channels):
                for w in range(width):
                    field[n, d + d0, h + h0, w + w0, c] = x[n, c, d, h, w] ^ flip


def make_field(x, padding, x_zero, repeat=1):
    """Bring an input to channels-last memory with its padding.

    Parameters
    ----------
    x : ndarray of uint8 or int8, (N, C, ...)
        Any strides. Channels-last uint8 without padding is taken as it is.
    padding : sequence of (int, int)
        One pair a spatial dimension.
    x_zero : int
    repeat : int
        How many copies of each channel lie side by side.

    Returns
    -------
    field : ndarray of uint8, (N, D', H', W', C * repeat), read-only
    x_zero : int
        128 more for int8, whose codes are stored 128 more.
    """
    flip = np.uint8(0x80 if x.dtype == np.int8 else 0)
    x = np.moveaxis(x, 1, -1) if repeat == 1 else np.repeat(np.moveaxis(x, 1, -1), repeat, axis=-1)
    x = x.view(np.uint8) if x.itemsize == 1 else x
    while x.ndim < 5:
        x = x[:, None]
    pads = [(int(lo), int(hi)) for lo, hi in raise_to_3d(padding, (0, 0))]
    lows = tuple(lo for lo, _ in pads)
    padded = any(lo or hi for lo, hi in pads)
    x_zero = int(x_zero) + (128 if flip else 0)
    if not padded and not flip and x.flags.c_contiguous:
        return as_input(x), x_zero
    shape = (x.shape[0], *(n + lo + hi for n, (lo, hi) in zip(x.shape[1:4], pads)), x.shape[4])
    field = np.full(shape, x_zero & 0xFF, np.uint8) if padded else np.empty(shape, np.uint8)
    first = np.moveaxis(x, -1, 1)
    worker, source = (_copy_first, first) if first.flags.c_contiguous else (_copy_last, x)
    parallel_for(worker, x.shape[0] * x.shape[2], as_input(source), flip, lows, field, grain=8)
    field.setflags(write=False)
    return field, x_zero
