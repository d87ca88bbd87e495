"""Forms of integer arithmetic alone: functions of one code in TensorFlow Lite."""

from typing import Literal

from refquant.core.rounding import Round
from refquant.numerics.forms import Form
from refquant.numerics.record import record

__all__ = ["FixedUnaryForm", "CodeFunctionForm", "MultiplierForm", "FixedMeanForm"]


@record
class FixedUnaryForm(Form):
    """Functions of one code where some are tables of real numbers and some integer arithmetic.

    hardswish: multipliers and products of 16 bits, as TFLite's reference kernel has them in every resolver.

    Attributes
    ----------
    sigmoid, elu, gelu
        How a table's real number times f(1 / sy) is rounded: of sigmoid and tanh, which have output parameters of their own; of elu; of gelu.
    zero_point
        ``after`` or ``before`` rounding, of sigmoid, tanh and elu; of gelu always after.
    logistic
        ``float32``: of the sigmoid exponential, sum and quotient are rounded each; ``float64``: once, at the end.
    leaky_relu
        ``gemmlowp``: a multiplier of 31 bits for either sign, two roundings half away; ``eighths``: multipliers in steps of 1/256, one
        rounding half up.
    """

    sigmoid: Round
    elu: Round
    gelu: Round
    zero_point: Literal["after", "before"]
    logistic: Literal["float32", "float64"]
    leaky_relu: Literal["gemmlowp", "eighths"]


@record
class CodeFunctionForm(Form):
    """Functions of one code that TensorFlow Lite alone has: exp and log by tables, roots, absolute values. Those of one over a root and of abs are positive integers, scaled by gemmlowp's multiplier.

    Attributes
    ----------
    table
        How a table's real number times f(1 / sy) is rounded, of exp and log; the zero point comes after.
    sqrt
        How a root over sy is rounded.
    """

    table: Round
    sqrt: Round


@record
class MultiplierForm(Form):
    """Integers scaled by multipliers of 31 bits.

    Leaky ReLU with quantized slopes: f(sx / sy) for codes from the zero point on, f(f(sx · sw) / sy) for the products below it.
    Squares of differences: of both inputs by s / (2 · max(sa, sb)), shifted left by 7 bits, and of the square.

    Attributes
    ----------
    multiply
        ``gemmlowp``: two roundings half away; ``half_up``: half up each.
    """

    multiply: Literal["gemmlowp", "half_up"]


@record
class FixedMeanForm(Form):
    """Mean over axes, into parameters of its own, see `refquant.ops.fixed_mean`.

    Attributes
    ----------
    general
        ``centred``: the sum of q − z by gemmlowp's multiplier, divided by the count; ``float``: the sum of q in float32, both zero points inside of the rounding.
    images
        Over the two middle axes of four: one of these, or ``raw``: the sum of q by a multiplier with two roundings, half up in whole steps of the last axis, half away in the rest.
    vector
        Elements of a step.
    """

    general: Literal["centred", "float"]
    images: Literal["centred", "raw", "float"]
    vector: int
