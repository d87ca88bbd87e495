"""PyTorch's quantized engines on x86: what ATen does for all of them, then fbgemm, onednn, x86, qnnpack; and PT2E with Inductor."""

from refquant.numerics.add_forms import AddForm, FixedAddForm
from refquant.numerics.forms import CatForm, DequantizeForm, Pairing, PoolForm, PostForm, ProductForm, QuantizeForm, RealForm, SignedProductForm, TransposedForm, UnaryForm
from refquant.numerics.profile import Dispatch, Numerics
from refquant.numerics.special_forms import BatchNormForm, BilinearForm, BoxPoolForm, DynamicForm, EmbeddingForm, MeanForm, NormForm, RealsForm, RequantizeForm, ScalarForm, SoftmaxForm

__all__ = ["FBGEMM", "ONEDNN", "X86", "QNNPACK", "INDUCTOR"]

# AffineQuantizerBase.cpp calls fbgemm::Quantize, whose vector and scalar code both add the zero point before rounding (since 2.13).
_QUANTIZE = QuantizeForm(scaling="reciprocal", zero_point="fma", rounding="half_even", overflow="saturate", nan="qmax")
# QuantizedOpKernels.cpp, quantize_tensor_per_channel_affine_cpu: product and sum rounded apart.
_QUANTIZE_CHANNEL = QuantizeForm(scaling="reciprocal", zero_point="before", rounding="half_even", overflow="saturate", nan="indefinite")
# fake_quant_per_tensor_affine: rounds first.
_FAKE_QUANTIZE = QuantizeForm(scaling="reciprocal", zero_point="after", rounding="half_even", overflow="saturate", nan="qmin")
# fake_quant_per_channel_affine converts to int64 before it clamps.
_FAKE_QUANTIZE_CHANNEL = _FAKE_QUANTIZE.replace(overflow="int64")
# dequantize_tensor_per_channel_affine_cpu multiplies a float by the double scale.
_DEQUANTIZE_CHANNEL = DequantizeForm(formula="sub_mul64")
# QuantizedOpKernels.cpp, qadd_kernel, compiled for AVX2 also where AVX512 is there: 64 codes a step, at::parallel_for grain 32768.
_ADD = AddForm(
    dequantize="fma", tail_dequantize="sub_mul", scaling="reciprocal", zero_point="after", tail_zero_point="before",
    rounding="half_even", vector=64, grain=32768,
)  # fmt: skip
# QuantizedOpKernels.cpp, qmul_kernel: one product of scales, in the vector body and in the tail.
_MUL = ProductForm(
    accumulator="exact", arithmetic="float32", multiplier="(xw)*(1/y)", x_scale="direct", w_scale="direct", y_scale="direct",
    bias="int32", zero_point="after", rounding="half_even", overflow="indefinite", relu="code",
)  # fmt: skip
_UNARY = UnaryForm(style="aten", vector=64, grain=32768)
# QuantizedOpKernels.cpp: _qavg_pool_nhwc_kernel (16 channels a step with AVX512) and AveragePool2d.cpp for contiguous tensors.
_AVG_POOL = PoolForm(contiguous="scaled", channels_last="vector", vector=16, rounding="half_even")
# AdaptiveAveragePooling.cpp and qadaptive_avg_pool2d_nhwc_kernel.
_ADAPTIVE = PoolForm(contiguous="raw_mean", channels_last="adaptive_vector", vector=8, rounding="half_even")
# TensorShape.cpp, qcat_nhwc_kernel.
_CAT = CatForm(contiguous="quantize", channels_last="vector", copy_equal=True, vector=8)

# QuantUtils.h, ChooseQuantizationParams.
_DYNAMIC = DynamicForm(parameters="aten", reduced="halved", linear_input="quantize")

