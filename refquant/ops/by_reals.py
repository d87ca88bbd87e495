"""Operators that an engine computes in float32 between dequantization and quantization, see `refquant.numerics.special_forms.RealsForm`."""

import math

import numpy as np

from refquant.core.layout import is_channels_last, to_channels_last
from refquant.core.qtensor import QTensor
from refquant.errors import UnsupportedError
from refquant.ops.dequantize import dequantize
from refquant.ops.memory_order import memory_order
from refquant.ops.quantize import quantize
from refquant.ops.real.box_sum import box_sum
from refquant.ops.real.inner_sum import eigen_sum, inner_sum
from refquant.ops.real.outer_sum import outer_sum

__all__ = ["through_reals", "mean_of_reals", "pool_of_reals", "adaptive_pool_of_reals", "in_format_of"]

_F = np.float32


def through_reals(x, out, profile, function):
    """Dequantize, apply a function of a float32 array, quantize."""
    return quantize(np.asarray(function(dequantize(x, numerics=profile)), _F), out, numerics=profile)


def mean_of_reals(form, real, axes, place):
    """Return the mean of a float32 array over some axes, which stay with length one.

    Raises
    ------
    UnsupportedError
        Axes over which the order of the sum is not described.
    """
    count = math.prod(real.shape[d] for d in axes)
    if form.order == "numpy":
        return np.ascontiguousarray(real).mean(tuple(axes), keepdims=True, dtype=_F)
    if form.order == "float64":
        return real.astype(np.float64).mean(tuple(axes), keepdims=True).astype(_F)
    order, dense = memory_order(real) if form.order == "aten" else (tuple(range(real.ndim)), np.ascontiguousarray(real))
    at = [order.index(d) for d in axes if real.shape[d] > 1]
    first, last = (min(at), max(at)) if at else (0, -1)
    if any(dense.shape[i] > 1 and i not in at for i in range(first, last + 1)):
        raise UnsupportedError(f"{place}: dim={tuple(axes)} of {real.shape}, but in which order sums over axes apart are added is not described; choose axes side by side in memory")
    before, after = math.prod(dense.shape[:first]), math.prod(dense.shape[last + 1 :])
    block = dense.reshape(before, count, after)
    if after == 1:
        total = (inner_sum if form.order == "aten" else eigen_sum)(block[:, :, 0])
    elif form.order == "aten":
        total = outer_sum(block)
    elif before == 1:
        total = np.add.accumulate(block, axis=1, dtype=_F)[:, -1]
    else:
        raise UnsupportedError(f"{place}: dim={tuple(axes)} of {real.shape}, but in which order ONNX Runtime adds between other axes is not described; choose the first or the last ones")
    shape = [1 if d in axes else real.shape[d] for d in order]
    return (total / _F(count)).reshape(shape).transpose(np.argsort(order))


def pool_of_reals(form, real, bounds, divisor):
    """Return averages over windows: the sum row by row, then one division."""
    if form.order == "numpy":
        return _pool_as_numpy(real, bounds, divisor)
    kind = np.float64 if form.order == "float64" else _F
    return (box_sum(real.astype(kind), bounds) / divisor.astype(kind)).astype(_F)


def _pool_as_numpy(real, bounds, divisor):
    """Return the mean of each window by NumPy's pairwise sum in float32; a window's padding must not count, as it would move the pairs."""
    area = math.prod((end - start).reshape(-1, *[1] * (len(bounds) - 1 - i)) for i, (start, end) in enumerate(bounds))
    if np.any(area != divisor):
        raise UnsupportedError("average pool[onnx_reference]: padding that counts, or a divisor of one's own, which onnx.reference adds in an order that is not described; leave padding out")
    y = np.empty((*real.shape[:2], *(len(start) for start, _ in bounds)), _F)
    for at in np.ndindex(y.shape[2:]):
        window = tuple(slice(start[i], end[i]) for i, (start, end) in zip(at, bounds))
        y[(..., *at)] = np.ascontiguousarray(real[(..., *window)]).reshape(*real.shape[:2], -1).mean(-1, dtype=_F)
    return y


def adaptive_pool_of_reals(form, real, bounds, place):
    """Return averages over windows that divide the input: over the whole of it a mean, over parts the sum divided by side after side, of channels-last images by the area."""
    if all(len(start) == 1 for start, _ in bounds):
        return mean_of_reals(form, real, list(range(2, real.ndim)), place)
    counts = [(end - start).reshape(-1, *[1] * (len(bounds) - 1 - i)) for i, (start, end) in enumerate(bounds)]
    if form.order in ("float64", "numpy") or (real.ndim == 4 and is_channels_last(real)):
        return pool_of_reals(form, real, bounds, math.prod(counts))
    total = box_sum(real, bounds)
    for count in counts:
        total = total / count.astype(_F)
    return total


def in_format_of(y, values):
    """Return a pooled QTensor in the memory format of the input's codes."""
    return QTensor(to_channels_last(y.values) if is_channels_last(values) else np.ascontiguousarray(y.values), y.qparams)
