"""Float operators of ONNX models against a live ONNX Runtime, where it rounds in a known order or by functions of its own: every bit."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from test_onnx_runtime import HERE, both, fed, fixed, run_node, single_node  # noqa: E402

from refquant.interop import from_onnx  # noqa: E402


@pytest.mark.parametrize("side", [1, 2, 3, 7, 14, 57])
def test_float_operators_that_round_in_a_known_order(side):
    rng = np.random.default_rng(11)
    x = rng.standard_normal((8, 64, side, side)).astype(np.float32)
    scale, bias, mean = (rng.standard_normal(64).astype(np.float32) for _ in range(3))
    norm = {"x": fed(x), "s": fixed(scale), "b": fixed(bias), "m": fixed(mean), "v": fixed(np.abs(mean) + np.float32(0.1))}
    run_node("BatchNormalization", norm, "float32", 1, domain="")
    run_node("GlobalAveragePool", {"x": fed(x)}, "float32", 1, domain="")
    run_node("Sigmoid", {"x": fed(x * 6)}, "float32", 1, domain="")
    run_node("LeakyRelu", {"x": fed(x)}, "float32", 1, domain="", alpha=0.3)
    if side > 2:
        run_node("AveragePool", {"x": fed(x)}, "float32", 1, domain="", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        run_node("MaxPool", {"x": fed(x)}, "float32", 1, domain="", kernel_shape=[3, 3])


def numbers(size):
    rng = np.random.default_rng(size)
    special = [np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-40, -1e-40, 18, -18, 9, -9, 3.925, 0.921875, -0.921875, 88.8, -87.4, -88, -104, -105, 200, -200, 3e38, -3e38]
    return np.concatenate([special, *(rng.normal(0, s, size) for s in (0.01, 0.3, 1, 5, 30))]).astype(np.float32)


FLOAT_FUNCTIONS = {
    "Sigmoid": {}, "Tanh": {}, "Erf": {}, "Gelu": {}, "Gelu by tanh": {"approximate": "tanh"}, "Elu": {"alpha": 0.3},
}  # fmt: skip


@pytest.mark.parametrize("name", FLOAT_FUNCTIONS)
def test_float_functions(name):
    """The engine's own functions of float32, and not those of the C library, which differ in thousands of places."""
    x = numbers(20000)
    for cut in (x[:3], x[:-1], x):
        model = single_node(name.split()[0], {"x": fed(cut)}, {"y": "float32"}, **FLOAT_FUNCTIONS[name])
        ref, comp = both(model, {"x": cut}, threads=1)
        assert_equal_numbers(ref, comp)
    assert np.count_nonzero(ref[0] != from_onnx(model, as_graph=False).run(x)[0]) > 1000


def assert_equal_numbers(ref, comp):
    """Require equal bits, but for the sign and payload of a NaN."""
    for r, c in zip(ref, comp, strict=True):
        assert r.dtype == c.dtype and r.shape == c.shape and np.array_equal(np.isnan(r), np.isnan(c))
        assert np.array_equal(r.view(np.int32)[~np.isnan(r)], c.view(np.int32)[~np.isnan(r)])


@pytest.mark.parametrize("opset", [12, 13])
def test_float_softmax(opset):
    if HERE == "onnxruntime":
        pytest.skip("this processor has no use for AVX2: MLAS takes its kernel for AVX-512")
    rng = np.random.default_rng(opset)
    edges = np.float32([[1, 2, np.inf], [np.nan, 1, 2], [-np.inf] * 3, [-np.inf, 0, 1], [-200, 0, 100], [3e38, -3e38, 0], [0, -87.7, -87.3], [0, -88.2, -88.5]])
    for x in (edges, rng.normal(0, 5, (40, 37)), rng.normal(0, 30, (3, 50, 8)), rng.normal(0, 1, (2, 3, 100)), np.zeros((0, 3)), np.zeros((3, 0))):
        x = np.float32(x)
        for axis in range(x.ndim):
            model = single_node("Softmax", {"x": fed(x)}, {"y": "float32"}, axis=axis)
            model.opset_import[0].version = opset
            assert_equal_numbers(*both(model, {"x": x}))