# What is written for all engines of ATen at once.
_SPECIAL = dict(
    dynamic=_DYNAMIC,
    requantize=RequantizeForm(body="reals", tail="reals", vector=0),
    # qclamp_kernel takes each limit through quantize_val.
    clamp=_QUANTIZE_CHANNEL,
    # qadd.cpp, _add_scalar_out; qadd_scalar_kernel.
    scalar=ScalarForm(multiplier="x*(1/y)", rounding="half_even"),
    # qprelu_out_kernel.
    prelu=_MUL,
    # qbatch_norm.cpp, compute_fused_params; q_batch_norm_kernel.
    batch_norm=BatchNormForm(contraction="fma", rounding="half_even"),
    # quantized_normalize_kernel, compiled for AVX2.
    layer_norm=NormForm(variance="fma", contraction="fma", tail_contraction="fma", vector=32),
    group_norm=NormForm(variance="fma", contraction="fma", tail_contraction="fma", vector=32),
    # qmean_inner_dim_kernel.
    mean=MeanForm(inner="raw", images="inner"),
    # qsoftmax.cpp, qsoftmax_naive; vec_host_softmax_lastdim.
    softmax=SoftmaxForm(style="real", vector=16),
    # UpSampleBilinear2d.cpp and qupsample_bilinear2d_nhwc_kernel.
    bilinear=BilinearForm(contiguous="none", body="second", tail="first", index="fma", vector=8),
    # _qavg_pool_nhwc_kernel takes 16 channels a step with AVX512, _qadaptive_avg_pool_kernel 8.
    avg_pool3d=BoxPoolForm(body="product", vector=16, rounding="half_even"),
    adaptive_avg_pool3d=BoxPoolForm(body="fused", vector=8, rounding="half_even"),
    # fbgemm/src/EmbeddingSpMDM.cc, GenerateEmbeddingSpMDM.
    embedding=EmbeddingForm(order="bias_first"),
)

# ATen's AVX2 build takes 8 channels a step where that for AVX512 takes 16.
_ATEN_LEVELS = ((("avx2", "avx_vnni", "avx_vnni_int8"), {name: {"vector": 8} for name in ("avg_pool", "avg_pool3d", "softmax")}),)

_SHARED = dict(
    **_SPECIAL,
    by_level=_ATEN_LEVELS,
    quantize=_QUANTIZE,
    quantize_channel=_QUANTIZE_CHANNEL,
    quantize_int32=_QUANTIZE_CHANNEL,
    fake_quantize=_FAKE_QUANTIZE,
    fake_quantize_channel=_FAKE_QUANTIZE_CHANNEL,
    dequantize=DequantizeForm(formula="sub_mul"),
    dequantize_channel=_DEQUANTIZE_CHANNEL,
    add=_ADD,
    mul=_MUL,
    unary=_UNARY,
    avg_pool=_AVG_POOL,
    adaptive_avg_pool=_ADAPTIVE,
    cat=_CAT,
    conv_real=None,
    post=None,
)

# fbgemm/src/QuantUtilsAvx2.cc, requantizeOutputProcessingAvx2.
_FBGEMM_PRODUCT = ProductForm(
    accumulator="fbgemm_depthwise", arithmetic="float32", multiplier="(xw)/y", x_scale="direct", w_scale="direct", y_scale="direct",
    bias="before", zero_point="after", rounding="half_even", overflow="indefinite", relu="code",
)  # fmt: skip

# ideep attributes and oneDNN jit_brgemm_kernel.cpp: runtime scales reach the kernel as reciprocals of reciprocals.
_ONEDNN_LINEAR = ProductForm(
    accumulator="exact", arithmetic="float32", multiplier="x,w,1/y", x_scale="reciprocals", w_scale="reciprocals", y_scale="reciprocals",
    bias="after", zero_point="before", rounding="half_even", overflow="saturate", relu="real",
)  # fmt: skip
_ONEDNN_CONV = _ONEDNN_LINEAR.replace(w_scale="direct")

# ref_matmul_int8.cpp, which int8 activations end in, divides by the output's scale; post-operations by ref_io_helper.hpp and math_utils.hpp.
_ONEDNN_SIGNED = SignedProductForm.like(_ONEDNN_LINEAR.replace(multiplier="x,w,/y", post="reference"))


