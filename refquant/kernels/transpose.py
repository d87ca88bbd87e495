"""Blocks of 16 × 16 bytes, turned over in registers: from channels first to channels last.

    source  [channel][pixel]    16 registers, one channel each        a0 a1 a2 … | b0 b1 b2 … | …
    4 times: interleave register i with register i + 8
    target  [pixel][channel]    16 registers, one pixel each          a0 b0 c0 … | a1 b1 c1 … | …

The last channels are done in a block that overlaps the one before; of the last pixels, what is read too much is not stored.
"""

import numpy as np
from numba.core import types

from refquant.kernels.jit import jit_disabled, kernel
from refquant.kernels.vector_ir import I8, emitted_function, vector

__all__ = ["transpose_bytes"]

_SIDE = 16
_BLOCKS = not jit_disabled()


def _emit(e, source, source_step, target, target_step, channels, pixels, flip):
    kind = vector(I8, _SIDE)
    mask = e.splat(e.builder.trunc(flip, I8), _SIDE)
    low = [lane for i in range(8) for lane in (i, _SIDE + i)]
    high = [lane for i in range(8, _SIDE) for lane in (i, _SIDE + i)]
    with e.loop(channels, step=_SIDE) as first:
        c = e.smaller(first, e.sub(channels, _SIDE))
        with e.loop(pixels, step=_SIDE) as p:
            at = e.add(e.add(source, e.mul(c, source_step)), p)
            rows = [e.load(e.add(at, e.mul(source_step, i)), kind) for i in range(_SIDE)]
            for _ in range(4):
                rows = [e.shuffle(rows[i], rows[i + 8], order) for i in range(8) for order in (low, high)]
            at, left = e.add(e.add(target, e.mul(p, target_step)), c), e.sub(pixels, p)
            for i, row in enumerate(rows):
                with e.when(e.less(e.constant(i), left)):
                    e.store(e.builder.xor(row, mask), e.add(at, e.mul(target_step, i)))


_transpose_blocks = emitted_function("transpose_blocks", types.none, [types.int64] * 7, _emit)
"""``(source, source_step, target, target_step, channels, pixels, flip)``: addresses; at least 16 channels, whose pixels may be
read up to the next 16."""


@kernel
def transpose_bytes(source, source_step, channels, pixels, flip, target, target_step):
    """Turn over any number of bytes: flat arrays; the steps go from channel to channel in `source`, from pixel to pixel in `target`."""
    read = (channels - 1) * source_step + (pixels + _SIDE - 1) // _SIDE * _SIDE
    if _BLOCKS and channels >= _SIDE and read <= source.shape[0]:
        _transpose_blocks(source.ctypes.data, source_step, target.ctypes.data, target_step, channels, pixels, flip)
        return
    mask = np.uint8(flip)
    for c in range(channels):
        row, out = source[c * source_step :], target[c:]
        for p in range(pixels):
            out[p * target_step] = row[p] ^ mask
