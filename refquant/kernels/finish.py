"""The output stage on vectors: from a tile of int32 accumulators to output codes, 16 channels in a register.

    acc    [row][channel]    int32, `pitch` bytes from row to row, in the L1 cache
    out    [row][channel]    uint8 (int8 as its bytes), int32 or float32, `out_pitch` bytes from row to row

The channels are taken 64, then 16 at a time, and the last ones by themselves. A group of channels loads its scales and
biases once and goes through the rows. A step of the form is one vector instruction, under a branch that goes the same way in
a whole call. Same result as `refquant.kernels.plain`.
"""

from numba.core import types

from refquant.core import epilogue as form
from refquant.core.rounding import Round
from refquant.kernels.finish_bytes import emit_straight_lines, read_stage
from refquant.kernels.finish_lines import emit_memory_lines
from refquant.kernels.fixed_point import narrow_fixed_point
from refquant.kernels.stage import BYTES, CODES32, LINE_NONE, NARROW, RAW, REALS32
from refquant.kernels.vector_ir import F32, F64, I1, I8, I32, I64, emitted_function, vector
from refquant.kernels.wide import guarded_integer, halves_run_here, nearest_even, wide_vectors_run_here

__all__ = ["finish_tile"]

_LANES = 16
_MODES = {mode: code for code, mode in enumerate(Round)}
_ARGUMENTS = "acc pitch rows channels n0 out out_pitch sums zeros".split()


def _emit(e, *args):
    s = {**dict(zip(_ARGUMENTS, args)), **read_stage(e, args[-1])}
    general = e.variable(e.constant(1, I1))
    if wide_vectors_run_here():
        plain_sum = e.both(e.equal(s["sums"], 0), e.equal(s["bias_i"], 0))
        with e.when(e.both(plain_sum, e.builder.not_(e.equal(s["line"], LINE_NONE)))):
            e.set(general, e.constant(0, I1))
            emit_straight_lines(e, s)
            if halves_run_here():
                emit_memory_lines(e, s)
    with e.when(e.get(general)):
        for first, count, rest in e.channel_groups(s["channels"], _LANES, (4, 1)):
            _Group(e, s, first, count, rest).emit()


