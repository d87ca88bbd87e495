"""Arrays that begin at a cache line, so that no vector of a kernel lies in two of them."""

import math

import numpy as np

__all__ = ["aligned_zeros", "aligned_empty"]

_LINE = 64
_LARGE = 1 << 17


def _from_a_line(raw, shape, dtype):
    return np.ndarray(shape, dtype, raw, -raw.ctypes.data % _LINE)


def aligned_zeros(size, dtype):
    """``np.zeros(size, dtype)`` at the start of a cache line."""
    return _from_a_line(np.zeros(size * np.dtype(dtype).itemsize + _LINE, np.uint8), size, dtype)


def aligned_empty(shape, dtype):
    """``np.empty(shape, dtype)``; at the start of a cache line where the array is large enough to be worth it."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < _LARGE:
        return np.empty(shape, dtype)
    return _from_a_line(np.empty(size + _LINE, np.uint8), shape, dtype)
