"""Depthwise convolution in registers: 64 channels of one output pixel after the other, four taps in one instruction.

    x        four taps, 64 neighbouring bytes each       a b c d
    words    interleaved, four registers                 a0 b0 c0 d0 | a1 b1 c1 d1 | …
    weights  [group of 4 taps][register][lane][4]        in the same order
    acc      [register][lane]  int32                     acc += dot of 4

Interleaving works on quarters of a register: register j, quarter l holds channels 16 * l + 4 * j … + 3. What is read for
channels (scales, biases) is brought into that order once (`_transpose`, its own inverse); bytes come out of the packing
instructions in natural order.

    exact    vpdpbusd
    pairs    vpmaddubsw on two taps, which saturates to int16, then vpmaddwd adds two pairs: FBGEMM's depthwise kernels
"""

from llvmlite import ir
from numba.core import types

from refquant.kernels.finish_bytes import emit_rows, line_vectors, read_stage
from refquant.kernels.jit import jit_disabled
from refquant.kernels.processor import cpu_features
from refquant.kernels.stage import LINE_LONG, LINE_NONE, LINE_SHORT
from refquant.kernels.vector_ir import I8, I16, I32, I64, emitted_function, vector
from refquant.kernels.wide import wide, wide_vectors_run_here

__all__ = ["depthwise_panel", "depthwise_tiles_run_here"]

_I8V, _I16V, _I32V = vector(I8, 64), vector(I16, 32), vector(I32, 16)
_UNROLLED = 9


def depthwise_tiles_run_here():
    """Whether the processor has the instructions."""
    return not jit_disabled() and wide_vectors_run_here()


