"""Register tiles: a few rows of A times 16 to 64 columns of packed B, one function of machine code for each processor.

    A        [row][k]                             uint8, read in place: `depth` neighbours of k make one word
    B        [k / depth][column][depth]           int8, one block of columns after the other, zeros behind the last k
    C        [row][column]                        int32

    for each word of k:   right[v]  = the vectors of B's line                   (loaded once, used by every row)
                          left      = the row's word, in every lane
                          acc[row][v] += dot(left, right[v])                    acc lives in registers alone

    rung          depth   one step                                   exact because
    avx512vnni    4       vpdpbusd zmm                               four products are added straight into int32
    avxvnni       4       vpdpbusd ymm                               the same
    avx512bw      2       vpmovzxbw, vpmovsxbw, vpmaddwd zmm         two products of 16 bits cannot overflow int32
    avx2          4       even and odd bytes apart, vpmaddwd ymm     the same; pairs256 where no pair can saturate
    portable      1       LLVM's vector multiplication and addition  int32
    pairs512      4       vpmaddubsw, vpmaddwd zmm                   it is not: neighbouring products saturate to int16
    pairs256      4       vpmaddubsw, vpmaddwd ymm                   the same

Where the bytes of A are low no pair saturates, up to 127 never, for ``127 * 128 * 2 < 2**15``. There ``pairs256`` is exact, and faster:
see the limits in `refquant.kernels.columns`. Faster still are bundles of such words, in tiles of their own: `refquant.kernels.bundles`.

The k of a product may lie in several runs (the rows of a convolution's window), whose starts are a table. A tile begins with
given values and sums modulo ``2**32``, so all rungs but the pairs give the same bits.
"""

from typing import NamedTuple

from llvmlite import ir
from numba.core import types

from refquant.errors import UnsupportedError
from refquant.kernels.finish_bytes import emit_rows, line_vectors, read_stage
from refquant.kernels.jit import jit_disabled
from refquant.kernels.processor import cpu_features
from refquant.kernels.stage import LINE_LONG, LINE_NONE, LINE_SHORT
from refquant.kernels.vector_ir import I8, I16, I32, I64, emitted_function, vector
from refquant.kernels.wide import wide_vectors_run_here

__all__ = ["RUNGS", "Rung", "choose_rung", "rung_named", "panel_function", "PLAIN", "LOW"]

PLAIN, LOW = "plain", 16


class Rung(NamedTuple):
    """One way to multiply.

    Attributes
    ----------
    name : str
    needs : tuple of str
        Features of the processor, as LLVM calls them.
    lanes, depth : int
        int32 lanes of a vector; neighbours of k that one lane multiplies at once.
    shapes : dict
        Columns / 16 of a tile → its possible numbers of rows, the greatest first.
    exact : bool
    low : str or None
        The rung of the same layout that is exact too, and faster, where no pair of products can saturate.
    streams : int
        Blocks of columns that a product of one row takes at once: so many streams from memory, for which it only waits.
    """

    name: str
    needs: tuple
    lanes: int
    depth: int
    shapes: dict
    exact: bool = True
    low: str = None
    streams: int = 1

    @property
    def widest(self):
        """The most columns of a tile, in 16."""
        return max(self.shapes)

    @property
    def one_by_one(self):
        """Whether a product is added before the next is begun: the two multiplications of a step and its addition then share out the ports."""
        return self.name == "pairs256"

    @property
    def joins_words(self):
        """Whether `refquant.kernels.bundle_tile` computes the same, faster, where bytes of A are low enough for some bundles of words."""
        return self.name in ("avx2", "pairs256")

    @property
    def fuses_lines(self):
        """Whether a tile can be finished in registers, see `refquant.kernels.finish_bytes`."""
        return 16 % self.lanes == 0 and wide_vectors_run_here()

    @property
    def runs_here(self):
        return not jit_disabled() and cpu_features().issuperset(self.needs)


