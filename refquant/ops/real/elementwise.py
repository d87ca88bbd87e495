"""relu, add, cat, flatten on float32 arrays: one rounding at most, so there is no order to choose."""

import numpy as np

from refquant.errors import ArgumentError, ShapeError
from refquant.ops.real.order import activate, in_format_of, real_input

__all__ = ["relu", "add", "cat", "flatten"]


def relu(x):
    """Replace negative numbers by 0.

    Examples
    --------
    >>> relu(np.float32([-1, 2]))
    array([0., 2.], dtype=float32)
    """
    return in_format_of(np.maximum(real_input(x, "x", "relu"), np.float32(0)), x)


def add(a, b, activation=None):
    """Add two arrays of one shape.

    Examples
    --------
    >>> add(np.float32([1, -3]), np.float32([1, 1]), activation="relu")
    array([2., 0.], dtype=float32)
    """
    left, right = real_input(a, "a", "add"), real_input(b, "b", "add")
    if left.shape != right.shape:
        raise ShapeError(f"add: a has shape {left.shape} and b {right.shape}; they must be equal")
    return in_format_of(activate(left + right, activation, "add"), a)


def cat(tensors, dim=1):
    """Concatenate along `dim`.

    Examples
    --------
    >>> cat([np.float32([[1]]), np.float32([[2, 3]])])
    array([[1., 2., 3.]], dtype=float32)
    """
    tensors = list(tensors)
    arrays = [real_input(x, f"tensors[{i}]", "cat") for i, x in enumerate(tensors)]
    if not arrays:
        raise ArgumentError("cat: tensors is empty; give at least one array")
    try:
        return in_format_of(np.concatenate(arrays, axis=dim), *tensors)
    except ValueError:
        shapes = ", ".join(str(x.shape) for x in arrays)
        raise ShapeError(f"cat: shapes {shapes} do not fit along dim={dim}; all other axes must agree") from None


def flatten(x, start_dim=1):
    """Merge all axes from `start_dim` on.

    Examples
    --------
    >>> flatten(np.zeros((2, 3, 4), np.float32)).shape
    (2, 12)
    """
    x = real_input(x, "x", "flatten")
    if not 0 <= start_dim <= x.ndim:
        raise ShapeError(f"flatten: start_dim={start_dim} but x has shape {x.shape}; choose 0 … {x.ndim}")
    return x.reshape(*x.shape[:start_dim], -1) if x.size else x.reshape(*x.shape[:start_dim], int(np.prod(x.shape[start_dim:])))
