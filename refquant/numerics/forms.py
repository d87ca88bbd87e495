"""The forms that a profile fills in: one frozen dataclass for each kind of arithmetic, without defaults but for what one engine alone has.

Every field is an enumeration, a number or a flag, so a profile is data: it can be printed, compared, searched over
and changed (`Numerics.replace`). A wrong value is refused with the list of the right ones.
"""

from dataclasses import fields, replace
from functools import lru_cache
from typing import Literal, get_args, get_origin

from refquant.core.rounding import Round
from refquant.errors import ArgumentError, choose
from refquant.numerics.record import Record, record

__all__ = [
    "Form", "QuantizeForm", "DequantizeForm", "VectorDequantizeForm", "ProductForm", "SignedProductForm", "TransposedForm", "RealForm",
    "UnaryForm", "PostForm", "MaxPoolForm", "PoolForm", "CatForm", "Pairing", "GLOBAL_ALONE", "form_choices",
]  # fmt: skip


@lru_cache(maxsize=None)
def form_choices(cls):
    """Return ``{field: allowed values}`` of a form; a type stands for "any value of that type"."""
    out = {}
    for f in fields(cls):
        hint = f.type
        if get_origin(hint) is Literal:
            out[f.name] = get_args(hint)
        elif hint is Round:
            out[f.name] = tuple(Round)
        else:
            out[f.name] = hint
    return out


class Form(Record):
    """Base of all forms: checks every field against its annotation."""

    def __post_init__(self):
        place = type(self).__name__
        for name, allowed in form_choices(type(self)).items():
            value = getattr(self, name)
            if isinstance(allowed, tuple):
                if value not in allowed:
                    choose(place, name, getattr(value, "value", value), [getattr(a, "value", a) for a in allowed])
                if allowed[0].__class__ is Round and value.__class__ is not Round:
                    object.__setattr__(self, name, Round(value))
            elif allowed is int and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
                raise ArgumentError(f"{place}: {name}={value!r} must be a non-negative integer")
            elif allowed is bool and not isinstance(value, bool):
                raise ArgumentError(f"{place}: {name}={value!r} must be True or False")

    def replace(self, **changes):
        """Return a copy with some fields changed; an unknown field is refused with the list of fields."""
        names = [f.name for f in fields(self)]
        for name in changes:
            choose(type(self).__name__, "field", name, names)
        return replace(self, **changes)


@record
class QuantizeForm(Form):
    """Real to code: ``clip(round(x / scale) + zero_point)`` in one of its many readings.

    Attributes
    ----------
    scaling
        ``divide``: x / s; ``reciprocal``: x · f32(1 / f32(s)); ``reciprocal64``: x · f32(1 / s), the inner division in double.
    zero_point
        ``after``: an integer added to the rounded value; ``before``: a float added before rounding; ``fma``: the same,
        with scaling and addition rounded once; ``float_after``: a float added to the rounded value, and the sum kept within the ends of the
        dtype, which are floats too, before it is converted (so that the top of int32 becomes 2³¹ and that −2³¹).
    rounding
    overflow
        ``saturate``: huge values reach the nearer end; ``indefinite``: the x86 conversion turns them into −2³¹ first
        (and an integer zero point is then added with wrap-around); ``int64``: they become −2⁶³.
    nan
        The code of NaN: an end of the dtype, the number 0, the ``indefinite`` integer −2³¹ of x86 cut to the dtype's bits, which
        is 0 for 8 bits, or ``overflow``: whatever a huge value would become, for ``indefinite`` overflow.
    """

    scaling: Literal["divide", "reciprocal", "reciprocal64"]
    zero_point: Literal["after", "before", "fma", "float_after"]
    rounding: Round
    overflow: Literal["saturate", "indefinite", "int64"]
    nan: Literal["qmin", "qmax", "zero", "indefinite", "overflow"]