_WIDE = {4: (6, 4, 2, 1), 3: (8, 4, 2, 1), 2: (12, 4, 2, 1), 1: (12, 4, 2, 1)}
_NARROW, _LOW = {1: (6, 4, 2, 1)}, {1: (4, 2, 1)}
RUNGS = (
    Rung("avx512vnni", ("avx512vnni", "avx512f"), 16, 4, _WIDE),
    Rung("avx512bw", ("avx512bw",), 16, 2, _WIDE),
    Rung("avxvnni", ("avxvnni", "avx2"), 8, 4, _NARROW),
    Rung("avx2", ("avx2",), 8, 4, _LOW, low="pairs256"),
    Rung("portable", (), 16, 1, {1: (4, 2, 1)}),
    Rung("pairs512", ("avx512bw",), 16, 4, _WIDE, exact=False),
    Rung("pairs256", ("avx2",), 8, 4, _LOW, exact=False, streams=4),
)
_BY_NAME = {rung.name: rung for rung in RUNGS}


def choose_rung(name=None, exact=True):
    """Return a rung by name, or else the first that runs here; None stands for the plain loops.

    Raises
    ------
    UnsupportedError
        This processor has no such instructions.
    """
    if name is None:
        return next((rung for rung in RUNGS if rung.exact == exact and rung.runs_here), None)
    rung = rung_named(name)
    if rung is not None and not rung.runs_here:
        raise UnsupportedError(f"rung {name!r} needs {', '.join(rung.needs)} and the JIT, which are not here; leave `rung` out")
    return rung


def rung_named(name):
    """Return a rung by name, None for ``"plain"``."""
    return _BY_NAME.get(name)