# Kernels older than brgemm multiply both scales first, in one vector; the reference kernel divides at the end.
_ONEDNN_OLDER_CONV = _ONEDNN_CONV.replace(multiplier="(xw),1/y")
_ONEDNN_LEVELS = (
    # gemm_x8s8s32x_matmul.cpp, jit_uni_x8s8s32x_conv_kernel.cpp, ref_convolution_int8.cpp
    (("sse41", "avx2"), {
        "linear": {"multiplier": "(xw),1/y"},
        # With a zero point: ref_gemm_s8x8s32.cpp.
        "linear_int8": SignedProductForm.like(_ONEDNN_LINEAR.replace(multiplier="(xw),1/y"), "converted"),
        "linear_real": {"multiplier": "(xw)"},
        "conv": Dispatch(rule="onednn_reference", vnni=False, yes=_ONEDNN_CONV.replace(multiplier="x,w,/y", post="reference"), no=_ONEDNN_OLDER_CONV),
        # ref_deconvolution.cpp, jit_uni_x8s8s32x_deconvolution.cpp
        "conv_transpose": Dispatch(rule="onednn_transposed", vnni=False, yes=TransposedForm.like(_ONEDNN_CONV.replace(multiplier="x,w,/y")), no=TransposedForm.like(_ONEDNN_OLDER_CONV)),
    }),
    (("avx_vnni", "avx_vnni_int8"), {"conv": Dispatch(rule="onednn_groups", vnni=False, yes=_ONEDNN_OLDER_CONV, no=_ONEDNN_CONV)}),
    # jit_avx512_core_x8s8s32x_conv_kernel.cpp
    (("avx512", "avx512_vbmi"), {"conv": Dispatch(rule="onednn_volume", vnni=False, yes=_ONEDNN_OLDER_CONV, no=_ONEDNN_CONV)}),
)  # fmt: skip

FBGEMM = Numerics(
    name="fbgemm",
    engine="FBGEMM as bundled with PyTorch 2.13.0, x86-64",
    source="aten/src/ATen/native/quantized/cpu (qlinear.cpp, qconv.cpp), fbgemm QuantUtilsAvx2.cc, OutputProcessing-inl.h",
    pairing=Pairing.by("fbgemm"),
    linear=_FBGEMM_PRODUCT.replace(accumulator="exact"),
    linear_real=RealForm(multiplier="(xw)", x_scale="direct", w_scale="direct", bias="fma"),
    conv=_FBGEMM_PRODUCT,
    # FbgemmI8DirectconvAvx2.cc: vpmaddubsw on every processor.
    conv_transpose=TransposedForm.like(_FBGEMM_PRODUCT, "fbgemm_direct"),
    **_SHARED,
)

ONEDNN = Numerics(
    name="onednn",
    engine="oneDNN 3.12 as bundled with PyTorch 2.13.0, x86-64 with AVX512-VNNI",
    source="aten/src/ATen/native/quantized/cpu (qlinear.cpp, qconv.cpp, OnednnUtils.h), ideep, oneDNN jit_brgemm_kernel.cpp",
    pairing=Pairing.by("onednn"),
    linear=_ONEDNN_LINEAR,
    linear_real=RealForm(multiplier="x,w", x_scale="reciprocals", w_scale="reciprocals", bias="add"),
    conv=_ONEDNN_CONV,
    conv_transpose=TransposedForm.like(_ONEDNN_CONV),
    linear_int8=_ONEDNN_SIGNED,
    # qconv.cpp: the accumulated tensor's scale reaches oneDNN's sum as the inverse of an inverse.
    **{**_SHARED, "dynamic": _DYNAMIC.replace(linear_input="reciprocals"), "post": PostForm(other_scale="reciprocals"), "by_level": (*_ONEDNN_LEVELS, *_ATEN_LEVELS)},
)

