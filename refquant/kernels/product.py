"""The loops around a register tile: one product of windows and packed columns, for matrices and convolutions alike.

    left     field + offset(row) + run       where the k of a row lie, see `refquant.kernels.left`
    right    [group][block][run][k / depth][column][depth]     see `refquant.kernels.tile`; a block has 16 to 64 columns
    units    blocks of `_BLOCK` rows × groups × chunks of column blocks: what threads share out
    tile     [rows][columns] int32 in the L1 cache, finished into the output before the next one begins

Within a unit one block of columns stays in the L2 cache while all rows pass it.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from refquant.kernels.finish import BYTES, RAW, REALS, STAGE_WORDS, WORDS, fill_stage, finish_tile
from refquant.kernels.jit import get_num_threads, kernel, parallel_for
from refquant.kernels.left import fill_offsets
from refquant.kernels.plain import plain_product
from refquant.kernels.scalar import wrap32
from refquant.kernels.signature import as_input
from refquant.kernels.tile import PLAIN, rung_named, tile_function

__all__ = ["Right", "Target", "run_product", "pack_columns", "start_of"]

_BLOCK = 240
_SCRATCH = 12 * 64
_DTYPES = {RAW: np.int32, BYTES: np.uint8, WORDS: np.int32, REALS: np.float32}


class Right(NamedTuple):
    """The columns of a product, packed.

    Attributes
    ----------
    data : ndarray of int8
    groups, columns : int
        Groups, and columns of each.
    start : ndarray of int32, (groups, columns rounded up to 16)
        What the accumulators begin with.
    zeros : ndarray of int32, (groups * columns,)
        Zero points of the columns.
    sums : ndarray of int32, (groups, rows) or empty
        Sums over the k of each row, where there are zero points.
    widest, depth : int
        Of the rung.
    """

    data: np.ndarray
    groups: int
    columns: int
    start: np.ndarray
    zeros: np.ndarray
    sums: np.ndarray
    widest: int
    depth: int


class Target(NamedTuple):
    """The output: its bytes, the bytes of an item, what an item is (see `refquant.kernels.finish`)."""

    data: np.ndarray
    item: int
    kind: int


@lru_cache(maxsize=None)
def _product_kernel(name):
    """The loops around the tile of the rung called `name`."""
    tile = tile_function(rung_named(name))

    @kernel
    def product(first, last, left, right, target, ep, chunks):
        n16 = (right.columns + 15) // 16
        blocks = (n16 + right.widest - 1) // right.widest
        words = (left.length + right.depth - 1) // right.depth if left.loose else left.length // right.depth
        rest = 0 if left.loose else left.length % right.depth
        line16 = 16 * left.runs.shape[0] * ((left.length + right.depth - 1) // right.depth) * right.depth
        pitch = right.groups * right.columns * target.item
        shifted = right.sums.shape[1] > 0
        offsets = np.empty(_BLOCK, np.int64)
        scratch = np.empty(_SCRATCH, np.int32)
        stage = np.empty(STAGE_WORDS, np.int64)
        fill_stage(stage, ep, target.kind, pitch, right.zeros.ctypes.data if shifted else 0, False)
        for unit in range(first, last):
            m0 = unit // (chunks * right.groups) * _BLOCK
            g = unit // chunks % right.groups
            count = min(_BLOCK, left.rows - m0)
            fill_offsets(left, m0, offsets[:count])
            for block in range(unit % chunks * blocks // chunks, (unit % chunks + 1) * blocks // chunks):
                c16 = block * n16 // blocks
                width = (block + 1) * n16 // blocks - c16
                n0, n = g * right.columns + 16 * c16, min(16 * width, right.columns - 16 * c16)
                straight = target.kind == RAW and not shifted and n == 16 * width
                i = 0
                while i < count:
                    m = m0 + i
                    out = target.data.ctypes.data + m * pitch + n0 * target.item
                    done = tile(
                        width, count - i, left.field.ctypes.data + g * left.group_step, offsets.ctypes.data + 8 * i,
                        left.runs.ctypes.data, left.runs.shape[0], words, rest,
                        right.data.ctypes.data + (g * n16 + c16) * line16, right.start.ctypes.data + 64 * (g * n16 + c16),
                        out if straight else scratch.ctypes.data, pitch if straight else 64 * width,
                    )  # fmt: skip
                    if not straight:
                        sums = right.sums.ctypes.data + 4 * (g * left.rows + m) if shifted else 0
                        finish_tile(scratch.ctypes.data, 64 * width, done, n, n0, out, sums, stage.ctypes.data)
                    i += done

    return product


@kernel
def _pack_columns(codes, widest, depth, data):
    groups, columns, runs, length = codes.shape
    n16, words = (columns + 15) // 16, (length + depth - 1) // depth
    blocks = (n16 + widest - 1) // widest
    at = 0
    for g in range(groups):
        for block in range(blocks):
            c0, c1 = 16 * (block * n16 // blocks), 16 * ((block + 1) * n16 // blocks)
            for r in range(runs):
                for word in range(words):
                    for n in range(c0, c1):
                        for j in range(word * depth, (word + 1) * depth):
                            data[at] = codes[g, n, r, j] if n < columns and j < length else 0
                            at += 1


def pack_columns(codes, rung):
    """Pack the right-hand side of a product.

    Parameters
    ----------
    codes : ndarray of int8, (groups, columns, runs, length)
    rung : Rung

    Returns
    -------
    ndarray of int8, read-only
        ``[group][block][run][k / depth][column][depth]``.
    """
    groups, columns, runs, length = codes.shape
    data = np.empty(groups * runs * -(-columns // 16) * 16 * -(-length // rung.depth) * rung.depth, np.int8)
    _pack_columns(as_input(codes), rung.widest, rung.depth, data)
    data.setflags(write=False)
    return data


def start_of(sums, groups, k, x_zero, zeros, bias_i):
    """What the accumulators begin with: the zero-point terms of each column, and its bias.

    Parameters
    ----------
    sums : ndarray of int32, (groups * columns,)
        Sums of the packed codes of each column.
    groups, k, x_zero : int
    zeros, bias_i : ndarray of int32, (groups * columns,)

    Returns
    -------
    ndarray of int32, (groups, columns rounded up to 16)
    """
    start = np.empty((groups, -(-sums.shape[0] // groups // 16) * 16), np.int32)
    _fill_start(sums, k, x_zero, zeros, bias_i, start)
    return start


@kernel
def _fill_start(sums, k, x_zero, zeros, bias_i, start):
    columns = sums.shape[0] // start.shape[0]
    for g in range(start.shape[0]):
        for j in range(start.shape[1]):
            n = g * columns + j
            if j < columns:
                terms = x_zero * (k * np.int64(zeros[n]) - np.int64(sums[n]))
                start[g, j] = wrap32(np.int64(terms + bias_i[n]))
            else:
                start[g, j] = 0


def run_product(rung, left, right, target, ep):
    """Compute a product with the kernel `rung`, on as many threads as are set."""
    if rung == PLAIN:
        out = target.data.view(_DTYPES[target.kind]).reshape(left.rows, right.groups * right.columns)
        parallel_for(plain_product, left.rows * right.groups, left, right, out, target.kind, ep)
        return
    down = -(-left.rows // _BLOCK) * right.groups
    blocks = -(-right.columns // (16 * right.widest))
    chunks = 1 if down >= 4 * get_num_threads() else blocks
    parallel_for(_product_kernel(rung), down * chunks, left, right, target, ep, chunks)

