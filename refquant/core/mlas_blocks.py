"""MLAS's products of float32 rows with weights quantized in blocks, as ONNX Runtime's kernels for AVX2 add them up."""

import numpy as np

from refquant.core.fma import fma32
from refquant.core.rounding import Round, round_real

__all__ = ["block_codes", "block_product", "dequantized_blocks"]

_F = np.float32


def block_codes(x, block):
    """Return rows as int8 codes in blocks, each by the largest of its absolute values: ``QuantizeARow_CompInt8_avx2``.

    ``s = f32(max|x| / 127)``, codes ``round(x · f32(127 / max|x|))``, ties to even; the last block is filled with zeros.

    Parameters
    ----------
    x : ndarray of float32, (M, K)
        Finite.
    block : int

    Returns
    -------
    codes : ndarray of int64, (M, B, block)
    scales, sums : ndarray of float32, (M, B)
        A sum is ``s`` times the sum of a block's codes.

    Source
    ------
    ONNX Runtime 1.32, core/mlas/lib/sqnbitgemm_kernel_avx2.cpp.

    Examples
    --------
    >>> codes, scales, sums = block_codes(np.float32([[1.0, -2.0, 0.5]]), 4)
    >>> codes.tolist(), scales.tolist(), sums.tolist()
    ([[[64, -127, 32, 0]]], [[0.015748031437397003]], [[-0.4881889820098877]])
    """
    rows, k = x.shape
    count = -(-k // block)
    padded = np.zeros((rows, count * block), _F)
    padded[:, :k] = x
    padded = padded.reshape(rows, count, block)
    most = np.abs(padded).max(axis=-1)
    with np.errstate(divide="ignore"):
        inverse = np.where(most > 0, _F(127) / most, _F(0)).astype(_F)
    codes = round_real(padded * inverse[..., None], Round.HALF_EVEN).astype(np.int64)
    scales = most / _F(127)
    return codes, scales, scales * codes.sum(axis=-1).astype(_F)


def _dots(a, b, lanes):
    """Return the sums of products of codes for each lane, (lanes, M, N), exactly, in float32."""
    a, b = (v.reshape(len(v), lanes, -1).transpose(1, 0, 2).astype(np.float64) for v in (a, b))
    return (a @ b.transpose(0, 2, 1)).astype(_F)


def _in_eights(codes):
    """Return 64 codes a row so that lanes follow: eights 0, 1, 4, 5, 2, 3, 6, 7, as hadd leaves them."""
    return codes.reshape(len(codes), 8, 8)[:, [0, 1, 4, 5, 2, 3, 6, 7]]


def _in_fours(codes):
    """Return 64 codes a row so that each lane has four of the first and four of the second half."""
    return codes.reshape(len(codes), 2, 8, 4).transpose(0, 2, 1, 3)


def _steps(block, bits, alone):
    """Return how many codes a step takes, how they fall into lanes, and which of the step's blocks each lane is of; then the same of a step of one block."""
    if block > 32:
        return (64, _in_fours if bits == 8 else _in_eights, np.zeros(8, int)), None
    one = block, lambda codes: codes, np.zeros(8, int)
    return (one if alone else (64, _in_eights, np.array([0, 0, 4, 4, 2, 2, 6, 6]) * 8 // block)), one


def _lanes(a, a_scales, b, b_scales, block, bits, alone):
    """Add up the products of all blocks in eight lanes: (8, M, N)."""
    acc = np.zeros((8, len(a), len(b)), _F)
    (step, order, own), last = _steps(block, bits, alone)
    flat, start, length = [v.reshape(len(v), -1) for v in (a, b)], 0, a.shape[1] * block
    while start < length:
        if length - start < step:
            step, order, own = last
        first = start // block
        scales = a_scales[:, first + own].T[:, :, None] * b_scales[:, first + own].T[:, None]
        acc = fma32(_dots(*(order(v[:, start : start + step]) for v in flat), 8), scales, acc)
        start += step
    return acc


def _folded(lanes, odd):
    """Add eight lanes up: of columns by fours one after the other in each half, of the others by halves."""
    in_order = np.add.accumulate(lanes.reshape(2, 4, *lanes.shape[1:]), axis=1, dtype=_F)[:, -1].sum(axis=0, dtype=_F)
    count = in_order.shape[-1] // 4 * 4
    rest = lanes[..., count:]
    while len(rest) > 1:
        rest = rest[0::2] + rest[1::2] if odd and len(rest) < 8 else rest[: len(rest) // 2] + rest[len(rest) // 2 :]
    in_order[..., count:] = rest[0]
    return in_order


def _biased(y, bias):
    return y if bias is None else y + bias


def block_product(x, codes, scales, zero_points, bias=None, *, bits, integers=True):
    """Return ``x @ ((codes − zero_point) · scale)ᵀ + bias`` with weights in blocks of K.

    Of integers, rows of `x` become int8 in blocks (`block_codes`), eight lanes add products of codes exactly, times the product of both scales, by a fused
    step for 64 codes (for 16 or 32 that are left); lanes are added, then the bias, then ``sum_x · (−scale · zero_point)`` of all blocks by fused steps. One row
    of 4 bits in blocks of 32 and more subtracts zero points from the codes instead, and where they are given takes each 32 codes as a step.

    In float32 (4 bits) weights are dequantized, and added term by term by fused steps; one row in eight lanes.

    Parameters
    ----------
    x : ndarray of float32, (M, K)
        Finite.
    codes : ndarray of uint8, (N, B, block)
    scales : ndarray of float32, (N, B)
    zero_points : ndarray of uint8, (N, B), optional
        Half of the range unless given.
    bias : ndarray of float32, (N,), optional
    bits : {4, 8}
    integers : bool

    Returns
    -------
    ndarray of float32, (M, N)

    Exactness
    ---------
    Bit-exact on a CPU with AVX2 and FMA, without VNNI, on one thread: with more, ONNX Runtime cuts rows by 128, of which the last may be one alone.

    Source
    ------
    ONNX Runtime 1.32, core/mlas/lib/qnbitgemm.cpp, sqnbitgemm_kernel_avx2.cpp, sqnbitgemm_kernel_avx2_int8_blklen16.h, …32.h, …64.h.

    Examples
    --------
    >>> x, codes = np.float32([[1, 2], [3, 4]]), np.uint8([[[9] * 2 + [8] * 14]])
    >>> block_product(x, codes, np.float32([[0.5]]), None, bits=4, integers=False).tolist()
    [[1.5], [3.5]]
    """
    block = codes.shape[-1]
    if not integers:
        return _real_product(x, dequantized_blocks(codes, scales, zero_points, bits), bias)
    zero = _zero_points(scales, zero_points, bits)
    a, a_scales, sums = block_codes(x, block)
    alone = len(x) == 1 and bits == 4 and block >= 32
    b = codes.astype(np.int64) - (zero[..., None] if alone else 0)
    y = _biased(_folded(_lanes(a, a_scales, b, scales, block, bits, alone and zero_points is not None), False), bias)
    if alone:
        return y
    correction = np.zeros_like(y)
    for i in range(scales.shape[1]):
        correction = fma32(sums[:, i : i + 1], -scales[:, i] * zero[:, i].astype(_F), correction)
    return correction + y


def _zero_points(scales, zero_points, bits):
    return np.full(scales.shape, 1 << bits - 1) if zero_points is None else zero_points.astype(np.int64)


def dequantized_blocks(codes, scales, zero_points, bits):
    """Return ``(codes − zero_point) · scale`` of float32, (N, B · block), as `block_product` takes its arguments.

    Examples
    --------
    >>> dequantized_blocks(np.uint8([[[9, 6]]]), np.float32([[0.5]]), None, 4).tolist()
    [[0.5, -1.0]]
    """
    zero = _zero_points(scales, zero_points, bits)
    return ((codes.astype(np.int64) - zero[..., None]).astype(_F) * scales[..., None]).reshape(len(codes), -1)


def _real_product(x, real, bias):
    k = x.shape[1]
    if len(x) > 1:
        acc = np.zeros((len(x), len(real)), _F)
        for i in range(k):
            acc = fma32(x[:, i : i + 1], real[:, i], acc)
        return _biased(acc, bias)
    acc = np.zeros((8, 1, len(real)), _F)
    row = np.zeros(real.shape[1], _F)
    row[:k] = x[0]
    for i in range(0, -(-k // 8) * 8, 8):
        acc = fma32(real[:, i : i + 8].T[:, None], row[i : i + 8, None, None], acc)
    return _biased(_folded(acc, True), _F(0) if bias is None else bias)
