"""Sums over the densest axis, in the order of ATen's cascade and in that of Eigen's packets of four."""

import numpy as np

from refquant.ops.real.outer_sum import interleaved

__all__ = ["inner_sum", "eigen_sum"]

_F = np.float32


def inner_sum(x, lanes=8):
    """Add float32 rows (R, N) as ATen does on one thread.

    Lanes of a vector add up as columns of four interleaved cascades, then the elements that fill no vector, in order, then the lanes.

    Source
    ------
    PyTorch 2.13 ATen/native/cpu/SumKernel.cpp, ``vectorized_inner_sum``, ``scalar_inner_sum``.

    Examples
    --------
    >>> inner_sum(np.ones((1, 21), np.float32))
    array([21.], dtype=float32)
    """
    rows, n = x.shape
    if n < lanes:
        return interleaved(x[:, :, None])[:, 0]
    whole = n // lanes * lanes
    columns = interleaved(x[:, :whole].reshape(rows, -1, lanes))
    return np.add.accumulate(np.concatenate([np.zeros((rows, 1), _F), x[:, whole:], columns], axis=1), axis=1, dtype=_F)[:, -1]


def eigen_sum(x):
    """Add float32 rows (R, N) as Eigen does in packets of four, two of them in turn; a row begins where its memory is aligned.

    Source
    ------
    Eigen/src/Core/Redux.h, ``redux_impl`` with linear vectorized traversal; ONNX Runtime's ReduceMean over the last axes.

    Examples
    --------
    >>> eigen_sum(np.ones((2, 11), np.float32))
    array([11., 11.], dtype=float32)
    """
    rows, n = x.shape
    y = np.empty(rows, _F)
    for first in range(4):  # by how far the row lies from the next multiple of four elements
        chosen = (-np.arange(rows) * n) % 4 == first
        y[chosen] = _packets(x[chosen], min(first, n))
    return y


def _packets(x, first):
    n = x.shape[1]
    packets = (n - first) // 4
    if not packets:
        return np.add.accumulate(x, axis=1, dtype=_F)[:, -1]
    body = x[:, first : first + 4 * packets].reshape(len(x), packets, 4)
    pairs = packets // 2 * 2
    total = np.add.accumulate(body[:, 0 : max(pairs, 1) : 2], axis=1, dtype=_F)[:, -1]
    if pairs:
        total = total + np.add.accumulate(body[:, 1:pairs:2], axis=1, dtype=_F)[:, -1]
        if packets > pairs:
            total = total + body[:, -1]
    total = (total[:, 0] + total[:, 2]) + (total[:, 1] + total[:, 3])
    rest = np.concatenate([total[:, None], x[:, :first], x[:, first + 4 * packets :]], axis=1)
    return np.add.accumulate(rest, axis=1, dtype=_F)[:, -1]
