"""The windows of a convolution in its field.

    field    [N][D'][H'][W'][C]      see `refquant.kernels.field`
    window of the output pixel (n, d, h, w), tap (i, j, k):
             field[n][d * sd + i * dd][h * sh + j * dh][w * sw + k * dw]

Convolutions of one and two dimensions are those of three with leading extents of 1.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from refquant.kernels.left import Left
from refquant.kernels.signature import as_input

__all__ = ["Geometry", "make_geometry", "window_rows", "channels_last_output"]


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
