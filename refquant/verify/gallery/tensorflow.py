"""Puzzles from TensorFlow Lite's threads."""

import numpy as np

from refquant.core.epilogue import gemmlowp_multiply
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.core.rounding import Round, round_shift
from refquant.verify.gallery.puzzle import Claim, Puzzle, by_profile
from refquant.verify.problem import Problem

__all__ = ["TENSORFLOW"]

_ISSUES = "https://github.com/tensorflow/tensorflow/issues"


def _one_product(codes, x_zero, out_zero):
    """A convolution of one weight, 9, with the scales of the thread: a code 65 above the zero point has the accumulator 585."""
    x = QTensor((np.int64(codes) + x_zero).astype(np.int8).reshape(1, 1, 1, -1), QParams(0.05296124517917633, x_zero, "int8"))
    w = QTensor(np.full((1, 1, 1, 1), 9, np.int8), QParams(0.024093778803944588, 0, "int8"))
    return Problem("conv2d", {"x": x, "w": w, "out": QParams(0.11484327912330627, out_zero, "int8")})


_585 = _one_product([65], -124, -126)
_BOTH_SIGNS = _one_product([65, -65], 0, 0)

TENSORFLOW = (
    Puzzle(
        name="tensorflow-102943",
        title="Understanding the math behind TFLite quantization",
        link=f"{_ISSUES}/102943",
        question="The accumulator 585 with M0 = 1527099593 and a right shift of 6 should give -119 by gemmlowp's two roundings, but the interpreter says -120.",
        reason=(
            "585 * M is 6.49999999…, so one rounding gives 6 and the code -120. gemmlowp's first rounding, to 31 bits, lifts it onto 6.5 and its"
            " second one away from zero, to 7. The interpreter's default is the XNNPACK delegate, which rounds once, in float32; the reference"
            " and the optimized kernels round twice."
        ),
        claims=(
            by_profile("interpreter (XNNPACK delegate)", -120, _585, "xnnpack", engine="xnnpack"),
            by_profile("two roundings (reference kernels)", -119, _585, "tflite_ref", engine="tflite_ref"),
            by_profile("two roundings (optimized kernels)", -119, _585, "tflite_opt", engine="tflite_opt", own=True),
        ),
    ),
    Puzzle(
        name="tensorflow-25087",
        title="Two roundings in MultiplyByQuantizedMultiplier lead to a result that is not TensorFlow's",
        link=f"{_ISSUES}/25087",
        question="x = 7984 by the multiplier 1583594044 with shift -9 gives 12, though 7984 * 0.0014402703931141053 = 11.499… rounds to 11.",
        reason=(
            "SaturatingRoundingDoublingHighMul rounds 5887.55 up to 5888, which is 11.5 * 512 exactly, and RoundingDivideByPOT takes that tie away from zero."
            " One shift by all 40 bits rounds 11.499 to 11."
        ),
        claims=(
            Claim("two roundings", 12, lambda: gemmlowp_multiply(np.array([7984]), 1583594044, -9)),
            Claim("one rounding", 11, lambda: round_shift(np.array([7984 * 1583594044]), 40, Round.HALF_UP)),
        ),
    ),
    Puzzle(
        name="tensorflow-99072",
        title="CONV result mismatch between INT8 reference and optimized kernels",
        link=f"{_ISSUES}/99072",
        question="80 of 51,200 outputs of a convolution differ between TensorFlow Lite's optimized kernels and the reference kernels of TFLite Micro, each by 1.",
        reason=(
            "Both multiply by the same fixed-point numbers and round twice, but the reference rounds its shift half away from zero and ruy's"
            " kernels half up: negative results that the first rounding put on a tie differ by one. The tensors of the thread are not"
            " published; these are the accumulators 585 and -585."
        ),
        claims=(
            by_profile("reference kernels", [[[[7, -7]]]], _BOTH_SIGNS, "tflite_ref", engine="tflite_ref", own=True),
            by_profile("optimized kernels", [[[[7, -6]]]], _BOTH_SIGNS, "tflite_opt", engine="tflite_opt", own=True),
            by_profile("XNNPACK delegate", [[[[6, -6]]]], _BOTH_SIGNS, "xnnpack", engine="xnnpack", own=True),
        ),
    ),
)