class _Group:
    """Neighbouring channels: `count` vectors, or a single one with channels in `rest` lanes only.

    Methods take and return lists of vectors, one for each 16 channels.
    """

    def __init__(self, e, stage, first, count, rest=None):
        self.e, self.stage, self.first, self.count, self.rest = e, stage, first, count, rest

    def load(self, address, kind, index):
        """The elements `index`, … of an array."""
        size = {I32: 4, F32: 4, F64: 8}[kind]
        at, kind = self.e.add(address, self.e.mul(index, size)), vector(kind, _LANES)
        if self.rest is not None:
            return [self.e.load_first(at, kind, self.rest)]
        return [self.e.load(self.e.add(at, _LANES * size * i), kind) for i in range(self.count)]

    def store(self, values, line, size):
        at = self.e.add(line, self.e.mul(self.first, size))
        for i, value in enumerate(values):
            if self.rest is not None:
                self.e.store_first(value, at, self.rest)
            else:
                self.e.store(value, self.e.add(at, _LANES * size * i))

    def parameter(self, name, kind, neutral=0):
        """A vector of the form, read once for all rows; `neutral` where it is not used and may not be there."""
        e, address = self.e, self.stage[name]
        slots = [e.variable(e.constant(neutral, vector(kind, _LANES))) for _ in range(self.count)]
        with e.when(e.builder.icmp_signed("!=", address, e.constant(0))):
            for slot, value in zip(slots, self.load(address, kind, e.add(self.stage["n0"], self.first))):
                e.set(slot, value)
        return [e.get(slot) for slot in slots]

    def emit(self):
        e, s = self.e, self.stage
        self.bias_i = self.parameter("bias_i", I32)
        self.zeros = self.parameter("zeros", I32)
        self.vectors = {name: self.parameter(name, F32) for name in ("pre_b", "s2", "b")}
        with e.loop(s["rows"]) as row:
            line = e.add(s["out"], e.mul(row, s["out_pitch"]))
            acc = self.load(e.add(s["acc"], e.mul(row, s["pitch"])), I32, self.first)
            acc = self.with_row_term([e.add(a, b) for a, b in zip(acc, self.bias_i)], row)
            with e.either(e.equal(s["out_kind"], RAW)) as (raw, staged):
                with raw:
                    self.store(acc, line, 4)
                with staged:
                    self.row(acc, line)

    def with_row_term(self, acc, row):
        """Subtract the term of a weight zero point, ``sums[row] * zeros[n]``."""
        e, s = self.e, self.stage
        slots = [e.variable(a) for a in acc]
        with e.when(e.builder.icmp_signed("!=", s["sums"], e.constant(0))):
            total = e.splat(e.load(e.add(s["sums"], e.mul(row, 4)), I32), _LANES)
            for slot, a, zero in zip(slots, acc, self.zeros):
                e.set(slot, e.sub(a, e.mul(total, zero)))
        return [e.get(slot) for slot in slots]

    def row(self, acc, line):
        e, s = self.e, self.stage
        codes = [e.variable(e.constant(0, vector(I32, _LANES))) for _ in acc]
        real_out = e.both(e.equal(s["out_kind"], REALS32), e.equal(s["kind"], form.FLOAT32))
        with e.either(e.equal(s["kind"], form.FLOAT32)) as (float32, other):
            with float32:
                reals = self.to_real(acc)
                with e.either(real_out) as (as_real, as_code):
                    with as_real:
                        self.store(reals, line, 4)
                    with as_code:
                        self.set_codes(codes, [self.limit(q) for q in self.to_integer(self.to_grid(self.fused(reals)))])
            with other:
                for i, a in enumerate(acc):
                    self.set_codes(codes[i : i + 1], [self.other_kind(a, i)])
        with e.when(e.builder.not_(real_out)):
            self.store_codes([e.get(slot) for slot in codes], line)

    def set_codes(self, slots, codes):
        for slot, code in zip(slots, codes):
            self.e.set(slot, code)

    def store_codes(self, codes, line):
        e, s = self.e, self.stage
        with e.when(e.equal(s["out_kind"], BYTES)):
            self.store([e.builder.trunc(q, vector(I8, _LANES)) for q in codes], line, 1)
        with e.when(e.equal(s["out_kind"], CODES32)):
            self.store(codes, line, 4)
        with e.when(e.equal(s["out_kind"], REALS32)):
            self.store([e.builder.sitofp(q, vector(F32, _LANES)) for q in codes], line, 4)

    def scalar(self, name, like):
        """A float32 number of the form in every lane of the type of `like`."""
        value, kind = self.stage[name], like.type
        if kind.element == F64:
            value = self.e.builder.fpext(value, F64)
        return self.e.splat(value, _LANES)

    def step(self, flag, values, change):
        """``change(value, i)`` where the form has `flag`."""
        e = self.e
        slots = [e.variable(v) for v in values]
        with e.when(e.has_bit(self.stage["flags"], flag)):
            for i, (slot, value) in enumerate(zip(slots, values)):
                e.set(slot, change(value, i))
        return [e.get(slot) for slot in slots]

    def to_real(self, acc):
        e, b = self.e, self.e.builder
        pre_b, s2, bias = (self.vectors[name] for name in ("pre_b", "s2", "b"))
        v = [b.sitofp(a, vector(F32, _LANES)) for a in acc]
        v = self.step(form.PRE_BIAS, v, lambda x, i: e.fma(pre_b[i], self.scalar("pre_k", x), x))
        v = self.step(form.SCALE1, v, lambda x, i: b.fmul(x, self.scalar("s1", x)))
        slots = [e.variable(x) for x in v]
        with e.either(e.has_bit(self.stage["flags"], form.SCALE_FMA)) as (fused, apart):
            with fused:
                for i, slot in enumerate(slots):
                    e.set(slot, e.fma(v[i], s2[i], bias[i]))
            with apart:
                scaled = [b.fmul(x, s) for x, s in zip(v, s2)]
                scaled = self.step(form.BIAS, scaled, lambda x, i: b.fadd(x, bias[i]))
                for slot, x in zip(slots, scaled):
                    e.set(slot, x)
        v = [e.get(slot) for slot in slots]
        zero = e.constant(0.0, vector(F32, _LANES))
        return self.step(form.RELU, v, lambda x, i: b.select(b.fcmp_ordered(">", x, zero), x, zero))

    def fused(self, v):
        return self.step(form.DST_FMA, v, lambda x, i: self.e.fma(x, self.scalar("d", x), self.scalar("zf", x)))

    def to_grid(self, v):
        b = self.e.builder

        def clamp(x, i):
            low, high = self.scalar("lo", x), self.scalar("hi", x)
            x = b.select(b.fcmp_ordered(">", x, low), x, low)
            return b.select(b.fcmp_ordered("<", x, high), x, high)

        v = self.step(form.DST_MUL, v, lambda x, i: b.fmul(x, self.scalar("d", x)))
        v = self.step(form.DST_DIV, v, lambda x, i: b.fdiv(x, self.scalar("d", x)))
        v = self.step(form.ZERO_FLOAT, v, lambda x, i: b.fadd(x, self.scalar("zf", x)))
        return self.step(form.CLAMP, v, clamp)

    def to_integer(self, v):
        """Round; beyond int32 and NaN: ``-2**31``."""
        e = self.e
        slots = [e.variable(e.constant(0, vector(I32, _LANES))) for _ in v]
        with e.either(e.equal(self.stage["rounding"], _MODES[Round.HALF_EVEN])) as (even, other):
            with even:
                self.set_codes(slots, [nearest_even(e, x) for x in v])
            with other:
                with e.either(e.equal(self.stage["rounding"], _MODES[Round.HALF_AWAY])) as (away, rest):
                    with away:
                        self.set_codes(slots, [_integer_of_whole(e, e.unary("round", x)) for x in v])
                    with rest:
                        kind = v[0].type
                        name = f"round_{kind.element}"
                        rounded = [e.function(name, kind, _emit_round, x, self.stage["rounding"]) for x in v]
                        self.set_codes(slots, [guarded_integer(e, x) for x in rounded])
        return [e.get(slot) for slot in slots]

    def limit(self, q):
        """``min(max(q + zi, qlo), qhi)``; `low` and `high` are the limits less `zi`, so that no sum overflows."""
        e = self.e
        low, zi, high = (e.splat(e.builder.trunc(self.stage[n], I32), _LANES) for n in ("low", "zi", "high"))
        return e.add(e.smaller(e.larger(q, low), high), zi)

    def other_kind(self, acc, i):
        """FLOAT64 and the two fixed-point kinds, 16 channels at a time."""
        e, s = self.e, self.stage
        index = e.add(e.add(s["n0"], self.first), _LANES * i)
        one = _Group(e, s, self.first, 1, self.rest)
        slot = e.variable(e.constant(0, vector(I32, _LANES)))
        with e.either(e.equal(s["kind"], form.FLOAT64)) as (float64, fixed):
            with float64:
                (m,) = one.load(s["m64"], F64, index)
                v = one.to_grid([e.builder.fmul(e.builder.sitofp(acc, vector(F64, _LANES)), m)])
                e.set(slot, self.limit(one.to_integer(v)[0]))
            with fixed:
                (mult,), (shift,) = one.load(s["mult"], I32, index), one.load(s["shift"], I32, index)
                with e.either(e.less(s["kind"], form.FIXED_GEMMLOWP + NARROW)) as (wide_form, narrow):
                    with wide_form:
                        args = [s[name] for name in ("kind", "low", "zi", "high")]
                        e.set(slot, e.function("fixed_point", vector(I32, _LANES), _emit_fixed_point, acc, mult, shift, *args))
                    with narrow:
                        with e.either(e.equal(s["kind"], form.FIXED_GEMMLOWP + NARROW)) as (gemmlowp, half_up):
                            for branch, way in ((gemmlowp, True), (half_up, False)):
                                with branch:
                                    e.set(slot, self.limit(narrow_fixed_point(e, acc, mult, shift, way)))
        return e.get(slot)


