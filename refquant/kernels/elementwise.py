"""Sums of two quantized tensors, one pass over memory.

    a, b, out    [n]    uint8 or int8, in the order in which they lie in memory

The kernels are plain loops, one for each formula, which LLVM turns into vectors.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from refquant.kernels.jit import kernel, parallel_for
from refquant.kernels.scalar import fused_multiply_add, half_even
from refquant.kernels.sum_bytes import BLOCK, line_of, sum_blocks

__all__ = ["RealSum", "FoldedSum", "bind_add_real", "add_folded", "SUB_MUL", "MUL_ADD", "FMA"]

SUB_MUL, MUL_ADD, FMA = range(3)
_GRAIN = 1 << 15


class RealSum(NamedTuple):
    """One way to add by way of real numbers.

    ``c = dequantize(a) + dequantize(b)``, at least `floor`, times or over `factor`, plus `inside`, rounded half to even, plus
    `after`, clamped to ``[low, high]``.

    Attributes
    ----------
    sa, za, ka, sb, zb, kb : float32
        Scales, zero points, and ``-z * s`` rounded.
    floor : float32
        0 for ReLU, else −∞.
    factor, inside, after, low, high : float32
        `low` and `high` bound the rounded value before `after` is added.
    """

    sa: np.float32
    za: np.float32
    ka: np.float32
    sb: np.float32
    zb: np.float32
    kb: np.float32
    floor: np.float32
    factor: np.float32
    inside: np.float32
    after: np.float32
    low: np.float32
    high: np.float32


class FoldedSum(NamedTuple):
    """MLAS's sum on raw codes: ``round(a * ra + (b * rb + k))`` between `low` and `high`."""

    ra: np.float32
    rb: np.float32
    k: np.float32
    low: np.float32
    high: np.float32


@kernel
def _real_sum(numbers):
    """A `RealSum` from the plain tuple of its fields, which reaches a kernel much faster."""
    sa, za, ka, sb, zb, kb, floor, factor, inside, after, low, high = numbers
    return RealSum(sa, za, ka, sb, zb, kb, floor, factor, inside, after, low, high)


@lru_cache(maxsize=None)
def _real(dequantize, divide):
    """Return the loop for one dequantize formula, with or without a division: constants, so that LLVM makes vectors of it."""

    @kernel
    def run(start, stop, a, b, out, numbers):
        p = _real_sum(numbers)
        # From 0 on, so that no index can be negative and be taken from the end, which keeps LLVM from making vectors.
        a, b, out = a[start:stop], b[start:stop], out[start:stop]
        for i in range(out.size):
            qa, qb = np.float32(a[i]), np.float32(b[i])
            if dequantize == SUB_MUL:
                c = (qa - p.za) * p.sa + (qb - p.zb) * p.sb
            elif dequantize == MUL_ADD:
                c = (qa * p.sa + p.ka) + (qb * p.sb + p.kb)
            else:
                c = fused_multiply_add(qa, p.sa, p.ka) + fused_multiply_add(qb, p.sb, p.kb)
            c = c if c > p.floor else p.floor
            r = half_even((c / p.factor if divide else c * p.factor) + p.inside)
            r = r if r > p.low else p.low
            r = r if r < p.high else p.high
            out[i] = np.int32(r + p.after)

    return run


@lru_cache(maxsize=None)
def _folded(fused):
    @kernel
    def run(start, stop, a, b, out, p):
        a, b, out = a[start:stop], b[start:stop], out[start:stop]
        for i in range(out.size):
            qa, qb = np.float32(a[i]), np.float32(b[i])
            if fused:
                r = half_even(fused_multiply_add(qa, p.ra, fused_multiply_add(qb, p.rb, p.k)))
            else:
                r = half_even(qa * p.ra + (qb * p.rb + p.k))
            r = r if r > p.low else p.low
            r = r if r < p.high else p.high
            out[i] = np.int32(r)

    return run


def bind_add_real(step, dequantize, divide):
    """Prepare the sum by a `RealSum` of two flat arrays into a third.

    Parameters
    ----------
    step : RealSum
    dequantize : int
        `SUB_MUL`, `MUL_ADD` or `FMA`.
    divide : bool
        Divide by ``step.factor`` instead of multiplying.

    Returns
    -------
    callable
        ``run(a, b, out)`` of uint8 or int8, (n,)
    """
    loop, numbers = _real(dequantize, divide), tuple(step)
    line = line_of(step) if dequantize == FMA and not divide else None

    def run(a, b, out):
        whole = 0
        if line is not None and a.dtype == b.dtype == out.dtype == np.uint8:
            whole = out.size // BLOCK * BLOCK
            parallel_for(sum_blocks, out.size // BLOCK, a, b, out, line, grain=_GRAIN // BLOCK)
        if whole < out.size:
            parallel_for(loop, out.size - whole, a[whole:], b[whole:], out[whole:], numbers, grain=_GRAIN)

    return run


def add_folded(a, b, out, step, fused):
    """Write the sum by a `FoldedSum` of two flat arrays into a third; `fused` says whether products and sums are."""
    parallel_for(_folded(fused), a.size, a, b, out, step, grain=_GRAIN)
