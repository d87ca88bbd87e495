"""Puzzles from ONNX Runtime's threads."""

import numpy as np

from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.isa.accumulate import accumulate_linear
from refquant.isa.products import saturating_product
from refquant.verify.gallery.puzzle import Claim, Puzzle, by_profile
from refquant.verify.problem import Problem, oracle

__all__ = ["ONNXRUNTIME"]

_ISSUES = "https://github.com/microsoft/onnxruntime/issues"


def _sum(a, b, qa, qb, out):
    return Problem("add", {"a": QTensor(np.int8(a), qa), "b": QTensor(np.int8(b), qb), "out": out})


_A, _B, _C = QParams(0.008010663092136383, 7, "int8"), QParams(0.00622713053599, -128, "int8"), QParams(0.006873490754514933, -128, "int8")
_D, _E, _F = QParams(0.02534690499305725, -106, "int8"), QParams(0.035809919238090515, -120, "int8"), QParams(0.0365859717130661, -105, "int8")
_SUM = _sum([-8], [-64], _A, _B, _C)
_LONE, _TWO = (_sum([-114] * n, [-122] * n, _D, _E, _F) for n in (1, 2))


def _tried_pairs():
    """Count the pairs of codes on which ONNX Runtime's sum of one element is -88 where the specification says -87, of all 65,536."""
    codes = np.arange(-128, 128).astype(np.int8)
    a, b = (m.reshape(-1) for m in np.meshgrid(codes, codes, indexing="ij"))
    problem = _sum(b, a, _B, _A, _C)  # a pair at a time the operands are swapped, see 25512
    theirs, text = (oracle(problem, name) for name in ("onnxruntime", "onnx"))
    return np.count_nonzero((theirs == -88) & (text == -87))


_X = QTensor(np.uint8([[210, 198, 234]]), QParams(0.01, 0, "uint8"))
_W = QTensor(np.int8([[-81, -80, 127]]), QParams(0.01, 0, "int8"))

_ALL = np.arange(256, dtype=np.uint8)


def _unsigned_sum(a, b, scale):
    q = QParams(0.08, 3, "uint8")
    return Problem("add", {"a": QTensor(np.uint8(a), q), "b": QTensor(np.uint8(b), q), "out": QParams(scale, 3, "uint8")})


def _every_sum(scale):
    """All sums of two codes: with an output scale of 0.16 half of them lie on ties."""
    a, b = (m.reshape(-1) for m in np.meshgrid(_ALL, _ALL, indexing="ij"))
    return _unsigned_sum(a, b, scale)


_FIVE_SUMS = _unsigned_sum([0] * 5, [1, 3, 5, 7, 9], 0.16)


def _fused_differs(scale, beside_ties=False):
    problem = _every_sum(scale)
    fused, apart = (oracle(problem, name).astype(int) for name in ("onnxruntime", "onnx"))
    differ = fused != apart
    if not beside_ties:
        return np.count_nonzero(differ)
    exact = (problem["a"].values.astype(float) + problem["b"].values - 6) * (0.08 / scale)
    return np.count_nonzero(differ & (np.abs(exact % 1 - 0.5) > 1e-4))


def _wrong_weights():
    """Return the least and the greatest first weight whose accumulator saturates."""
    product = saturating_product("onnxruntime", "linear", "avx2")
    weights = np.stack([np.int8([first, -80, 127]) for first in range(-127, 128)])
    wrong = accumulate_linear(_X.values, weights, product) != accumulate_linear(_X.values, weights, None)
    return weights[wrong[0], 0][[0, -1]]


