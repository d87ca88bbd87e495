"""The forms of operators that few engines have."""

from typing import Literal

from refquant.core.rounding import Round
from refquant.numerics.forms import Form
from refquant.numerics.record import record

__all__ = ["RealsForm", "DynamicForm", "RowDynamicForm", "RequantizeForm", "ScalarForm", "BatchNormForm", "NormForm", "MeanForm", "SoftmaxForm", "BilinearForm", "CodeBilinearForm", "BoxPoolForm", "SummedPoolForm", "EmbeddingForm"]


@record
class RealsForm(Form):
    """By way of real numbers: dequantize, compute in float32, quantize, by the profile's own forms. What has no sum has no order.

    Attributes
    ----------
    order
        Of sums: ``aten``: as ATen's float kernels add on one thread, on a CPU with AVX2 or AVX-512; ``runtime``: as ONNX Runtime's do;
        ``numpy``: as NumPy's mean does, in pairs; ``float64``: in float64, the result rounded once.
    """

    order: Literal["aten", "runtime", "numpy", "float64"]


@record
class DynamicForm(Form):
    """Dynamic quantization: parameters from the data at hand.

    Attributes
    ----------
    parameters
        ``aten``: ``ChooseQuantizationParams``, in double, see `refquant.core.choose_qparams.choose_qparams`;
        ``decomposed``: ``quantized_decomposed.choose_qparams.tensor``, in float32;
        ``specification``: ONNX's DynamicQuantizeLinear, s = f((hi − lo) / 255), z = round(clip(f(−lo / s))), s = f(1/255) for zeros alone;
        ``runtime``: the same, s = 1 for zeros alone; ``span``: s = f((hi − lo) · f(1/255)), z = round(clip(f(−lo · f(1 / s)))), and the codes are
        round(f(f(x · 255) · f(1 / (hi − lo)))) + z, not by the scale.
    reduced
        What ``reduce_range`` does: the codes are ``halved``, or it is ``ignored`` or ``refused``.
    linear_input
        How a dynamically quantized linear layer quantizes its input: ``quantize``, as the profile's form says;
        ``reciprocals``: round(f(x · f(1 / f(1 / f(1 / s)))) + z), as oneDNN's reorder does.
    """

    parameters: Literal["aten", "decomposed", "specification", "runtime", "span"]
    reduced: Literal["halved", "ignored", "refused"]
    linear_input: Literal["quantize", "reciprocals"]


@record
class RowDynamicForm(Form):
    """Dynamic quantization inside of a linear layer, each row to int8 with parameters of its own, see `refquant.ops.row_dynamic`.

    Attributes
    ----------
    style
        ``tensor_utils``: TensorFlow Lite's hybrid kernels: with a zero point or symmetric, half away, the scales multiplied first; ``xnnpack``: with a
        zero point, half to even, scaled by the row and then by the channel.
    """

    style: Literal["tensor_utils", "xnnpack"]


@record
class RequantizeForm(Form):
    """From codes to codes of another scale, ``(q − z) · sx / sy + z'``.

    Attributes
    ----------
    body, tail
        Of whole steps of elements, in memory order, and of the rest. ``reals``: by way of the profile's dequantize and quantize forms; ``gemmlowp``: a multiplier of 31 bits, two roundings half away;
        ``half_up``: the same, half up each; ``byte``: ((q − z) · round(256 · f(sx / sy)) + 128) >> 8.
    vector
        Elements of a step. 0: all is body.
    """

    body: Literal["reals", "gemmlowp", "half_up", "byte"]
    tail: Literal["reals", "gemmlowp", "half_up", "byte"]
    vector: int


@record
class ScalarForm(Form):
    """Sum of a tensor and a number whose codes do not fit: ``round((q − z + c) · m) + z'``.

    Attributes
    ----------
    multiplier
        ``x*(1/y)``: m = f(f(s) · f(1 / f(s'))); ``x/y``: m = f(f(s) / f(s')).
    rounding
    """

    multiplier: Literal["x*(1/y)", "x/y"]
    rounding: Round


@record
class BatchNormForm(Form):
    """Batch normalization as one line a channel: ``round(alpha · (q − z) + beta) + z'``.

    Attributes
    ----------
    contraction
        ``fma``: product and sum rounded once; ``none``: twice.
    rounding
    """

    contraction: Literal["fma", "none"]
    rounding: Round


