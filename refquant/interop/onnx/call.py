"""What an executor is told about the node that it computes, and the checks that executors share."""

import math
from typing import Any, NamedTuple

import numpy as np

from refquant.errors import ArgumentError, RangeError, UnsupportedError

__all__ = ["Call", "MOST_BYTES", "check_size", "broadcast_size", "need", "axis_of", "axes_of", "rows_and_columns"]

MOST_BYTES = 2**32


class Call(NamedTuple):
    """One node at work.

    Attributes
    ----------
    place : str
        ``Conv "features/0"``, for messages.
    attrs : dict
        Attribute values: numbers, bytes decoded to str, arrays, lists.
    opset : int
        The version of the operator's domain that the model imports.
    profile : Numerics
    outputs : int
        How many outputs are named.
    rules : Rules
        What ONNX leaves open, see `refquant.interop.onnx.rules`.
    """

    place: str
    attrs: dict
    opset: int
    profile: Any
    outputs: int
    rules: Any

    def get(self, name, default=None):
        """Return an attribute's value, or `default`."""
        return self.attrs.get(name, default)

    def require(self, name):
        """Return an attribute's value, or say that it is missing."""
        if name not in self.attrs:
            raise ArgumentError(f"{self.place}: attribute {name!r} is required but missing; the file is damaged, export it again")
        return self.attrs[name]

    def refuse(self, what, remedy):
        """Raise an `UnsupportedError` about this node."""
        raise UnsupportedError(f"{self.place}: {what}; {remedy}")


def need(call, condition, what, remedy="the model is inconsistent, export it again"):
    """Raise an `ArgumentError` about a node unless `condition` holds."""
    if not condition:
        raise ArgumentError(f"{call.place}: {what}; {remedy}")


def check_size(shape, itemsize, place):
    """Refuse shapes that are negative or absurdly large, before memory is asked for.

    Examples
    --------
    >>> check_size((2, 3), 4, "x")
    (2, 3)
    """
    shape = tuple(int(n) for n in shape)
    if any(n < 0 for n in shape):
        raise RangeError(f"{place}: shape {shape} has a negative side; the model is inconsistent, export it again")
    if len(shape) > 64:
        raise RangeError(f"{place}: shape has {len(shape)} dimensions but NumPy's arrays have at most 64")
    if math.prod(shape) * itemsize > MOST_BYTES:
        raise RangeError(f"{place}: shape {shape} needs {math.prod(shape) * itemsize:,} bytes, more than the limit of {MOST_BYTES:,}; use a smaller input")
    return shape


def broadcast_size(place, *arrays):
    """Return the common shape of arrays, refusing what does not fit together or is absurdly large."""
    try:
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
    except ValueError:
        raise ArgumentError(f"{place}: shapes {', '.join(str(a.shape) for a in arrays)} do not broadcast; the model is inconsistent with its input") from None
    return check_size(shape, max(a.dtype.itemsize for a in arrays), place)


def axis_of(call, axis, ndim, *, end=False):
    """Return a non-negative axis; `end` allows one past the last."""
    top = ndim + 1 if end else ndim
    axis = int(axis)
    if not -top <= axis < top:
        raise RangeError(f"{call.place}: axis={axis} but there are {ndim} dimensions; choose {-top} … {top - 1}")
    return axis % top if top else 0


def axes_of(call, axes, ndim, *, end=False):
    """Return non-negative axes, refusing repeated ones."""
    out = tuple(axis_of(call, a, ndim, end=end) for a in np.asarray(axes, np.int64).reshape(-1))
    need(call, len(set(out)) == len(out), f"axes {out} repeat one")
    return out


def rows_and_columns(call, axis, shape):
    """Return the sides of the matrix that a tensor becomes when the axes before `axis` are its rows.

    Examples
    --------
    >>> rows_and_columns(None, 2, (2, 3, 4)), rows_and_columns(None, 3, (2, 3, 4)), rows_and_columns(None, -1, (2, 3, 4))
    ((6, 4), (24, 1), (6, 4))
    """
    axis = axis_of(call, axis, len(shape), end=axis >= 0)
    return math.prod(shape[:axis]), math.prod(shape[axis:])
