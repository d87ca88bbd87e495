"""Findings about linear layers, convolutions and transposed convolutions."""

import numpy as np

from refquant import numerics
from refquant.backends.findings.finding import Finding, by, case, codes, of, values
from refquant.core.qparams import QParams
from refquant.verify.problem import oracle

__all__ = ["PRODUCTS"]

_TIE = of("linear", x=codes([[1]], 0.25), w=codes([[1]], 0.5, 0, "int8"), out=QParams(0.25, 101, "uint8"))


def _tie_of_groups(groups):
    x, w = codes(np.ones((1, groups, 1, 1)), 0.25), codes(np.ones((groups, 1, 1, 1)), 0.5, 0, "int8")
    return of("conv2d", x=x, w=w, groups=groups, out=QParams(0.25, 101, "uint8"))


_DEPTHWISE = of(
    "conv2d", x=codes(np.full((1, 8, 3, 3), 255)), w=codes(np.full((8, 1, 3, 3), 127), 1.0, 0, "int8"), padding=1, groups=8, out=QParams(2000.0, 0, "uint8")
)
_OVERFLOW = of("linear", x=codes([[255]], 256.0), w=codes([[127]], 512.0, 0, "int8"), out=QParams(1.0, 0, "uint8"))
_SHUFFLED = of(
    "conv_transpose2d", x=codes(np.array([1, 10, 100]).reshape(1, 3, 1, 1)), w=codes(np.array([[1, 0], [0, 1], [0, 0]]).reshape(3, 2, 1, 1), 1.0, 0, "int8"),
    out=QParams(1.0, 0, "uint8"),
)  # fmt: skip
_OVERLAPPING = of(
    "conv_transpose2d", x=codes(np.ones((1, 8, 3, 1))), w=codes(np.ones((8, 8, 2, 1)), 1.0, 0, "int8"), stride=2, out=QParams(1.0, 0, "uint8")
)


def _scaled(scale):
    return of("linear", x=codes([[10, 20, 200]], 0.5), w=codes([[10, 20, 30], [1, 2, 3]], 0.25, 0, "int8"), out=QParams(scale, 3, "uint8"))


def _added(activation):
    x, w = codes(np.full((1, 1, 2, 2), 1), 1.0, 2), codes([[[[5]]]], 1.0, 0, "int8")
    return of("conv2d", x=x, w=w, out=QParams(1.0, 9, "uint8"), other=codes(np.full((1, 1, 2, 2), 3), 1.0, 3), activation=activation)


def _as_conv(engine):
    profile = numerics.get(engine)
    return by(profile.replace(linear=profile.conv))


def _conv_in_single(problem):
    profile = numerics.get("qnnpack")
    return oracle(problem, profile.replace(conv=profile.conv.no))


