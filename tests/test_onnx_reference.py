"""ONNX's reference implementation on models of DequantizeLinear, an operator and QuantizeLinear, beside the profile onnx_reference."""

import itertools

import numpy as np
import pytest

pytest.importorskip("onnx")
from onnx.reference import ReferenceEvaluator  # noqa: E402

import refquant as rq  # noqa: E402
from refquant import numerics  # noqa: E402
from refquant.backends.onnx_expansions import EXPANSIONS  # noqa: E402
from refquant.backends.onnx_models import MODELS  # noqa: E402
from refquant.backends.openvino_models import QDQ_MODELS  # noqa: E402
from refquant.errors import UnsupportedError  # noqa: E402
from refquant.ops.support import Support, support  # noqa: E402
from refquant.verify import Problem, build, case_stream, oracle  # noqa: E402

OPS = ("clamp", "hardtanh", "relu6", "prelu", "softmax", "mean", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "max_pool3d", "interpolate", "add", "mul", "cat", "requantize")


def ask(problem):
    small = QDQ_MODELS[problem.op](problem)
    return small.finish(ReferenceEvaluator(small.model).run(None, small.feeds)[0])


def compare(op, profile, outputs):
    """Return (outputs, differing) of default cases."""
    total = differing = 0
    for case in case_stream(op, "onnx_reference", seed=11):
        if case.outputs > (400 if op == "interpolate" else 3000) or case.has("ceil") or case.has("relu"):
            continue
        problem = build(case)
        if problem.get("divisor_override") is not None or problem.get("output_size", 1) not in (1, (1, 1), (1, 1, 1)):
            continue
        try:
            expected = oracle(problem, profile)
            actual = ask(problem)
        except (UnsupportedError, ValueError, RuntimeError):
            continue
        total, differing = total + expected.size, differing + np.count_nonzero(actual != expected)
        if total >= outputs:
            break
    return total, differing


@pytest.mark.parametrize("op", OPS)
def test_default_cases(op):
    outputs = 1_500 if op == "interpolate" else 6_000
    total, differing = compare(op, "onnx_reference", outputs)
    assert total >= outputs
    assert differing == 0


def test_a_fault_shows():
    assert compare("mean", "onnx", 6_000)[1]  # the means of the text, which are no sums in float32
    assert compare("clamp", numerics.get("onnx_reference").replace(clamp={"rounding": "half_away"}), 6_000)[1]


def test_resize_rounds_half_to_even_behind_lines():
    assert support("interpolate", "onnx")[0] is Support.EXACT
    x = rq.QTensor(np.array([[[[0, 1]]]], np.uint8), rq.QParams(1.0, 0, "uint8"))
    problem = Problem("interpolate", {"x": x, "size": (1, 3), "mode": "bilinear", "align_corners": True})
    assert oracle(problem, "onnx").tolist() == ask(problem).tolist() == [[[[0, 0, 1]]]]
    with pytest.raises(UnsupportedError, match="give size, not scale_factor"):
        rq.ops.interpolate(x, scale_factor=2.0, numerics="onnx")


def expand(op, name, profile, outputs):
    """Return (outputs, differing) of default cases of an operator that is several nodes, or of the reference's QLinearMatMul."""
    total = differing = 0
    for case in case_stream(op, name, seed=3):
        # Beyond int32 QuantizeLinear wraps in the reference implementation, where the text saturates.
        if case.has("narrow") or (op in ("matmul", "gemm") and name == "onnx" and case.strategy in ("saturate", "wrap")):
            continue
        problem = build(case)
        single = op == "matmul" and name == "onnx_reference" and problem.get("out") is not None
        small = (MODELS if single else EXPANSIONS)[op](problem)
        with np.errstate(all="ignore"):
            actual, expected = small.finish(ReferenceEvaluator(small.model).run(None, small.feeds)[0]), oracle(problem, profile)
        assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
        codes = f"u{actual.itemsize}"
        total, differing = total + expected.size, differing + np.count_nonzero(np.atleast_1d(actual).view(codes) != np.atleast_1d(expected).view(codes))
        if total >= outputs:
            return total, differing


@pytest.mark.parametrize("op, name", [*itertools.product(["linear_dynamic", "matmul", "where"], ["onnx", "onnx_reference"]), ("gemm", "onnx")])
def test_operators_of_several_nodes(op, name):
    total, differing = expand(op, name, name, 1_000_000)
    assert total >= 1_000_000
    assert differing == 0


def test_a_fault_shows_in_several_nodes():
    onnx = numerics.get("onnx")
    assert expand("linear_dynamic", "onnx", onnx.replace(linear_real={"bias": "int32"}), 100_000)[1]
    assert expand("linear_dynamic", "onnx", onnx.replace(dynamic={"parameters": "aten"}), 100_000)[1]
    assert expand("matmul", "onnx", onnx.replace(linear={"rounding": "half_away"}), 100_000)[1]
    assert expand("gemm", "onnx", onnx.replace(linear={"rounding": "half_away"}), 500_000)[1]
    assert expand("where", "onnx", onnx.replace(quantize={"rounding": "half_away"}), 100_000)[1]
