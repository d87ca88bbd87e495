"""Pools and means on float32 arrays."""

import math

import numpy as np

from refquant.errors import ArgumentError, RangeError, ShapeError
from refquant.ops.arguments import sides
from refquant.kernels.chains import row_means
from refquant.ops.real.inductor import inductor_mean
from refquant.ops.real.order import check_order, in_format_of, real_input
from refquant.ops.real.outer_sum import outer_sum
from refquant.ops.windows import adaptive_bounds, pool_axis

__all__ = [
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "adaptive_max_pool2d", "mean",
]  # fmt: skip

_AXES = {1: "N, C, L", 2: "N, C, H, W", 3: "N, C, D, H, W"}


class _Windows:
    """The windows of a pool over `dims` axes: their geometry, and what each tap of them sees."""

    def __init__(self, dims, x, kernel_size, stride, padding, dilation, ceil_mode, place):
        if x.ndim != dims + 2:
            raise ShapeError(f"{place}: x has shape {x.shape} but must be ({_AXES[dims]})")
        self.kernel = sides(kernel_size, "kernel_size", dims, place, least=1)
        self.stride = self.kernel if stride is None else sides(stride, "stride", dims, place, least=1)
        self.padding, self.dilation = sides(padding, "padding", dims, place, least=0), sides(dilation, "dilation", dims, place, least=1)
        each = zip(x.shape[2:], self.kernel, self.stride, self.padding, self.dilation)
        self.axes = [pool_axis(n, k, s, p, d, ceil_mode, place) for n, k, s, p, d in each]
        self.out = tuple(len(axis[0]) for axis in self.axes)

    def counts(self, with_padding):
        """Return how many pixels each window holds."""
        along = [padded if with_padding else end - start for start, end, padded, _ in self.axes]
        return math.prod(np.ix_(*along))

    def taps(self, x, value):
        """Yield what each tap of the windows sees, row by row, `value` outside."""
        each = zip(self.out, self.stride, self.kernel, self.dilation, x.shape[2:], self.padding)
        hang = [max((o - 1) * s + (k - 1) * d + 1 - n - p, p) for o, s, k, d, n, p in each]
        padded = np.pad(x, ((0, 0), (0, 0), *zip(self.padding, hang)), constant_values=value)
        for at in np.ndindex(*self.kernel):
            steps = zip(at, self.dilation, self.out, self.stride)
            yield padded[(..., *(slice(i * d, i * d + (o - 1) * s + 1, s) for i, d, o, s in steps))]


def _max_pool(dims, x, kernel_size, stride, padding, dilation, ceil_mode):
    place = f"max_pool{dims}d"
    given, x = x, real_input(x, "x", place)
    windows = _Windows(dims, x, kernel_size, stride, padding, dilation, ceil_mode, place)
    y = np.full((*x.shape[:2], *windows.out), -np.inf, np.float32)
    for part in windows.taps(x, -np.inf):
        np.maximum(y, part, out=y)
    return in_format_of(y, given)


