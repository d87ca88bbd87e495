"""The product as ``vpmaddubsw`` computes it, on processors without VNNI: neighbouring products saturate to int16.

    a    [M][K]    uint8
    b    [K][N]    int8; k = 0 and 1, 2 and 3, … are pairs

    acc[m, n] = sum over pairs of saturate_int16(a[m, k] * b[k, n] + a[m, k + 1] * b[k + 1, n])

A last k without a neighbour is added alone; one product always fits into int16. Other pairings are this one after a
permutation of k.
"""

import numpy as np

from refquant.kernels.gemm import bind_multiply
from refquant.kernels.jit import kernel, parallel_for
from refquant.kernels.left import matrix_rows
from refquant.kernels.pack import PackedB, pack_b
from refquant.kernels.scalar import wrap32
from refquant.kernels.signature import as_input
from refquant.kernels.stage import RAW
from refquant.kernels.tile import PLAIN, choose_rung

__all__ = ["gemm_s16pair_s32", "pack_pairs"]


def pack_pairs(b, rung=None):
    """Pack the right-hand matrix of `gemm_s16pair_s32`.

    Parameters
    ----------
    b : ndarray of int8, (K, N)
    rung : str, optional
        ``"pairs512"``, ``"pairs256"`` or ``"plain"``, for tests; the best that this processor has without it.

    Returns
    -------
    PackedB
    """
    if rung is None:
        best = choose_rung(exact=False)
        rung = PLAIN if best is None else best.name
    return pack_b(b, rung)


@kernel
def _plain_pairs(first, last, a, b, out):
    """The plain loops, row by row; `b` is (N, K)."""
    k = a.shape[1]
    for m in range(first, last):
        x = a[m]
        for n in range(b.shape[0]):
            w = b[n]
            total = np.int64(0)
            for pair in range(k // 2):
                i = 2 * pair
                both = np.int64(x[i]) * np.int64(w[i]) + np.int64(x[i + 1]) * np.int64(w[i + 1])
                total += min(max(both, -32768), 32767)
            if k % 2 == 1:
                total += np.int64(x[k - 1]) * np.int64(w[k - 1])
            out[m, n] = wrap32(np.int64(total))


def gemm_s16pair_s32(a, b):
    """Multiply with saturating pairs.

    Parameters
    ----------
    a : ndarray of uint8, (M, K)
    b : ndarray of int8, (K, N), or PackedB from `pack_pairs`

    Returns
    -------
    ndarray of int32, (M, N)

    Exactness
    ---------
    Each pair saturates to int16, once; their sum wraps modulo ``2**32``. Hardware (``vpmaddubsw``, where the processor has it) and
    plain loops give the same bits.
    """
    packed = b if isinstance(b, PackedB) else pack_pairs(b)
    a = as_input(a)
    out = np.empty((a.shape[0], packed.n), np.int32)
    if not out.size:
        return out
    if packed.rung == PLAIN:
        parallel_for(_plain_pairs, a.shape[0], a, packed.data, out)
    else:
        bind_multiply(packed.data, 1, packed, 0, packed.no_zeros, RAW, None)(a.reshape(-1), matrix_rows(*a.shape), out)
    return out