@record
class DequantizeForm(Form):
    """Code to real.

    Attributes
    ----------
    formula
        ``sub_mul``: f32(q − z) · s, the difference of int32 codes modulo 2³²; ``sub_mul_wide``: the same with the difference in
        int64; ``sub_mul32``: (f32(q) − f32(z)) · s;
        ``sub_mul64``: the same with the scale in float64, rounded once;
        ``mul_add``: q·s + f32(−z·s), two roundings; ``fma``: fma(q, s, f32(−z·s)).
    """

    formula: Literal["sub_mul", "sub_mul_wide", "sub_mul32", "sub_mul64", "mul_add", "fma"]


@record
class VectorDequantizeForm(DequantizeForm):
    """Code to real with a vector body, by `formula`, and a scalar tail.

    Attributes
    ----------
    tail
        The formula of the last elements, which fill no whole step.
    vector
        Elements of a step, in memory order.
    """

    tail: Literal["sub_mul", "mul_add", "fma"]
    vector: int


@record
class ProductForm(Form):
    """Integer product with requantized output: linear and convolution.

    Attributes
    ----------
    accumulator
        ``exact``: int32, modulo 2³²; ``fbgemm_depthwise``: exact but for FBGEMM's depthwise kernels, where pairs of taps saturate to int16.
    arithmetic
        Of the output stage: ``float32``, ``float64``, or an integer multiplier: ``fixed_gemmlowp``, ``fixed_half_up``.
    multiplier
        The order of the scale product. With f each rounding to float32:
        ``(xw)/y``: acc · f(f(sx·sw)/sy); ``(xw)*(1/y)``: acc · f(f(sx·sw)·f(1/sy)); ``x*(w/y)``: acc · f(sx·f(sw/sy));
        ``x,w,1/y``: ((acc·sx)·sw + b) · f(1/sy), a rounding at each step; ``x,w,/y``: the same, divided by sy;
        ``(xw),1/y``: (acc·f(sx·sw) + b) · f(1/sy); ``(xw),/y``: (acc·f(sx·sw) + b) / sy; ``double``: sx·sw/sy in float64; ``f64(xw)/y``: f(sx·sw) divided by sy in float64;
        ``f64(xw)/y, double``: the former per tensor, the latter per channel.
    x_scale, w_scale, y_scale
        ``direct``: the float32 scale; ``reciprocals``: 1 / f(1 / s), as oneDNN's wrapper passes inverse scales.
    bias
        ``before``: a float, divided by f(sx·sw) and added to the accumulator (FBGEMM);
        ``after``: a float, added to the scaled value; ``int32_reciprocal``: rounded to int32 as f(b · f(1 / f(sx·sw))), the product of the scales
        in float64;
        ``int32``: rounded to int32 as b / f(sx·sw), or given as int32.
    zero_point
        ``after`` or ``before`` rounding.
    rounding
    overflow
        ``saturate``, or ``indefinite``: beyond int32 the x86 conversion gives −2³¹.
    relu
        ``real``: max(v, 0) before the output scale; ``code``: max(q, zero point) at the end.
    post
        How oneDNN computes post-operations: ``vectorized``, by polynomials of its own and fused steps; ``reference``, one number after the
        other, by the C library's functions and without fused steps.
    """

    accumulator: Literal["exact", "fbgemm_depthwise"]
    arithmetic: Literal["float32", "float64", "fixed_gemmlowp", "fixed_half_up"]
    multiplier: Literal["(xw)/y", "(xw)*(1/y)", "x*(w/y)", "x,w,1/y", "(xw),1/y", "x,w,/y", "(xw),/y", "double", "f64(xw)/y", "f64(xw)/y, double"]
    x_scale: Literal["direct", "reciprocals"]
    w_scale: Literal["direct", "reciprocals"]
    y_scale: Literal["direct", "reciprocals"]
    bias: Literal["before", "after", "int32_reciprocal", "int32"]
    zero_point: Literal["after", "before"]
    rounding: Round
    overflow: Literal["saturate", "indefinite"]
    relu: Literal["real", "code"]
    post: Literal["vectorized", "reference"] = "vectorized"

    @classmethod
    def like(cls, form, accumulator="exact"):
        """Return a form of this class with the output stage of another product."""
        return cls(**{**{f.name: getattr(form, f.name) for f in fields(form)}, "accumulator": accumulator})


