"""Puzzles from PyTorch's threads."""

import struct

import numpy as np

from refquant.core.affine import dequantize_codes, quantize_real
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.isa.accumulate import accumulate_linear
from refquant.isa.products import saturating_product
from refquant.verify.build import build
from refquant.verify.gallery.puzzle import Claim, Puzzle, by_level, by_profile
from refquant.verify.problem import Problem, oracle

__all__ = ["PYTORCH"]

_ISSUES = "https://github.com/pytorch/pytorch/issues"


def _quantized(values, scale, zero_point, dtype="uint8"):
    """Quantize as ``torch.quantize_per_tensor`` does."""
    p = QParams(scale, zero_point, dtype)
    return QTensor(oracle(Problem("quantize", {"x": np.float32(values), "qparams": p}), "fbgemm"), p)


_IMAGE = _quantized([[[[5.384835, 12.083044, 27.318186], [12.4770565, 27.580862, 22.327364], [26.136148, 22.721376, 4.859485]]]], 0.13133743405342102, 1)
_KERNEL = QTensor(np.int8([[[[-128, -90, -60], [-49, 71, 107], [32, 118, 60]]]]), QParams(0.0029218862764537334, 0, "int8"))
_CONV = Problem("conv2d", {"x": _IMAGE, "w": _KERNEL, "out": QParams(0.10707724094390869, 0, "uint8"), "activation": "relu"})

_FIVE = [
    [-0.3096, 0.3871, -0.8741, -1.2659, -0.0505], [-0.1814, 0.6141, 0.7843, 1.1278, -0.4891], [2.4613, -0.7179, -0.2446, 0.6929, -0.3115],
    [0.8652, -0.6757, 1.9093, -0.5734, 0.3151], [0.7885, 0.0279, 0.3433, -0.2992, 1.0210],
]  # fmt: skip
_RAMP = _quantized(np.linspace(-1, 1, 9).reshape(1, 1, 3, 3), 0.0007, 0, "int8")
_CONV5 = Problem("conv2d", {"x": _quantized([[_FIVE]], 0.15, 120), "w": _RAMP, "out": QParams(0.0009, 121, "uint8")})


def _difference():
    return (oracle(_CONV5, "fbgemm@avx2").astype(int) - oracle(_CONV5, "fbgemm"))[0, 0]


def _unpacked(data):
    return struct.unpack("<f", data)[0]


_ADD = Problem("add", {
    "a": QTensor(np.uint8([158]), QParams(_unpacked(b"\xf1$&="), 112, "uint8")), "b": QTensor(np.uint8([136]), QParams(_unpacked(b".\xe5\xb5="), 126, "uint8")),
    "out": QParams(_unpacked(b"L\xed\xb8="), 124, "uint8"),
})  # fmt: skip
_PER_CHANNEL = Problem("quantize", {"x": np.float32([[757.5]]), "qparams": QParams([15.0], [0], "int8", axis=0)})


def _sigmoid(formula):
    """The sigmoid of the code of 514.0 in a scale of 1028.02, dequantized by a formula; the real number of its code."""
    scale, zero = 1028.02, 255
    code = quantize_real(np.float32([514]), scale, zero, 0, 255, scaling="reciprocal", add="after", rounding="half_even")
    real = dequantize_codes(code.astype(np.uint8), scale, zero, formula)
    y = np.float32(1) / (np.float32(1) + np.exp(-real))
    return quantize_real(y, 1 / 256, 0, 0, 255, scaling="reciprocal", add="after", rounding="half_even") / 256


def _layer():
    return build("linear/qnnpack/m256k64n48/neartie/seed=0")


def _by_floats(problem):
    """A layer as fake quantization computes it: dequantized, multiplied in float32, quantized."""
    x, w, bias = problem["x"], problem["w"], problem.get("bias")
    real = dequantize_codes(x.values, x.qparams.scale, x.qparams.zero_point, "sub_mul") @ dequantize_codes(w.values, w.qparams.scale, w.qparams.zero_point, "sub_mul").T
    out = problem["out"]
    real = real + (0 if bias is None else np.asarray(bias, np.float32))
    return quantize_real(real, out.scale, out.zero_point, 0, 255, scaling="reciprocal", add="after", rounding="half_even")


