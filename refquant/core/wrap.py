"""Wrapping and saturating integers, by function and never by accident of dtype."""

import numpy as np

__all__ = ["wrap_int32", "saturate", "saturate_int16"]


def wrap_int32(x):
    """Reduce integers modulo ``2**32`` to int32, as 32-bit hardware does.

    Examples
    --------
    >>> wrap_int32(np.array([2**31, -(2**31) - 1, 5]))
    array([-2147483648,  2147483647,           5], dtype=int32)
    """
    return (np.asarray(x, np.int64) & 0xFFFFFFFF).astype(np.uint32).view(np.int32)


def saturate(x, low, high):
    """Clamp integers to ``[low, high]``; the result keeps the dtype of `x`.

    Examples
    --------
    >>> saturate(np.array([-5, 7, 300]), 0, 255)
    array([  0,   7, 255])
    """
    return np.minimum(np.maximum(x, low), high)


def saturate_int16(x):
    """Clamp integers to the range of int16.

    Examples
    --------
    >>> saturate_int16(np.array([40000, -40000, 12]))
    array([ 32767, -32768,     12])
    """
    return saturate(x, -32768, 32767)
