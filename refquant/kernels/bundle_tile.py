"""Register tiles of AVX2 that add bundles of words in 16 bits: up to eight rows of A times 8 columns.

    for each bundle of up to four words:   products[row]  = sum of vpmaddubsw(A's word, B's word), in int16
                                           acc[row]      += vpmaddwd(products[row], 1)
    for each heavy word:                   acc[row]      += vpmaddwd(A's even bytes, B's) + vpmaddwd(A's odd bytes, B's)

A bundle of four takes 5 multiplications and 4 additions where single words take 8 and 4. Exact, see `refquant.kernels.bundles`; same
result as the tiles in `refquant.kernels.tile`.
"""

from numba.core import types

from refquant.kernels.bundles import SIZES
from refquant.kernels.finish_bytes import emit_rows, line_vectors, read_stage
from refquant.kernels.stage import LINE_LONG, LINE_NONE, LINE_SHORT
from refquant.kernels.vector_ir import I8, I16, I32, I64, emitted_function, vector

__all__ = ["bundle_panel"]

_ROWS = (8, 4, 2, 1)
_LANES, _WORD = 8, 32
_I32V, _I16V, _I8V = vector(I32, 8), vector(I16, 16), vector(I8, 32)


def _bundle_products(e, head, begins, right):
    """The products of a bundle as int32; and the last word of A, in every lane."""
    total = None
    for w, begin in zip(right, begins):
        left = e.splat(e.load(e.add(head, begin), I32), _LANES)
        pairs = e.call("llvm.x86.avx2.pmadd.ub.sw", _I16V, e.builder.bitcast(left, _I8V), e.builder.bitcast(w, _I8V))
        total = pairs if total is None else e.add(total, pairs)
    return e.call("llvm.x86.avx2.pmadd.wd", _I32V, total, e.constant(1, _I16V)), left


def _heavy_products(e, head, begin, even, odd):
    left = e.builder.bitcast(e.splat(e.load(e.add(head, begin), I32), _LANES), _I16V)
    halves = (e.both(left, 0xFF), even), (e.builder.lshr(left, e.constant(8, _I16V)), odd)
    return e.add(*(e.call("llvm.x86.avx2.pmadd.wd", _I32V, x, w) for x, w in halves))


def _emit_bundles(e, acc, heads, size, count, position, places):
    """Go through the bundles of one size, 0 for heavy words."""
    words = max(1, size)
    with e.loop(count):
        at, begins = e.get(position), e.get(places)
        right = [e.load(e.add(at, _WORD * i), _I16V) for i in range(words)]
        begins = [e.builder.sext(e.load(e.add(begins, 4 * i), I32), I64) for i in range(words)]
        if not size:
            right = e.shift_right(e.shift_left(right[0], 8), 8), e.shift_right(right[0], 8)
        for slot, head in zip(acc, heads):
            if not size:
                e.set(slot, e.add(e.get(slot), _heavy_products(e, head, *begins, *right)))
                continue
            products, left = _bundle_products(e, head, begins, right)
            total = e.add(e.get(slot), products)
            e.set(slot, e.in_order(total, left)[0] if size < 3 else total)
        e.set(position, e.add(at, _WORD * words))
        e.set(places, e.add(e.get(places), 4 * words))


def _emit_tile(e, rows, base, offsets, places, counts, b, start, c, pitch, line, n0, n, stage):
    heads = [e.add(base, e.load(e.add(offsets, 8 * r), I64)) for r in range(rows)]
    first = e.load(start, _I32V)
    acc = [e.variable(first) for _ in heads]
    position, places = e.variable(b), e.variable(places)
    counts = [e.load(e.add(counts, 8 * i), I64) for i in range(len(SIZES))]
    for size, count in zip(SIZES, counts):
        _emit_bundles(e, acc, heads, size, count, position, places)
    acc = [e.get(slot) for slot in acc]
    lines = [e.add(c, e.mul(pitch, r)) for r in range(rows)]
    with e.either(e.equal(line, LINE_NONE)) as (raw, fused):
        with raw:
            for value, at in zip(acc, lines):
                e.store(value, at)
        with fused:
            _emit_fused(e, acc, lines, line, n0, n, stage)


def _emit_fused(e, acc, lines, line, n0, n, stage):
    """Finish the accumulators in their registers, two rows in a vector; of the columns, `n` are there."""
    s, joined = read_stage(e, stage), list(range(2 * _LANES))
    rows = [[e.shuffle(a, b, joined)] for a, b in zip(acc[::2], acc[1::2] or acc)]
    for kind in (LINE_SHORT, LINE_LONG):
        with e.when(e.equal(line, kind)):
            twice = [tuple(e.shuffle(v, v, joined[:_LANES] * 2) for v in pair) for pair in line_vectors(e, s, kind, n0, 1)]
            with e.either(e.equal(n, _LANES)) as (full, partial):
                with full:
                    emit_rows(e, s, kind, rows, twice, lines, width=_LANES)
                with partial:
                    emit_rows(e, s, kind, rows, twice, lines, n, width=_LANES)


def _emit_panel(e, rows, base, offsets, *args):
    """Write the loop over the rows: as many of the highest tiles as fit, then lower ones. Fetching the next block of B costs more than it saves."""
    *others, c, pitch, line, n0, n, stage = args
    done = e.variable(e.constant(0))
    for size in _ROWS:
        with e.loop(e.builder.sdiv(e.sub(rows, e.get(done)), e.constant(size))):
            i = e.get(done)
            at, target = e.add(offsets, e.mul(i, 8)), e.add(c, e.mul(pitch, i))
            _emit_tile(e, size, base, at, *others, target, pitch, line, n0, n, stage)
            e.set(done, e.add(i, size))


bundle_panel = emitted_function("bundle_panel", types.none, [types.int64] * 13, _emit_panel)
"""``bundle_panel(rows, base, offsets, places, counts, b, start, c, pitch, line, n0, n, stage)``

rows, base, offsets, start, c, pitch, line, n0, n, stage
    As for the functions of `refquant.kernels.tile.panel_function`; 8 columns wide.
places, counts
    Address of an int32 for each word, its offset from a row's start in bytes; and of one int64 for each of `SIZES`, how many bundles there are.
b
    Address of the words.
"""
