"""Products of float32 rows with weights of 4 and 8 bits in blocks, of ONNX Runtime's own domain: MatMulNBits."""

import numpy as np

from refquant.core.mlas_blocks import block_product, dequantized_blocks
from refquant.core.mlas_gemm import mlas_gemm
from refquant.interop.onnx.call import check_size, need
from refquant.interop.onnx.microsoft_blocks import unpacked

__all__ = ["matmul_nbits"]

_BLOCKS = (16, 32, 64, 128, 256)


def _weights(call, b, scales, zero_points):
    """Return codes (N, B, block), scales and zero points (N, B)."""
    n, k, bits, block = (int(call.require(name)) for name in ("N", "K", "bits", "block_size"))
    if bits not in (4, 8) or block not in _BLOCKS:
        call.refuse(f"has weights of {bits} bits in blocks of {block}", "4 and 8 bits in blocks of 16, 32, 64, 128 and 256 are described")
    count = -(-k // block)
    need(call, b.dtype == np.uint8 and b.size == n * count * block * bits // 8, f"b is {b.dtype} {b.shape} but N={n}, K={k} in blocks of {block} need {(n, count, block * bits // 8)}")
    need(call, scales.dtype == np.float32 and scales.size == n * count, f"scales are {scales.dtype} {scales.shape} but N={n} and K={k} need {(n, count)}")
    codes = unpacked(b.reshape(n, count, -1), bits)
    if zero_points is None:
        return codes, scales.reshape(n, count), None
    if zero_points.dtype != np.uint8:
        call.refuse(f"has zero points of {zero_points.dtype}", "those of uint8 are described")
    zero = zero_points.reshape(n, -1)
    need(call, zero.shape[1] == -(-count * bits // 8), f"zero points have shape {zero_points.shape} but N={n} needs {-(-count * bits // 8)} bytes each")
    return codes, scales.reshape(n, count), unpacked(zero, bits)[:, :count]


def _as_runtime(call, rows, codes, scales, zero, bias, bits, integers):
    if bits == 4 or integers:
        if call.profile.isa != "avx2":
            call.refuse(f"{call.profile.name} adds in the lanes of AVX-512, which are not described", "choose onnxruntime@avx2, or pass fuse_qdq=False if it stems from a MatMul")
        return block_product(rows, codes, scales, zero, bias, bits=bits, integers=integers)
    if len(rows) == 1:
        call.refuse("multiplies one row by 8 bits in float32", "set accuracy_level=4, or give it two rows")
    real = np.ascontiguousarray(dequantized_blocks(codes, scales, zero, bits)[:, : rows.shape[1]].T)
    return mlas_gemm(rows, real, c=None if bias is None else np.tile(bias, (len(rows), 1)))


def matmul_nbits(call, a, b, scales, zero_points=None, g_idx=None, bias=None):
    """``MatMulNBits``, see `refquant.core.mlas_blocks.block_product`: int8 rows at accuracy level 4, float32 else."""
    if g_idx is not None:
        call.refuse("reorders K (input g_idx)", "leave g_idx out")
    if a.dtype != np.float32:
        call.refuse(f"multiplies {a.dtype}", "float32 is described")
    codes, scales, zero = _weights(call, b, scales, zero_points)
    need(call, a.ndim >= 1 and a.shape[-1] == call.require("K"), f"a has shape {a.shape} but K={call.require('K')}")
    need(call, bias is None or bias.shape == (len(codes),), f"the bias has shape {None if bias is None else bias.shape} but N={len(codes)}")
    check_size((*a.shape[:-1], len(codes)), 4, call.place)
    rows, bits = a.reshape(-1, a.shape[-1]), int(call.require("bits"))
    if call.rules.kernels == "mlas":
        need(call, np.isfinite(a).all(), "a has NaN or infinite numbers", "their codes are not described; remove them")
        y = _as_runtime(call, rows, codes, scales, zero, bias, bits, int(call.get("accuracy_level", 0)) == 4) if rows.size else np.zeros((len(rows), len(codes)), np.float32)
    else:
        y = rows @ dequantized_blocks(codes, scales, zero, bits)[:, : rows.shape[1]].T
        y = y if bias is None else y + bias
    return y.reshape(*a.shape[:-1], len(codes))