def _integer_of_whole(e, x):
    return nearest_even(e, x) if halves_run_here() else guarded_integer(e, x)


def _emit_round(e, x, mode):
    """The modes other than HALF_EVEN and HALF_AWAY, by their position in `Round`."""
    b, kind = e.builder, x.type
    zero, half, one = (e.constant(v, kind) for v in (0.0, 0.5, 1.0))
    whole = e.unary("trunc", x)
    slot = e.variable(whole)
    for code, name in ((Round.FLOOR, "floor"), (Round.CEIL, "ceil")):
        with e.when(e.equal(mode, _MODES[code])):
            e.set(slot, e.unary(name, x))
    with e.when(e.less(mode, _MODES[Round.TRUNCATE])):
        part = e.unary("fabs", b.fsub(x, whole))
        sides = []
        for code, side in ((Round.HALF_UP, ">"), (Round.HALF_DOWN, "<")):
            wanted = e.equal(mode, _MODES[code])
            sides.append(b.and_(e.splat(wanted, _LANES), b.fcmp_ordered(side, x, zero)))
        tie = b.and_(b.fcmp_ordered("==", part, half), b.or_(*sides))
        step = e.call(f"llvm.copysign.v16f{32 if kind.element == F32 else 64}", kind, one, x)
        e.set(slot, b.select(b.or_(b.fcmp_ordered(">", part, half), tie), b.fadd(whole, step), whole))
    return e.get(slot)


