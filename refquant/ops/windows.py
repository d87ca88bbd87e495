"""The windows of pooling: their geometry."""

from typing import NamedTuple

import numpy as np

from refquant.core.arguments import check_room
from refquant.errors import ShapeError
from refquant.ops.arguments import sides

__all__ = ["PoolGeometry", "pool_geometry", "check_windows", "pool_axis", "window_bounds", "adaptive_bounds"]


class PoolGeometry(NamedTuple):
    """Kernel, stride, padding, dilation and output size, height before width."""

    kernel: tuple
    stride: tuple
    padding: tuple
    dilation: tuple
    out: tuple

    def tap(self, padded, i, j):
        """Return what tap (i, j) sees of a padded (N, H, W, C) array, one entry an output."""
        (sh, sw), (dh, dw), (oh, ow) = self.stride, self.dilation, self.out
        return padded[:, i * dh : i * dh + (oh - 1) * sh + 1 : sh, j * dw : j * dw + (ow - 1) * sw + 1 : sw]


def pool_geometry(shape, kernel_size, stride, padding, dilation, ceil_mode, place):
    """Check the arguments of a pooling operator and work out its output size."""
    if len(shape) != 4:
        raise ShapeError(f"{place}: x has shape {shape} but must be (N, C, H, W)")
    kernel = sides(kernel_size, "kernel_size", 2, place, least=1)
    stride = kernel if stride is None else sides(stride, "stride", 2, place, least=1)
    padding = sides(padding, "padding", 2, place, least=0)
    dilation = sides(dilation, "dilation", 2, place, least=1)
    check_windows(shape, kernel, stride, padding, place)
    out = tuple(len(pool_axis(*axis, ceil_mode, place)[0]) for axis in zip(shape[2:], kernel, stride, padding, dilation))
    return PoolGeometry(kernel, stride, padding, dilation, out)


def check_windows(shape, kernel, stride, padding, place):
    """Refuse windows, or so many of them, that no machine holds."""
    check_room(kernel, "a window", place)
    check_room((*shape[:2], *(max(n + 2 * p, 0) // s + 1 for n, s, p in zip(shape[2:], stride, padding))), "the output", place)


def pool_axis(n, k, s, p, d, ceil_mode, place):
    """Return the windows along one axis: (start, end) clipped to the input, their size with padding, and where they start with padding."""
    if 2 * p > k:
        raise ShapeError(f"{place}: padding {p} is more than half of kernel_size {k}; reduce it")
    room = n + 2 * p - d * (k - 1) - 1
    if room < 0:
        raise ShapeError(f"{place}: kernel_size {k} with dilation {d} is larger than the padded input {n} + 2*{p}")
    size = (-(-room // s) if ceil_mode else room // s) + 1
    if ceil_mode and (size - 1) * s >= n + p:
        size -= 1
    first = np.arange(size) * s - p
    end = np.minimum(first + k, n + p)
    return np.maximum(first, 0), np.minimum(end, n), end - first, first


def window_bounds(geometry, shape):
    """Return, for either axis, (start, end) clipped to the input, and the window's size with padding."""
    bounds = []
    for n, k, s, p, o in zip(shape[2:], geometry.kernel, geometry.stride, geometry.padding, geometry.out):
        start = np.arange(o) * s - p
        end = np.minimum(start + k, n + p)
        bounds.append((np.maximum(start, 0), np.minimum(end, n), end - start))
    return bounds


def adaptive_bounds(size, out):
    """Return (start, end) of adaptive windows along one axis: ``floor(i·n/o)`` to ``ceil((i+1)·n/o)``."""
    i = np.arange(out)
    return i * size // out, -(-(i + 1) * size // out)
