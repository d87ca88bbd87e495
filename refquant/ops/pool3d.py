"""avg_pool3d, adaptive_avg_pool3d, max_pool3d, max_pool1d: pooling of volumes and sequences."""

import math
from functools import reduce

import numpy as np

from refquant import numerics as profiles
from refquant.core.arguments import check_room
from refquant.core.epilogue import to_int32
from refquant.core.fma import fma32
from refquant.core.layout import is_channels_last, is_dense_channels_last, to_channels_last
from refquant.core.qtensor import QTensor
from refquant.core.wrap import saturate
from refquant.errors import ShapeError, UnsupportedError
from refquant.numerics.range_forms import RangeForm
from refquant.numerics.special_forms import RealsForm, SummedPoolForm
from refquant.ops.arguments import check_eight_bit, check_qtensor, divisor_of, sides
from refquant.ops.by_reals import adaptive_pool_of_reals, in_format_of, pool_of_reals, through_reals
from refquant.ops.max_pool import max_pool2d
from refquant.ops.mean import mean
from refquant.ops.range_elementwise import range_mean
from refquant.ops.real.box_sum import box_sum
from refquant.ops.windows import adaptive_bounds, check_windows, pool_axis

__all__ = ["avg_pool3d", "adaptive_avg_pool3d", "max_pool3d", "max_pool1d"]

_F = np.float32


def _check(x, place):
    check_eight_bit(check_qtensor(x, "x", place), "x", place)
    if x.ndim != 5:
        raise ShapeError(f"{place}: x has shape {x.shape} but must be (N, C, D, H, W)")


def _sums(values, bounds):
    """Sum codes over boxes, exactly, by prefix sums along one axis after the other."""
    total = values.astype(np.int64)
    for axis, (start, end) in enumerate(bounds, 2):
        shape = list(total.shape)
        shape[axis] = 1
        prefix = np.concatenate([np.zeros(shape, np.int64), np.cumsum(total, axis=axis)], axis=axis)
        total = prefix.take(end, axis=axis) - prefix.take(start, axis=axis)
    return total


def _product(counts):
    """Return the product of three vectors over their box."""
    return counts[0][:, None, None] * counts[1][:, None] * counts[2]