def _dot(e, rung, acc, left, right):
    """``acc + dot(left, right)``, lane by lane."""
    bits = 32 * rung.lanes
    if rung.name in ("avx512vnni", "avxvnni"):
        return e.call(f"llvm.x86.avx512.vpdpbusd.{bits}", acc.type, acc, left, right)
    if rung.name == "avx2":
        return e.add(acc, e.add(*(e.call("llvm.x86.avx2.pmadd.wd", acc.type, x, w) for x, w in zip(left, right))))
    if rung.name == "portable":
        return e.add(acc, e.mul(left, right))
    add_products, add_pairs = {
        512: ("llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512"),
        256: ("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd"),
    }[bits]
    if rung.depth == 2:
        return e.add(acc, e.call(add_pairs, acc.type, left, right))
    bytes_kind, pairs_kind = vector(I8, bits // 8), vector(I16, bits // 16)
    left, right = (e.builder.bitcast(v, bytes_kind) for v in (left, right))
    pairs = e.call(add_products, pairs_kind, left, right)
    return e.add(acc, e.call(add_pairs, acc.type, pairs, e.constant(1, pairs_kind)))


def _left(e, rung, word):
    """A word of A in every lane, as the rung's dot product takes it; ``avx2``: its even and its odd bytes."""
    if rung.name == "avx2":
        words = e.builder.bitcast(e.splat(word, rung.lanes), vector(I16, 2 * rung.lanes))
        return e.both(words, 0xFF), e.builder.lshr(words, e.constant(8, words.type))
    if rung.depth == 2:
        pairs = e.builder.bitcast(e.splat(word, rung.lanes), vector(I8, 2 * rung.lanes))
        return e.builder.zext(pairs, vector(I16, 2 * rung.lanes))
    return e.splat(e.builder.zext(word, I32) if rung.depth == 1 else word, rung.lanes)


def _right(e, rung, address):
    """One vector of B; ``avx2``: its even and its odd bytes."""
    if rung.name == "avx2":
        words = e.load(address, vector(I16, 2 * rung.lanes))
        return e.shift_right(e.shift_left(words, 8), 8), e.shift_right(words, 8)
    if rung.depth == 4:
        return e.load(address, vector(I32, rung.lanes))
    count = rung.lanes * rung.depth
    return e.builder.sext(e.load(address, vector(I8, count)), vector(I32 if rung.depth == 1 else I16, count))


def _last_word(e, kind, address, rest):
    """The first `rest` bytes at `address`, which are fewer than a word; what the others are does not matter, B is 0 there."""
    word = None
    for j in range(kind.width // 8 - 1):
        there = e.builder.select(e.less(e.constant(j), rest), e.constant(j), e.constant(0))
        byte = e.shift_left(e.builder.zext(e.load(e.add(address, there), I8), kind), 8 * j)
        word = byte if word is None else e.builder.or_(word, byte)
    return word


def _emit_tile(e, rung, rows, width, ahead, block, base, offsets, runs, n_runs, words, rest, b, start, c, pitch, line, n0, n, stage):
    """Write one tile: `rows` rows, `width` * 16 columns. Unless it is None, one vector's share of B is fetched from `ahead` meanwhile.

    Unless it is None, `block` is the bytes of 16 columns, which are a block of B each.
    """
    acc_kind, word_kind = vector(I32, rung.lanes), ir.IntType(8 * rung.depth)
    vectors, step = width * 16 // rung.lanes, rung.lanes * rung.depth
    together = vectors if block is None else 16 // rung.lanes
    lines = [e.add(base, e.load(e.add(offsets, 8 * r), I64)) for r in range(rows)]
    first = [e.load(e.add(start, 4 * rung.lanes * v), acc_kind) for v in range(vectors)]
    acc = [[e.variable(value) for value in first] for _ in range(rows)]
    position, fetched = e.variable(b), None if ahead is None else e.variable(ahead)

    def multiply(lefts):
        at = e.get(position)
        blocks = [at if v < together else e.add(at, e.mul(block, v // together)) for v in range(vectors)]
        right = [_right(e, rung, e.add(blocks[v], step * (v % together))) for v in range(vectors)]
        for r, word in enumerate(lefts):
            left = _left(e, rung, word)
            for v in range(vectors):
                total = _dot(e, rung, e.get(acc[r][v]), left, right[v])
                if rung.one_by_one:
                    total, left = e.in_order(total, left)
                e.set(acc[r][v], total)
        e.set(position, e.add(at, step * together))
        if fetched is not None:
            soon = e.get(fetched)
            e.prefetch(soon)
            e.set(fetched, e.add(soon, step))

    with e.loop(n_runs) as i:
        run = e.load(e.add(runs, e.mul(i, 8)), I64)
        heads = [e.add(line, run) for line in lines]
        with e.loop(words) as k:
            multiply([e.load(e.add(head, e.mul(k, rung.depth)), word_kind) for head in heads])
        if rung.depth > 1:
            with e.when(e.less(e.constant(0), rest)):
                end = e.mul(words, rung.depth)
                multiply([_last_word(e, word_kind, e.add(head, end), rest) for head in heads])
    acc = [[e.get(slot) for slot in row] for row in acc]
    with e.when(e.equal(line, LINE_NONE)):
        for r, row in enumerate(acc):
            for v, value in enumerate(row):
                e.store(value, e.add(e.add(c, e.mul(pitch, r)), 4 * rung.lanes * v))
    if rung.fuses_lines:
        with e.when(e.builder.not_(e.equal(line, LINE_NONE))):
            _emit_fused(e, acc, c, pitch, line, n0, n, stage)


def _emit_fused(e, acc, c, pitch, line, n0, n, stage):
    """Finish the accumulators in their registers; of the last columns, `n` are there."""
    if acc[0][0].type.count == 8:
        acc = [[e.shuffle(*pair, list(range(16))) for pair in zip(row[::2], row[1::2])] for row in acc]
    s, width = read_stage(e, stage), len(acc[0])
    whole = e.equal(n, 16 * width)
    for kind in (LINE_SHORT, LINE_LONG):
        with e.when(e.equal(line, kind)):
            vectors = line_vectors(e, s, kind, n0, width)
            with e.either(whole) as (full, partial):
                with full:
                    together = max(1, 4 // width)
                    for r in range(0, len(acc), together):
                        lines = [e.add(c, e.mul(pitch, i)) for i in range(r, min(r + together, len(acc)))]
                        emit_rows(e, s, kind, acc[r : r + together], vectors, lines)
                with partial:
                    for r, row in enumerate(acc):
                        emit_rows(e, s, kind, [row], vectors, [e.add(c, e.mul(pitch, r))], n)


def _share(e, rung, n_runs, words, rest):
    """The bytes of a block of B that a vector's columns have."""
    return e.mul(e.mul(n_runs, e.add(words, e.builder.zext(e.less(e.constant(0), rest), I64))), rung.lanes * rung.depth)


def _row_emitter(rung):
    """Write the product of a single row and several blocks of columns."""

    def emit(e, rows, base, offsets, runs, n_runs, words, rest, *others):
        block = e.mul(_share(e, rung, n_runs, words, rest), 16 // rung.lanes)
        _emit_tile(e, rung, 1, rung.streams, None, block, base, offsets, runs, n_runs, words, rest, *others)

    return emit


def _panel_emitter(rung, width):
    """Write the loop over the rows: as many of the highest tiles as fit, then lower ones. The first tiles fetch the next block of B."""

    def emit(e, rows, base, offsets, runs, n_runs, words, rest, b, *others):
        *others, c, pitch, line, n0, n, stage = others
        done = e.variable(e.constant(0))
        share = _share(e, rung, n_runs, words, rest)
        ahead = e.variable(e.add(b, e.mul(share, width * 16 // rung.lanes)))

        def tile(size, fetches=False):
            i = e.get(done)
            at, target = e.add(offsets, e.mul(i, 8)), e.add(c, e.mul(pitch, i))
            _emit_tile(e, rung, size, width, e.get(ahead) if fetches else None, None, base, at, runs, n_runs, words, rest, b, *others, target, pitch, line, n0, n, stage)
            e.set(done, e.add(i, size))
            if fetches:
                e.set(ahead, e.add(e.get(ahead), share))

        highest, *lower = rung.shapes[width]
        count = e.builder.sdiv(rows, e.constant(highest))
        with e.loop(e.smaller(count, width * 16 // rung.lanes)):
            tile(highest, fetches=True)
        with e.loop(e.sub(count, width * 16 // rung.lanes)):
            tile(highest)
        for size in lower:
            with e.loop(e.builder.sdiv(e.sub(rows, e.get(done)), e.constant(size))):
                tile(size)

    return emit


def panel_function(rung):
    """Return the function that jitted code calls for a block of columns.

    ``panel(width, rows, base, offsets, runs, n_runs, words, rest, b, start, c, pitch, line, n0, n, stage)`` computes `rows` rows,
    `width` * 16 columns wide.

    width
        In 16 columns; `LOW` more for the rung's `low` one. More than `widest` of them, namely the `streams` of the `low` rung, for one row
        and so many blocks.
    base, offsets
        Address of A; address of an int64 for each row, its offset from `base` in bytes.
    runs, n_runs
        Address of an int64 for each run of k, its offset from a row's start; their number.
    words, rest
        Whole words of a run, and bytes behind them.
    b, start
        Addresses of the packed block and of the int32 that the accumulators begin with.
    c, pitch
        Address of the result, bytes from row to row.
    line, n0, n, stage
        `LINE_NONE` stores int32, all columns; a straight line of the stage at this address stores the bytes of `n` columns, `n0` the
        first.
    """

    def emit(e, width, *args):
        for chosen, shift in ((rung, 0), (rung.low and rung_named(rung.low), LOW)):
            for tile_width in chosen.shapes if chosen else ():
                with e.when(e.equal(width, tile_width + shift)):
                    e.function(f"panel_{chosen.name}_{tile_width}", ir.VoidType(), _panel_emitter(chosen, tile_width), *args)
            if chosen and shift and chosen.streams > 1:
                with e.when(e.equal(width, chosen.streams + shift)):
                    e.function(f"row_{chosen.name}", ir.VoidType(), _row_emitter(chosen), *args)

    return emitted_function(f"panel_{rung.name}", types.none, [types.int64] * 16, emit)
