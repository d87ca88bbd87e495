"""The two straight lines of instructions that most output stages are rewritten to, for codes of 8 bits and AVX-512 or AVX2.

    short   v = fma(pre_b, pre_k, v) * s2;  min(v, hi)
    long    v = ((v * s1) * s2 + b) * d + zf;  min(v, hi)

    4 registers of 16 channels:   int32 → float32 → … → int32 ┐
                                  int32 → float32 → … → int32 ┴ 32 × int16 ┐  + zero point
                                  int32 → float32 → … → int32 ┐            ├ 64 × uint8 → limits → one store
                                  int32 → float32 → … → int32 ┴ 32 × int16 ┘

The packing instructions saturate and the addition does too, so no bit is lost that the limits would keep. int8 goes through as
uint8, 128 more. `refquant.kernels.stage` says which forms become a line, and why that is exact.
"""

from refquant.kernels.stage import LINE_LONG, LINE_SHORT, REALS, VECTORS, WORDS
from refquant.kernels.vector_ir import F32, I8, I16, I32, I64, vector
from refquant.kernels.wide import wide

__all__ = ["emit_straight_lines", "line_vectors", "emit_rows", "pack_codes", "read_stage"]

_LANES = 16
_F32V, _I32V, _I16V, _I8V = vector(F32, 16), vector(I32, 16), vector(I16, 32), vector(I8, 64)


def read_stage(e, block):
    """The numbers of the stage at the address `block` by name; its vectors as addresses, 0 for those that it does not have."""
    s, at = {}, 0
    for name in WORDS:
        s[name], at = e.load(e.add(block, at), I64), at + 8
    for name in VECTORS:
        offset, at = e.load(e.add(block, at), I64), at + 8
        s[name] = e.builder.select(e.equal(offset, 0), offset, e.add(block, offset))
    for name in REALS:
        s[name], at = e.load(e.add(block, at), F32), at + 4
    return s


def emit_straight_lines(e, s):
    """Write both lines over tiles in memory; `s` holds the arguments and numbers of `finish_tile` by name."""
    for line in (LINE_SHORT, LINE_LONG):
        with e.when(e.equal(s["line"], line)):
            for first, count, rest in e.channel_groups(s["channels"], _LANES, (4, 2, 1)):
                vectors = line_vectors(e, s, line, e.add(s["n0"], first), count)
                with e.loop(s["rows"]) as row:
                    at = e.add(e.add(s["acc"], e.mul(row, s["pitch"])), e.mul(first, 4))
                    if rest is not None:
                        acc = [e.load_first(at, _I32V, rest)]
                    else:
                        acc = [e.load(e.add(at, 4 * _LANES * i), _I32V) for i in range(count)]
                    out = e.add(e.add(s["out"], e.mul(row, s["out_pitch"])), first)
                    emit_rows(e, s, line, [acc], vectors, [out], rest)


def line_vectors(e, s, line, n, count):
    """The two vectors of a line for 16 * `count` channels from `n` on; memory behind the last channel is read and not used."""

    def parameter(name):
        slots = [e.variable(e.constant(-0.0, _F32V)) for _ in range(count)]
        with e.when(e.builder.not_(e.equal(s[name], 0))):
            at = e.add(s[name], e.mul(n, 4))
            for i, slot in enumerate(slots):
                e.set(slot, e.load(e.add(at, 4 * _LANES * i), _F32V))
        return [e.get(slot) for slot in slots]

    return list(zip(parameter("s2"), parameter("pre_b" if line == LINE_SHORT else "b")))


def emit_rows(e, s, line, acc, vectors, outs, count=None, interleaved=False, width=None):
    """Finish one or more rows of together up to 64 accumulators and store them: all bytes, or the first `count`.

    Of `width` channels each, in place of all those that `vectors` are for, several rows lie side by side in one.

    With `interleaved`, quarter l of register j holds channels 16 * l + 4 * j, …
    """
    codes = [_chain(e, s, line, a, *pair) for row in acc for a, pair in zip(row, vectors)]
    packed = pack_codes(e, s, codes, interleaved)
    width = width or _LANES * len(vectors)
    for i, out in enumerate(outs):
        part = e.shuffle(packed, packed, list(range(width * i, width * (i + 1))))
        if count is None:
            e.store(part, out)
        else:
            e.store_first(part, out, count)


def _chain(e, s, line, acc, s2, other):
    b = e.builder

    def number(name):
        return e.splat(s[name], _LANES)

    v = b.sitofp(acc, _F32V)
    if line == LINE_SHORT:
        v = b.fmul(e.fma(other, number("pre_k"), v), s2)
    else:
        v = b.fadd(b.fmul(b.fmul(v, number("line_s1")), s2), other)
        v = b.fadd(b.fmul(v, number("line_d")), number("line_zf"))
    hi = number("line_hi")
    v = b.select(b.fcmp_ordered("<", hi, v), hi, v)
    return wide(e, "cvtps2dq", v)


def pack_codes(e, s, codes, interleaved=False):
    """64 bytes of 16 to 64 codes, in order."""

    def number(name, kind):
        return e.splat(e.builder.trunc(s[name], kind.element), kind.count)

    pairs = (codes * 4)[:2] if len(codes) < 3 else (codes + codes[-1:])[:4]
    halves = [wide(e, "packssdw", x, y) for x, y in zip(pairs[::2], pairs[1::2])]
    halves = [e.call("llvm.sadd.sat.v32i16", _I16V, half, number("zi16", _I16V)) for half in halves]
    packed = wide(e, "packuswb", halves[0], halves[-1])
    packed = e.call("llvm.umax.v64i8", _I8V, packed, number("low8", _I8V))
    packed = e.call("llvm.umin.v64i8", _I8V, packed, number("high8", _I8V))
    packed = e.builder.xor(packed, number("flip", _I8V))
    if interleaved:
        return packed
    # Packing works on quarters of a register: dword 4 * q + v holds codes 4 * q … 4 * q + 3 of vector v.
    dwords = e.builder.bitcast(packed, _I32V)
    order = [4 * (lane % 4) + lane // 4 for lane in range(16)]
    return e.builder.bitcast(e.shuffle(dwords, dwords, order), _I8V)