@record
class SignedProductForm(ProductForm):
    """Linear layer on int8 activations, where a kernel of its own takes them: a `ProductForm` with accumulators of its own.

    Attributes
    ----------
    accumulator
        ``exact``: int32, modulo 2³²; ``converted``: a sum in float64, rounded to float32 and converted to int32, which beyond int32 gives −2³¹.
    """

    accumulator: Literal["exact", "converted"]


@record
class TransposedForm(ProductForm):
    """Transposed convolution with requantized output: a `ProductForm` with accumulators of its own.

    Attributes
    ----------
    accumulator
        ``exact``: int32, modulo 2³²; ``fbgemm_direct``: exact but for FBGEMM's direct kernel, where pairs of channels saturate to int16;
        ``fbgemm_direct_rows``: the same, with the rows of one input right below those of the one before whatever the stride, as that
        kernel writes them; ``onednn_blocks``: exact, with the weights in the wrong order into which PyTorch brings them for oneDNN where
        a group's numbers of input and output channels differ.
    """

    accumulator: Literal["exact", "fbgemm_direct", "fbgemm_direct_rows", "onednn_blocks"]


@record
class RealForm(Form):
    """Integer product with a float32 output (dynamic quantization).

    Attributes
    ----------
    multiplier
        ``(xw)``: acc · f(sx·sw); ``x,w``: (acc · sx) · sw.
    x_scale, w_scale
        As in `ProductForm`.
    bias
        ``fma``: scaling and bias rounded once; ``add``: twice; ``int32``: added to the accumulator.
    post
        As in `ProductForm`; under ``reference`` a ReLU makes -0.0 of negative numbers.
    """

    multiplier: Literal["(xw)", "x,w"]
    x_scale: Literal["direct", "reciprocals"]
    w_scale: Literal["direct", "reciprocals"]
    bias: Literal["fma", "add", "int32"]
    post: Literal["vectorized", "reference"] = "vectorized"


@record
class UnaryForm(Form):
    """Functions of one code: sigmoid, tanh and their kin.

    Attributes
    ----------
    style
        ``aten``: PyTorch's vector and scalar loops; ``lookup``: a table made by the profile's dequantize and quantize forms; ``float``: the same by PyTorch's float32 kernels, in a vector and a scalar loop; ``onnxruntime``: the same by ONNX Runtime's float functions, such as rational ones for sigmoid and tanh; hard sigmoid is x · f(1/6) + 1/2 within [0, 1], and hard swish x times that; ``qnnpack``:
        QNNPACK's tables for sigmoid, tanh, hardsigmoid and hardswish of uint8 codes, the zero point inside of the rounding, all else as ``aten``.
    vector, grain
        As in `AddForm`.
    """

    style: Literal["aten", "lookup", "float", "qnnpack", "onnxruntime"]
    vector: int
    grain: int


#: Formulas of pools that are global alone.
GLOBAL_ALONE = ("global", "mean_centred", "mean_raw", "mean_float")


@record
class PostForm(Form):
    """What may follow a product before its output scale: a tensor to add, and functions of one real number.

    Attributes
    ----------
    other_scale
        Of a quantized tensor that is added as fma(f32(q − z), s, v): ``direct``: f32(s); ``reciprocals``: 1 / f(1 / f32(s)).
    """

    other_scale: Literal["direct", "reciprocals"]


@record
class MaxPoolForm(Form):
    """Maximum over windows of images and sequences.

    Attributes
    ----------
    outside
        What a tap outside of the image is: ``ignored``; ``nearest``: the nearest pixel, which lies in the window too unless there are both padding and dilation.
    """

    outside: Literal["ignored", "nearest"]


