"""Findings about quantize, dequantize, fake-quantize and what stays among codes."""

import numpy as np

from refquant.backends.findings.finding import Finding, by, case, codes, of, values
from refquant.core.qparams import QParams
from refquant.verify.problem import oracle

__all__ = ["CONVERSIONS"]

_TIES = np.float32([0.5, 1.5, 2.5])
_HUGE = np.float32([1e12, -1e12, np.nan, np.inf, 3.0, 3.0, 3.0, 3.0])


def _round_trip(problem):
    q = oracle(of("quantize", x=problem["x"], qparams=problem["qparams"])(), "fbgemm")
    return oracle(of("dequantize", q=codes(q, problem["qparams"].scale, problem["qparams"].zero_point))(), "fbgemm")


def _divided(problem):
    return oracle(problem, "onnx")


CONVERSIONS = (
    Finding(
        name="zero-point-before-rounding", engine="fbgemm",
        title="torch.quantize_per_tensor adds the zero point before it rounds",
        text="Since 2.13 FBGEMM's Quantize computes round(fma(x, 1/scale, zero_point)). Ties then go to an even code, and not to an even multiple of the scale: "
        "with an odd zero point every tie goes the other way than in releases before, in fake-quantize and in ONNX.",
        problem=of("quantize", x=_TIES, qparams=QParams(1.0, 1, "uint8")), expect=by("onnx"), expected_by="of round(x / scale) + zero_point",
    ),
    Finding(
        name="fake-quantize-is-another-rounding", engine="fbgemm",
        title="fake_quantize is not quantize followed by dequantize",
        text="fake_quantize_per_tensor_affine rounds first and adds the zero point then; quantize_per_tensor does it the other way round. "
        "A network that was trained with fake-quantize meets other numbers on ties when it is converted.",
        problem=of("fake_quantize", x=_TIES, qparams=QParams(1.0, 1, "uint8")), expect=_round_trip, expected_by="of dequantize(quantize(x))",
    ),
    Finding(
        name="reciprocal-is-not-division", engine="fbgemm",
        title="PyTorch multiplies by 1/scale where ONNX divides",
        text="The reciprocal of the scale is rounded to float32 first, so a quotient that lies exactly on a tie, such as 2.25 / 0.3, is pushed over it or lost.",
        problem=of("quantize", x=np.float32([2.25, 1.55]), qparams=QParams(0.3, 0, "uint8")), expect=_divided, expected_by="of x / scale",
    ),
    Finding(
        name="nan-becomes-the-largest-code", engine="fbgemm",
        title="quantize_per_tensor turns NaN into 255",
        text="The vector code clamps by minps(x, 2147483520), which returns its second operand for a NaN. ONNX Runtime gives the smallest code, per-channel quantization 0.",
        problem=of("quantize", x=np.float32([np.nan, 1.0]), qparams=QParams(1.0, 3, "uint8")), expect=by("onnxruntime"), expected_by="as in ONNX Runtime",
    ),
    Finding(
        name="nan-depends-on-per-channel", engine="fbgemm",
        title="NaN is 255 per tensor and 0 per channel",
        text="quantize_per_channel converts a double NaN to int8 directly, which gives the low byte of -2**31, zero.",
        problem=of("quantize", x=np.float32([[np.nan, 1.0]]), qparams=QParams([1.0, 1.0], [3, 3], "uint8", axis=1)), expect=values([[255, 4]]),
        expected_by="as per tensor",
    ),
    Finding(
        name="int32-difference-wraps", engine="fbgemm",
        title="Dequantizing int32 codes can change their sign",
        text="The zero point is subtracted in int32, which wraps: the largest code with a negative zero point becomes a large negative number.",
        problem=of("dequantize", q=codes([2**31 - 1, 0], 1.0, -1000, "int32")), expect=values([2147484647.0, 1000.0], np.float32), expected_by="of (code - zero_point) * scale",
    ),
    Finding(
        name="per-channel-dequantize-in-double", engine="fbgemm",
        title="Per channel, dequantize multiplies by the double scale; per tensor by its float32",
        text="A scale that is no float32, such as 0.1, therefore gives other last bits per channel than per tensor.",
        problem=case("dequantize/fbgemm/n2c5/random/seed=2/per_channel"), expect=by("onnx"), expected_by="of float32(code - zero_point) * float32(scale)",
    ),
    Finding(
        name="decomposed-is-another-rounding", engine="inductor",
        title="PT2E's quantize_per_tensor rounds before it adds the zero point",
        text="quantized_decomposed.quantize_per_tensor computes round(x * (1 / scale)) + zero_point, torch.quantize_per_tensor round(x / scale + zero_point): "
        "a model that moves from FX graph mode to export gets other codes on ties.",
        problem=of("quantize", x=_TIES, qparams=QParams(1.0, 1, "uint8")), expect=by("fbgemm"), expected_by="of torch.quantize_per_tensor",
    ),
    Finding(
        name="half-away-in-the-reference", engine="tflite_ref",
        title="TFLite's reference QUANTIZE rounds halves away from zero",
        text="TfLiteRound is std::round. The optimized kernels and XNNPACK round halves to even, so the same model gives other codes under another resolver.",
        problem=of("quantize", x=np.float32([0.5, 2.5, -0.5, -2.5]), qparams=QParams(1.0, 0, "int8")), expect=by("xnnpack"), expected_by="as in XNNPACK",
    ),
    Finding(
        name="subnormal-numbers-are-zero", engine="xnnpack",
        title="A scale above 2**126 makes every number the zero point, and both infinities the highest code",
        text="LiteRT runs the delegate with subnormal numbers taken for zero, and such a scale's reciprocal is one. Nor are subnormal inputs counted: 1.1e-38 at a scale of 2e-38 is code 0, "
        "elsewhere 1. A subnormal scale itself ends the process.",
        problem=of("quantize", x=np.float32([3e38, 1e38, -3e38, np.inf, -np.inf]), qparams=QParams(1.7e38, 3, "int8")), expect=by("tflite_ref"), expected_by="as in the reference kernel",
    ),
    Finding(
        name="huge-numbers-reach-the-other-end", engine="tflite_ref",
        title="TFLite's reference QUANTIZE turns huge numbers into the code of the other end",
        text="The rounded quotient is converted to int32 before it is clamped; beyond int32 x86 gives -2**31 for either sign. A negative zero point then even wraps that to the top.",
        problem=of("quantize", x=_HUGE, qparams=QParams(1.0, -7, "int8")), expect=by("xnnpack"), expected_by="of saturation",
    ),
    Finding(
        name="huge-numbers-reach-the-other-end-optimized", engine="tflite_opt",
        title="So do TFLite's optimized kernels, whose rounding is another one",
        text="Eight numbers at a time are converted by cvtps2dq, without a clamp before it; +1e12 becomes the smallest code.",
        problem=of("quantize", x=_HUGE, qparams=QParams(1.0, 0, "int8")), expect=by("xnnpack"), expected_by="of saturation",
    ),
    Finding(
        name="dequantize-in-two-roundings", engine="tflite_opt",
        title="TFLite's optimized DEQUANTIZE rounds twice, but for the last elements",
        text="Steps of eight compute code * scale + float32(-zero_point * scale), the rest (code - zero_point) * scale: equal codes give other numbers by their place.",
        problem=case("dequantize/tflite_opt/n16/random/seed=0/int8"), expect=by("tflite_ref"), expected_by="of (code - zero_point) * scale",
    ),
    Finding(
        name="onnxruntime-nan-is-the-smallest-code", engine="onnxruntime",
        title="ONNX Runtime quantizes NaN to the smallest code",
        text="MlasQuantizeLinear clamps by maxps with the bound as second operand, which a NaN yields to. PyTorch gives the largest.",
        problem=of("quantize", x=np.float32([np.nan, 1.0]), qparams=QParams(1.0, 3, "uint8")), expect=by("fbgemm"), expected_by="as in PyTorch",
    ),
    Finding(
        name="resize-cuts-off", engine="onnxruntime",
        title="ONNX Runtime's Resize of codes cuts off what lies behind the point",
        text="The interpolated number is cast to the integer type, toward zero, and not rounded: 0.75 becomes 0. Codes come out half a step too small on the average.",
        problem=of("interpolate", x=codes([[[[0, 3]]]]), size=(1, 4), mode="bilinear", align_corners=False), expect=values([[[[0, 1, 2, 3]]]]),
        expected_by="of round half to even",
    ),
)  # fmt: skip
