"""Pools on float32 arrays."""

import math

import numpy as np

from refquant.errors import RangeError, ShapeError
from refquant.ops.arguments import sides
from refquant.kernels.chains import row_means
from refquant.ops.real.order import check_order, in_format_of, real_input
from refquant.ops.windows import adaptive_bounds, pool_geometry, window_bounds

__all__ = ["max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"]


def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Take the maximum over windows; padding does not count, NaN does.

    Examples
    --------
    >>> max_pool2d(np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4), 2)[0, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    """
    given, x = x, real_input(x, "x", "max_pool2d")
    g = pool_geometry(x.shape, kernel_size, stride, padding, dilation, ceil_mode, "max_pool2d")
    y = np.full((*x.shape[:2], *g.out), -np.inf, np.float32)
    for part in _taps(_padded(x, g, -np.inf), g):
        np.maximum(y, part, out=y)
    return in_format_of(y, given)


def avg_pool2d(
    x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None, *, order="torch_avx512"
):  # fmt: skip
    """Average over windows: the sum row by row of the window, then one division.

    Examples
    --------
    >>> avg_pool2d(np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2), 2).item()
    1.5
    """
    place = "avg_pool2d"
    check_order(order, place)
    given, x = x, real_input(x, "x", place)
    g = pool_geometry(x.shape, kernel_size, stride, padding, 1, ceil_mode, place)
    (r0, r1, rn), (c0, c1, cn) = window_bounds(g, x.shape)
    divisor = rn[:, None] * cn if count_include_pad else (r1 - r0)[:, None] * (c1 - c0)
    if divisor_override is not None:
        if divisor_override == 0:
            raise RangeError(f"{place}: divisor_override=0 must not be zero; leave it out to divide by the window's size")
        divisor = np.full_like(divisor, divisor_override)
    kind = np.float64 if order == "float64" else np.float32
    total = np.zeros((*x.shape[:2], *g.out), kind)
    for part in _taps(_padded(x, g, 0), g):
        total += part
    return in_format_of((total / divisor.astype(kind)).astype(np.float32), given)


def adaptive_avg_pool2d(x, output_size, *, order="torch_avx512"):
    """Average over windows that divide the input into `output_size` parts.

    Exactness
    ---------
    ``torch_avx512``: over the whole image ATen's sum of a contiguous axis (lanes and accumulators, see
    `refquant.kernels.chains`; PyTorch cuts images of 512 pixels and more in another way); over parts, the sum row by row,
    divided by the height and then by the width of the window.

    Examples
    --------
    >>> adaptive_avg_pool2d(np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2), 1).item()
    1.5
    """
    place = "adaptive_avg_pool2d"
    check_order(order, place)
    given, x = x, real_input(x, "x", place)
    size = sides(output_size, "output_size", 2, place, least=1)
    if x.ndim != 4 or 0 in x.shape[2:]:
        raise ShapeError(f"{place}: x has shape {x.shape} but must be (N, C, H, W) with at least one pixel")
    if order != "float64" and size == (1, 1):
        return in_format_of(row_means(x.reshape(x.shape[0] * x.shape[1], math.prod(x.shape[2:]))).reshape(*x.shape[:2], 1, 1), given)
    kind = np.float64 if order == "float64" else np.float32
    rows, columns = (list(zip(*adaptive_bounds(n, o))) for n, o in zip(x.shape[2:], size))
    y = np.empty((*x.shape[:2], *size), np.float32)
    for i, (r0, r1) in enumerate(rows):
        for j, (c0, c1) in enumerate(columns):
            total = np.zeros(x.shape[:2], kind)
            for r in range(r0, r1):
                for c in range(c0, c1):
                    total += x[:, :, r, c]
            y[:, :, i, j] = total / kind(r1 - r0) / kind(c1 - c0)
    return in_format_of(y, given)


def _padded(x, g, value):
    hang = [max((o - 1) * s + (k - 1) * d + 1 - n - p, p) for o, s, k, d, n, p in zip(g.out, g.stride, g.kernel, g.dilation, x.shape[2:], g.padding)]
    return np.pad(x, ((0, 0), (0, 0), (g.padding[0], hang[0]), (g.padding[1], hang[1])), constant_values=value)


def _taps(padded, g):
    """Yield what each tap of the windows sees, row by row."""
    (sh, sw), (dh, dw), (oh, ow) = g.stride, g.dilation, g.out
    for i in range(g.kernel[0]):
        for j in range(g.kernel[1]):
            yield padded[:, :, i * dh : i * dh + (oh - 1) * sh + 1 : sh, j * dw : j * dw + (ow - 1) * sw + 1 : sw]
