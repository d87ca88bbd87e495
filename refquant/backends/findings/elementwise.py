"""Findings about sums, products, functions, pools and concatenation."""

import numpy as np

from refquant.backends.findings.finding import Finding, by, case, codes, of
from refquant.core.layout import to_channels_last
from refquant.core.qparams import QParams
from refquant.core.qtensor import QTensor
from refquant.numerics import get
from refquant.verify.problem import Problem, oracle

__all__ = ["ELEMENTWISE"]


def _pair(op, a, b, out, count=1):
    return of(op, a=codes([1] * count, a), b=codes([1] * count, b), out=out)


def _threads():
    a = codes([1] * 40000, 0.25)
    return Problem("add", {"a": a, "b": a, "out": QParams(1.0, 1, "uint8"), "threads": 3})


def _one_thread(problem):
    return oracle(Problem("add", {**problem.arguments, "threads": 1}), "fbgemm")


def _sum_of_negated(problem):
    b = problem["b"]
    negated = QTensor(-b.values, QParams(b.qparams.scale, -b.qparams.zero_point, "int8"))
    return oracle(Problem("add", {"a": problem["a"], "b": negated, "out": problem["out"]}), "tflite_opt")


def _rounded_roots(problem):
    return oracle(problem, get("tflite_ref").replace(function={"sqrt": "half_even"}))


def _first_for_all(problem):
    y = oracle(problem, "fbgemm")
    return np.full_like(y, y.flat[0])


def _transposed():
    a = codes(np.ones((64, 2)), 0.25)
    view = QTensor(a.values.T, a.qparams)
    return Problem("add", {"a": view, "b": view, "out": QParams(1.0, 1, "uint8")})


def _as_a_copy(problem):
    a, b = (QTensor(np.ascontiguousarray(problem[name].values), problem[name].qparams) for name in "ab")
    return oracle(Problem("add", {**problem.arguments, "a": a, "b": b}), "fbgemm")


def _cut():
    return Problem("softmax", {"x": QTensor(np.uint8([[0, 0, 255], [0, 255, 0]])[:, :2], QParams(1.0, 0, "uint8")), "dim": 1})


def _window(zero, total, last):
    x = np.full((1, 16, 2, 2), zero, np.uint8)
    x[0, :, 0, 0] += total
    return QTensor(to_channels_last(x) if last else x, QParams(1.0, zero, "uint8"))


def _in_order(problem):
    x = problem["x"]
    plain = QTensor(np.ascontiguousarray(x.values), x.qparams)
    return oracle(Problem(problem.op, {**problem.arguments, "x": plain}), "fbgemm")


def _first_of_two(problem):
    twice = {name: QTensor(np.repeat(problem[name].values, 2), problem[name].qparams) for name in ("a", "b")}
    return oracle(Problem("add", {**problem.arguments, **twice}), "onnxruntime")[:1]


_ONE_ELEMENT = "add/onnxruntime/n1/neartie/seed=3"
_HALF = QParams(1.0, 1, "uint8")
_QUARTER = np.array([1, 1, 0, 0], np.int8).reshape(1, 1, 2, 2)

