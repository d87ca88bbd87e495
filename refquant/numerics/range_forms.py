"""The forms of engines that quantize by a range cut into steps, not by a scale and a zero point."""

from typing import Literal

from refquant.numerics.forms import Form
from refquant.numerics.record import record

__all__ = ["RangeForm", "RangeSoftmaxForm", "RangeProductForm"]


@record
class RangeForm(Form):
    """FakeQuantize: a range of real numbers cut into 255 steps, see `refquant.core.range_steps`. Quantization, and what ends in it.

    Around it stands what OpenVINO's graph transformations leave of "dequantize, compute, quantize", see `refquant.ops.range_elementwise`.

    Attributes
    ----------
    shift
        ``product``: f(−low · step); ``quotient``: f(f(−low · 255) / f(high − low)).
    contraction
        ``fma``: scaled and shifted with one rounding; ``none``: with two.
    reduced
        int8 around a zero point of 0 is scaled alone, without a shift to 128 and back.
    """

    shift: Literal["product", "quotient"]
    contraction: Literal["none", "fma"]
    reduced: bool


@record
class RangeSoftmaxForm(RangeForm):
    """Softmax in float32 whose output is a FakeQuantize, by the fields of `RangeForm`, see `refquant.core.onednn_softmax`.

    Attributes
    ----------
    vector
        Float32 lanes of the sum over an axis that lies densest.
    """

    vector: int


@record
class RangeProductForm(Form):
    """Integer product whose output is a FakeQuantize: linear and convolution in OpenVINO's CPU plugin.

    ``S = f(sx·sw)``; `low`, `high` the output's range. Without a bias the range is divided by S and the accumulator goes straight to codes:
    ``round(acc·step + (shift + qmin))``. With one it is ``round((acc·S + b)·step + (shift + qmin))``, in one of two ways.

    Attributes
    ----------
    zero_point
        Of activations: ``sum``: taken off the integer accumulator; ``range``: the accumulator is raw, and f(zx · Σw) is added to the range, or
        taken off the accumulator as a float.
    bias
        ``sum``: added to f(acc·S); ``shift``: f(b·step) is added to the shift, and f(S·step) is one factor. With a ReLU in between always the former; without one that of
        a single output is taken off the range, before it is divided by S.
    contraction
        Of step and shift where neither depends on the channel: ``fma`` or ``none``.
    plain
        What becomes of a shift below 255e-5: ``kept``; or it is left out, and the step enters as the reciprocal of its reciprocal (``multiply``), or its reciprocal
        as the divisor (``divide``).
    drift
        Shifts of the channels that lie less than 5e-5 apart become the first one's.
    float_sums
        Where the engine sums in float32: ``none``; ``signed``: convolutions of int8 with a zero point, whose bias goes the way of ``shift``.
    """

    zero_point: Literal["sum", "range"]
    bias: Literal["sum", "shift"]
    contraction: Literal["fma", "none"]
    plain: Literal["kept", "multiply", "divide"]
    drift: bool
    float_sums: Literal["none", "signed"]