@record
class NormForm(Form):
    """Layer, group and instance normalization; t = ((q − z) − mean) · gain, v = t · gamma + beta, q' from v.

    Attributes
    ----------
    variance
        ``fma``: max(fma(−m, m, f(sum q²) / n), 0) with m = f(sum q) / n; ``none``: the product rounded before.
    contraction
        Of v in whole steps: ``fma`` or ``none``.
    tail_contraction
        Of v in the elements that fill no step, where the zero point is added before rounding.
    vector
        Elements of a step.
    """

    variance: Literal["fma", "none"]
    contraction: Literal["fma", "none"]
    tail_contraction: Literal["fma", "none"]
    vector: int


@record
class MeanForm(Form):
    """Mean over axes; over others than the last codes are dequantized, summed as ATen sums float32, divided and quantized.

    Attributes
    ----------
    inner
        Over the last axes of a contiguous tensor: ``raw``: round(f(sum q) / f(n)), zero points left in;
        ``centred``: round(f(sum q − n·z) / f(n)) + z.
    images
        Over the two axes of images of uint8: ``inner``, as above; ``global``: clip(round(A · f(s / f(s·n))) + z), A = sum(q − z), where the axes
        are called (2, 3), as above where they are called otherwise, such as (-2, -1).
    """

    inner: Literal["raw", "centred"]
    images: Literal["inner", "global"]


@record
class SoftmaxForm(Form):
    """Softmax.

    Attributes
    ----------
    style
        ``real``: dequantize, softmax in float32, quantize; ``table``: where the output is uint8 with scale 1/256 and zero point 0,
        integer exponentials of 23 bits from a table and one integer division, else ``real``; ``raw_table``: the same, but where neighbours along the
        axis lie side by side, rows are read one after the other from memory, whatever the other strides are; ``float64``: dequantize, softmax in float64 rounded once
        to float32, quantize; ``mlas``: exponentials from a table, summed in order in float32, one product with floor(1 / sy) and one quotient in
        float64; TensorFlow Lite's, of int8 into (1/256, −128): ``gemmlowp``: in integers alone, ``lookup``: exponentials from a table, summed in
        order in float32, one product with the inverse of sum and scale.
    vector
        Float32 lanes of the sum over an axis that lies densest, of ``real``, ``table`` and ``raw_table``.
    """

    style: Literal["real", "table", "raw_table", "float64", "mlas", "gemmlowp", "lookup"]
    vector: int


@record
class BilinearForm(Form):
    """Bilinear interpolation of codes, ``h0·(w0·a + w1·b) + h1·(w0·c + w1·d) − z``, rounded to a code with z added before.

    Attributes
    ----------
    contiguous, body, tail
        Of contiguous tensors; of channels-last ones in whole steps of channels, and in the rest. ``none``: every step rounded; ``first``,
        ``second``: of two products one is rounded and the other, the first or the second, fused into the sum.
    index
        Where the points of channels-last tensors lie, ``ratio · (i + ½) − ½``: rounded twice (``none``) or once (``fma``). Of contiguous ones twice.
    vector
        Channels of a step.
    """

    contiguous: Literal["none", "first", "second"]
    body: Literal["none", "first", "second"]
    tail: Literal["none", "first", "second"]
    index: Literal["none", "fma"]
    vector: int


@record
class CodeBilinearForm(Form):
    """Bilinear interpolation of codes alone, without their parameters.

    Attributes
    ----------
    style
        ``ten_bits``: weights of 10 bits, half away; ``eleven_bits``: weights of 11 bits, half up; ``truncated``: float32, whatever is
        behind the point cut off, and source positions that are quotients, also of the nearest point.
    """

    style: Literal["ten_bits", "eleven_bits", "truncated"]


@record
class BoxPoolForm(Form):
    """Average over boxes into the parameters of the input; A = sum(q − z), n the number that is divided by.

    Attributes
    ----------
    body
        Of whole steps of channels, ``product``: round(A · f(1/n)) + z; ``fused``: round(fma(A, m, z)), m = f(1 / f(1 / f(1/n))).
        The rest: round(f(A · m) + z).
    vector
        Channels of a step.
    rounding
    """

    body: Literal["product", "fused"]
    vector: int
    rounding: Round


@record
class SummedPoolForm(Form):
    """Average over boxes of dequantized numbers, added one after the other in float32: ``round(total / n / s + z)``, z inside of the rounding.

    Over a whole volume it is an exact sum and one factor, ``round(A · f(s / f(s·n))) + z``; where padding counts, n is the whole kernel's volume.

    Attributes
    ----------
    rounding
    """

    rounding: Round


@record
class EmbeddingForm(Form):
    """Sums of rows that are quantized with a scale and bias of their own.

    Attributes
    ----------
    order
        ``bias_first``: acc = fma(s, q, acc + b); ``row_first``: acc = acc + fma(s, q, b).
    """

    order: Literal["bias_first", "row_first"]
