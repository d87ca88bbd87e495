"""More output stages as straight lines of instructions, over tiles of accumulators in memory, for codes of 8 bits on AVX2.

    biased    v = (fma(pre_b, pre_k, v) * s1) * s2 + b;  v * d + zf;  min(v, hi)
    divided   the same with v / d
    real64    v = v * m64 + zf in float64;  min(v, hi);  rounded half to even, or half away from zero
    gemmlowp, half-up    the narrow fixed-point kinds

The 16 channels of a register are those of a tile of AVX2. Four rows at a time make the 64 bytes of
`refquant.kernels.finish_bytes.pack_codes`. `refquant.kernels.stage` says which forms become a line, and why that is exact.
"""

from refquant.kernels.finish_bytes import pack_codes
from refquant.kernels.fixed_point import narrow_fixed_point
from refquant.kernels.stage import LINE_BIASED, LINE_DIVIDED, LINE_GEMMLOWP, LINE_HALF_UP, LINE_REAL64, LINE_REAL64_AWAY
from refquant.kernels.vector_ir import F32, F64, I32, vector
from refquant.kernels.wide import nearest_even, truncated

__all__ = ["emit_memory_lines"]

_LANES, _ROWS = 16, 4
_BELOW_HALF = 0.49999999999999994
_I32V, _F32V, _F64V = vector(I32, 16), vector(F32, 16), vector(F64, 16)


def emit_memory_lines(e, s):
    """Write the lines; `s` holds the arguments and numbers of `finish_tile` by name."""
    for line, (names, kind, chain) in _LINES.items():
        with e.when(e.equal(s["line"], line)):
            for first, _, rest in e.channel_groups(s["channels"], _LANES, (1,)):
                vectors = [_parameter(e, s[name], e.add(s["n0"], first), kind) for name in names]
                _emit_rows(e, s, first, rest, lambda acc, vectors=vectors, chain=chain: chain(e, s, acc, *vectors))


def _parameter(e, address, n, kind):
    """16 numbers of a vector of the form from the channel `n` on, or where it has none the neutral -0.0; what lies behind is not used."""
    slot = e.variable(e.constant(-0.0 if kind != _I32V else 0, kind))
    with e.when(e.builder.not_(e.equal(address, 0))):
        e.set(slot, e.load(e.add(address, e.mul(n, 8 if kind == _F64V else 4)), kind))
    return e.get(slot)


def _emit_rows(e, s, first, rest, chain):
    def rows(row, count):
        at = [e.add(row, i) for i in range(count)]
        accs = [e.add(e.add(s["acc"], e.mul(i, s["pitch"])), e.mul(first, 4)) for i in at]
        acc = [e.load(a, _I32V) if rest is None else e.load_first(a, _I32V, rest) for a in accs]
        packed = pack_codes(e, s, [chain(a) for a in acc])
        for i, r in enumerate(at):
            part, out = e.shuffle(packed, packed, list(range(_LANES * i, _LANES * (i + 1)))), e.add(e.add(s["out"], e.mul(r, s["out_pitch"])), first)
            if rest is None:
                e.store(part, out)
            else:
                e.store_first(part, out, rest)

    fours = e.mul(e.builder.sdiv(s["rows"], e.constant(_ROWS)), _ROWS)
    with e.loop(fours, step=_ROWS) as row:
        rows(row, _ROWS)
    with e.loop(s["rows"], start=fours) as row:
        rows(row, 1)


def _number(e, s, name, kind):
    value = s[name] if kind == _F32V else e.builder.fpext(s[name], F64)
    return e.splat(value, _LANES)


def _below(e, s, v):
    b, hi = e.builder, _number(e, s, "line_hi", v.type)
    return b.select(b.fcmp_ordered("<", hi, v), hi, v)


def _scaled(e, s, acc, pre_b, s2, bias):
    b = e.builder
    v = e.fma(pre_b, _number(e, s, "pre_k", _F32V), b.sitofp(acc, _F32V))
    return b.fadd(b.fmul(b.fmul(v, _number(e, s, "line_s1", _F32V)), s2), bias)


def _biased(e, s, acc, *vectors):
    b = e.builder
    v = b.fmul(_scaled(e, s, acc, *vectors), _number(e, s, "line_d", _F32V))
    return nearest_even(e, _below(e, s, b.fadd(v, _number(e, s, "line_zf", _F32V))))


def _divided(e, s, acc, *vectors):
    b = e.builder
    v = b.fdiv(_scaled(e, s, acc, *vectors), _number(e, s, "line_d", _F32V))
    return nearest_even(e, _below(e, s, b.fadd(v, _number(e, s, "line_zf", _F32V))))


def _wide(e, s, acc, m64):
    b = e.builder
    return _below(e, s, b.fadd(b.fmul(b.sitofp(acc, _F64V), m64), _number(e, s, "line_zf", _F64V)))


def _real64(e, s, acc, m64):
    return nearest_even(e, _wide(e, s, acc, m64))


def _real64_away(e, s, acc, m64):
    """Half away from zero is what truncation leaves of the number and, with its sign, the greatest below a half."""
    v = _wide(e, s, acc, m64)
    part = e.call("llvm.copysign.v16f64", _F64V, e.constant(_BELOW_HALF, _F64V), v)
    return truncated(e, e.builder.fadd(v, part))


def _gemmlowp(e, s, acc, mult, shift):
    return narrow_fixed_point(e, acc, mult, shift, gemmlowp=True)


def _half_up(e, s, acc, mult, shift):
    return narrow_fixed_point(e, acc, mult, shift, gemmlowp=False)


_LINES = {
    LINE_BIASED: (("pre_b", "s2", "b"), _F32V, _biased),
    LINE_DIVIDED: (("pre_b", "s2", "b"), _F32V, _divided),
    LINE_REAL64: (("m64",), _F64V, _real64),
    LINE_REAL64_AWAY: (("m64",), _F64V, _real64_away),
    LINE_GEMMLOWP: (("mult", "shift"), _I32V, _gemmlowp),
    LINE_HALF_UP: (("mult", "shift"), _I32V, _half_up),
}
