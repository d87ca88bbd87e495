"""What callers give, taken as an array, an integer or a real number, or refused by one message."""

import math
import operator
import os

import numpy as np

from refquant.errors import ArgumentError, RangeError

__all__ = ["as_array", "as_integer", "as_integers", "as_real", "as_reals", "check_room"]


def as_array(value, name, place):
    """Return ``np.asarray(value)``, or an `ArgumentError` where that is no array of numbers.

    Examples
    --------
    >>> as_array([1, 2], "x", "linear").shape
    (2,)
    """
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ArgumentError(f"{place}: {name} cannot be made an array ({error}); give a NumPy array, or lists of equal lengths") from None
    if array.dtype.kind not in "biufc":
        raise ArgumentError(f"{place}: {name} has dtype {array.dtype} but must be numbers, not {_shown(value)}; give an array of numbers")
    return array


def as_integer(value, name, place, *, least=None, most=None):
    """Return an integer as an int; floats and booleans are none.

    Examples
    --------
    >>> as_integer(np.int64(3), "stride", "conv2d", least=1)
    3
    """
    rule = "an integer" if least is None else f"an integer of at least {least}" if most is None else f"an integer from {least} to {most}"
    try:
        if isinstance(value, (bool, np.bool_)) or np.ndim(value):
            raise TypeError
        number = operator.index(value)
    except (TypeError, ValueError):
        raise ArgumentError(f"{place}: {name}={_shown(value)} must be {rule}; give an int") from None
    if (least is not None and number < least) or (most is not None and number > most):
        raise RangeError(f"{place}: {name}={_shown(value)} must be {rule}; choose another")
    if abs(number) >= 2**63:
        raise RangeError(f"{place}: {name}={_shown(value)} must be {rule} within 64 bits; choose a smaller one")
    return number


def as_integers(value, name, place):
    """Return integers of any shape as int64; floats and booleans are none.

    Examples
    --------
    >>> as_integers([3, 5], "offsets", "embedding_bag")
    array([3, 5])
    """
    array = as_array(value, name, place)
    if array.dtype.kind not in "iu" and array.size:
        raise ArgumentError(f"{place}: {name} has dtype {array.dtype} but must be integers; round it, and convert it with astype(np.int64)")
    if array.dtype == np.uint64 and array.size and array.max() >= 2**63:
        raise RangeError(f"{place}: {name} has the entry {array.max()} but must be within int64; choose smaller ones")
    return array.astype(np.int64)


def as_reals(value, name, place):
    """Return real numbers of any shape as float32; integers are converted, booleans and complex numbers are none.

    Examples
    --------
    >>> as_reals([1, 2], "mean", "batch_norm")
    array([1., 2.], dtype=float32)
    """
    array = as_array(value, name, place)
    if array.dtype.kind not in "fiu":
        raise ArgumentError(f"{place}: {name} has dtype {array.dtype} but must be real numbers; convert it with astype(np.float32)")
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


def as_real(value, name, place, *, finite=True):
    """Return one real number as a float; of infinite ones only where `finite` is false, and never NaN.

    Examples
    --------
    >>> as_real(np.float32(0.5), "alpha", "elu")
    0.5
    """
    try:
        if isinstance(value, (str, bytes, bool, np.bool_, np.datetime64, np.timedelta64)) or np.ndim(value) or isinstance(value, complex):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(f"{place}: {name}={_shown(value)} must be one real number; give a float") from None
    if math.isnan(number) or (finite and math.isinf(number)):
        raise RangeError(f"{place}: {name}={number} must be a {'finite ' if finite else ''}number; choose another")
    return number


def check_room(shape, what, place, *, itemsize=1):
    """Refuse what this machine has not the memory for, before any of it is taken.

    Parameters
    ----------
    shape : tuple of int
    what : str
        What would have this shape.
    place : str
    itemsize : int
        Bytes of an element.

    Examples
    --------
    >>> check_room((2, 3), "the output", "conv2d")
    """
    needed = math.prod(shape) * itemsize
    if needed <= _ALWAYS or needed <= _memory():
        return
    raise RangeError(f"{place}: {what} of shape {tuple(shape)} would take {needed / 2**30:,.0f} GiB, but this machine has {_memory() / 2**30:,.0f} GiB; ask for less")


# No machine is asked about sizes up to this one.
_ALWAYS = 1 << 30


def _memory():
    """The bytes of memory of this machine; a tebibyte where it does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 1 << 40


def _shown(value):
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
