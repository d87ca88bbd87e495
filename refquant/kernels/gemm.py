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

from refquant.kernels.finish import RAW
from refquant.kernels.left import matrix_rows, sum_rows
from refquant.kernels.product import Right, Target, run_product, start_of
from refquant.kernels.requantize import output_kind
from refquant.kernels.signature import NO_STAGE, as_input, freeze_epilogue
from refquant.kernels.tile import rung_named

__all__ = ["gemm_s32", "gemm_requantize", "multiply", "unsigned_codes"]

_NO_SUMS = np.empty((1, 0), np.int32)


def unsigned_codes(x, x_zero):
    """Return `x` as contiguous uint8 codes and the zero point that goes with them."""
    if x.dtype == np.int8:
        return as_input(np.ascontiguousarray(x).view(np.uint8) ^ np.uint8(0x80)), int(x_zero) + 128
    return as_input(x), int(x_zero)


def multiply(left, columns, packed, x_zero, w_zero, out, kind, ep):
    """Compute one product into `out`, the last step of `gemm_s32` and of convolutions.

    Parameters
    ----------
    left : Left
    columns : ndarray of int8
        As the rung of `packed` lays them out.
    packed : PackedB or PackedConv
    x_zero : int
    w_zero : int or ndarray of int, (groups * columns,)
    out : ndarray, C-contiguous, (rows, groups * columns) in memory
    kind : int
        What is written, see `refquant.kernels.finish`.
    ep : Epilogue
        For groups * columns channels; for `RAW` any.
    """
    count = packed.sums.shape[0]
    if not out.size:
        return
    zeros = np.empty(count, np.int32)
    zeros[:] = w_zero
    zeros -= packed.offset
    rung, groups = rung_named(packed.rung), packed.groups
    bias_i = _zero_bias(count) if kind == RAW else ep.bias_i
    start = start_of(packed.sums, groups, left.runs.shape[0] * left.length, x_zero, zeros, bias_i)
    sums = sum_rows(left, groups) if zeros.any() else _NO_SUMS
    widest, depth = (1, 1) if rung is None else (rung.widest, rung.depth)
    right = Right(columns, groups, count // groups, start, zeros, sums, widest, depth)
    run_product(packed.rung, left, right, Target(out.reshape(-1).view(np.uint8), out.itemsize, kind), ep)


def _zero_bias(n):
    zeros = np.zeros(n, np.int32)
    zeros.setflags(write=False)
    return zeros


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
    a, a_zero = unsigned_codes(a, a_zero)
    multiply(matrix_rows(a), packed.data, packed, a_zero, b_zero, out, RAW, NO_STAGE)
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
    a, a_zero = unsigned_codes(a, a_zero)
    multiply(matrix_rows(a), packed.data, packed, a_zero, b_zero, out, output_kind(dtype), freeze_epilogue(epilogue))
    return out