def _steps_apart(problem, profile):
    return int(np.abs(oracle(problem, profile).astype(int) - _by_floats(problem)).max())


_FULL = np.full((1, 64), 127, np.int8)


_ROW = Problem("linear", {
    "x": QTensor(np.full((1, 64), 255, np.uint8), QParams(1.0, 0, "uint8")), "w": QTensor(_FULL, QParams(1.0, 0, "int8")), "out": QParams(10363.2, 0, "uint8"),
})  # fmt: skip


def _dot(x_dtype, level):
    x = np.full((1, 64), 255 if x_dtype == "uint8" else 127, x_dtype)
    return accumulate_linear(x, _FULL, saturating_product("onednn", "linear", level, x_dtype=x_dtype))


PYTORCH = (
    Puzzle(
        name="pytorch-44939",
        title="Inconsistent result from FBGEMM and QNNPACK quantization backends",
        link=f"{_ISSUES}/44939",
        question="One 3 x 3 convolution without bias: QNNPACK and a calculation by hand give 113, FBGEMM does not.",
        reason=(
            "FBGEMM's vpmaddubsw adds neighbouring products in int16, with saturation: 211 * 71 + 171 * 107 = 33278 becomes 32767. With AVX512-VNNI the"
            " products are added in int32, and FBGEMM gives 113 too. reduce_range keeps activations within 7 bits for that reason."
        ),
        claims=(
            by_profile("QNNPACK", 113, _CONV, "qnnpack", engine="qnnpack"),
            Claim("the pair that saturates", 33278, lambda: int(_IMAGE.values[0, 0, 1, 1]) * 71 + int(_IMAGE.values[0, 0, 1, 2]) * 107),
            by_level("FBGEMM without VNNI", 111, _CONV, "fbgemm", "avx2", engine="fbgemm@avx2", own=True),
            by_profile("FBGEMM with VNNI", 113, _CONV, "fbgemm", engine="fbgemm", own=True),
        ),
    ),
    Puzzle(
        name="pytorch-50720",
        title="Output of quantized.functional.conv2d is wrong",
        link=f"{_ISSUES}/50720",
        question="Codes of a 3 x 3 convolution of a 5 x 5 image differ from the requantized float result by 15 steps in one place, and nowhere else.",
        reason=(
            "The weights are clipped to -128 and 127, so pairs of neighbouring taps exceed int16 where two bright pixels meet, and vpmaddubsw saturates them."
            " On a CPU with AVX512-VNNI the same call is exact."
        ),
        claims=(
            Claim("FBGEMM without VNNI, less the requantized float result", [[0, 0, 0], [15, 0, 0], [0, 0, 0]], _difference),
            by_level("its codes", [[[[255, 255, 226], [15, 75, 135], [193, 166, 45]]]], _CONV5, "fbgemm", "avx2", engine="fbgemm@avx2", own=True),
            by_profile("FBGEMM with VNNI", [[[[255, 255, 226], [0, 75, 135], [193, 166, 45]]]], _CONV5, "fbgemm", engine="fbgemm", own=True),
        ),
    ),
    Puzzle(
        name="pytorch-37343",
        title="qnnpack's quantized-add gives wrong result",
        link=f"{_ISSUES}/37343",
        question="The same two codes, 158 and 136, add up differently under fbgemm and qnnpack.",
        reason=(
            "The exact sum is 154.4999978. FBGEMM's path goes through float32 and gives 154. QNNPACK multiplies codes by integers of 22 bits, whose rounded"
            " ratios lift the sum over 154.5, and rounds its shift to 155."
        ),
        claims=(by_profile("fbgemm", 154, _ADD, "fbgemm", engine="fbgemm", own=True), by_profile("qnnpack", 155, _ADD, "qnnpack", engine="qnnpack", own=True)),
    ),
    Puzzle(
        name="pytorch-139464",
        title="Maybe there is a precision issue with torch.quantize_per_channel?",
        link=f"{_ISSUES}/139464",
        question="757.5 / 15 is 50.5, which rounds to 50, half to even; quantize_per_channel says 51.",
        reason="PyTorch multiplies by the reciprocal: f(1/15) is a little too large, and 757.5 * f(1/15) is 50.500004, which is no tie any more. ONNX divides.",
        claims=(by_profile("quantize_per_channel", 51, _PER_CHANNEL, "fbgemm", engine="fbgemm"), by_profile("torch.round(757.5 / 15)", 50, _PER_CHANNEL, "onnx")),
    ),
    Puzzle(
        name="pytorch-107030",
        title="Vectorized operation on quantized tensors returns wrong values (different rounding)",
        link=f"{_ISSUES}/107030",
        question="The sigmoid of 65 equal elements: the first 64 are 0.5039, the last is 0.5000.",
        reason=(
            "The vector body dequantizes by code * scale + (-zero_point * scale), whose products round apart: 255 - 255 becomes not 0 but a remnant. The scalar tail"
            " subtracts first. PyTorch 2.2 repaired the sigmoid; tensors' other elementwise functions still differ in their tails."
        ),
        claims=(
            Claim("vector body", 0.50390625, lambda: _sigmoid("fma")),
            Claim("scalar tail", 0.5, lambda: _sigmoid("sub_mul")),
        ),
    ),
    Puzzle(
        name="pytorch-108639",
        title="Result mismatch between real and fake quantization",
        link=f"{_ISSUES}/108639",
        question="A network with fake quantization and the same network converted differ now and then by one step; so say 95785 and 88800 as well.",
        reason=(
            "Fake quantization multiplies dequantized numbers in float32 and rounds the sum to the grid; the converted layer sums integers exactly and"
            " scales once, with a bias in int32 (QNNPACK). Next to a rounding tie the two fall on different sides: by one step. The networks of"
            " the threads are trained from random numbers; this is a layer with outputs on ties."
        ),
        claims=(
            Claim("steps between qnnpack and fake quantization", 1, lambda: _steps_apart(_layer(), "qnnpack"), own=True),
            Claim("steps between fbgemm and fake quantization", 1, lambda: _steps_apart(_layer(), "fbgemm"), own=True),
        ),
    ),
    Puzzle(
        name="pytorch-103646",
        title="Default qconfig for onednn backend silently causes numeric saturation on CPUs without avx512_vnni",
        link=f"{_ISSUES}/103646",
        question="Outputs of the onednn backend are wrong on every CPU without AVX512-VNNI, and right with it.",
        reason=(
            "Its default qconfig has reduce_range=False: activations up to 255 by weights up to 127 exceed int16 in pairs. 64 such products are"
            " 64 * 255 * 127 = 2,072,640 exactly, and 32 * 32767 = 1,048,544 saturated."
        ),
        claims=(
            Claim("64 * 255 * 127 with VNNI", 2072640, lambda: _dot("uint8", "avx512_vnni"), own=True),
            Claim("64 * 255 * 127 with AVX2", 1048544, lambda: _dot("uint8", "avx2"), own=True),
            by_profile("the same in steps of 10363.2, with VNNI", 200, _ROW, "onednn", engine="onednn", own=True),
            by_level("the same in steps of 10363.2, with AVX2", 101, _ROW, "onednn", "avx2", engine="onednn@avx2", own=True),
        ),
    ),
    Puzzle(
        name="pytorch-136746",
        title="torch._int_mm accuracy issue on AMD CPU",
        link=f"{_ISSUES}/136746",
        question="int8 times int8 is exact on Intel CPUs and on GPUs, but wrong on an AMD EPYC 7R32 (AVX2, no VNNI) once numbers grow.",
        reason=(
            "oneDNN adds 128 to the signed factor to make it unsigned, multiplies by vpmaddubsw, whose pairs saturate in int16, and takes 128 * sum(b) back"
            " exactly: 64 * 127 * 127 = 1,032,256 becomes 32 * 32767 - 64 * 128 * 127."
        ),
        claims=(
            Claim("64 * 127 * 127 with VNNI", 1032256, lambda: _dot("int8", "avx512_vnni"), own=True),
            Claim("64 * 127 * 127 with AVX2", 32 * 32767 - 64 * 128 * 127, lambda: _dot("int8", "avx2"), own=True),
        ),
    ),
)
