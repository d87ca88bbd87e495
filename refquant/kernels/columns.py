"""The columns of a product as register tiles read them.

    codes    [group][column][run][k]                               int8, a column's k side by side
    packed   [group][block][run][k / depth][column][depth]         int8, zeros behind the last column and the last k of a run
    limits   [group][16 columns]                                   uint8, behind them, where a rung has a `low` one

A limit is the highest byte of A with which no pair of these columns can saturate: ``limit * (sum of a pair)`` fits into int16.

A block has 16 to 64 columns; see `refquant.kernels.tile` for `depth`, the neighbours of k that make one word.
"""

from ctypes import memmove

import numpy as np
from numba.core import types

from refquant.kernels.aligned import aligned_zeros
from refquant.kernels.jit import jit_disabled, kernel
from refquant.kernels.signature import as_input
from refquant.kernels.transpose import transpose_bytes
from refquant.kernels.vector_ir import I8, I16, I32, I64, emitted_function

__all__ = ["first_column", "pack_columns", "signed_codes", "column_sums", "copy_words"]

@kernel
def first_column(block, n16, widest):
    """Where a block of columns begins, in 16: blocks are as wide as they may be, but 4 + 1 is shared as 3 + 2."""
    at = min(block * widest, n16)
    return at - 1 if at == n16 - 1 and 0 < block * widest and n16 % widest == 1 else at


def _emit_scatter(e, source, target, step, depth, words):
    for size, kind in ((1, I8), (2, I16), (4, I32)):
        with e.when(e.equal(depth, size)):
            with e.loop(words) as k:
                e.store(e.load(e.add(source, e.mul(k, size)), kind), e.add(target, e.mul(k, step)))


_scatter_words = emitted_function("scatter_words", types.none, [types.int64] * 5, _emit_scatter)
"""``(source, target, step, depth, words)``: words of `depth` bytes, side by side at `source`, are put `step` bytes apart."""


def _emit_copy(e, source, target, words):
    with e.loop(e.mul(words, 8), step=8) as at:
        e.store(e.load(e.add(source, at), I64), e.add(target, at))


def _copy_plainly(source, target, words):
    memmove(int(target), int(source), 8 * int(words))


copy_words = _copy_plainly if jit_disabled() else emitted_function("copy_words", types.none, [types.int64] * 3, _emit_copy)
"""``(source, target, words)``: eight bytes at a time, from the first to the last."""


@kernel
def _pack_columns(codes, widest, depth, packed):
    groups, columns, runs, length = codes.shape
    n16, words = (columns + 15) // 16, (length + depth - 1) // depth
    block_at = 0
    for g in range(groups):
        for block in range((n16 + widest - 1) // widest):
            c0, c1 = 16 * first_column(block, n16, widest), 16 * first_column(block + 1, n16, widest)
            step = (c1 - c0) * depth
            for n in range(c0, min(c1, columns)):
                for r in range(runs):
                    line = codes[g, n, r]
                    at = block_at + r * words * step + (n - c0) * depth
                    _scatter_words(line.ctypes.data, packed.ctypes.data + at, step, depth, length // depth)
                    last = packed[at + length // depth * step :]
                    for j in range(length // depth * depth, length):
                        last[j % depth] = line[j]
            block_at += runs * words * step


@kernel
def _pair_limits(packed, line16, limits):
    """The limit of each 16 columns, `line16` bytes in which pairs are neighbours; their sums count signs apart, for A may be 0 anywhere."""
    for i in range(limits.shape[0]):
        above, below = 1, 1
        line = packed[i * line16 : (i + 1) * line16]
        for j in range(line16 // 2):
            a, b = np.int64(line[2 * j]), np.int64(line[2 * j + 1])
            above = max(above, max(a, 0) + max(b, 0))
            below = min(below, min(a, 0) + min(b, 0))
        limits[i] = min(255, min(32767 // above, 32768 // max(1, -below)))


def pack_columns(codes, rung):
    """Pack the columns of a product.

    Parameters
    ----------
    codes : ndarray of int8, (groups, columns, runs, length)
    rung : Rung

    Returns
    -------
    ndarray of int8, (bytes,), read-only
    """
    groups, columns, runs, length = codes.shape
    blocks, line16 = groups * -(-columns // 16), 16 * runs * -(-length // rung.depth) * rung.depth
    packed = aligned_zeros(blocks * (line16 + 1 if rung.low else line16), np.int8)
    if codes.size:
        _pack_columns(as_input(codes), rung.widest, rung.depth, packed)
        if rung.low:
            _pair_limits(packed, line16, packed[blocks * line16 :].view(np.uint8))
    return as_input(packed)


def signed_codes(codes):
    """Return 8-bit codes as a contiguous int8 array of its own, and what was subtracted from each."""
    offset = 128 if codes.dtype == np.uint8 else 0
    if codes.ndim == 2 and codes.flags.f_contiguous and not codes.flags.c_contiguous and not jit_disabled():
        copy = np.empty(codes.shape, np.int8)
        flat, (columns, k) = as_input(codes.T).view(np.uint8).reshape(-1), codes.shape
        transpose_bytes(flat, columns, k, columns, offset, copy.reshape(-1).view(np.uint8), k)
        return copy, offset
    copy = np.array(codes, order="C", copy=True).view(np.int8)
    if offset:
        copy ^= np.int8(-128)
    return copy, offset


@kernel
def _sum_columns(codes, sums):
    for n in range(codes.shape[0]):
        column, total = codes[n], np.int32(0)
        for k in range(codes.shape[1]):
            total = np.int32(total + column[k])
        sums[n] = total


def column_sums(codes):
    """Sum the columns of (columns, k) int8: int32."""
    if jit_disabled():
        return codes.sum(axis=1, dtype=np.int32)
    sums = np.empty(codes.shape[0], np.int32)
    _sum_columns(codes, sums)
    return sums