PRODUCTS = (
    Finding(
        name="linear-of-onednn-rounds-another-way", engine="onednn",
        title="oneDNN adds the zero point before it rounds, FBGEMM after",
        text="On a tie with an odd zero point the two engines of PyTorch differ by one, for the very same layer.",
        problem=_TIE, expect=by("fbgemm"), expected_by="as in FBGEMM",
    ),
    Finding(
        name="x86-keeps-linear-on-fbgemm", engine="x86",
        title="The x86 engine sends linear layers to FBGEMM whatever the CPU, though convolutions go to oneDNN",
        text="One network so mixes two roundings: the zero point goes in after rounding in linear layers and before it in convolutions.",
        problem=_TIE, expect=by("onednn"), expected_by="as in oneDNN",
    ),
    Finding(
        name="x86-sends-100-groups-to-onednn", engine="x86",
        title="With 100 groups a convolution of the x86 engine is oneDNN's …",
        text="should_use_onednn_quant decides when weights are packed: AVX512-VNNI, at most 100 groups, symmetric weights, no output padding.",
        problem=_tie_of_groups(100), expect=by("fbgemm"), expected_by="as in FBGEMM",
    ),
    Finding(
        name="x86-sends-101-groups-to-fbgemm", engine="x86",
        title="… and with 101 groups it is FBGEMM's",
        text="The same layer with one more group rounds its ties the other way. A depthwise layer of 128 channels is such a one.",
        problem=_tie_of_groups(101), expect=by("onednn"), expected_by="as with 100 groups",
    ),
    Finding(
        name="depthwise-saturates-on-vnni", engine="fbgemm",
        title="FBGEMM's depthwise kernels add pairs of taps with int16 saturation, even with VNNI",
        text="Kernels of 3x3, 5x5 and 7x7 with as many groups as channels use vpmaddubsw on every CPU: 2 * 255 * 127 becomes 32767. "
        "reduce_range, which was made for CPUs without VNNI, matters here on all.",
        problem=_DEPTHWISE, expect=by("onnxruntime"), expected_by="of exact sums",
    ),
    Finding(
        name="overflow-becomes-zero", engine="fbgemm",
        title="FBGEMM turns a scaled sum beyond int32 into the smallest code",
        text="cvtps2dq gives -2**31 for what does not fit, and the rest of the output stage saturates that downwards. oneDNN and ONNX Runtime clamp first.",
        problem=_OVERFLOW, expect=by("onednn"), expected_by="of saturation",
    ),
    Finding(
        name="qnnpack-overflow-becomes-zero", engine="qnnpack",
        title="QNNPACK turns it into the smallest code too",
        text="Its SSE2 kernels share cvtps2dq and the 16-bit packs of FBGEMM's.",
        problem=_OVERFLOW, expect=by("onnxruntime"), expected_by="of saturation",
    ),
    Finding(
        name="bias-joins-before-the-scale", engine="fbgemm",
        title="FBGEMM divides the bias by the scales and adds it to the sum, by an FMA with a rounded reciprocal",
        text="For weights with one scale the compiler fuses bias * (1 / (sx * sw)) + acc. Whoever adds the bias to the scaled sum gets another code on near-ties.",
        problem=case("linear/fbgemm/m2k3n8/neartie/seed=3"), expect=by(numerics.get("fbgemm").replace(linear={"bias": "after"})), expected_by="of acc * scale + bias",
    ),
    Finding(
        name="qnnpack-rounds-the-bias", engine="qnnpack",
        title="QNNPACK rounds the bias to int32, FBGEMM and oneDNN never do",
        text="It does so when it packs, in units of sx * sw; a bias of less than half a unit is lost altogether.",
        problem=case("linear/qnnpack/m2k3n8/neartie/seed=3"), expect=by("fbgemm"), expected_by="as in FBGEMM",
    ),
    Finding(
        name="reciprocals-of-reciprocals", engine="onednn",
        title="oneDNN's linear layers take the weight scale as 1 / (1 / s), its convolutions as s",
        text="The wrapper passes inverse scales and the kernel inverts them again: an ulp that a 1x1 convolution of the same numbers does not have.",
        problem=case("linear/onednn/m2k3n8/neartie/seed=97/nobias"), expect=_as_conv("onednn"), expected_by="as in a 1x1 convolution",
    ),
    Finding(
        name="one-kernel-in-double", engine="qnnpack",
        title="QNNPACK's depthwise 3x3x3 kernel multiplies in double, all its others in float32",
        text="q8dwconv/mp8x27-sse2.c alone converts sums and multiplier to double.",
        problem=case("conv3d/qnnpack/n1c4t3h3w3-oc4k3p1g4/neartie/seed=39/nobias"), expect=_conv_in_single, expected_by="as in its other kernels",
    ),
    Finding(
        name="weights-in-a-wrong-order", engine="onednn", numerics="onednn+shuffled_transpose",
        title="oneDNN's transposed convolutions shuffle weights where IC and OC differ",
        text="Weights are reordered as if they were (O, I) and lie as (I, O). The output is a wrong one, deterministically.",
        problem=_SHUFFLED, expect=by("onednn"), expected_by="of the definition",
    ),
    Finding(
        name="rows-that-overlap", engine="fbgemm", numerics="fbgemm+overlapping_transpose",
        title="FBGEMM's direct transposed convolution writes rows over each other for a stride of 2",
        text="Kernels of 2x1 to 2x6 with IC and OC multiples of 8, such as ConvTranspose2d(64, 32, 2, 2), place each row of the input right below the one before.",
        problem=_OVERLAPPING, expect=by("fbgemm"), expected_by="of the definition",
    ),
    Finding(
        name="stale-multipliers", engine="qnnpack", numerics="qnnpack+stale_multipliers",
        title="QNNPACK's packed weights keep the multipliers of their first output scale",
        text="Multipliers are made again only when the input's scale changes. A second call with the same input scale and another output scale is requantized "
        "by the first one's, with the zero point of its own: codes of a scale that nobody asked for. Whoever calibrates anew must pack anew.",
        problem=_scaled(40.0), earlier=_scaled(10.0), expect=by("qnnpack"), expected_by="of the scale that is asked for",
    ),
    Finding(
        name="the-first-post-operation-stays", engine="onednn", numerics="onednn+first_post_operation",
        title="oneDNN's packed weights keep the first post-operation that they are used with",
        text="A convolution called without a ReLU and then, by the same packed weights, with one: the second result has negative numbers. The primitive is made "
        "at the first call and is asked for by the shape alone after that.",
        problem=_added("relu"), earlier=_added(None), expect=by("onednn"), expected_by="of a ReLU",
    ),
    Finding(
        name="three-resolvers-fixed-point", engine="tflite_opt",
        title="TFLite's optimized convolution rounds half up where its reference rounds half away, twice each",
        text="Both multiply by an integer of 31 bits, in two rounding steps; ruy's steps round half up. No two of TFLite's three resolvers agree.",
        problem=case("conv2d/tflite_opt/n1c1h3w3-oc2k1/neartie/seed=4/int8/intbias"), expect=by("tflite_ref"), expected_by="as in the reference kernel",
    ),
    Finding(
        name="three-resolvers-float", engine="xnnpack",
        title="XNNPACK, TFLite's default, requantizes in float32",
        text="The delegate takes int8 convolutions without being asked, and its x86 kernels have no integer multiplier at all.",
        problem=case("conv2d/xnnpack/n1c1h3w3-oc2k1/neartie/seed=1/int8/intbias"), expect=by("tflite_ref"), expected_by="as in the reference kernel",
    ),
    Finding(
        name="reference-linear-in-double", engine="tflite_ref",
        title="TFLite's reference FULLY_CONNECTED multiplies in double, its CONV_2D by an integer of 31 bits",
        text="The same numbers as a linear layer and as a 1x1 convolution give other codes, within one resolver.",
        problem=case("linear/tflite_ref/m2k3n8/neartie/seed=1/int8/intbias"), expect=_as_conv("tflite_ref"), expected_by="as in a 1x1 convolution",
    ),
    Finding(
        name="integer-sums-wrap", engine="onnxruntime",
        title="MatMulInteger wraps: a sum of positive products can be negative",
        text="int32 holds 66,311 products of 255 by 127; one more is taken modulo 2**32.",
        problem=of("matmul_integer", a=np.full((1, 66312), 255, np.uint8), b=np.full((66312, 2), 127, np.int8)), expect=values([[2**31 - 1] * 2], np.int32),
        expected_by="of saturation",
    ),
)  # fmt: skip
