"""A convolution's input as padded channels-last memory.

    source   [N][D][H][W][C] or [N][C][D][H][W]    8-bit codes as the caller holds them
    field    [N][D'][H'][W'][C]                    uint8, D' = D + both paddings, …; every padded byte is the zero point

Because the padding holds the zero point itself, ``x - x_zero`` is 0 there and no term of a product needs to know about borders.
int8 codes are stored 128 more, and their zero point with them.
"""

from typing import NamedTuple

import numpy as np

from refquant.kernels.jit import kernel, parallel_for
from refquant.kernels.transpose import transpose_bytes

__all__ = ["Source", "source_of", "make_source", "fill_row", "make_field", "SLACK"]

SLACK = 64
"""Bytes behind the end of a field that may be read, and are not used."""


class Source(NamedTuple):
    """An input in one of two memory orders.

    Attributes
    ----------
    data : ndarray of uint8, (bytes,), read-only
    channels_last : bool
    flip : int
        What to exclusive-or each byte with: 128 for int8.
    x_zero : int
        The zero point of the flipped codes.
    batch, channels : int
    size : tuple of int
        Depth, height, width.
    """

    data: np.ndarray
    channels_last: bool
    flip: int
    x_zero: int
    batch: int
    channels: int
    size: tuple


@kernel
def source_of(parts):
    """A `Source` from the plain tuple of its fields."""
    data, channels_last, flip, x_zero, batch, channels, size = parts
    return Source(data, channels_last, flip, x_zero, batch, channels, size)


def make_source(x, geometry, x_zero):
    """Describe an input: the fields of a `Source`.

    Parameters
    ----------
    x : ndarray of uint8 or int8, (N, C, ...)
        Any strides; other orders than the two are copied.
    geometry : Geometry
    x_zero : int
    """
    flip = 0
    if x.dtype == np.int8:
        x, flip, x_zero = x.view(np.uint8), 0x80, x_zero + 128
    memory = x.transpose(geometry.to_memory)
    channels_last = memory.flags.c_contiguous
    data = (memory if channels_last else np.ascontiguousarray(x)).reshape(-1)
    data.setflags(write=False)
    return data, channels_last, flip, int(x_zero), geometry.batch, geometry.channels, geometry.size


@kernel
def fill_row(source, n, d, h, before, target):
    """Fill `target`, one row of a field, from the row (n, d, h) of `source`, `before` bytes of padding in front."""
    depth, height, width = source.size
    channels = source.channels
    inside = width * channels
    zero, flip = np.uint8(source.x_zero & 0xFF), np.uint8(source.flip)
    if d < 0 or d >= depth or h < 0 or h >= height:
        target[:] = zero
        return
    target[:before] = zero
    target[before + inside :] = zero
    middle = target[before : before + inside]
    if source.channels_last:
        begin = ((n * depth + d) * height + h) * inside
        row = source.data[begin : begin + inside]
        for i in range(inside):
            middle[i] = row[i] ^ flip
        return
    plane = depth * height * width
    begin = n * channels * plane + (d * height + h) * width
    if channels == 3:
        a, b, c = source.data[begin:], source.data[begin + plane :], source.data[begin + 2 * plane :]
        for w in range(width):
            middle[3 * w] = a[w] ^ flip
            middle[3 * w + 1] = b[w] ^ flip
            middle[3 * w + 2] = c[w] ^ flip
        return
    transpose_bytes(source.data[begin:], plane, channels, width, source.flip, middle, channels)


@kernel
def _fill_rows(first, last, parts, lows, shape, field):
    source = source_of(parts)
    _, depth, height, width, channels = shape
    line = width * channels
    for row in range(first, last):
        n, d, h = row // (depth * height), row // height % depth - lows[0], row % height - lows[1]
        fill_row(source, n, d, h, lows[2] * channels, field[row * line : (row + 1) * line])


def make_field(x, geometry, x_zero):
    """Bring an input to channels-last memory with its padding.

    Parameters
    ----------
    x : ndarray of uint8 or int8, (N, C, ...)
        Any strides. Channels-last uint8 without padding is taken as it is.
    geometry : Geometry
    x_zero : int

    Returns
    -------
    data : ndarray of uint8, (bytes,), read-only
    loose : bool
        Whether `SLACK` bytes behind the end may be read.
    x_zero : int
        The zero point of the bytes.
    """
    source = make_source(x, geometry, x_zero)
    data, channels_last, flip, x_zero = source[:4]
    if channels_last and not (flip or geometry.padded):
        return data, False, x_zero
    batch, depth, height, width, channels = geometry.field_shape
    rows = batch * depth * height
    field = np.empty(rows * width * channels + SLACK, np.uint8)
    field[-SLACK:] = 0
    parallel_for(_fill_rows, rows, source, geometry.lows, geometry.field_shape, field, grain=16)
    field.setflags(write=False)
    return field, True, x_zero