def _unpack(e, a, b, item):
    """vpunpckl and vpunpckh: items of `a` and `b` in turn, in each quarter the lower and the upper half."""
    count, per = 64 // item, 16 // item
    kind = vector(ir.IntType(8 * item), count)
    a, b = e.builder.bitcast(a, kind), e.builder.bitcast(b, kind)
    halves = []
    for half in (0, per // 2):
        order = [lane for q in range(4) for i in range(half, half + per // 2) for lane in (q * per + i, count + q * per + i)]
        halves.append(e.shuffle(a, b, order))
    return halves


def _transpose(e, v):
    """Quarter l of register j from quarter j of register l."""

    def pick(a, b, quarters):
        return e.shuffle(a, b, [4 * q + i for q in quarters for i in range(4)])

    low01, low23 = pick(v[0], v[1], (0, 4, 1, 5)), pick(v[2], v[3], (0, 4, 1, 5))
    high01, high23 = pick(v[0], v[1], (2, 6, 3, 7)), pick(v[2], v[3], (2, 6, 3, 7))
    first, second = (0, 1, 4, 5), (2, 3, 6, 7)
    return [
        pick(low01, low23, first), pick(low01, low23, second), pick(high01, high23, first), pick(high01, high23, second),
    ]  # fmt: skip


def _taps(e, exact, acc, taps, weights):
    """Add four taps to the accumulators."""
    (low01, high01), (low23, high23) = _unpack(e, *taps[:2], 1), _unpack(e, *taps[2:], 1)
    if exact:
        words = _unpack(e, low01, low23, 2) + _unpack(e, high01, high23, 2)
        words = [e.builder.bitcast(word, _I32V) for word in words]
        return [_dot(e, a, word, weight) for a, word, weight in zip(acc, words, weights)]
    return _pair_taps(e, acc, (low01, low23, high01, high23), weights)


def _dot(e, acc, x, weights):
    """``acc`` plus the dot products of four bytes; without ``vpdpbusd`` of their even and odd halves, on 16 bits."""
    if "avx512vnni" in cpu_features():
        return e.call("llvm.x86.avx512.vpdpbusd.512", _I32V, acc, x, weights)
    x, w = e.builder.bitcast(x, _I16V), e.builder.bitcast(weights, _I16V)
    even = wide(e, "pmaddwd", e.both(x, 0xFF), e.shift_right(e.shift_left(w, 8), 8))
    odd = wide(e, "pmaddwd", e.builder.lshr(x, e.constant(8, _I16V)), e.shift_right(w, 8))
    return e.add(acc, e.add(even, odd))


def _pair_taps(e, acc, bytes_of, weights):
    """Two pairs of taps: the weights' words are taken apart as the bytes of x are."""
    pairs = [e.builder.bitcast(w, _I16V) for w in weights]
    even = [lane for q in range(4) for lane in (8 * q, 8 * q + 2, 8 * q + 4, 8 * q + 6)]
    sums = []
    for half in range(2):
        a, b = pairs[2 * half], pairs[2 * half + 1]
        products = []
        for odd in range(2):
            order = [v * 32 + lane + odd for q in range(4) for v in range(2) for lane in even[4 * q : 4 * q + 4]]
            weight = e.builder.bitcast(e.shuffle(a, b, order), _I8V)
            x = e.builder.bitcast(bytes_of[2 * half + odd], _I8V)
            products.append(wide(e, "pmaddubsw", x, weight))
        sums += _unpack(e, *products, 2)
    ones = e.constant(1, _I16V)
    return [e.add(a, wide(e, "pmaddwd", s, ones)) for a, s in zip(acc, sums)]


def _emit_panel(exact):
    def emit(
        e, x, rows, x_step_row, pixels, x_step, offsets, taps, weights, start, out, out_step_row, out_step, line, n0, n, stage
    ):  # fmt: skip
        first = _transpose(e, [e.load(e.add(start, 64 * j), _I32V) for j in range(4)])
        unrolled, groups = e.equal(taps, _UNROLLED), e.builder.sdiv(e.add(taps, 3), e.constant(4))
        for condition, count in ((unrolled, _UNROLLED), (e.builder.not_(unrolled), None)):
            for kind in (LINE_NONE, LINE_SHORT, LINE_LONG):
                with e.when(e.builder.and_(condition, e.equal(line, kind))):
                    sums = _Sums(e, exact, offsets, groups, weights, first, count)
                    store = _stores(e, kind, n0, n, stage)
                    with e.loop(rows) as row:
                        x_row, out_row = e.add(x, e.mul(row, x_step_row)), e.add(out, e.mul(row, out_step_row))
                        with e.loop(pixels) as i:
                            store(sums.at(e.add(x_row, e.mul(i, x_step))), e.add(out_row, e.mul(i, out_step)))

    return emit


class _Sums:
    """The sums of one pixel. For a known `count` of taps, weights are loaded once, and a last tap alone stands for its neighbours."""

    def __init__(self, e, exact, offsets, groups, weights, first, count):
        self.e, self.exact, self.offsets, self.weights, self.first = e, exact, offsets, weights, first
        self.groups, self.count = groups, count
        if count:
            self.held = [(self._offsets(e.constant(g)), self._weights(e.constant(g))) for g in range(-(-count // 4))]
            if count % 4 == 1:
                self.held[-1] = (self.held[-1][0][:1], self.held[-1][1])

    def _offsets(self, g):
        e = self.e
        return [e.load(e.add(self.offsets, e.add(e.mul(g, 32), 8 * t)), I64) for t in range(4)]

    def _weights(self, g):
        e = self.e
        return [e.load(e.add(self.weights, e.add(e.mul(g, 256), 64 * j)), _I32V) for j in range(4)]

    def at(self, x):
        e, acc = self.e, self.first
        if self.count:
            for offsets, weights in self.held:
                taps = [e.load(e.add(x, offset), _I8V) for offset in offsets]
                acc = _taps(e, self.exact, acc, (taps * 4)[:4], weights)
            return acc
        slots = [e.variable(a) for a in acc]
        with e.loop(self.groups) as g:
            taps = [e.load(e.add(x, offset), _I8V) for offset in self._offsets(g)]
            for slot, a in zip(slots, _taps(e, self.exact, [e.get(s) for s in slots], taps, self._weights(g))):
                e.set(slot, a)
        return [e.get(slot) for slot in slots]


def _stores(e, line, n0, n, stage):
    """How one pixel's accumulators leave."""
    if line == LINE_NONE:

        def store(acc, out):
            for j, value in enumerate(_transpose(e, acc)):
                e.store(value, e.add(out, 64 * j))

        return store
    s = read_stage(e, stage)
    vectors = list(zip(*(_transpose(e, list(v)) for v in zip(*line_vectors(e, s, line, n0, 4)))))
    whole = e.equal(n, 64)

    def store(acc, out):
        for condition, kept in ((whole, None), (e.builder.not_(whole), n)):
            with e.when(condition):
                emit_rows(e, s, line, [acc], vectors, [out], kept, interleaved=True)

    return store


def depthwise_panel(exact):
    """Return the function that jitted code calls for 64 channels of some rows of pixels.

    ``panel(x, rows, x_step_row, pixels, x_step, offsets, taps, weights, start, out, out_step_row, out_step, line, n0, n, stage)``

    x, rows, x_step_row, pixels, x_step
        Address of the first pixel's first channel; number of rows, bytes between them; number of pixels in a row, bytes between
        them. 64 bytes are read at each tap.
    offsets, taps, weights
        Address of four int64 for each group of taps, their offsets from a pixel; number of taps; address of 256 bytes for each
        group.
    start
        Address of 64 int32 that the accumulators begin with.
    out, out_step_row, out_step, line, n0, n, stage
        `LINE_NONE` stores 64 int32 a pixel; a straight line of the stage stores the bytes of `n` channels, `n0` the first.
    """
    name = "depthwise_exact" if exact else "depthwise_pairs"
    return emitted_function(name, types.none, [types.int64] * 16, _emit_panel(exact))
