"""relu, sums, products and quotients of two values, cat, flatten on float32 arrays: one rounding at most, so there is no order to choose."""

import numpy as np

from refquant.errors import ArgumentError, ShapeError
from refquant.ops.real.order import activate, in_format_of, real_input

__all__ = ["relu", "add", "sub", "mul", "div", "add_scalar", "mul_scalar", "cat", "flatten"]


def relu(x):
    """Replace negative numbers by 0.

    Examples
    --------
    >>> relu(np.float32([-1, 2]))
    array([0., 2.], dtype=float32)
    """
    return in_format_of(np.maximum(real_input(x, "x", "relu"), np.float32(0)), x)


def _two(function, a, b, activation, place):
    left, right = real_input(a, "a", place), real_input(b, "b", place)
    try:
        shape = np.broadcast_shapes(left.shape, right.shape)
    except ValueError:
        raise ShapeError(f"{place}: a has shape {left.shape} and b {right.shape}; they must be equal, or 1 where they differ") from None
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        y = np.ascontiguousarray(function(left, right)).reshape(shape)
    alike = [v for v in (a, b) if np.shape(v) == shape]
    return in_format_of(activate(y, activation, place), *alike) if alike else activate(y, activation, place)


def add(a, b, activation=None):
    """Add two arrays whose shapes are equal, or 1 where they differ.

    Examples
    --------
    >>> add(np.float32([1, -2]), np.float32([1, 1]), "relu")
    array([2., 0.], dtype=float32)
    """
    return _two(np.add, a, b, activation, "add")


def sub(a, b):
    """Subtract arrays whose shapes are equal, or 1 where they differ.

    Examples
    --------
    >>> sub(np.float32([1, -2]), np.float32([1]))
    array([ 0., -3.], dtype=float32)
    """
    return _two(np.subtract, a, b, None, "sub")


def mul(a, b, activation=None):
    """Multiply two arrays whose shapes are equal, or 1 where they differ, as a gate of one number a channel has it.

    Examples
    --------
    >>> mul(np.ones((1, 2, 2, 2), np.float32), np.float32([3, -4]).reshape(1, 2, 1, 1), "relu").ravel()
    array([3., 3., 3., 3., 0., 0., 0., 0.], dtype=float32)
    """
    return _two(np.multiply, a, b, activation, "mul")


def div(a, b):
    """Divide two arrays whose shapes are equal, or 1 where they differ.

    Examples
    --------
    >>> div(np.float32([1, -2]), np.float32([4]))
    array([ 0.25, -0.5 ], dtype=float32)
    """
    return _two(np.divide, a, b, None, "div")


def add_scalar(x, number, activation=None):
    """Add a number, rounded to float32 first.

    Examples
    --------
    >>> add_scalar(np.float32([1, -2]), 0.5)
    array([ 1.5, -1.5], dtype=float32)
    """
    return in_format_of(activate(real_input(x, "x", "add_scalar") + np.float32(number), activation, "add_scalar"), x)


def mul_scalar(x, number, activation=None):
    """Multiply by a number, rounded to float32 first.

    Examples
    --------
    >>> mul_scalar(np.float32([1, 2]), 0.25)
    array([0.25, 0.5 ], dtype=float32)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return in_format_of(activate(real_input(x, "x", "mul_scalar") * np.float32(number), activation, "mul_scalar"), x)


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
