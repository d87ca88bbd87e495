"""Products whose weights alone are quantized: refused exactly where ONNX Runtime makes a MatMulNBits of them."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
ml_dtypes = pytest.importorskip("ml_dtypes")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from test_onnx_runtime import HERE  # noqa: E402

from refquant.errors import UnsupportedError  # noqa: E402
from refquant.interop import from_onnx  # noqa: E402

K, N = 64, 32
SCALES = {
    "tensor": ((), {}), "one": ((1,), {}), "columns": ((N,), {"axis": 1}), "columns by default": ((N,), {}), "rows": ((K,), {"axis": 0}),
    "blocks of 16": ((4, N), {"axis": 0, "block_size": 16}), "blocks of 8": ((8, N), {"axis": 0, "block_size": 8}), "blocks along N": ((K, 2), {"axis": 1, "block_size": 16}),
}  # fmt: skip


def weights_only(kind="int4", scales="tensor", op="MatMul", zero=True, bias=None, behind=None, twice=False, leading=(), **attrs):
    """Return a model of a product of real numbers with quantized weights."""
    rng, (shape, where) = np.random.default_rng(0), SCALES[scales]
    dtype = np.dtype(getattr(ml_dtypes, kind) if hasattr(ml_dtypes, kind) else kind)
    constants = {"w": rng.integers(0, 2, (*leading, K, N)).astype(dtype), "s": rng.uniform(0.01, 0.1, shape).astype(np.float32)}
    names = ["w", "s"]
    if zero:
        constants["z"] = np.zeros(shape, dtype)
        names.append("z")
    nodes, inputs = [helper.make_node("DequantizeLinear", names, ["wd"], **where)], ["x", "wd"]
    if bias:
        constants["b"] = rng.standard_normal(bias).astype(np.float32)
        inputs.append("b")
    nodes.append(helper.make_node(op, inputs, ["y"], "product", **attrs))
    outputs = ["y"]
    if behind:
        constants |= {"sy": np.float32(0.1), "zy": np.uint8(3)}
        nodes.append(helper.make_node("QuantizeLinear", ["y", "sy", "zy"], ["yq"]))
        outputs = ["yq"]
    if twice:
        nodes.append(helper.make_node("Neg", ["wd"], ["other"]))
        outputs.append("other")
    made = [helper.make_tensor_value_info(n, TensorProto.UINT8 if n == "yq" else TensorProto.FLOAT, None) for n in outputs]
    columns = N if attrs.get("transB") else K
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [columns, 5] if attrs.get("transA") else [5, columns])
    graph = helper.make_graph(nodes, "g", [x], made, [numpy_helper.from_array(v, k) for k, v in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=11)


def blocks(model, folder):
    """Whether ONNX Runtime's optimized model has a MatMulNBits."""
    options = ort.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 4, str(folder / "optimized.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return any(n.op_type == "MatMulNBits" for n in onnx.load(folder / "optimized.onnx").graph.node)


def refused(model):
    try:
        from_onnx(model, numerics=HERE, as_graph=False)
    except UnsupportedError as error:
        assert "MatMulNBits" in str(error) and "'product'" in str(error)
        return True
    return False


@pytest.mark.parametrize("step, count, joined", [(0.1, 1, True), (0.1, 2, True), (0.0, 2, False)])
def test_scales_of_one_value_are_one_constant(step, count, joined, tmp_path):
    rng, nodes, constants = np.random.default_rng(0), [], {}
    for i in range(count):
        constants |= {f"w{i}": rng.integers(0, 99, (K, N)).astype(np.int8), f"s{i}": np.float32(0.1 + step * i), f"z{i}": np.int8(0)}
        nodes += [helper.make_node("DequantizeLinear", [f"{n}{i}" for n in "wsz"], [f"d{i}"]), helper.make_node("MatMul", ["x", f"d{i}"], [f"y{i}"], "product" if not i else None)]
    made = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, None) for i in range(count)]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, K])], made, [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    assert refused(model) == blocks(model, tmp_path) == joined


CASES = [
    *({"kind": kind, "scales": scales, "zero": zero} for kind in ("int4", "uint4", "int8", "uint8") for scales in SCALES for zero in (True, False)),
    *({"op": "Gemm", **extra} for extra in ({}, {"bias": N}, {"bias": (1, N)}, {"bias": N, "beta": 0.5}, {"alpha": 2.0}, {"transB": 1}, {"transA": 1}, {"alpha": 1.0000001})),
    {"behind": True}, {"twice": True}, {"leading": (2,)}, {"leading": (1,)},
]  # fmt: skip


def test_refused_where_the_engine_makes_blocks(tmp_path):
    found = []
    for case in CASES:
        model = weights_only(**case)
        found.append(blocks(model, tmp_path))
        assert refused(model) == found[-1], case
    assert 20 < sum(found) < len(found) - 20


def test_what_is_refused_differs_by_more_than_last_bits():
    model, x = weights_only("int8", "columns"), np.random.default_rng(1).standard_normal((5, K)).astype(np.float32)
    (fast,) = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    (plain,) = from_onnx(model, numerics=HERE, as_graph=False, fuse_qdq=False)(x)
    assert np.abs(fast - plain).max() > 1e-4
