"""Real engines held against the wrong profile: the diagnosis must say whose bits they are, or what makes them so."""

import os
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest

from refquant import QParams, QTensor, backends, numerics
from refquant.errors import BackendMissing, RefquantError
from refquant.verify import build, case_stream, compare, diagnose, oracle
from refquant.verify.held import profile_here

pytestmark = pytest.mark.engine


def load(name):
    try:
        return backends.load(name)
    except BackendMissing as missing:
        pytest.skip(str(missing))


def differences(runner, wrong, op, wanted):
    """Yield (case, problem, bits) of some cases where an engine's bits are not the wrong profile's on this processor."""
    for case in islice(case_stream(op, runner.profile), 80):
        problem = build(case)
        if not wanted:
            return
        if runner.supports(problem) is not None:
            continue
        try:
            expected = oracle(problem, wrong)
        except RefquantError:
            continue
        bits = runner.run(problem)
        if expected.size < 60000 and not compare(bits, expected, nan_equal=True).exact:
            wanted -= 1
            yield case, problem, bits


PRODUCTS = ("linear", "conv1d", "conv2d", "conv3d")
PAIRS = (
    ("onnxruntime", "onnx", ("linear", "conv2d", "add", "avg_pool2d", "adaptive_avg_pool2d")),
    ("fbgemm", "onednn", ("linear", "conv2d", "conv3d")),
    ("onednn", "fbgemm", ("linear", "conv2d", "conv1d")),
    ("fbgemm", "onnxruntime", ("linear", "conv2d", "add", "quantize", "cat", "avg_pool2d", "dequantize", "fake_quantize")),
    ("qnnpack", "onnx", ("linear", "conv2d", "add", "quantize")),
)


@pytest.mark.parametrize("name, wrong, op", [(e, w, op) for e, w, ops in PAIRS for op in ops])
def test_bits_under_the_wrong_profile_are_explained(name, wrong, op):
    runner, found, wrong = load(name), 0, profile_here(wrong)
    for case, problem, bits in differences(runner, wrong, op, 4):
        d = diagnose(op, actual=bits, numerics=wrong, **problem.arguments)
        # Without VNNI the engines' levels join the search, and saturation alone may explain what else a whole profile would.
        assert d.explained and ({name, runner.profile} & set(d.profiles) or runner.profile != name and op in PRODUCTS), (case, str(d))
        if not d.transformations:
            assert compare(oracle(problem, d.numerics), bits, nan_equal=True).exact, case
        found += 1
    assert found


@pytest.mark.parametrize("name, wrong", [("fbgemm", "onednn"), ("onednn", "fbgemm")])
def test_whole_profiles_are_recognized(name, wrong):
    runner = load(name)
    for seed in range(20):
        problem = build(f"linear/any/m400k64n64/neartie/seed={seed}/per_channel")
        d = diagnose("linear", actual=runner.run(problem), numerics=profile_here(wrong), **problem.arguments)
        if d.names == (f"profile[{profile_here(name)}]",):
            assert d.numerics.name == profile_here(name) and len(d.means) > 1, str(d)
            return
    raise AssertionError("no seed needs the whole profile")


_NARROW = """
import sys, numpy as np
from refquant import backends
from refquant.verify import build
np.save(sys.argv[2], backends.load("onednn").run(build(sys.argv[1])))
"""


@pytest.mark.parametrize("line, cause", [
    ("linear/onednn/m40k64n48/pairs/seed=1/per_channel", "int16_pairs[pairs]"),
    ("conv2d/onednn/n1c16h8w8-oc16k3p1/pairs/seed=1/per_channel", "int16_pairs[pairs_inner, skipping the padding]"),
    ("conv2d/onednn/n1c3h8w8-oc16k3/pairs/seed=1/per_channel", "int16_pairs[pairs_taps]"),
])  # fmt: skip
def test_a_cpu_without_vnni_is_recognized(line, cause, tmp_path):
    """oneDNN made to use its AVX2 kernels saturates pairs of products to int16."""
    load("onednn")
    path = tmp_path / "bits.npy"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", _NARROW, line, str(path)], check=True, env=environment)
    problem, bits = build(line), np.load(path)
    if compare(bits, oracle(problem, "onednn")).exact:
        pytest.skip("this build of oneDNN does not obey ONEDNN_MAX_CPU_ISA")
    d = diagnose(problem.op, actual=bits, numerics="onednn", **problem.arguments)
    assert d.explained and cause in {*d.names, *(name for e in d.alternatives for name in e.names)}, str(d)


def test_the_onnx_reference_adds_the_zero_point_too_early():
    """onnx.reference's QLinearMatMul is not what its own text says."""
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (64, 8), np.uint8), rng.integers(-128, 128, (8, 64), np.int8)
    names = ("a", "sa", "za", "b", "sb", "zb", "sy", "zy")
    values = (a, np.float32(0.5), np.uint8(128), b, np.float32(0.25), np.int8(0), np.float32(16.0), np.uint8(129))
    node = helper.make_node("QLinearMatMul", names, ["y"])
    inputs = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(np.asarray(v).dtype), np.shape(v)) for n, v in zip(names, values)]
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", TensorProto.UINT8, (64, 64))])
    (bits,) = ReferenceEvaluator(helper.make_model(graph)).run(None, dict(zip(names, values)))
    arguments = dict(x=QTensor(a, QParams(0.5, 128, "uint8")), w=QTensor(b.T.copy(), QParams(0.25, 0, "int8")), out=QParams(16.0, 129, "uint8"))
    d = diagnose("linear", actual=bits, numerics="onnx", **arguments)
    assert d.causes == ("adds the zero point before rounding",) and "onnx_reference" in d.profiles
    np.testing.assert_array_equal(oracle(type(d.problem)("linear", arguments), numerics.get("onnx_reference")), bits)
