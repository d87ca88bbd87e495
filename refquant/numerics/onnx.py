"""ONNX: the specification, its reference implementation, and ONNX Runtime's CPU provider."""

from refquant.numerics.add_forms import AddForm, FoldedAddForm
from refquant.numerics.forms import CatForm, DequantizeForm, Pairing, PoolForm, ProductForm, QuantizeForm, RealForm, UnaryForm
from refquant.numerics.profile import Numerics
from refquant.numerics.special_forms import CodeBilinearForm, DynamicForm, RealsForm, RequantizeForm, SoftmaxForm, SummedPoolForm

__all__ = ["ONNX", "ONNX_REFERENCE", "ONNXRUNTIME"]

# QuantizeLinear: true division, rounding before the zero point. NaN is left open by the text; ONNX Runtime's answer is taken.
_QUANTIZE = QuantizeForm(scaling="divide", zero_point="after", rounding="half_even", overflow="saturate", nan="qmin")

# mlas MlasRequantizeOutput: one float32 multiplier a channel, int32 bias in the accumulator.
_ORT_PRODUCT = ProductForm(
    accumulator="exact", arithmetic="float32", multiplier="(xw)/y", x_scale="direct", w_scale="direct", y_scale="direct",
    bias="int32", zero_point="after", rounding="half_even", overflow="saturate", relu="code",
)  # fmt: skip

# QLinearMatMul as DequantizeLinear, MatMul, QuantizeLinear: the text's own expansion, each step once in float32.
_SPEC_PRODUCT = _ORT_PRODUCT.replace(multiplier="(xw),/y", relu="real")

_BY_REALS = AddForm(
    dequantize="sub_mul", tail_dequantize="sub_mul", scaling="divide", zero_point="after", tail_zero_point="after",
    rounding="half_even", vector=0, grain=0,
)  # fmt: skip
_LOOKUP = UnaryForm(style="lookup", vector=0, grain=0)

ONNX = Numerics(
    name="onnx",
    engine="the ONNX specification (opset 28), each operator as its DequantizeLinear/QuantizeLinear expansion",
    source="onnx docs/Operators.md: QuantizeLinear, DequantizeLinear, QLinearMatMul, QLinearConv",
    pairing=Pairing.by("exact"),
    quantize=_QUANTIZE,
    quantize_channel=_QUANTIZE,
    quantize_int32=None,
    fake_quantize=_QUANTIZE,
    fake_quantize_channel=_QUANTIZE,
    dequantize=DequantizeForm(formula="sub_mul"),
    dequantize_channel=DequantizeForm(formula="sub_mul"),
    linear=_SPEC_PRODUCT,
    linear_real=RealForm(multiplier="(xw)", x_scale="direct", w_scale="direct", bias="add"),
    conv=_SPEC_PRODUCT,
    conv_real=RealForm(multiplier="(xw)", x_scale="direct", w_scale="direct", bias="int32"),
    conv_transpose=None,
    post=None,
    add=_BY_REALS,
    mul=_BY_REALS,
    unary=_LOOKUP,
    avg_pool=PoolForm(contiguous="spec", channels_last="spec", vector=0, rounding="half_even"),
    adaptive_avg_pool=PoolForm(contiguous="spec", channels_last="spec", vector=0, rounding="half_even"),
    cat=CatForm(contiguous="quantize", channels_last="quantize", copy_equal=False, vector=0),
    dynamic=DynamicForm(parameters="specification", reduced="refused", linear_input="quantize"),
    requantize=RequantizeForm(body="reals", tail="reals", vector=0),
    clamp=_QUANTIZE,
    **dict.fromkeys(("prelu", "mean", "bilinear", "avg_pool3d", "adaptive_avg_pool3d"), RealsForm(order="float64")),
    softmax=SoftmaxForm(style="float64", vector=0),
)

ONNXRUNTIME = Numerics(
    name="onnxruntime",
    engine="ONNX Runtime 1.31/1.32 CPU, x86-64 with AVX512-VNNI",
    source="onnxruntime/core/mlas/lib (quantize.cpp, qladd_avx2.cpp, qlgavgpool.cpp), core/providers/cpu/quantization, contrib_ops/cpu/quantization",
    pairing=Pairing.by("onnxruntime"),
    quantize=_QUANTIZE,
    quantize_channel=_QUANTIZE,
    quantize_int32=None,
    fake_quantize=_QUANTIZE,
    fake_quantize_channel=_QUANTIZE,
    dequantize=DequantizeForm(formula="sub_mul"),
    dequantize_channel=DequantizeForm(formula="sub_mul"),
    linear=_ORT_PRODUCT,
    linear_real=RealForm(multiplier="(xw)", x_scale="direct", w_scale="direct", bias="add"),
    conv=_ORT_PRODUCT,
    conv_real=None,
    conv_transpose=None,
    post=None,
    add=FoldedAddForm(contraction="fma", lone="swapped", rounding="half_even", overflow="indefinite"),
    # qlmul.cpp: whatever leaves int32 becomes its smallest number, and the smallest code.
    mul=_ORT_PRODUCT.replace(zero_point="before", overflow="indefinite"),
    unary=_LOOKUP.replace(style="onnxruntime"),
    avg_pool=PoolForm(contiguous="sequential", channels_last="sequential", vector=0, rounding="half_even"),
    adaptive_avg_pool=PoolForm(contiguous="global", channels_last="global", vector=0, rounding="half_even"),
    cat=CatForm(contiguous="quantize", channels_last="quantize", copy_equal=False, vector=0),
    dynamic=DynamicForm(parameters="runtime", reduced="refused", linear_input="quantize"),
    requantize=RequantizeForm(body="reals", tail="reals", vector=0),
    clamp=_QUANTIZE,
    # Float kernels between DequantizeLinear and QuantizeLinear, which do not fuse.
    **dict.fromkeys(("prelu", "mean"), RealsForm(order="runtime")),
    # QLinearSoftmax, QLinearAveragePool, QLinearGlobalAveragePool of com.microsoft.
    softmax=SoftmaxForm(style="mlas", vector=0),
    **dict.fromkeys(("avg_pool3d", "adaptive_avg_pool3d"), SummedPoolForm(rounding="half_even")),
    # Resize on codes, for which DequantizeLinear and QuantizeLinear around it are dropped.
    bilinear=CodeBilinearForm(style="truncated"),
)

# op_qlinear_matmul.py: int32 times a float32 multiplier promotes to float64 in NumPy, and the zero point is added before rounding.
_REFERENCE_PRODUCT = _ORT_PRODUCT.replace(arithmetic="float64", zero_point="before")

ONNX_REFERENCE = ONNX.replace(
    name="onnx_reference",
    engine="onnx.reference.ReferenceEvaluator of onnx 1.23",
    source="onnx/reference/ops: op_quantize_linear.py, op_qlinear_matmul.py, op_qlinear_conv.py, op_average_pool.py, op_reduce_mean.py",
    linear=_REFERENCE_PRODUCT,
    conv=_REFERENCE_PRODUCT,
    **dict.fromkeys(("mean", "avg_pool", "adaptive_avg_pool", "avg_pool3d", "adaptive_avg_pool3d"), RealsForm(order="numpy")),
)
