"""What drawn shapes and far numbers found in ONNX Runtime and OpenVINO, each held against the engine."""

import numpy as np
import pytest

import refquant as rq
from refquant import backends, numerics
from refquant.verify import Problem, oracle

pytestmark = pytest.mark.engine
TOP = np.array([255, 254, 0, 1], np.uint8)


@pytest.fixture(scope="module")
def runtime():
    pytest.importorskip("onnxruntime")
    return backends.load("onnxruntime")


def agree(engine, problem, profile=None):
    """Assert that engine and oracle give the same bits, by kernel and in NumPy; return them."""
    profile = engine.profile if profile is None else profile
    bits = engine.run(problem)
    assert engine.supports(problem) is None
    for reference in (False, True):
        np.testing.assert_array_equal(bits, oracle(problem, profile, reference=reference))
    return bits


@pytest.mark.parametrize("kernel", [(3,), (2, 3), (2, 1, 3)], ids=str)
@pytest.mark.parametrize("outputs", [1, 2])
def test_one_channel_to_one_is_a_depthwise_convolution(runtime, kernel, outputs):
    """MLAS's depthwise kernel, which does not saturate, takes a single group, too; of two output channels pairs saturate below VNNI."""
    rng = np.random.default_rng(outputs)
    x = rq.QTensor(rng.choice(TOP, (2, 1, *(6,) * len(kernel))), rq.QParams(0.01, 128, "uint8"))
    w = rq.QTensor(rng.choice(np.array([127, 126, -128], np.int8), (outputs, 1, *kernel)), rq.QParams(0.02, 0, "int8"))
    problem = Problem(f"conv{len(kernel)}d", {"x": x, "w": w, "bias": None, "stride": 1, "padding": 1, "dilation": 1, "groups": 1, "out": rq.QParams(0.1, 128, "uint8")})
    bits = agree(runtime, problem)
    held = "onnxruntime@avx2"
    assert np.array_equal(oracle(problem, held), oracle(problem, "onnxruntime")) == (outputs == 1)
    assert bits.shape[1] == outputs


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("shapes", [((4, 37), (4, 37)), ((4, 1), (1, 37)), ((1,), (70,)), ((70,), (1,)), ((1,), (1,))], ids=str)
def test_sums_beyond_int32_are_the_smallest_code(runtime, shapes, dtype):
    """Ratios of scales over the whole of float32, infinite ones and NaN among them."""
    rng, low = np.random.default_rng(7), 0 if dtype == "uint8" else -128
    saturating = numerics.get(runtime.profile).replace(add={"overflow": "saturate"})
    told = 0
    for _ in range(40):
        q = [rq.QParams(float(2.0 ** rng.uniform(-126, 120)) if rng.random() < 0.6 else 2.0 ** rng.integers(-30, 10), int(low + rng.choice([0, 3, 255])), dtype) for _ in range(3)]
        a, b = (rq.QTensor(rng.integers(low, low + 256, shape).astype(dtype), p) for shape, p in zip(shapes, q))
        problem = Problem("add", {"a": a, "b": b, "out": q[2], "activation": None})
        told += not np.array_equal(agree(runtime, problem), oracle(problem, saturating))
    assert told > 3
