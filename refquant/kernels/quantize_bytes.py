"""Real numbers to codes of 8 bits, 64 at a time, for parameters of the whole tensor.

    x      float32 [64 * blocks]     v = fma(x, f, z), x * f or x / f, + z;  min(v, hi);  int32, halves to even ┐
    out    uint8 or int8             four of them are packed with saturation, + zero point, limits                ┘

See `refquant.kernels.finish_bytes` for the packing. Same bits as the plain loop in `refquant.kernels.affine`: the conversion turns what is
below int32, and NaN, into ``-2**31``, which the packing makes the lowest code. What is above is stopped by ``min(v, hi)`` before, which
gives NaN or `hi` for a NaN, as the form wants it.
"""

from functools import lru_cache

from numba.core import types

from refquant.kernels.finish_bytes import pack_codes
from refquant.kernels.jit import jit_disabled, kernel
from refquant.kernels.vector_ir import F32, emitted_function, vector
from refquant.kernels.wide import halves_run_here, wide, wide_vectors_run_here

__all__ = ["BLOCK", "quantizing_blocks"]

BLOCK, _AHEAD = 64, 4096
_LANES = 16
_F32V = vector(F32, _LANES)
_HIGH = 1e9


def _emitter(divide, add, nan_high):
    def emit(e, x, out, blocks, factor, inside, after, low, high, flip):
        pack = {"zi16": after, "low8": low, "high8": high, "flip": flip}
        f, z, hi = e.splat(factor, _LANES), e.splat(inside, _LANES), e.constant(_HIGH, _F32V)
        with e.loop(e.mul(blocks, BLOCK), step=BLOCK) as at:
            codes = []
            for i in range(0, BLOCK, _LANES):
                address = e.add(x, e.mul(e.add(at, i), 4))
                if not halves_run_here():  # measured: AVX2's loop is faster without
                    e.prefetch(e.add(address, _AHEAD))
                v = e.load(address, _F32V)
                if add == "fused":
                    v = e.fma(v, f, z)
                else:
                    v = e.builder.fdiv(v, f) if divide else e.builder.fmul(v, f)
                    v = e.builder.fadd(v, z) if add == "before" else v
                if nan_high:
                    v = e.builder.select(e.builder.fcmp_ordered("<", v, hi), v, hi)
                else:
                    v = e.builder.select(e.builder.fcmp_ordered("<", hi, v), hi, v)
                codes.append(wide(e, "cvtps2dq", v))
            e.store(pack_codes(e, pack, codes), e.add(out, at))

    return emit


@lru_cache(maxsize=None)
def quantizing_blocks(divide, add, nan_high):
    """Return the loop for a form, or None where this processor has no such instructions.

    Parameters
    ----------
    divide : bool
        Divide by the factor instead of multiplying.
    add : {"after", "before", "fused"}
        Where the zero point enters.
    nan_high : bool
        Whether NaN becomes the highest code instead of the lowest.

    Returns
    -------
    callable
        ``run(start, stop, x, out, factor, inside, after, low, high, flip)`` writes blocks of flat arrays: float32 and uint8. `inside` and
        `after` are the zero point inside and behind the rounding; the limits are codes, 128 more for int8, for which `flip` is 128.
    """
    if jit_disabled() or not wide_vectors_run_here():
        return None
    name = f"quantize_{'divide' if divide else 'multiply'}_{add}_{'high' if nan_high else 'low'}"
    line = emitted_function(name, types.none, [types.int64] * 3 + [types.float32] * 2 + [types.int64] * 4, _emitter(divide, add, nan_high))

    @kernel
    def run(start, stop, x, out, factor, inside, after, low, high, flip):
        line(x.ctypes.data + 4 * BLOCK * start, out.ctypes.data + BLOCK * start, stop - start, factor, inside, after, low, high, flip)

    return run