@record
class PoolForm(Form):
    """Average pooling; `A` is the sum over the window of (q − z), `n` its size.

    Attributes
    ----------
    contiguous, channels_last
        The formula for either memory format:

        ``scaled``: clip(round(A·m + z)), m = f(sx/sy)/n;
        ``vector``: clip(round(A·m) + z), m = f(sx/sy)/n, for whole blocks of `vector` channels, the rest clip(round(A·f(1/f(1/m)) + z));
        ``adaptive_vector``: the same with fma(A, f(1/f(1/m)), z) in the blocks;
        ``raw_mean``: round(sum(q) · k), k = 1 divided by each side of the window in turn;
        ``global``: clip(round(A · f(sx / f(sy·n))) + z);
        ``global_area``: the same with the whole kernel's area as n, whatever part of it lies on the image and whatever divisor is asked for,
        of adaptive windows their own;
        ``sequential``: dequantized values summed in float32 in order, divided by n, quantized as round(v / sy + z), but ``global`` for one
        window that is the whole image without padding; where padding counts, n is the whole kernel's area, also at an edge that ceil_mode
        lets it hang over;
        ``spec``: dequantized values averaged in float64, rounded to float32, quantized by the profile's quantize form;
        ``raw_integer``: sum(q) / n in integers, half away from zero;
        ``mean_centred``, ``mean_raw``, ``mean_float``: TFLite's MEAN over images, of the sum of q − z by gemmlowp's multiplier divided by n, of the sum of q by
        one half up, of the sum of q in float32 with both zero points inside of the rounding.
    vector
        Channels in a block. 0: all are.
    rounding
    """

    contiguous: Literal["scaled", "raw_mean", "global", "global_area", "sequential", "spec", "raw_integer", "mean_centred", "mean_raw", "mean_float"]
    channels_last: Literal["scaled", "vector", "adaptive_vector", "raw_mean", "global", "global_area", "sequential", "spec", "raw_integer", "mean_centred", "mean_raw", "mean_float"]
    vector: int
    rounding: Round


@record
class CatForm(Form):
    """Concatenation of tensors with different parameters.

    Attributes
    ----------
    contiguous
        ``quantize``: dequantize, then the profile's quantize form; ``copy``: inputs that have not the output's parameters are refused.
    channels_last
        ``quantize``: the same; ``vector``: a body of whole blocks of `vector` channels (fma dequantize, round(x · f(1/s)) + z) and a
        scalar tail (zero point before rounding).
    copy_equal
        Inputs that have the output's parameters are copied (channels last; on the other path it makes no difference
        unless a tie moves).
    vector
        Channels in a block. 0: all are.
    """

    contiguous: Literal["quantize", "copy"]
    channels_last: Literal["quantize", "vector"]
    copy_equal: bool
    vector: int


@record
class Pairing(Form):
    """Whose rule says which integer products saturate on a processor without VNNI, see `refquant.isa.products`.

    Attributes
    ----------
    linear, conv, conv_otherwise
        Of linear layers, of convolutions, and of those for which the profile's `Dispatch` says no: ``onednn``, ``fbgemm``,
        ``onnxruntime`` and ``openvino`` multiply as these libraries do on each processor level; ``exact``: no product saturates on any;
        ``unknown``: nobody has looked.
    """

    linear: Literal["exact", "fbgemm", "onednn", "onnxruntime", "openvino", "unknown"]
    conv: Literal["exact", "fbgemm", "onednn", "onnxruntime", "openvino", "unknown"]
    conv_otherwise: Literal["exact", "fbgemm", "onednn", "onnxruntime", "openvino", "unknown"]

    @classmethod
    def by(cls, rule):
        """One rule for everything."""
        return cls(linear=rule, conv=rule, conv_otherwise=rule)
