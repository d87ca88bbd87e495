"""Products of 8-bit matrices, exact modulo ``2**32``, with the output stage fused.

    a       [M][K]          uint8, row after row (int8 is stored 128 more)
    b       PackedB         see `refquant.kernels.pack`
    start   [N]             int32, what an accumulator begins with: zero-point terms of the columns and ``bias_i``
    tile    [rows][columns] int32, a block of accumulators in the L1 cache, finished before the next one begins
    out     [M][N]

With the zero points za and zb[n], and all sums over k::

    sum((a - za) * (b - zb)) = sum(a * b) - za * sum(b) - zb * sum(a) + K * za * zb
                                            |---- column n -----|  row m |-- column --|
"""

import numpy as np

from refquant.kernels.jit import kernel, parallel_for
from refquant.kernels.requantize import as_input, finish_row, freeze_epilogue
from refquant.kernels.scalar import wrap32

__all__ = ["gemm_s32", "gemm_requantize", "start_values", "row_sums"]

_ROWS, _COLUMNS = 64, 64


@kernel
def start_values(sums, k, a_zero, b_zero, bias_i, start):
    """Fill `start` with what the accumulators of each column begin with."""
    for n in range(start.shape[0]):
        zb = np.int64(b_zero[n])
        start[n] = wrap32(k * a_zero * zb - a_zero * np.int64(sums[n]) + np.int64(bias_i[n]))


@kernel
def row_sums(a, sums):
    """Sum each row of `a`."""
    for m in range(a.shape[0]):
        total = np.int64(0)
        for k in range(a.shape[1]):
            total += a[m, k]
        sums[m] = wrap32(np.int64(total))


@kernel
def _dot_block(a, b, m0, n0, tile, start):
    """The plain loop: tile[i, j] = start[n0 + j] + sum over k of a[m0 + i, k] * b[n0 + j, k]."""
    for i in range(tile.shape[0]):
        for j in range(tile.shape[1]):
            total = np.int64(start[n0 + j])
            for k in range(a.shape[1]):
                total += np.int32(a[m0 + i, k]) * np.int32(b[n0 + j, k])
            tile[i, j] = wrap32(np.int64(total))


@kernel
def _subtract_rows(tile, m0, n0, sums, b_zero):
    """The term of a weight zero point: ``sums[m] * b_zero[n]``."""
    for i in range(tile.shape[0]):
        for j in range(tile.shape[1]):
            tile[i, j] = wrap32(np.int64(tile[i, j]) - np.int64(sums[m0 + i]) * np.int64(b_zero[n0 + j]))


@kernel
def _blocks_s32(first, last, a, b, start, sums, b_zero, out):
    across = (out.shape[1] + _COLUMNS - 1) // _COLUMNS
    for block in range(first, last):
        m0, n0 = block // across * _ROWS, block % across * _COLUMNS
        tile = out[m0 : min(m0 + _ROWS, out.shape[0]), n0 : min(n0 + _COLUMNS, out.shape[1])]
        _dot_block(a, b, m0, n0, tile, start)
        if sums.shape[0] > 0:
            _subtract_rows(tile, m0, n0, sums, b_zero)


@kernel
def _blocks_requantize(first, last, a, b, start, sums, b_zero, out, ep, as_float):
    across = (out.shape[1] + _COLUMNS - 1) // _COLUMNS
    scratch = np.empty((_ROWS, _COLUMNS), np.int32)
    real = np.empty(_COLUMNS, np.float32)
    wide = np.empty(_COLUMNS, np.float64)
    for block in range(first, last):
        m0, n0 = block // across * _ROWS, block % across * _COLUMNS
        m1, n1 = min(m0 + _ROWS, out.shape[0]), min(n0 + _COLUMNS, out.shape[1])
        tile = scratch[: m1 - m0, : n1 - n0]
        _dot_block(a, b, m0, n0, tile, start)
        if sums.shape[0] > 0:
            _subtract_rows(tile, m0, n0, sums, b_zero)
        for i in range(m1 - m0):
            finish_row(tile[i], n0, out[m0 + i, n0:n1], ep, real, wide, as_float)


def _prepare(a, packed, a_zero, b_zero, bias_i):
    """Bring both sides to u8 × s8: the array, the starting values, the row sums (or none) and the column zero points."""
    if a.dtype == np.int8:
        a, a_zero = np.ascontiguousarray(a).view(np.uint8) ^ np.uint8(0x80), int(a_zero) + 128
    a = as_input(a)
    zeros = np.empty(packed.n, np.int32)
    zeros[:] = b_zero
    zeros -= packed.offset
    start = np.empty(packed.n, np.int32)
    start_values(packed.sums, packed.k, int(a_zero), zeros, bias_i, start)
    sums = np.empty(a.shape[0] if zeros.any() else 0, np.int32)
    if sums.size:
        row_sums(a, sums)
    return a, start, sums, zeros


def _no_bias(n):
    zeros = np.zeros(n, np.int32)
    zeros.setflags(write=False)
    return zeros


def _blocks(m, n):
    return -(-m // _ROWS) * -(-n // _COLUMNS)


def gemm_s32(a, packed, *, a_zero=0, b_zero=0, out=None):
    """Multiply two matrices of 8-bit codes: ``sum((a - a_zero) * (b - b_zero))``.

    Parameters
    ----------
    a : ndarray of uint8 or int8, (M, K)
        Any strides.
    packed : PackedB
        (K, N), from `pack_b`.
    a_zero : int
    b_zero : int or ndarray of int, (N,)
    out : ndarray of int32, (M, N), optional
        C-contiguous.

    Returns
    -------
    ndarray of int32, (M, N)

    Exactness
    ---------
    Exact modulo ``2**32``, whatever the kernel and the number of threads.
    """
    if out is None:
        out = np.empty((a.shape[0], packed.n), np.int32)
    a, start, sums, zeros = _prepare(a, packed, a_zero, b_zero, _no_bias(packed.n))
    parallel_for(_blocks_s32, _blocks(*out.shape), a, packed.data, start, sums, zeros, out)
    return out


def gemm_requantize(a, packed, epilogue, dtype, *, a_zero=0, b_zero=0, out=None):
    """Multiply two matrices of 8-bit codes and carry out an output stage.

    Parameters
    ----------
    a, packed, a_zero, b_zero
        As for `gemm_s32`.
    epilogue : Epilogue
    dtype : numpy.dtype
        uint8, int8, int32 or float32; float32 stops before the output scale.
    out : ndarray of `dtype`, (M, N), optional
        C-contiguous.

    Returns
    -------
    ndarray of `dtype`, (M, N)
        ``apply_epilogue(gemm_s32(...), epilogue, dtype)``, bit for bit.
    """
    if out is None:
        out = np.empty((a.shape[0], packed.n), dtype)
    ep = freeze_epilogue(epilogue)
    a, start, sums, zeros = _prepare(a, packed, a_zero, b_zero, ep.bias_i)
    codes = out.view(np.uint8) if out.dtype == np.int8 else out
    parallel_for(
        _blocks_requantize, _blocks(*out.shape), a, packed.data, start, sums, zeros, codes, ep, out.dtype == np.float32
    )
    return out
