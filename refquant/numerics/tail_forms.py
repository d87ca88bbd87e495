"""Forms of kernels whose vector body and scalar tail part ways, or for which subnormal numbers are zero."""

from typing import Literal

from refquant.numerics.forms import ProductForm, QuantizeForm, TransposedForm
from refquant.numerics.record import record

__all__ = ["VectorQuantizeForm", "FlushedQuantizeForm", "NarrowProductForm", "DepthwiseTailForm", "TransposedTailForm"]


@record
class VectorQuantizeForm(QuantizeForm):
    """Real to code with a vector body, by the fields of `QuantizeForm`, and a scalar tail.

    Attributes
    ----------
    tail
        The last elements, which fill no whole step: ``body``: like all others; ``float64``: x / s in float64, half away from zero, to int32 as x86
        converts (beyond it −2³¹), and the zero point added with wrap-around.
    vector
        Elements of a step, in memory order.
    """

    tail: Literal["body", "float64"]
    vector: int


@record
class FlushedQuantizeForm(QuantizeForm):
    """Real to code, by the fields of `QuantizeForm`, on a processor that takes subnormal numbers for zero.

    It takes those of the input, and the reciprocal of a scale above 2**126: every number then becomes the zero point, and infinities are NaN.
    """


@record
class NarrowProductForm(ProductForm):
    """Product of two codes whose vector body goes on in 16 bits.

    Attributes
    ----------
    narrow
        Of the scaled product in whole steps: ``int16``: it saturates to 16 bits, and its sum with the zero point wraps in 16 bits; ``none``.
    vector
        Elements of a step, in memory order.
    """

    narrow: Literal["int16", "none"]
    vector: int


@record
class DepthwiseTailForm(ProductForm):
    """Convolution whose depthwise kernel takes whole steps of channels, and leaves the last ones to scalar code.

    Attributes
    ----------
    tail
        The arithmetic of the last channels of a depthwise convolution.
    vector
        Channels of a step.
    """

    tail: Literal["fixed_gemmlowp", "fixed_half_up"]
    vector: int


@record
class TransposedTailForm(TransposedForm):
    """Transposed convolution whose kernel takes whole steps of channels, and leaves the last ones to scalar code.

    Attributes
    ----------
    tail
        The arithmetic of the last channels.
    vector
        Channels of a step.
    """

    tail: Literal["fixed_gemmlowp", "fixed_half_up"]
    vector: int