def _blocks(form, channels):
    """Which channels fill whole steps."""
    return (np.arange(channels) < (channels // form.vector * form.vector if form.vector else channels))[:, None, None, None]


def _average(x, form, bounds, divisor):
    """The two formulas of channels-last averages, with the input's own parameters: in whole steps of channels, and in the rest."""
    q = x.qparams
    count = _product([end - start for start, end in bounds])
    total = (_sums(x.values, bounds) - count * q.zero_point).astype(_F)
    multiplier = _F(1) / divisor.astype(_F)
    inverse = _F(1) / (_F(1) / multiplier)
    zero = _F(q.zero_point)
    if form.body == "fused":
        body = to_int32(fma32(total, inverse, zero), form.rounding)
    else:
        body = to_int32(total * multiplier, form.rounding) + q.zero_point
    codes = np.where(_blocks(form, x.shape[1]), body, to_int32(total * inverse + zero, form.rounding))
    return saturate(codes, q._type.qmin, q._type.qmax).astype(q.storage)


def avg_pool3d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None, *, numerics="fbgemm"):
    """Average over boxes, into the parameters of `x`.

    Parameters
    ----------
    x : QTensor, (N, C, D, H, W)
        uint8 or int8, per tensor; PyTorch takes every memory format through its channels-last kernel.
    kernel_size, stride, padding : int or three of them
    ceil_mode, count_include_pad : bool
    divisor_override : int, optional
    numerics : str or Numerics

    Returns
    -------
    QTensor
        PyTorch's integers: channels last; by way of real numbers: in the memory format of `x`.

    Exactness
    ---------
    Bit-exact. Whole steps of channels: ``round(A · f(1/n)) + z``; the rest: ``round(A · m' + z)``.

    Source
    ------
    PyTorch 2.13 QuantizedOpKernels.cpp, ``_qavg_pool_nhwc_kernel``.

    Examples
    --------
    >>> import refquant as rq
    >>> x = rq.QTensor(np.arange(8, dtype=np.uint8).reshape(1, 1, 2, 2, 2), rq.QParams(1.0, 0, "uint8"))
    >>> avg_pool3d(x, 2).values.ravel()
    array([4], dtype=uint8)
    """
    profile = profiles.get(numerics)
    place = f"avg_pool3d[{profile.name}]"
    form = profile.section("avg_pool3d", "avg_pool3d")
    _check(x, place)
    axes = _axes(x, kernel_size, stride, padding, 1, ceil_mode, place)
    bounds = [axis[:2] for axis in axes]
    divisor = _product([padded if count_include_pad else end - start for start, end, padded, _ in axes])
    own = divisor_of(divisor_override, place)
    divisor = divisor if own is None else np.full_like(divisor, own)
    if isinstance(form, SummedPoolForm):
        if count_include_pad and own is None:
            divisor = np.full_like(divisor, math.prod(sides(kernel_size, "kernel_size", 3, place, least=1)))
        whole = all(len(start) == 1 and not start[0] and end[0] == n == k for (start, end), n, k in zip(bounds, x.shape[2:], sides(kernel_size, "kernel_size", 3, place, least=1)))
        return _summed(form, x, bounds, divisor, whole)
    if isinstance(form, RangeForm):
        y = range_mean(form, x.qparams, x.qparams, _sums(x.values, bounds), divisor, windows=True).astype(x.values.dtype)
        return in_format_of(QTensor(y, x.qparams), x.values)
    if isinstance(form, RealsForm):
        return in_format_of(through_reals(x, x.qparams, profile, lambda real: pool_of_reals(form, real, bounds, divisor)), x.values)
    return QTensor(to_channels_last(_average(x, form, bounds, divisor)), x.qparams)


def _summed(form, x, bounds, divisor, whole):
    """ONNX Runtime: real numbers added box by box, the zero point inside of the rounding; over a whole volume an exact sum and one factor."""
    q = x.qparams
    scale, zero, count = _F(q.scale), int(q.zero_point), divisor.astype(_F)
    if whole:
        total = _sums(x.values, bounds) - int(divisor.ravel()[0]) * zero
        codes = to_int32(total.astype(_F) * (scale / (scale * count)), form.rounding) + zero
    else:
        total = box_sum(scale * (x.values.astype(np.int64) - zero).astype(_F), bounds)
        codes = to_int32(total / count / scale + _F(zero), form.rounding)
    y = saturate(codes, q._type.qmin, q._type.qmax).astype(q.storage)
    return in_format_of(QTensor(y, q), x.values)


def _axes(x, kernel_size, stride, padding, dilation, ceil_mode, place):
    kernel = sides(kernel_size, "kernel_size", 3, place, least=1)
    stride = kernel if stride is None else sides(stride, "stride", 3, place, least=1)
    padding, dilation = sides(padding, "padding", 3, place, least=0), sides(dilation, "dilation", 3, place, least=1)
    check_windows(x.shape, kernel, stride, padding, place)
    return [pool_axis(n, k, s, p, d, ceil_mode, place) for n, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation)]


def adaptive_avg_pool3d(x, output_size, *, numerics="fbgemm"):
    """Average over boxes that divide the input into `output_size` parts, into the parameters of `x`.

    Parameters
    ----------
    x : QTensor, (N, C, D, H, W)
        uint8 or int8, per tensor.
    output_size : int or three of them
    numerics : str or Numerics

    Returns
    -------
    QTensor
        In the memory format of `x`.

    Exactness
    ---------
    Bit-exact. One box: `mean`. More of them, contiguous: ``round(Σ q · k)``, ``k = f(f(f(1 / d) / h) / w)``, zero points left in; channels last: as `adaptive_avg_pool2d`.

    Source
    ------
    PyTorch 2.13 AdaptiveAveragePooling.cpp, ``adaptive_avg_pool_single_out_frame``; QuantizedOpKernels.cpp, ``_qadaptive_avg_pool_kernel``.

    Examples
    --------
    >>> import refquant as rq
    >>> x = rq.QTensor(np.arange(8, dtype=np.uint8).reshape(1, 1, 2, 2, 2), rq.QParams(1.0, 0, "uint8"))
    >>> adaptive_avg_pool3d(x, 1).values.ravel()
    array([4], dtype=uint8)
    """
    profile = profiles.get(numerics)
    place = f"adaptive_avg_pool3d[{profile.name}]"
    form = profile.section("adaptive_avg_pool3d", "adaptive_avg_pool3d")
    _check(x, place)
    if 0 in x.shape[2:]:
        raise ShapeError(f"{place}: x has shape {x.shape}; its depth, height and width must not be 0")
    size = sides(output_size, "output_size", 3, place, least=1)
    check_room((*x.shape[:2], *size), "the output", place)
    if isinstance(form, (SummedPoolForm, RangeForm)) and size != (1, 1, 1):
        raise UnsupportedError(f"{place}: output_size={output_size} but {profile.engine} pools globally only; use output_size=1")
    if isinstance(form, SummedPoolForm):
        return _summed(form, x, [(np.array([0]), np.array([n])) for n in x.shape[2:]], np.full((1, 1, 1), math.prod(x.shape[2:])), True)
    if isinstance(form, RealsForm):
        bounds = [adaptive_bounds(n, o) for n, o in zip(x.shape[2:], size)]
        return in_format_of(through_reals(x, x.qparams, profile, lambda real: adaptive_pool_of_reals(form, real, bounds, place)), x.values)
    if size == (1, 1, 1):
        y = mean(x, (2, 3, 4), True, numerics=profile)
        return QTensor(to_channels_last(y.values), y.qparams) if is_channels_last(x.values) else y
    bounds = [adaptive_bounds(n, o) for n, o in zip(x.shape[2:], size)]
    counts = [end - start for start, end in bounds]
    if is_dense_channels_last(x.values):
        return QTensor(to_channels_last(_average(x, form, bounds, _product(counts))), x.qparams)
    d, h, w = (v.astype(_F) for v in counts)
    factor = (_F(1) / d)[:, None, None] / h[:, None] / w
    codes = to_int32(_sums(x.values, bounds).astype(_F) * factor, form.rounding)
    return QTensor(saturate(codes, x.qparams._type.qmin, x.qparams._type.qmax).astype(x.qparams.storage), x.qparams)


