"""Sums over an axis that is not the densest, in the order of ATen's cascade."""

import numpy as np

__all__ = ["outer_sum", "interleaved"]

_LEVELS = 4
_AT_ONCE = 4


def _cascade(x):
    """Add (B, R, C) over R: sums of 2ᵖ rows, sums of 2ᵖ of those, and so on."""
    rows = x.shape[1]
    power = max(4, max(rows - 1, 0).bit_length() // _LEVELS)
    step = 1 << power
    levels = [np.zeros((x.shape[0], x.shape[2]), np.float32) for _ in range(_LEVELS)]
    i = 0
    while i + step <= rows:
        for _ in range(step):
            levels[0] += x[:, i]
            i += 1
        for j in range(1, _LEVELS):
            levels[j] += levels[j - 1]
            levels[j - 1][:] = 0
            if i & ((step - 1) << (j * power)):
                break
    for k in range(i, rows):
        levels[0] += x[:, k]
    for j in range(1, _LEVELS):
        levels[0] += levels[j]
    return levels[0]


def interleaved(x):
    """Add (B, R, C) over R with four running cascades, one for each row modulo 4."""
    whole = x.shape[1] // _AT_ONCE
    parts = [_cascade(x[:, k : whole * _AT_ONCE : _AT_ONCE]) for k in range(_AT_ONCE)]
    for i in range(whole * _AT_ONCE, x.shape[1]):
        parts[0] += x[:, i]
    for part in parts[1:]:
        parts[0] += part
    return parts[0]


def outer_sum(x, lanes=8):
    """Add a float32 array (B, R, C) over its middle axis, as ATen does on one thread.

    Parameters
    ----------
    x : ndarray of float32, (B, R, C)
    lanes : int
        Float32 lanes of a vector (8 in PyTorch's kernel, which is not compiled for AVX512): columns in whole groups of four vectors are summed by a cascade, the others by four interleaved ones.

    Returns
    -------
    ndarray of float32, (B, C)

    Source
    ------
    PyTorch 2.13 ATen/native/cpu/SumKernel.cpp, ``vectorized_outer_sum``, ``scalar_outer_sum``.

    Examples
    --------
    >>> outer_sum(np.ones((1, 5, 3), np.float32))
    array([[5., 5., 5.]], dtype=float32)
    """
    columns = x.shape[2]
    group = _AT_ONCE * lanes if columns >= lanes else _AT_ONCE
    split = columns // group * group
    return np.concatenate([_cascade(x[:, :, :split]), interleaved(x[:, :, split:])], axis=1)
