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

from refquant.kernels.aligned import aligned_empty
from refquant.kernels.bundles import bundles_of
from refquant.kernels.left import matrix_rows, sum_rows
from refquant.kernels.product import bind_product
from refquant.kernels.signature import as_input
from refquant.kernels.stage import RAW, output_kind

__all__ = ["gemm_s32", "gemm_requantize", "bind_gemm", "bind_multiply", "column_zeros"]

_NO_SUMS = as_input(np.empty((1, 0), np.int32))


def bind_multiply(columns, groups, packed, x_zero, zeros, kind, ep):
    """Prepare the last step of products and convolutions: ``run(field, left, out)``.

    Parameters
    ----------
    columns : ndarray of int8
        As the rung of `packed` lays them out.
    groups : int
    packed : PackedB or PackedConv
    x_zero : int
    zeros : ndarray of int32, (groups * columns,)
        From `column_zeros`.
    kind : int
        What is written, see `refquant.kernels.stage`.
    ep : Epilogue or None
        For groups * columns channels; None for `RAW`.

    Returns
    -------
    callable
        As `refquant.kernels.product.bind_product` gives it.
    """
    each = packed.sums.shape[0] // groups
    before, behind, bundles = (columns, packed.sums, zeros), (groups, each, x_zero), bundles_of(packed, columns, groups * -(-each // 16))
    if zeros is packed.no_zeros:
        return bind_product(packed.rung, (*before, _NO_SUMS, *behind), kind, ep, bundles)

    def run(field, left, out):
        bind_product(packed.rung, (*before, sum_rows(field, left, groups), *behind), kind, ep, bundles)(field, left, out)

    return run


def column_zeros(packed, w_zero):
    """The zero point of each stored column; `packed.no_zeros` itself if there are none."""
    if isinstance(w_zero, int):
        if w_zero == packed.offset:
            return packed.no_zeros
    zeros = packed.no_zeros + w_zero - packed.offset
    return as_input(zeros.astype(np.int32)) if zeros.any() else packed.no_zeros


def bind_gemm(packed, epilogue, dtype, *, signed=False, a_zero=0, b_zero=0):
    """Prepare `gemm_requantize`, or without an output stage `gemm_s32`, for many left-hand matrices.

    Parameters
    ----------
    packed, epilogue, dtype, a_zero, b_zero
        As for `gemm_requantize`; `epilogue` may be None, with int32.
    signed : bool
        Whether the left-hand codes are int8.

    Returns
    -------
    callable
        ``run(a, out=None)``
    """
    kind = RAW if epilogue is None else output_kind(dtype)
    multiply = bind_multiply(packed.data, 1, packed, int(a_zero) + 128 * signed, column_zeros(packed, b_zero), kind, epilogue)
    n = packed.n

    def run(a, out=None):
        if out is None:
            out = aligned_empty((a.shape[0], n), dtype)
        if out.size:
            codes = as_input(np.ascontiguousarray(a).view(np.uint8) ^ np.uint8(0x80)) if signed else as_input(a)
            multiply(codes.reshape(-1), matrix_rows(*a.shape), out)
        return out

    return run


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
    return bind_gemm(packed, None, np.int32, signed=a.dtype == np.int8, a_zero=a_zero, b_zero=b_zero)(a, out)


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
    return bind_gemm(packed, epilogue, dtype, signed=a.dtype == np.int8, a_zero=a_zero, b_zero=b_zero)(a, out)
