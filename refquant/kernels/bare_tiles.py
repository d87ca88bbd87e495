"""The register tiles of a product and nothing else, so that they can be timed: no output stage, no output.

    near   every tile reads the first rows and the first block of columns, which stay in the L1 cache: the tile's own speed
    far    every tile reads what it reads in the product: what the caches deliver

Accumulators go to one small place, over and over. The tiles and their order are those of `refquant.kernels.product` on one thread, once it
has seen these rows a few times: bundles of words where the bytes of a block of rows are low enough for them, the other tiles elsewhere.
"""

from functools import lru_cache

import numpy as np

from refquant.kernels.bundle_tile import bundle_panel
from refquant.kernels.bundles import NO_BUNDLES, BundledColumns
from refquant.kernels.columns import first_column
from refquant.kernels.jit import kernel
from refquant.kernels.left import fill_offsets, highest_byte, left_of
from refquant.kernels.product import count_low, row_blocks, streams_of
from refquant.kernels.signature import as_input
from refquant.kernels.stage import LINE_NONE, RAW_STAGE
from refquant.kernels.tile import LOW, panel_function, rung_named

__all__ = ["bind_bare_tiles", "bind_look", "lanes_used"]


@kernel
def _begins(left, near, offsets):
    """Where the first rows begin; if `near`, the first two over and over."""
    fill_offsets(left, 0, offsets[: 2 if near else 0])
    for i in range(2, offsets.shape[0] if near else 0):
        offsets[i] = offsets[i % 2]


@kernel
def _look(field, left_parts, groups, height, highs):
    """The highest byte of each block of rows."""
    left, offsets = left_of(left_parts), np.empty(height, np.int64)
    for block in range(highs.shape[0]):
        count = min(height, left.rows - block * height)
        fill_offsets(left, block * height, offsets[:count])
        behind = offsets[count - 1] + (groups - 1) * left.group_step + left.runs[-1] + left.length
        highs[block] = highest_byte(field[offsets[0] + left.runs[0] : behind])


@lru_cache(maxsize=None)
def _bare_kernel(name, joins):
    rung = rung_named(name)
    panel, widest, depth, has_low = panel_function(rung), rung.widest, rung.depth, rung.low is not None
    streams = streams_of(rung)

    @kernel
    def tiles(field, left_parts, data, bundles, highs, groups, n, height, near, start, scratch, stage):
        left = left_of(left_parts)
        whole, n16 = (left.length + depth - 1) // depth, (n + 15) // 16
        words, rest = (whole, 0) if left.loose else (left.length // depth, left.length % depth)
        line16, blocks = 16 * left.runs.shape[0] * whole * depth, (n16 + widest - 1) // widest
        limits = data[groups * n16 * line16 :]
        bundled, places, counts, level, _ = bundles
        offsets = np.empty(height, np.int64)
        _begins(left, near, offsets)
        for m0 in range(0, left.rows, height):
            count, highest = min(height, left.rows - m0), highs[m0 // height]
            if not near:
                fill_offsets(left, m0, offsets[:count])
            joined = joins and highest <= level
            for g in range(groups):
                base = field.ctypes.data + (0 if near else g * left.group_step)
                if joins:
                    for half in range((n + 7) // 8 if joined else 0):
                        b8 = 0 if near else 2 * g * n16 + half
                        bundle_panel(
                            count, base, offsets.ctypes.data, places.ctypes.data + 4 * b8 * places.shape[1],
                            counts.ctypes.data + 8 * b8 * counts.shape[1], bundled.ctypes.data + 32 * b8 * places.shape[1],
                            start.ctypes.data, scratch.ctypes.data + 32 * (half % 2), 0, LINE_NONE, 0, 8, stage.ctypes.data,
                        )  # fmt: skip
                block = blocks if joined else 0
                while block < blocks:
                    c16, low, taken = first_column(block, n16, widest), 0, 1
                    if has_low:
                        lows = count_low(limits[g * n16 + c16 : g * n16 + n16], highest, streams if count == 1 else 1)
                        taken, low = streams if lows == streams else 1, LOW if lows > 0 else 0
                    width = first_column(block + taken, n16, widest) - c16
                    block += taken
                    begin = 0 if near else (g * n16 + c16) * line16
                    panel(
                        width + low, count, base, offsets.ctypes.data, left.runs.ctypes.data, left.runs.shape[0], words, rest,
                        data.ctypes.data + begin, start.ctypes.data, scratch.ctypes.data, 0, LINE_NONE, 0, 16 * width, stage.ctypes.data,
                    )  # fmt: skip

    return tiles


def _height(left):
    return max(2, row_blocks(left[3], 1)[0])


def bind_look(field, left, groups):
    """Prepare looking for the highest byte of each block of rows: ``run()`` returns them."""
    height = _height(left)
    highs = np.zeros(-(-left[3] // height), np.uint8)

    def run():
        _look(field, left, groups, height, highs)
        return highs

    return run


def _bundles(rung, left, columns, groups, n, highs):
    """The bundles that a product takes once it has seen these blocks of rows."""
    if not rung_named(rung).joins_words or left[3] < 2 or not (left[2] or left[1] % 4 == 0):
        return NO_BUNDLES
    bundles = BundledColumns(columns, groups * -(-n // 16), rung_named(rung).exact)
    for highest in highs:
        bundles.expect(highest)
    return bundles.table(left[0], left[1])


def bind_bare_tiles(rung, field, left, columns, groups, n, near):
    """Prepare the tiles of a product on one thread.

    Parameters
    ----------
    rung : str
        Of a tile.
    field, left, columns, groups
        What is read, where rows lie, the packed columns and their groups, as for `refquant.kernels.product.bind_product`.
    n : int
        Columns of a group.
    near : bool

    Returns
    -------
    callable
        ``run()`` returns the accumulators of the last tile's last row.
    """
    start, scratch, highs = as_input(np.zeros(64, np.int32)), np.empty(64, np.int32), bind_look(field, left, groups)()
    bundles = _bundles(rung, left, columns, groups, n, highs)
    worker = _bare_kernel(rung, bundles[3] >= 0)

    def run():
        worker(field, left, columns, bundles, highs, groups, n, _height(left), near, start, scratch, RAW_STAGE)
        return scratch

    return run


def lanes_used(rung, left, n):
    """The part of the multiplications of 16 columns that the product is made of: the others fill up columns to 16 and k to whole words."""
    depth = rung_named(rung).depth
    return n / (16 * -(-n // 16)) * left[1] / (depth * -(-left[1] // depth))
