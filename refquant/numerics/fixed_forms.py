"""Forms of integer arithmetic alone: functions of one code in TensorFlow Lite."""

from dataclasses import dataclass
from typing import Literal

from refquant.core.rounding import Round
from refquant.numerics.forms import Form

__all__ = ["FixedUnaryForm"]


@dataclass(frozen=True, kw_only=True)
class FixedUnaryForm(Form):
    """Functions of one code where some are tables of real numbers and some integer arithmetic.

    hardswish: multipliers and products of 16 bits, as TFLite's reference kernel has them in every resolver.

    Attributes
    ----------
    sigmoid, elu, gelu
        How a table's real number times f(1 / sy) is rounded: of sigmoid and tanh, which have output parameters of their own; of elu; of gelu.
    zero_point
        ``after`` or ``before`` rounding, of sigmoid, tanh and elu; of gelu always after.
    leaky_relu
        ``gemmlowp``: a multiplier of 31 bits for either sign, two roundings half away; ``eighths``: multipliers in steps of 1/256, one
        rounding half up.
    """

    sigmoid: Round
    elu: Round
    gelu: Round
    zero_point: Literal["after", "before"]
    leaky_relu: Literal["gemmlowp", "eighths"]
