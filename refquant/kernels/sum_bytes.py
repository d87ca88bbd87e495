"""The most usual sum of two quantized tensors, 64 codes at a time.

    a, b, out    [64 * blocks]    uint8

    16 codes of a:   uint8 → int32 → float32 → fma ┐
                                                   ├ sum, product → int32 ┐ four of them are packed with saturation,
    16 codes of b:   uint8 → int32 → float32 → fma ┘                      ┘ see `refquant.kernels.finish_bytes`

Same bits as the plain loop in `refquant.kernels.elementwise`. There the limits stand before the zero point, and ReLU before the product;
here both are limits of the code: none of the steps between reverses an order, and `line_of` has made sure that no value leaves int32.
"""

import numpy as np
from numba.core import types

from refquant.kernels.finish_bytes import pack_codes
from refquant.kernels.jit import jit_disabled, kernel
from refquant.kernels.vector_ir import F32, I8, I32, emitted_function, vector
from refquant.kernels.wide import wide, wide_vectors_run_here

__all__ = ["BLOCK", "line_of", "sum_blocks"]

BLOCK = 64
_LANES = 16
_I8V, _I32V, _F32V = vector(I8, _LANES), vector(I32, _LANES), vector(F32, _LANES)


def line_of(step):
    """Return the numbers of the line for a `refquant.kernels.elementwise.RealSum` by fused products, None where it has none."""
    if jit_disabled() or not wide_vectors_run_here():
        return None
    sa, _, ka, sb, _, kb, floor, factor, inside, after, low, high = (float(v) for v in step)
    ends = [abs(255 * sa) + abs(ka), abs(255 * sb) + abs(kb)]
    if not (inside == 0 and floor in (0, -np.inf) and 0 < factor < np.inf and sum(ends) * factor < 2**30):
        return None
    lowest = max(low, 0) if floor == 0 else low
    limits = lowest + after, high + after
    if not (0 <= limits[0] <= limits[1] <= 255 and after == int(after) and abs(after) < 1000):
        return None
    return (*(np.float32(v) for v in (sa, ka, sb, kb, factor)), int(after), int(limits[0]), int(limits[1]))


def _emit(e, a, b, out, blocks, sa, ka, sb, kb, factor, after, low, high):
    pack = {"zi16": after, "low8": low, "high8": high, "flip": e.constant(0)}
    scales = [(a, e.splat(sa, _LANES), e.splat(ka, _LANES)), (b, e.splat(sb, _LANES), e.splat(kb, _LANES))]
    factors = e.splat(factor, _LANES)
    with e.loop(e.mul(blocks, BLOCK), step=BLOCK) as at:
        codes = []
        for i in range(0, BLOCK, _LANES):
            reals = []
            for base, scale, shift in scales:
                codes_of = e.builder.zext(e.load(e.add(e.add(base, at), i), _I8V), _I32V)
                reals.append(e.fma(e.builder.sitofp(codes_of, _F32V), scale, shift))
            v = e.builder.fmul(e.builder.fadd(*reals), factors)
            codes.append(wide(e, "cvtps2dq", v))
        e.store(pack_codes(e, pack, codes), e.add(out, at))


_sum_line = emitted_function("sum_line", types.none, [types.int64] * 4 + [types.float32] * 5 + [types.int64] * 3, _emit)


@kernel
def sum_blocks(start, stop, a, b, out, line):
    """Write the blocks from `start` to `stop` of the sum of two flat arrays of uint8; `line` is from `line_of`."""
    sa, ka, sb, kb, factor, after, low, high = line
    at = BLOCK * start
    _sum_line(a.ctypes.data + at, b.ctypes.data + at, out.ctypes.data + at, stop - start, sa, ka, sb, kb, factor, after, low, high)
