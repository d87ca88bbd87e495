"""Codes that share scales in blocks, of ONNX Runtime's own domain: GatherBlockQuantized."""

import numpy as np

from refquant.core.affine import dequantize_codes
from refquant.interop.onnx.call import axis_of, check_size, need
from refquant.interop.onnx.cast import cast_to, real_of
from refquant.interop.onnx.dtypes import type_of_array

__all__ = ["gather_block_quantized", "unpacked"]


def unpacked(codes, bits):
    """Return codes of `bits` bits from bytes, the lowest bits first, along the last axis."""
    parts = [(codes >> shift) & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, axis=-1).reshape(*codes.shape[:-1], -1)


def _codes(call, data, zero_points, blocks, axes):
    """Return the codes and their zero points as integers."""
    kind, bits = type_of_array(data, call.place), call.get("bits", 4)
    if kind.name in ("int4", "uint4"):
        need(call, bits == 4, f"bits={bits} but the codes are {kind.name}", "set bits=4")
        return real_of(data), np.int64(0) if zero_points is None else real_of(zero_points)
    if kind.name != "uint8":
        call.refuse(f"gathers {kind.name}", "int4, uint4 and bytes of uint8 are described")
    need(call, bits in (2, 4, 8), f"bits={bits}", "uint8 holds 2, 4 or 8")
    need(call, axes == (0, data.ndim - 1) and data.ndim > 1, f"gather_axis and quantize_axis are {axes}; bytes take the first and the last", "use int4 or uint4")
    zero = np.int64(1 << bits - 1) if zero_points is None else unpacked(zero_points, bits)[..., :blocks]
    return unpacked(data, bits), zero


def gather_block_quantized(call, data, indices, scales, zero_points=None):
    """``GatherBlockQuantized``: rows of codes by their indices, ``(code - zero_point) * scale``; an index that is not there gives zeros."""
    gather, along = (axis_of(call, call.get(name, i), data.ndim) for i, name in enumerate(("gather_axis", "quantize_axis")))
    size = call.get("block_size", 128)
    need(call, size >= 16 and not size & (size - 1), f"block_size={size} but must be a power of 2 from 16 on", "quantize in other blocks")
    need(call, indices.dtype.kind in "iu", f"indices are {indices.dtype}")
    need(call, scales.ndim == data.ndim, f"data {data.shape} and scales {scales.shape} must have as many axes")
    codes, zero = _codes(call, data, zero_points, scales.shape[along], (gather, along))
    wanted = tuple(-(-n // size) if i == along else n for i, n in enumerate(codes.shape))
    good = scales.shape == wanted and np.shape(zero) in ((), wanted)
    need(call, good, f"scales {scales.shape} and zero points {np.shape(zero_points)} do not fit: codes {codes.shape} in blocks of {size} need {wanted}")
    check_size((*codes.shape[:gather], *indices.shape, *codes.shape[gather + 1 :]), 4, call.place)
    spread = [np.repeat(v, size, axis=along).take(range(codes.shape[along]), axis=along) if np.ndim(v) else v for v in (real_of(scales), zero)]
    real = dequantize_codes(codes, *spread, "sub_mul").astype(np.float32)
    length = codes.shape[gather]
    there = (indices >= -length) & (indices < length)
    rows = np.take(real, np.where(there, indices % max(length, 1), 0), axis=gather)
    rows = np.where(there.reshape(*[1] * gather, *indices.shape, *[1] * (data.ndim - 1 - gather)), rows, np.float32(0))
    return cast_to(rows, type_of_array(scales, call.place), place=call.place)