def _maximum(values, axis, places):
    """Take the maximum over the rows of `places` along an axis; places outside do not count."""
    n, low = values.shape[axis], np.iinfo(values.dtype).min
    shape = [1] * values.ndim
    shape[axis] = -1
    parts = (
        np.where(((at >= 0) & (at < n)).reshape(shape), values.take(np.clip(at, 0, n - 1), axis=axis), values.dtype.type(low)) for at in places
    )
    return reduce(np.maximum, parts)


def max_pool3d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, *, numerics="fbgemm"):
    """Take the maximum over boxes; padding does not count.

    Parameters
    ----------
    x : QTensor, (N, C, D, H, W)
    kernel_size, stride, padding, dilation : int or three of them
    ceil_mode : bool
    numerics : str or Numerics
        All profiles agree.

    Returns
    -------
    QTensor
        In the memory format of `x`.

    Examples
    --------
    >>> import refquant as rq
    >>> x = rq.QTensor(np.arange(8, dtype=np.uint8).reshape(1, 1, 2, 2, 2), rq.QParams(1.0, 0, "uint8"))
    >>> max_pool3d(x, 2).values.ravel()
    array([7], dtype=uint8)
    """
    profiles.get(numerics).check_offered("max_pool3d")
    place = f"max_pool3d[{profiles.get(numerics).name}]"
    _check(x, place)
    kernel, step = sides(kernel_size, "kernel_size", 3, place, least=1), sides(dilation, "dilation", 3, place, least=1)
    axes = _axes(x, kernel_size, stride, padding, dilation, ceil_mode, place)
    y = x.values
    for axis, (line, k, d) in enumerate(zip(axes, kernel, step), 2):
        y = _maximum(y, axis, line[3] + np.arange(k)[:, None] * d)
    return QTensor(to_channels_last(y) if is_dense_channels_last(x.values) else np.ascontiguousarray(y), x.qparams)


def max_pool1d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, *, numerics="fbgemm"):
    """Take the maximum over windows of sequences (N, C, W); see `max_pool2d`.

    Examples
    --------
    >>> import refquant as rq
    >>> max_pool1d(rq.QTensor(np.array([[[1, 9, 3, 4]]], np.uint8), rq.QParams(1.0, 0, "uint8")), 2).values.ravel()
    array([9, 4], dtype=uint8)
    """
    profiles.get(numerics).check_offered("max_pool1d")
    place = f"max_pool1d[{profiles.get(numerics).name}]"
    check_qtensor(x, "x", place)
    if x.ndim != 3:
        raise ShapeError(f"{place}: x has shape {x.shape} but must be (N, C, W)")
    one = lambda v, name, least: (1 if least else 0, *sides(v, name, 1, place, least=least))  # noqa: E731
    stride = kernel_size if stride is None else stride
    flat = QTensor(np.ascontiguousarray(x.values)[:, :, None], x.qparams)
    y = max_pool2d(flat, one(kernel_size, "kernel_size", 1), one(stride, "stride", 1), one(padding, "padding", 0), one(dilation, "dilation", 1), ceil_mode, numerics=numerics)
    return QTensor(y.values[:, :, 0], x.qparams)
