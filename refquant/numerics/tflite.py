"""TensorFlow Lite's INT8 kernels: the three resolvers of LiteRT, which are three numerics."""

from refquant.numerics.fixed_forms import CodeFunctionForm, FixedMeanForm, MultiplierForm, FixedUnaryForm
from refquant.numerics.add_forms import FixedAddForm, GemmlowpAddForm
from refquant.numerics.forms import CatForm, DequantizeForm, Pairing, PoolForm, ProductForm, QuantizeForm, TransposedForm, VectorDequantizeForm
from refquant.numerics.profile import Dispatch, Numerics
from refquant.numerics.special_forms import CodeBilinearForm, RequantizeForm, RowDynamicForm, SoftmaxForm
from refquant.numerics.tail_forms import DepthwiseTailForm, FlushedQuantizeForm, NarrowProductForm, TransposedTailForm, VectorQuantizeForm

__all__ = ["TFLITE_REF", "TFLITE_OPT", "XNNPACK"]

# quantization_util.cc QuantizeMultiplier, common.cc MultiplyByQuantizedMultiplier: the multiplier is an integer of 31 bits.
_FIXED = ProductForm(
    accumulator="exact", arithmetic="fixed_gemmlowp", multiplier="double", x_scale="direct", w_scale="direct", y_scale="direct",
    bias="int32", zero_point="after", rounding="half_away", overflow="saturate", relu="code",
)  # fmt: skip
# batch_matmul.cc: GetQuantizedConvolutionMultipler, the product of the scales in float32.
_MATMUL = _FIXED.replace(multiplier="f64(xw)/y")
# mul.cc: the multiplier is computed in float32 before it becomes an integer.
_MUL = _FIXED.replace(multiplier="(xw)/y")
# XNNPACK requantization.h, the float32 form that its x86 kernels use.
_XNN = _FIXED.replace(arithmetic="float32", multiplier="(xw)/y", rounding="half_even")

# Both add an int32 zero point after the conversion, which may wrap.
_QUANTIZE = QuantizeForm(scaling="divide", zero_point="after", rounding="half_away", overflow="indefinite", nan="overflow")
_QUANTIZE_OPT = _QUANTIZE.replace(scaling="reciprocal", rounding="half_even")
# LiteRT runs its delegate with denormals as zero.
_QUANTIZE_XNN = FlushedQuantizeForm(scaling="reciprocal", zero_point="after", rounding="half_even", overflow="saturate", nan="qmax")
# quantize.cc, Requantize; XNNPACK src/qs8-vcvt.
_REQUANTIZE = RequantizeForm(body="gemmlowp", tail="gemmlowp", vector=0)
_POOL = PoolForm(contiguous="raw_integer", channels_last="raw_integer", vector=0, rounding="half_away")

_UNARY = FixedUnaryForm(sigmoid="half_away", elu="half_away", gelu="half_away", zero_point="after", logistic="float32", leaky_relu="gemmlowp")


def _mean(formula):
    return PoolForm(contiguous=formula, channels_last=formula, vector=0, rounding="half_even")


_SHARED = dict(
    fake_quantize=None,
    fake_quantize_channel=None,
    linear_real=None,
    conv_real=None,
    post=None,
    avg_pool=_POOL,
    cat=CatForm(contiguous="copy", channels_last="quantize", copy_equal=True, vector=0),
    pairing=Pairing.by("exact"),
    # activations.cc, Relu6 and its kin: kernel_util.cc's limits, in every resolver.
    clamp=_QUANTIZE,
    # activations.cc, PreluPrepare; the reference kernel in every resolver.
    prelu=MultiplierForm(multiply="gemmlowp"),
    # exp.cc and elementwise.cc, in every resolver.
    function=CodeFunctionForm(table="half_away", sqrt="truncate"),
    # squared_difference.cc, in every resolver.
    squared_difference=MultiplierForm(multiply="gemmlowp"),
)
_SUM = GemmlowpAddForm(body="gemmlowp", vector=0)
_SUM_XNN = FixedAddForm(bits=20, rounding="half_up")
_LOOKUP = SoftmaxForm(style="lookup", vector=0)

# optimized_ops.h, AffineQuantize: eight numbers a step by NEON_2_SSE, the rest in double.
_QUANTIZE_OPT_TENSOR = VectorQuantizeForm(
    scaling="reciprocal", zero_point="after", rounding="half_even", overflow="indefinite", nan="overflow", tail="float64", vector=8,
)  # fmt: skip
# optimized/integer_ops/mul.h: vmovn_s32 and vaddq_s16, sixteen numbers a step.
_MUL_OPT = NarrowProductForm(
    accumulator="exact", arithmetic="fixed_gemmlowp", multiplier="(xw)/y", x_scale="direct", w_scale="direct", y_scale="direct",
    bias="int32", zero_point="after", rounding="half_away", overflow="saturate", relu="code", narrow="int16", vector=16,
)  # fmt: skip

