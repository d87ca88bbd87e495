"""ONNX's own conformance cases: the quantized ones bit for bit, every other one right or refused."""

import re
import unittest
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
warnings.simplefilter("ignore", RuntimeWarning)

from onnx import numpy_helper  # noqa: E402
from onnx.backend.test.loader import load_model_tests  # noqa: E402

from refquant.errors import ArgumentError, UnsupportedError  # noqa: E402
from refquant.interop import RefquantBackend, from_onnx  # noqa: E402

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    NODE_CASES = load_model_tests(kind="node")

_LOW = r"FLOAT8|FLOAT4|FLOAT6|INT4|INT2"
_OPERATORS = r"test_(quantizelinear|dequantizelinear|qlinearmatmul|qlinearconv|convinteger|matmulinteger|dynamicquantizelinear)"
QUANTIZED = [c for c in NODE_CASES if re.match(_OPERATORS, c.name) or (re.match(r"test_cast(like)?_", c.name) and re.search(_LOW, c.name))]
RIGHT = 1414
#: Its outputs are written with four decimals; its numbers are float16. Every other case agrees to 1e-4.
COARSE = ("test_averagepool_2d_ceil_last_window_starts_on_pad", "test_swiglu_float16_expanded")
FILES = sorted(Path(onnx.__file__).parent.joinpath("backend/test/data").glob("*/*/model.onnx"))


def array(value):
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def assert_bits(comp, ref, name):
    assert len(comp) == len(ref), name
    for c, r in zip(comp, ref):
        assert isinstance(c, np.ndarray) and c.dtype == r.dtype and c.shape == r.shape, f"{name}: {c.dtype} {c.shape} instead of {r.dtype} {r.shape}"
        assert c.tobytes() == r.tobytes(), f"{name}: {c} instead of {r}"


@pytest.mark.parametrize("case", QUANTIZED, ids=lambda c: c.name)
def test_quantized_case_bit_for_bit(case):
    prepared = RefquantBackend.prepare(case.model)
    assert case.data_sets
    for inputs, outputs in case.data_sets:
        assert_bits(prepared.run([array(i) for i in inputs]), [array(o) for o in outputs], case.name)


def test_how_many_quantized_cases_there_are():
    count = {p: sum(bool(re.match(p, c.name)) for c in QUANTIZED) for p in ("test_quantizelinear", "test_dequantizelinear", "test_qlinear", "test_cast")}
    assert len(QUANTIZED) >= 193 and all(count.values())
    if onnx.__version__.startswith("1.23."):
        assert len(QUANTIZED) == 193 and count == {"test_quantizelinear": 13, "test_dequantizelinear": 14, "test_qlinear": 9, "test_cast": 148}


def test_one_bit_more_is_found():
    case = next(c for c in QUANTIZED if c.name == "test_quantizelinear")
    inputs, outputs = case.data_sets[0]
    comp = RefquantBackend.run_model(case.model, [array(i) for i in inputs])
    wrong = array(outputs[0]).copy()
    wrong.view(np.uint8).reshape(-1)[0] ^= 1
    with pytest.raises(AssertionError, match="instead of"):
        assert_bits(comp, [wrong], case.name)


def by_backend(model):
    return RefquantBackend.prepare(model).run


def by_import(numerics):
    """Import as `from_onnx` does by default: as a graph where there is one, fused for ONNX Runtime."""

    def ready(model):
        imported = from_onnx(model, numerics=numerics)
        return lambda inputs: imported.run(*inputs)

    return ready


def outcome(model, data_sets, rtol, atol, ready=by_backend):
    """Return "right" or "refused"; a wrong answer, or another error than one that names the operator, is a failure."""
    try:
        run = ready(model)
        for inputs, outputs in data_sets:
            for c, r in zip(run([array(i) for i in inputs]), map(array, outputs), strict=True):
                assert c.shape == r.shape and (c.dtype == r.dtype or c.dtype.kind in "OU")
                if r.dtype.kind in "OU":
                    assert np.array_equal(c.astype(str), r.astype(str))
                elif r.dtype.kind in "biu":
                    assert np.array_equal(c, r)
                else:
                    np.testing.assert_allclose(c.astype(np.complex128), r.astype(np.complex128), rtol=rtol, atol=atol)
    except UnsupportedError as error:
        named = [node for i, node in enumerate(model.graph.node) if f"{node.op_type} {node.name or f'{node.op_type}_{i}'!r}" in str(error)]
        assert named, error
        return "refused"
    return "right"


