"""The narrow fixed-point multiplications of an output stage, on vectors: all that they need but the product fits into 32 bits."""

from refquant.kernels.vector_ir import I32, I64, vector
from refquant.kernels.wide import halves_run_here

__all__ = ["narrow_fixed_point"]


def _high_products(e, acc, mult):
    """``(acc * mult + 2**30) >> 31``, the low 32 bits."""
    b, wide = e.builder, vector(I64, acc.type.count)
    if halves_run_here():
        halves = [_high_products_of_half(e, *(e.shuffle(v, v, list(range(at, at + 8))) for v in (acc, mult))) for at in (0, 8)]
        return e.shuffle(*halves, list(range(16)))
    product = e.mul(b.sext(acc, wide), b.sext(mult, wide))
    return b.trunc(b.lshr(e.add(product, e.constant(1 << 30, wide)), e.constant(31, wide)), acc.type)


def _high_products_of_half(e, acc, mult):
    """8 lanes, the even and the odd ones by ``vpmuldq``; the multipliers' signs must not be taken for something that all rows share."""
    b, wide = e.builder, vector(I64, 4)
    acc, mult = (b.bitcast(v, wide) for v in e.in_order(acc, mult))
    nudge = e.constant(1 << 30, wide)
    even, odd = (e.add(e.mul(*pair), nudge) for pair in ([e.shift_right(e.shift_left(v, 32), 32) for v in (acc, mult)], [e.shift_right(v, 32) for v in (acc, mult)]))
    even, odd = (b.bitcast(v, vector(I32, 8)) for v in (b.lshr(even, e.constant(31, wide)), e.shift_left(odd, 1)))
    return e.shuffle(even, odd, [lane + 8 * (lane % 2) for lane in range(8)])


def narrow_fixed_point(e, acc, mult, shift, gemmlowp):
    """``gemmlowp_multiply`` or ``half_up_multiply`` of `refquant.core.epilogue`, for multipliers other than ``-2**31`` and exponents from -31 to 31.

    Both begin with ``(product + 2**30) >> 31``, for truncating a nudged negative is rounding half up.
    """
    b = e.builder
    left, right = e.larger(shift, 0), e.larger(e.sub(e.constant(0, shift.type), shift), 0)
    high = _high_products(e, b.shl(acc, left), mult)
    if gemmlowp:
        negative = e.less(high, 0)
        size = b.select(negative, e.sub(e.constant(0, high.type), high), high)
        nudge = e.shift_right(b.shl(e.constant(1, high.type), right), 1)
        nudge = e.both(nudge, 0x7FFFFFFF)
        size = b.lshr(e.add(size, nudge), right)
        return b.select(negative, e.sub(e.constant(0, size.type), size), size)
    before = e.larger(e.sub(right, 1), 0)
    last = e.both(b.ashr(high, before), b.sext(e.less(e.constant(0, right.type), right), right.type))
    return e.add(b.ashr(high, right), e.both(last, 1))
