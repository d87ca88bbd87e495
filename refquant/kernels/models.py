"""Instructions of x86 written out in LLVM's own operations, for processors that lack them: what emulated levels are made of.

    vpdpbusd    acc + x0 * w0 + x1 * w1 + x2 * w2 + x3 * w3      each lane of 32 bits, modulo 2**32
    pmaddubsw   saturate_int16(x0 * w0 + x1 * w1)                each lane of 16 bits
    pmaddwd     x0 * w0 + x1 * w1                                each lane of 32 bits, modulo 2**32
    packssdw    saturate_int16, of both operands                 in each 128 bits first the one's lanes, then the other's
    packuswb    saturate_uint8, the same way
    cvtps2dq    nearest integer, ties to even                    NaN and what int32 does not hold: -2**31

A model takes the operands of the LLVM intrinsic that it stands for. The functions of `refquant.isa` are what it is tested against, and
the processor itself where that has the instruction.
"""

from refquant.kernels.instructions import FORMS
from refquant.kernels.processor import host_features
from refquant.kernels.vector_ir import I8, I16, I32, vector
from refquant.kernels.wide import guarded_integer

__all__ = ["MODELS", "missing_here"]


def _vpdpbusd(e, acc, x, w):
    for i in range(4):
        byte = e.both(e.builder.lshr(x, e.constant(8 * i, x.type)), 0xFF)
        weight = e.shift_right(e.shift_left(w, 24 - 8 * i), 24)
        acc = e.add(acc, e.mul(byte, weight))
    return acc


def _pmaddubsw(e, x, w):
    kind = vector(I16, x.type.count // 2)
    x, w = e.builder.bitcast(x, kind), e.builder.bitcast(w, kind)
    even = e.mul(e.both(x, 0xFF), e.shift_right(e.shift_left(w, 8), 8))
    odd = e.mul(e.builder.lshr(x, e.constant(8, kind)), e.shift_right(w, 8))
    return e.call(f"llvm.sadd.sat.v{kind.count}i16", kind, even, odd)


def _pmaddwd(e, x, w):
    kind = vector(I32, x.type.count // 2)
    x, w = e.builder.bitcast(x, kind), e.builder.bitcast(w, kind)
    even, odd = (e.mul(*(e.shift_right(e.shift_left(v, shift), 16) for v in (x, w))) for shift in (16, 0))
    return e.add(even, odd)


def _pack(kind, low, high):
    def model(e, a, b):
        count, per = a.type.count, 128 // a.type.element.width
        narrow = [e.builder.trunc(e.smaller(e.larger(v, low), high), vector(kind, count)) for v in (a, b)]
        order = [source * count + quarter * per + i for quarter in range(count // per) for source in range(2) for i in range(per)]
        return e.shuffle(*narrow, order)

    return model


def _nearest_even(e, x, *all_lanes):
    return guarded_integer(e, e.unary("roundeven", x))


def _truncated(e, x):
    return guarded_integer(e, e.unary("trunc", x))


_BY_NAME = {
    "vpdpbusd": _vpdpbusd, "vpmaddubsw": _pmaddubsw, "vpmaddwd": _pmaddwd, "cvtps2dq": _nearest_even,
    "packssdw": _pack(I16, -(2**15), 2**15 - 1), "packuswb": _pack(I8, 0, 255),
}  # fmt: skip
MODELS = {form.llvm: _BY_NAME[form.name] for form in FORMS if form.name in _BY_NAME}
MODELS |= {"llvm.x86.avx.cvt.pd2dq.256": _nearest_even, "llvm.x86.avx.cvtt.pd2dq.256": _truncated}
_NEEDS = {form.llvm: form.features for form in FORMS} | {name: (("avx",),) for name in MODELS if "pd2dq" in name}
_NEEDS["llvm.x86.sse2.pause"] = (("sse2",),)


def missing_here(name):
    """Return the model of an LLVM intrinsic of x86, None where the processor has the instruction itself."""
    if any(host_features().issuperset(needed) for needed in _NEEDS[name]):
        return None
    return MODELS[name]