@pytest.mark.parametrize("ready", [by_backend, by_import("onnx"), by_import("onnxruntime")], ids=["backend", "onnx", "onnxruntime"])
def test_every_case_is_right_or_refused_by_name(ready):
    outcomes = {case.name: outcome(case.model, case.data_sets, 1e-3 if case.name in COARSE else 1e-4, 1e-7, ready) for case in NODE_CASES}
    right = [name for name, o in outcomes.items() if o == "right"]
    assert len(right) >= 1400, len(right)
    if onnx.__version__.startswith("1.23."):
        assert Counter(outcomes.values()) == {"right": RIGHT, "refused": len(NODE_CASES) - RIGHT}
    for op in ("add_bcast", "conv_with_strides_padding", "maxpool_2d_ceil", "gemm_all_attributes", "resize_upsample_sizes_nearest", "softmax_axis_1", "top_k"):
        assert f"test_{op}" in right


def test_a_wrong_answer_and_an_unclear_refusal_are_found():
    case = next(c for c in NODE_CASES if c.name == "test_relu")
    wrong = [[case.data_sets[0][0], [array(case.data_sets[0][1][0]) * np.float32(1.001)]]]
    with pytest.raises(AssertionError, match="tolerance"):
        outcome(case.model, wrong, 1e-4, 1e-7, by_import("onnx"))

    def unclear(model):
        raise UnsupportedError("this model is not supported")

    with pytest.raises(AssertionError, match="not supported"):
        outcome(case.model, case.data_sets, 1e-4, 1e-7, unclear)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.parent.name)
def test_models_with_recorded_outputs(path):
    data_sets = []
    for folder in sorted(path.parent.glob("test_data_set_*")):
        sides = []
        for side in ("input", "output"):
            files = sorted(folder.glob(f"{side}_*.pb"), key=lambda f: int(f.stem.rpartition("_")[2]))
            sides.append([onnx.TensorProto.FromString(f.read_bytes()) for f in files])
        data_sets.append(sides)
    result = outcome(onnx.load(path), data_sets, 1e-3, 1e-7)
    assert result == "right" or "simple" in str(path), path


def test_onnx_runs_its_own_tests_with_the_backend():
    from onnx.backend.test import BackendTest

    tests = BackendTest(RefquantBackend, __name__).include(_OPERATORS.replace("(", "(?:") + ".*_cpu$")
    result = unittest.TestResult()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tests.test_suite.run(result)
    assert result.wasSuccessful(), [str(f)[-500:] for f in (*result.failures, *result.errors)][:2]
    assert result.testsRun - len(result.skipped) >= 45


def test_backend_interface():
    assert RefquantBackend.supports_device("CPU") and not RefquantBackend.supports_device("CUDA")
    node = onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])
    x, scale, zero = np.float32([0.5, 1.5, 2.5]), np.float32(1), np.uint8(1)
    assert RefquantBackend.run_node(node, [x, scale, zero]).y.tolist() == [1, 3, 3]
    assert RefquantBackend.run_node(node, [x, scale, zero], numerics="fbgemm")[0].tolist() == [2, 2, 4]
    case = next(c for c in QUANTIZED if c.name == "test_qlinearconv")
    assert RefquantBackend.is_compatible(case.model)
    unknown = onnx.helper.make_model(onnx.helper.make_graph([onnx.helper.make_node("Scan", ["x"], ["y"], num_scan_inputs=1)], "g", [], []))
    assert not RefquantBackend.is_compatible(unknown)
    with pytest.raises(ArgumentError, match="CPU"):
        RefquantBackend.prepare(case.model, "CUDA:0")


@pytest.mark.parametrize("name", ["onnx", "onnxruntime", "fbgemm", "onednn"])
def test_other_profiles_run_the_products_too(name):
    for case in QUANTIZED:
        if re.match(r"test_(qlinear|convinteger|matmulinteger)", case.name):
            inputs, outputs = case.data_sets[0]
            (comp,) = RefquantBackend.prepare(case.model, numerics=name).run([array(i) for i in inputs])
            ref = array(outputs[0])
            assert_bits([comp], [ref], case.name)
