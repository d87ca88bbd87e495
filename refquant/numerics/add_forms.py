"""Forms of elementwise sums: by way of real numbers, on raw codes, with integer multipliers."""

from typing import Literal

from refquant.core.rounding import Round
from refquant.numerics.forms import Form
from refquant.numerics.record import record

__all__ = ["AddForm", "FoldedAddForm", "FixedAddForm", "GemmlowpAddForm"]


@record
class AddForm(Form):
    """Elementwise sum by way of real numbers, with a vector body and a scalar tail of their own.

    Attributes
    ----------
    dequantize, tail_dequantize
        As in `DequantizeForm`.
    scaling
        As in `QuantizeForm`.
    zero_point, tail_zero_point
        ``after`` or ``before`` rounding.
    rounding
    vector
        Elements that one step of the vector body takes; the rest of a range is tail. 0: all is body.
    grain
        Ranges of more elements than this are cut among the threads, each with its own tail. 0: never.
    """

    dequantize: Literal["sub_mul", "mul_add", "fma"]
    tail_dequantize: Literal["sub_mul", "mul_add", "fma"]
    scaling: Literal["divide", "reciprocal", "reciprocal64"]
    zero_point: Literal["after", "before"]
    tail_zero_point: Literal["after", "before"]
    rounding: Round
    vector: int
    grain: int


@record
class FoldedAddForm(Form):
    """Elementwise sum on raw codes, all zero points folded into one constant: MLAS.

    ``ra = sa/sy, rb = sb/sy; k = zy − (za·ra + zb·rb); q = round(a·ra + (b·rb + k))``

    Attributes
    ----------
    contraction
        ``fma``: fused as MLAS's AVX2 kernel and its compiler do; ``none``: every step rounded.
    lone
        Of a pair of one-element tensors: ``as_given``, or ``swapped``, as the broadcaster takes them for a scalar and a vector.
    rounding
    overflow
        ``saturate``: huge numbers reach the nearer end; ``indefinite``: what leaves int32, and NaN, becomes −2³¹ and so the smallest code.
    """

    contraction: Literal["fma", "none"]
    lone: Literal["as_given", "swapped"]
    rounding: Round
    overflow: Literal["saturate", "indefinite"]


@record
class FixedAddForm(Form):
    """Elementwise sum with two integer multipliers and one rounding shift: QNNPACK, XNNPACK.

    ``ra = f(sa/sy), rb = f(sb/sy); n = bits − floor(log2(max(ra, rb))); A = rint(ra·2ⁿ), B = rint(rb·2ⁿ);
    q = round(((a − za)·A + (b − zb)·B) / 2ⁿ) + zy``

    Attributes
    ----------
    bits
        Of the larger multiplier, less one.
    rounding
        Of the shift.
    """

    bits: int
    rounding: Round


@record
class GemmlowpAddForm(Form):
    """Elementwise sum with three integer multipliers, inputs shifted left by 20 bits first: TFLite.

    Attributes
    ----------
    body
        ``gemmlowp``: every multiplier with two roundings half away; ``neon``: the inputs' with one rounding half up,
        the output's half up and then half away.
    vector
        Elements that a step of the body takes; the tail is always ``gemmlowp``. 0: all is body.
    """

    body: Literal["gemmlowp", "neon"]
    vector: int
