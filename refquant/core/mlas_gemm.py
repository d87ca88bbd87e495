"""MLAS's float32 matrix product, as ONNX Runtime's kernels for FMA add it up."""

import numpy as np

from refquant.core.fma import fma32

__all__ = ["mlas_gemm", "mlas_dots"]

_F = np.float32
_STRIDE = 128


def _block(n, k):
    """Return how many terms of a sum are added before they are scaled and go to the output."""
    across = along = _STRIDE
    if n >= k:
        while along // 2 >= k:
            along //= 2
        return along
    while across > 16 and across // 2 >= n:
        along, across = along * 2, across // 2
    return along


def mlas_gemm(a, b, alpha=1.0, c=None):
    """Return ``alpha · a @ b + c`` of float32 matrices.

    Terms are added one after the other, each by a fused step, in blocks of 128 and more, of which each is scaled and added by another. One row
    with a factor of 1 and nothing to add goes to another kernel, without fused steps: four products at a time are added, and then to the output.

    Parameters
    ----------
    a : ndarray of float32, (M, K)
    b : ndarray of float32, (K, N)
        K at least 1.
    alpha : float
    c : ndarray of float32, (M, N), optional

    Returns
    -------
    ndarray of float32, (M, N)

    Exactness
    ---------
    Bit-exact on a CPU with FMA, for more than one column, where `b` is not transposed in memory or M is not 1 or `alpha` is not 1. For others see `mlas_dots`.

    Source
    ------
    ONNX Runtime 1.32, core/mlas/lib/sgemm.cpp, x86_64/FgemmKernelFma3Common.h, SgemmKernelM1Avx.S.

    Examples
    --------
    >>> mlas_gemm(np.float32([[1, 2], [3, 4]]), np.float32([[1, 0], [0, 1]]), 0.5).tolist()
    [[0.5, 1.0], [1.5, 2.0]]
    """
    if len(a) == 1 and alpha == 1 and c is None:
        return _row(a[0], b)[None]
    k, step, y = a.shape[1], _block(b.shape[1], a.shape[1]), c
    for start in range(0, k, step):
        acc = np.zeros((len(a), b.shape[1]), _F)
        for i in range(start, min(start + step, k)):
            acc = fma32(a[:, i : i + 1], b[i : i + 1], acc)
        y = acc * _F(alpha) if y is None else fma32(acc, _F(alpha), y)
    return y


def _row(a, b):
    y, i, k = np.zeros(b.shape[1], _F), 0, a.size
    while i < k:
        step = 4 if k - i >= 4 else 2 if k - i >= 2 else 1
        products = a[i : i + step, None] * b[i : i + step]
        y = y + np.add.accumulate(products, axis=0, dtype=_F)[-1]
        i += step
    return y


def mlas_dots(rows, x):
    """Return ``rows @ x`` of float32: what a product of one column is, or of one row with a transposed matrix, at a factor of 1 and with nothing to add.

    Products are added to eight sums without fused steps, and these to one in an order of their own for four rows at a time, for two more, and for a last one.

    Parameters
    ----------
    rows : ndarray of float32, (N, K)
    x : ndarray of float32, (K,)

    Returns
    -------
    ndarray of float32, (N,)

    Exactness
    ---------
    Bit-exact on a CPU with AVX. A single row of a matrix with a single column that is not transposed is `mlas_gemm`'s.

    Source
    ------
    ONNX Runtime 1.32, core/mlas/lib/sgemm.cpp, x86_64/SgemmKernelM1TransposeBAvx.S.

    Examples
    --------
    >>> mlas_dots(np.float32([[1, 2], [3, 4]]), np.float32([1, 0.5])).tolist()
    [2.0, 5.0]
    """
    n, k = rows.shape
    products = np.zeros((n, -(-k // 8) * 8), _F)
    products[:, :k] = rows * x
    sums = np.add.accumulate(products.reshape(n, -1, 8), axis=1, dtype=_F)[:, -1].T + _F(0)
    four = n // 4 * 4
    two = four + (n & 2)
    a = sums[:, :four].reshape(2, 4, -1)
    fours = ((a[:, 0] + a[:, 1]) + a[:, 2]) + a[:, 3]
    b = sums[:, four:two].reshape(2, 2, 2, -1)
    b = b[:, 0] + b[:, 1]
    twos = b[0] + b[1]
    c = sums[:, two:].reshape(2, 2, 2, -1)
    c = c[:, :, 0] + c[:, :, 1]
    ones = c[:, 0] + c[:, 1]
    return np.concatenate([fours[0] + fours[1], twos[0] + twos[1], ones[0] + ones[1]])
