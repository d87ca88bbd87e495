"""linear on float32 arrays."""

import numpy as np

from refquant.errors import ShapeError
from refquant.kernels.chains import chained_rows, lane_rows, summed_rows
from refquant.ops.real.order import activate, bias_vector, check_order, real_input

__all__ = ["linear"]

_BLOCK = 192


def linear(x, w, bias=None, *, order="torch_avx512", activation=None):
    """Compute ``x @ w.T + bias`` on float32 arrays.

    Parameters
    ----------
    x : array_like of float32, (..., K)
    w : array_like of float32, (OC, K)
    bias : array_like of float32, (OC,), optional
    order : str
        One of `refquant.ops.real.ORDERS`.
    activation : {None, "relu"}

    Returns
    -------
    ndarray of float32, (..., OC)

    Exactness
    ---------
    ``torch_avx512`` is MKL's order for 4 rows and more: with 12 outputs and more one chain of fused multiply-adds for each
    block of 192 of K (two halves up to 384), ``((S0 + bias) + S1) + …``; with fewer outputs no fused operations but lanes.
    PyTorch takes yet other kernels for a single output, and with fewer than 12 outputs when K is no multiple of 4: there this
    definition stands and PyTorch's last bits may differ.

    Examples
    --------
    >>> linear(np.float32([[1, 2]]), np.float32([[3, 4]]), np.float32([0.5]))
    array([[11.5]], dtype=float32)
    """
    place = "linear"
    check_order(order, place)
    x, w = real_input(x, "x", place), real_input(w, "w", place)
    if w.ndim != 2 or not x.ndim or x.shape[-1] != w.shape[1]:
        raise ShapeError(f"{place}: x has shape {x.shape} and w {w.shape}; w must be (OC, K) and x (..., K)")
    bias = bias_vector(bias, len(w), place)
    rows = x.reshape(-1, w.shape[1]) if x.size else x.reshape(int(np.prod(x.shape[:-1])), w.shape[1])
    if order == "float64":
        y = summed_rows(rows.ravel(), *_taps(rows), np.ascontiguousarray(w.T), bias)
    elif len(w) < 12:
        y = lane_rows(rows, w, bias)
    else:
        y = chained_rows(rows.ravel(), *_taps(rows), np.ascontiguousarray(w.T), bias, _segments(w.shape[1]), False)
    return activate(y.reshape(*x.shape[:-1], len(w)), activation, place)


def _taps(rows):
    return np.arange(len(rows)) * rows.shape[1], np.arange(rows.shape[1])


def _segments(k):
    if k <= _BLOCK:
        return [0, k]
    if k <= 2 * _BLOCK:
        half = k // 2
        return [0, half, 2 * half] + [k] * (k > 2 * half)
    return [*range(0, k, _BLOCK), k]