# optimized/integer_ops/depthwise_conv.h, DownScaleInt32ToInt8: eight channels a step.
_CONV_OPT = DepthwiseTailForm(
    accumulator="exact", arithmetic="fixed_half_up", multiplier="double", x_scale="direct", w_scale="direct", y_scale="direct",
    bias="int32", zero_point="after", rounding="half_away", overflow="saturate", relu="code", tail="fixed_gemmlowp", vector=8,
)  # fmt: skip

# optimized/integer_ops/transpose_conv.h, then optimized_ops.h, Quantize: eight channels a step.
_TRANSPOSED_OPT = TransposedTailForm(
    accumulator="exact", arithmetic="fixed_half_up", multiplier="double", x_scale="direct", w_scale="direct", y_scale="direct",
    bias="int32", zero_point="after", rounding="half_away", overflow="saturate", relu="code", tail="fixed_gemmlowp", vector=8,
)  # fmt: skip

TFLITE_REF = Numerics(
    name="tflite_ref",
    engine="LiteRT 2.3.0 with BUILTIN_REF, int8",
    source="tensorflow/lite/kernels/internal/reference (integer_ops), quantization_util.cc, gemmlowp fixedpoint.h",
    quantize=_QUANTIZE,
    quantize_channel=_QUANTIZE,
    quantize_int32=None,
    dequantize=DequantizeForm(formula="sub_mul"),
    dequantize_channel=DequantizeForm(formula="sub_mul"),
    linear=_FIXED.replace(arithmetic="float64"),
    matmul=_MATMUL,
    conv=_FIXED,
    requantize=_REQUANTIZE,
    add=_SUM,
    sub=_SUM,
    mul=_MUL,
    unary=_UNARY,
    adaptive_avg_pool=_mean("mean_centred"),
    conv_transpose=TransposedForm.like(_FIXED),
    softmax=SoftmaxForm(style="gemmlowp", vector=0),
    mean=FixedMeanForm(general="centred", images="centred", vector=0),
    bilinear=CodeBilinearForm(style="ten_bits"),
    dynamic=RowDynamicForm(style="tensor_utils"),
    **_SHARED,
)

TFLITE_OPT = Numerics(
    name="tflite_opt",
    engine="LiteRT 2.3.0 with BUILTIN_WITHOUT_DEFAULT_DELEGATES, int8, x86-64 with AVX2 or AVX512",
    source="tensorflow/lite/kernels/internal/optimized (integer_ops), ruy kernel_avx512.cc, NEON_2_SSE",
    quantize=_QUANTIZE_OPT_TENSOR,
    quantize_channel=_QUANTIZE_OPT,
    quantize_int32=None,
    dequantize=VectorDequantizeForm(formula="mul_add", tail="sub_mul", vector=8),
    dequantize_channel=DequantizeForm(formula="mul_add"),
    linear=_FIXED.replace(arithmetic="fixed_half_up", multiplier="f64(xw)/y, double"),
    # batch_matmul.cc: on x86 the optimized kernel has no more for two tensors of codes than the reference.
    matmul=_MATMUL,
    conv=_CONV_OPT,
    requantize=_REQUANTIZE.replace(body="half_up", vector=16),
    add=GemmlowpAddForm(body="neon", vector=16),
    # sub.cc: the reference sum, its second multiplier negated.
    sub=_SUM,
    mul=_MUL_OPT,
    unary=_UNARY,
    adaptive_avg_pool=_mean("mean_raw").replace(vector=16),
    conv_transpose=_TRANSPOSED_OPT,
    softmax=_LOOKUP,
    mean=FixedMeanForm(general="centred", images="raw", vector=16),
    bilinear=CodeBilinearForm(style="ten_bits"),
    dynamic=RowDynamicForm(style="tensor_utils"),
    **_SHARED,
)

XNNPACK = Numerics(
    name="xnnpack",
    engine="XNNPACK as LiteRT 2.3.0 delegates to it by default, qs8, x86-64",
    source="XNNPACK src/xnnpack/requantization.h, src/microparams-init.c, src/qs8-vadd",
    quantize=_QUANTIZE_XNN,
    quantize_channel=_QUANTIZE_XNN,
    quantize_int32=None,
    dequantize=DequantizeForm(formula="sub_mul"),
    dequantize_channel=DequantizeForm(formula="sub_mul"),
    linear=_XNN,
    # What the delegate leaves goes to the kernel of the other resolvers.
    matmul=Dispatch(rule="symmetric", vnni=False, yes=_XNN, no=_MATMUL),
    conv=_XNN,
    requantize=_REQUANTIZE.replace(body="byte", tail="byte"),
    add=_SUM_XNN,
    sub=_SUM_XNN,
    mul=_XNN,
    unary=_UNARY.replace(sigmoid="half_even", elu="half_even", zero_point="before", logistic="float64", leaky_relu="eighths"),
    adaptive_avg_pool=_mean("mean_float"),
    conv_transpose=TransposedForm.like(_XNN),
    softmax=_LOOKUP,
    mean=FixedMeanForm(general="float", images="float", vector=0),
    bilinear=CodeBilinearForm(style="eleven_bits"),
    dynamic=RowDynamicForm(style="xnnpack"),
    **_SHARED,
)
