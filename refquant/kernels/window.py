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

__all__ = ["Geometry", "make_geometry", "window_rows"]


class Geometry(NamedTuple):
    """Everything about a convolution that depends on shapes alone. Spatial extents have three dimensions each.

    Attributes
    ----------
    kernel, stride, dilation, out, size : tuple of int
        Extents of the kernel, step from window to window and from tap to tap, extents of the output and of the input.
    lows : tuple of int
        Padding in front.
    padded : bool
    batch, channels : int
        Of the input.
    field_shape : tuple of int
        (N, D', H', W', C)
    memory_shape : tuple of int
        Of the output, (N, *out, OC) with as many dimensions as the input.
    to_memory, from_memory : tuple of int
        Orders of axes: from (N, C, …) to (N, …, C) and back.
    """

    kernel: tuple
    stride: tuple
    dilation: tuple
    out: tuple
    size: tuple
    lows: tuple
    padded: bool
    batch: int
    channels: int
    field_shape: tuple
    memory_shape: tuple
    to_memory: tuple
    from_memory: tuple


def _three(values, filler):
    return (filler,) * (3 - len(values)) + tuple(values)


@lru_cache(maxsize=1024)
def make_geometry(x_shape, w_shape, stride, padding, dilation):
    """Compute a geometry.

    Parameters
    ----------
    x_shape, w_shape : tuple of int
        (N, IC, *spatial) and (OC, IC / groups, *kernel).
    stride, dilation : tuple of int
        One entry a spatial dimension.
    padding : tuple of (int, int)
    """
    (batch, channels, *size), (out_channels, _, *kernel) = x_shape, w_shape
    dims = len(size)
    size = _three([int(n) for n in size], 1)
    kernel, stride, dilation = (_three([int(v) for v in values], 1) for values in (kernel, stride, dilation))
    padding = _three([(int(lo), int(hi)) for lo, hi in padding], (0, 0))
    wide = tuple(n + lo + hi for n, (lo, hi) in zip(size, padding))
    out = tuple(max(0, (n - d * (k - 1) - 1) // s + 1) for n, k, s, d in zip(wide, kernel, stride, dilation))
    return Geometry(
        kernel, stride, dilation, out, size, tuple(lo for lo, _ in padding), wide != size, batch, channels,
        (batch, *wide, channels), (batch, *out[3 - dims :], out_channels), (0, *range(2, dims + 2), 1), (0, dims + 1, *range(1, dims + 1)),
    )  # fmt: skip


@lru_cache(maxsize=1024)
def window_rows(geometry, loose, groups, apart=False):
    """The windows of all output pixels, as the rows of a product: the fields of a `Left`; `apart` makes a run of every tap."""
    batch, depth, height, width, channels = geometry.field_shape
    (kd, kh, kw), (sd, sh, sw), (dd, dh, dw) = geometry.kernel, geometry.stride, geometry.dilation
    line, plane = width * channels, height * width * channels
    runs = np.add.outer(np.arange(kd) * (dd * plane), np.arange(kh) * (dh * line))
    length = channels // groups
    if groups == 1 and (dw == 1 or kw == 1) and not apart:
        length *= kw
    else:
        runs = np.add.outer(runs, np.arange(kw) * (dw * channels))
    rows = batch * int(np.prod(geometry.out))
    steps = (depth * plane, sd * plane, sh * line, sw * channels)
    return tuple(Left(as_input(runs.reshape(-1)), length, loose, rows, geometry.out, steps, channels // groups))
