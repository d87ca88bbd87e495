"""Arrays as kernels want them: in the order in which they lie in memory."""

import math
from functools import lru_cache

import numpy as np

__all__ = ["memory_order", "restored", "around_axis"]


def memory_order(x):
    """Return (axes, y): `x` transposed into C order where it lies densely in some order, else copied; ``y = x.transpose(axes)``.

    Examples
    --------
    >>> axes, y = memory_order(np.zeros((2, 3, 4)).transpose(0, 2, 1))
    >>> axes, y.shape
    ((0, 2, 1), (2, 3, 4))
    """
    if x.flags.c_contiguous:
        return tuple(range(x.ndim)), x
    axes = tuple(int(i) for i in np.argsort([-s for s in x.strides], kind="stable"))
    y = x.transpose(axes)
    return (axes, y) if y.flags.c_contiguous else (tuple(range(x.ndim)), np.ascontiguousarray(x))


@lru_cache(maxsize=256)
def _back(axes):
    return tuple(axes.index(i) for i in range(len(axes)))


def restored(y, axes):
    """Return an array in the order of `memory_order` with its axes as they were.

    Examples
    --------
    >>> axes, y = memory_order(np.zeros((2, 3, 4)).transpose(1, 2, 0))
    >>> restored(y, axes).shape
    (3, 4, 2)
    """
    return y.transpose(_back(axes))


def around_axis(shape, axes, axis):
    """Return how many elements lie side by side for one index of `axis`, in an array whose axes lie in the order `axes`."""
    return 1 if axis is None else math.prod(shape[i] for i in axes[axes.index(axis) + 1 :])