ELEMENTWISE = (
    Finding(
        name="the-last-elements-round-another-way", engine="fbgemm",
        title="In PyTorch's elementwise kernels the last numel % 64 elements round another way",
        text="The vector body adds the zero point after rounding, the scalar tail before. 65 equal sums on a tie do not come out equal.",
        problem=_pair("add", 0.25, 0.25, _HALF, 65), expect=_first_for_all, expected_by="to be all equal",
    ),
    Finding(
        name="bits-depend-on-threads", engine="fbgemm",
        title="The result of quantized::add depends on the number of threads",
        text="Above 32,768 elements each thread gets a share with a vector body and a tail of its own, so other elements are tail.",
        problem=_threads, expect=_one_thread, expected_by="as on one thread",
    ),
    Finding(
        name="a-transpose-is-all-tail", engine="fbgemm",
        title="x.t() + x.t() is not (x + x).t()",
        text="Vector loops take rows that lie side by side in input and output; outputs are contiguous, so that of a transposed view everything is scalar code, and of a slice each row has a tail.",
        problem=_transposed, expect=_as_a_copy, expected_by="as of contiguous copies",
    ),
    Finding(
        name="tail-of-an-activation", engine="fbgemm",
        title="Activations too: 65 equal codes do not give 65 equal codes",
        text="So a layer's bits depend on the batch size, which decides where the tail begins.",
        problem=of("leaky_relu", x=codes([1] * 65, 0.5), out=_HALF), expect=_first_for_all, expected_by="to be all equal",
    ),
    Finding(
        name="qnnpack-adds-half-away", engine="qnnpack",
        title="QNNPACK rounds the half of a sum away from zero, ATen to even",
        text="Its integer shift with a correction for the sign rounds half away; 1/2 becomes 1 where every other engine of PyTorch gives 0.",
        problem=of("add", a=codes([1], 0.5), b=codes([0], 0.5), out=QParams(1.0, 0, "uint8")), expect=by("fbgemm"), expected_by="as in FBGEMM",
    ),
    Finding(
        name="zero-point-inside-the-sum", engine="onnxruntime",
        title="QLinearAdd and QLinearMul round the zero point too, QLinearMatMul does not",
        text="Within one engine a tie goes two ways: elementwise operators add the zero point before rounding, products after.",
        problem=_pair("mul", 0.5, 1.0, _HALF), expect=by("onnx"), expected_by="of round(v) + zero_point",
    ),
    Finding(
        name="folded-zero-points", engine="onnxruntime",
        title="QLinearAdd folds the zero points into one float32 constant",
        text="fma(a, ra, fma(b, rb, k)) on raw codes: no operand is ever dequantized, and the constant's rounding moves near-ties.",
        problem=case("add/onnxruntime/n16/neartie/seed=0"), expect=by("onnx"), expected_by="of dequantize, add, quantize",
    ),
    Finding(
        name="one-element-swaps-operands", engine="onnxruntime",
        title="The sum of one-element tensors is another one in ONNX Runtime",
        text="Its broadcaster takes a single element for a scalar and puts it second, so the fused steps run in the other order.",
        problem=case(_ONE_ELEMENT), expect=_first_of_two, expected_by="as the first of two such elements",
    ),
    Finding(
        name="huge-sums-are-the-smallest-code", engine="onnxruntime",
        title="A sum far beyond the range of codes gives the smallest one in ONNX Runtime",
        text="QLinearAdd converts to int32 before it saturates, and what does not fit there becomes -2**31: 255 where the quotient is 2**30, 0 where it is 2**31.",
        problem=_pair("add", 2.0**20, 2.0**20, QParams(2.0**-11, 0, "uint8")), expect=by("onnx"), expected_by="of saturation",
    ),
    Finding(
        name="memory-format-changes-the-mean", engine="fbgemm",
        title="avg_pool2d gives other codes in channels_last than in the default memory format",
        text="Channels-last kernels add the zero point after rounding, contiguous ones before: with an odd zero point every tie differs.",
        problem=lambda: Problem("avg_pool2d", {"x": _window(1, 2, True), "kernel_size": 2}), expect=_in_order, expected_by="as in the default memory format",
    ),
    Finding(
        name="mean-half-away", engine="tflite_ref",
        title="TFLite's AVERAGE_POOL_2D rounds raw codes half away from zero",
        text="No scale and no zero point: (sum + n/2) / n in integers, in all three resolvers. Other engines round half to even.",
        problem=of("avg_pool2d", x=QTensor(_QUARTER, QParams(1.0, 0, "int8")), kernel_size=2), expect=by("onnx"), expected_by="of round half to even",
    ),
    Finding(
        name="pools-add-the-zero-point-first", engine="qnnpack",
        title="QNNPACK's pools round before the zero point, ATen's contiguous ones after it",
        text="A mean of a half above the zero point 1: QNNPACK gives 1, FBGEMM's path the even code.",
        problem=of("avg_pool2d", x=_window(1, 2, False), kernel_size=2), expect=by("fbgemm"), expected_by="as in FBGEMM",
    ),
    Finding(
        name="maxima-from-outside-the-window", engine="qnnpack", numerics="qnnpack+nearest_pixels",
        title="QNNPACK's max pool with padding and dilation takes pixels that are not in the window",
        text="For a tap outside of the image its indirection buffer points to the nearest pixel, of uint8. Without dilation that pixel is in the window anyway; "
        "with dilation it may lie between two taps, and its maximum counts. ATen's kernel, which ceil_mode leads to, leaves such taps out.",
        problem=of("max_pool2d", x=codes([[[[9, 1, 2, 3]]]], 1.0, 0), kernel_size=(1, 2), stride=1, padding=(0, 1), dilation=(1, 2)),
        expect=by("qnnpack"), expected_by="of the pixels of the window",
    ),
    Finding(
        name="a-softmax-of-the-gaps", engine="qnnpack", numerics="qnnpack+softmax_in_a_line",
        title="QNNPACK's softmax of a slice reads what the slice leaves out",
        text="Where neighbours along the axis lie side by side, PyTorch hands over the tensor's memory as it is, one row behind the other; only along another axis it makes a copy first. "
        "The columns that a slice cuts off are read as the next row's.",
        problem=_cut, expect=by("qnnpack"), expected_by="of the slice itself",
    ),
    Finding(
        name="concatenation-moves-ties", engine="fbgemm",
        title="quantized::cat rounds by memory format: after the zero point or before",
        text="qcat_nhwc has a vector body of its own and copies inputs that share the output's parameters; the other path dequantizes and quantizes.",
        problem=case("cat/fbgemm/n1h2w2-c8/neartie/seed=4/channels_last"), expect=by("onnx"), expected_by="of dequantize and quantize",
    ),
    Finding(
        name="three-sums", engine="tflite_ref",
        title="TFLite's ADD has a third arithmetic: inputs shifted left by 20 bits, three integer multipliers",
        text="XNNPACK has two multipliers and one shift, the optimized kernels round the first two steps half up.",
        problem=case("add/tflite_ref/n16/neartie/seed=4/int8"), expect=by("xnnpack"), expected_by="as in XNNPACK",
    ),
    Finding(
        name="optimized-sums", engine="tflite_opt",
        title="TFLite's optimized ADD differs from its reference",
        text="Sixteen sums at a time merge the shift into the multiplication and round it half up.",
        problem=case("add/tflite_opt/n16/neartie/seed=68/int8"), expect=by("tflite_ref"), expected_by="as in the reference kernel",
    ),
    Finding(
        name="sums-wrap-at-16-bits", engine="tflite_opt",
        title="TFLite's optimized ADD turns a sum far below the output's range into its highest code",
        text="Sixteen sums at a time keep their low 16 bits before they are limited to a code: an input of 300 times the output's scale gets there.",
        problem=of("add", a=codes([-128] * 16, 300.0, 0, "int8"), b=codes([0] * 16, 1.0, 0, "int8"), out=QParams(1.0, 0, "int8")),
        expect=by("tflite_ref"), expected_by="as in the reference kernel",
    ),
    Finding(
        name="roots-are-cut-off", engine="tflite_ref",
        title="TFLite's SQRT cuts off what lies behind the code, by which roots come out half a step too small on average",
        text="elementwise.cc converts the quotient to int without rounding; EXP and LOG round by a table, RSQRT in integers.",
        problem=of("sqrt", x=codes([1, 2, 3, 15, 16], 1.0, 0, "int8"), out=QParams(1.0, 0, "int8")), expect=_rounded_roots, expected_by="of roots to the nearest",
    ),
    Finding(
        name="differences-are-no-sums", engine="tflite_opt",
        title="TFLite's optimized resolver subtracts otherwise than it adds the negated tensor",
        text="ADD rounds sixteen sums at a time half up, SUB takes the reference sum with the second multiplier negated, half away from zero.",
        problem=case("sub/tflite_opt/n16/neartie/seed=98/int8"), expect=_sum_of_negated, expected_by="as ADD of the negated codes",
    ),
)  # fmt: skip
