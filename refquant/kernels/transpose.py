"""Blocks of 16 × 16 bytes, turned over in registers: from channels first to channels last.

    source  [channel][pixel]    16 registers, one channel each        a0 a1 a2 … | b0 b1 b2 … | …
    4 times: interleave register i with register i + 8
    target  [pixel][channel]    16 registers, one pixel each          a0 b0 c0 … | a1 b1 c1 … | …
"""

from numba.core import types

from refquant.kernels.vector_ir import I8, emitted_function, vector

__all__ = ["transpose_blocks"]

_SIDE = 16


def _emit(e, source, source_step, target, target_step, channels, pixels, flip):
    kind = vector(I8, _SIDE)
    mask = e.splat(e.builder.trunc(flip, I8), _SIDE)
    low = [lane for i in range(8) for lane in (i, _SIDE + i)]
    high = [lane for i in range(8, _SIDE) for lane in (i, _SIDE + i)]
    with e.loop(channels, step=_SIDE) as c:
        with e.loop(pixels, step=_SIDE) as p:
            at = e.add(e.add(source, e.mul(c, source_step)), p)
            rows = [e.load(e.add(at, e.mul(source_step, i)), kind) for i in range(_SIDE)]
            for _ in range(4):
                rows = [e.shuffle(rows[i], rows[i + 8], order) for i in range(8) for order in (low, high)]
            at = e.add(e.add(target, e.mul(p, target_step)), c)
            for i, row in enumerate(rows):
                e.store(e.builder.xor(row, mask), e.add(at, e.mul(target_step, i)))


transpose_blocks = emitted_function("transpose_blocks", types.none, [types.int64] * 7, _emit)
"""``transpose_blocks(source, source_step, target, target_step, channels, pixels, flip)``, both counts multiples of 16.

`source` is the address of the first byte and `source_step` the bytes from channel to channel; `target` and `target_step` the same for
pixels. Every byte is exclusive-ored with `flip`.
"""