def max_pool1d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Take the maximum over windows of (N, C, L). See `max_pool2d`."""
    return _max_pool(1, x, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Take the maximum over windows; padding does not count, NaN does.

    Examples
    --------
    >>> max_pool2d(np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4), 2)[0, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
    """
    return _max_pool(2, x, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool3d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Take the maximum over windows of (N, C, D, H, W). See `max_pool2d`."""
    return _max_pool(3, x, kernel_size, stride, padding, dilation, ceil_mode)


def _avg_pool(dims, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, order):
    place = f"avg_pool{dims}d"
    check_order(order, place, generated=True)
    given, x = x, real_input(x, "x", place)
    windows = _Windows(dims, x, kernel_size, stride, padding, 1, ceil_mode, place)
    divisor = windows.counts(count_include_pad)
    if divisor_override is not None:
        if divisor_override == 0:
            raise RangeError(f"{place}: divisor_override=0 must not be zero; leave it out to divide by the window's size")
        divisor = np.full_like(divisor, divisor_override)
    kind = np.float64 if order == "float64" else np.float32
    total = np.zeros((*x.shape[:2], *windows.out), kind)
    for part in windows.taps(x, 0):
        total += part
    return in_format_of((total / divisor.astype(kind)).astype(np.float32), given)


def avg_pool1d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, *, order="torch_avx512"):
    """Average over windows of (N, C, L). See `avg_pool2d`."""
    return _avg_pool(1, x, kernel_size, stride, padding, ceil_mode, count_include_pad, None, order)


def avg_pool2d(
    x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None, *, order="torch_avx512"
):  # fmt: skip
    """Average over windows: the sum row by row of the window, then one division.

    Examples
    --------
    >>> float(avg_pool2d(np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2), 2)[0, 0, 0, 0])
    1.5
    """
    return _avg_pool(2, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, order)


def avg_pool3d(
    x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None, *, order="torch_avx512"
):  # fmt: skip
    """Average over windows of (N, C, D, H, W). See `avg_pool2d`."""
    return _avg_pool(3, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, order)


def _adaptive_parts(dims, x, output_size, place):
    """Return the output's sides and, for each output, the windows' bounds along every axis."""
    size = sides(output_size, "output_size", dims, place, least=1)
    if x.ndim != dims + 2 or 0 in x.shape[2:]:
        raise ShapeError(f"{place}: x has shape {x.shape} but must be ({_AXES[dims]}) with at least one pixel")
    bounds = [list(zip(*adaptive_bounds(n, o))) for n, o in zip(x.shape[2:], size)]
    return size, [(at, [b[i] for b, i in zip(bounds, at)]) for at in np.ndindex(*size)]


def _adaptive_avg_pool(dims, x, output_size, order):
    place = f"adaptive_avg_pool{dims}d"
    check_order(order, place, generated=True)
    given, x = x, real_input(x, "x", place)
    size, parts = _adaptive_parts(dims, x, output_size, place)
    if order == "inductor" and set(size) == {1}:
        y = inductor_mean(x.reshape(*x.shape[:2], *[1] * (2 - dims), *x.shape[2:]), range(2, max(dims, 2) + 2), place)
        return in_format_of(y.reshape(*x.shape[:2], *size), given)
    if order == "torch_avx512" and set(size) == {1}:
        y = row_means(x.reshape(x.shape[0] * x.shape[1], math.prod(x.shape[2:])))
        return in_format_of(y.reshape(*x.shape[:2], *size), given)
    kind = np.float64 if order == "float64" else np.float32
    y = np.empty((*x.shape[:2], *size), np.float32)
    for at, window in parts:
        total = np.zeros(x.shape[:2], kind)
        for place_ in np.ndindex(*(stop - start for start, stop in window)):
            total += x[(..., *(start + i for (start, _), i in zip(window, place_)))]
        spans = [stop - start for start, stop in window]
        for span in [math.prod(spans)] if order == "inductor" else spans:
            total = total / kind(span)
        y[(..., *at)] = total
    return in_format_of(y, given)


def adaptive_avg_pool1d(x, output_size, *, order="torch_avx512"):
    """Average over parts of (N, C, L). See `adaptive_avg_pool2d`."""
    return _adaptive_avg_pool(1, x, output_size, order)


def adaptive_avg_pool2d(x, output_size, *, order="torch_avx512"):
    """Average over windows that divide the input into `output_size` parts.

    Exactness
    ---------
    ``torch_avx512``: over the whole image ATen's sum of a contiguous axis (lanes and accumulators, see
    `refquant.kernels.chains`; PyTorch cuts images of 512 pixels and more in another way); over parts, the sum row by row,
    divided by the height and then by the width of the window. ``inductor``: the sum pixel by pixel, divided once.

    Examples
    --------
    >>> float(adaptive_avg_pool2d(np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2), 1)[0, 0, 0, 0])
    1.5
    """
    return _adaptive_avg_pool(2, x, output_size, order)


def adaptive_avg_pool3d(x, output_size, *, order="torch_avx512"):
    """Average over parts of (N, C, D, H, W). See `adaptive_avg_pool2d`."""
    return _adaptive_avg_pool(3, x, output_size, order)


def adaptive_max_pool2d(x, output_size):
    """Take the maximum over windows that divide the input into `output_size` parts.

    Examples
    --------
    >>> adaptive_max_pool2d(np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2), (1, 2)).tolist()
    [[[[2.0, 3.0]]]]
    """
    given, x = x, real_input(x, "x", "adaptive_max_pool2d")
    size, parts = _adaptive_parts(2, x, output_size, "adaptive_max_pool2d")
    y = np.empty((*x.shape[:2], *size), np.float32)
    for (i, j), ((r0, r1), (c0, c1)) in parts:
        y[:, :, i, j] = x[:, :, r0:r1, c0:c1].max((2, 3))
    return in_format_of(y, given)


def mean(x, dim, keepdim=False, *, order="torch_avx512"):
    """Average over axes.

    Parameters
    ----------
    x : array_like of float32
    dim : int or tuple of int
    keepdim : bool
    order : str
        ``torch_avx512``: over the last axes as `adaptive_avg_pool2d` over the whole image; over other axes that lie side by side ATen's
        cascade, see `refquant.ops.real.outer_sum`; over axes that do not lie side by side, the cascade after moving them together, where
        PyTorch's last bits may differ. ``inductor``: see `refquant.ops.real.inductor.inductor_sum`; of axes that do not lie side by side refused.

    Returns
    -------
    ndarray of float32

    Examples
    --------
    >>> mean(np.float32([[1, 2], [3, 6]]), 0), mean(np.float32([[1, 2], [3, 6]]), (0, 1))
    (array([2., 4.], dtype=float32), array(3., dtype=float32))
    """
    check_order(order, "mean", generated=True)
    x = real_input(x, "x", "mean")
    given = [int(d) for d in np.atleast_1d(dim)]
    if not given or any(not -x.ndim <= d < x.ndim for d in given):
        raise ArgumentError(f"mean: dim={dim} but x has shape {x.shape}; name axes from {-x.ndim} to {x.ndim - 1}")
    axes = sorted({d % x.ndim for d in given})
    count = math.prod(x.shape[d] for d in axes)
    if not count:
        raise ShapeError(f"mean: dim={dim} of x {x.shape} holds no elements; a mean needs one at least")
    if order == "float64":
        return np.asarray(x.astype(np.float64).mean(tuple(axes), keepdims=keepdim)).astype(np.float32)
    if order == "inductor":
        return np.asarray(inductor_mean(x, axes, "mean") if keepdim else inductor_mean(x, axes, "mean").squeeze(tuple(axes)))
    kept = [d for d in range(x.ndim) if d not in axes]
    shape = tuple(1 if d in axes else n for d, n in enumerate(x.shape)) if keepdim else tuple(x.shape[d] for d in kept)
    first = axes[0] if axes[-1] - axes[0] + 1 == len(axes) else len(kept)
    moved = np.ascontiguousarray(x.transpose([*kept[:first], *axes, *kept[first:]]))
    before, after = math.prod(moved.shape[:first]), math.prod(moved.shape[first + len(axes) :])
    if first == len(kept):
        return row_means(moved.reshape(before, count)).reshape(shape)
    return (outer_sum(moved.reshape(before, count, after)) / np.float32(count)).reshape(shape)
