"""OpenVINO's CPU plugin on models of QuantizeLinear and DequantizeLinear: every output is a FakeQuantize."""

from refquant.numerics.forms import DequantizeForm, Pairing
from refquant.numerics.profile import Dispatch, Numerics
from refquant.numerics.special_forms import DynamicForm
from refquant.numerics.range_forms import RangeForm, RangeProductForm, RangeSoftmaxForm

__all__ = ["OPENVINO"]

# snippets/src/pass/fq_decomposition.cpp: behind elementwise operators.
_RANGE = RangeForm(shift="product", contraction="none", reduced=True)
# intel_cpu/src/nodes/fake_quantize.cpp and the quantization post-op of its oneDNN: behind pools and reductions.
_POOL = RangeForm(shift="quotient", contraction="fma", reduced=False)
# intel_cpu/src/dnnl_postops_composer.cpp; low_precision_transformations/src: convolution.cpp, mat_mul.cpp.
_CONV = RangeProductForm(zero_point="sum", bias="sum", contraction="fma", plain="multiply", drift=True, float_sums="signed")
_LINEAR = _CONV.replace(zero_point="range", bias="shift", float_sums="none")
_TRANSPOSED = _CONV.replace(float_sums="none")
# oneDNN's src/cpu/ref_deconvolution.cpp by gemm_x8s8s32x, whose post-operations are the reference's.
_TRANSPOSED_MATRIX = _TRANSPOSED.replace(contraction="none", plain="divide")

OPENVINO = Numerics(
    name="openvino",
    engine="OpenVINO 2026.4 CPU, INFERENCE_PRECISION_HINT=f32, x86-64 with AVX512-VNNI",
    source="openvino/src/common (low_precision_transformations, snippets), src/plugins/intel_cpu/src (graph_optimizer.cpp, dnnl_postops_composer.cpp)",
    pairing=Pairing.by("openvino"),
    quantize=_RANGE,
    quantize_channel=_RANGE,
    quantize_int32=None,
    fake_quantize=_RANGE.replace(reduced=False),
    fake_quantize_channel=_RANGE.replace(reduced=False),
    requantize=_RANGE,
    dequantize=DequantizeForm(formula="fma"),
    dequantize_channel=DequantizeForm(formula="fma"),
    linear=_LINEAR,
    matmul=_LINEAR,
    linear_real=None,
    conv=_CONV,
    conv_real=None,
    conv_transpose=_TRANSPOSED,
    post=None,
    add=_RANGE,
    mul=_RANGE,
    unary=_RANGE,
    avg_pool=_POOL,
    adaptive_avg_pool=_POOL,
    cat=_RANGE,
    clamp=_RANGE,
    prelu=_RANGE,
    # oneDNN's jit_uni_softmax.cpp, whose vectors have 16 lanes with AVX-512.
    softmax=RangeSoftmaxForm(shift="product", contraction="none", reduced=True, vector=16),
    by_level=(
        (("avx2", "avx_vnni", "avx_vnni_int8"), {"softmax": {"vector": 8}}),
        (("avx2",), {"conv_transpose": Dispatch(rule="onednn_transposed", vnni=False, yes=_TRANSPOSED_MATRIX, no=_TRANSPOSED)}),
    ),
    dynamic=DynamicForm(parameters="span", reduced="refused", linear_input="quantize"),
    mean=_POOL,
    bilinear=_POOL,
    avg_pool3d=_POOL,
    adaptive_avg_pool3d=_POOL,
)