X86 = Numerics(
    name="x86",
    engine="the unified x86 engine of PyTorch 2.13.0 on a CPU with AVX512-VNNI",
    source="OnednnUtils.h, should_use_onednn_quant: convolutions by rule, linear always FBGEMM",
    pairing=Pairing(linear="fbgemm", conv="onednn", conv_otherwise="fbgemm"),
    linear=FBGEMM.linear,
    linear_real=FBGEMM.linear_real,
    conv=Dispatch(rule="x86", vnni=True, yes=_ONEDNN_CONV, no=_FBGEMM_PRODUCT),
    conv_transpose=Dispatch(rule="x86", vnni=True, yes=ONEDNN.conv_transpose, no=FBGEMM.conv_transpose),
    **_SHARED,
)

# QnnpackUtils.h, q8gemm/4x4c2-sse2.c: integer bias, one multiplier; qadd: two multipliers of 22 bits; qavgpool.cpp.
_QNNPACK_PRODUCT = ProductForm(
    accumulator="exact", arithmetic="float32", multiplier="(xw)*(1/y)", x_scale="direct", w_scale="direct", y_scale="direct",
    bias="int32_reciprocal", zero_point="after", rounding="half_even", overflow="indefinite", relu="code",
)  # fmt: skip
_QNNPACK_POOL = PoolForm(contiguous="global_area", channels_last="global_area", vector=0, rounding="half_even")
_QNNPACK_POOLS = {name: Dispatch(rule="qnnpack", vnni=False, yes=_QNNPACK_POOL, no=form) for name, form in (("avg_pool", _AVG_POOL), ("adaptive_avg_pool", _ADAPTIVE))}
# As _ATEN_LEVELS, for what is left to ATen.
_QNNPACK_LEVELS = tuple((levels, {**changes, "avg_pool": {"no": _AVG_POOL.replace(**changes["avg_pool"])}}) for levels, changes in _ATEN_LEVELS)

QNNPACK = Numerics(
    name="qnnpack",
    engine="QNNPACK as bundled with PyTorch 2.13.0, x86-64",
    source="aten/src/ATen/native/quantized/cpu/qnnpack (requantization.h, q8gemm, q8vadd, q8avgpool), QnnpackUtils.h",
    pairing=Pairing.by("exact"),
    linear=_QNNPACK_PRODUCT,
    linear_real=RealForm(multiplier="(xw)", x_scale="direct", w_scale="direct", bias="add"),
    # q8dwconv/mp8x27-sse2.c alone multiplies in double.
    conv=Dispatch(rule="depthwise_volume", vnni=False, yes=_QNNPACK_PRODUCT.replace(arithmetic="float64"), no=_QNNPACK_PRODUCT),
    conv_transpose=TransposedForm.like(_QNNPACK_PRODUCT),
    **{**_SHARED, "dynamic": _DYNAMIC.replace(reduced="ignored"), "mean": _SPECIAL["mean"].replace(images="global"), "softmax": _SPECIAL["softmax"].replace(style="table"), "add": Dispatch(rule="qnnpack", vnni=False, yes=FixedAddForm(bits=21, rounding="half_away"), no=_ADD), "by_level": _QNNPACK_LEVELS, "unary": _UNARY.replace(style="qnnpack"), **_QNNPACK_POOLS},
)

# onednn.qlinear_pointwise and qconv_pointwise take the scales as they are.
_INDUCTOR_PRODUCT = _ONEDNN_LINEAR.replace(x_scale="direct", w_scale="direct", y_scale="direct")
_INDUCTOR_REAL = RealForm(multiplier="x,w", x_scale="direct", w_scale="direct", bias="add")
# _decomposed.py: torch.clamp(torch.round(x * inv_scale) + zero_point, quant_min, quant_max).to(dtype), all in float32.
_DECOMPOSED = QuantizeForm(scaling="reciprocal64", zero_point="float_after", rounding="half_even", overflow="saturate", nan="indefinite")

# quantized_decomposed around float operations: no integer kernel of its own.
_BY_REALS = AddForm(
    dequantize="sub_mul", tail_dequantize="sub_mul", scaling="reciprocal64", zero_point="after", tail_zero_point="after",
    rounding="half_even", vector=0, grain=0,
)  # fmt: skip