def _emit_fixed_point(e, acc, mult, shift, kind, low, zi, high):
    """``gemmlowp_multiply`` and ``half_up_multiply`` of `refquant.core.epilogue`, then the limits, in int64."""
    b, wide = e.builder, vector(I64, _LANES)
    zero, half = e.constant(0, wide), e.constant(1 << 30, wide)
    shift = b.sext(shift, wide)
    left = b.shl(b.sext(acc, wide), e.larger(shift, 0))
    left = b.sext(b.trunc(left, acc.type), wide)
    right = e.larger(e.sub(zero, shift), 0)
    nudge = e.shift_right(b.shl(e.constant(1, wide), right), 1)
    product = e.mul(left, b.sext(mult, wide))
    slot = e.variable(zero)
    with e.either(e.equal(kind, form.FIXED_GEMMLOWP)) as (gemmlowp, half_up):
        with gemmlowp:
            nudged = e.add(product, b.select(e.less(product, 0), e.constant(1 - (1 << 30), wide), half))
            toward_zero = e.both(e.shift_right(nudged, 63), 0x7FFFFFFF)
            doubled = e.smaller(e.shift_right(e.add(nudged, toward_zero), 31), 0x7FFFFFFF)
            negative = e.less(doubled, 0)
            size = b.ashr(e.add(b.select(negative, e.sub(zero, doubled), doubled), nudge), right)
            e.set(slot, b.select(negative, e.sub(zero, size), size))
        with half_up:
            e.set(slot, b.ashr(e.add(e.shift_right(e.add(product, half), 31), nudge), right))
    low, zi, high = (e.splat(v, _LANES) for v in (low, zi, high))
    return b.trunc(e.add(e.smaller(e.larger(e.get(slot), low), high), zi), acc.type)


finish_tile = emitted_function("finish_tile", types.none, [types.int64] * 10, _emit)
"""``finish_tile(acc, pitch, rows, channels, n0, out, out_pitch, sums, zeros, stage)``

acc, pitch, out, out_pitch
    Addresses of the first accumulator and the first output, bytes from row to row.
rows, channels, n0
    Extents; the first channel's number in the form.
sums, zeros
    Addresses of the rows' sums and of all columns' zero points, whose products are subtracted first; or 0 and 0.
stage
    Address of what `make_stage` returns.
"""


