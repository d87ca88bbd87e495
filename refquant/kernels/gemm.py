"""Products of 8-bit matrices, exact modulo ``2**32``, with the output stage fused.

    a       [M][K]       uint8, row after row (int8 is stored 128 more)
    b       PackedB      see `refquant.kernels.pack`
    out     [M][N]

With the zero points za and zb[n], and all sums over k::

    sum((a - za) * (b - zb)) = sum(a * b) - za * sum(b) - zb * sum(a) + K * za * zb
                                            |---- column n -----|  row m |-- column --|

The terms of a column are what its accumulators begin with; the term of a row exists only for weights with zero points.
"""

import numpy as np

from refquant.kernels.left import matrix_rows, sum_rows
from refquant.kernels.product import run_product
from refquant.kernels.signature import as_input
from refquant.kernels.stage import RAW, output_kind

__all__ = ["gemm_s32", "gemm_requantize", "multiply", "column_zeros"]

_NO_SUMS = as_input(np.empty((1, 0), np.int32))


def _unsigned_codes(x, x_zero):
    """Return `x` as contiguous uint8 codes and the zero point that goes with them."""
    if x.dtype == np.int8:
        return as_input(np.ascontiguousarray(x).view(np.uint8) ^ np.uint8(0x80)), int(x_zero) + 128
    return as_input(x), int(x_zero)


def multiply(field, left, columns, groups, packed, x_zero, zeros, out, kind, ep):
    """Compute one product into `out`: the last step of `gemm_s32` and of convolutions.

    Parameters
    ----------
    field : ndarray of uint8, (bytes,), read-only
    left : tuple
        The fields of a `Left`.
    columns : ndarray of int8
        As the rung of `packed` lays them out.
    groups : int
    packed : PackedB or PackedConv
    x_zero : int
    zeros : ndarray of int32, (groups * columns,)
        From `column_zeros`.
    out : ndarray, C-contiguous, (rows, groups * columns) in memory
    kind : int
        What is written, see `refquant.kernels.stage`.
    ep : Epilogue or None
        For groups * columns channels; None for `RAW`.
    """
    if not out.size:
        return
    row_sums = _NO_SUMS
    if zeros is not packed.no_zeros:
        row_sums = sum_rows(field, left, groups)
    right = (columns, packed.sums, zeros, row_sums, groups, packed.sums.shape[0] // groups, x_zero)
    run_product(packed.rung, field, left, right, out, kind, ep)


def column_zeros(packed, w_zero):
    """The zero point of each stored column; `packed.no_zeros` itself if there are none."""
    if isinstance(w_zero, int):
        if w_zero == packed.offset:
            return packed.no_zeros
    zeros = packed.no_zeros + w_zero - packed.offset
    return as_input(zeros.astype(np.int32)) if zeros.any() else packed.no_zeros


def _multiply(a, packed, a_zero, b_zero, out, kind, ep):
    a, a_zero = _unsigned_codes(a, a_zero)
    zeros = column_zeros(packed, b_zero)
    multiply(a.reshape(-1), matrix_rows(*a.shape), packed.data, 1, packed, a_zero, zeros, out, kind, ep)


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
    _multiply(a, packed, a_zero, b_zero, out, RAW, None)
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
    _multiply(a, packed, a_zero, b_zero, out, output_kind(dtype), epilogue)
    return out