ONNXRUNTIME = (
    Puzzle(
        name="onnxruntime-23202",
        title="The onnx inference result is inconsistent with the numpy inference result",
        link=f"{_ISSUES}/23202",
        question="One element each of A and B: NumPy's result is -87 but ONNX Runtime's is -88, and in a quantized model an error of 1 is fatal, says the author.",
        reason=(
            "QLinearAdd does not dequantize. It multiplies raw codes by f(sa/sc) and f(sb/sc), fused, and has all zero points in one constant, which is"
            " inside of the rounding. The exact sum is -87.4999953: dequantize, add, divide rounds to -87, the folded float32 sum lands on -87.5 or beyond."
            " Of all 65,536 pairs of codes, with the published scales, this happens at one: A = -8, B = -64."
        ),
        claims=(
            by_profile("ONNX Runtime", -88, _SUM, "onnxruntime", engine="onnxruntime"),
            by_profile("NumPy: dequantize, add, quantize", -87, _SUM, "onnx"),
            Claim("pairs of codes where it is -88 for -87", 1, _tried_pairs, own=True),
        ),
    ),
    Puzzle(
        name="onnxruntime-25512",
        title="The result of QLinearAdd does not match its expected theoretical behavior",
        link=f"{_ISSUES}/25512",
        question="-114 and -122 should add up to -112.50000794, which rounds to -113, but ONNX Runtime says -112.",
        reason=(
            "The tensors have one element, so the broadcaster takes them for a scalar and a vector and swaps them: the last bit of the float32 sum comes"
            " out otherwise, and with it the rounding. Two equal elements already give -113, twice."
        ),
        claims=(
            by_profile("ONNX Runtime, one element", -112, _LONE, "onnxruntime", engine="onnxruntime"),
            by_profile("the formula in NumPy and C", -113, _LONE, "onnx"),
            by_profile("ONNX Runtime, two elements", [-113, -113], _TWO, "onnxruntime", engine="onnxruntime", own=True),
        ),
    ),
    Puzzle(
        name="onnxruntime-32132",
        title="QDQ optimization changes numeric results: fused integer-domain ops off by one or more quantization steps",
        link=f"{_ISSUES}/32132",
        question="Level 2 optimization fuses DequantizeLinear, Add, QuantizeLinear into QLinearAdd, and elements differ by one step: with an output scale of 0.16, not of 0.19.",
        reason=(
            "Apart, every step rounds and the zero point is added after the rounding; QLinearAdd rounds the sum with its zero point inside. Ties to even then"
            " go to the other side where the zero point is odd. The model of the thread is a file; these are all sums of two codes of scale 0.08."
        ),
        claims=(
            by_profile("fused: codes 0 + 1, 3, 5, 7, 9", [0, 2, 2, 4, 4], _FIVE_SUMS, "onnxruntime", engine="onnxruntime", own=True),
            by_profile("apart", [1, 1, 3, 3, 5], _FIVE_SUMS, "onnx", own=True),
            Claim("differing sums beside ties, scale 0.16", 0, lambda: _fused_differs(0.16, beside_ties=True), own=True),
            Claim("differing sums, scale 0.19", 0, lambda: _fused_differs(0.19), own=True),
        ),
    ),
    Puzzle(
        name="onnxruntime-16105",
        title="Unexpected inference output from QLinearConv",
        link=f"{_ISSUES}/16105",
        question="210 * -81 + 198 * -80 + 234 * 127 is wrong on a CPU with AVX2 for first weights of -127 to -81, and right from -80 on.",
        reason=(
            "Without VNNI, uint8 times int8 is vpmaddubsw: two neighbouring products are added in int16 with saturation. 210 * -81 + 198 * -80 = -32850"
            " is below -32768; with -80 the pair is -32640 and fits."
        ),
        claims=(
            Claim("exact accumulator", -3132, lambda: accumulate_linear(_X.values, _W.values, None), own=True),
            Claim("accumulator with AVX2", -3050, lambda: accumulate_linear(_X.values, _W.values, saturating_product("onnxruntime", "linear", "avx2")), own=True),
            Claim("first weights, of -127 to 127, that are wrong with AVX2", [-127, -81], _wrong_weights),
        ),
    ),
)