# The kernels of _ONEDNN_LEVELS.
_INDUCTOR_OLDER_CONV = _INDUCTOR_PRODUCT.replace(multiplier="(xw),1/y")
_INDUCTOR_OLDER_REAL = _INDUCTOR_REAL.replace(multiplier="(xw)")
_INDUCTOR_LEVELS = (
    (("sse41", "avx2"), {
        "linear": {"multiplier": "(xw),1/y"},
        "linear_int8": SignedProductForm.like(_INDUCTOR_OLDER_CONV, "converted"),
        "linear_real": {"multiplier": "(xw)"},
        "conv": Dispatch(rule="onednn_reference", vnni=False, yes=_INDUCTOR_PRODUCT.replace(multiplier="x,w,/y", post="reference"), no=_INDUCTOR_OLDER_CONV),
        "conv_real": Dispatch(rule="onednn_reference", vnni=False, yes=_INDUCTOR_REAL.replace(post="reference"), no=_INDUCTOR_OLDER_REAL),
    }),
    (("avx_vnni", "avx_vnni_int8"), {
        "conv": Dispatch(rule="onednn_groups", vnni=False, yes=_INDUCTOR_OLDER_CONV, no=_INDUCTOR_PRODUCT),
        "conv_real": Dispatch(rule="onednn_groups", vnni=False, yes=_INDUCTOR_OLDER_REAL, no=_INDUCTOR_REAL),
    }),
    (("avx512", "avx512_vbmi"), {
        "conv": Dispatch(rule="onednn_volume", vnni=False, yes=_INDUCTOR_OLDER_CONV, no=_INDUCTOR_PRODUCT),
        "conv_real": Dispatch(rule="onednn_volume", vnni=False, yes=_INDUCTOR_OLDER_REAL, no=_INDUCTOR_REAL),
    }),
    (("avx2", "avx_vnni", "avx_vnni_int8"), {"softmax": {"vector": 8}}),
)  # fmt: skip

INDUCTOR = Numerics(
    name="inductor",
    engine="PT2E lowered by TorchInductor, PyTorch 2.13.0 with oneDNN 3.12, x86-64 with AVX512-VNNI",
    source="torch/ao/quantization/fx/_decomposed.py, aten/src/ATen/native/quantized/cpu (qlinear.cpp, qconv.cpp: onednn.*_pointwise)",
    by_level=_INDUCTOR_LEVELS,
    pairing=Pairing.by("onednn"),
    quantize=_DECOMPOSED,
    quantize_channel=_DECOMPOSED.replace(scaling="reciprocal"),
    quantize_int32=_DECOMPOSED,
    fake_quantize=_FAKE_QUANTIZE,
    fake_quantize_channel=_FAKE_QUANTIZE_CHANNEL,
    dequantize=DequantizeForm(formula="sub_mul32"),
    dequantize_channel=DequantizeForm(formula="sub_mul_wide"),
    linear=_INDUCTOR_PRODUCT,
    linear_int8=SignedProductForm.like(_INDUCTOR_PRODUCT.replace(multiplier="x,w,/y", post="reference")),
    linear_real=_INDUCTOR_REAL,
    conv=_INDUCTOR_PRODUCT,
    conv_real=_INDUCTOR_REAL,
    conv_transpose=None,
    post=PostForm(other_scale="direct"),
    add=_BY_REALS,
    mul=_BY_REALS,
    unary=UnaryForm(style="float", vector=0, grain=0),
    **dict.fromkeys(("avg_pool", "adaptive_avg_pool", "avg_pool3d", "adaptive_avg_pool3d", "mean", "bilinear", "batch_norm", "prelu"), RealsForm(order="aten")),
    softmax=_SPECIAL["softmax"],
    clamp=_DECOMPOSED,
    cat=CatForm(contiguous="quantize", channels_last="quantize", copy_equal=False, vector=0),
    requantize=RequantizeForm(body="reals", tail="reals", vector=0),
    dynamic=DynamicForm(parameters="decomposed", reduced="refused", linear_input="quantize"),
)
