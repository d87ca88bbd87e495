"""oneDNN's vectorized softmax of float32 numbers, along the densest axis and along another."""

import numpy as np

from refquant.core.onednn_eltwise import onednn_exp

__all__ = ["onednn_softmax"]

_F = np.float32
# Vectors of running sums.
_UNROLLED = 4


def _dense_sum(e, lanes):
    """Add rows (R, N) in as many vectors of running sums as there are whole vectors, four at most; the last entries go to the first one; then vectors in pairs, halves onto halves."""
    rows, n = e.shape
    steps = n // lanes
    kept = min(steps, _UNROLLED) or 1
    whole = np.zeros((rows, -(-steps // kept) * kept, lanes), _F)
    whole[:, :steps] = e[:, : steps * lanes].reshape(rows, steps, lanes)
    sums = np.zeros((rows, kept, lanes), _F)
    for start in range(0, whole.shape[1], kept):
        sums += whole[:, start : start + kept]
    sums[:, 0, : n - steps * lanes] += e[:, steps * lanes :]
    while sums.shape[1] > 1:
        pairs = sums[:, 0:-1:2] + sums[:, 1::2]
        sums = np.concatenate([pairs, sums[:, -1:]], axis=1) if sums.shape[1] % 2 else pairs
    total = sums[:, 0]
    while total.shape[1] > 1:
        half = total.shape[1] // 2
        total = total[:, :half] + total[:, half:]
    return total


def onednn_softmax(x, axis, *, lanes):
    """Return the softmax of float32 numbers along an axis: exponentials of what is below the maximum, times the inverse of their sum.

    Parameters
    ----------
    x : ndarray of float32
        Not empty.
    axis : int
    lanes : int
        Float32 numbers of a vector: 8 with AVX2, 16 with AVX-512. Along an axis that is not the densest sums are in order.

    Returns
    -------
    ndarray of float32

    Exactness
    ---------
    Bit-exact with FMA instructions.

    Source
    ------
    oneDNN 3, src/cpu/x64/jit_uni_softmax.cpp, ``jit_softmax_dense_kernel_t``, ``jit_softmax_strided_kernel_t``.

    Examples
    --------
    >>> onednn_softmax(np.float32([[0.0, 1.0]]), -1, lanes=8).tolist()
    [[0.2689414322376251, 0.7310585379600525]]
    """
    x = np.asarray(x, _F)
    axis %= x.ndim
    n, inner = x.shape[axis], int(np.prod(x.shape[axis + 1 :]))
    block = np.ascontiguousarray(x).reshape(-1, n, inner)
    with np.errstate(over="ignore", invalid="ignore"):
        e = onednn_exp(block - block.max(1, keepdims=True))
        total = _dense_sum(e[:, :, 0], lanes)[:, :, None] if inner == 1 else np.add.accumulate(e, axis=1, dtype=_F)[:, -1:]
        return (e * (_F(1) / total)).reshape(x.shape)
