"""The product as ``vpmaddubsw`` computes it, on processors without VNNI: neighbouring products saturate to int16.

    a    [M][K]    uint8
    b    [K][N]    int8; k = 0 and 1, 2 and 3, … are pairs

    acc[m, n] = sum over pairs of saturate_int16(a[m, k] * b[k, n] + a[m, k + 1] * b[k + 1, n])

A last k without a neighbour is added alone; one product always fits into int16. Other pairings are this one after a
permutation of k.
"""

import numpy as np

from refquant.core.wrap import wrap_int32
from refquant.kernels.gemm import bind_gemm, bind_multiply
from refquant.kernels.jit import kernel, parallel_for
from refquant.kernels.left import matrix_rows
from refquant.kernels.pack import PackedB, pack_b
from refquant.kernels.requantize import requantize
from refquant.kernels.scalar import wrap32
from refquant.kernels.signature import as_input
from refquant.kernels.stage import RAW
from refquant.kernels.tile import PLAIN, choose_rung

__all__ = ["gemm_s16pair_s32", "bind_gemm_s16pair", "pack_pairs"]


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


def bind_gemm_s16pair(packed, epilogue, dtype, *, signed=False, a_zero=0, b_zero=0):
    """Prepare products with saturating pairs and an output stage, for many left-hand matrices.

    Parameters
    ----------
    packed : PackedB
        From `pack_pairs`.
    epilogue : Epilogue
    dtype : numpy.dtype
    signed : bool
        Whether the left-hand codes are int8; they enter the pairs as uint8, 128 more.
    a_zero : int
    b_zero : int or ndarray of int, (N,)

    Returns
    -------
    callable
        ``run(a)``: the saturated sums of raw codes, less the exact terms of both zero points, through the output stage.
    """
    if packed.rung != PLAIN:
        return bind_gemm(packed, epilogue, dtype, signed=signed, a_zero=a_zero, b_zero=b_zero)
    zero, b_zero = int(a_zero) + 128 * signed, np.asarray(b_zero, np.int64)
    columns = zero * (packed.sums.astype(np.int64) - packed.k * b_zero)

    def run(a):
        codes = a.view(np.uint8) ^ np.uint8(0x80) if signed else a
        rows = codes.sum(1, dtype=np.int64)[:, None] * b_zero
        return requantize(wrap_int32(gemm_s16pair_s32(codes, packed) - rows - columns), epilogue, dtype)

    return run
