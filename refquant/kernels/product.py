"""The loops around a register tile: one product of windows and packed columns, for matrices and convolutions alike.

    left     field + offset(row) + run       where the k of a row lie, see `refquant.kernels.left`
    right    [group][block][run][k / depth][column][depth]     see `refquant.kernels.tile`; a block has 16 to 64 columns
    units    blocks of up to `_BLOCK` rows × groups × chunks of column blocks: what threads share out
    tile     [rows][columns] int32 in the L1 cache, finished into the output before the next one begins

Within a unit one block of columns stays in the L1 cache while all rows pass it from the L2 cache. The highest byte of the rows, which says
whether a faster rung is exact, is looked for a block of rows at a time, as the products are about to read them.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from refquant.kernels.bundle_tile import bundle_panel
from refquant.kernels.bundles import LEVELS, NO_BUNDLES
from refquant.kernels.finish import finish_tile
from refquant.kernels.jit import get_num_threads, kernel, parallel_for
from refquant.kernels.columns import first_column
from refquant.kernels.left import Left, fill_offsets, highest_byte, left_of
from refquant.kernels.plain import plain_product, plain_requantize
from refquant.kernels.scalar import wrap32
from refquant.kernels.signature import as_input, freeze_epilogue
from refquant.kernels.stage import BYTES, LINE_NONE, RAW, RAW_STAGE, make_stage, read_header, tiles_finish
from refquant.kernels.tile import LOW, PLAIN, panel_function, rung_named

__all__ = ["Right", "bind_product", "row_blocks", "streams_of", "count_low"]

_BLOCK, _TILE = 240, 12
_GATHERED = 48
_GRAIN = 1_000_000
_NO_BIAS = as_input(np.empty(0, np.int32))


class Right(NamedTuple):
    """The columns of a product.

    Attributes
    ----------
    data : ndarray of int8
        Packed.
    sums, zeros : ndarray of int32, (groups * columns,)
        Sum and zero point of each column.
    row_sums : ndarray of int32, (groups, rows) or (1, 0)
        Sums over the k of each row, where there are zero points.
    groups, columns : int
        Groups, and columns of each.
    x_zero : int
        The zero point of the rows.
    """

    data: np.ndarray
    sums: np.ndarray
    zeros: np.ndarray
    row_sums: np.ndarray
    groups: int
    columns: int
    x_zero: int


@kernel
def right_of(parts):
    """A `Right` from the plain tuple of its fields."""
    data, sums, zeros, row_sums, groups, columns, x_zero = parts
    return Right(data, sums, zeros, row_sums, groups, columns, x_zero)


@kernel
def fill_start(right, k, bias_i, start):
    """What the accumulators begin with: the zero-point terms of each column, and its bias.

    `bias_i` is empty or (groups * columns,), `start` (groups, at least `columns`) of int32.
    """
    for g in range(right.groups):
        for j in range(start.shape[1]):
            n = g * right.columns + j
            if j < right.columns:
                total = right.x_zero * (k * np.int64(right.zeros[n]) - np.int64(right.sums[n]))
                start[g, j] = wrap32(np.int64(total + (bias_i[n] if bias_i.shape[0] > 0 else 0)))
            else:
                start[g, j] = 0


@kernel
def count_low(limits, highest, most):
    """How many of the next blocks, up to `most`, are exact on the rung for low bytes."""
    count = 0
    while count < min(most, limits.shape[0]) and highest <= np.uint8(limits[count]):
        count += 1
    return count


@kernel
def _count_level(highest, seen):
    """Count a block of rows by the level that its bytes need; threads that count at once may lose some."""
    i = 0
    while highest > LEVELS[i]:
        i += 1
    seen[i] += 1


def streams_of(rung):
    """Blocks of columns that one row may take at once."""
    return rung_named(rung.low).streams if rung.low else 1


@lru_cache(maxsize=None)
def _product_kernel(name, finishes, joins):
    """The loops around the tile of the rung called `name`: with output stages that tiles do not finish themselves, and with bundles, if wanted.

    A kernel without them is compiled and loaded in a fraction of the time.
    """
    rung = rung_named(name)
    panel, widest, depth, fuses = panel_function(rung), rung.widest, rung.depth, rung.fuses_lines
    has_low, looks = rung.low is not None, rung.joins_words
    streams = streams_of(rung)

    @kernel
    def product(first, last, field, left_parts, right_parts, bundles, height, chunks, out, item, stage):
        left, right = left_of(left_parts), right_of(right_parts)
        groups, columns = right.groups, right.columns
        n16 = (columns + 15) // 16
        blocks = (n16 + widest - 1) // widest
        whole = (left.length + depth - 1) // depth
        words, rest = (whole, 0) if left.loose else (left.length // depth, left.length % depth)
        line16 = 16 * left.runs.shape[0] * whole * depth
        limits = right.data[groups * n16 * line16 :]
        out_pitch = groups * columns * item
        shifted = right.row_sums.shape[1] > 0
        bundled, places, counts, level, seen = bundles
        start = np.empty((groups, 16 * n16), np.int32)
        kind, line, bias_i = read_header(stage)
        fill_start(right, left.runs.shape[0] * left.length, bias_i, start)
        offsets = np.empty(_BLOCK, np.int64)
        scratch = np.empty((_GATHERED, 64), np.int32)
        known, highest = -1, np.uint8(255)
        for unit in range(first, last):
            m0 = unit // (chunks * groups) * height
            g = unit // chunks % groups
            count = min(height, left.rows - m0)
            if m0 != known:
                known = m0
                fill_offsets(left, m0, offsets[:count])
                if looks:
                    behind = offsets[count - 1] + (groups - 1) * left.group_step + left.runs[-1] + left.length
                    highest = highest_byte(field[offsets[0] + left.runs[0] : behind])
                    _count_level(highest, seen)
            block, end = unit % chunks * blocks // chunks, (unit % chunks + 1) * blocks // chunks
            while block < end:
                c16, low = first_column(block, n16, widest), 0
                joined = joins and highest <= level
                if has_low and not joined:
                    lows = count_low(limits[g * n16 + c16 : g * n16 + end], highest, streams if count == 1 else 1)
                    taken, low = streams if lows == streams else 1, LOW if lows > 0 else 0
                else:
                    taken = 1
                width = first_column(block + taken, n16, widest) - c16
                block += taken
                n0, n = g * columns + 16 * c16, min(16 * width, columns - 16 * c16)
                straight = True
                if finishes:
                    straight = not shifted and (n == 16 * width if kind == RAW else fuses and line != LINE_NONE)
                done = 0
                while done < count:
                    target = out.ctypes.data + (m0 + done) * out_pitch + n0 * item
                    acc, pitch = (target, out_pitch) if straight else (scratch.ctypes.data, 64 * width)
                    some = count if straight else min(_GATHERED, count - done)
                    if joins:
                        if joined:
                            n_words = places.shape[1]
                            for half in range((n + 7) // 8):
                                b8 = 2 * (g * n16 + c16) + half
                                bundle_panel(
                                    some, field.ctypes.data + g * left.group_step, offsets.ctypes.data + 8 * done,
                                    places.ctypes.data + 4 * b8 * n_words, counts.ctypes.data + 8 * b8 * counts.shape[1],
                                    bundled.ctypes.data + 32 * b8 * n_words, start.ctypes.data + 64 * (g * n16 + c16) + 32 * half,
                                    acc + 8 * half * (item if straight else 4), pitch, line if straight else LINE_NONE,
                                    n0 + 8 * half, min(8, n - 8 * half), stage.ctypes.data,
                                )  # fmt: skip
                    if not joined:
                        panel(
                            width + low, some, field.ctypes.data + g * left.group_step, offsets.ctypes.data + 8 * done,
                            left.runs.ctypes.data, left.runs.shape[0], words, rest,
                            right.data.ctypes.data + (g * n16 + c16) * line16, start.ctypes.data + 64 * (g * n16 + c16), acc, pitch,
                            line if straight else LINE_NONE, n0, n, stage.ctypes.data,
                        )  # fmt: skip
                    if finishes:
                        if not straight:
                            row_sums = right.row_sums.ctypes.data + 4 * (g * left.rows + m0 + done) if shifted else 0
                            column_zeros = right.zeros.ctypes.data if shifted else 0
                            finish_tile(
                                acc, pitch, some, n, n0, target, out_pitch, row_sums, column_zeros, stage.ctypes.data
                            )  # fmt: skip
                    done += some

    return product


@lru_cache(maxsize=1024)
def row_blocks(rows, threads):
    """Rows of a block, and how many blocks there are: of about one height, whole tiles high, as many for each thread."""
    blocks = max(1, -(-rows // _BLOCK))
    if blocks > threads:
        blocks = -(-blocks // threads) * threads
    height = min(_BLOCK, -(-rows // (blocks * _TILE)) * _TILE)
    return height, -(-rows // height) if rows else 0


def bind_product(rung, right, kind, ep, bundles=None):
    """Prepare a product: everything that does not depend on the rows is worked out once.

    Parameters
    ----------
    rung : str
    right : tuple
        The fields of a `Right`.
    kind : int
        What is written, see `refquant.kernels.stage`.
    ep : Epilogue or None
        None for `RAW`.
    bundles : BundledColumns, optional
        Of the columns, for a rung that joins words.

    Returns
    -------
    callable
        ``run(field, left, out)`` computes it on as many threads as are set: `field` (bytes,) of uint8, read-only; `left` the fields of
        a `Left`; `out` C-contiguous, (rows, groups * columns) in memory.
    """
    if rung == PLAIN:
        return lambda field, left, out: _run_plain(field, Left(*left), Right(*right), out, kind, ep)
    data, _, _, row_sums, groups, columns, _ = right
    stage = RAW_STAGE if kind == RAW else make_stage(ep, kind, True)
    finishes = not (rung_named(rung).fuses_lines and tiles_finish(stage) and row_sums.size == 0)
    most, size = -(-columns // (16 * rung_named(rung).widest)), data.size
    most_of_a_row = max(1, most // streams_of(rung_named(rung)))

    def run(field, left, out):
        rows, threads = left[3], get_num_threads()
        height, blocks = row_blocks(rows, threads)
        down = blocks * groups
        chunks = 1 if down >= 4 * threads else most_of_a_row if rows == 1 else most
        # Besides the products, reading the columns is worth two rows of them.
        grain = 1 + down * chunks * _GRAIN // ((rows + 2) * size + 1)
        memory = out.reshape(-1).view(np.uint8)
        whole_words = left[2] or left[1] % 4 == 0
        joined = bundles.table(left[0], left[1]) if bundles is not None and rows > 1 and whole_words else NO_BUNDLES
        worker = _product_kernel(rung, finishes, joined[3] >= 0)
        parallel_for(worker, down * chunks, field, left, right, joined, height, chunks, memory, out.itemsize, stage, grain=grain)

    return run


def _run_plain(field, left, right, out, kind, ep):
    acc = out if kind == RAW else np.empty(out.shape, np.int32)
    start = np.empty((right.groups, right.columns), np.int32)
    bias_i = _NO_BIAS if ep is None else as_input(ep.bias_i)
    fill_start(right, left.runs.size * left.length, bias_i, start)
    rows = acc.reshape(left.rows, -1)
    parallel_for(plain_product, left.rows * right.groups, field, left, right, as_input(start), rows)
    if kind != RAW:
        form = freeze_epilogue(ep._replace(bias_i=np.zeros_like(ep.bias_i)))
        codes = out.view(np.uint8) if kind == BYTES else out
        parallel_for(plain_requantize, left.rows, as_input(rows), codes.reshape(rows.shape), kind, form)
